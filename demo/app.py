"""The demo: every face before your webcam, with its expression. Start it, then open the address it prints."""

# ruff: noqa: E402

import argparse
import os
import socket
import time
from pathlib import Path

STARTED = time.perf_counter()
# Read while Gradio and MLflow are imported: nothing is sent anywhere.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")  # it tells of every step of seeding the registry
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr
import uvicorn
from fastapi import FastAPI, Response
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.staticfiles import StaticFiles

from emotion_detection.errors import InputError, report_errors
from emotion_detection.inference.detector import FaceDetector, HaarDetector, YunetDetector
from examples import EXAMPLES, example
from live import Live
from page import ASSETS, THEME, build
from serving import Serving

LOOPBACK = ["127.0.0.1", "localhost"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="an ONNX file or models:/name@alias; default: the registry's champion")
    parser.add_argument("--host", default="127.0.0.1", help="who may come in; 0.0.0.0 lets the whole network see you")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--faces", choices=("all", "largest"), default="all")
    parser.add_argument("--detector", default="haar", help="haar, or the path of a YuNet model file")
    parser.add_argument(
        "--share", action="store_true", help="not offered: it would send the pictures through a stranger"
    )
    arguments = parser.parse_args()
    with report_errors():
        serve(arguments)


def serve(arguments: argparse.Namespace) -> None:
    if arguments.share:
        raise InputError(
            "--share is not offered: frames would pass through somebody else's server; use --host and a VPN"
        )
    check_port(arguments.host, arguments.port)
    detector = HaarDetector() if arguments.detector == "haar" else YunetDetector(Path(arguments.detector))
    app = build_app(Serving(arguments.model), detector, faces=arguments.faces)
    if arguments.host in LOOPBACK:
        # A foreign name that is made to point here must not reach a camera that listens to this computer alone.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK)
    config = uvicorn.Config(app, host=arguments.host, port=arguments.port, log_level="warning", ws_max_size=4_000_000)
    server = uvicorn.Server(config)
    app.router.on_startup.append(lambda: announce(arguments.host, arguments.port))
    server.run()


def build_app(serving: Serving, detector: FaceDetector, *, faces: str) -> FastAPI:
    """The whole server: the page, its assets, the camera's WebSocket and the photos."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    live = Live(serving, detector, faces=faces)
    app.state.live, app.state.serving = live, serving
    app.include_router(live.router)
    app.mount("/own", StaticFiles(directory=ASSETS))  # /assets is Gradio's
    pictures = {name: example(name) for name in EXAMPLES}

    @app.get("/examples/{name}.jpg")
    def show(name: str) -> Response:
        known = name in pictures
        return Response(pictures.get(name), media_type="image/jpeg", status_code=200 if known else 404)

    page = build(serving, detector, faces=faces)
    head = '<script src="/own/live.js" defer></script>'
    return gr.mount_gradio_app(
        app, page, "/", theme=THEME, css_paths=ASSETS / "style.css", head=head, ssr_mode=False, footer_links=[]
    )


def check_port(host: str, port: int) -> None:
    """InputError if somebody else listens there already."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(f"{host}:{port} cannot be used ({error.strerror}): choose another --port") from error


def announce(host: str, port: int) -> None:
    spent = time.perf_counter() - STARTED
    print(f"open http://{host}:{port} (ready after {spent:.1f} s; Ctrl-C ends it)", flush=True)


if __name__ == "__main__":
    main()
