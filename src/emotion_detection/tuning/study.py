"""Optuna studies that several processes share: opened once, with an exact trial count that survives kills."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count, takewhile
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, TrialPruned, UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from emotion_detection.errors import UsageError
from emotion_detection.tuning.processes import has_exited, host_id, this_process
from emotion_detection.tuning.storage import connect_storage, translate_errors

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
DUPLICATE = "duplicate_of"  # user attribute: the number of the trial with the same settings
HEARTBEAT_S = 5
HEARTBEAT_TIMEOUT_S = 60  # for processes of other hosts; those of this host are checked by their process ID
MAX_RETRIES = 3  # of a trial whose process died; after that, its settings are to blame
MAX_DUPLICATES = 20  # in a row; after that, the search space is considered exhausted
IDLE_S = 0.5  # between two checks for a free trial
CLAIM_S = 0.05  # between two checks for the settings of earlier trials


class DuplicateTrialError(Exception):
    """An earlier trial has the same settings."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def open_study(uri: str, name: str, about: dict[str, Any]) -> tuple[Study, bool]:
    """Open or create a study; returns it and whether it is new. `about` defines the search, as plain values.

    Raises StoreError if the storage cannot be used, UsageError if the existing study has another definition.
    """
    storage = connect_storage(uri)
    with translate_errors(uri):
        try:
            study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
        except DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=name)
            existing = wait_for_attribute(study, "about")
            if existing is not None:
                _check_same(existing, about, name)
                return study, False
            # The process that created the study was killed before it set the attribute.
        study.set_user_attr("about", about)
        return study, True


def join_study(uri: str, name: str, sampler: BaseSampler, pruner: BasePruner) -> Study:
    """Load an existing study in order to run its trials."""
    return optuna.load_study(storage=connect_storage(uri), study_name=name, sampler=sampler, pruner=pruner)


def wait_for_attribute(study: Study, key: str, *, timeout_s: float = 30) -> Any:
    """Return a user attribute that another process is about to set; None after the timeout."""
    for _ in range(int(timeout_s * 10)):
        if key in study.user_attrs:
            return study.user_attrs[key]
        time.sleep(0.1)
    return None


def _check_same(existing: dict[str, Any], about: dict[str, Any], name: str) -> None:
    for key in about:
        if existing.get(key) != about[key]:
            raise UsageError(
                f"the study {name} has another definition (its {key} differs): "
                "choose another name with --study, or restore its params.yaml and data"
            )


class TrialMonitor:
    """Detects trials whose process has died, marks them as failed and queues them again."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._last_signs: dict[int, tuple[object, float]] = {}  # by trial number: sign of life, and when it was seen

    def requeue_dead_trials(self) -> None:
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_dead(trial):
                fail_and_requeue(self._study, trial.number)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get("worker")
        if worker is None or worker["host"] != host_id():  # killed before it registered its process ID, or remote
            return self._is_silent(trial)
        return has_exited(worker)

    def _is_silent(self, trial: FrozenTrial) -> bool:
        """Whether no sign of life came for HEARTBEAT_TIMEOUT_S, by this machine's clock: other clocks may differ."""
        now = time.monotonic()
        sign = (trial.user_attrs.get("worker"), trial.user_attrs.get("heartbeat"), trial.last_step)
        last, since = self._last_signs.get(trial.number, (None, now))
        if sign != last:
            self._last_signs[trial.number] = (sign, now)
            return False
        return now - since > HEARTBEAT_TIMEOUT_S


def fail_and_requeue(study: Study, number: int) -> None:
    """Mark a trial as failed and queue its settings again, up to MAX_RETRIES times."""
    try:
        study.tell(number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return  # another process did it first
    trial = study.get_trials()[number]
    # The worker and the results of the failed attempt do not belong to the next one, but its settings do.
    trial.user_attrs = {key: value for key, value in trial.user_attrs.items() if key == "values"}
    trial.system_attrs = {
        key: value for key, value in trial.system_attrs.items() if key in ("failed_trial", "retry_history")
    }
    RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES)(study, trial)


