"""Worker processes: start, stop, shares of the machine, identity."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from emotion_detection.tuning import processes

# A worker that writes its environment into a file and runs until a stop is requested.
BUSY = """
import json, os, sys, time
from emotion_detection.tuning import processes
stop_requested = processes.watch_stdin()
with open(sys.argv[1] + f"/{os.getpid()}.json", "w") as stream:
    json.dump(dict(os.environ), stream)
print("working", flush=True)
while not stop_requested():
    time.sleep(0.02)
print("stopped", flush=True)
"""
TIMEOUT_S = 60


def until(condition, what: str) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.fixture
def busy(tmp_path, monkeypatch):
    """A function that starts workers. Those still running at the end of the test are killed."""
    (tmp_path / "busy_worker.py").write_text(BUSY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    started = []

    def start(count: int, **options):
        workers = processes.start_workers(
            "busy_worker", [str(tmp_path)], count=count, logs=tmp_path / "logs", **options
        )
        started.extend(workers)
        until(lambda: len(list(tmp_path.glob("*.json"))) == count, "the workers did not start")
        until(lambda: all("working" in worker.log.read_text() for worker in workers), "the workers do not work")
        return workers

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.wait()


def environments(folder: Path) -> list[dict[str, str]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def test_workers_exit_when_a_stop_is_requested(busy):
    workers = busy(2)
    for worker in workers:
        worker.request_stop()
    assert [worker.process.wait(TIMEOUT_S) for worker in workers] == [0, 0]
    assert [worker.last_line() for worker in workers] == ["stopped"] * 2
    workers[0].request_stop()  # has no effect on a worker that has exited


def test_workers_share_the_threads_and_get_additional_variables(busy, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "of the parent process")
    busy(2, environment={"SECRET": "word"})
    for environment in environments(tmp_path):
        assert environment["TF_NUM_INTRAOP_THREADS"] == str(max(1, processes.available_cores() // 2))
        assert environment["SECRET"] == "word"
        assert "MLFLOW_RUN_ID" not in environment


def test_worker_exits_with_its_parent_process(tmp_path):
    (tmp_path / "busy_worker.py").write_text(BUSY)
    script = (
        "import sys, time; from pathlib import Path; from emotion_detection.tuning import processes; "
        f"workers = processes.start_workers('busy_worker', ['{tmp_path}'], count=1, logs=Path('{tmp_path}')); "
        "print(workers[0].process.pid, flush=True); time.sleep(600)"
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
    assert "CUDA_VISIBLE_DEVICES" not in processes.machine_share(0, 1)
    for number in range(2):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
    assert [processes.machine_share(number, 3)["CUDA_VISIBLE_DEVICES"] for number in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [processes.machine_share(number, 2)["CUDA_VISIBLE_DEVICES"] for number in range(2)] == ["5", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" not in processes.machine_share(0, 1)


def test_every_worker_gets_a_thread():
    assert processes.machine_share(0, 1000)["TF_NUM_INTRAOP_THREADS"] == "1"


def test_this_process_is_running_and_an_ended_one_has_exited():
    process = processes.this_process()
    assert not processes.has_exited(process)
    assert processes.has_exited(process | {"started": 1.0})  # its process ID was reused
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    assert processes.has_exited(process | {"pid": ended.pid})


def test_folders_of_processes_are_private_and_removed_after_their_end(tmp_path, monkeypatch):
    ours = processes.private_folder(tmp_path)
    (ours / "old.log").touch()
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    prefix = ours.name.rpartition("-")[0]
    names = {"ended": f"{prefix}-{ended.pid}", "running": f"{prefix}-{os.getppid()}", "other host": "12345678-1"}
    for name in names.values():
        (tmp_path / name).mkdir()
    assert processes.private_folder(tmp_path) == ours
    assert {path.name for path in tmp_path.iterdir()} == {ours.name, names["running"], names["other host"]}
    assert list(ours.iterdir()) == []
    monkeypatch.setattr(processes, "host_id", lambda: "another host")
    assert processes.private_folder(tmp_path) != ours
