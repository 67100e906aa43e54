"""The pipeline as a user runs it: DVC and MLflow in a copy of the project, with a small sample of drawn faces."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import mlflow
import pytest
import yaml
from huggingface_hub import ModelCard
from tests.support.network import foreign_addresses, needs_strace, traced
from tests.support.paths import ROOT
from tests.support.project import NAME, QUICK, Project

pytestmark = pytest.mark.timeout(1200)  # on a slow machine while other tests run


@pytest.fixture(scope="module")
def project(tmp_path_factory, migrated_store):
    """A project after its first `dvc repro`."""
    project = Project(tmp_path_factory.mktemp("project"), migrated_store)
    project.run(*traced(project.connections, "dvc", "repro"))
    project.commit("the first run")
    yield project
    project.run("dvc", "queue", "stop", "--kill")  # workers wait for more experiments


@needs_strace
def test_pipeline_reaches_no_other_host(project):
    assert foreign_addresses(project.connections) == set()


def test_first_repro_registers_a_champion(project):
    registered = project.read("registered.json")
    champion = project.client.get_model_version_by_alias(NAME, "champion")
    assert registered["promoted"]
    assert int(champion.version) == registered["version"] == 1
    metrics = project.read("report/metrics.json")
    assert champion.tags["dataset"] == "sample"
    assert float(champion.tags["val_macro_f1"]) == pytest.approx(metrics["val_macro_f1"], abs=1e-6)
    assert champion.tags["dvc_md5"] == yaml.safe_load((project.folder / "data.dvc").read_text())["outs"][0]["md5"]


def test_run_contains_params_metrics_tags_inputs_and_artifacts(project):
    (run,) = project.runs()
    assert run.info.status == "FINISHED"
    assert run.data.params["train.augment.flip"] == "True"
    assert run.data.metrics["test_clean_accuracy"] == project.read("report/metrics.json")["test_clean_accuracy"]
    assert run.data.metrics["temperature"] == pytest.approx(project.read("model/run.json")["temperature"])
    second = {"val_flip_accuracy", "test_flip_accuracy_low", "val_ece_uncalibrated", "test_clean_ece_uncalibrated"}
    assert second <= set(run.data.metrics)
    epochs = project.client.get_metric_history(run.info.run_id, "val_macro_f1")
    assert [metric.step for metric in epochs] == [1, 2, 3]  # two epochs and the exported model
    provenance = {"git_commit", "git_dirty", "precision", "dataset", "dataset_digest", "dvc_md5", "host"}
    provenance |= {"command", "code_tree", "environment", "onnx_sha256", "weights_sha256"}
    assert provenance <= set(run.data.tags)
    assert {entry.dataset.name for entry in run.inputs.dataset_inputs} == {
        f"sample-{s}" for s in ("train", "val", "test")
    }
    assert {entry.dataset.digest for entry in run.inputs.dataset_inputs} == {run.data.tags["dataset_digest"][:36]}
    assert {"evaluate.confidence", "register.alias"} <= set(run.data.params)
    logged = {
        file.path
        for folder in ("report", "data", None)
        for file in project.client.list_artifacts(run.info.run_id, folder)
    }
    assert {
        "report/confusion_test.png",
        "report/learning_curves.png",
        "data/contact_sheet.png",
        "history.csv",
        "environment.json",
        "parents.json",
    } <= logged


def test_first_version_can_be_trained_again_to_the_same_weights(project):
    before = len(project.runs())
    assert f"models:/{NAME}/1: identical" in project.run("emotion-detection", "reproduce", f"models:/{NAME}/1")
    assert len(project.runs()) == before
    assert project.run("git", "worktree", "list").count("\n") == 1
    shown = json.loads(project.run("emotion-detection", "lineage", f"models:/{NAME}@champion", "--json"))
    assert shown["reproduction"]["verdict"] == "identical"
    assert shown["code"]["is_here"]
    assert shown["command"] == "dvc repro"
    assert shown["data"]["faces"]["train"] > 0
    assert shown["metrics"]["val"]["macro_f1"] == project.read("report/metrics.json")["val_macro_f1"]


def test_repro_without_changes_logs_nothing_and_old_params_restore_the_old_run(project):
    before, first = len(project.runs()), project.read("model/run.json")
    assert "up to date" in project.run("dvc", "repro")
    project.set(epochs=1)
    project.run("dvc", "repro", "train")
    assert project.read("model/run.json") != first
    project.set(epochs=QUICK["epochs"])
    project.run("dvc", "repro")
    assert project.read("model/run.json") == first
    assert len(project.runs()) == before + 1


def test_registered_model_is_found_by_the_score_that_chose_it(project):
    client, registered = project.client, project.read("registered.json")
    experiment = client.get_run(registered["run_id"]).info.experiment_id
    found = client.search_logged_models([experiment], filter_string="metrics.val_macro_f1 > 0")
    assert registered["run_id"] in {model.source_run_id for model in found}


def test_store_without_the_model_gets_it(project):
    """As `make repro` does it: DVC does not notice another store."""
    recipe = (ROOT / "Makefile").read_text().split("\nrepro:")[1].split("\n\n")[0]
    command = "\n".join(line.strip().removeprefix("@") for line in recipe.splitlines()[2:])
    files = ("dvc.lock", "build/registered.json")
    before = [(project.folder / name).read_bytes() for name in files]
    project.env |= {"MLFLOW_TRACKING_URI": f"sqlite:///{project.folder / 'other.db'}", "PYTHONPATH": "src"}
    try:
        assert "Running stage 'register'" in project.run("bash", "-ec", command)
        again = project.run("bash", "-ec", command)
    finally:
        del project.env["MLFLOW_TRACKING_URI"], project.env["PYTHONPATH"]
    assert "up to date" in again
    assert "Running stage" not in again
    other = mlflow.MlflowClient(*2 * [f"sqlite:///{project.folder / 'other.db'}"])
    version = other.get_model_version_by_alias(NAME, "champion")
    assert version.run_id == project.read("registered.json")["run_id"]
    assert len(project.client.search_model_versions(f"name = '{NAME}'")) == 1
    for name, content in zip(files, before, strict=True):
        (project.folder / name).write_bytes(content)
    assert project.stale() == {}


def test_only_code_that_can_change_a_result_makes_a_stage_stale(project):
    package = project.folder / "src" / "emotion_detection"
    for path in (package / "errors.py", package / "experiments" / "runs.py", package / "inference" / "media.py"):
        path.write_text(path.read_text().replace("cannot", "can not") + "\n# reworded\n")
    for version in ("310", "313"):  # caches of two Python versions
        cache = package / "training" / "__pycache__" / f"trainer.cpython-{version}.pyc"
        cache.parent.mkdir(exist_ok=True)
        cache.write_bytes(version.encode())
    assert project.stale() == {}
    trainer = package / "training" / "trainer.py"
    original = trainer.read_text()
    trainer.write_text(original + "# changed\n")
    assert set(project.stale()) == {"train"}
    trainer.write_text(original)
    assert project.stale() == {}


def test_readme_experiments_are_runs_with_their_names_in_one_store(project):
    before = {run.info.run_id for run in project.runs()}
    try:
        printed = {command: project.run_experiment(command) for command in readme_experiments()}
    finally:
        project.kill_queue_workers()
    new = [run for run in project.runs() if run.info.run_id not in before]
    named = {run.info.run_name: run.data for run in new if run.info.run_name in ("narrow", "slow")}
    assert named["narrow"].params["train.widths"] == "(16, 32, 64)"
    assert named["slow"].params["train.learning_rate"] == "0.02"
    assert {data.tags["dvc_experiment"] for data in named.values()} == {"narrow", "slow"}
    assert {run.info.status for run in new} == {"FINISHED"}
    lineage = json.loads(project.run("emotion-detection", "lineage", "narrow", "--json"))
    own_commit = lineage["dvc_experiment"]["commit"]
    assert f"{own_commit} commit" in project.run("git", "for-each-ref", "refs/exps/")
    assert lineage["code"]["commit"] != own_commit  # DVC makes it after the run
    assert lineage["code"]["patch"]
    shown = printed["dvc exp show"]
    assert "narrow" in shown
    assert "slow" in shown
    assert "index.html" in printed["dvc plots show"]
    assert printed["dvc queue status"].count("Success") == 2
    assert "train.learning_rate" in project.run("dvc", "params", "diff", "narrow", "slow")
    assert "val_log_loss" in project.run("dvc", "metrics", "diff", "narrow", "slow")


def test_readme_report_compares_an_experiment_and_the_card_is_complete(project):
    """Needs the experiments of the test before."""
    project.run("bash", "-c", "emotion-detection report workspace narrow --markdown report.md")
    text, page = ((project.folder / f"report.{suffix}").read_text() for suffix in ("md", "html"))
    assert "| `train.widths` |" in text
    assert "No paired test" not in text
    assert "Learning curves" in page
    assert "are not shown" not in page
    project.run("bash", "-c", f"emotion-detection card models:/{NAME}@champion --output card.md")
    card = ModelCard.load(project.folder / "card.md")
    assert {one.dataset_name for one in card.data.eval_results} == {"sample"}
    assert "not recorded" not in card.text
    for name in ("report.md", "report.html", "card.md"):
        (project.folder / name).unlink()


def readme_experiments() -> list[str]:
    """README's commands of DVC experiments, and its MLflow project."""
    lines = (ROOT / "README.md").read_text().splitlines()
    commands = [line.partition(" #")[0].strip() for line in lines]
    starts = ("dvc exp", "dvc queue", "dvc params", "dvc metrics", "dvc plots")
    chosen = [line for line in commands if line.startswith(starts)]
    return chosen + [line for line in commands if "mlflow run . -e main" in line]


