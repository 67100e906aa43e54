"""The count, the dead and the late: with trials that take no time. The command itself is tested in test_tune."""

import subprocess
import sys
import threading
import time
from typing import Any

import optuna
import pytest
from optuna.trial import Trial, TrialState

from emotion_detection import studies
from emotion_detection.errors import InputError

ABOUT = {"data": "abc", "space": {"x": [0, 1]}}


@pytest.fixture
def uri(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def opened(uri: str) -> studies.Study:
    return studies.open_study(uri, "study", ABOUT)[0]


def objective(trial: Trial) -> float:
    return trial.suggest_float("x", 0, 1)


def never() -> bool:
    return False


def states(study: studies.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials()]


def test_the_first_opens_and_the_second_joins(uri):
    assert studies.open_study(uri, "study", ABOUT)[1]
    assert not studies.open_study(uri, "study", ABOUT)[1]
    assert studies.open_study(uri, "another", ABOUT)[1]


def test_a_study_about_something_else_is_refused_by_the_name_of_what_differs(uri):
    opened(uri)
    with pytest.raises(InputError, match=r"the study study searches something else \(its data differs\).*--study"):
        studies.open_study(uri, "study", ABOUT | {"data": "xyz"})


def test_work_ends_at_the_asked_number_and_goes_on_from_there(uri):
    study = opened(uri)
    studies.work(study, objective, trials=3, asked=never)
    studies.work(study, objective, trials=3, asked=never)
    assert states(study) == ["COMPLETE"] * 3
    studies.work(study, objective, trials=5, asked=never)
    assert states(study) == ["COMPLETE"] * 5


def test_a_pruned_trial_counts_and_what_a_trial_raises_is_not_lost(uri):
    def prunes(_: Trial) -> float:
        raise optuna.TrialPruned

    def breaks(_: Trial) -> float:
        raise OSError("no space left on device")

    study = opened(uri)
    studies.work(study, prunes, trials=1, asked=never)
    with pytest.raises(OSError, match="no space left"):
        studies.work(study, breaks, trials=2, asked=never)
    studies.work(study, objective, trials=2, asked=never)
    assert states(study) == ["PRUNED", "FAIL", "COMPLETE"]


def test_nothing_begins_once_it_is_asked_to_stop(uri):
    study = opened(uri)
    studies.work(study, objective, trials=3, asked=lambda: len(study.get_trials()) >= 2)
    assert states(study) == ["COMPLETE"] * 2


def test_many_workers_at_once_run_no_trial_too_many(uri):
    ran: list[int] = []

    def slow(trial: Trial) -> float:
        ran.append(trial.number)
        time.sleep(0.02)
        return objective(trial)

    opened(uri)
    threads = [
        threading.Thread(target=lambda: studies.work(opened(uri), slow, trials=9, asked=never)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = opened(uri).get_trials()
    assert [trial.number for trial in found if trial.state.name == "COMPLETE"] == sorted(ran)
    assert len(ran) == 9
    # Those that came too late, in the same moment, were told before any work.
    assert {trial.state.name for trial in found[9:]} <= {"COMPLETE", "FAIL"}


def begun(study: studies.Study, worker: dict[str, Any]) -> Trial:
    trial = study.ask()
    objective(trial)
    trial.set_user_attr("worker", worker)
    return trial


def gone() -> dict[str, Any]:
    """A process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return studies.this_process() | {"pid": process.pid}


def test_the_trial_of_a_dead_process_is_tried_again_with_its_settings(uri):
    study = opened(uri)
    lost = begun(study, gone())
    studies.revive(study)
    assert states(study) == ["FAIL", "WAITING"]
    studies.revive(study)  # once is enough
    studies.work(study, objective, trials=1, asked=never)
    again = study.get_trials()[1]
    assert (again.state, again.params) == (TrialState.COMPLETE, lost.params)


@pytest.mark.parametrize("change", [{}, {"host": "elsewhere", "pid": 1}])
def test_a_living_trial_and_one_of_another_machine_are_left_alone(uri, change):
    study = opened(uri)
    begun(study, studies.this_process() | change)
    studies.revive(study)
    assert states(study) == ["RUNNING"]


def test_a_process_number_that_was_given_again_is_not_the_worker(uri):
    study = opened(uri)
    begun(study, studies.this_process() | {"began": 1.0})
    studies.revive(study)
    assert states(study) == ["FAIL", "WAITING"]


def test_a_trial_that_nobody_claims_is_dead_after_a_while(uri, monkeypatch):
    study = opened(uri)
    study.ask()
    studies.revive(study)
    assert states(study) == ["RUNNING"]
    monkeypatch.setattr(studies, "GRACE_S", -1)
    studies.revive(study)
    assert states(study) == ["FAIL", "WAITING"]


def test_other_machines_are_known_dead_by_their_heartbeat(uri):
    study = opened(uri)
    begun(study, studies.this_process() | {"host": "elsewhere"})
    backend: Any = study._storage
    backend = getattr(backend, "_backend", backend)  # Optuna keeps a cache before its database
    backend.record_heartbeat(study.get_trials()[0]._trial_id)
    backend.grace_period = 1
    studies.revive(study)
    assert states(study) == ["RUNNING"]
    time.sleep(3)
    studies.revive(study)
    assert states(study) == ["FAIL", "WAITING"]


def test_an_attribute_that_never_comes_is_not_waited_for_long(uri):
    study = opened(uri)
    assert studies.wait_for(study, "run_id", patience_s=0.2) is None
    study.set_user_attr("run_id", "abc")
    assert studies.wait_for(study, "run_id", patience_s=0.2) == "abc"


def test_a_password_is_not_shown():
    assert studies.shown("postgresql://me:secret@host:5432/base") == "postgresql://me:***@host:5432/base"
    assert studies.shown("me:secret@just words") == "just words"
    assert studies.shown("sqlite:////a/b.db") == "sqlite:////a/b.db"
