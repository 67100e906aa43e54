"""Processes that work side by side on one machine, each with its share of it, and end with the one that began them."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GPUS = Path("/proc/driver/nvidia/gpus")  # the driver's list of them


@dataclass(frozen=True)
class Worker:
    process: subprocess.Popen[str]
    log: Path  # what it printed

    def finish(self) -> None:
        """Ask it to end after what it is doing."""
        if self.process.poll() is None and self.process.stdin:
            try:
                self.process.stdin.write("finish\n")
                self.process.stdin.flush()
            except BrokenPipeError:  # it ended between the two lines
                pass

    def last_words(self) -> str:
        """The last line that it printed."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "no word"


def start(
    module: str, arguments: Sequence[str], *, count: int, logs: Path, told: Mapping[str, str] | None = None
) -> list[Worker]:
    """Start `python -m module arguments` count times, with equal shares of the cores, and a GPU each.

    told: what stands in their environment besides, such as an address with a password in it.
    """
    workers = []
    logs.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        log = logs / f"worker-{number + 1}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                env=_environment() | share(number, count) | dict(told or {}),
                start_new_session=True,  # Ctrl-C is for the one that began them: it decides
            )
        workers.append(Worker(process, log))
    return workers


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}  # that run is not theirs


def share(number: int, count: int) -> dict[str, str]:
    """The environment of worker `number` of `count`: its threads, and its GPU if there are any."""
    threads = str(max(1, cores() // count))
    # A bar in a log is a line without end; and TensorFlow would take all of a GPU that two workers may share.
    manners = {"TQDM_DISABLE": "1", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
    environment = dict.fromkeys(names, threads) | manners
    gpus = _gpus()
    return environment | ({"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {})


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [gpu for gpu in told.split(",") if gpu]
    return [str(number) for number, _ in enumerate(GPUS.iterdir())] if GPUS.exists() else []


def stop_requested() -> Callable[[], bool]:
    """In a worker: whether it was asked to finish. Once the process that began it is gone, it ends at once."""
    asked = threading.Event()

    def listen() -> None:
        for _ in sys.stdin:
            asked.set()
        os._exit(1)  # end of file: nobody is there any more who would tell the world of our results

    threading.Thread(target=listen, daemon=True).start()
    return asked.is_set
