"""Runs and models that a dead store does not stop: all is delivered once, with its original times."""

import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, RESOURCE_DOES_NOT_EXIST
from requests import ConnectionError as RefusedError
from requests import HTTPError, Response, Timeout
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from tests.support import postgres
from tests.support.faulty_server import ERROR, FAULTS, FROZEN, HEALTHY, REFUSED, SILENT, UNAUTHORIZED, proxy

from emotion_detection.commands.sync import sync
from emotion_detection.errors import StoreError
from emotion_detection.experiments import calls, delivery, journal, outages, references, runs
from emotion_detection.experiments.delivery import LOCAL_ID, locate, stage_run
from emotion_detection.experiments.journal import RECORDS, exclusive_delivery, journal_of, journals
from emotion_detection.experiments.outages import OutageError, is_outage

ID = "0" * 32
REASONS = {
    REFUSED: "it closes the connection",
    SILENT: "it does not answer in time",
    ERROR: "it answers with HTTP status 500",
    UNAUTHORIZED: "it refuses the login, HTTP status 401",
}
ROWS = [{"epoch": epoch, "loss": 1 / epoch, "val_loss": 2 / epoch, "val_macro_f1": 0.1} for epoch in range(1, 5)]
HANG_S = 400  # after this time, a training with a frozen store hangs
FACES = (np.zeros((3, 48, 48), np.uint8), np.zeros(3, np.uint8))


class KilledError(BaseException):
    """A kill of the process, as far as a test of the same process can show it."""


class Switch:
    """Makes the store dead and healthy again, as if it had one address."""

    def __init__(self, monkeypatch, healthy: str, dead: str) -> None:
        self._monkeypatch, self._healthy, self._dead = monkeypatch, healthy, dead

    def kill(self) -> None:
        self._set(self._dead)

    def revive(self) -> None:
        self._set(self._healthy)

    def _set(self, uri: str) -> None:
        self._monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)


@pytest.fixture(scope="module")
def dead_server():
    with proxy() as server:
        server.fault = REFUSED
        yield server


@pytest.fixture
def switch(store, dead_server, monkeypatch):
    monkeypatch.setattr(journal, "redact_uri", lambda _: "the store")
    dead_server.fault = REFUSED
    return Switch(monkeypatch, store, dead_server.url)


def train(tmp_path, rows=ROWS, run_id=ID, before=lambda _: None):
    """What the train stage logs. before: is called with the number of each epoch."""
    (tmp_path / "files").mkdir(exist_ok=True)
    (tmp_path / "files" / "a.csv").write_text("a")
    (tmp_path / "history.csv").write_text("epoch")
    with stage_run(run_id, name="first try", tags={"dataset": "sample"}, create=True) as run:
        run.log_params({"train": {"epochs": 4}})
        run.log_contents({"code/changes.patch": b""})
        run.note("Training", "about it")
        run.log_faces(FACES, name="sample", split="train", dvc_md5="1", digest="ab")
        run.log_folder(tmp_path / "files", "data")
        for row in rows:
            before(row["epoch"])
            run.log_epoch(row)
        run.log_history(rows, tmp_path / "history.csv")
    return run.id


def evaluate(run_id, tmp_path):
    with stage_run(run_id) as run:
        run.log_stage_params({"evaluate": {"bins": 3}})
        run.log_history(ROWS, tmp_path / "history.csv")
        run.log_scores({"val_macro_f1": 0.7, "test_accuracy": 0.5}, ROWS)
        run.note("Scores", "good")


def all_runs():
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(runs.EXPERIMENT)
    return client.search_runs([experiment.experiment_id]) if experiment else []


def check_complete(epochs=4, *, status="FINISHED"):
    """The only run of the store has everything once."""
    (run,) = all_runs()
    client = mlflow.MlflowClient()
    points = client.get_metric_history(run.info.run_id, "val_loss")
    assert [point.step for point in points] == list(range(1, epochs + 1))
    assert run.data.params["train.epochs"] == "4"
    assert run.data.tags["dataset"] == "sample"
    assert (run.info.run_name, run.info.status) == ("first try", status)
    assert [one.dataset.name for one in run.inputs.dataset_inputs] == ["sample-train"]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "data")] == ["data/a.csv"]
    assert {"code", "history.csv"} <= {file.path for file in client.list_artifacts(run.info.run_id)}
    return run


