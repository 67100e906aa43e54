"""MLflow runs that survive a killed process and an unreachable server."""

import hashlib
import logging
import math
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import mlflow
import numpy as np
from filelock import FileLock
from mlflow.data.sources import LocalArtifactDatasetSource
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from requests import RequestException
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from emotion_detection.arrays import Images, Labels
from emotion_detection.atomic import atomic_output
from emotion_detection.config import flatten
from emotion_detection.errors import StoreError, shorten
from emotion_detection.experiments import calls
from emotion_detection.experiments.calls import Call
from emotion_detection.experiments.liveness import has_exited, this_process
from emotion_detection.experiments.outages import (
    OutageError,
    bounded,
    describe_outage,
    is_outage,
    limit_requests,
    variables,
)
from emotion_detection.experiments.relocation import ARTIFACTS, relocate
from emotion_detection.experiments.store_location import sqlite_path, sqlite_uri, store_uri
from emotion_detection.redaction import find_login_fault, redact_uri, scrub

PROCESS = "process"  # the tag with the process that writes a run
NOTE = calls.NOTE  # the tag with the description of a run
EXPERIMENT = "emotion-detection"
SQLITE_TIMEOUT_S = 60  # how long to wait for another process that has locked the SQLite file
LOCK_TIMEOUT_S = 600  # how long to wait for another process that registers a model
POOL = "MLFLOW_SQLALCHEMYSTORE_"  # the beginning of the variables for MLflow's connections to a database
EPOCH_TIMEOUT_S = 5  # for what can be logged later, such as the metrics of an epoch
END_TIMEOUT_S = 1  # for the end of a run, which has been sent before
PATIENCE = 20  # after a call that failed, no epoch is logged for this many times its duration
LOST_S = 40  # after this time in failed calls, a training logs no further epoch
FORBIDDEN = 403  # HTTP status
SYSTEM_METRICS_INTERVAL_S = 5  # training on the sample takes half a minute
QUIET = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
DIGEST_CHARACTERS = 36  # of a data set in MLflow
DATA = "data.dvc"  # the file that names the data set of the pipeline
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # codes of MLflow for an unknown name or ID
STORE_ERRORS = (MlflowException, RequestException, SQLAlchemyError, OSError, ImportError)
# What to do, by a part of the error's text.
REMEDIES = {
    "error code 401": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to an account of this server",
    "error code 403": (
        "this account may not do that: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to another"
    ),
    "is locked": "another process is using it: wait until it ends, or stop it, then repeat the command",
    "could not be acquired": "another process is using it: wait until it ends, or stop it, then repeat the command",
    "not a database": "move it away, or set MLFLOW_TRACKING_URI",
    "malformed": "move it away, or set MLFLOW_TRACKING_URI",
    "readonly": "make it and its folder writable, or set MLFLOW_TRACKING_URI",
    "Read-only": "make it and its folder writable, or set MLFLOW_TRACKING_URI",
    "Permission denied": "make it and its folder writable, or set MLFLOW_TRACKING_URI",
    "disk is full": "free some space, then repeat the command",
    "No space left": "free some space, then repeat the command",
    "quota": "free some space, then repeat the command",
    "too large": "free some space, then repeat the command",
    "disk I/O error": "check that its disk is not full and can be written, then repeat the command",
}

logger = logging.getLogger(__name__)


def connect() -> None:
    """Point MLflow to the store, and prepare a SQLite store: its tables, and its place if the project has moved.

    Raises StoreError if the store cannot be used.
    """
    limit_requests()
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs tracebacks of what it raises
    # A server that does not respond is one warning of this module.
    for name in ("urllib3.connectionpool", "mlflow.system_metrics.system_metrics_monitor"):
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = store_uri()
    fault = find_login_fault(uri)
    if fault:
        raise StoreError(f"MLFLOW_TRACKING_URI cannot be used: {fault}")
    path = sqlite_path(uri)
    if path is not None:
        _prepare_file(path)
    elif uri.startswith(("postgresql", "mysql", "mssql")):
        if uri.startswith("postgresql"):
            _limit_connections()
        _probe_database(uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_INTERVAL_S)


