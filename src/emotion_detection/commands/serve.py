"""The `serve` command: an HTTP API for the model."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from emotion_detection.errors import MissingPackageError
from emotion_detection.experiments.store_location import store_exists
from emotion_detection.inference.pretrained import CHAMPION, MODEL
from emotion_detection.serving.listening import check_listening, listening_of
from emotion_detection.serving.settings import Limits, Settings

if TYPE_CHECKING:
    import uvicorn

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
MEGA = 1_000_000
SHUTDOWN_S = 25  # for the requests that run; deploy/service kills after 40 s, with the drain and the end
KEEP_ALIVE_S = 30  # of an idle connection; load balancers keep some
WORKER_S = 60  # a worker that does not respond for so long is replaced


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What to serve, and where."""

    model: str | None = None
    """An .onnx file or models:/NAME@ALIAS, which is followed; by default the champion of the model registry, or the
    shipped model if there is no registry."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 opens the service to your network."""
    port: Annotated[int, Parameter(validator=Number(gte=1, lte=65535))] = 8000
    """The port to listen on."""
    workers: Annotated[int, Parameter(validator=Number(gte=1, lte=64))] = 1
    """Processes that serve. One process uses all cores; more of them help only on machines with many."""
    allowed_host: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """A further name under which clients reach the service, such as that of a proxy. Repeat it for several names."""
    root_path: str = ""
    """The path of the service behind a proxy, such as /faces."""
    ssl_certfile: Path | None = None
    """A certificate in PEM format: serve https."""
    ssl_keyfile: Path | None = None
    """The certificate's private key, if it is in another file."""
    token_file: Path | None = None
    """A file with a bearer token that clients must send. EMOTION_DETECTION_TOKEN can contain it instead."""
    detector: str = "haar"
    """haar, yunet (downloaded once), or the path of YuNet's .onnx file."""
    shadow: str | None = None
    """A challenger that sees a share of the same faces, such as models:/emotion-detection@challenger."""
    shadow_share: Annotated[float, Parameter(validator=Number(gte=0, lte=1))] = 0.1
    """The share of requests that the challenger sees."""
    threads: Annotated[int, Parameter(validator=Number(gte=1, lte=256))] | None = None
    """Requests that a process reads at the same time; by default the number of cores."""
    queue: Annotated[int, Parameter(validator=Number(gte=0, lte=100_000))] = Limits.queue
    """Requests that may wait; further ones are refused with status 503."""
    max_body_mb: Annotated[float, Parameter(validator=Number(gt=0, lte=1000))] = Limits.body_bytes / MEGA
    """The largest body of a request."""
    max_megapixels: Annotated[float, Parameter(validator=Number(gt=0, lte=134))] = Limits.pixels / MEGA
    """The largest picture."""
    max_pictures: Annotated[int, Parameter(validator=Number(gte=1, lte=1000))] = Limits.pictures
    """Pictures in a request."""
    max_faces: Annotated[int, Parameter(validator=Number(gte=1, lte=100_000))] = Limits.faces
    """Faces in a request of faces, or in a picture."""
    drain_s: Annotated[float, Parameter(validator=Number(gte=0, lte=600))] = Settings.drain_s
    """Seconds to answer after SIGTERM, while the service says that it is not ready."""


DEFAULTS = ServeOptions()


def serve(options: ServeOptions = DEFAULTS) -> None:
    """Serve the model until Ctrl-C or SIGTERM. Running requests are answered before the end."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    try:
        import fastapi_offline
        import prometheus_client
        import uvicorn

        del fastapi_offline, prometheus_client, uvicorn
    except ModuleNotFoundError as error:
        raise MissingPackageError(error.name or "fastapi", "serve") from error
    settings = settings_of(options)
    check_listening(settings.listening)
    if options.workers > 1:
        _check_models(settings)
    with suppress(KeyboardInterrupt):
        _run(settings, options.workers)
    print("The service has stopped.", file=sys.stderr)


def settings_of(options: ServeOptions) -> Settings:
    """The settings for these options. Raises UsageError."""
    from emotion_detection.serving.access import parse_allowed_name
    from emotion_detection.serving.tokens import read_token

    for name in options.allowed_host:
        parse_allowed_name(name)
    limits = Limits(
        body_bytes=round(options.max_body_mb * MEGA),
        held_bytes=max(round(8 * options.max_body_mb * MEGA), Limits.held_bytes),
        pixels=round(options.max_megapixels * MEGA),
        pictures=options.max_pictures,
        faces=options.max_faces,
        queue=options.queue,
        **({} if options.threads is None else {"threads": options.threads}),
    )
    return Settings(
        model=options.model or (CHAMPION if store_exists() else str(MODEL)),
        first=None if options.model or not store_exists() else str(MODEL),
        listening=listening_of(options),
        detector=options.detector,
        limits=limits,
        token=read_token(options.token_file),
        shadow=options.shadow,
        shadow_share=options.shadow_share,
        drain_s=options.drain_s,
    )


def _run(settings: Settings, workers: int) -> None:
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    config = _config(settings, workers)  # takes seconds; until then, SIGTERM ends the process as usual
    url = settings.listening.url
    with _sigterm_is_an_end():
        print(f"Serving {settings.model} on {url}; {url}/docs explains it. Ctrl-C stops it.", file=sys.stderr)
        if workers == 1:
            uvicorn.Server(config).run()
            return
        with tempfile.TemporaryDirectory(prefix="emotion-detection-") as folder:
            os.environ[METRICS_FOLDER] = folder  # read when prometheus_client is imported, in the workers
            Multiprocess(config, sockets=[config.bind_socket()]).run()


def _check_models(settings: Settings) -> None:
    """Raise an error for what a worker process cannot load: it would be started again and again."""
    from emotion_detection.serving.service import Service

    Service(settings).close()


def _config(settings: Settings, workers: int) -> "uvicorn.Config":
    """The server. `create_app` runs in the process that serves, so that each worker has models of its own."""
    import uvicorn

    from emotion_detection.serving.app import create_app
    from emotion_detection.serving.connections import HEADER_BYTES, ServiceProtocol

    listening = settings.listening
    return uvicorn.Config(
        partial(create_app, settings),
        factory=True,
        host=listening.host,
        port=listening.port,
        workers=workers,
        log_config=None,
        log_level="error",
        access_log=False,
        http=ServiceProtocol,
        ws="none",
        h11_max_incomplete_event_size=HEADER_BYTES,
        proxy_headers=listening.behind_proxy,
        server_header=False,
        ssl_certfile=listening.certificate,
        ssl_keyfile=listening.key,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
        timeout_worker_healthcheck=WORKER_S,
    )


@contextmanager
def _sigterm_is_an_end() -> Iterator[None]:
    """SIGTERM is Ctrl-C until the server handles it, and again when the server repeats what has ended it."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
