"""The supervisor of a search ends its workers on SIGTERM."""

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest

from emotion_detection.errors import TerminatedError
from emotion_detection.tuning import supervisor


@dataclass
class EndlessProcess:
    returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        self.returncode = -signal.SIGKILL

    def wait(self) -> None:
        assert self.returncode is not None


@dataclass
class EndlessWorker:
    log: Path = Path("worker-1.log")
    process: EndlessProcess = field(default_factory=EndlessProcess)
    stops: int = 0

    def request_stop(self) -> None:
        self.stops += 1


def test_sigterm_ends_the_workers_at_once(monkeypatch):
    def terminate(_):
        raise TerminatedError(signal.SIGTERM)

    monkeypatch.setattr(supervisor, "sleep", terminate)
    worker: Any = EndlessWorker()
    with pytest.raises(TerminatedError):
        supervisor.supervise(optuna.create_study(), supervisor.Limits(1, 1), [worker])
    assert (worker.stops, worker.process.returncode) == (0, -signal.SIGKILL)
