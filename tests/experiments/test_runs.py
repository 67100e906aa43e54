"""MLflow runs and registered models, checked with MLflow's own client."""

import hashlib
import json
import logging
import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing

import mlflow
import numpy as np
import pytest
from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY
from mlflow.exceptions import MlflowException
from tests.support.onnx_files import write_linear
from tests.support.paths import ROOT

from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import DataError, StoreError
from emotion_detection.experiments.liveness import has_exited, this_host, this_process
from emotion_detection.experiments.promotion import promote
from emotion_detection.experiments.registry import register
from emotion_detection.experiments.runs import connect, run_exists, start_run
from emotion_detection.experiments.store_location import is_default_store, store_uri
from emotion_detection.inference.classifier import EmotionClassifier

HISTORY = [
    {"epoch": epoch, "loss": 1 / epoch, "val_loss": 2 / epoch, "val_macro_f1": 0.1 * epoch} for epoch in (1, 2, 3)
]


def get_run(run_id):
    return mlflow.MlflowClient().get_run(run_id)


def steps(run_id, metric="val_loss"):
    return [point.step for point in mlflow.MlflowClient().get_metric_history(run_id, metric)]


def all_runs():
    client = mlflow.MlflowClient()
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


class UnreliableStore:
    """Replaces mlflow.log_metrics. It fails like an unreachable server while `reachable` is False."""

    def __init__(self, monkeypatch):
        self._log_metrics, self.reachable = mlflow.log_metrics, True
        monkeypatch.setattr(mlflow, "log_metrics", self)

    def __call__(self, *arguments, **settings):
        if not self.reachable:
            raise MlflowException("Connection\nrefused")
        return self._log_metrics(*arguments, **settings)


@pytest.fixture
def unreliable_store(store, monkeypatch):  # noqa: ARG001
    return UnreliableStore(monkeypatch)


@pytest.mark.usefixtures("store")
def test_run_finishes_with_its_name_and_tags():
    with start_run(name="first try", tags={"dataset": "sample"}) as run:
        assert get_run(run.id).info.status == "RUNNING"
    info, data = get_run(run.id).info, get_run(run.id).data
    assert (info.status, info.run_name, data.tags["dataset"]) == ("FINISHED", "first try", "sample")
    assert mlflow.MlflowClient().get_experiment(info.experiment_id).name == "emotion-detection"
    assert mlflow.active_run() is None


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (DataError, "FAILED"), (SystemExit, "FAILED"), (KeyboardInterrupt, "KILLED")],
)
def test_status_of_a_run_depends_on_the_exception(error, status):
    with pytest.raises(error), start_run() as run:
        raise error
    assert get_run(run.id).info.status == status
    assert mlflow.active_run() is None


@pytest.mark.usefixtures("store")
def test_first_error_is_raised_if_the_store_fails_too(monkeypatch):
    def fail(*_):
        raise MlflowException("gone")

    def fail_twice():
        with start_run():
            patch.setattr(mlflow, "end_run", fail)
            raise ValueError("the cause")

    with monkeypatch.context() as patch, pytest.raises(ValueError, match="the cause"):
        fail_twice()


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("end", [None, ValueError, KeyboardInterrupt])
def test_resumed_run_is_the_same_run(end):
    try:
        with start_run(tags={"first": "yes"}) as first:
            first.log_epoch(HISTORY[0])
            if end:
                raise end
    except (ValueError, KeyboardInterrupt):
        pass
    with start_run(first.id, name="again", tags={"second": "yes"}) as second:
        assert second.id == first.id
        assert get_run(first.id).info.status == "RUNNING"
        second.log_epoch(HISTORY[1])
    ended = get_run(first.id)
    assert ended.info.status == "FINISHED"
    assert (ended.data.tags["first"], ended.data.tags["second"]) == ("yes", "yes")
    assert steps(first.id) == [1, 2]
    assert len(all_runs()) == 1


