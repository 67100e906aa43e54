"""The demo's command line: reads the faces in front of a webcam, in the browser."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from emotion_detection.command_line import run_command
from emotion_detection.errors import UsageError
from emotion_detection.serving.listening import check_listening, listening_of

if TYPE_CHECKING:
    from uploads import UploadFolder

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
    allowed_host: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """A further name under which browsers reach the demo, such as that of a proxy. Repeat it for several names."""
    root_path: str = ""
    """The path of the demo behind a proxy, such as /faces."""
    ssl_certfile: Path | None = None
    """A certificate in PEM format: serve https, which phones need for the camera."""
    ssl_keyfile: Path | None = None
    """The certificate's private key, if it is in another file."""
    faces: Literal["all", "largest"] = "all"
    """Which faces of a frame to read."""
    detector: str = "haar"
    """haar, yunet (downloaded once), or the path of YuNet's .onnx file."""
    share: Annotated[bool, Parameter(negative=())] = False
    """Not supported: a public link would send the pictures through a third-party server."""


DEFAULTS = DemoOptions()


def demo(options: DemoOptions = DEFAULTS) -> None:
    """Read the faces in front of your webcam. Open the address that is printed; Ctrl-C stops the demo."""
    os.environ.update(OFFLINE)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")  # it logs each step of registering the shipped model
    with _sigterm_as_ctrl_c(), suppress(KeyboardInterrupt):
        serve(options)
    print("\nThe demo has stopped.")


def serve(options: DemoOptions) -> None:
    """Serve the page until a signal ends it."""
    check_options(options)
    # Gradio takes seconds to import: wrong options are reported before.
    from champion import ServedModel
    from detectors import Detectors
    from fair_queue import FairQueue
    from uploads import UploadFolder

    detectors = Detectors(options.detector)
    with (
        closing(ServedModel(options.model)) as served_model,
        closing(UploadFolder()) as uploads,
        closing(FairQueue()) as queue,
    ):
        use_folder(uploads)
        from server import build_app, run_server

        def announce() -> None:
            seconds = time.perf_counter() - STARTED_S
            print(f"open {listening_of(options).url} (ready after {seconds:.1f} s; Ctrl-C stops it)", flush=True)
            served_model.follow()

        place = listening_of(options)
        app = build_app(served_model, detectors, faces=options.faces, listening=place, queue=queue, uploads=uploads)
        run_server(app, place, announce)


def use_folder(uploads: "UploadFolder") -> None:
    """Make Gradio and the standard library put temporary files there. Gradio reads it while it is imported."""
    os.environ["GRADIO_TEMP_DIR"], tempfile.tempdir = str(uploads.received), str(uploads.path)


def check_options(options: DemoOptions) -> None:
    """Raise UsageError for options that cannot work."""
    from emotion_detection.serving.access import parse_allowed_name

    if options.share:
        raise UsageError("--share is not supported, because it would send pictures through a third-party server")
    for name in options.allowed_host:
        parse_allowed_name(name)
    check_listening(listening_of(options))


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == "__main__":
    run_command(demo)
