"""Optuna's studies: opened once by whoever comes first, exact in their count, alive after any kill."""

import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from typing import Any

import optuna
import psutil
from optuna.exceptions import DuplicatedStudyError, TrialPruned, UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from emotion_detection.errors import InputError
from emotion_detection.tuning.storage import connect_storage, translate_errors

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
BEAT_S = 5  # between two signs of life of a trial
# A process that has not been heard of for so long is dead. On this machine its number tells at once (`revive`).
GRACE_S = 60
RETRIES = 3  # of a trial whose process died; after these, its settings are to blame
CLOCK_S = 60  # how far the wall clock may be set while a worker runs

_heard: dict[tuple[str, int], tuple[object, float]] = {}  # of a trial: its last sign of life, and when we saw it


def open_study(uri: str, name: str, about: dict[str, Any]) -> tuple[Study, bool]:
    """The study of that name, and whether it is new; `about` says what it searches, as plain values.

    InputError if the storage cannot be used, or holds a study of that name about something else.
    """
    storage = connect_storage(uri)
    with translate_errors(uri):
        try:
            study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
        except DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=name)
            theirs = wait_for_attribute(study, "about")
            if theirs is not None:
                _same(theirs, about, name)
                return study, False
            # Whoever made it was killed in the next moment.
        study.set_user_attr("about", about)
        return study, True


def join_study(uri: str, name: str, sampler: BaseSampler, pruner: BasePruner) -> Study:
    """The study that somebody has opened, to work on."""
    return optuna.load_study(storage=connect_storage(uri), study_name=name, sampler=sampler, pruner=pruner)


def wait_for_attribute(study: Study, key: str, *, patience_s: float = 30) -> Any:
    """An attribute that whoever opened the study first is about to set; None if it never comes."""
    for _ in range(int(patience_s * 10)):
        if key in study.user_attrs:
            return study.user_attrs[key]
        time.sleep(0.1)
    return None


def _same(theirs: dict[str, Any], ours: dict[str, Any], name: str) -> None:
    for key in ours:
        if theirs.get(key) != ours[key]:
            raise InputError(
                f"the study {name} searches something else (its {key} differs): "
                "name another one with --study, or go back to its params.yaml and data"
            )


def requeue_dead_trials(study: Study) -> None:
    """Fail the trials whose process is dead, and queue them again: the same settings, from the start."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _dead(study, trial):
            _lose(study, trial.number)


def _lose(study: Study, number: int) -> None:
    try:
        study.tell(number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return  # somebody else has just done it
    trial = study.get_trials()[number]
    # Who ran it, and what came of that, is not the next one's: only what it repeats is.
    trial.user_attrs = {}
    trial.system_attrs = {
        key: value for key, value in trial.system_attrs.items() if key in ("failed_trial", "retry_history")
    }
    RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)(study, trial)


def _dead(study: Study, trial: FrozenTrial) -> bool:
    worker = trial.user_attrs.get("worker")
    if worker is None or worker["host"] != _here():  # killed between its first two breaths, or elsewhere
        return _silent(study, trial)
    try:  # a number may be given again, but hardly in the same minute
        process = psutil.Process(worker["pid"])
        return abs(process.create_time() - worker["began"]) > CLOCK_S or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _silent(study: Study, trial: FrozenTrial) -> bool:
    """Whether we have seen no sign of life for GRACE_S, by our own clock: another machine's may differ."""
    key, now = (study.study_name, trial.number), time.monotonic()
    sign = (trial.user_attrs.get("worker"), trial.user_attrs.get("beat"), trial.last_step)
    last, since = _heard.get(key, (None, now))
    if sign != last:
        _heard[key] = (sign, now)
        return False
    return now - since > GRACE_S


@contextmanager
def heartbeat(trial: Trial) -> Iterator[None]:
    """Give signs of life while the body runs. (Optuna's own know nothing of gRPC, and go by the machines' clocks.)"""
    over = threading.Event()

    def beat() -> None:
        for number in count(1):
            if over.wait(BEAT_S):
                return
            with suppress(Exception):  # a storage that is away for a moment is no reason to stop
                trial.set_user_attr("beat", number)

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
    finally:
        over.set()
        heart.join()


def this_process() -> dict[str, Any]:
    """What tells this process from all others."""
    return {"host": _here(), "pid": os.getpid(), "began": psutil.Process().create_time()}


@cache
def _here() -> str:
    """Where a process number means something: two machines may have one name, and a machine several containers."""
    with suppress(OSError):  # only Linux knows the last part
        return f"{platform.node()} {uuid.getnode():x} {os.readlink('/proc/self/ns/pid')}"
    return f"{platform.node()} {uuid.getnode():x}"


def run_trials(study: Study, objective: Callable[[Trial], float], *, trials: int, asked: Callable[[], bool]) -> None:
    """Run trials until `trials` are finished in all, or until `asked` to stop; what a trial raises ends this."""
    while not asked():
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        if sum(state in FINISHED for state in states) >= trials:
            return
        if TrialState.WAITING in states or sum(state != TrialState.FAIL for state in states) < trials:
            _run_trial(study, objective, trials)
        else:
            time.sleep(1)  # the last trials are with others; one of them may die, and come back


def _run_trial(study: Study, objective: Callable[[Trial], float], trials: int) -> None:
    """Run one trial and tell what came of it. One that raises an error is queued again: its settings are not lost."""
    trial = study.ask()
    trial.set_user_attr("worker", this_process())
    earlier = study.get_trials(deepcopy=False)[: trial.number]
    value, state = None, TrialState.FAIL
    if sum(other.state != TrialState.FAIL for other in earlier) < trials:  # else another took the last one just now
        try:
            with heartbeat(trial):
                value, state = objective(trial), TrialState.COMPLETE
        except TrialPruned:
            state = TrialState.PRUNED
        except UpdateFinishedTrialError:
            pass  # somebody took us for dead, and has queued it again
        except BaseException:
            with suppress(Exception):  # the first error is the one to show
                _lose(study, trial.number)
            raise
    with suppress(UpdateFinishedTrialError):
        study.tell(trial, value, state, skip_if_finished=True)