@pytest.mark.usefixtures("store")
def test_run_of_a_killed_process_is_ended_by_the_next_one():
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        pass
    with start_run() as alive:
        pass
    with start_run() as dead:
        pass
    client = mlflow.MlflowClient()
    for run, number in ((alive, os.getpid()), (dead, process.pid)):
        client.set_terminated(run.id, "RUNNING")
        client.set_tag(run.id, "process", this_process().replace(f"process {os.getpid()},", f"process {number},"))
    with start_run():
        pass
    assert get_run(alive.id).info.status == "RUNNING"
    assert get_run(dead.id).info.status == "KILLED"
    assert get_run(dead.id).data.tags["ended_by"] == "its process was killed"


@pytest.mark.parametrize(
    "process", ["", "words", "another host, process 1, started 1", f"{this_host()}, process x, started 1"]
)
def test_process_of_another_host_counts_as_alive(process):
    assert not has_exited(process)
    assert not has_exited(this_process())


@pytest.mark.usefixtures("store")
def test_experiment_that_was_deleted_in_the_page_is_restored():
    with start_run() as run:
        pass
    mlflow.MlflowClient().delete_experiment(get_run(run.id).info.experiment_id)
    with start_run() as second:
        pass
    assert get_run(second.id).info.experiment_id == get_run(run.id).info.experiment_id


@pytest.mark.usefixtures("store")
def test_unknown_run_raises():
    message = r"does not contain the run 0+: run `dvc repro --force train`"
    with pytest.raises(StoreError, match=message), start_run("0" * 32):
        pass


@pytest.mark.usefixtures("store")
def test_runs_share_an_experiment_with_artifacts_next_to_the_store(tmp_path):
    (tmp_path / "report.txt").write_text("1")
    for _ in range(2):
        with start_run() as run:
            run.log_file(tmp_path / "report.txt", "data")
    first, second = all_runs()
    assert first.info.experiment_id == second.info.experiment_id
    assert (tmp_path / "mlruns" / run.id / "artifacts" / "data" / "report.txt").read_text() == "1"


@pytest.mark.usefixtures("store")
def test_mlflow_run_id_is_resumed_unless_a_run_is_named(monkeypatch):
    with start_run() as waiting:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", waiting.id)
    with start_run() as run:
        assert run.id == waiting.id
    with start_run() as other:
        pass
    assert other.id != waiting.id
    monkeypatch.setenv("MLFLOW_RUN_ID", waiting.id)
    with start_run(other.id) as run:
        assert run.id == other.id


@pytest.mark.usefixtures("store")
def test_params_are_flattened():
    with start_run() as run:
        run.log_params({"train": {"epochs": 3, "augment": {"scale": (0.9, 1.1), "flip": True}}, "seed": 1})
        run.log_params({"seed": 1})  # a resumed run logs them again
    assert get_run(run.id).data.params == {
        "train.epochs": "3",
        "train.augment.scale": "(0.9, 1.1)",
        "train.augment.flip": "True",
        "seed": "1",
    }


@pytest.mark.usefixtures("store")
def test_all_committed_params_can_be_logged(params):
    with start_run() as run:
        run.log_params(params.model_dump(include={"prepare", "train"}))
    logged = get_run(run.id).data.params
    assert logged["train.augment.flip"] == str(params.train.augment.flip)
    sections = (params.train.augment, params.train.distillation, params.train.average)
    leaves = len(type(params.train).model_fields) - len(sections) + sum(len(type(one).model_fields) for one in sections)
    assert len(logged) == 2 + leaves


@pytest.mark.usefixtures("store")
def test_changed_params_of_a_run_raise():
    with start_run() as run:
        run.log_params({"seed": 1})
        with pytest.raises(StoreError, match="reported an error"):
            run.log_params({"seed": 2})


