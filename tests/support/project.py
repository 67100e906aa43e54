"""A copy of the project with a small sample and fast settings, in which tests run DVC and MLflow."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import mlflow
import psutil
import yaml
from mlflow.entities import ViewType
from tests.support.network import without_switches
from tests.support.paths import ROOT

from emotion_detection.experiments.runs import EXPERIMENT
from emotion_detection.synthetic.sample import write_sample

# Fast settings; the scores do not matter here.
EPOCHS = 2
QUICK = {"widths": [4, 6, 8], "blocks": [1, 1, 1], "epochs": EPOCHS, "patience": EPOCHS, "batch_size": 32}
NAME = "emotion-detection-sample"


class Project:
    """A copy of the project with a small sample and fast settings."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder, self.connections = folder, folder / "build" / "connections.txt"
        self.connections.parent.mkdir()
        self.env = without_switches()
        self.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self.env['PATH']}"
        self.env |= {"GIT_CONFIG_GLOBAL": os.devnull, "TF_CPP_MIN_LOG_LEVEL": "3"}
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

    def start(self, *command: str, output: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=self.folder, env=self.env, text=True, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *command: str, fails: bool = False) -> str:
        # A file, because DVC's workers keep a pipe open for as long as they live.
        with tempfile.TemporaryFile("w+") as output:
            process = self.start(*command, output=output)
            try:
                process.wait()
            finally:  # a test that runs into its timeout leaves no process behind
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
            output.seek(0)
            text = output.read()
        assert (process.returncode != 0) == fails, text
        return text

    def run_experiment(self, command: str) -> str:
        """Run a command of README.md; wait until no experiment is queued or running where a user would wait."""
        output = self.run("bash", "-c", command)
        while command == "dvc queue status" and re.search(r"Queued|Running", output):
            time.sleep(5)
            if not self._queue_workers():  # one that starts slowly can end before it takes an experiment (DVC 3.67)
                self.run("dvc", "queue", "start")
            output = self.run("bash", "-c", command)
        return output

    def _queue_workers(self) -> list[psutil.Process]:
        pids = [int(path.read_text()) for path in self.folder.glob(".dvc/tmp/exps/celery/dvc-exp-worker-*.pid")]
        return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]

    def kill_queue_workers(self) -> None:
        """A worker that misses DVC's request to end would wait for experiments forever."""
        for worker in self._queue_workers():
            with suppress(psutil.NoSuchProcess):
                worker.kill()

    def stale(self) -> dict[str, object]:
        """The stages that `dvc repro` would run, with their reasons."""
        return json.loads(self.run("dvc", "status", "--json"))

    def read(self, name: str) -> dict:
        return json.loads((self.folder / "build" / name).read_text())

    @property
    def client(self) -> mlflow.MlflowClient:
        uri = f"sqlite:///{self.folder / 'mlflow.db'}"
        return mlflow.MlflowClient(uri, uri)

    def runs(self) -> list[mlflow.entities.Run]:
        """All trainings; the histories of aliases are runs of another experiment."""
        experiments = [one.experiment_id for one in self.client.search_experiments() if one.name == EXPERIMENT]
        return list(self.client.search_runs(experiments, run_view_type=ViewType.ALL))

    def checkpoint_histories(self) -> list[Path]:
        """The history files of complete checkpoints of trainings that have not finished."""
        paths = sorted(self.folder.glob("build/checkpoints/*/epoch-????/history.json"))
        return [path for path in paths if not (path.parents[1] / "finished").exists()]
