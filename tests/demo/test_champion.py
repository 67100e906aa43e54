"""The served model: the registry's champion, followed when its alias moves, or a file."""

import shutil
import socket
import threading
import time

import mlflow
import pytest
from tests.support.onnx_files import write_linear
from tests.support.versions import register_version

from champion import ServedModel
from emotion_detection.errors import UsageError
from emotion_detection.experiments import promotion, registry, runs
from emotion_detection.inference import pretrained


@pytest.fixture
def serve():
    """A function that makes a ServedModel. Its thread must end with the test: it works on the store of the process."""
    opened = []

    def serve(source: str | None) -> ServedModel:
        opened.append(ServedModel(source))
        return opened[-1]

    yield serve
    for served in opened:
        served.close(wait_s=60)


def create_version(*, alias: bool) -> None:
    """Create a version of the shipped model in milliseconds; with `alias`, it is the champion."""
    runs.connect()
    client = mlflow.MlflowClient()
    client.create_registered_model(pretrained.MODEL_NAME)
    client.create_model_version(pretrained.MODEL_NAME, pretrained.FOLDER.as_uri())
    if alias:
        client.set_registered_model_alias(pretrained.MODEL_NAME, pretrained.ALIAS, "1")


def test_shipped_model_is_served_until_the_registry_responds(serve):
    served = serve(None)
    assert served.current.source == str(pretrained.MODEL)
    assert served.uri == pretrained.CHAMPION
    assert "has not responded yet" in served.message


@pytest.mark.usefixtures("store")
def test_champion_is_served_and_followed(serve):
    served = serve(None)
    served.update()
    assert (served.current.source, served.message) == ("models:/emotion-detection/1", "")
    assert served.current.tags["dataset"] == "fer2013"
    number = register_version()
    served.update()
    assert served.current.source == "models:/emotion-detection/1"  # the alias has not moved
    registry.set_alias(pretrained.MODEL_NAME, pretrained.ALIAS, number)
    served.update()
    assert served.current.source == "models:/emotion-detection/2"
    versions = served.versions()
    assert [(version["version"], version["aliases"]) for version in versions] == [("2", "champion"), ("1", "")]
    served.switch("models:/emotion-detection/1")
    assert (served.uri, served.current.source) == 2 * ("models:/emotion-detection/1",)
    served.switch("models:/emotion-detection/7")
    assert "emotion-detection/7" in served.message
    assert served.message.endswith("Still serving models:/emotion-detection/1.")
    assert served.uri == "models:/emotion-detection/1"  # one person's mistake does not change the demo for all


@pytest.mark.usefixtures("store")
def test_query_is_a_single_read(serve, monkeypatch):
    create_version(alias=True)
    served, calls = serve(None), []
    served.update()
    assert served.current.source == "models:/emotion-detection/1"

    def count(name):
        original = getattr(mlflow.MlflowClient, name)

        def counted(*arguments, **settings):
            calls.append(name)
            return original(*arguments, **settings)

        monkeypatch.setattr(mlflow.MlflowClient, name, counted)

    for name in dir(mlflow.MlflowClient):
        if not name.startswith("_") and callable(getattr(mlflow.MlflowClient, name)):
            count(name)
    served.update()
    assert calls == ["get_model_version_by_alias"]
    served.versions()
    listed = len(calls)
    served.versions()
    assert len(calls) == listed  # the list is as new as the last query


@pytest.mark.usefixtures("store")
def test_store_of_a_team_is_not_written(serve, tmp_path, monkeypatch):
    database = tmp_path / "team.db"
    shutil.copy(tmp_path / "mlflow.db", database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    runs.connect()
    mlflow.MlflowClient().create_registered_model("theirs")
    served = serve(None)
    served.update()
    content = database.read_bytes()
    served.update()
    assert database.read_bytes() == content
    assert served.current.source == str(pretrained.MODEL)
    assert "run `emotion-detection seed-registry`" in served.message
    assert registry.model_names() == ["theirs"]


def test_server_is_not_written(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setattr(registry, "model_names", lambda: [])
    monkeypatch.setattr(pretrained, "seed_registry", lambda: pytest.fail("a write"))
    pretrained.seed_new_store()


@pytest.mark.usefixtures("store")
def test_interrupted_registration_of_the_shipped_model_is_completed(serve, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(promotion, "promote", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrained.seed_new_store()
    served = serve(None)
    served.update()
    assert (served.current.source, served.message) == ("models:/emotion-detection/1", "")
    registry.set_alias(pretrained.MODEL_NAME, "other", 1)
    mlflow.MlflowClient().delete_registered_model_alias(pretrained.MODEL_NAME, pretrained.ALIAS)
    pretrained.seed_new_store()  # somebody has removed the alias
    assert registry.resolve("models:/emotion-detection@other").aliases == ("other",)


@pytest.mark.usefixtures("store")
def test_removed_alias_is_not_set_again(serve):
    create_version(alias=False)
    served = serve(None)
    served.update()
    assert "seed-registry" in served.message
    assert [(version["version"], version["aliases"]) for version in served.versions()] == [("1", "")]


@pytest.mark.usefixtures("store")
def test_models_of_other_data_sets_are_listed_too(serve):
    served = serve(None)
    served.update()
    register_version("emotion-detection-sample")
    register_version("unrelated")
    served.update()
    versions = [(version["model"], version["version"]) for version in served.versions()]
    assert versions == [("emotion-detection", "1"), ("emotion-detection-sample", "1")]
    served.switch("models:/emotion-detection-sample/1")
    assert served.current.source == "models:/emotion-detection-sample/1"
    assert served.versions()[0]["model"] == "emotion-detection-sample"  # the served one comes first


def test_wrong_name_is_refused(serve):
    served = serve(None)
    for uri in ("emotion-detection", "models:/", "models:/a@b/1", "model.onnx", "models:/" + "a" * 999):
        with pytest.raises(UsageError):
            served.switch(uri)
    assert served.uri == pretrained.CHAMPION


def test_unreachable_registry_leaves_the_shipped_model(serve, monkeypatch):
    with socket.socket() as probe:  # bound but not listening
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        served = serve(None)
        served.update()
        assert served.versions() == []
    assert served.current.source == str(pretrained.MODEL)
    assert address in served.message
    assert "\n" not in served.message


def test_file_is_never_replaced(serve):
    served = serve(str(pretrained.MODEL))
    served.update()
    assert (served.uri, served.message, served.name) == (None, "", "")
    assert served.versions() == []
    assert served.current.class_activation is not None


def test_network_without_activation_maps_is_served(serve, tmp_path):
    served = serve(str(write_linear(tmp_path / "linear.onnx")))
    assert served.current.class_activation is None


def test_registry_is_queried_repeatedly_until_the_demo_ends(serve, monkeypatch):
    served, queried_twice, calls = serve(None), threading.Event(), []

    def update(_: ServedModel) -> None:
        calls.append(threading.current_thread().daemon)
        if len(calls) == 2:
            queried_twice.set()

    monkeypatch.setattr("champion.POLL_S", 0)
    monkeypatch.setattr(ServedModel, "update", update)
    served.follow()
    assert queried_twice.wait(10)
    served.close(wait_s=60)
    assert calls[:2] == [True, True]
    count = len(calls)
    time.sleep(0.1)
    assert len(calls) == count
