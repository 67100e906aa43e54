"""The whole project at work, as a person runs it: a copy of the checkout, drawn faces, dvc and MLflow for real."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow.entities import ViewType
from tests.support.paths import ROOT

from emotion_detection.synthetic.sample import write_sample

# Seconds matter here, scores do not.
QUICK = {"widths": [4, 8], "blocks": [1, 1], "epochs": 2, "patience": 2, "batch_size": 32}
NAME = "emotion-detection-sample"


class Project:
    """A copy of the checkout in a folder of its own, with a small sample and a quick recipe."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
        self.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self.env['PATH']}"
        self.env |= {"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_CONFIG_GLOBAL": os.devnull, "TF_CPP_MIN_LOG_LEVEL": "3"}
        for name in self._tracked():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
        write_sample(folder / "sample" / "sample.zip", per_class=8, seed=5)
        shutil.copyfile(store, folder / "mlflow.db")
        self.set(**QUICK)
        self.run("git", "init", "-q")
        self.commit("a small copy")

    @staticmethod
    def _tracked() -> list[str]:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
        ).stdout.split("\n")
        return [name for name in listed if name and (ROOT / name).is_file() and name != "dvc.lock"]

    def set(self, **train: object) -> None:
        """Change the train section of params.yaml."""
        path = self.folder / "params.yaml"
        tree = yaml.safe_load(path.read_text())
        tree["train"] |= train
        path.write_text(yaml.safe_dump(tree, sort_keys=False))

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", message)

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=self.folder, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *command: str, fails: bool = False) -> str:
        process = self.start(*command)
        output = process.communicate()[0]
        assert (process.returncode != 0) == fails, output
        return output

    def read(self, name: str) -> dict:
        return json.loads((self.folder / "build" / name).read_text())

    @property
    def client(self) -> mlflow.MlflowClient:
        uri = f"sqlite:///{self.folder / 'mlflow.db'}"
        return mlflow.MlflowClient(uri, uri)

    def runs(self) -> list[mlflow.entities.Run]:
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        return list(self.client.search_runs(experiments, run_view_type=ViewType.ALL))

    def model_files(self) -> list[Path]:
        whole = self.folder.glob("build/checkpoints/*/epoch-????/history.json")
        return sorted(whole)


@pytest.fixture(scope="module")
def project(tmp_path_factory, migrated_store):
    """A project after its first `dvc repro`."""
    project = Project(tmp_path_factory.mktemp("project"), migrated_store)
    project.run("dvc", "repro")
    project.commit("the first run")
    return project


def test_a_fresh_copy_ends_with_a_registered_champion(project):
    registered = project.read("registered.json")
    champion = project.client.get_model_version_by_alias(NAME, "champion")
    assert registered["promoted"]
    assert int(champion.version) == registered["version"] == 1
    metrics = project.read("report/metrics.json")
    assert champion.tags["dataset"] == "sample"
    assert float(champion.tags["val_macro_f1"]) == pytest.approx(metrics["val_macro_f1"], abs=1e-6)
    assert champion.tags["dvc_md5"] == yaml.safe_load((project.folder / "data.dvc").read_text())["outs"][0]["md5"]


def test_the_one_run_tells_everything(project):
    (run,) = project.runs()
    assert run.info.status == "FINISHED"
    assert run.data.params["train.augment.flip"] == "True"
    assert run.data.metrics["test_clean_accuracy"] == project.read("report/metrics.json")["test_clean_accuracy"]
    assert run.data.metrics["temperature"] == pytest.approx(project.read("model/run.json")["temperature"])
    second = {"val_flip_accuracy", "test_flip_accuracy_low", "val_ece_uncalibrated", "test_clean_ece_uncalibrated"}
    assert second <= set(run.data.metrics)
    epochs = project.client.get_metric_history(run.info.run_id, "val_macro_f1")
    assert [metric.step for metric in epochs] == [1, 2, 3]  # two epochs, and the exported file's own
    provenance = {"git_commit", "git_dirty", "precision", "dataset", "dataset_digest", "dvc_md5", "host"}
    assert provenance <= set(run.data.tags)
    assert {entry.dataset.name for entry in run.inputs.dataset_inputs} == {
        f"sample-{s}" for s in ("train", "val", "test")
    }
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
    } <= logged