@pytest.mark.usefixtures("store")
def test_epochs_are_logged_at_their_steps():
    with start_run() as run:
        for row in HISTORY:
            run.log_epoch(row)
        run.log_scores({"test_accuracy": 0.5, "val_macro_f1": 0.2}, HISTORY)
        run.log_missing_epochs(HISTORY)  # the scores are not an epoch
    for metric in ("loss", "val_loss", "val_macro_f1"):
        points = mlflow.MlflowClient().get_metric_history(run.id, metric)
        assert [(point.step, point.value) for point in points][:3] == [(row["epoch"], row[metric]) for row in HISTORY]
    shown = get_run(run.id).data.metrics
    assert "epoch" not in shown
    assert (shown["test_accuracy"], shown["val_macro_f1"], shown["val_loss"]) == (0.5, 0.2, HISTORY[2]["val_loss"])
    assert steps(run.id, "val_macro_f1") == [1, 2, 3, 4]
    assert steps(run.id, "test_accuracy") == [0]


def test_epochs_that_the_store_missed_are_logged_later(unreliable_store, caplog):
    with caplog.at_level(logging.WARNING), start_run() as run:
        run.log_epoch(HISTORY[0])
        unreliable_store.reachable = False
        run.log_epoch(HISTORY[1])
        run.log_epoch(HISTORY[2])
        unreliable_store.reachable = True
        assert steps(run.id) == [1]
        run.log_missing_epochs(HISTORY)
        run.log_missing_epochs(HISTORY)  # logs nothing again
    assert steps(run.id) == [1, 2, 3]
    assert steps(run.id, "loss") == [1, 2, 3]
    warnings = [record.getMessage() for record in caplog.records if record.name == "emotion_detection.experiments.runs"]
    assert warnings == ["MLflow does not respond. Training continues; the epochs are logged later: Connection refused"]


def test_store_that_fails_in_the_middle_of_a_training_costs_a_warning(unreliable_store, monkeypatch, tmp_path, caplog):
    def fail(*_):
        raise MlflowException("gone")

    (tmp_path / "history.csv").touch()
    with caplog.at_level(logging.WARNING), monkeypatch.context() as patch, start_run() as run:
        run.log_epoch(HISTORY[0])
        unreliable_store.reachable = False
        patch.setattr(mlflow.MlflowClient, "set_terminated", fail)
        run.log_epoch(HISTORY[1])
        run.attempt(lambda: run.log_history(HISTORY, tmp_path / "history.csv"))
    assert get_run(run.id).info.status == "RUNNING"
    assert mlflow.active_run() is None
    assert [record.name for record in caplog.records].count("emotion_detection.experiments.runs") == 1
    unreliable_store.reachable = True
    with start_run(run.id) as run:  # of the evaluate stage
        run.log_history(HISTORY, tmp_path / "history.csv")
    assert get_run(run.id).info.status == "FINISHED"
    assert steps(run.id) == [1, 2, 3]


def test_unreachable_store_at_the_end_raises(unreliable_store):
    unreliable_store.reachable = False
    with pytest.raises(StoreError, match="repeat the command"), start_run() as run:
        run.log_missing_epochs(HISTORY)
    assert get_run(run.id).info.status == "FAILED"


@pytest.mark.usefixtures("store")
def test_faces_are_logged_by_digest_and_size_without_images(drawn, tmp_path):
    digests = []
    for split in ("train", "val"):
        part = drawn.of(split)
        with start_run() as run:
            run.log_faces((part.images, part.labels), name="sample", split=split, dvc_md5="123")
        (entry,) = get_run(run.id).inputs.dataset_inputs
        assert entry.dataset.name == f"sample-{split}"
        assert {"mlflow.data.context": split, "dvc_md5": "123"}.items() <= {t.key: t.value for t in entry.tags}.items()
        assert len(entry.dataset.profile) < 1000
        digests.append(entry.dataset.digest)
    assert digests[0] != digests[1]
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".npy", ".npz", ".png"}]


def logged_digest(images, labels, **digest):
    with start_run() as run:
        run.log_faces((images, labels), name="drawn", split="train", dvc_md5="123", **digest)
    (entry,) = get_run(run.id).inputs.dataset_inputs
    return entry.dataset.digest


