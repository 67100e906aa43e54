"""The registry: the shipped model is registered once, aliases resolve to versions, and versions to files."""

import json
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import pytest
from tests.support.paths import ROOT

from emotion_detection.commands.seed_registry import seed_registry
from emotion_detection.errors import ModelError, StoreError, UsageError
from emotion_detection.experiments import promotion, registry, runs
from emotion_detection.experiments.registry import ModelName, parse_model_uri
from emotion_detection.inference import pretrained
from emotion_detection.inference.classifier import EmotionClassifier

# Both processes create the store and register the model at the same time: MLflow is imported before the fork. Importing
# TensorFlow would fail, because it takes seconds, and a machine that only runs the demo does not have it.
SEED_IN_TWO_PROCESSES = """
import os, sys
sys.modules["tensorflow"] = sys.modules["keras"] = None
from emotion_detection.cli import main
from emotion_detection.experiments import registry, runs

child = os.fork()
try:
    with runs.start_run():
        pass
    main(["seed-registry"])
    sys.stdout.flush()
except BaseException:
    sys.excepthook(*sys.exc_info())
    os._exit(1)
if child == 0:
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def seeded_folder(migrated_store, tmp_path_factory) -> Path:
    """A folder with a SQLite store, mlflow.db, in which the shipped model is registered."""
    folder = tmp_path_factory.mktemp("seeded")
    shutil.copy(migrated_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        pretrained.seed_registry()
    return folder


@pytest.fixture
def seeded(seeded_folder, store, tmp_path) -> registry.Version:  # noqa: ARG001
    """The champion in a copy of the seeded store. The copy refers to the artifacts of the original."""
    shutil.copy(seeded_folder / "mlflow.db", tmp_path / "mlflow.db")
    return registry.resolve(pretrained.CHAMPION)


def test_shipped_model_becomes_champion_of_an_empty_registry(seeded):
    assert (seeded.name, seeded.number, seeded.aliases) == ("emotion-detection", 1, ("champion",))
    assert seeded.tags["dataset"] == "fer2013"
    assert float(seeded.tags["val_macro_f1"]) > 0.5
    registered = EmotionClassifier(registry.fetch(pretrained.CHAMPION))
    assert registered.metadata == EmotionClassifier(pretrained.MODEL).metadata


def test_run_of_the_shipped_model_has_its_scores_and_files(seeded):
    client = mlflow.MlflowClient()
    run = client.get_run(seeded.run_id)
    assert run.info.run_name == "pretrained"
    scores = {key: value for key, value in run.data.metrics.items() if not key.startswith("system/")}
    assert scores == pytest.approx(json.loads((pretrained.FOLDER / "metrics.json").read_text()))
    artifacts = {Path(artifact.path).name for artifact in client.list_artifacts(seeded.run_id, "pretrained")}
    assert artifacts == {path.name for path in pretrained.FOLDER.iterdir()}


def test_history_of_the_alias_begins_with_the_shipped_model(seeded):
    (entry,) = promotion.history(seeded.name)
    assert (entry.move.kind, entry.move.target, entry.move.why) == ("seed", seeded.number, "the shipped model")


def test_logged_model_is_found_by_its_scores_its_data_and_its_params(seeded):
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(runs.EXPERIMENT).experiment_id
    (model,) = client.search_logged_models([experiment], filter_string="metrics.val_macro_f1 > 0")
    assert model.source_run_id == seeded.run_id
    assert model.params["train.architecture"] == "fer_resnet"
    scores = {metric.key: metric for metric in model.metrics}
    assert scores["val_macro_f1"].value == pytest.approx(float(seeded.tags["val_macro_f1"]), abs=1e-6)
    for key, name in (("val_macro_f1", "fer2013-val"), ("test_accuracy", "fer2013-test")):
        assert (scores[key].dataset_name, scores[key].dataset_digest) == (name, seeded.tags["dataset_digest"][:36])
    data = [{"dataset_name": "fer2013-val", "dataset_digest": seeded.tags["dataset_digest"][:36]}]
    assert client.search_logged_models([experiment], "metrics.val_macro_f1 > 0.5", datasets=data)


@pytest.mark.usefixtures("store")
def test_model_has_the_last_scores_and_no_metric_of_an_epoch():
    history = [{"epoch": epoch, "val_loss": 1.0, "val_macro_f1": 0.1} for epoch in (1, 2)]
    with runs.start_run() as run:
        run.log_missing_epochs(history)
        for score in (0.3, 0.4):  # evaluated twice
            run.log_scores({"val_macro_f1": score, "test_accuracy": score}, history)
        registry.register(pretrained.MODEL, "faces", example=np.zeros((1, 48, 48, 1), np.uint8), tags={})
    client = mlflow.MlflowClient()
    (model,) = client.search_logged_models([client.get_run(run.id).info.experiment_id])
    assert {metric.key: metric.value for metric in model.metrics} == {"val_macro_f1": 0.4, "test_accuracy": 0.4}


def test_shipped_model_names_a_commit_that_contains_it(seeded):
    commit = seeded.tags["git_commit"]
    assert mlflow.MlflowClient().get_run(seeded.run_id).data.tags["git_commit"] == commit
    command = ["git", "show", f"{commit}:pretrained/model.onnx"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True)
    if shown.returncode:
        pytest.skip("this copy of the project has no complete history")
    assert shown.stdout == pretrained.MODEL.read_bytes()


@pytest.mark.usefixtures("seeded")
def test_other_file_than_the_registered_one_is_refused(monkeypatch, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(registry.fetch(pretrained.CHAMPION).parent, copy)
    (model,) = copy.rglob("*.onnx")
    model.write_bytes(model.read_bytes() + b" ")
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", lambda _: str(copy))
    message = r"models:/emotion-detection@champion \(version 1\) is not the file that was registered"
    with pytest.raises(ModelError, match=message):
        registry.fetch(pretrained.CHAMPION)


@pytest.mark.parametrize("uri", [pretrained.CHAMPION, "models:/emotion-detection/1"])
def test_version_is_looked_up_without_a_search(seeded, monkeypatch, uri):
    for name in ("search_model_versions", "search_registered_models"):
        monkeypatch.setattr(mlflow.MlflowClient, name, None)
    assert registry.look_up(uri) == seeded


def test_models_beyond_the_first_page_are_named(seeded, monkeypatch):
    search = mlflow.MlflowClient.search_registered_models

    def small_pages(client, *, max_results, **options):  # noqa: ARG001
        return search(client, max_results=1, **options)

    monkeypatch.setattr(mlflow.MlflowClient, "search_registered_models", small_pages)
    for name in ("other-1", "other-2"):
        mlflow.MlflowClient().create_registered_model(name)
    assert registry.model_names() == [seeded.name, "other-1", "other-2"]


def test_version_has_its_creation_time(seeded):
    assert timedelta() <= datetime.now(timezone.utc) - seeded.created < timedelta(minutes=5)


def test_promotion_waits_for_the_store(seeded):
    """Otherwise two versions could both beat the same champion, and the worse one could be promoted last."""
    promote = partial(promotion.promote, seeded.name, seeded.number, alias="champion", reason="test")
    with ThreadPoolExecutor(1) as pool:
        with runs.exclusive_store():
            result = pool.submit(promote)
            assert wait([result], timeout=0.3).not_done
        assert result.result(timeout=60) is None  # it has the alias already


def test_seeding_again_changes_nothing(seeded, capsys):
    assert pretrained.seed_registry() == seeded
    seed_registry()
    assert capsys.readouterr().out.splitlines()[-1] == "emotion-detection version 1: champion"
    assert len(registry.versions("emotion-detection")) == 1


def test_local_file_is_not_copied(seeded, seeded_folder):
    assert seeded_folder in registry.fetch(f"models:/{seeded.name}/{seeded.number}").parents


def test_seeding_keeps_other_aliases_of_the_champion(seeded):
    registry.set_alias(seeded.name, "other", seeded.number)
    assert pretrained.seed_registry().aliases == ("champion", "other")


def test_new_alias_resolves_to_its_version(seeded):
    registry.set_alias(seeded.name, "spare", 1)
    assert registry.resolve("models:/emotion-detection@spare").number == 1


@pytest.mark.parametrize(
    "uri", ["models:/unknown@champion", "models:/emotion-detection@gone", "models:/emotion-detection/9"]
)
def test_unregistered_model_raises_with_the_command_to_run(seeded, uri):  # noqa: ARG001
    with pytest.raises(StoreError, match=rf"the registry does not contain {uri}: .*seed-registry"):
        registry.fetch(uri)


def test_version_without_onnx_file_raises(seeded, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", lambda _: str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"\(version 1\) contains no ONNX file"):
        registry.fetch(f"models:/{seeded.name}/1")


def test_version_of_an_earlier_release_is_found(store, tmp_path):  # noqa: ARG001
    """Earlier releases registered models of MLflow's flavor onnx."""
    runs.connect()
    client = mlflow.MlflowClient()
    client.create_registered_model("faces")
    folder = tmp_path / "mlruns" / "old"
    folder.mkdir(parents=True)
    shutil.copy(pretrained.MODEL, folder / "model.onnx")
    client.create_model_version("faces", folder.as_uri())
    assert registry.fetch("models:/faces/1").name == "model.onnx"


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("models:/emotion-detection@champion", ModelName("emotion-detection", alias="champion")),
        ("models:/emotion-detection-custom-01ab/12", ModelName("emotion-detection-custom-01ab", version=12)),
    ],
)
def test_model_uri_is_parsed(uri, name):
    assert parse_model_uri(uri) == name


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "models:/",
        "models:/only-a-name",
        "models:/name@",
        "models:/name/",
        "models:/@alias",
        "models:/name/latest",
        "models:/a@b/3",
        "models:/a/3@b",
        "file.onnx",
        "emotion-detection@champion",
    ],
)
def test_invalid_model_uri_raises(uri):
    with pytest.raises(UsageError, match="use models:/NAME@ALIAS or models:/NAME/NUMBER"):
        parse_model_uri(uri)


