"""Promotion: aliases move with a reason, the history has every move, and races and interruptions lose nothing."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import mlflow
import pytest
from tests.support import postgres

from emotion_detection.errors import StoreError, UsageError
from emotion_detection.experiments import ledger, promotion, runs
from emotion_detection.experiments.ledger import Move
from emotion_detection.experiments.promotion import Decision, history, promote, promote_if, rollback

NAME = "faces"

# Each child promotes one version, without the lock that protects processes on one machine from each other.
RACE = """
import os, sys
from contextlib import nullcontext
import mlflow
from emotion_detection.experiments import promotion, runs

promotion.exclusive_store = nullcontext
count = int(sys.argv[1])
children = []
for number in range(1, count + 1):
    child = os.fork()
    if child == 0:
        try:
            promotion.promote("faces", number, alias="champion", reason=f"process {number}")
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    children.append(child)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def create_versions(count: int, **tags: str) -> mlflow.MlflowClient:
    """A model with versions that have no files."""
    runs.connect()
    client = mlflow.MlflowClient()
    client.create_registered_model(NAME)
    for _ in range(count):
        client.create_model_version(NAME, "file:///nowhere", tags=tags)
    return client


@pytest.fixture
def client(store) -> mlflow.MlflowClient:  # noqa: ARG001
    return create_versions(4)


def champion(client: mlflow.MlflowClient) -> int:
    return int(client.get_registered_model(NAME).aliases["champion"])


def accept(number: int, reason: str = "better") -> promotion.Outcome:
    return promote_if(NAME, number, alias="champion", decide=lambda _: Decision(True, reason, {"verdict": "better"}))


def give(number: int, reason: str = "because") -> None:
    promote(NAME, number, alias="champion", reason=reason)


def back(reason: str = "because") -> int | None:
    return rollback(NAME, alias="champion", reason=reason).move.target


def moves() -> list[tuple[str, int | None, int | None]]:
    return [(entry.move.kind, entry.move.source, entry.move.target) for entry in history(NAME)]


