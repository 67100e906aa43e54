"""The count, the dead and the late: with trials that take no time. The command itself is tested in test_tune."""

import subprocess
import sys
import threading
import time
from typing import Any

import optuna
import psutil
import pytest
from optuna.study import Study
from optuna.trial import Trial, TrialState

from emotion_detection.errors import InputError
from emotion_detection.tuning.study import (
    GRACE_S,
    RETRIES,
    _lose,
    open_study,
    requeue_dead_trials,
    run_trials,
    this_process,
    wait_for_attribute,
)

ABOUT = {"data": "abc", "space": {"x": [0, 1]}}


@pytest.fixture
def uri(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def opened(uri: str) -> Study:
    return open_study(uri, "study", ABOUT)[0]


def objective(trial: Trial) -> float:
    return trial.suggest_float("x", 0, 1)


def never() -> bool:
    return False


def states(study: Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials()]


def test_the_first_opens_and_the_second_joins(uri):
    assert open_study(uri, "study", ABOUT)[1]
    assert not open_study(uri, "study", ABOUT)[1]
    assert open_study(uri, "another", ABOUT)[1]


def test_a_study_about_something_else_is_refused_by_the_name_of_what_differs(uri):
    opened(uri)
    with pytest.raises(InputError, match=r"the study study searches something else \(its data differs\).*--study"):
        open_study(uri, "study", ABOUT | {"data": "xyz"})


def test_work_ends_at_the_asked_number_and_goes_on_from_there(uri):
    study = opened(uri)
    run_trials(study, objective, trials=3, asked=never)
    run_trials(study, objective, trials=3, asked=never)
    assert states(study) == ["COMPLETE"] * 3
    run_trials(study, objective, trials=5, asked=never)
    assert states(study) == ["COMPLETE"] * 5


def test_a_pruned_trial_counts_and_what_a_trial_raises_is_not_lost(uri):
    def prunes(_: Trial) -> float:
        raise optuna.TrialPruned

    def breaks(_: Trial) -> float:
        raise OSError("no space left on device")

    study = opened(uri)
    run_trials(study, prunes, trials=1, asked=never)
    with pytest.raises(OSError, match="no space left"):
        run_trials(study, breaks, trials=2, asked=never)
    run_trials(study, objective, trials=2, asked=never)
    assert states(study) == ["PRUNED", "FAIL", "COMPLETE"]
    assert study.get_trials()[2].system_attrs["failed_trial"] == 1  # tried again


def test_settings_that_always_break_are_given_up(uri):
    def breaks(_: Trial) -> float:
        raise MemoryError

    study = opened(uri)
    for _ in range(RETRIES + 1):
        with pytest.raises(MemoryError):
            run_trials(study, breaks, trials=1, asked=never)
    assert states(study) == ["FAIL"] * (RETRIES + 1)  # none waits


def test_a_worker_that_was_taken_for_dead_goes_on_with_another_trial(uri):
    study = opened(uri)

    def given_up(trial: Trial) -> float:
        if trial.number < 2:
            _lose(opened(uri), trial.number)
        if trial.number == 1:
            trial.report(0.5, 1)
        return objective(trial)

    run_trials(study, given_up, trials=1, asked=never)
    assert states(study) == ["FAIL", "FAIL", "COMPLETE"]


def test_a_running_trial_gives_signs_of_life(uri, monkeypatch):
    monkeypatch.setattr("emotion_detection.tuning.study.BEAT_S", 0.05)

    def waits(trial: Trial) -> float:
        end = time.monotonic() + 30
        while opened(uri).get_trials()[trial.number].user_attrs.get("beat", 0) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        return 0.0

    study = opened(uri)
    run_trials(study, waits, trials=1, asked=never)
    assert states(study) == ["COMPLETE"]


def test_nothing_begins_once_it_is_asked_to_stop(uri):
    study = opened(uri)
    run_trials(study, objective, trials=3, asked=lambda: len(study.get_trials()) >= 2)
    assert states(study) == ["COMPLETE"] * 2


def test_many_workers_at_once_run_no_trial_too_many(uri):
    ran: list[int] = []

    def slow(trial: Trial) -> float:
        ran.append(trial.number)
        time.sleep(0.02)
        return objective(trial)

    opened(uri)
    threads = [threading.Thread(target=lambda: run_trials(opened(uri), slow, trials=9, asked=never)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = opened(uri).get_trials()
    assert [trial.number for trial in found if trial.state.name == "COMPLETE"] == sorted(ran)
    assert len(ran) == 9
    # Those that came too late, in the same moment, were told before any work.
    assert {trial.state.name for trial in found[9:]} <= {"COMPLETE", "FAIL"}


def test_no_two_processes_take_one_waiting_trial(uri):
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


def begun(study: Study, worker: dict[str, Any]) -> Trial:
    trial = study.ask()
    objective(trial)
    trial.set_user_attr("worker", worker)
    return trial


def gone() -> dict[str, Any]:
    """A process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return this_process() | {"pid": process.pid}


def test_the_trial_of_a_dead_process_is_tried_again_with_its_settings(uri):
    study = opened(uri)
    lost = begun(study, gone())
    lost.set_user_attr("run_id", "abc")
    lost.storage.set_trial_system_attr(lost._trial_id, "completed_rung_0", 0.1)
    requeue_dead_trials(study)
    assert states(study) == ["FAIL", "WAITING"]
    requeue_dead_trials(study)  # once is enough
    waiting = study.get_trials()[1]
    assert waiting.user_attrs == {}  # who takes it is not the dead one, and its run is another
    assert waiting.system_attrs == {"failed_trial": 0, "retry_history": [0]}
    begins = opened(uri).ask()
    requeue_dead_trials(study)
    assert states(study) == ["FAIL", "RUNNING"]
    study.tell(begins.number, 0.5)
    assert study.get_trials()[1].params == lost.params


def test_a_lost_trial_is_worked_on_first(uri):
    study = opened(uri)
    lost = begun(study, gone())
    requeue_dead_trials(study)
    run_trials(study, objective, trials=1, asked=never)
    again = study.get_trials()[1]
    assert (again.state, again.params) == (TrialState.COMPLETE, lost.params)


@pytest.mark.parametrize("change", [{}, {"host": "elsewhere", "pid": 1}])
def test_a_living_trial_and_one_of_another_machine_are_left_alone(uri, change):
    study = opened(uri)
    begun(study, this_process() | change)
    requeue_dead_trials(study)
    assert states(study) == ["RUNNING"]


def test_a_process_number_that_was_given_again_is_not_the_worker(uri):
    study = opened(uri)
    begun(study, this_process() | {"began": 1.0})
    requeue_dead_trials(study)
    assert states(study) == ["FAIL", "WAITING"]


@pytest.fixture
def clock(monkeypatch):
    """Seconds since the beginning, as the module sees them."""
    now = [0.0]
    monkeypatch.setattr("emotion_detection.tuning.study.time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("claimed", [False, True])
def test_one_that_is_silent_too_long_is_dead(uri, clock, claimed):
    """Killed before it could say who it is, or on another machine."""
    study = opened(uri)
    trial = study.ask()
    if claimed:
        trial.set_user_attr("worker", this_process() | {"host": "elsewhere"})
    for clock[0] in (0, GRACE_S / 2, GRACE_S):
        requeue_dead_trials(study)
        assert states(study) == ["RUNNING"]
    clock[0] += 1
    requeue_dead_trials(study)
    assert states(study) == ["FAIL", "WAITING"]


def test_signs_of_life_keep_another_machines_trial(uri, clock):
    study = opened(uri)
    trial = begun(study, this_process() | {"host": "elsewhere"})
    for beat in range(5):
        clock[0] += 0.9 * GRACE_S
        trial.set_user_attr("beat", beat)
        requeue_dead_trials(study)
    assert states(study) == ["RUNNING"]


def test_a_dead_worker_that_nobody_has_asked_for_yet_is_dead(uri):
    """A zombie: it has its process number still."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = psutil.Process(process.pid).create_time()
    study = opened(uri)
    begun(study, this_process() | {"pid": process.pid, "began": began})
    requeue_dead_trials(study)
    assert states(study) == ["RUNNING"]
    process.kill()
    end = time.monotonic() + 30
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
    requeue_dead_trials(study)
    assert states(study) == ["FAIL", "WAITING"]
    process.communicate()


def test_a_study_whose_maker_was_killed_at_once_is_made_by_the_next(uri, monkeypatch):
    monkeypatch.setattr(
        "emotion_detection.tuning.study.wait_for_attribute", lambda study, key: study.user_attrs.get(key)
    )
    optuna.create_study(storage=uri, study_name="study", direction="maximize")
    assert open_study(uri, "study", ABOUT)[1]
    assert not open_study(uri, "study", ABOUT)[1]


def test_an_attribute_that_never_comes_is_not_waited_for_long(uri):
    study = opened(uri)
    assert wait_for_attribute(study, "run_id", patience_s=0.2) is None
    study.set_user_attr("run_id", "abc")
    assert wait_for_attribute(study, "run_id", patience_s=0.2) == "abc"