def test_store_that_is_dead_from_the_start_gets_everything_later(switch, tmp_path, caplog, capsys):
    switch.kill()
    with caplog.at_level(logging.WARNING, "emotion_detection"):
        before = time.time() * 1000
        run_id = train(tmp_path)
        after = time.time() * 1000
        evaluate(run_id, tmp_path)
    assert run_id == ID
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2  # one for each stage
    assert all("The stage continues" in one and "`emotion-detection sync`" in one for one in warnings)
    switch.revive()
    sync()
    run = check_complete()
    assert run.data.metrics["test_accuracy"] == 0.5
    assert run.data.metrics["val_macro_f1"] == 0.7
    assert run.data.params["evaluate.bins"] == "3"
    assert run.data.tags["mlflow.user"]
    assert run.data.tags["mlflow.note.content"] == "### Training\n\nabout it\n\n### Scores\n\ngood\n\n"
    points = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_loss")
    assert all(before <= point.timestamp <= after for point in points)
    assert before <= run.info.start_time <= after
    assert references.find(ID, tmp_path).run_id == run.info.run_id  # the ID in run.json
    assert "with 4 epochs" in capsys.readouterr().out
    sync()
    assert capsys.readouterr().out == "nothing waits for this store\n"
    check_complete()


@pytest.mark.parametrize("stage", ["evaluate", "sync"])
def test_store_that_dies_in_mid_training_gets_each_epoch_once(switch, tmp_path, stage):
    run_id = train(tmp_path, before=lambda epoch: switch.kill() if epoch == 3 else None)
    assert run_id != ID
    switch.revive()
    sync() if stage == "sync" else evaluate(run_id, tmp_path)
    check_complete()
    assert not journals()


def test_store_that_responds_again_gets_the_rest_of_the_training_at_once(switch, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "PATIENCE", 0)
    switch.kill()
    run_id = train(tmp_path, before=lambda epoch: switch.revive() if epoch == 3 else None)
    assert run_id == ID
    assert locate(ID) != ID
    check_complete()
    assert not journals()
    evaluate(run_id, tmp_path)
    assert check_complete().data.metrics["test_accuracy"] == 0.5


def test_second_outage_of_a_stage_is_left_to_it(switch, tmp_path, monkeypatch):
    """Another process must not take the journal for that of a dead one."""

    def step(epoch):
        if epoch == 2:
            switch.revive()
        if epoch == 3:
            assert not journals()
            switch.kill()
        if epoch == 4:
            switch.revive()
            with ThreadPoolExecutor(1) as pool:
                assert "1 of 1 runs still wait" in str(pool.submit(sync).exception())

    monkeypatch.setattr(runs, "PATIENCE", 0)
    switch.kill()
    train(tmp_path, before=step)
    assert "ended_by" not in check_complete().data.tags
    assert not journals()


def test_run_that_the_store_refuses_does_not_block_the_others(switch, tmp_path, monkeypatch, capsys):
    send = calls.send

    def refuse(run_id, call):
        if mlflow.MlflowClient().get_run(run_id).data.tags[LOCAL_ID] == ID:
            raise OutageError("error code 403", "it refuses the login, HTTP status 403")
        send(run_id, call)

    switch.kill()
    train(tmp_path)
    train(tmp_path, run_id="1" * 32)
    switch.revive()
    monkeypatch.setattr(calls, "send", refuse)
    with pytest.raises(StoreError, match="1 of 2 runs still wait"):
        sync()
    assert f"run {ID}: error code 403" in capsys.readouterr().out
    healthy = train(tmp_path, run_id="2" * 32)
    assert mlflow.MlflowClient().get_run(healthy).info.status == "FINISHED"
    evaluate(ID, tmp_path)  # in the order of the calls
    monkeypatch.setattr(calls, "send", send)
    sync()
    assert [run.info.status for run in all_runs()] == ["FINISHED"] * 3
    assert not journals()


def test_stage_does_not_wait_long_for_another_delivery(switch, tmp_path, monkeypatch):
    monkeypatch.setattr(delivery, "WAIT_S", 0)
    monkeypatch.setattr(journal, "WAIT_S", 0)
    switch.kill()
    train(tmp_path)
    switch.revive()
    with exclusive_delivery(), journal_of(ID).lock(), ThreadPoolExecutor(1) as pool:
        pool.submit(evaluate, ID, tmp_path).result()
    sync()
    assert check_complete().data.metrics["test_accuracy"] == 0.5
    assert not journals()