@pytest.mark.usefixtures("store")
def test_late_pixel_and_late_label_change_the_digest_of_a_data_set():
    images, labels = np.zeros((20_001, 48, 48), np.uint8), np.zeros(20_001, np.uint8)
    first = logged_digest(images, labels)
    assert logged_digest(images, labels) == first
    images[20_000, 47, 47] = 1
    changed_pixel = logged_digest(images, labels)
    labels[10_001] = 1
    assert len({first, changed_pixel, logged_digest(images, labels)}) == 3


@pytest.mark.usefixtures("store")
def test_digest_in_mlflow_is_that_of_the_data_report(drawn):
    digest = hashlib.sha256(b"all splits").hexdigest()
    for split in ("train", "val"):
        part = drawn.of(split)
        assert logged_digest(part.images, part.labels, digest=digest) == digest[:36]


@pytest.mark.usefixtures("store")
@pytest.mark.filterwarnings("error")
def test_source_of_a_data_set_is_its_pin(drawn):
    with start_run() as run:
        run.log_faces((drawn.images, drawn.labels), name="drawn", split="train", dvc_md5="123")
    (entry,) = get_run(run.id).inputs.dataset_inputs
    assert json.loads(entry.dataset.source) == {"uri": "data.dvc"}


@pytest.mark.usefixtures("store")
def test_run_is_found_whatever_the_number_of_experiments(monkeypatch):
    with start_run() as run:
        pass
    monkeypatch.setattr(mlflow.MlflowClient, "search_experiments", lambda *_, **__: [])  # a first page without it
    assert run_exists(run.id)
    assert not run_exists("0" * 32)
    assert not run_exists("not an ID")


@pytest.mark.usefixtures("store")
def test_deleted_run_does_not_exist():
    with start_run() as run:
        pass
    mlflow.MlflowClient().delete_run(run.id)
    assert not run_exists(run.id)


@pytest.mark.usefixtures("store")
def test_params_of_a_repeated_stage_may_change():
    with start_run() as run:
        run.log_stage_params({"evaluate": {"confidence": 0.95, "ece_bins": 15}})
    with start_run(run.id) as run:
        run.log_stage_params({"evaluate": {"confidence": 0.9, "ece_bins": 15}})
    stored = get_run(run.id).data
    assert stored.params == {"evaluate.confidence": "0.95", "evaluate.ece_bins": "15"}
    assert stored.tags["evaluate.confidence"] == "0.9"
    assert "evaluate.ece_bins" not in stored.tags
    with start_run(run.id) as run:
        run.log_stage_params({"evaluate": {"confidence": 0.95, "ece_bins": 15}})
    assert get_run(run.id).data.tags["evaluate.confidence"] == "0.95"


