"""What a dead MLflow server costs a training, for each kind of fault, next to a healthy server.

    python -m benchmarks.dead_server [--epochs 10] [--epoch-s 0.5]

The stages log as in the pipeline, to a real server behind a proxy that is out of order from the start of the training
or from its middle on. The epochs sleep instead of training. Later the server is healthy again and gets everything.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import mlflow
import requests
from tests.support.faulty_server import FAULTS, HEALTHY, Proxy, proxy
from tests.support.postgres import free_port

from emotion_detection.experiments import delivery
from emotion_detection.experiments.outages import OutageError, bounded
from emotion_detection.stages.register import TIMEOUT_S

SCORES = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5, "val_macro_f1": 0.5}
FILES = 12  # in the report of the evaluate stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--epoch-s", type=float, default=0.5, help="how long an epoch takes without a store")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, mlflow_server(Path(folder)) as port, proxy(port) as server:
        os.chdir(folder)
        Path("dvc.yaml").touch()  # a project of its own
        os.environ["MLFLOW_TRACKING_URI"] = server.url
        pipeline(server, HEALTHY, 0, 1, 0)  # imports and first uses
        print("fault     from            train  evaluate  register  lost   delivered epochs")
        healthy = show(server, HEALTHY, "never", arguments.epochs, arguments.epoch_s, None)
        for fault in FAULTS:
            for moment in ("the start", "the middle"):
                show(server, fault, moment, arguments.epochs, arguments.epoch_s, healthy)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[int]:
    """A server with a SQLite store; yields its port."""
    port = free_port()
    options = {"host": "127.0.0.1", "port": port, "workers": 1, "backend-store-uri": f"sqlite:///{folder}/server.db"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "mlflow", "server", *words, "--artifacts-destination", str(folder / "served")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            while process.poll() is None and not answers(port):
                time.sleep(0.2)
            yield port
        finally:
            os.killpg(process.pid, 9)


def answers(port: int) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"http://127.0.0.1:{port}/health", timeout=1).ok
    return False


def show(server: Proxy, fault: str, moment: str, epochs: int, epoch_s: float, healthy: float | None) -> float:
    """Run a pipeline and print its times; returns their sum."""
    seconds, run_id = pipeline(server, fault, 0 if moment == "the start" else epochs // 2, epochs, epoch_s)
    server.fault = HEALTHY
    with delivery.quiet():
        delivery.catch_up(run_id)
    stored = delivery.locate(run_id)
    points = mlflow.MlflowClient().get_metric_history(stored, "val_loss")
    lost = sum(seconds) - (sum(seconds) if healthy is None else healthy)
    times = "  ".join(f"{one:8.1f}" for one in seconds)
    print(f"{fault:9} {moment:11} {times}  {lost:4.1f}   {len(points)} of {epochs}", flush=True)
    return sum(seconds)


def pipeline(server: Proxy, fault: str, dies_at: int, epochs: int, epoch_s: float) -> tuple[list[float], str]:
    """The seconds of each stage, and the ID of the run. dies_at: the number of epochs before the fault."""
    server.fault = fault if dies_at == 0 else HEALTHY
    marks = [time.monotonic()]
    rows = [SCORES | {"epoch": epoch} for epoch in range(1, epochs + 1)]
    with delivery.quiet(), tempfile.TemporaryDirectory() as report:
        for number in range(FILES):
            (Path(report) / f"{number}.png").write_bytes(os.urandom(50_000))
        with delivery.stage_run(uuid.uuid4().hex, name="benchmark", create=True) as run:
            run.log_params({"train": {f"setting_{number}": number for number in range(40)}})
            for row in rows:
                if row["epoch"] == dies_at + 1:
                    server.fault = fault
                time.sleep(epoch_s)
                run.log_epoch(row)
        marks.append(time.monotonic())
        with delivery.stage_run(run.id) as evaluated:
            evaluated.log_missing_epochs(rows)
            evaluated.log_folder(Path(report), "report")
        marks.append(time.monotonic())
        with suppress(OutageError), bounded(TIMEOUT_S, retries=1):
            delivery.catch_up(run.id)  # what the register stage does first
        marks.append(time.monotonic())
    return [after - before for before, after in pairwise(marks)], run.id


if __name__ == "__main__":
    main()
