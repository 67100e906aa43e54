"""A detector is loaded when it is first used."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tests.support.cameras import jpeg_frames, picture_file

import detectors
from detectors import Detectors
from emotion_detection.errors import ModelError
from routes import Routes


@pytest.fixture
def loads(monkeypatch):
    """The names that are loaded; yunet cannot be downloaded the first time."""
    names = []

    def load(name):
        names.append(str(name))
        if str(name) == "yunet" and names.count("yunet") == 1:
            raise ModelError("YuNet cannot be downloaded")
        return object()

    monkeypatch.setattr(detectors, "load_detector", load)
    return names


def test_default_is_loaded_first_and_another_on_request(loads):
    offered = Detectors("haar")
    assert (list(offered), offered.default, "yunet" in offered, "other" in offered) == (
        ["haar", "yunet"],
        "haar",
        True,
        False,
    )
    assert offered["haar"] is offered["haar"]
    assert loads == ["haar"]
    with pytest.raises(ModelError):
        offered["yunet"]
    assert offered["yunet"] is offered["yunet"]  # a failure is not final
    assert loads == ["haar", "yunet", "yunet"]
    with pytest.raises(KeyError):
        offered["other"]


def test_file_stands_for_yunet(loads):
    offered = Detectors("folder/yunet.onnx")
    assert list(offered) == ["yunet", "haar"]
    assert offered["yunet"]
    assert loads == ["folder/yunet.onnx"]


class Blind:
    """Finds no face."""

    margin = 0.0

    def detect(self, gray, *, smallest_px=0, largest_px=0):  # noqa: ARG002
        return []


@pytest.fixture
def client(shipped, detector, monkeypatch):
    """A server whose YuNet can be loaded only the second time."""
    attempts = []

    def load(name):
        if str(name) == "haar":
            return detector
        attempts.append(name)
        if len(attempts) == 1:
            raise ModelError("YuNet cannot be downloaded")
        return Blind()

    monkeypatch.setattr(detectors, "load_detector", load)
    app = FastAPI()
    app.include_router(Routes(shipped, Detectors("haar"), faces="all").router)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def test_camera_keeps_its_detector_if_the_other_cannot_be_loaded(client):
    with client.websocket_connect("/webcam") as socket:
        socket.send_text('{"detector": "yunet"}')
        assert socket.receive_json() == {"notice": "YuNet cannot be downloaded", "detector": "haar"}
        socket.send_text('{"detector": "yunet"}')
        socket.send_bytes(jpeg_frames(1, count=1)[0])
        assert socket.receive_json()["readings"] == []


def test_photo_is_read_with_the_chosen_detector_and_faces(client):
    picture = picture_file("color", people=2)
    assert client.post("/photo?detector=yunet", content=picture).json() == {"error": "YuNet cannot be downloaded"}
    found = {
        query: len(client.post(f"/photo?{query}", content=picture).json()["readings"])
        for query in ("", "detector=haar", "faces=largest", "detector=yunet", "detector=other&faces=other")
    }
    assert found == {
        "": 2,
        "detector=haar": 2,
        "faces=largest": 1,
        "detector=yunet": 0,
        "detector=other&faces=other": 2,
    }