@pytest.mark.parametrize("kind", ["no database", "a folder"])
def test_unusable_store_raises_with_the_fix(store, tmp_path, kind):  # noqa: ARG001
    path = tmp_path / "mlflow.db"
    path.unlink()
    path.mkdir() if kind == "a folder" else path.write_text("not a SQLite database")
    with pytest.raises(StoreError, match=r"mlflow\.db cannot be used as an MLflow store .*: move it away"):
        registry.versions("emotion-detection")
    with pytest.raises(StoreError, match="cannot be used"):
        pretrained.seed_registry()


def test_unreachable_server_raises_with_the_fix(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as bound:  # without a listener
        bound.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(StoreError, match=f"the MLflow store {uri} reported an error .*: fix or start the store"):
            registry.fetch(pretrained.CHAMPION)


def test_unknown_model_has_no_versions(store):  # noqa: ARG001
    assert registry.versions("unknown") == []


@pytest.mark.slow
def test_two_processes_create_the_store_and_register_one_version_without_tensorflow(store, tmp_path):  # noqa: ARG001
    (tmp_path / "mlflow.db").unlink()
    command = [sys.executable, "-c", SEED_IN_TWO_PROCESSES]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Error" not in result.stderr
    assert result.stdout.count("emotion-detection version 1: champion\n") == 2
    assert len(registry.versions("emotion-detection")) == 1
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(runs.EXPERIMENT)
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FINISHED"] * 3
