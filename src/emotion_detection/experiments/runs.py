"""MLflow runs that survive a killed process and an unreachable server."""

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads this variable when it is imported

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from requests import RequestException

from emotion_detection.arrays import Images, Labels
from emotion_detection.atomic import atomic_output
from emotion_detection.config import flatten
from emotion_detection.errors import StoreError
from emotion_detection.experiments.urls import redact_uri

EXPERIMENT = "emotion-detection"
SQLITE_TIMEOUT_S = 60  # how long to wait for another process that has locked the SQLite file
SYSTEM_METRICS_INTERVAL_S = 5  # training on the sample takes half a minute

logger = logging.getLogger(__name__)


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, or else the project's SQLite file, whatever the working directory is."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_project_folder() / 'mlflow.db'}"


def _project_folder() -> Path:
    """The folder with dvc.yaml. A queued DVC experiment runs in a temporary copy; DVC_ROOT names the original."""
    working_directory = Path.cwd()
    candidates = [working_directory, *working_directory.parents, *Path(__file__).resolve().parents]
    projects = (folder for folder in candidates if (folder / "dvc.yaml").exists())
    return Path(os.environ.get("DVC_ROOT") or next(projects, working_directory)).resolve()


def connect() -> None:
    """Point MLflow to the store and create the tables of a new SQLite store.

    Raises StoreError if the file is not a SQLite database.
    """
    # An unreachable server never loses a run, so there is no need for MLflow's retries, which take minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    _create_tables()
    mlflow.set_tracking_uri(store_uri())
    mlflow.set_registry_uri(store_uri())
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_INTERVAL_S)


def _create_tables() -> None:
    """Create the tables of a new SQLite store, in one process at a time.

    MLflow's migrations crash if two processes start them at once, and an interrupted migration cannot be repeated: the
    tables are created in another file, which then takes the place of the store.
    """
    path = _sqlite_path()
    if path is None:
        return
    with _file_lock(path, "lock"), translate_errors():
        if path.stat().st_size == 0:
            with atomic_output(path) as unfinished:
                _open_store(f"sqlite:///{unfinished}")
        _open_store(store_uri())


def _open_store(uri: str) -> None:
    mlflow.MlflowClient(uri, uri).search_experiments(max_results=1)


@contextmanager
def exclusive_store() -> Iterator[None]:
    """Lock the SQLite store against other processes on this machine. No-op for a remote store."""
    path = _sqlite_path()
    with _file_lock(path, "seed.lock") if path is not None else nullcontext():
        yield


@contextmanager
def _file_lock(path: Path, suffix: str) -> Iterator[None]:
    """Hold a lock file next to the SQLite file. Raises StoreError if the file cannot be used as a database."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.{suffix}").acquire()
        # MLflow would retry for 100 s to open a file that is not a database, and end with a traceback.
        with closing(sqlite3.connect(path, timeout=SQLITE_TIMEOUT_S)) as database:
            database.execute("PRAGMA schema_version")
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"{path} cannot be used as an MLflow store ({error}): move it away, or set MLFLOW_TRACKING_URI"
        ) from error
    with lock:
        yield


def _sqlite_path() -> Path | None:
    scheme, _, path = store_uri().partition(":///")
    return Path(path).absolute() if scheme == "sqlite" else None


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn exceptions of MLflow and of its HTTP client into a StoreError."""
    try:
        yield
    except (MlflowException, RequestException) as error:
        reason = " ".join(str(error).split())[:300]
        raise StoreError(
            f"the MLflow store {redact_uri(store_uri())} reported an error ({reason}). "
            "Nothing is lost: fix or start the store, then repeat the command"
        ) from error


def run_exists(run_id: str) -> bool:
    """Whether the store has the run. Raises StoreError if the store does not respond."""
    connect()
    with translate_errors():
        client = mlflow.MlflowClient()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        matches = client.search_runs(experiments, f"attributes.run_id = '{run_id}'", max_results=1)
    return bool(matches)


