"""A study's workers, watched from their beginning to their end: progress, budgets, Ctrl-C, deaths."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from emotion_detection.config import Tune
from emotion_detection.errors import InputError
from emotion_detection.tuning.processes import Worker
from emotion_detection.tuning.study import FINISHED, requeue_dead_trials

LOOK_S = 0.5  # between two looks at the study
OnBest = Callable[[int, float], None]  # finished trials, best value so far


@dataclass(frozen=True)
class Progress:
    """How far a study is. `best` is a complete trial, or None."""

    finished: int
    best: FrozenTrial | None
    running: tuple[FrozenTrial, ...]


def progress(study: Study) -> Progress:
    """Look at a study's trials."""
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return Progress(
        sum(trial.state in FINISHED for trial in trials),
        max(complete, key=lambda trial: trial.values[0], default=None),
        tuple(trial for trial in trials if trial.state == TrialState.RUNNING),
    )


def search(study: Study, tune: Tune, crew: Sequence[Worker], on_best: OnBest) -> None:
    """Watch the workers until all have ended, showing the best trial so far.

    Ctrl-C lets the running trials end; a second one ends them at once and is raised, as is any other error.
    InputError if the workers ended and left trials undone.
    """
    over = interrupted = False
    end = time.monotonic() + 60 * tune.minutes if tune.minutes else float("inf")
    bar: tqdm[Any]
    with tqdm(total=tune.trials, desc=study.study_name, unit="trial") as bar:
        try:
            while _at_work(crew):
                try:
                    _look(study, tune, bar, on_best)
                    if time.monotonic() > end and not over:
                        over = _finish(crew, f"{tune.minutes:g} minutes are over: the running trials are the last")
                    time.sleep(LOOK_S)
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted = _finish(crew, "finishing the running trials; Ctrl-C again ends them at once")
            _look(study, tune, bar, on_best)
        finally:
            for worker in crew:
                worker.process.kill()
                worker.process.wait()
            requeue_dead_trials(study)  # what they left unfinished waits for the next time
    _tell_of_the_dead(study, tune, crew, stopping=over or interrupted)


def _at_work(crew: Sequence[Worker]) -> list[Worker]:
    """Those that have not ended. All are asked each time: one that nobody asks would stay a zombie."""
    return [worker for worker in crew if worker.process.poll() is None]


def _finish(crew: Sequence[Worker], why: str) -> bool:
    tqdm.write(why)
    for worker in crew:
        worker.finish()
    return True


def _look(study: Study, tune: Tune, bar: "tqdm[Any]", on_best: OnBest) -> None:
    requeue_dead_trials(study)
    seen = progress(study)
    if seen.best and seen.finished > bar.n:
        on_best(seen.finished, seen.best.values[0])
    bar.n = min(seen.finished, tune.trials)
    best = f"best {seen.best.values[0]:.3f} (trial {seen.best.number})" if seen.best else "none complete yet"
    at = (f"{trial.number} in epoch {(trial.last_step or 0) + 1}/{tune.epochs}" for trial in seen.running)
    bar.set_postfix_str("; ".join([best, *at]))


def _tell_of_the_dead(study: Study, tune: Tune, crew: Sequence[Worker], *, stopping: bool) -> None:
    dead = [worker for worker in crew if worker.process.returncode]
    for worker in dead:
        print(f"{worker.log.stem} ended with status {worker.process.returncode}: {worker.last_words()}")
    finished = progress(study).finished
    if finished < tune.trials and not stopping:
        words = dead[0].last_words().removeprefix("error: ") if dead else "no worker failed"
        raise InputError(
            f"{finished} of {tune.trials} trials are finished and no worker is left ({words}); "
            "nothing is lost: the same command goes on from here"
        )
