"""MLflow's runs, such that they survive a killed process and an absent server."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads it while it is imported

import mlflow
import numpy as np
from filelock import FileLock
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from requests import RequestException

from emotion_detection.config import flatten
from emotion_detection.errors import InputError
from emotion_detection.experiments.urls import redact_uri

EXPERIMENT = "emotion-detection"
Pixels = NDArray[np.uint8]
LOCKED_S = 60  # how long another process may keep a sqlite store locked
METRICS_EVERY_S = 5  # system metrics; the sample trains for half a minute


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, else the sqlite file of the project, the same from whatever directory one asks."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_root() / 'mlflow.db'}"


def _root() -> Path:
    """The project's folder. DVC_ROOT leads a queued experiment, which runs in a temporary copy, back to it."""
    here = Path.cwd()
    candidates = [here, *here.parents, *Path(__file__).resolve().parents]
    found = (folder for folder in candidates if (folder / "dvc.yaml").exists())
    return Path(os.environ.get("DVC_ROOT") or next(found, here)).resolve()


def connect() -> None:
    """Point MLflow at the store; a new sqlite store gets its tables. InputError if its file is no database."""
    # A run is never lost for an absent server, so there is no use in waiting minutes for one.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    _create_tables()
    mlflow.set_tracking_uri(store_uri())
    mlflow.set_registry_uri(store_uri())
    mlflow.set_system_metrics_sampling_interval(METRICS_EVERY_S)


def _create_tables() -> None:
    """One process makes a new sqlite store; MLflow's own migrations crash when two queued experiments start them."""
    path = _sqlite_path()
    if path is not None:
        with _locked(path, "lock"), translate_errors():
            mlflow.MlflowClient(store_uri(), store_uri()).search_experiments(max_results=1)


@contextmanager
def exclusive_store() -> Iterator[None]:
    """Keep this machine's other users of the same sqlite store out of the body; a server has no such door."""
    path = _sqlite_path()
    with _locked(path, "seed.lock") if path is not None else nullcontext():
        yield


@contextmanager
def _locked(path: Path, suffix: str) -> Iterator[None]:
    """Hold a lock beside the sqlite file. InputError if no database is there and none can begin."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(f"{path}.{suffix}").acquire()
        # MLflow would try for 100 s to open what is none, and end in a traceback.
        with closing(sqlite3.connect(path, timeout=LOCKED_S)) as store:
            store.execute("PRAGMA schema_version")
    except (OSError, sqlite3.Error) as error:
        raise InputError(
            f"{path} cannot be used as an MLflow store ({error}): move it away, or point MLFLOW_TRACKING_URI to another"
        ) from error
    with held:
        yield


def _sqlite_path() -> Path | None:
    scheme, _, path = store_uri().partition(":///")
    return Path(path).absolute() if scheme == "sqlite" else None


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn MLflow's exceptions into the one sentence a person needs."""
    try:
        yield
    except (MlflowException, RequestException) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"the MLflow store {redact_uri(store_uri())} refused ({reason}); "
            "nothing is lost: mend or start it and type the same command again"
        ) from error


def exists(run_id: str) -> bool:
    """Whether the store knows the run; InputError if the store does not answer."""
    connect()
    with translate_errors():
        experiments = [experiment.experiment_id for experiment in mlflow.MlflowClient().search_experiments()]
        found = mlflow.MlflowClient().search_runs(experiments, f"attributes.run_id = '{run_id}'", max_results=1)
    return bool(found)