def test_duplicate_that_may_not_be_deleted_is_left(switch, tmp_path, monkeypatch):
    def forbid(*_):
        raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    switch.kill()
    train(tmp_path)
    switch.revive()
    monkeypatch.setattr(mlflow.MlflowClient, "delete_run", forbid)
    for _ in range(2):
        mlflow.MlflowClient().create_run(runs.project_experiment(), tags={LOCAL_ID: ID})
    sync()
    assert not journals()


def test_resumed_run_does_not_say_why_it_has_ended_before(switch, tmp_path):  # noqa: ARG001
    with pytest.raises(ValueError, match="stop"), stage_run(ID, create=True, name="first try") as run:
        raise ValueError("stop")
    client = mlflow.MlflowClient()
    assert client.get_run(run.id).data.tags["ended_by"] == "ValueError: stop"
    with stage_run(run.id):
        pass
    assert "ended_by" not in client.get_run(run.id).data.tags


def test_training_that_was_killed_without_a_store_goes_on_in_one_run(switch, tmp_path):
    def kill(epoch):
        if epoch == 3:
            raise KilledError

    switch.kill()
    with pytest.raises(KilledError):
        train(tmp_path, before=kill)
    switch.revive()
    train(tmp_path, rows=ROWS[2:])
    check_complete()


def test_later_stage_does_not_change_the_source_of_the_run(switch, tmp_path, monkeypatch):
    run_id = train(tmp_path)
    source = all_runs()[0].data.tags["mlflow.source.name"]
    monkeypatch.setattr(delivery, "resolve_tags", lambda tags: {**tags, "mlflow.source.name": "evaluate.py"})
    switch.kill()
    evaluate(run_id, tmp_path)
    switch.revive()
    sync()
    assert check_complete().data.tags["mlflow.source.name"] == source


def test_killed_process_leaves_a_run_that_is_ended(switch, tmp_path, monkeypatch):
    switch.kill()
    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "end", lambda *_: None)
        train(tmp_path)
    switch.revive()
    sync()
    assert check_complete(status="KILLED").data.tags["ended_by"] == "its process was killed"


def test_delivery_that_is_killed_after_any_request_is_completed_without_a_double(switch, tmp_path, monkeypatch):
    switch.kill()
    run_id = train(tmp_path)
    evaluate(run_id, tmp_path)
    switch.revive()
    create, send, metrics = mlflow.MlflowClient.create_run, calls.send, calls.send_metrics
    left = [0]

    def killed(function):
        def call(*arguments, **settings):
            answer = function(*arguments, **settings)  # the store has taken it
            left[0] -= 1
            if left[0] == 0:
                raise KilledError
            return answer

        return call

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", killed(create))
    monkeypatch.setattr(calls, "send", killed(send))
    monkeypatch.setattr(calls, "send_metrics", killed(metrics))
    kills = 0
    while journals():
        left[0] = 3  # the store takes three requests, and the last is not noted
        try:
            sync()
        except KilledError:
            kills += 1
    assert kills >= 5
    run = check_complete()
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_macro_f1")
    assert [point.step for point in history] == [1, 2, 3, 4, 5]


def test_run_whose_creation_was_not_answered_is_found(switch, tmp_path, monkeypatch):
    start = mlflow.start_run

    def lose_the_answer(*arguments, **settings):
        start(*arguments, **settings | {"log_system_metrics": False})
        switch.kill()
        mlflow.tracking.fluent._active_run_stack.get().clear()
        raise RefusedError("the answer is lost")

    monkeypatch.setattr(mlflow, "start_run", lose_the_answer)
    assert train(tmp_path) == ID
    switch.revive()
    sync()
    check_complete()


def test_second_run_of_the_same_training_is_removed(switch, tmp_path):
    """A server that slept takes an old request after a delivery has created the run."""
    switch.kill()
    train(tmp_path)
    switch.revive()
    sync()
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(runs.EXPERIMENT).experiment_id
    late = client.create_run(experiment, start_time=1, tags={LOCAL_ID: ID})
    assert locate(ID) != late.info.run_id
    switch.kill()
    evaluate(ID, tmp_path)
    switch.revive()
    sync()
    assert check_complete().data.metrics["test_accuracy"] == 0.5


