"""The web server: Gradio's page, its assets and the routes, on FastAPI and uvicorn."""

import logging
import socket
from collections.abc import Callable
from typing import Literal

import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.staticfiles import StaticFiles

from champion import ServedModel
from emotion_detection.inference.detector import FaceDetector
from page import ASSETS, THEME, build_page
from routes import Routes

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")  # in a Host header
MESSAGE_BYTES = 4_000_000  # of the WebSocket; routes.FRAME_BYTES closes it with a reason
SHUTDOWN_S = 1  # then connections of open pages are cancelled
SCRIPTS = ("webcam.js", "photo.js")


def build_app(
    served_model: ServedModel, detector: FaceDetector, *, faces: Literal["all", "largest"], host: str
) -> FastAPI:
    """The app that listens on host: the page, its assets, the WebSocket of the camera, and photos."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if host in LOOPBACK:
        # DNS rebinding: a foreign name that resolves to this computer must not reach the demo.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_NAMES)
    app.include_router(Routes(served_model, detector, faces=faces).router)
    app.mount("/demo-assets", StaticFiles(directory=ASSETS))  # Gradio uses /assets and /static
    return gr.mount_gradio_app(
        app,
        build_page(served_model, detector, faces=faces),
        "/",
        theme=THEME,
        css_paths=ASSETS / "style.css",
        head="".join(f'<script type="module" src="/demo-assets/{name}"></script>' for name in SCRIPTS),
        ssr_mode=False,
        footer_links=[],
    )


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


def run_server(app: FastAPI, *, host: str, port: int, on_listening: Callable[[], None]) -> None:
    """Serve until SIGINT, which raises KeyboardInterrupt, or SIGTERM."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        ws_max_size=MESSAGE_BYTES,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    Server(config, on_listening).run()
