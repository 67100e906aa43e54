"""Worker processes: each gets a share of the machine and exits with the process that started it."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

GPUS = Path("/proc/driver/nvidia/gpus")  # one entry per GPU, by Nvidia's driver
CLOCK_TOLERANCE_S = 60  # by how much the wall clock may be adjusted while a process runs


@dataclass(frozen=True)
class Worker:
    """A worker process and the file with its output."""

    process: subprocess.Popen[str]
    log: Path

    def request_stop(self) -> None:
        """Ask the worker to exit after its current trial."""
        if self.process.poll() is None and self.process.stdin:
            with suppress(BrokenPipeError):  # it exited after the poll
                self.process.stdin.write("stop\n")
                self.process.stdin.flush()

    def last_line(self) -> str:
        """The last line of its output."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "no output"


def start_workers(
    module: str, arguments: Sequence[str], *, count: int, logs: Path, environment: Mapping[str, str] | None = None
) -> list[Worker]:
    """Start `python -m module arguments` count times, with equal shares of the CPU cores and one GPU each.

    environment: additional variables, such as an address that contains a password.
    """
    logs.mkdir(parents=True, exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}  # the parent's run
    workers = []
    for number in range(count):
        log = logs / f"worker-{number + 1}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                env=inherited | machine_share(number, count) | dict(environment or {}),
                start_new_session=True,  # Ctrl-C must reach the parent only, which decides what to do
            )
        workers.append(Worker(process, log))
    return workers


def machine_share(number: int, count: int) -> dict[str, str]:
    """Environment variables that give worker `number` of `count` its threads, and its GPU if there is one."""
    threads = str(max(1, available_cores() // count))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
    # A progress bar would fill the log, and TensorFlow would reserve all memory of a GPU that workers may share.
    environment = dict.fromkeys(names, threads) | {"TQDM_DISABLE": "1", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    gpus = _gpus()
    return environment | ({"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {})


def available_cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu]
    return [str(number) for number, _ in enumerate(GPUS.iterdir())] if GPUS.exists() else []


def watch_stdin() -> Callable[[], bool]:
    """For a worker: return a function that tells whether a stop was requested. Exit when the parent process exits."""
    requested = threading.Event()

    def listen() -> None:
        for _ in sys.stdin:
            requested.set()
        os._exit(1)  # EOF: the parent process exited, so results cannot be reported.

    threading.Thread(target=listen, daemon=True).start()
    return requested.is_set


def this_process() -> dict[str, Any]:
    """A description that identifies this process among all processes of all machines."""
    return {"host": host_id(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def has_exited(process: Mapping[str, Any]) -> bool:
    """Whether a process of this host, described by `this_process`, has exited."""
    try:
        candidate = psutil.Process(process["pid"])
        # The operating system reuses process IDs, but not within a minute.
        reused = abs(candidate.create_time() - process["started"]) > CLOCK_TOLERANCE_S
        return reused or candidate.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@cache
def host_id() -> str:
    """Identifies the host, and the container on it, whose process IDs are comparable."""
    name = f"{platform.node()} {uuid.getnode():x}"  # two machines can have the same name
    with suppress(OSError):  # Linux only
        return f"{name} {os.readlink('/proc/self/ns/pid')}"
    return name


def private_folder(parent: Path) -> Path:
    """Create a folder for this process only, and remove those of processes of this host that have exited."""
    prefix = hashlib.sha256(host_id().encode()).hexdigest()[:8]
    folder = parent / f"{prefix}-{os.getpid()}"
    for other in parent.glob(f"{prefix}-*"):
        if other == folder or not psutil.pid_exists(int(other.name.rpartition("-")[2])):
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
