"""Optuna's studies: opened once by whoever comes first, exact in their count, alive after any kill."""

import os
import platform
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import grpc
import optuna
import psutil
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from emotion_detection.errors import InputError

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
HEARTBEAT_S = 5
# A process that has not been heard of for so long is dead. On this machine its number tells at once (`revive`).
GRACE_S = 60
LOCKED_S = 60  # how long another process may keep a sqlite file locked
TRIES = 5  # workers that make the tables of an empty database at the same moment get in each other's way


class SurplusError(Exception):
    """A trial too many: another worker took the last one in the same moment."""


def open_study(uri: str, name: str, about: dict[str, Any]) -> tuple[Study, bool]:
    """The study of that name, and whether it is new; `about` says what it searches, as plain values.

    InputError if the storage cannot be used, or holds a study of that name about something else.
    """
    with answering(uri):
        storage = _storage(uri)
        try:
            study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
        except DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=name)
            _same(wait_for(study, "about"), about, name)
            return study, False
        study.set_user_attr("about", about)
        return study, True


def join(uri: str, name: str, sampler: BaseSampler, pruner: BasePruner) -> Study:
    """The study that somebody has opened, to work on."""
    return optuna.load_study(storage=_storage(uri), study_name=name, sampler=sampler, pruner=pruner)


def wait_for(study: Study, key: str, *, patience_s: float = 30) -> Any:
    """An attribute that whoever opened the study first is about to set; None if it never comes."""
    for _ in range(int(patience_s * 10)):
        if key in study.user_attrs:
            return study.user_attrs[key]
        time.sleep(0.1)
    return None


def _same(theirs: Any, ours: dict[str, Any], name: str) -> None:
    for key in ours:
        if theirs is None or theirs.get(key) != ours[key]:
            raise InputError(
                f"the study {name} searches something else (its {key} differs): "
                "name another one with --study, or go back to its params.yaml and data"
            )


def _storage(uri: str) -> BaseStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a trial's end is told by us, in MLflow and in one bar
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    if uri.startswith("grpc://"):
        address = make_url(uri)
        proxy = GrpcStorageProxy(host=address.host or "127.0.0.1", port=address.port or 13000)
        proxy.wait_server_ready(timeout=10)
        return proxy
    address = make_url(uri)
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    timeout = {"timeout": LOCKED_S} if address.drivername == "sqlite" else {}
    for tried in range(1, TRIES + 1):
        try:
            return RDBStorage(
                address.render_as_string(hide_password=False),
                engine_kwargs={"connect_args": timeout},
                heartbeat_interval=HEARTBEAT_S,
                grace_period=GRACE_S,
                heartbeat_stale_trial_callback=_again,
            )
        except SQLAlchemyError:
            if tried == TRIES:
                raise
            time.sleep(0.5 * tried)
    raise AssertionError("the last try returns or raises")


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn what storages raise into the one sentence a person needs."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, grpc.RpcError, ConnectionError, ImportError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())[:300] or type(error).__name__
        raise InputError(
            f"the storage {shown(uri)} cannot be used ({reason}); nothing is lost: "
            "mend or start it and type the same command again, or name another with --storage"
        ) from error


def shown(uri: str) -> str:
    """A storage's address without its password."""
    try:
        return make_url(uri).render_as_string(hide_password=True)
    except ArgumentError:
        return uri.rpartition("@")[2]


def revive(study: Study) -> None:
    """Fail the trials whose process is dead, and queue them again: the same settings, from the start."""
    optuna.storages.fail_stale_trials(study)  # other machines', by their heartbeat
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _dead(trial):
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, UpdateFinishedTrialError):
                continue  # somebody else has just done it
            _again(study, study.get_trials()[trial.number])


def _again(study: Study, trial: FrozenTrial) -> None:
    RetryHeartbeatStaleTrialCallback()(study, trial)


def _dead(trial: FrozenTrial) -> bool:
    worker = trial.user_attrs.get("worker")
    if worker is None:  # killed between its first two breaths
        began = trial.datetime_start
        return began is not None and time.time() - began.timestamp() > GRACE_S
    if worker["host"] != _here():
        return False
    try:  # a number may be given again, but hardly in the same second
        return abs(psutil.Process(worker["pid"]).create_time() - worker["began"]) > 1
    except psutil.NoSuchProcess:
        return True


def this_process() -> dict[str, Any]:
    """What tells this process from all others."""
    return {"host": _here(), "pid": os.getpid(), "began": psutil.Process().create_time()}


@cache
def _here() -> str:
    """Where a process number means something: two machines may have one name, and a machine several containers."""
    with suppress(OSError):  # only Linux knows the last part
        return f"{platform.node()} {uuid.getnode():x} {os.readlink('/proc/self/ns/pid')}"
    return f"{platform.node()} {uuid.getnode():x}"


def work(study: Study, objective: Callable[[Trial], float], *, trials: int, asked: Callable[[], bool]) -> None:
    """Run trials until `trials` are finished in all, or until `asked` to stop; what a trial raises ends this."""

    def counted(trial: Trial) -> float:
        trial.set_user_attr("worker", this_process())
        earlier = (other for other in study.get_trials(deepcopy=False)[: trial.number])
        if sum(other.state != TrialState.FAIL for other in earlier) >= trials:
            raise SurplusError
        return objective(trial)

    while not asked():
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        if sum(state in FINISHED for state in states) >= trials:
            return
        if TrialState.WAITING in states or sum(state != TrialState.FAIL for state in states) < trials:
            study.optimize(counted, n_trials=1, catch=(SurplusError,))
        else:
            time.sleep(1)  # the last trials are with others; one of them may die, and come back
