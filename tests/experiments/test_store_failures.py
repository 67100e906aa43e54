"""A store that is locked, full, read-only, hung or dead: one sentence in bounded time, and training continues."""

import errno
import logging
import os
import signal
import socket
import sqlite3
import threading
import time
from contextlib import closing, contextmanager, suppress

import mlflow
import pytest

from emotion_detection.errors import StoreError, TerminatedError, signals_interrupt
from emotion_detection.experiments import runs

ROW = {"epoch": 1, "val_loss": 1.0}


@contextmanager
def silent_server():
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(20)
        yield server.getsockname()[1]


@contextmanager
def locked(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@pytest.mark.usefixtures("store")
def test_store_in_use_is_not_to_be_moved_away(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "SQLITE_TIMEOUT_S", 0.2)
    with locked(tmp_path / "mlflow.db"), pytest.raises(StoreError, match="another process is using it: wait") as error:
        runs.connect()
    assert "move it away" not in str(error.value)


@pytest.mark.usefixtures("store")
def test_waiting_for_another_process_ends(monkeypatch):
    monkeypatch.setattr(runs, "LOCK_TIMEOUT_S", 0.2)
    entered, done = threading.Event(), threading.Event()

    def hold():
        with runs.exclusive_store():
            entered.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert entered.wait(30)
        with pytest.raises(StoreError, match="another process is using it: wait"), runs.exclusive_store():
            pass
    finally:
        done.set()
        thread.join()


def test_store_of_a_server_is_locked_on_this_machine(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    order = []

    def second():
        with runs.exclusive_store():
            order.append("second")

    with runs.exclusive_store(), runs.exclusive_store():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "mlruns/1"), "Free some space"),
        (OSError(errno.EROFS, "Read-only file system", "mlruns/1"), "Make it and its folder writable"),
        (PermissionError(errno.EACCES, "Permission denied", "mlruns/1"), "Make it and its folder writable"),
        (mlflow.exceptions.MlflowException("(sqlite3.OperationalError) database or disk is full"), "Free some space"),
        (mlflow.exceptions.MlflowException("attempt to write a readonly database"), "Make it and its folder writable"),
        (mlflow.exceptions.MlflowException("(sqlite3.OperationalError) database is locked"), "Another process"),
    ],
)
def test_failed_write_is_one_sentence(error, remedy, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise error

    (tmp_path / "picture.png").touch()
    monkeypatch.setattr(mlflow, "log_artifact", fail)
    with pytest.raises(StoreError, match=remedy) as caught, runs.start_run() as run:
        run.log_file(tmp_path / "picture.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_dead_database_is_one_sentence_without_its_password(scheme, store, monkeypatch):  # noqa: ARG001
    with socket.socket() as bound:  # without a listener
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://ann:my-password@127.0.0.1:{bound.getsockname()[1]}/base")
        started = time.monotonic()
        with pytest.raises(StoreError, match="fix or start the store") as error, runs.start_run():
            pass
    assert time.monotonic() - started < 10
    assert "my-password" not in str(error.value)


def test_silent_database_is_given_up(store, monkeypatch):  # noqa: ARG001
    with silent_server() as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://127.0.0.1:{port}/base")
        monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
        with pytest.raises(StoreError, match="fix or start the store"):
            runs.connect()


def test_database_without_its_driver_is_one_sentence(store, monkeypatch):  # noqa: ARG001
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql://127.0.0.1/base")
    with pytest.raises(StoreError, match="MySQLdb"):
        runs.connect()


def test_silent_server_costs_little_time_in_each_epoch(store, monkeypatch, caplog):
    monkeypatch.setattr(runs, "EPOCH_TIMEOUT_S", 1)
    with silent_server() as port, runs.start_run() as run:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        mlflow.set_tracking_uri(f"http://127.0.0.1:{port}")
        started = time.monotonic()
        with caplog.at_level(logging.WARNING, "emotion_detection"):
            for epoch in range(1, 20):
                run.log_epoch(ROW | {"epoch": epoch})
        assert time.monotonic() - started < 5
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "30"
        mlflow.set_tracking_uri(store)
        run.log_missing_epochs([ROW | {"epoch": epoch} for epoch in range(1, 20)])
    messages = [record.getMessage() for record in caplog.records if record.name == runs.__name__]
    assert len(messages) == 1
    assert messages[0].startswith("MLflow does not respond. Training continues; the epochs are logged later")
    history = mlflow.MlflowClient().get_metric_history(run.id, "val_loss")
    assert sorted(point.step for point in history) == list(range(1, 20))


@pytest.mark.usefixtures("store")
def test_store_that_answers_again_gets_the_next_epoch(monkeypatch):
    log_metrics, calls = mlflow.log_metrics, []

    def fail_once(*arguments, **settings):
        calls.append(settings["step"])
        if len(calls) == 1:
            raise mlflow.exceptions.MlflowException("refused at once")
        return log_metrics(*arguments, **settings)

    monkeypatch.setattr(mlflow, "log_metrics", fail_once)
    monkeypatch.setattr(runs, "PATIENCE", 1)
    with runs.start_run() as run:
        run.log_epoch(ROW)
        time.sleep(0.1)
        run.log_epoch(ROW | {"epoch": 2})
    assert calls == [1, 2]


@pytest.mark.usefixtures("store")
def test_silent_store_is_given_up_after_its_time(monkeypatch):
    clock, calls = [0.0], []

    def time_out(*_, **settings):
        calls.append(settings["step"])
        clock[0] += 15
        raise mlflow.exceptions.MlflowException("timed out")

    monkeypatch.setattr(mlflow, "log_metrics", time_out)
    monkeypatch.setattr(runs, "monotonic", lambda: clock[0])
    with runs.start_run() as run:
        for epoch in range(1, 101):
            clock[0] += 60
            run.log_epoch(ROW | {"epoch": epoch})
    assert len(calls) == 3
    assert sum(15 for _ in calls) < 60


@pytest.mark.usefixtures("store")
def test_sigterm_ends_a_run_as_killed():
    with suppress(TerminatedError), signals_interrupt(), runs.start_run() as run:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    stored = mlflow.MlflowClient().get_run(run.id)
    assert stored.info.status == "KILLED"
    assert stored.data.tags["ended_by"] == "TerminatedError: SIGTERM"


@pytest.mark.usefixtures("store")
def test_run_has_no_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "my-secret-word")
    (tmp_path / "folder").mkdir()
    for name in ("report.json", "folder/notes.md"):
        (tmp_path / name).write_text('{"source": "https://ann:pw-word@host/x?token=token-word", "k": "my-secret-word"}')
    (tmp_path / "folder" / "picture.png").write_bytes(b"\x89PNG")
    with suppress(ValueError), runs.start_run(tags={"source": "my-secret-word"}) as run:
        run.log_params({"url": "https://ann:pw-word@host", "train": {"key": "my-secret-word"}})
        run.tag("storage", "postgresql://ann:pw-word@host/base")
        run.log_file(tmp_path / "report.json", "data")
        run.log_folder(tmp_path / "folder", "more")
        raise ValueError("refused my-secret-word")
    stored = mlflow.MlflowClient().get_run(run.id).data
    artifacts = tmp_path / "mlruns" / run.id / "artifacts"
    files = {path.name: path.read_bytes() for path in artifacts.rglob("*") if path.is_file()}
    assert set(files) == {"report.json", "notes.md", "picture.png"}
    text = f"{stored.tags} {stored.params} {files}"
    assert not [secret for secret in ("my-secret-word", "pw-word", "token-word") if secret in text]
    assert stored.tags["storage"] == "postgresql://ann:***@host/base"
    assert stored.tags["ended_by"] == "ValueError: refused ***"
