"""Studies shared by processes: exact trial counts, dead processes, duplicates. The trials take no time."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import optuna
import psutil
import pytest
from optuna.distributions import FloatDistribution
from optuna.study import Study
from optuna.trial import Trial, TrialState

from emotion_detection.errors import UsageError
from emotion_detection.tuning.processes import this_process
from emotion_detection.tuning.study import (
    DUPLICATE,
    HEARTBEAT_TIMEOUT_S,
    MAX_DUPLICATES,
    MAX_RETRIES,
    DuplicateTrialError,
    TrialMonitor,
    claim_settings,
    fail_and_requeue,
    is_exhausted,
    open_study,
    run_trials,
    wait_for_attribute,
)

ABOUT = {"data": "abc", "space": {"x": [0, 1]}}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("emotion_detection.tuning.study.IDLE_S", 0.02)


@pytest.fixture
def uri(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def opened(uri: str) -> Study:
    """The study, by a connection of its own."""
    return open_study(uri, "study", ABOUT)[0]


def objective(trial: Trial) -> float:
    return trial.suggest_float("x", 0, 1)


def never() -> bool:
    return False


def states(study: Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials()]


def test_first_process_creates_the_study_and_the_second_joins(uri):
    assert open_study(uri, "study", ABOUT)[1]
    assert not open_study(uri, "study", ABOUT)[1]
    assert open_study(uri, "another", ABOUT)[1]


def test_study_with_another_definition_is_refused(uri):
    opened(uri)
    with pytest.raises(UsageError, match=r"the study study has another definition \(its data differs\).*--study"):
        open_study(uri, "study", ABOUT | {"data": "xyz"})


def test_trials_stop_at_the_requested_number_and_resume(uri):
    study = opened(uri)
    run_trials(study, objective, trials=3, stop_requested=never)
    run_trials(study, objective, trials=3, stop_requested=never)
    assert states(study) == ["COMPLETE"] * 3
    run_trials(study, objective, trials=5, stop_requested=never)
    assert states(study) == ["COMPLETE"] * 5


def test_pruned_trial_counts_and_failed_trial_is_retried(uri):
    def prunes(_: Trial) -> float:
        raise optuna.TrialPruned

    def breaks(_: Trial) -> float:
        raise OSError("no space left on device")

    study = opened(uri)
    run_trials(study, prunes, trials=1, stop_requested=never)
    with pytest.raises(OSError, match="no space left"):
        run_trials(study, breaks, trials=2, stop_requested=never)
    run_trials(study, objective, trials=2, stop_requested=never)
    assert states(study) == ["PRUNED", "FAIL", "COMPLETE"]
    assert study.get_trials()[2].system_attrs["failed_trial"] == 1


def test_trial_that_always_fails_is_given_up(uri):
    def breaks(_: Trial) -> float:
        raise MemoryError

    study = opened(uri)
    for _ in range(MAX_RETRIES + 1):
        with pytest.raises(MemoryError):
            run_trials(study, breaks, trials=1, stop_requested=never)
    assert states(study) == ["FAIL"] * (MAX_RETRIES + 1)  # none is queued


def test_worker_that_was_considered_dead_continues_with_another_trial(uri):
    study = opened(uri)

    def requeued(trial: Trial) -> float:
        if trial.number < 2:
            fail_and_requeue(opened(uri), trial.number)
        if trial.number == 1:
            trial.report(0.5, 1)
        return objective(trial)

    run_trials(study, requeued, trials=1, stop_requested=never)
    assert states(study) == ["FAIL", "FAIL", "COMPLETE"]


def test_running_trial_sends_heartbeats(uri, monkeypatch):
    monkeypatch.setattr("emotion_detection.tuning.study.HEARTBEAT_S", 0.05)

    def waits(trial: Trial) -> float:
        end = time.monotonic() + 30
        while opened(uri).get_trials()[trial.number].user_attrs.get("heartbeat", 0) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        return 0.0

    study = opened(uri)
    run_trials(study, waits, trials=1, stop_requested=never)
    assert states(study) == ["COMPLETE"]


def test_no_trial_starts_after_a_stop_request(uri):
    study = opened(uri)
    run_trials(study, objective, trials=3, stop_requested=lambda: len(study.get_trials()) >= 2)
    assert states(study) == ["COMPLETE"] * 2


def test_concurrent_workers_run_the_exact_number_of_trials(uri):
    ran: list[int] = []

    def slow(trial: Trial) -> float:
        ran.append(trial.number)
        time.sleep(0.02)
        return objective(trial)

    opened(uri)
    threads = [
        threading.Thread(target=lambda: run_trials(opened(uri), slow, trials=9, stop_requested=never)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = opened(uri).get_trials()
    assert [trial.number for trial in trials if trial.state.name == "COMPLETE"] == sorted(ran)
    assert len(ran) == 9
    # A worker that asked for a trial too late, at the same time as another, did not run it.
    assert {trial.state.name for trial in trials[9:]} <= {"COMPLETE", "FAIL"}


def choose(study: Study) -> Callable[[Trial], float]:
    def objective(trial: Trial) -> float:
        values = {"x": trial.suggest_categorical("x", [1, 2])}
        claim_settings(study, trial, values)
        return float(values["x"])

    return objective


def test_same_settings_run_once_and_an_exhausted_space_ends_the_loop(uri):
    study = opened(uri)
    run_trials(study, choose(study), trials=3, stop_requested=never)
    trials = study.get_trials()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert sorted(trial.values[0] for trial in complete) == [1, 2]
    duplicates = [trial for trial in trials if DUPLICATE in trial.user_attrs]
    assert len(duplicates) == len(trials) - 2 >= MAX_DUPLICATES
    assert {trial.state for trial in duplicates} == {TrialState.FAIL}
    assert all(trials[trial.user_attrs[DUPLICATE]].params == trial.params for trial in duplicates)
    assert is_exhausted(study)
    run_trials(study, choose(study), trials=3, stop_requested=never)
    assert len(study.get_trials()) == len(trials)


def test_settings_of_a_failed_trial_are_not_duplicates(uri):
    study = opened(uri)
    failed = study.ask()
    claim_settings(study, failed, {"x": 1})
    study.tell(failed, state=TrialState.FAIL)
    claim_settings(study, study.ask(), {"x": 1})


def test_settings_of_a_queued_retry_are_duplicates(uri):
    study = opened(uri)
    failed = study.ask()
    claim_settings(study, failed, {"x": 1})
    fail_and_requeue(study, failed.number)
    assert study.get_trials()[1].state == TrialState.WAITING
    study._storage.create_new_trial(study._study_id)
    with pytest.raises(DuplicateTrialError):
        claim_settings(study, Trial(study, study.get_trials()[2]._trial_id), {"x": 1})


def test_of_two_trials_that_start_at_once_only_one_has_the_settings(uri):
    study = opened(uri)
    first, second = study.ask(), study.ask()
    with futures.ThreadPoolExecutor() as pool:
        later = pool.submit(claim_settings, study, second, {"x": 1})
        with pytest.raises(futures.TimeoutError):
            later.result(timeout=0.3)  # it waits for the settings of the first one
        claim_settings(opened(uri), first, {"x": 1})
        with pytest.raises(DuplicateTrialError):
            later.result(timeout=30)


def test_process_that_died_before_it_stored_its_settings_is_not_awaited(uri):
    study = opened(uri)
    dead, living = study.ask(), study.ask()
    with futures.ThreadPoolExecutor() as pool:
        claim = pool.submit(claim_settings, study, living, {"x": 1})
        fail_and_requeue(opened(uri), dead.number)
        claim.result(timeout=30)


def queue(study: Study, *values: float) -> None:
    for x in values:
        study.add_trial(
            optuna.create_trial(state=TrialState.WAITING, params={"x": x}, distributions={"x": FloatDistribution(0, 1)})
        )


def test_queued_trials_run_once_and_no_others(uri):
    study = opened(uri)
    queue(study, 0.1, 0.2, 0.3)

    def fails_once(trial: Trial) -> float:
        if trial.number == 1:
            raise MemoryError
        return objective(trial)

    with pytest.raises(MemoryError):
        run_trials(study, fails_once, trials=None, stop_requested=never)
    threads = [
        threading.Thread(
            target=run_trials, args=(opened(uri), objective), kwargs={"trials": None, "stop_requested": never}
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = study.get_trials()
    complete = [trial.params["x"] for trial in trials if trial.state == TrialState.COMPLETE]
    assert sorted(complete) == [0.1, 0.2, 0.3]
    # A worker that asked after the last queued trial was taken did not run its trial.
    assert all(trial.number == 1 or not trial.params for trial in trials if trial.state == TrialState.FAIL)


def test_queued_trial_is_taken_once(uri):
    study = opened(uri)
    for x in range(30):
        study.enqueue_trial({"x": x / 30})
    taken: list[int] = []

    def take() -> None:
        own = opened(uri)
        for _ in range(10):
            taken.append(own.ask().number)

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(30))


def start_trial(study: Study, worker: dict[str, Any]) -> Trial:
    trial = study.ask()
    objective(trial)
    trial.set_user_attr("worker", worker)
    return trial


def exited_process() -> dict[str, Any]:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return this_process() | {"pid": process.pid}


def test_trial_of_a_dead_process_is_retried_with_its_settings(uri):
    study = opened(uri)
    lost = start_trial(study, exited_process())
    lost.set_user_attr("run_id", "abc")
    lost.storage.set_trial_system_attr(lost._trial_id, "completed_rung_0", 0.1)
    TrialMonitor(study).requeue_dead_trials()
    assert states(study) == ["FAIL", "WAITING"]
    TrialMonitor(study).requeue_dead_trials()  # has no further effect
    waiting = study.get_trials()[1]
    assert waiting.user_attrs == {}  # its worker and MLflow run will be others
    assert waiting.system_attrs == {"failed_trial": 0, "retry_history": [0]}
    retried = opened(uri).ask()
    TrialMonitor(study).requeue_dead_trials()
    assert states(study) == ["FAIL", "RUNNING"]
    study.tell(retried.number, 0.5)
    assert study.get_trials()[1].params == lost.params


def test_requeued_trial_runs_first(uri):
    study = opened(uri)
    lost = start_trial(study, exited_process())
    TrialMonitor(study).requeue_dead_trials()
    run_trials(study, objective, trials=1, stop_requested=never)
    again = study.get_trials()[1]
    assert (again.state, again.params) == (TrialState.COMPLETE, lost.params)


@pytest.mark.parametrize("change", [{}, {"host": "elsewhere", "pid": 1}])
def test_trials_of_running_and_remote_processes_are_not_requeued(uri, change):
    study = opened(uri)
    start_trial(study, this_process() | change)
    TrialMonitor(study).requeue_dead_trials()
    assert states(study) == ["RUNNING"]


def test_reused_process_id_is_not_the_worker(uri):
    study = opened(uri)
    start_trial(study, this_process() | {"started": 1.0})
    TrialMonitor(study).requeue_dead_trials()
    assert states(study) == ["FAIL", "WAITING"]


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds that the module sees."""
    now = [0.0]
    monkeypatch.setattr("emotion_detection.tuning.study.time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("registered", [False, True])
def test_trial_without_signs_of_life_is_requeued(uri, clock, registered):
    """Its process was killed before it registered its process ID, or is on another host."""
    study = opened(uri)
    trial = study.ask()
    if registered:
        trial.set_user_attr("worker", this_process() | {"host": "elsewhere"})
    monitor = TrialMonitor(study)
    for clock[0] in (0, HEARTBEAT_TIMEOUT_S / 2, HEARTBEAT_TIMEOUT_S):
        monitor.requeue_dead_trials()
        assert states(study) == ["RUNNING"]
    clock[0] += 1
    monitor.requeue_dead_trials()
    assert states(study) == ["FAIL", "WAITING"]


def test_heartbeats_keep_a_remote_trial_running(uri, clock):
    study = opened(uri)
    trial = start_trial(study, this_process() | {"host": "elsewhere"})
    monitor = TrialMonitor(study)
    for number in range(5):
        clock[0] += 0.9 * HEARTBEAT_TIMEOUT_S
        trial.set_user_attr("heartbeat", number)
        monitor.requeue_dead_trials()
    assert states(study) == ["RUNNING"]


def test_trial_of_a_zombie_process_is_requeued(uri):
    """A zombie still has its process ID."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(process.pid).create_time()
    study = opened(uri)
    start_trial(study, this_process() | {"pid": process.pid, "started": started})
    TrialMonitor(study).requeue_dead_trials()
    assert states(study) == ["RUNNING"]
    process.kill()
    end = time.monotonic() + 30
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
    TrialMonitor(study).requeue_dead_trials()
    assert states(study) == ["FAIL", "WAITING"]
    process.communicate()


def test_study_whose_creator_was_killed_is_completed_by_the_next_process(uri, monkeypatch):
    monkeypatch.setattr(
        "emotion_detection.tuning.study.wait_for_attribute", lambda study, key: study.user_attrs.get(key)
    )
    optuna.create_study(storage=uri, study_name="study", direction="maximize")
    assert open_study(uri, "study", ABOUT)[1]
    assert not open_study(uri, "study", ABOUT)[1]


def test_waiting_for_an_attribute_times_out(uri):
    study = opened(uri)
    assert wait_for_attribute(study, "run_id", timeout_s=0.2) is None
    study.set_user_attr("run_id", "abc")
    assert wait_for_attribute(study, "run_id", timeout_s=0.2) == "abc"
