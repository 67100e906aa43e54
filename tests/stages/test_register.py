"""The register stage: a version per model, whenever an earlier attempt was killed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import LoggedModelStatus
from tests.support.onnx_files import write_linear
from tests.support.paths import ROOT

from emotion_detection.experiments import registry, runs
from emotion_detection.stages.register import RegisterPaths, register

NAME = "emotion-detection-sample"
SCORES = {"val_accuracy": 0.6, "val_macro_f1": 0.5, "test_accuracy": 0.61, "test_macro_f1": 0.51}

# Each child registers and is killed at one place; MLflow is imported once. The last one may finish.
KILLED_REGISTRATIONS = """
import os, sys
from importlib import import_module
import mlflow.pyfunc.scoring_server
from emotion_detection.stages.register import RegisterPaths, register
from pathlib import Path

def kill(*_, **__):
    os.kill(os.getpid(), 9)

for place in (*sys.argv[1:], ""):
    child = os.fork()
    if child == 0:
        if place:
            module, _, name = place.partition(":")
            owner = import_module(module)
            *parents, name = name.split(".")
            for parent in parents:
                owner = getattr(owner, parent)
            assert hasattr(owner, name), place
            setattr(owner, name, kill)
        register(RegisterPaths(*(Path(name) for name in ("params.yaml", "data.json", "model", "report", "out.json"))))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(place, status, flush=True)
"""
PLACES = [
    "mlflow.pyfunc:save_model",  # the logged model is pending and empty
    "mlflow.tracking._tracking_service.client:TrackingServiceClient.finalize_logged_model",  # pending, with its files
    "mlflow:register_model",  # ready, without a version
    "emotion_detection.experiments.registry:_describe",  # just after the version exists
    "emotion_detection.experiments.registry:promote_if_better",
    "emotion_detection.experiments.registry:_describe_holder",  # the alias has moved
    "emotion_detection.stages.register:atomic_output",  # before the stage's own file
]


def write_files(folder: Path, *, seed: int = 1, **scores: float) -> RegisterPaths:
    """The files of the earlier stages, and their run."""
    with runs.start_run(name="training") as run:
        run.log_scores(SCORES | scores, [{"val_macro_f1": 0.4}])
    for name in ("model", "report"):
        (folder / name).mkdir(exist_ok=True)
    shutil.copy(ROOT / "params.yaml", folder)
    write_linear(folder / "model" / "model.onnx", seed=seed)
    (folder / "data.json").write_text(json.dumps({"dataset": "sample", "digest": "1", "dvc_md5": "2"}))
    (folder / "model" / "run.json").write_text(json.dumps({"run_id": run.id}))
    (folder / "report" / "metrics.json").write_text(json.dumps(SCORES | scores))
    return RegisterPaths(*(folder / name for name in ("params.yaml", "data.json", "model", "report", "out.json")))


def logged_models() -> list[mlflow.entities.LoggedModel]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(runs.EXPERIMENT)
    return list(client.search_logged_models([experiment.experiment_id]))


@pytest.mark.usefixtures("store")
def test_registering_again_keeps_the_version(tmp_path, capsys):
    paths = write_files(tmp_path)
    register(paths)
    first = json.loads(paths.registered.read_text())
    assert (first["version"], first["promoted"]) == (1, True)
    register(paths)
    assert json.loads(paths.registered.read_text()) == first | {"reason": "it is the champion already"}
    assert [version.number for version in registry.versions(NAME)] == [1]
    assert len(logged_models()) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"{NAME} version 1: champion, it is the champion already"


@pytest.mark.usefixtures("store")
def test_other_model_or_other_run_is_a_new_version(tmp_path):
    for seed in (1, 2):
        register(write_files(tmp_path, seed=seed))
    register(write_files(tmp_path, seed=2))  # another run with the same file
    assert [version.number for version in registry.versions(NAME)] == [3, 2, 1]


@pytest.mark.usefixtures("store")
def test_pages_of_version_and_model_show_the_score_that_chose_them(tmp_path):
    paths = write_files(tmp_path)
    register(paths)
    client = mlflow.MlflowClient()
    version = client.get_model_version(NAME, "1")
    assert "val_macro_f1 0.5000" in version.description
    assert "champion: version 1, val_macro_f1 0.5000" in client.get_registered_model(NAME).description
    (logged,) = logged_models()
    assert {metric.key: metric.value for metric in logged.metrics} == SCORES
    history = client.get_metric_history(version.run_id, "val_macro_f1")
    assert [metric.step for metric in history] == [2]  # no second point in the run
    requirements = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1")) / "requirements.txt"
    lines = requirements.read_text().split()
    assert [line.partition("==")[0] for line in lines] == ["mlflow", "numpy", "onnxruntime"]
    assert all(line.partition("==")[2] for line in lines)


@pytest.mark.usefixtures("store")
def test_changed_scores_of_the_same_model_are_updated(tmp_path):
    paths = write_files(tmp_path)
    register(paths)
    (paths.report / "metrics.json").write_text(json.dumps(SCORES | {"val_macro_f1": 0.7}))
    register(paths)
    (version,) = registry.versions(NAME)
    assert version.tags["val_macro_f1"] == "0.700000"


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_killed_registration_is_completed_once(tmp_path):
    write_files(tmp_path)
    command = [sys.executable, "-c", KILLED_REGISTRATIONS, *PLACES]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    ends = [
        line.split()[-1]
        for line in result.stdout.splitlines()
        if line.startswith(("mlflow", "emotion")) or not line.strip("0 ")
    ]
    assert ends[: len(PLACES)] == ["9"] * len(PLACES), result.stdout + result.stderr
    assert json.loads((tmp_path / "out.json").read_text())["version"] == 1
    (version,) = registry.versions(NAME)
    assert version.aliases == ("champion",)
    (logged,) = logged_models()
    assert logged.status == LoggedModelStatus.READY
    assert [path.name for path in (tmp_path / "mlruns" / "models").iterdir() if any(path.rglob("*"))] == [
        logged.model_id
    ]
    assert mlflow.MlflowClient().get_run(version.run_id).info.status == "FINISHED"


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_two_registrations_at_once_make_one_version(tmp_path):
    write_files(tmp_path)
    code = KILLED_REGISTRATIONS.replace('for place in (*sys.argv[1:], "")', 'for place in [""]')
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(registry.versions(NAME)) == len(logged_models()) == 1
