"""The run of a training, and its copy in a store that has never had it."""

import hashlib
import json
import shutil

import mlflow
import pytest

from emotion_detection.errors import DataError
from emotion_detection.experiments import runs
from emotion_detection.experiments.copied_run import training_run
from emotion_detection.experiments.runs import Run, start_run

HISTORY = (
    "epoch,loss,accuracy,val_loss,val_accuracy,val_macro_f1,learning_rate\n"
    "1,2.1,0.2,2.0,0.2,0.1,0.1\n"
    "2,1.1,0.3,1.0,0.3,0.2,0.1\n"
)


@pytest.fixture
def folders(store, tmp_path):  # noqa: ARG001
    """The folders of the train and the evaluate stage, as keywords. Their run is in the store."""
    with start_run() as run:
        pass
    model, report = tmp_path / "model", tmp_path / "report"
    model.mkdir()
    report.mkdir()
    (model / "run.json").write_text(json.dumps({"run_id": run.id, "train": {"epochs": 2, "augment": {"flip": True}}}))
    (model / "history.csv").write_text(HISTORY)
    (model / "model.onnx").write_bytes(b"onnx")
    (report / "metrics.json").write_text(json.dumps({"val_macro_f1": 0.25, "test_accuracy": 0.5}))
    return {"model": model, "report": report}


@pytest.fixture
def other_store(migrated_store, tmp_path, monkeypatch):
    def switch():
        shutil.copy(migrated_store, tmp_path / "other.db")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")

    return switch


def all_runs():
    experiment = mlflow.MlflowClient().get_experiment_by_name(runs.EXPERIMENT)
    return mlflow.MlflowClient().search_runs([experiment.experiment_id])


def test_run_in_the_store_is_resumed(folders):
    with training_run(**folders, tags={"dataset": "sample"}) as run:
        pass
    assert run.id == json.loads((folders["model"] / "run.json").read_text())["run_id"]
    assert len(all_runs()) == 1


def test_store_without_the_run_gets_one_copy(folders, other_store):
    other_store()
    ids = []
    for _ in range(2):
        with training_run(**folders, tags={"dataset": "sample"}) as run:
            ids.append(run.id)
    assert ids[0] == ids[1]
    (stored,) = all_runs()
    assert stored.data.params == {"train.epochs": "2", "train.augment.flip": "True"}
    assert stored.data.tags["dataset"] == "sample"
    assert stored.data.tags["onnx_sha256"] == hashlib.sha256(b"onnx").hexdigest()
    scores = {key: value for key, value in stored.data.metrics.items() if not key.startswith("system/")}
    assert scores.items() >= {"val_loss": 1.0, "val_macro_f1": 0.25, "test_accuracy": 0.5}.items()
    history = mlflow.MlflowClient().get_metric_history(stored.info.run_id, "val_macro_f1")
    assert [(point.step, point.value) for point in history] == [(1, 0.1), (2, 0.2), (3, 0.25)]


def test_interrupted_copy_is_not_used(folders, other_store, monkeypatch):
    other_store()

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log_folder", interrupt)
        with pytest.raises(KeyboardInterrupt), training_run(**folders, tags={}):
            pass
    with training_run(**folders, tags={}) as run:
        pass
    ended = {one.info.run_id: one.info.status for one in all_runs()}
    assert ended.pop(run.id) == "FINISHED"
    assert list(ended.values()) == ["KILLED"]


def test_damaged_history_is_refused(folders, other_store):
    other_store()
    (folders["model"] / "history.csv").write_text(HISTORY.replace("1.0", "a"))
    with pytest.raises(DataError, match=r"history\.csv is missing or damaged"), training_run(**folders, tags={}):
        pass