def test_moves_are_recorded_with_user_reason_and_evidence(client, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    assert accept(1, "first") == promotion.Outcome(True, "first")
    give(3, "the customer\nwants it")
    first, second = history(NAME)
    assert (first.number, first.by, first.move) == (
        1,
        "ada",
        Move("champion", None, 1, "register", "first", {"verdict": "better"}),
    )
    assert second.move == Move("champion", 1, 3, "promote", "the customer wants it")
    assert first.at <= second.at
    assert champion(client) == 3
    assert "champion: version 3" in client.get_registered_model(NAME).description
    assert promotion.parse_evidence(client.get_model_version(NAME, "1").tags["evidence"]) == {"verdict": "better"}


def test_promoting_the_holder_changes_nothing(client):
    accept(1, "first")
    assert accept(1, "unused") == promotion.Outcome(True, "first")
    assert promotion.parse_evidence(client.get_model_version(NAME, "1").tags["evidence"]) == {"verdict": "better"}
    assert promote(NAME, 1, alias="champion", reason="again") is None
    assert len(history(NAME)) == 1
    assert champion(client) == 1


def test_refused_version_leaves_alias_and_history_alone_and_keeps_its_evidence(client):
    accept(1)
    seen = []

    def refuse(holder):
        seen.append(holder.number)
        return Decision(False, "worse", {"verdict": "worse"})

    assert promote_if(NAME, 2, alias="champion", decide=refuse) == promotion.Outcome(False, "worse")
    assert (seen, champion(client), len(history(NAME))) == ([1], 1, 1)
    assert client.get_model_version(NAME, "2").tags["evidence"] == '{"verdict":"worse"}'


def test_rollback_goes_back_step_by_step(client):
    for number in (1, 2, 3):
        accept(number)
    assert [back(), back()] == [2, 1]
    assert champion(client) == 1
    with pytest.raises(UsageError, match=r"faces has no earlier champion: name a version with `emotion-detection pro"):
        back()
    assert moves()[3:] == [("rollback", 3, 2), ("rollback", 2, 1)]


def test_rolled_back_version_is_vetoed_until_somebody_promotes_it(client):
    accept(1)
    accept(2)
    back()
    message = "it was rolled back: `emotion-detection promote models:/faces/2 --reason TEXT` lifts this"
    assert accept(2) == promotion.Outcome(False, message)
    assert champion(client) == 1
    give(2)
    give(1)
    assert accept(2).promoted


def test_veto_holds_for_other_versions_with_the_same_file(store):  # noqa: ARG001
    client = create_versions(3, onnx_sha256="5f")
    accept(1)
    accept(2)
    back()
    outcome = accept(3)
    assert not outcome.promoted
    assert outcome.reason.startswith("version 2, which has the same file, was rolled back: ")
    assert champion(client) == 1


def test_rollback_passes_over_a_deleted_version(client):
    for number in (1, 2, 3):
        accept(number)
    client.delete_model_version(NAME, "2")
    assert back() == 1


def test_move_by_hand_is_entered_by_the_next_operation(client):
    accept(1)
    client.set_registered_model_alias(NAME, "champion", "3")
    shown = history(NAME)[-1]
    assert (shown.number, shown.by, shown.move) == (
        0,
        "unknown",
        Move("champion", 1, 3, "outside", "moved outside of this project"),
    )
    assert len(ledger.history(NAME)) == 1  # reading writes nothing
    accept(4)
    assert moves() == [("register", None, 1), ("outside", 1, 3), ("register", 3, 4)]
    assert [entry.number for entry in history(NAME)] == [1, 2, 3]
    assert back() == 3


def test_alias_removed_by_hand_is_entered(client):
    accept(1)
    client.delete_registered_model_alias(NAME, "champion")
    assert back() == 1
    assert moves()[1:] == [("outside", 1, None), ("rollback", None, 1)]


def test_alias_that_is_older_than_the_history_is_entered(client):
    client.set_registered_model_alias(NAME, "champion", "2")
    assert moves() == [("outside", None, 2)]
    accept(3)
    assert back() == 2
    assert history(NAME)[0].move.why == "was the champion before this history began"


def test_aliases_of_a_model_have_one_history(client):
    accept(1)
    promote(NAME, 2, alias="trial", reason="try it")
    assert [(entry.number, entry.move.alias) for entry in history(NAME)] == [(1, "champion"), (2, "trial")]
    assert client.get_registered_model(NAME).aliases == {"champion": 1, "trial": 2}
    with pytest.raises(UsageError, match="no earlier trial"):
        rollback(NAME, alias="trial", reason="because")


def test_process_that_slept_does_not_leave_its_old_move_in_place(client, monkeypatch):
    accept(1)
    asleep: list[Move] = []
    set_alias = promotion._set_alias

    def sleep_once(name, move):
        if move.target == 2 and not asleep:  # others act before this process sets the alias
            asleep.append(move)
            give(3)
            promote(NAME, 4, alias="trial", reason="try it")
        set_alias(name, move)

    monkeypatch.setattr(promotion, "_set_alias", sleep_once)
    give(2)
    assert client.get_registered_model(NAME).aliases == {"champion": 3, "trial": 4}
    assert moves()[-1] == ("promote", None, 4)
    assert ledger.read(NAME).applied == len(moves())


def test_old_move_that_is_just_being_corrected_is_not_entered(client, monkeypatch):
    accept(1)
    give(2)
    client.set_registered_model_alias(NAME, "champion", "1")  # what a process that has slept does

    def correct(seconds):
        waited.append(seconds)
        client.set_registered_model_alias(NAME, "champion", "2")

    waited: list[float] = []
    monkeypatch.setattr("time.sleep", correct)
    give(3)
    assert moves() == [("register", None, 1), ("promote", 1, 2), ("promote", 2, 3)]
    assert waited == [promotion.SECONDS_TO_CORRECT]


def test_rollback_is_about_the_version_that_the_user_saw(client, monkeypatch):
    accept(1)
    accept(2)
    append = ledger.append
    raced: list[bool] = []

    def lose_once(*arguments):
        if not raced:
            raced.append(True)
            give(3)
            return None
        return append(*arguments)

    monkeypatch.setattr(ledger, "append", lose_once)
    with pytest.raises(StoreError, match="has moved from version 2 to version 3 meanwhile"):
        rollback(NAME, alias="champion", reason="2 is bad")
    assert champion(client) == 3


def test_description_of_the_model_names_all_aliases(client):
    accept(1)
    promote(NAME, 2, alias="trial", reason="try it")
    description = client.get_registered_model(NAME).description
    assert description.startswith("champion: version 1")
    assert "trial: version 2" in description


@pytest.mark.parametrize("place", ["_set_alias", "ledger.mark_applied"])
def test_interrupted_move_is_completed_by_the_next_operation(client, monkeypatch, place):
    accept(1)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"emotion_detection.experiments.promotion.{place}", interrupt)
        with pytest.raises(KeyboardInterrupt):
            accept(2, "much better")
    assert accept(2, "unused") == promotion.Outcome(True, "much better")
    assert champion(client) == 2
    assert moves() == [("register", None, 1), ("register", 1, 2)]


def test_interrupted_move_to_a_version_that_was_deleted_is_given_up(client, monkeypatch):
    accept(1)
    with monkeypatch.context() as patch:
        patch.setattr(promotion, "_apply", lambda *_: None)
        accept(2)
    client.delete_model_version(NAME, "2")
    give(3)
    assert moves()[2:] == [("outside", 2, 1), ("promote", 1, 3)]


def test_entry_of_a_faster_process_makes_the_decision_anew(client):
    accept(1)
    assert champion(client) == 1
    opponents = []

    def decide(holder):
        opponents.append(holder.number)
        if len(opponents) == 1:  # another process promotes version 2 while this one compares
            give(2, "faster")
        return Decision(True, f"better than version {holder.number}")

    assert promote_if(NAME, 3, alias="champion", decide=decide).reason == "better than version 2"
    assert opponents == [1, 2]
    assert moves() == [("register", None, 1), ("promote", 1, 2), ("register", 2, 3)]


