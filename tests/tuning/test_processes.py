import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from emotion_detection.tuning import processes

# A worker that says what it was given, and works until it is asked to finish.
BUSY = """
import json, os, sys, time
from emotion_detection.tuning import processes
asked = processes.stop_requested()
with open(sys.argv[1] + f"/{os.getpid()}.json", "w") as stream:
    json.dump(dict(os.environ), stream)
print("working", flush=True)
while not asked():
    time.sleep(0.02)
print("asked to finish", flush=True)
"""
PATIENCE_S = 60


def until(true, what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.fixture
def busy(tmp_path, monkeypatch):
    """Starts workers; those that are left at the end are killed."""
    (tmp_path / "busy_worker.py").write_text(BUSY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    crews = []

    def start(count: int, **options):
        crew = processes.start("busy_worker", [str(tmp_path)], count=count, logs=tmp_path / "logs", **options)
        crews.extend(crew)
        until(lambda: len(list(tmp_path.glob("*.json"))) == count, "the workers did not start")
        until(lambda: all("working" in worker.log.read_text() for worker in crew), "the workers do not work")
        return crew

    yield start
    for worker in crews:
        worker.process.kill()
        worker.process.wait()


def environments(folder: Path) -> list[dict[str, str]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def test_workers_finish_when_they_are_asked_to(busy):
    crew = busy(2)
    for worker in crew:
        worker.finish()
    assert [worker.process.wait(PATIENCE_S) for worker in crew] == [0, 0]
    assert [worker.last_words() for worker in crew] == ["asked to finish"] * 2
    crew[0].finish()  # once more harms nobody


def test_workers_share_the_threads_and_know_what_they_are_told(busy, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "of the one that began them")
    busy(2, told={"SECRET": "word"})
    for environment in environments(tmp_path):
        assert environment["TF_NUM_INTRAOP_THREADS"] == str(max(1, processes.cores() // 2))
        assert environment["SECRET"] == "word"
        assert "MLFLOW_RUN_ID" not in environment


def test_a_worker_ends_with_the_process_that_began_it(tmp_path):
    (tmp_path / "busy_worker.py").write_text(BUSY)
    script = (
        "import sys, time; from pathlib import Path; from emotion_detection.tuning import processes; "
        f"crew = processes.start('busy_worker', ['{tmp_path}'], count=1, logs=Path('{tmp_path}')); "
        "print(crew[0].process.pid, flush=True); time.sleep(600)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    parent = psutil.Popen([sys.executable, "-c", script], stdout=-1, text=True, env=environment)
    child = psutil.Process(int(parent.stdout.readline()))
    until(lambda: list(tmp_path.glob("*.json")), "the worker did not start")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the worker outlived its parent")


def test_each_worker_gets_one_gpu(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(processes, "GPUS", tmp_path)
    assert "CUDA_VISIBLE_DEVICES" not in processes.share(0, 1)
    for number in range(2):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
    assert [processes.share(number, 3)["CUDA_VISIBLE_DEVICES"] for number in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [processes.share(number, 2)["CUDA_VISIBLE_DEVICES"] for number in range(2)] == ["5", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" not in processes.share(0, 1)


def test_no_worker_is_left_without_a_thread():
    assert processes.share(0, 1000)["TF_NUM_INTRAOP_THREADS"] == "1"
