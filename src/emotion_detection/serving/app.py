"""The app of the service: its routes, behind the checks of each request."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version as installed_version
from types import FrameType
from typing import Any

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from emotion_detection.errors import EmotionDetectionError
from emotion_detection.serving import NO_TELEMETRY
from emotion_detection.serving.access import AccessMiddleware, AllowedHosts, RootPathMiddleware
from emotion_detection.serving.answers import handle_http, handle_known, handle_validation
from emotion_detection.serving.comparison import Comparison
from emotion_detection.serving.limits import LimitMiddleware
from emotion_detection.serving.plain_api import PlainApi
from emotion_detection.serving.protocol import FAILURES, Protocol
from emotion_detection.serving.refusals import RequestError
from emotion_detection.serving.request_log import JsonFormatter, RequestLogMiddleware, Write, write_line
from emotion_detection.serving.service import Service
from emotion_detection.serving.settings import Settings
from emotion_detection.serving.tensors import InferRequest
from emotion_detection.serving.tokens import TokenMiddleware

DESCRIPTION = "Reads facial expressions. It reads expressions, not feelings: nobody can see feelings in a picture."
SCHEMA = "#/components/schemas/{model}"


def create_app(settings: Settings) -> FastAPI:
    """The app of a process that serves nothing else: the logs of all libraries become lines of JSON."""
    handler = logging.StreamHandler(sys.__stdout__)
    handler.setFormatter(JsonFormatter())
    for name, level in (("emotion_detection", logging.INFO), ("uvicorn", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # the sender gets the error
    return build_app(Service(settings))


def build_app(service: Service, *, write: Write = write_line) -> FastAPI:
    """The app for a service, which it starts and closes. write: gets a dictionary for each answered request."""
    listening = service.settings.listening
    app: FastAPI = FastAPIOffline(
        title="Emotion detection",
        description=DESCRIPTION,
        version=installed_version("emotion-detection"),
        lifespan=_lifespan(service),
        telemetry=NO_TELEMETRY,
    )
    app.openapi = lambda: openapi(app, with_token=service.settings.token is not None)  # type: ignore[method-assign]
    for error, handler in (
        (EmotionDetectionError, handle_known),
        (HTTPException, handle_http),
        (RequestValidationError, handle_validation),
    ):
        app.add_exception_handler(error, handler)
    add_routes(app, service)
    # The last one is called first.
    app.add_middleware(LimitMiddleware, limits=service.limits)
    if service.settings.token is not None:
        app.add_middleware(TokenMiddleware, token=service.settings.token)
    app.add_middleware(AccessMiddleware, hosts=AllowedHosts(listening.host, listening.allowed_hosts))
    app.add_middleware(RequestLogMiddleware, metrics=service.metrics, write=write)
    if listening.root_path:
        app.add_middleware(RootPathMiddleware, root_path=listening.root_path)
    return app


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the plain API, the protocol, the metrics and the page that names them."""

    async def about() -> Response:
        model = service.served.current if service.served.ready else None
        return JSONResponse(
            {
                "name": "emotion-detection",
                "description": DESCRIPTION,
                "version": installed_version("emotion-detection"),
                "model": model and {"name": model.name, "version": model.version, "sha256": model.sha256},
                "ready": service.ready,
                "documentation": "/docs",
                "recognize": "/v1/recognize",
                "open_inference_protocol": "/v2",
                "metrics": "/metrics",
            }
        )

    async def metrics() -> Response:
        content = await asyncio.to_thread(service.metrics_text)
        return Response(content, headers={"content-type": service.metrics.content_type})

    async def shadow() -> Response:
        if service.shadow is None:
            raise RequestError(404, "There is no challenger: start the service with --shadow.")
        return Response(service.shadow.evidence().model_dump_json(), media_type="application/json")

    app.add_api_route("/", about, summary="What this is", operation_id="about", response_model=None)
    app.include_router(PlainApi(service).router)
    app.include_router(Protocol(service).router)
    app.add_api_route(
        "/v1/shadow",
        shadow,
        summary="How far champion and challenger agree",
        operation_id="shadow",
        responses={200: {"model": Comparison}, 404: FAILURES[404]},
        response_model=None,
    )
    app.add_api_route(
        "/metrics", metrics, summary="For Prometheus", operation_id="metrics", response_class=PlainTextResponse
    )


def openapi(app: FastAPI, *, with_token: bool) -> dict[str, Any]:
    """The description of the API, with the bodies that the routes read themselves."""
    if app.openapi_schema is None:
        about = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = about["components"]["schemas"]
        schemas |= models_json_schema([(InferRequest, "validation")], ref_template=SCHEMA)[1]["$defs"]
        if with_token:
            about["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            about["security"] = [{"token": []}]
        app.openapi_schema = about
    return app.openapi_schema


def _lifespan(service: Service) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        _drain_on_sigterm(service)
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)

    return lifespan


def _drain_on_sigterm(service: Service) -> None:
    """Answer for `drain_s` after SIGTERM, but say that the service is not ready. Then the server ends as it does."""
    loop = asyncio.get_running_loop()
    try:
        end = signal.getsignal(signal.SIGTERM)
        if not callable(end):  # no server has installed its own handler
            return

        def drain(number: int, frame: FrameType | None) -> None:
            if service.draining:  # a second signal does not wait
                end(number, frame)
                return
            service.draining = True
            loop.call_soon_threadsafe(loop.call_later, service.settings.drain_s, end, number, frame)

        signal.signal(signal.SIGTERM, drain)
    except ValueError:  # not the main thread, which alone gets signals
        return