class Run:
    """An active MLflow run, created by `start_run`."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self._warned = False

    @property
    def tags(self) -> dict[str, str]:
        """All tags of the run."""
        with translate_errors():
            return dict(mlflow.MlflowClient().get_run(self.id).data.tags)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log nested params under flat keys such as augment.flip."""
        with translate_errors():
            mlflow.log_params(flatten(params))

    def log_scores(self, scores: Mapping[str, float], history: Sequence[Mapping[str, float]]) -> None:
        """Log the metrics of the finished model.

        A metric that the epochs have too is logged one step after them, because MLflow shows the last step.
        """
        repeated = {key: value for key, value in scores.items() if key in history[-1]}
        with translate_errors():
            mlflow.log_metrics(repeated, step=len(history) + 1)
            mlflow.log_metrics({key: value for key, value in scores.items() if key not in repeated}, step=0)

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Log the metrics of one epoch. If the store does not respond, log a warning once and continue.

        `log_missing_epochs` logs such epochs later.
        """
        try:
            self._log_row(row)
        except (MlflowException, RequestException) as error:
            if not self._warned:
                reason = " ".join(str(error).split())[:200]
                logger.warning("MLflow does not respond. Training continues; the epochs are logged later: %s", reason)
            self._warned = True

    def log_missing_epochs(self, history: Iterable[Mapping[str, float]]) -> None:
        """Log the epochs that the store does not have, because it did not respond or the process was killed."""
        with translate_errors():
            logged = {metric.step for metric in mlflow.MlflowClient().get_metric_history(self.id, "val_loss")}
            for row in history:
                if row["epoch"] not in logged:
                    self._log_row(row)

    def _log_row(self, row: Mapping[str, float]) -> None:
        metrics = {key: value for key, value in row.items() if key != "epoch"}
        mlflow.log_metrics(metrics, step=int(row["epoch"]))

    def tag(self, key: str, value: str) -> None:
        """Set a tag."""
        with translate_errors():
            mlflow.set_tag(key, value)

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Log a file as an artifact."""
        with translate_errors():
            mlflow.log_artifact(str(path), folder)

    def log_folder(self, path: Path, folder: str) -> None:
        """Log all files of a folder as artifacts."""
        with translate_errors():
            mlflow.log_artifacts(str(path), folder)

    def log_faces(self, faces: tuple[Images, Labels], *, name: str, split: str, dvc_md5: str) -> None:
        """Log the digest and the shape of a split as an MLflow dataset; the images are not logged."""
        dataset = mlflow.data.from_numpy(faces[0], targets=faces[1], name=f"{name}-{split}")
        with translate_errors():
            mlflow.log_input(dataset, context=split, tags={"dvc_md5": dvc_md5})


@contextmanager
def start_run(
    run_id: str | None = None,
    *,
    name: str | None = None,
    parent: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Run]:
    """Start a new run, or resume the run `run_id`.

    The run ends as FINISHED, as FAILED if the body raises an exception, or as KILLED on Ctrl-C. Under `mlflow run`,
    the run that this command has created is resumed. Raises StoreError if the store does not respond or does not have
    the run.
    """
    active = _start(run_id, name, parent)
    try:
        with translate_errors():
            mlflow.set_tags(dict(tags or {}))
        yield Run(active.info.run_id)
    except BaseException as error:
        with suppress(MlflowException, RequestException):  # the first error is the one to report
            mlflow.end_run("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    with translate_errors():
        mlflow.end_run()


def _start(run_id: str | None, name: str | None, parent: str | None) -> mlflow.ActiveRun:
    if run_id is None:
        connect()
    elif not run_exists(run_id):
        raise StoreError(
            f"{redact_uri(store_uri())} does not contain the run {run_id}: run `dvc repro --force train`, or set "
            "MLFLOW_TRACKING_URI to the store that contains it"
        )
    new = run_id is None and "MLFLOW_RUN_ID" not in os.environ
    with translate_errors():
        return mlflow.start_run(
            run_id,
            experiment_id=_experiment_id(parent) if new else None,
            run_name=name,
            parent_run_id=parent,
            log_system_metrics=name is not None and parent is None,
        )


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
    """The experiment of the parent run, or the project's experiment, which is created on first use."""
    client = mlflow.MlflowClient()
    if parent is not None:
        return str(client.get_run(parent).info.experiment_id)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        # The artifacts of a SQLite store are next to it; a server has its own location.
        path = _sqlite_path()
        artifacts = path.with_name("mlruns").as_uri() if path else None
        with suppress(MlflowException):  # another process may create it at the same time
            client.create_experiment(EXPERIMENT, artifact_location=artifacts)
        experiment = client.get_experiment_by_name(EXPERIMENT)
    return str(experiment.experiment_id)