@pytest.fixture
def outside_project(monkeypatch, tmp_path):
    """A working directory outside any project, and no environment variables for the store."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_store_is_found_from_any_folder_of_the_project(outside_project, monkeypatch):
    (outside_project / "dvc.yaml").touch()
    (outside_project / "src" / "deep").mkdir(parents=True)
    for folder in (outside_project, outside_project / "src" / "deep"):
        monkeypatch.chdir(folder)
        assert store_uri() == f"sqlite:///{outside_project.resolve() / 'mlflow.db'}"


@pytest.mark.parametrize(
    ("uri", "default"),
    [(None, True), ("sqlite:///mlflow.db", True), ("sqlite:///team.db", False), ("http://127.0.0.1:5000", False)],
)
def test_default_store_is_the_file_of_the_project(outside_project, monkeypatch, uri, default):
    (outside_project / "dvc.yaml").touch()
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert is_default_store() is default


@pytest.mark.usefixtures("outside_project")
def test_default_store_outside_a_project_is_in_the_checkout():
    assert store_uri() == f"sqlite:///{ROOT / 'mlflow.db'}"


def test_queued_experiment_uses_the_store_of_the_project(outside_project, monkeypatch):
    (outside_project / "copy").mkdir()
    (outside_project / "copy" / "dvc.yaml").touch()
    monkeypatch.chdir(outside_project / "copy")
    monkeypatch.setenv("DVC_ROOT", str(outside_project / "project"))
    assert store_uri() == f"sqlite:///{outside_project.resolve() / 'project' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store_uri() == "http://127.0.0.1:5000"


@pytest.mark.usefixtures("store")
def test_unreachable_server_raises_after_three_attempts(monkeypatch):
    from urllib3.util import connection

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    attempts = []

    def create_connection(address, *arguments, **settings):
        attempts.append(address)
        return original(address, *arguments, **settings)

    original = connection.create_connection
    monkeypatch.setattr(connection, "create_connection", create_connection)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    message = f"127.0.0.1:{port} reported an error .* repeat the command"
    with pytest.raises(StoreError, match=message) as error, start_run():
        pass
    assert "\n" not in str(error.value)
    assert attempts == 3 * [("127.0.0.1", port)]  # MLflow's default of 7 retries would take minutes


@pytest.mark.usefixtures("store")
def test_registered_version_has_its_tags_and_run_and_predicts_the_same(tmp_path):
    faces = np.random.default_rng(1).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    path = write_linear(tmp_path / "model.onnx", seed=3)
    expected = EmotionClassifier(path).probabilities(faces)
    tags = {"dataset": "sample", "val_macro_f1": "0.5"}
    with start_run() as run:
        number = register(path, "faces", example=faces[..., None], tags=tags)
    stored = mlflow.MlflowClient().get_model_version("faces", str(number))
    assert (number, stored.run_id) == (1, run.id)
    assert stored.tags.items() >= tags.items()
    promote("faces", number, alias="best", reason="the only one")

    loaded = mlflow.pyfunc.load_model("models:/faces@best")
    answers = loaded.predict(faces[..., None])
    assert all(tuple(answer) == EMOTIONS for answer in answers)
    np.testing.assert_allclose([list(answer.values()) for answer in answers], expected, atol=1e-6)
    assert loaded.metadata.get_output_schema().required_input_names() == list(EMOTIONS)
    assert loaded.metadata.get_input_schema().input_names() == ["image"]


IMPORT_RUNS = """
import os, sys

class MlflowImport:
    def find_spec(self, name, *_):
        if name == "mlflow":
            print(os.environ[variable])
            os._exit(0)

variable = sys.argv[1]
sys.stdout.reconfigure(line_buffering=True)
sys.meta_path.insert(0, MlflowImport())
import emotion_detection.experiments.registry
"""


@pytest.mark.parametrize(("setting", "expected"), [(None, "true"), ("false", "false")])
def test_telemetry_is_disabled_before_mlflow_is_imported(setting, expected, monkeypatch):
    """The process ends where it would import MLflow, which takes seconds."""
    name = MLFLOW_DISABLE_TELEMETRY.name
    env = {key: value for key, value in os.environ.items() if key != name} | ({name: setting} if setting else {})
    result = subprocess.run([sys.executable, "-c", IMPORT_RUNS, name], env=env, capture_output=True, text=True)
    assert result.stdout.strip() == expected, result.stderr
    monkeypatch.setenv(name, expected)
    assert MLFLOW_DISABLE_TELEMETRY.get() is (expected == "true")


def test_interrupted_migration_can_be_repeated(tmp_path, monkeypatch):
    def interrupted(uri, _):
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
            database.execute("CREATE TABLE trace_info (id INTEGER)")
        raise KeyboardInterrupt

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr("mlflow.MlflowClient", interrupted)
    with pytest.raises(KeyboardInterrupt):
        connect()
    assert (tmp_path / "mlflow.db").stat().st_size == 0  # as if it was never opened
    assert not list(tmp_path.glob("unfinished-*"))