def test_sync_waits_for_another_one(switch, tmp_path, monkeypatch):
    switch.kill()
    train(tmp_path)
    switch.revive()
    monkeypatch.setattr(journal, "LOCK_TIMEOUT_S", 0)
    with exclusive_delivery(), ThreadPoolExecutor(1) as pool, pytest.raises(StoreError, match="another process"):
        pool.submit(sync).result()
    sync()
    check_complete()


def test_journal_of_a_running_process_is_left_to_it(switch, tmp_path, capsys):
    switch.kill()
    train(tmp_path)
    switch.revive()
    with journal_of(ID).lock(), ThreadPoolExecutor(1) as pool:
        second = pool.submit(sync)
        assert "1 of 1 runs still wait" in str(second.exception())
    assert not all_runs()
    sync()
    check_complete()
    assert ID not in capsys.readouterr().out


def test_dead_store_at_sync_is_an_error_and_loses_nothing(switch, tmp_path):
    switch.kill()
    train(tmp_path)
    with pytest.raises(OutageError, match="fix or start the store"):
        sync()
    switch.revive()
    sync()
    check_complete()


def test_run_that_was_deleted_meanwhile_is_named(switch, tmp_path, capsys):
    run_id = train(tmp_path, before=lambda epoch: switch.kill() if epoch == 3 else None)
    switch.revive()
    mlflow.MlflowClient().delete_run(run_id)
    with pytest.raises(StoreError, match="1 of 1 runs still wait"):
        sync()
    printed = capsys.readouterr().out
    assert printed.startswith(f"run {run_id}: ")
    assert "does not contain this run: restore it in MLflow's page, or delete" in printed


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "heartbeat", "at": 1, "content": {}},
        {"kind": "heartbeat", "at": 1},
        {"kind": "missing epochs", "at": 1, "content": {"rows": [{}]}},
    ],
    ids=["kind", "no content", "nested content"],
)
def test_call_that_this_version_does_not_know_keeps_its_journal_only(switch, tmp_path, capsys, caplog, line):
    switch.kill()
    train(tmp_path)
    train(tmp_path, run_id="1" * 32)
    records = journal_of(ID).folder / RECORDS
    with records.open("a") as stream:
        stream.write(f"\n{json.dumps(line)}\n")
    before = records.read_bytes()
    switch.revive()
    with pytest.raises(StoreError, match="1 of 2 runs still wait"):
        sync()
    (sentence,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith(f"run {ID}: ")]
    assert f"{records} is damaged or written by a newer version, its kind is {line['kind']!r}: use the" in sentence
    assert records.read_bytes() == before
    assert [run.data.tags[LOCAL_ID] for run in all_runs()] == ["1" * 32]
    caplog.clear()
    evaluate(ID, tmp_path)  # in the order of the calls
    number = len(before.splitlines()) // 2 - 1  # a line for each call, and the first one
    assert caplog.messages[-1].startswith(
        f"MLflow cannot get what it has missed of this run (call {number} in {RECORDS} is damaged or written by a "
        f"newer version, its kind is {line['kind']!r}). The stage continues, and what "
    )
    assert caplog.messages[-1].endswith("`emotion-detection sync` delivers it when it can be sent.")
    assert records.read_bytes().startswith(before)
    assert len(records.read_bytes()) > len(before)


def test_artifacts_without_their_files_are_kept(switch, tmp_path, capsys):
    switch.kill()
    train(tmp_path)
    waiting = journal_of(ID)
    number = next(line["number"] for line in waiting.pending() if line["kind"] == "artifacts")
    (file,) = [path for path in waiting.files(number).rglob("*") if path.is_file()]
    content = file.read_bytes()
    file.unlink()
    switch.revive()
    with pytest.raises(StoreError, match="1 of 1 runs still wait"):
        sync()
    assert f"has no files, they should be in files/{number}: use the version" in capsys.readouterr().out
    file.write_bytes(content)
    sync()
    check_complete()