def test_a_training_leaves_weights_that_another_begins_with(project):
    (left,) = (project.folder / "build" / "model" / "initial_weights").iterdir()
    start = shutil.copy(left, project.folder / left.name)
    before = project.read("model/run.json")["train"]["initial_weights"]
    project.set(initial_weights=start.name)
    project.run("dvc", "repro", "train")
    assert project.read("model/run.json")["train"]["initial_weights"] == start.name != before
    project.set(initial_weights=before)
    project.run("dvc", "repro", "train")
    assert project.read("model/run.json")["train"]["initial_weights"] == before


def test_nothing_to_do_logs_nothing_and_old_params_bring_the_old_run_back(project):
    before, first = len(project.runs()), project.read("model/run.json")
    assert "up to date" in project.run("dvc", "repro")
    project.set(epochs=1)
    project.run("dvc", "repro")
    assert project.read("model/run.json") != first
    project.set(epochs=QUICK["epochs"])
    project.run("dvc", "repro")
    assert project.read("model/run.json") == first
    assert len(project.runs()) == before + 1


def test_experiments_in_parallel_are_runs_with_their_names_in_the_one_store(project):
    before = {run.info.run_id for run in project.runs()}
    for name, rate in (("slow", 0.01), ("fast", 0.2)):
        project.run("dvc", "exp", "run", "--queue", "-n", name, "-S", f"train.learning_rate={rate}")
    project.run("dvc", "exp", "run", "--run-all", "--jobs", "2")
    new = [run for run in project.runs() if run.info.run_id not in before]
    assert {run.info.run_name: run.data.params["train.learning_rate"] for run in new} == {"slow": "0.01", "fast": "0.2"}
    assert {run.info.status for run in new} == {"FINISHED"}
    assert {run.data.tags["dvc_experiment"] for run in new} == {"slow", "fast"}
    shown = project.run("dvc", "exp", "show", "--csv")
    assert re.search(r"slow.*0\.01", shown)
    assert re.search(r"fast.*0\.2", shown)
    assert "train.learning_rate" in project.run("dvc", "params", "diff", "slow", "fast")
    assert "val_log_loss" in project.run("dvc", "metrics", "diff", "slow", "fast")
    assert "index.html" in project.run("dvc", "plots", "show")


def test_kill_9_in_mid_epoch_then_repro_goes_on_in_the_same_run(project):
    before = {run.info.run_id for run in project.runs()}
    # Enough epochs to be caught in the middle of them, few enough to end soon.
    project.set(epochs=40, patience=40, seed=2)
    process = project.start("dvc", "repro")
    deadline = time.monotonic() + 120
    while not project.model_files() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (checkpoint,) = {path.parents[1] for path in project.model_files()}
    done = len(json.loads(project.model_files()[-1].read_text()))
    (killed,) = [run for run in project.runs() if run.info.run_id not in before]
    assert (killed.info.status, 1 <= done < 40) == ("RUNNING", True)

    assert f"resuming after epoch {done} of 40" in project.run("dvc", "repro")
    (resumed,) = [run for run in project.runs() if run.info.run_id not in before]
    assert (resumed.info.run_id, resumed.info.status) == (killed.info.run_id, "FINISHED")
    steps = [metric.step for metric in project.client.get_metric_history(killed.info.run_id, "val_loss")]
    assert sorted(steps) == list(range(1, 41))
    assert not checkpoint.exists()


def test_a_stage_that_fails_leaves_its_run_failed(project):
    before = {run.info.run_id for run in project.runs()}
    project.set(epochs=2, patience=2, optimizer="sgd", learning_rate=1e30)
    output = project.run("dvc", "repro", fails=True)
    assert "error: the loss is" in output
    assert "lower train.learning_rate" in output
    (failed,) = [run for run in project.runs() if run.info.run_id not in before]
    assert failed.info.status == "FAILED"


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("epoch", 3, "train.epoch is not a parameter; allowed here: seed, initial_weights, architecture"),
        (
            "architecture",
            "vgg",
            "train.architecture should be 'seed_cnn', 'paper_cnn', 'mini_xception' or 'fer_resnet'",
        ),
        ("learning_rate", -1, "train.learning_rate should be greater than 0 (got -1)"),
    ],
)
def test_a_wrong_param_is_told_in_one_line(project, key, value, told):
    original = (project.folder / "params.yaml").read_text()
    project.set(**{key: value})
    output = project.run("dvc", "repro", fails=True)
    (project.folder / "params.yaml").write_text(original)
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert told in line