@contextmanager
def heartbeat(trial: Trial) -> Iterator[None]:
    """Send signs of life while the body runs. Optuna's heartbeat needs equal clocks and does not support gRPC."""
    done = threading.Event()

    def send() -> None:
        for number in count(1):
            if done.wait(HEARTBEAT_S):
                return
            with suppress(Exception):  # a storage that is briefly unavailable must not end the trial
                trial.set_user_attr("heartbeat", number)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def claim_settings(study: Study, trial: Trial, values: Mapping[str, Any]) -> None:
    """Store the settings of a trial; DuplicateTrialError if an earlier trial that has not failed has the same ones.

    Waits until all earlier running trials have stored theirs, so that of two trials that start at once only one runs.
    """
    trial.set_user_attr("values", dict(values))
    while True:
        earlier = study.get_trials(deepcopy=False)[: trial.number]
        claimed = [other for other in earlier if other.state != TrialState.FAIL]
        for other in claimed:
            if other.user_attrs.get("values") == values:
                raise DuplicateTrialError(other.number)
        if all("values" in other.user_attrs for other in claimed if other.state == TrialState.RUNNING):
            return
        time.sleep(CLAIM_S)  # a trial whose process died before it stored its settings will fail


def is_exhausted(study: Study) -> bool:
    """Whether the latest trials only repeated earlier settings."""
    latest = reversed(study.get_trials(deepcopy=False))
    return sum(1 for _ in takewhile(lambda trial: DUPLICATE in trial.user_attrs, latest)) >= MAX_DUPLICATES


def run_trials(
    study: Study, objective: Callable[[Trial], float], *, trials: int | None, stop_requested: Callable[[], bool]
) -> None:
    """Run trials until the study has `trials` finished ones, or (None) until no queued trial is left.

    Also returns when a stop is requested or the search space is exhausted. An error in a trial ends the loop.
    """
    while not stop_requested():
        states = Counter(trial.state for trial in study.get_trials(deepcopy=False))
        pending = states[TrialState.WAITING] + states[TrialState.RUNNING]
        finished = sum(states[state] for state in FINISHED)
        if trials is None:
            done, free = not pending, states[TrialState.WAITING] > 0
        else:
            done = finished >= trials or is_exhausted(study)
            free = states[TrialState.WAITING] > 0 or finished + pending < trials
        if done:
            return
        if free:
            _run_trial(study, objective, trials)
        else:
            time.sleep(IDLE_S)  # other workers run the last trials; if one of them dies, its trial is queued again


def _run_trial(study: Study, objective: Callable[[Trial], float], trials: int | None) -> None:
    """Run one trial and report its result. A trial that raises an error is queued again."""
    trial = study.ask()
    trial.set_user_attr("worker", this_process())
    value, state = None, TrialState.FAIL
    if not _is_surplus(study, trial, trials):
        try:
            with heartbeat(trial):
                value, state = objective(trial), TrialState.COMPLETE
        except TrialPruned:
            state = TrialState.PRUNED
        except DuplicateTrialError as error:
            with suppress(UpdateFinishedTrialError):
                trial.set_user_attr(DUPLICATE, error.number)
        except UpdateFinishedTrialError:
            pass  # another process considered this one dead and has queued the trial again
        except BaseException:
            with suppress(Exception):  # keep the original error
                fail_and_requeue(study, trial.number)
            raise
    with suppress(UpdateFinishedTrialError):
        study.tell(trial, value, state, skip_if_finished=True)


def _is_surplus(study: Study, trial: Trial, trials: int | None) -> bool:
    """Whether another process took the last trial between the count and `ask`."""
    if trials is None:
        return not trial.params  # queued trials have params from the start
    earlier = study.get_trials(deepcopy=False)[: trial.number]
    return sum(other.state != TrialState.FAIL for other in earlier) >= trials