def test_one_of_many_writers_of_an_entry_wins(client):  # noqa: ARG001
    before = ledger.read(NAME)
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda number: ledger.append(before, Move("a", None, number, "promote", "")), range(4)))
    (winner,) = [entry for entry in written if entry]
    assert ledger.history(NAME) == [winner]


def test_threads_without_a_lock_leave_a_complete_history(client, monkeypatch):
    monkeypatch.setattr(promotion, "exclusive_store", nullcontext)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(give, (1, 2, 3, 4)))
    check_race(client, 4)


def check_race(client: mlflow.MlflowClient, count: int) -> None:
    """Every version was promoted once, each from the one before, and the alias is where the history says."""
    entries = history(NAME)
    assert [entry.number for entry in entries] == list(range(1, count + 1))
    assert {entry.move.target for entry in entries} == set(range(1, count + 1))
    assert [entry.move.source for entry in entries] == [None, *(entry.move.target for entry in entries[:-1])]
    assert champion(client) == entries[-1].move.target
    experiments = [one.name for one in client.search_experiments() if "history" in one.name]
    assert experiments == ["faces history"]
    assert len(client.search_runs([client.get_experiment_by_name("faces history").experiment_id])) == 1


def race(count: int, folder: Path) -> None:
    command = [sys.executable, "-c", RACE, str(count)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_processes_without_a_lock_leave_a_complete_history(store, tmp_path):  # noqa: ARG001
    client = create_versions(6)
    race(6, tmp_path)
    check_race(client, 6)


@pytest.mark.slow
def test_processes_on_postgresql_leave_a_complete_history(store, tmp_path, monkeypatch):  # noqa: ARG001
    with postgres.server() as address:
        uri = postgres.empty_database(address).replace("postgresql://", "postgresql+psycopg://")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        client = create_versions(8)
        race(8, tmp_path)
        check_race(client, 8)


def test_history_survives_its_deletion_on_the_page(client):
    accept(1)
    experiment = client.get_experiment_by_name("faces history")
    (run,) = client.search_runs([experiment.experiment_id])
    client.delete_run(run.info.run_id)
    client.delete_experiment(experiment.experiment_id)
    assert len(history(NAME)) == 1
    accept(2)
    assert moves() == [("register", None, 1), ("register", 1, 2)]
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"


def test_model_created_again_under_its_name_has_a_history_of_its_own(client):
    accept(2)
    back_to = client.get_experiment_by_name("faces history").experiment_id
    client.delete_registered_model(NAME)
    create_versions(2)
    assert moves() == []
    accept(1)
    give(2)
    assert moves() == [("register", None, 1), ("promote", 1, 2)]
    assert back() == 1
    (former,) = client.search_runs([back_to])  # is kept
    assert list(former.data.params) == ["0001"]


def test_history_of_an_earlier_version_of_the_project_belongs_to_its_model(client):
    accept(1)
    (run,) = client.search_runs([client.get_experiment_by_name("faces history").experiment_id])
    created = run.data.tags[ledger.CREATED]
    client.delete_tag(run.info.run_id, ledger.CREATED)
    assert len(moves()) == 1
    accept(2)
    assert moves() == [("register", None, 1), ("register", 1, 2)]
    assert client.get_run(run.info.run_id).data.tags[ledger.CREATED] == created


def test_entry_that_somebody_wrote_by_hand_is_passed_over(client):
    accept(1)
    (run,) = client.search_runs([client.get_experiment_by_name("faces history").experiment_id])
    client.log_param(run.info.run_id, "0002", "not JSON")
    accept(3)
    assert moves() == [("register", None, 1), ("damaged", None, None), ("register", 1, 3)]
    assert champion(client) == 3


def test_account_that_may_only_read_is_told_so(client, monkeypatch):
    def refuse(*_, **__):
        raise mlflow.MlflowException("failed with error code 403 != 200. Response body: 'Permission denied'")

    accept(1)
    monkeypatch.setattr(mlflow.MlflowClient, "log_param", refuse)
    with pytest.raises(StoreError, match=r"use an account that may write$"):
        give(2)
    assert champion(client) == 1


def test_long_reasons_and_secrets_are_not_stored(client):
    accept(1)
    give(2, "token=abcdefghijkl " + 5000 * "x")
    (run,) = client.search_runs([client.get_experiment_by_name("faces history").experiment_id])
    stored = run.data.params["0002"]
    assert len(stored) < 1000
    assert "abcdefghijkl" not in stored


def test_unknown_model_or_version_raises_and_begins_no_history(client):
    for operation in (lambda: rollback("typo", alias="champion", reason="r"), lambda: history("typo")):
        with pytest.raises(StoreError, match="the registry does not contain typo: it contains faces"):
            operation()
    with pytest.raises(StoreError, match="the registry does not contain models:/faces/9"):
        give(9)
    assert [one.name for one in client.search_experiments() if "typo" in one.name] == []


def test_versions_without_evidence_are_tolerated():
    assert promotion.parse_evidence("") == promotion.parse_evidence("{") == promotion.parse_evidence("[1]") == {}
