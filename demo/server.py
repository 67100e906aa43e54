"""The web server: Gradio's page, its assets and the routes, on FastAPI and uvicorn."""

import logging
import socket
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Literal

import gradio as gr
import gradio.queueing
import gradio.routes
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from api import add_api
from champion import ServedModel
from emotion_detection.inference.detector import FaceDetector
from emotion_detection.serving import NO_TELEMETRY
from emotion_detection.serving.access import AccessMiddleware, AllowedHosts, RootPathMiddleware
from emotion_detection.serving.connections import HEADER_BYTES, BoundedProtocol
from emotion_detection.serving.listening import Listening
from fair_queue import FairQueue
from limits import VIDEO_BYTES, LimitMiddleware, log_failure
from page import ASSETS, THEME, build_page
from routes import Routes
from uploads import UploadFolder

MESSAGE_BYTES = 4_000_000  # of the WebSocket; routes.FRAME_BYTES closes it with a reason
SHUTDOWN_S = 1  # then connections of open pages are cancelled
# What Gradio raises for a request that names a function or a component that it does not have, or data of a wrong kind.
MALFORMED = (AssertionError, AttributeError, LookupError, TypeError, ValueError)
SCRIPTS = ("webcam.js", "photo.js")


def build_app(
    served_model: ServedModel,
    detectors: Mapping[str, FaceDetector],
    *,
    faces: Literal["all", "largest"],
    listening: Listening,
    queue: FairQueue | None = None,
    uploads: UploadFolder | None = None,
) -> FastAPI:
    """The app: the page, its assets, the camera's WebSocket, photos and the API, behind the checks of each request.

    detectors: by name, the default first.
    """
    report_in_one_line()
    queue = queue or FairQueue()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, telemetry=NO_TELEMETRY)
    # The last one is called first.
    app.add_middleware(LimitMiddleware, uploads=uploads)
    app.add_middleware(AccessMiddleware, hosts=AllowedHosts(listening.host, listening.allowed_hosts))
    if listening.root_path:
        app.add_middleware(RootPathMiddleware, root_path=listening.root_path)
    app.include_router(Routes(served_model, detectors, faces=faces, queue=queue).router)
    add_api(app, served_model, detectors[next(iter(detectors))], queue)
    app.mount("/demo-assets", StaticFiles(directory=ASSETS))  # Gradio uses /assets and /static
    assets = f"{listening.root_path}/demo-assets"
    gr.mount_gradio_app(
        app,
        build_page(served_model, detectors, faces=faces, queue=queue, root_path=listening.root_path),
        "/",
        theme=THEME,
        css_paths=ASSETS / "style.css",
        head="".join(f'<script type="module" src="{assets}/{name}"></script>' for name in SCRIPTS),
        ssr_mode=False,
        footer_links=[],
        root_path=listening.root_path or None,
        max_file_size=VIDEO_BYTES,
        run_history=False,
    )
    for mounted in (getattr(route, "app", None) for route in app.routes):
        if isinstance(mounted, FastAPI):  # Gradio
            for error in (RequestValidationError, *MALFORMED):
                mounted.add_exception_handler(error, _malformed)
    return app


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    """The answer to JSON of a wrong form. FastAPI's own repeats the JSON and fails for an infinite number in it."""
    if not isinstance(error, RequestValidationError):
        log_failure(f"{request.method} {request.url.path}", error)
    reason = "The request has a wrong form."
    return JSONResponse({"error": reason, "detail": reason}, 422)


def report_in_one_line() -> None:
    """Let Gradio report the failure of a request in one line: with tracebacks, anyone could fill the terminal."""
    for module in (gradio.queueing, gradio.routes):
        module.traceback = SimpleNamespace(print_exc=lambda: log_failure("Gradio", sys.exc_info()[1]))


class Server(uvicorn.Server):
    """Calls a function as soon as the server listens."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Gradio's streams to open pages never end by themselves; uvicorn logs a traceback for each that it cancels.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def run_server(app: FastAPI, listening: Listening, on_listening: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; the handler that was installed before then gets the signal."""
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # the sender gets the error
    config = uvicorn.Config(
        app,
        host=listening.host,
        port=listening.port,
        log_level="error",  # not for malformed requests, with which others could fill the terminal
        http=BoundedProtocol,
        h11_max_incomplete_event_size=HEADER_BYTES,
        ws_max_size=MESSAGE_BYTES,
        ws_per_message_deflate=False,  # JPEGs do not shrink, and a small message could unpack to a large one
        proxy_headers=listening.behind_proxy,
        ssl_certfile=listening.certificate,
        ssl_keyfile=listening.key,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    Server(config, on_listening).run()