class Run:
    """An open MLflow run; made by `run`."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self._warned = False

    @property
    def tags(self) -> dict[str, str]:
        """What the run says of itself, since its beginning."""
        with translate_errors():
            return dict(mlflow.MlflowClient().get_run(self.id).data.tags)

    def log_params(self, params: Mapping[str, object]) -> None:
        """A tree of params, flattened to keys such as augment.flip."""
        with translate_errors():
            mlflow.log_params(flatten(params))

    def log_scores(self, scores: Mapping[str, float], history: Sequence[Mapping[str, float]]) -> None:
        """The finished model's metrics. One that the epochs had too goes a step after them: the last step counts."""
        late = {key: value for key, value in scores.items() if key in history[-1]}
        with translate_errors():
            mlflow.log_metrics(late, step=len(history) + 1)
            mlflow.log_metrics({key: value for key, value in scores.items() if key not in late}, step=0)

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Metrics of one epoch. If the store does not answer, training goes on; `log_missing` mends the gap."""
        try:
            self._log_row(row)
        except (MlflowException, RequestException) as error:
            if not self._warned:
                print(f"MLflow does not answer, training goes on without: {' '.join(str(error).split())[:200]}")
            self._warned = True

    def log_missing(self, history: Iterable[Mapping[str, float]]) -> None:
        """Log those epochs that the store has not got: all it missed while it was away or the process was dead."""
        with translate_errors():
            known = {metric.step for metric in mlflow.MlflowClient().get_metric_history(self.id, "val_loss")}
            for row in history:
                if row["epoch"] not in known:
                    self._log_row(row)

    def _log_row(self, row: Mapping[str, float]) -> None:
        metrics = {key: value for key, value in row.items() if key != "epoch"}
        mlflow.log_metrics(metrics, step=int(row["epoch"]))

    def tag(self, key: str, value: str) -> None:
        with translate_errors():
            mlflow.set_tag(key, value)

    def log_file(self, path: Path, folder: str | None = None) -> None:
        with translate_errors():
            mlflow.log_artifact(str(path), folder)

    def log_folder(self, path: Path, folder: str) -> None:
        with translate_errors():
            mlflow.log_artifacts(str(path), folder)

    def log_faces(self, faces: tuple[Pixels, Pixels], *, name: str, split: str, dvc_md5: str) -> None:
        """Name the (images, labels) of a split: their digest and shapes, never the pictures."""
        data = mlflow.data.from_numpy(faces[0], targets=faces[1], name=f"{name}-{split}")
        with translate_errors():
            mlflow.log_input(data, context=split, tags={"dvc_md5": dvc_md5})


@contextmanager
def run(
    run_id: str | None = None,
    *,
    name: str | None = None,
    parent: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Run]:
    """Open a new run, or the one that is named; it ends FINISHED, FAILED if the body raises, KILLED on Ctrl-C.

    Under `mlflow run` the new run is the one which that command has opened. InputError if the store does not answer
    or does not know the run.
    """
    active = _start(run_id, name, parent)
    try:
        with translate_errors():
            mlflow.set_tags(dict(tags or {}))
        yield Run(active.info.run_id)
    except BaseException as error:
        with suppress(MlflowException, RequestException):  # the first error is the one to show
            mlflow.end_run("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    with translate_errors():
        mlflow.end_run()


def _start(run_id: str | None, name: str | None, parent: str | None) -> mlflow.ActiveRun:
    if run_id is None:
        connect()
    elif not exists(run_id):
        raise InputError(
            f"{redact_uri(store_uri())} has no run {run_id}: type `dvc repro --force train`, or point to its store"
        )
    new = run_id is None and "MLFLOW_RUN_ID" not in os.environ
    with translate_errors():
        return mlflow.start_run(
            run_id,
            experiment_id=_experiment(parent) if new else None,
            run_name=name,
            parent_run_id=parent,
            log_system_metrics=name is not None and parent is None,
        )


@translate_errors()
def reconcile(run_id: str, trial_state: str, history: Sequence[Mapping[str, float]]) -> None:
    """Tell the run of a trial what it has missed: its end, its state, epochs. A run that was deleted misses nothing."""
    if not exists(run_id):
        return
    found = mlflow.MlflowClient().get_run(run_id)
    left_open = found.info.status == "RUNNING"
    if found.data.tags.get("trial_state") == trial_state and not left_open:  # the tag comes last
        return
    with run(run_id) as late:
        late.log_missing(history)
        late.tag("trial_state", trial_state)
    if trial_state == "FAIL":
        mlflow.MlflowClient().set_terminated(run_id, "KILLED" if left_open else "FAILED")


def _experiment(parent: str | None) -> str:
    """The id of the parent's experiment, or of the project's: made at first use, artifacts beside the sqlite file."""
    client = mlflow.MlflowClient()
    if parent is not None:
        return str(client.get_run(parent).info.experiment_id)
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        # An sqlite store has its artifacts beside it; a server decides for itself.
        path = _sqlite_path()
        artifacts = path.with_name("mlruns").as_uri() if path else None
        with suppress(MlflowException):  # another process may make it at the same moment
            client.create_experiment(EXPERIMENT, artifact_location=artifacts)
        found = client.get_experiment_by_name(EXPERIMENT)
    return str(found.experiment_id)
