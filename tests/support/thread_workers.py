"""Workers of a search as threads of the test's process, for tests that are not about processes."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emotion_detection.errors import EmotionDetectionError
from emotion_detection.tuning import worker


@dataclass
class ThreadProcess:
    """The part of subprocess.Popen that the supervisor uses."""

    thread: threading.Thread
    returncode: int | None = None

    def poll(self) -> int | None:
        return None if self.thread.is_alive() else self.returncode

    def wait(self) -> None:
        self.thread.join()

    def kill(self) -> None:
        assert not self.thread.is_alive(), "a thread cannot be killed"


@dataclass
class ThreadWorker:
    job: worker.Job
    storage: str
    log: Path
    stop: threading.Event = field(default_factory=threading.Event)
    error: str = ""

    def __post_init__(self) -> None:
        self.process = ThreadProcess(threading.Thread(target=self._run))
        self.process.thread.start()

    def _run(self) -> None:
        try:
            worker.run(self.job, self.storage, self.stop.is_set)
            self.process.returncode = 0
        except EmotionDetectionError as error:
            self.error = f"error: {error}"
            self.process.returncode = 1

    def request_stop(self) -> None:
        self.stop.set()

    def last_line(self) -> str:
        return self.error


def start_workers(
    module: str, arguments: Sequence[str], *, count: int, logs: Path, environment: Mapping[str, str]
) -> list[ThreadWorker]:
    """Replaces processes.start_workers."""
    assert module == "emotion_detection.tuning.worker"
    job = worker.Job.model_validate_json(arguments[0])
    return [ThreadWorker(job, environment["OPTUNA_STORAGE"], logs / f"worker-{n + 1}.log") for n in range(count)]