def _limit_connections() -> None:
    """Let MLflow open a connection to PostgreSQL for each request, unless the user has set a pool.

    Only the time for opening it has a limit: a request on an open connection to a database that froze would never end.
    """
    if not any(name.startswith(POOL) for name in os.environ):
        os.environ[f"{POOL}POOLCLASS"] = "NullPool"


def _probe_database(uri: str) -> None:
    """Raise StoreError if a database does not respond. MLflow would retry for minutes and end with a traceback."""
    with translate_errors():
        engine = create_engine(uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()


def _prepare_file(path: Path) -> None:
    """Create the tables of a new SQLite store, in one process at a time, and update the paths of a moved one.

    MLflow's migrations crash if two processes start them at once, and an interrupted migration cannot be repeated: the
    tables are created in another file, which then takes the place of the store.
    """
    if make_url(sqlite_uri(path)).database != str(path):
        raise StoreError(f"{path} cannot be the address of an MLflow store: rename its folder without % and ?")
    with _file_lock(path, "lock", SQLITE_TIMEOUT_S), translate_errors():
        if path.stat().st_size == 0:
            with atomic_output(path) as unfinished:
                _open_store(unfinished)
        _open_store(path)
        with _translate_file_errors(path):
            relocate(path, EXPERIMENT, timeout_s=SQLITE_TIMEOUT_S)


def _open_store(path: Path) -> None:
    uri = sqlite_uri(path)
    mlflow.MlflowClient(uri, uri).search_experiments(max_results=1)
    undecoded = Path(uri.removeprefix("sqlite:///")).parent
    if undecoded != path.parent:
        with suppress(OSError):  # MLflow has created the folder of the address without decoding it
            undecoded.rmdir()


@contextmanager
def exclusive_store() -> Iterator[None]:
    """Lock the store against other processes on this machine. May be nested."""
    path = sqlite_path(store_uri())
    if path is None:
        digest = hashlib.sha256(f"{Path.home()} {store_uri()}".encode()).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"emotion-detection-{digest}.lock"
        with FileLock(path, timeout=LOCK_TIMEOUT_S, is_singleton=True):
            yield
    else:
        with _file_lock(path, "seed.lock", LOCK_TIMEOUT_S):
            yield


@contextmanager
def _file_lock(path: Path, suffix: str, timeout_s: float) -> Iterator[None]:
    """Hold a lock file next to the SQLite file. Raises StoreError if the file cannot be used as a database."""
    with _translate_file_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.{suffix}", timeout=timeout_s, is_singleton=True).acquire()
        try:
            # MLflow would retry for 100 s to open a file that is not a database, and end with a traceback.
            with closing(sqlite3.connect(path, timeout=SQLITE_TIMEOUT_S)) as database:
                database.execute("PRAGMA schema_version")
        except BaseException:
            lock.lock.release()
            raise
    with lock:
        yield


@contextmanager
def _translate_file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        remedy = _remedy(error) or "move it away, or set MLFLOW_TRACKING_URI"
        raise StoreError(f"{path} cannot be used as an MLflow store ({shorten(error)}): {remedy}") from error


def _remedy(error: BaseException) -> str:
    return next((remedy for part, remedy in REMEDIES.items() if part in str(error)), "")


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn exceptions of MLflow, of its HTTP client and of its database into a StoreError."""
    try:
        yield
    except STORE_ERRORS as error:
        uri = store_uri()
        reason = scrub(shorten(str(error).partition("[SQL:")[0], 300), uri)
        remedy = _remedy(error) or "Nothing is lost: fix or start the store, then repeat the command"
        remedy = f"{remedy[0].upper()}{remedy[1:]}"
        message = f"the MLflow store {redact_uri(uri)} reported an error ({reason}). {remedy}"
        if is_outage(error):
            raise OutageError(message, describe_outage(str(error))) from error
        raise StoreError(message) from error


@contextmanager
def permitted() -> Iterator[None]:
    """Leave out a deletion that this account may not make: it is only tidying."""
    try:
        yield
    except MlflowException as error:
        if error.get_http_status_code() != FORBIDDEN:
            raise
        logger.debug("The store does not let this account delete something: %s", scrub(shorten(error), store_uri()))


def run_exists(run_id: str) -> bool:
    """Whether the store has the run. Raises StoreError if the store does not respond."""
    connect()
    with translate_errors():
        try:
            run = mlflow.MlflowClient().get_run(run_id)
        except MlflowException as error:
            if error.error_code in MISSING:
                return False
            raise
    return bool(run.info.lifecycle_stage == LifecycleStage.ACTIVE)


def find_run(tags: Mapping[str, str]) -> str | None:
    """The ID of the newest run of the project's experiment with these tags; None if there is none."""
    connect()
    with translate_errors():
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(EXPERIMENT)
        conditions = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = client.search_runs([experiment.experiment_id], conditions, max_results=1) if experiment else []
    return str(found[0].info.run_id) if found else None


class Breaker:
    """Bounds the time that a store costs which takes long to fail.

    It is left alone for a while after each failure, and for good when it has cost more than `limit_s`.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._paused_until = 0.0
        self._lost_s = 0.0

    @property
    def allows(self) -> bool:
        """Whether the store may be asked now."""
        return monotonic() >= self._paused_until

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Let the calls of the body fail soon, and count the time of a failure."""
        started = monotonic()
        try:
            with bounded(EPOCH_TIMEOUT_S):
                yield
        except (StoreError, *STORE_ERRORS):
            lost_s = monotonic() - started
            self._lost_s += lost_s
            self._paused_until = math.inf if self._lost_s > self._limit_s else monotonic() + PATIENCE * lost_s
            raise


class Outlet(Protocol):
    """Takes the calls of a run, and keeps those that the store does not accept."""

    def send(self, call: Call) -> None:
        """Send a call to the store now or later. The folder of its artifacts may be removed afterwards."""


class Run:
    """An active MLflow run, created by `start_run`.

    outlet: takes all calls. Without it they go to the store, and its failures raise StoreError.
    """

    def __init__(self, run_id: str, outlet: Outlet | None = None) -> None:
        self.id = run_id
        self._outlet = outlet
        self._breaker = Breaker(LOST_S)
        self.lagging = False  # whether the store has missed something

    def _send(self, kind: str, folder: Path | None = None, **content: Any) -> None:
        call = Call(kind, content, folder=folder)
        if self._outlet:
            self._outlet.send(call)
        else:
            with translate_errors():
                calls.send(self.id, call)

    @property
    def tags(self) -> dict[str, str]:
        """All tags of the run."""
        with translate_errors():
            return dict(mlflow.MlflowClient().get_run(self.id).data.tags)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log nested params under flat keys such as augment.flip."""
        self._send("params", params=_flat(params))

    def log_stage_params(self, params: Mapping[str, object]) -> None:
        """Log nested params of a stage that may be repeated with others.

        MLflow's params never change: a param with another value becomes a tag with the same name.
        """
        self._send("stage params", params=_flat(params))

    def log_scores(self, scores: Mapping[str, float], history: Sequence[Mapping[str, float]]) -> None:
        """Log the metrics of the finished model.

        A metric that the epochs have too is logged one step after them, because MLflow shows the last step.
        """
        repeated = {key: value for key, value in scores.items() if key in history[-1]}
        self._send("metrics", values=repeated, step=len(history) + 1)
        self._send("metrics", values={key: value for key, value in scores.items() if key not in repeated}, step=0)

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Log the metrics of one epoch. If the store does not respond, log a warning once and continue.

        A store that takes long to fail costs a training less than a minute, see `Breaker`. `log_missing_epochs` logs
        such epochs later.
        """
        if self._breaker.allows:
            self.attempt(partial(self._send, "metrics", **calls.epoch(row)))

    def attempt(self, call: Callable[[], object]) -> None:
        """Log something that can be logged later. If the store does not accept it soon, log a warning once."""
        try:
            with self._breaker.attempt():
                call()
        except (StoreError, *STORE_ERRORS) as error:
            if not self.lagging:
                cause = error.__cause__ if isinstance(error.__cause__, STORE_ERRORS) else error
                reason = scrub(shorten(cause), store_uri())
                logger.warning("MLflow does not respond. Training continues; the epochs are logged later: %s", reason)
            self.lagging = True

    def log_missing_epochs(self, history: Iterable[Mapping[str, float]]) -> None:
        """Log the epochs that the store does not have, because it did not respond or the process was killed."""
        self._send("missing epochs", rows=[dict(row) for row in history])

    def log_history(self, history: Iterable[Mapping[str, float]], path: Path) -> None:
        """Log the epochs that the store does not have, and the file that contains them all."""
        self.log_missing_epochs(history)
        self.log_file(path)

    def tag(self, key: str, value: str) -> None:
        """Set a tag."""
        self.tag_all({key: value})

    def tag_all(self, tags: Mapping[str, str]) -> None:
        """Set several tags."""
        self._send("tags", tags={key: scrub(value) for key, value in tags.items()})

    def note(self, title: str, text: str) -> None:
        """Write a section of the run's description, in Markdown. It replaces an earlier section with this title."""
        self._send("note", title=title, text=scrub(text))

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Log a file as an artifact. Secrets are removed from a text."""
        self.log_contents({f"{folder}/{path.name}" if folder else path.name: path})

    def log_contents(self, files: Mapping[str, bytes | Path]) -> None:
        """Log artifacts by their paths in the run. Those from memory have no secrets; they are removed from texts."""
        if files:
            with tempfile.TemporaryDirectory() as folder:
                calls.write_artifacts(files, Path(folder))
                self._send("artifacts", Path(folder))

    def log_folder(self, path: Path, folder: str) -> None:
        """Log all files of a folder as artifacts. Secrets are removed from texts."""
        files = sorted(file for file in path.rglob("*") if file.is_file())
        self.log_contents({f"{folder}/{file.relative_to(path).as_posix()}": file for file in files})

    def log_faces(
        self, faces: tuple[Images, Labels], *, name: str, split: str, dvc_md5: str, digest: str | None = None
    ) -> None:
        """Log the digest and the shape of a split as an MLflow dataset; the images are not logged.

        digest: the SHA-256 (hex) of the complete data set, by which MLflow shows what belongs together; by default that
        of this split. MLflow's own digest would only read the first four faces.
        """
        dataset = mlflow.data.from_numpy(
            faces[0],
            source=LocalArtifactDatasetSource(DATA),
            targets=faces[1],
            name=split_name(name, split),
            digest=(digest or _digest(faces))[:DIGEST_CHARACTERS],
        )
        about = {key: value for key, value in dataset.to_dict().items() if key in calls.DATASET_KEYS}
        self._send("dataset", dataset=about, split=split, tags={"dvc_md5": dvc_md5})

    def end(self, status: str, reason: str = "") -> None:
        """End a run that has an outlet, and MLflow's active run. reason: the error that ended it."""
        self._send("end", status=status, reason=reason)
        if mlflow.active_run():
            # MLflow has printed the address of the run before.
            with suppress(*STORE_ERRORS), bounded(END_TIMEOUT_S), variables({QUIET: "true"}):
                mlflow.end_run(status)


def _flat(params: Mapping[str, object]) -> dict[str, str]:
    return {key: scrub(str(value)) for key, value in flatten(params).items()}


def split_name(dataset: str, split: str) -> str:
    """The name of a split among MLflow's datasets."""
    return f"{dataset}-{split}"


def _digest(faces: tuple[Images, Labels]) -> str:
    sha = hashlib.sha256()
    for array in faces:
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


@contextmanager
def start_run(
    run_id: str | None = None,
    *,
    name: str | None = None,
    parent: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Run]:
    """Start a new run, or resume the run `run_id`.

    The run ends as FINISHED, as FAILED if the body raises an exception, or as KILLED on Ctrl-C or SIGTERM; the tag
    `ended_by` names the exception. Under `mlflow run`, the run that this command has created is resumed. Raises
    StoreError if the store does not respond or does not have the run.
    """
    active = begin(run_id, name=name, parent=parent)
    try:
        with translate_errors():
            mlflow.set_tags(new_tags(active.data.tags, tags or {}))
        run = Run(active.info.run_id)
        yield run
    except BaseException as error:
        _end_failed(error)
        raise
    if run.lagging:
        run.attempt(mlflow.end_run)
    else:
        with translate_errors():
            mlflow.end_run()


def _end_failed(error: BaseException) -> None:
    """End the active run after an error, which is the one to report. A dead store costs no more time."""
    with bounded(END_TIMEOUT_S) if isinstance(error, OutageError) else nullcontext():
        with suppress(*STORE_ERRORS):
            mlflow.set_tag("ended_by", scrub(shorten(f"{type(error).__name__}: {error}", 500)))
        with suppress(*STORE_ERRORS):
            mlflow.end_run("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")


def new_tags(present: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """The tags to set when a run begins, without secrets: `tags`, this process, and corrected ones.

    MLflow sets tags too, such as the address of a git remote, which may contain a token.
    """
    corrected = {key: value for key, value in present.items() if scrub(value) != value}
    return {key: scrub(value) for key, value in (corrected | dict(tags) | {PROCESS: this_process()}).items()}


def begin(
    run_id: str | None, *, name: str | None = None, parent: str | None = None, tags: dict[str, str] | None = None
) -> mlflow.ActiveRun:
    """Start or resume MLflow's active run. A new run has the tags from the beginning.

    Raises StoreError if the store does not respond or does not have the run.
    """
    if run_id is None:
        connect()
    elif not run_exists(run_id):
        raise StoreError(
            f"{redact_uri(store_uri())} does not contain the run {run_id}: run `dvc repro --force train`, or set "
            "MLFLOW_TRACKING_URI to the store that contains it"
        )
    new = run_id is None and "MLFLOW_RUN_ID" not in os.environ
    with translate_errors():
        if new and parent is None:
            _end_dead_runs()
        return mlflow.start_run(
            run_id,
            experiment_id=_experiment_id(parent) if new else None,
            run_name=name,
            parent_run_id=parent,
            tags=tags,
            log_system_metrics=name is not None and parent is None,
        )


def _end_dead_runs() -> None:
    """End the runs whose process was killed. A training that continues later resumes its run."""
    client = mlflow.MlflowClient()
    for run in client.search_runs([project_experiment()], "attributes.status = 'RUNNING'"):
        if has_exited(run.data.tags.get(PROCESS, "")):
            client.set_tag(run.info.run_id, "ended_by", "its process was killed")
            client.set_terminated(run.info.run_id, "KILLED")


@translate_errors()
def reconcile(run_id: str, trial_state: str, history: Sequence[Mapping[str, float]]) -> None:
    """Complete the run of a trial: log its missing epochs and its state, and end it. A deleted run is ignored."""
    if not run_exists(run_id):
        return
    stored = mlflow.MlflowClient().get_run(run_id)
    left_open = stored.info.status == "RUNNING"
    if stored.data.tags.get("trial_state") == trial_state and not left_open:  # the tag is set last
        return
    with start_run(run_id) as run:
        run.log_missing_epochs(history)
        run.tag("trial_state", trial_state)
    if trial_state == "FAIL":
        mlflow.MlflowClient().set_terminated(run_id, "KILLED" if left_open else "FAILED")


def _experiment_id(parent: str | None) -> str:
    """The experiment of the parent run, or the project's experiment."""
    if parent is not None:
        return str(mlflow.MlflowClient().get_run(parent).info.experiment_id)
    return project_experiment()


def project_experiment() -> str:
    """The ID of the project's experiment, which is created on first use. Connect to the store before."""
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        # The artifacts of a SQLite store are next to it; a server has its own location.
        path = sqlite_path(store_uri())
        artifacts = path.with_name(ARTIFACTS).as_uri() if path else None
        with suppress(MlflowException):  # another process may create it at the same time
            client.create_experiment(EXPERIMENT, artifact_location=artifacts)
        experiment = client.get_experiment_by_name(EXPERIMENT)
    elif experiment.lifecycle_stage == "deleted":  # in MLflow's page, which keeps its content
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)
