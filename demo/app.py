"""The demo's command line: reads the faces in front of a webcam, in the browser."""

import os
import re
import signal
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from emotion_detection.command_line import run_command
from emotion_detection.errors import UsageError

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
ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


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
        from server import Listening, build_app, run_server

        def announce() -> None:
            seconds = time.perf_counter() - STARTED_S
            print(f"open {page_url(options)} (ready after {seconds:.1f} s; Ctrl-C stops it)", flush=True)
            served_model.follow()

        listening = Listening(
            host=plain_host(options.host),
            port=options.port,
            allowed_hosts=options.allowed_host,
            root_path=options.root_path.rstrip("/"),
            certificate=options.ssl_certfile,
            key=options.ssl_keyfile,
        )
        app = build_app(served_model, detectors, faces=options.faces, listening=listening, queue=queue, uploads=uploads)
        run_server(app, listening, announce)


def use_folder(uploads: "UploadFolder") -> None:
    """Make Gradio and the standard library put temporary files there. Gradio reads it while it is imported."""
    os.environ["GRADIO_TEMP_DIR"], tempfile.tempdir = str(uploads.received), str(uploads.path)


def check_options(options: DemoOptions) -> None:
    """Raise UsageError for options that cannot work."""
    from access import parse_allowed_name

    if options.share:
        raise UsageError("--share is not supported, because it would send pictures through a third-party server")
    for name in options.allowed_host:
        parse_allowed_name(name)
    if options.root_path.rstrip("/") and not ROOT_PATH.fullmatch(options.root_path.rstrip("/")):
        raise UsageError(f"--root-path {options.root_path[:100]!r} is not a path: use a path such as /faces")
    check_certificate(options.ssl_certfile, options.ssl_keyfile)
    check_port(options.host, options.port)


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """Raise UsageError if https cannot be served with these files."""
    if certificate is None:
        if key is not None:
            raise UsageError("--ssl-keyfile needs --ssl-certfile: name the certificate too")
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:  # an OSError too
        reason = f"{certificate} and {key or 'the key in it'} cannot be used for https ({error.reason or 'wrong form'})"
        raise UsageError(f"{reason}; use a certificate and its unencrypted key in PEM format") from error
    except OSError as error:
        files = " or ".join(str(path) for path in (certificate, key) if path)
        raise UsageError(f"{files} cannot be read ({error.strerror}); check the name and the permissions") from error


def check_port(host: str, port: int) -> None:
    """Raise UsageError if the demo cannot listen there."""
    if not host.strip():
        raise UsageError("--host is empty; use 127.0.0.1, or 0.0.0.0 to open the demo to your network")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(plain_host(host), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        reason = f"{host}:{port} cannot be used ({getattr(error, 'strerror', None) or 'not a host name'})"
        raise UsageError(f"{reason}; choose another --port or --host") from error


def page_url(options: DemoOptions) -> str:
    """The address of the page for a browser on this computer."""
    host = plain_host(options.host)
    with suppress(ValueError):
        if ip_address(host).is_unspecified:  # listens on all addresses, but is none itself
            host = "::1" if ":" in host else "127.0.0.1"
    scheme = "http" if options.ssl_certfile is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{options.port}{options.root_path.rstrip('/')}"


def plain_host(host: str) -> str:
    """The host without the brackets that an IPv6 address has in a URL."""
    return host.strip().removeprefix("[").removesuffix("]")


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == "__main__":
    run_command(demo)
