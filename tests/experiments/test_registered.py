"""Whether a store has the version of build/registered.json: `make repro` registers it again if not."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from emotion_detection.errors import DataError
from emotion_detection.experiments import registered, runs

NAME = "emotion-detection-sample"


@pytest.fixture
def written(store, tmp_path) -> Path:  # noqa: ARG001
    """The file of a register stage whose version is in the store."""
    with runs.start_run() as run:
        pass
    client = mlflow.MlflowClient()
    client.create_registered_model(NAME)
    client.create_model_version(NAME, tmp_path.as_uri(), run_id=run.id)
    path = tmp_path / "registered.json"
    path.write_text(json.dumps({"name": NAME, "version": 1, "run_id": run.id}))
    return path


def test_version_is_found_without_mlflow(written):
    assert registered.is_registered(written)
    code = "import sys; from emotion_detection.experiments.registered import *; main(Path(sys.argv[1]))"
    code += "; print('mlflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code, str(written)], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_other_store_does_not_have_the_version(written, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    with pytest.raises(SystemExit, match="1"):
        registered.main(written)
    assert f"{other} does not contain the version of {written}: it is registered again" in capsys.readouterr().out
    assert not other.exists()  # a question creates no store


@pytest.mark.parametrize("change", [{"version": 2}, {"run_id": "0" * 32}, {"name": "other"}])
def test_other_version_is_not_the_written_one(written, change):
    written.write_text(json.dumps(json.loads(written.read_text()) | change))
    assert not registered.is_registered(written)


def test_model_that_waits_for_its_registration_must_be_registered_again(written):
    written.write_text(json.dumps(json.loads(written.read_text()) | {"version": None}))
    assert not registered.is_registered(written)


def test_deleted_version_must_be_registered_again(written):
    mlflow.MlflowClient().delete_model_version(NAME, "1")
    assert not registered.is_registered(written)


def test_server_that_does_not_respond_is_no_reason_to_register(written, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as bound:  # without a listener
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{bound.getsockname()[1]}")
        assert registered.is_registered(written)
    assert "fix or start the store" in capsys.readouterr().err


def test_store_that_cannot_be_read_is_no_reason_to_register(written, tmp_path, monkeypatch, capsys):
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no database" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{damaged}")
    registered.main(written)
    assert f"{damaged} cannot be asked for the registered version: file is not a database." in capsys.readouterr().err


def test_store_without_tables_does_not_have_the_version(written, tmp_path, monkeypatch):
    (tmp_path / "empty.db").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'empty.db'}")
    assert not registered.is_registered(written)


def test_nothing_is_registered_before_the_stage_has_run(tmp_path):
    registered.main(tmp_path / "registered.json")


def test_damaged_file_is_refused(tmp_path):
    (tmp_path / "registered.json").write_text("{}")
    with pytest.raises(DataError, match=r"registered\.json is damaged"):
        registered.main(tmp_path / "registered.json")
