"""The routes without a browser: frames over the WebSocket, photos, and their limits."""

import time

import cv2
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from tests.support.cameras import jpeg_frames, picture_file
from tests.support.onnx_files import write_linear

import routes
from fair_queue import FairQueue
from routes import FRAME_BYTES, Routes


def app_client(
    served_model, detectors, queue: FairQueue | None = None, *, faces: routes.FacesMode = "all"
) -> TestClient:
    app = FastAPI()
    app.include_router(Routes(served_model, detectors, faces=faces, queue=queue).router)
    return TestClient(app, base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def client(shipped, detector):
    with app_client(shipped, {"haar": detector}) as client:
        yield client


def ask(socket, frame: bytes) -> dict:
    socket.send_bytes(frame)
    return socket.receive_json()


# The WebSocket of the camera


def test_each_frame_is_answered_with_its_readings(client):
    with client.websocket_connect("/webcam") as socket:
        answers = [ask(socket, frame) for frame in jpeg_frames(2, count=20)]
    assert [len(answer["readings"]) for answer in answers] == [2] * 20
    assert [reading["track"] for reading in answers[-1]["readings"]] == [1, 2]
    assert (answers[0]["width"], answers[0]["height"]) == (640, 480)
    reading = answers[0]["readings"][0]
    assert set(reading) == {"box", "emotion", "confidence", "unsure", "track", "probabilities"}
    assert len(reading["box"]) == 4
    assert len(reading["probabilities"]) == 7


def test_each_socket_has_its_own_people_and_mode(client):
    one, three = jpeg_frames(1, count=3), jpeg_frames(3, count=3)
    with client.websocket_connect("/webcam") as first, client.websocket_connect("/webcam") as second:
        second.send_text('{"faces": "largest"}')
        for _ in range(2):
            assert len(ask(first, three[0])["readings"]) == 3
            assert len(ask(second, three[1])["readings"]) == 1
        second.send_text('{"faces": "all"}')
        assert len(ask(second, one[0])["readings"]) == 1
        assert client.get("/serving").json()["open"] == 2
    assert client.get("/serving").json()["open"] == 0


@pytest.mark.parametrize("text", ["no json", '{"faces": 7}', '{"faces": []}', "[]", "7", "[" * 900, '{"a":' * 180])
def test_unknown_text_is_ignored(client, text):
    with client.websocket_connect("/webcam") as socket:
        socket.send_text(text)
        assert len(ask(socket, jpeg_frames(1, count=1)[0])["readings"]) == 1


def test_damaged_frame_gets_an_error_and_the_socket_stays_open(client):
    (frame,) = jpeg_frames(1, count=1)
    with client.websocket_connect("/webcam") as socket:
        for damaged in (b"", b"text", frame[:300]):
            assert ask(socket, damaged)["error"].startswith("the camera's picture")
        assert len(ask(socket, frame)["readings"]) == 1


def test_large_frame_is_refused_before_it_is_decoded(client, monkeypatch):
    large = cv2.imencode(".jpg", np.zeros((1200, 2000), np.uint8))[1].tobytes()
    with client.websocket_connect("/webcam") as socket, monkeypatch.context() as patch:
        patch.setattr(cv2, "imdecode", lambda *_: pytest.fail("the frame was decoded"))
        answer = ask(socket, large)
    assert "megapixels" in answer["error"]


def test_flood_closes_the_socket(client):
    with client.websocket_connect("/webcam") as socket:
        socket.send_bytes(bytes(FRAME_BYTES + 1))
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    assert closed.value.code == routes.TOO_BIG


@pytest.mark.parametrize("text", ["x" * 1001, "[" * 100_000, '{"faces": "' + "a" * 2000 + '"}'])
def test_long_text_closes_the_socket(client, text):
    with client.websocket_connect("/webcam") as socket:
        socket.send_text(text)
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    assert closed.value.code == routes.TOO_BIG
    assert closed.value.reason == "The message is too long."


def test_camera_chooses_its_detector(shipped, detector):
    class Blind:
        margin = 0.0

        def detect(self, *_, **__):
            return []

    client = app_client(shipped, {"haar": detector, "yunet": Blind()})
    (frame,) = jpeg_frames(2, count=1)
    assert client.get("/detectors").json() == ["haar", "yunet"]
    with client.websocket_connect("/webcam") as socket:
        faces = [len(ask(socket, frame)["readings"])]
        for text in ('{"detector": "yunet"}', '{"detector": "none"}', '{"detector": ["haar"]}', '{"detector": "haar"}'):
            socket.send_text(text)
            faces.append(len(ask(socket, frame)["readings"]))
    assert faces == [2, 0, 0, 0, 2]


def test_cameras_of_one_client_are_bounded(client, monkeypatch):
    monkeypatch.setattr(routes, "CAMERAS_PER_CLIENT", 1)
    with client.websocket_connect("/webcam") as first:
        with client.websocket_connect("/webcam") as second, pytest.raises(WebSocketDisconnect) as closed:
            second.receive_text()
        assert closed.value.code == routes.TRY_LATER
        assert "Too many cameras" in closed.value.reason
        assert len(ask(first, jpeg_frames(1, count=1)[0])["readings"]) == 1
    with client.websocket_connect("/webcam") as third:
        assert len(ask(third, jpeg_frames(1, count=1)[0])["readings"]) == 1


def test_messages_of_a_socket_are_paced(client, monkeypatch):
    monkeypatch.setattr(routes, "MESSAGE_S", 0.05)
    with client.websocket_connect("/webcam") as socket:
        start_s = time.monotonic()
        for _ in range(5):
            socket.send_bytes(b"no picture")
        for _ in range(5):
            socket.receive_json()
    assert time.monotonic() - start_s >= 4 * 0.05


def test_camera_that_pushes_or_shows_no_face_costs_more(shipped, detector):
    weights = []

    class Queue(FairQueue):
        def submit(self, client, work, *, weight=1.0, pause=0.0):
            weights.append(weight)
            return super().submit(client, work, weight=weight, pause=pause)

    queue = Queue(1)
    client = app_client(shipped, {"haar": detector}, queue)
    (frame,) = jpeg_frames(1, count=1)
    with client.websocket_connect("/webcam") as socket:
        for content in (frame, frame, b"no picture", frame):
            ask(socket, content)
        assert weights == [1, 1, 1, routes.FACELESS]
        for _ in range(12):
            socket.send_bytes(frame)
        for _ in range(12):
            socket.receive_json()
    assert routes.PUSHING in weights[4:]
    queue.close()


# Photos


@pytest.mark.parametrize("form", ["color", "gray", "rgba", "16-bit", "rotated"])
def test_photo_of_any_form_is_read(client, form):
    answer = client.post("/photo", content=picture_file(form, people=2)).json()
    assert len(answer["readings"]) == 2, answer.get("error")
    assert answer["picture"].startswith("data:image/jpeg;base64,")
    for reading in answer["readings"]:
        assert sum(reading["probabilities"]) == pytest.approx(1, abs=1e-3)
        assert reading["face"].startswith("data:image/png;base64,")
        assert reading["heat"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    "content",
    [b"", b"just a text", picture_file("color", people=1)[:2000]],
    ids=["empty", "text", "cut short"],
)
def test_unreadable_photo_gets_one_line(client, content):
    answer = client.post("/photo", content=content).json()
    assert answer["error"].startswith("the picture")
    assert "\n" not in answer["error"]


@pytest.mark.parametrize("size", [(1, 1), (300, 400)])
def test_photo_without_a_face_has_no_readings(client, size):
    content = cv2.imencode(".png", np.full(size, 90, np.uint8))[1].tobytes()
    assert client.post("/photo", content=content).json()["readings"] == []


def test_photo_that_is_too_long_is_refused(client, monkeypatch):
    monkeypatch.setattr(routes, "PHOTO_BYTES", 1000)
    assert "larger than" in client.post("/photo", content=bytes(1001)).json()["error"]


def test_photos_of_one_client_at_the_same_time_are_bounded(client, monkeypatch):
    monkeypatch.setattr(routes, "PHOTOS_PER_CLIENT", 0)
    monkeypatch.setattr(routes, "REFUSAL_S", 0)
    refused = client.post("/photo", content=picture_file("gray", people=1))
    assert refused.status_code == 429
    assert "Too many pictures" in refused.json()["error"]


def test_large_photo_is_sent_back_scaled_down(client):
    content = cv2.imencode(".jpg", np.full((2000, 3200), 90, np.uint8))[1].tobytes()
    answer = client.post("/photo", content=content).json()
    assert (answer["width"], answer["height"]) == (3200, 2000)
    assert len(answer["picture"]) < 100_000


def test_network_without_activation_maps_reads_photos(detector, tmp_path):
    from champion import ServedModel

    client = app_client(ServedModel(str(write_linear(tmp_path / "m.onnx"))), {"haar": detector}, faces="largest")
    (reading,) = client.post("/photo", content=picture_file("gray", people=2)).json()["readings"]
    assert "heat" not in reading
    assert client.get("/faces").json() == "largest"


# The rest


def test_unknown_example_is_not_found(client):
    assert client.get("/examples/five.jpg").status_code == 404
    assert client.get("/examples/one.jpg").headers["content-type"] == "image/jpeg"


def test_served_model_is_described(client, shipped):
    state = {"source": shipped.current.source, "uri": None, "message": "", "open": 0}
    assert client.get("/serving").json() == state