def test_call_that_raises_any_error_does_not_stop_the_others(switch, tmp_path, monkeypatch, capsys):
    send = calls.send

    def fail(run_id, call):
        if mlflow.MlflowClient().get_run(run_id).data.tags[LOCAL_ID] == ID:
            raise TypeError("not a number")
        send(run_id, call)

    switch.kill()
    train(tmp_path)
    train(tmp_path, run_id="1" * 32)
    switch.revive()
    with monkeypatch.context() as patch:
        patch.setattr(calls, "send", fail)
        with pytest.raises(StoreError, match="1 of 2 runs still wait"):
            sync()
    (sentence,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith(f"run {ID}: ")]
    assert "cannot be sent, TypeError: not a number: use the version" in sentence
    sync()
    assert [run.info.status for run in all_runs()] == ["FINISHED"] * 2
    assert not journals()


def test_later_journal_of_a_run_waits_for_the_earlier_one(switch, tmp_path, monkeypatch, capsys):
    run_id = train(tmp_path)
    switch.kill()
    evaluate(run_id, tmp_path)
    first = journal_of(run_id)
    records = first.folder / RECORDS
    complete = records.read_text()
    records.write_text(complete + '\n{"kind": "heartbeat", "at": 1, "content": {}}\n')
    monkeypatch.setattr(journal, "WAIT_S", 0)
    monkeypatch.setattr(delivery, "WAIT_S", 0)

    def write_beside():
        with stage_run(run_id) as run:
            run.note("Scores", "newer")

    time.sleep(0.01)  # the journals are ordered by their milliseconds
    with first.lock(), ThreadPoolExecutor(1) as pool:
        pool.submit(write_beside).result()
    second = first.folder.with_name(f"{run_id}.2")
    switch.revive()
    with pytest.raises(StoreError, match="2 of 2 runs still wait"):
        sync()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1] == f"run {run_id}: {second} waits until {first.folder} is delivered, which is earlier"
    with first.lock(), ThreadPoolExecutor(1) as pool:  # a running process delivers the first one itself
        assert "2 of 2 runs still wait" in str(pool.submit(sync).exception())
    assert "mlflow.note.content" in all_runs()[0].data.tags
    assert "newer" not in all_runs()[0].data.tags["mlflow.note.content"]
    records.write_text(complete)  # as the version delivers it that knows the call
    sync()
    assert all_runs()[0].data.tags["mlflow.note.content"].endswith("### Scores\n\nnewer\n\n")
    assert not journals()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("frozen_from", [0, 3])
def test_database_that_freezes_gets_the_rest_later(store, tmp_path, monkeypatch, frozen_from):  # noqa: ARG001
    """It accepts connections and keeps them, and never answers."""
    monkeypatch.setattr(runs, "EPOCH_TIMEOUT_S", 2)

    def freeze(epoch):
        if epoch == frozen_from:
            front.fault = FROZEN

    with postgres.server() as address, proxy(make_url(address).port or 0) as front, ThreadPoolExecutor(1) as pool:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", make_url(address).set(port=front.port).render_as_string(False))
        freeze(0)
        training = pool.submit(train, tmp_path, before=freeze)
        try:
            training.result(HANG_S)
        finally:
            front.fault = HEALTHY  # it also ends a training that hangs
        assert len(journals()) == 1
        sync()
        check_complete()
        assert not journals()


def test_what_waits_for_another_store_is_named_and_kept(switch, tmp_path, monkeypatch, capsys, caplog):
    switch.kill()
    train(tmp_path)
    switch.revive()
    monkeypatch.setattr(journal, "redact_uri", lambda _: "the other store")
    evaluate(ID, tmp_path)  # the run is not there either
    assert "what the store misses is kept" in caplog.messages[-1]
    assert caplog.messages[-1].endswith("delivers it when MLFLOW_TRACKING_URI is this address.")
    sync()
    assert "1 run for the store: set MLFLOW_TRACKING_URI to this address" in capsys.readouterr().out
    assert not all_runs()
    monkeypatch.setattr(journal, "redact_uri", lambda _: "the store")
    sync()
    assert check_complete().data.metrics["test_accuracy"] == 0.5


@pytest.mark.usefixtures("store")
def test_unknown_run_in_a_healthy_store_is_an_error():
    with pytest.raises(StoreError, match="does not contain the run"), stage_run(ID):
        pass


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("uri", ["htp://127.0.0.1:1", "file:///tmp/mlruns", "http://ann:p@ss@127.0.0.1:1"])
def test_wrong_address_is_an_error_and_no_outage(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StoreError) as error, stage_run(ID, create=True):
        pass
    assert not isinstance(error.value, OutageError)
    assert not journals()


