"""The demo's command line: reads the faces in front of a webcam, in the browser."""

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from emotion_detection.command_line import run_command
from emotion_detection.errors import UsageError

STARTED_S = time.perf_counter()
# Libraries read these while they are imported: no telemetry, no downloads.
OFFLINE = {
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What the demo serves, and where."""

    model: str | None = None
    """An .onnx file or models:/NAME@ALIAS; by default the champion of the model registry."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 opens the demo to your network."""
    port: Annotated[int, Parameter(validator=Number(gte=1, lte=65535))] = 7860
    """The port to listen on."""
    faces: Literal["all", "largest"] = "all"
    """Which faces of a frame to read."""
    detector: str = "haar"
    """haar, or the path of YuNet's .onnx file."""
    share: Annotated[bool, Parameter(negative=())] = False
    """Not supported: a public link would send the pictures through a third-party server."""


DEFAULTS = DemoOptions()


def demo(options: DemoOptions = DEFAULTS) -> None:
    """Read the faces in front of your webcam. Open the address that is printed; Ctrl-C stops the demo."""
    os.environ.update(OFFLINE)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")  # it logs each step of registering the shipped model
    with suppress(KeyboardInterrupt):
        serve(options)
    print("\nThe demo has stopped.")


def serve(options: DemoOptions) -> None:
    """Serve the page until a signal ends it."""
    if options.share:
        raise UsageError("--share is not supported, because it would send pictures through a third-party server")
    check_port(options.host, options.port)
    # Gradio takes seconds to import: wrong options are reported before.
    from champion import ServedModel
    from emotion_detection.inference.detector import HaarDetector, YunetDetector

    served_model = ServedModel(options.model)
    detector = HaarDetector() if options.detector == "haar" else YunetDetector(Path(options.detector))

    from server import build_app, run_server

    def announce() -> None:
        seconds = time.perf_counter() - STARTED_S
        print(f"open {page_url(options.host, options.port)} (ready after {seconds:.1f} s; Ctrl-C stops it)", flush=True)
        served_model.follow()

    app = build_app(served_model, detector, faces=options.faces, host=options.host)
    run_server(app, host=options.host, port=options.port, on_listening=announce)


def check_port(host: str, port: int) -> None:
    """Raise UsageError if the demo cannot listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = f"{host}:{port} cannot be used ({error.strerror})"
        raise UsageError(f"{reason}; choose another --port or --host") from error


def page_url(host: str, port: int) -> str:
    """The address of the page; an IPv6 host needs brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


if __name__ == "__main__":
    run_command(demo)