def test_killed_training_continues_in_the_same_run_from_initial_weights(project):
    """The training begins with the weights of the first one, and is killed in the middle of an epoch."""
    (weights,) = (project.folder / "build" / "model" / "initial_weights").iterdir()
    copied = Path(shutil.copy(weights, project.folder / weights.name))
    before = {run.info.run_id for run in project.runs()}
    # Enough epochs to be killed before the last, few enough to end soon.
    project.set(epochs=20, patience=20, seed=2, initial_weights=copied.name)
    process = project.start("dvc", "repro", "train")
    deadline = time.monotonic() + 600
    while not project.checkpoint_histories() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = len(json.loads(project.checkpoint_histories()[-1].read_text()))
    (killed,) = [run for run in project.runs() if run.info.run_id not in before]
    assert (killed.info.status, 1 <= done < 20) == ("RUNNING", True)

    assert f"after epoch {done} of 20" in project.run("dvc", "repro", "train")
    (resumed,) = [run for run in project.runs() if run.info.run_id not in before]
    assert (resumed.info.run_id, resumed.info.status) == (killed.info.run_id, "FINISHED")
    steps = [metric.step for metric in project.client.get_metric_history(killed.info.run_id, "val_loss")]
    assert sorted(steps) == list(range(1, 21))
    assert not project.checkpoint_histories()
    assert project.read("model/run.json")["train"]["initial_weights"] == copied.name


def test_diverged_training_leaves_its_run_failed(project):
    before = {run.info.run_id for run in project.runs()}
    project.set(**QUICK, optimizer="sgd", learning_rate=1e8, initial_weights=None)
    output = project.run("dvc", "repro", "train", fails=True)
    assert "lower train.learning_rate" in output
    (failed,) = [run for run in project.runs() if run.info.run_id not in before]
    assert failed.info.status == "FAILED"


def test_wrong_param_is_reported_in_one_line(project):
    project.set(epoch=3)
    output = project.run("dvc", "repro", "train", fails=True)
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert "train.epoch is not a parameter; allowed here: seed, initial_weights, architecture" in line