def test_damaged_file_is_an_error_and_no_outage(store, tmp_path):  # noqa: ARG001
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="move it away"), stage_run(ID, create=True):
        pass
    assert not journals()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_an_outage_and_is_said_in_a_few_words(switch, dead_server, fault, monkeypatch):
    if fault == SILENT:
        monkeypatch.setattr(delivery, "EPOCH_TIMEOUT_S", 1)
    switch.kill()
    dead_server.fault = fault
    with pytest.raises(OutageError) as error:
        delivery.check_store()
    assert error.value.reason == REASONS[fault]


@pytest.mark.parametrize("fault", [SILENT, ERROR])
def test_dead_store_is_asked_a_few_times_only(switch, dead_server, fault, monkeypatch, tmp_path):
    clock, asked = [0.0], []

    def attempt(*_):
        asked.append(1)
        clock[0] += 5
        raise OutageError("", "it does not answer")

    monkeypatch.setattr(runs, "monotonic", lambda: clock[0])
    monkeypatch.setattr(delivery, "deliver", attempt)
    monkeypatch.setattr(delivery, "EPOCH_TIMEOUT_S", 1)
    dead_server.fault = fault
    switch.kill()
    rows = [ROWS[0] | {"epoch": epoch} for epoch in range(1, 101)]
    train(tmp_path, rows=rows, before=lambda _: clock.__setitem__(0, clock[0] + 60))
    assert 2 <= len(asked) <= 6
    assert len(journal_of(ID).pending()) > 100


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MlflowException("refused"), True),
        (MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST), False),
        (RefusedError("x"), True),
        (Timeout("x"), True),
        (OperationalError("x", {}, Exception()), True),
        (ConnectionResetError("x"), True),
        (PermissionError("x"), False),
        (ImportError("x"), False),
    ],
)
def test_which_errors_are_outages(error, expected, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert is_outage(error) is expected
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert not is_outage(error)


@pytest.mark.parametrize(("status", "expected"), [(401, True), (403, True), (429, True), (503, True), (404, False)])
def test_which_answers_are_outages(status, expected, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    response = Response()
    response.status_code = status
    assert is_outage(HTTPError(response=response)) is expected


def test_limits_of_requests_are_restored(monkeypatch):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")
    with outages.bounded(3):
        assert mlflow.environment_variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 0
    assert mlflow.environment_variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 9


@pytest.mark.usefixtures("connection_variables")
@pytest.mark.parametrize(
    ("own", "expected"), [("2", "3"), ("8", "8"), ("60", "60"), ("10", "3"), ("0", "3"), ("soon", "3")]
)
def test_longer_limit_of_the_user_for_a_database_is_kept(monkeypatch, own, expected):
    monkeypatch.setenv("PGCONNECT_TIMEOUT", own)
    with outages.bounded(3):
        assert os.environ["PGCONNECT_TIMEOUT"] == expected
    assert os.environ["PGCONNECT_TIMEOUT"] == own


def test_requests_of_a_stage_are_limited_from_the_start(store, monkeypatch):  # noqa: ARG001
    """The first connection is made within shorter limits, after which these must remain."""
    limits = {"PGCONNECT_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
    for name in limits:
        monkeypatch.delenv(name, raising=False)
    with stage_run(ID, create=True):
        assert {name: os.environ.get(name) for name in limits} == limits


@pytest.mark.parametrize(
    ("uri", "pool"), [("postgresql://127.0.0.1/base", "NullPool"), ("mysql://127.0.0.1/base", None)]
)
def test_only_postgresql_gets_a_connection_for_each_request(store, monkeypatch, uri, pool):  # noqa: ARG001
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(runs, "_probe_database", lambda _: None)
    assert "MLFLOW_SQLALCHEMYSTORE_POOLCLASS" not in os.environ  # the tests before have left none
    runs.connect()
    assert os.environ.get("MLFLOW_SQLALCHEMYSTORE_POOLCLASS") == pool


def test_pool_of_the_user_is_kept(store, monkeypatch):  # noqa: ARG001
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://127.0.0.1/base")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "5")
    monkeypatch.setattr(runs, "_probe_database", lambda _: None)
    runs.connect()
    assert "MLFLOW_SQLALCHEMYSTORE_POOLCLASS" not in os.environ
