"""The app follows the registry: each answer names the version that gave it."""

import mlflow
import pytest
from tests.serving.conftest import connected
from tests.serving.test_served_model import FACES, NAME, URI, promote, versions  # noqa: F401

from emotion_detection.inference.pretrained import MODEL

INFER = "/v2/models/faces/infer"
TENSOR = {"name": "faces", "shape": [3, 48, 48, 1], "datatype": "UINT8", "data": FACES.ravel().tolist()}


@pytest.fixture
def client(versions, monkeypatch):  # noqa: ARG001, F811
    monkeypatch.setattr("emotion_detection.serving.served_model.ServedModel.follow", lambda *_, **__: None)
    with connected(model=URI) as client:
        yield client


def test_new_champion_answers_without_a_restart(client):
    service = client.app_state["service"]
    answers = []
    for number in (1, 2, 1):
        promote(number)
        service.served.update()
        answers.append(client.post(INFER, json={"inputs": [TENSOR]}).json())
    assert [answer["model_version"] for answer in answers] == ["1", "2", "1"]
    assert [answer["parameters"]["source"] for answer in answers] == [f"models:/faces/{number}" for number in (1, 2, 1)]
    assert answers[0]["outputs"] == answers[2]["outputs"] != answers[1]["outputs"]
    info = [
        line for line in client.get("/metrics").text.splitlines() if line.startswith("emotion_detection_model_info{")
    ]
    assert [line[-4:] for line in info if 'version="1"' in line] == [" 1.0"]


def test_shipped_model_answers_until_the_registry_has_a_champion(versions, monkeypatch):  # noqa: ARG001, F811
    monkeypatch.setattr("emotion_detection.serving.served_model.ServedModel.follow", lambda *_, **__: None)
    with connected(model=f"models:/{NAME}@best", first=str(MODEL)) as client:
        served = client.app_state["service"].served
        served.update()
        assert client.get("/v2/health/ready").status_code == 200
        assert served.current.source == str(MODEL)
        assert "Still serving" in served.message
        mlflow.MlflowClient().set_registered_model_alias(NAME, "best", 1)
        served.update()
        assert client.get("/").json()["model"]["version"] == "1"


def test_registry_that_does_not_respond_is_not_shown_to_clients(client, monkeypatch, caplog):
    def fail(*_):
        raise ConnectionError("the server db.example does not respond")

    monkeypatch.setattr("emotion_detection.experiments.registry.look_up", fail)
    client.app_state["service"].served.update()
    answer = client.post(INFER, json={"inputs": [TENSOR]})
    assert answer.status_code == 503
    assert "db.example" not in answer.text + client.get("/").text
    assert "db.example" in caplog.text
