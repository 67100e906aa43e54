"""Supervise the workers of a study: progress, time limit, Ctrl-C, dead workers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from emotion_detection.errors import EmotionDetectionError, TerminatedError
from emotion_detection.tuning.processes import Worker
from emotion_detection.tuning.study import FINISHED, TrialMonitor, is_exhausted

POLL_S = 0.5  # between two looks at the study
OnBest = Callable[[int, float], None]  # number of finished trials, best value so far


@dataclass(frozen=True)
class Progress:
    """The progress of a study. `best` is a complete trial, or None."""

    finished: int
    waiting: int
    best: FrozenTrial | None
    running: tuple[FrozenTrial, ...]


@dataclass(frozen=True)
class Limits:
    """When the workers of a study are done."""

    trials: int | None  # total of finished trials; None: all queued trials
    epochs: int  # of a trial
    minutes: float = 0  # no trial starts after this time; 0: no limit

    def total(self, current: "Progress") -> int:
        """The number of trials when the workers are done."""
        return current.finished + current.waiting + len(current.running) if self.trials is None else self.trials


def progress(study: Study) -> Progress:
    """The current progress of a study."""
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return Progress(
        sum(trial.state in FINISHED for trial in trials),
        sum(trial.state == TrialState.WAITING for trial in trials),
        max(complete, key=lambda trial: trial.values[0], default=None),
        tuple(trial for trial in trials if trial.state == TrialState.RUNNING),
    )


def supervise(study: Study, limits: Limits, workers: Sequence[Worker], on_best: OnBest | None = None) -> bool:
    """Wait until all workers have exited, and show the progress; returns whether Ctrl-C was pressed.

    Ctrl-C lets the running trials finish. A second Ctrl-C or SIGTERM ends them at once and is raised, as is any other
    error.
    Raises EmotionDetectionError if the workers exited too early.
    """
    monitor = TrialMonitor(study)
    timed_out = interrupted = False
    end = monotonic() + 60 * limits.minutes if limits.minutes else float("inf")
    bar: tqdm[Any]
    with tqdm(total=limits.total(progress(study)), desc=study.study_name, unit="trial") as bar:
        try:
            while _running(workers):
                try:
                    _update(study, limits, monitor, bar, on_best)
                    if monotonic() > end and not timed_out:
                        timed_out = _request_stop(
                            workers, f"{limits.minutes:g} minutes have passed: no new trial starts"
                        )
                    sleep(POLL_S)
                except KeyboardInterrupt as error:
                    if interrupted or isinstance(error, TerminatedError):
                        raise
                    interrupted = _request_stop(workers, "finishing the running trials; press Ctrl-C again to end them")
            _update(study, limits, monitor, bar, on_best)
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.wait()
            monitor.requeue_dead_trials()  # unfinished trials run when the command is repeated
    _report_failures(study, limits, workers, stopped=timed_out or interrupted)
    return interrupted


def _running(workers: Sequence[Worker]) -> list[Worker]:
    """The workers that have not exited. Polls all of them, because an unpolled process stays a zombie."""
    return [worker for worker in workers if worker.process.poll() is None]


def _request_stop(workers: Sequence[Worker], message: str) -> bool:
    tqdm.write(message)
    for worker in workers:
        worker.request_stop()
    return True


def _update(study: Study, limits: Limits, monitor: TrialMonitor, bar: "tqdm[Any]", on_best: OnBest | None) -> None:
    monitor.requeue_dead_trials()
    current = progress(study)
    if on_best and current.best and current.finished > bar.n:
        on_best(current.finished, current.best.values[0])
    bar.total = limits.total(current)
    bar.n = min(current.finished, bar.total)
    best = f"best {current.best.values[0]:.3f} (trial {current.best.number})" if current.best else "none complete yet"
    running = (f"{trial.number} after epoch {trial.last_step or 0}/{limits.epochs}" for trial in current.running)
    bar.set_postfix_str("; ".join([best, *running]))


def _report_failures(study: Study, limits: Limits, workers: Sequence[Worker], *, stopped: bool) -> None:
    failed = [worker for worker in workers if worker.process.returncode]
    for worker in failed:
        print(f"{worker.log.stem} exited with status {worker.process.returncode}: {worker.last_line()}")
    current = progress(study)
    finished, total = current.finished, limits.total(current)
    if finished >= total or stopped:
        return
    if not failed and is_exhausted(study):
        print(f"{finished} of {total} trials finished: new trials repeat earlier settings, so the search ends")
        return
    reason = failed[0].last_line().removeprefix("error: ") if failed else "without an error"
    raise EmotionDetectionError(
        f"the workers stopped after {finished} of {total} trials ({reason}). "
        "Finished trials are kept: repeat the command to continue"
    )
