"""The API of the service on the demo's server, with the demo's queue and limits."""

import threading

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.support.cameras import picture_file

import api
import limits
from emotion_detection.serving.listening import Listening
from fair_queue import FairQueue
from server import build_app

FACE = {"name": "faces", "shape": [1, 48, 48, 1], "datatype": "UINT8", "data": [128] * 2304}
LISTENING = Listening(host="127.0.0.1", port=7860)


@pytest.fixture(scope="module")
def queue():
    queue = FairQueue()
    yield queue
    queue.close()


@pytest.fixture(scope="module")
def client(shipped, detector, queue, tmp_path_factory) -> TestClient:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        app = build_app(shipped, {"haar": detector}, faces="all", listening=LISTENING, queue=queue)
    return TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


def test_demo_offers_the_api_of_the_service(client, shipped):
    photo = picture_file("color", people=2)
    answer = client.post("/v1/recognize", content=photo).json()
    assert len(answer["readings"]) == 2
    assert answer["sha256"] == shipped.current.sha256
    result = client.post("/v2/models/emotion-detection/infer", json={"inputs": [FACE]}).json()
    expected = shipped.current.classifier.probabilities(np.full((1, 48, 48), 128, np.uint8))
    np.testing.assert_allclose(result["outputs"][0]["data"], expected[0], atol=1e-6)


def test_wrong_request_is_refused_with_a_sentence(client):
    for answer, status in (
        (client.post("/v1/recognize", content=b"x"), 422),
        (client.post("/v1/recognize?faces=some", content=b"x"), 422),
        (client.post("/v2/models/faces/infer", content=b"{"), 400),
        (client.get("/v2/models/other"), 404),
        (client.get("/v2", headers={"origin": "https://attacker.example"}), 403),
    ):
        assert answer.status_code == status
        assert answer.json()["error"]


def test_body_has_the_limit_of_a_photo(client, monkeypatch):
    monkeypatch.setattr(limits, "PHOTO_BYTES", 1000)
    kind = {"content-type": "multipart/form-data; boundary=x"}
    for path, headers in (("/v1/recognize", {}), ("/v1/recognize", kind), ("/v2/models/faces/infer", {})):
        body = iter([b"--x\r\n" + bytes(900), bytes(900)])
        assert client.post(path, content=body, headers=headers).status_code == 413


@pytest.mark.parametrize(("limit", "status"), [("REQUESTS", 503), ("REQUESTS_PER_CLIENT", 429)])
def test_request_that_finds_no_place_is_told_to_come_back(client, queue, monkeypatch, limit, status):
    monkeypatch.setattr(api, limit, 1)
    started, free = threading.Event(), threading.Event()
    submit = queue.submit

    def slow(one, work, **options):
        def wait():
            started.set()
            free.wait(20)
            return work()

        return submit(one, wait, **options)

    monkeypatch.setattr(queue, "submit", slow)
    thread = threading.Thread(target=lambda: client.post("/v1/recognize", content=b"x"))
    thread.start()
    try:
        assert started.wait(20)
        answer = client.post("/v1/recognize", content=b"x")
        assert (answer.status_code, answer.headers["retry-after"]) == (status, "1")
    finally:
        free.set()
        thread.join()
