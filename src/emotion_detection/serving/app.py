"""The app of the service: its routes, behind the checks of each request."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version as installed_version
from types import FrameType
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emotion_detection.errors import EmotionDetectionError
from emotion_detection.serving import NO_TELEMETRY
from emotion_detection.serving.access import AccessMiddleware, AllowedHosts, RootPathMiddleware
from emotion_detection.serving.answers import handle_http, handle_known, handle_validation
from emotion_detection.serving.comparison import Comparison
from emotion_detection.serving.limits import LimitMiddleware
from emotion_detection.serving.plain_api import PlainApi
from emotion_detection.serving.protocol import Error, Protocol
from emotion_detection.serving.refusals import RequestError
from emotion_detection.serving.request_log import JsonFormatter, RequestLogMiddleware, Write, write_line
from emotion_detection.serving.service import Service
from emotion_detection.serving.settings import Settings
from emotion_detection.serving.tensors import InferRequest
from emotion_detection.serving.tokens import TokenMiddleware

DESCRIPTION = "Reads facial expressions. It reads expressions, not feelings: nobody can see feelings in a picture."
SCHEMA = "#/components/schemas/{model}"
FOREIGN = SCHEMA.format(model="HTTPValidationError")
POLICY = b"default-src 'self' 'unsafe-inline' data: blob:"
CLOSE_S = 2  # after the last answer, for a picture that nobody waits for any more


class AboutModel(BaseModel):
    """The model that is served."""

    name: str
    version: str
    sha256: str


class About(BaseModel):
    """What the service is, and where its parts are."""

    name: str = "emotion-detection"
    description: str = DESCRIPTION
    version: str = installed_version("emotion-detection")
    model: AboutModel | None
    ready: bool
    documentation: str = "/docs"
    recognize: str = "/v1/recognize"
    open_inference_protocol: str = "/v2"
    metrics: str = "/metrics"


class PolicyMiddleware:
    """Keeps pages from loading anything from other hosts. ReDoc would load a logo."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), (b"content-security-policy", POLICY)]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_policy)


def create_app(settings: Settings) -> FastAPI:
    """The app of a process that serves nothing else: the logs of all libraries become lines of JSON."""
    handler = logging.StreamHandler(sys.__stdout__)
    handler.setFormatter(JsonFormatter())
    for name, level in (("emotion_detection", logging.INFO), ("uvicorn", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # the sender gets the error
    return build_app(Service(settings), give_up=_end_process)


def build_app(service: Service, *, write: Write = write_line, give_up: Callable[[], None] = lambda: None) -> FastAPI:
    """The app for a service, which it starts and closes.

    write: gets a dictionary for each answered request. give_up: called if a picture is still being read after CLOSE_S.
    """
    listening = service.settings.listening
    app: FastAPI = FastAPIOffline(
        title="Emotion detection",
        description=DESCRIPTION,
        version=installed_version("emotion-detection"),
        lifespan=_lifespan(service, give_up),
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
    app.add_middleware(PolicyMiddleware)
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
        named = AboutModel(name=model.name, version=model.version, sha256=model.sha256) if model else None
        return JSONResponse(About(model=named, ready=service.ready).model_dump())

    async def metrics() -> Response:
        content = await asyncio.to_thread(service.metrics_text)
        return Response(content, headers={"content-type": service.metrics.content_type})

    async def shadow() -> Response:
        if service.shadow is None:
            raise RequestError(404, "There is no challenger: start the service with --shadow.")
        return Response(service.shadow.evidence().model_dump_json(), media_type="application/json")

    app.include_router(PlainApi(service).router)
    app.include_router(Protocol(service).router)
    router = APIRouter(tags=["Service"])
    router.add_api_route(
        "/", about, summary="What this is", operation_id="about", responses={200: {"model": About}}, response_model=None
    )
    router.add_api_route(
        "/v1/shadow",
        shadow,
        summary="How far champion and challenger agree",
        operation_id="shadow",
        responses={200: {"model": Comparison}, 404: {"model": Error, "description": "There is no challenger"}},
        response_model=None,
    )
    router.add_api_route(
        "/metrics", metrics, summary="For Prometheus", operation_id="metrics", response_class=PlainTextResponse
    )
    app.include_router(router)


def openapi(app: FastAPI, *, with_token: bool) -> dict[str, Any]:
    """The description of the API, with the bodies that the routes read themselves.

    FastAPI adds its own answer to a wrong parameter, which this service never gives: see `handle_validation`.
    """
    if app.openapi_schema is None:
        about = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = about["components"]["schemas"]
        for schema in ("HTTPValidationError", "ValidationError"):
            schemas.pop(schema, None)
        for operation in (one for path in about["paths"].values() for one in path.values()):
            if FOREIGN in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
        schemas |= models_json_schema([(InferRequest, "validation")], ref_template=SCHEMA)[1]["$defs"]
        if with_token:
            about["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            about["security"] = [{"token": []}]
        app.openapi_schema = about
    return app.openapi_schema


def _lifespan(service: Service, give_up: Callable[[], None]) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        _drain_on_sigterm(service)
        try:
            yield
        finally:
            if not await asyncio.to_thread(service.close, CLOSE_S):
                give_up()

    return lifespan


def _end_process() -> None:
    """End this process although a thread reads a picture. Python's own end would wait for it, however long it takes."""
    print("The service has stopped. A picture that nobody waits for was still being read.", file=sys.stderr, flush=True)
    os._exit(0)


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
