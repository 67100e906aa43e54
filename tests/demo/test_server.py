"""The web server: the page, its assets, and who may reach them."""

import asyncio
import socket
import time
from pathlib import Path

import gradio.queueing
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from emotion_detection.serving.listening import Listening
from page import ASSETS
from server import Server, build_app
from uploads import KEEP_S, UploadFolder


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    folder = UploadFolder(tmp_path_factory.mktemp("uploads"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder.received))  # Gradio reads it when the app is built
        yield folder
    folder.close()


@pytest.fixture(scope="module")
def client(shipped, detector, uploads):
    listening = Listening(host="127.0.0.1", port=7860)
    app = build_app(shipped, {"haar": detector}, faces="all", listening=listening, uploads=uploads)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def test_page_and_assets_are_served(client):
    page = client.get("/")
    assert page.status_code == 200
    for script in ("webcam.js", "photo.js"):
        assert f"/demo-assets/{script}" in page.text
    for asset in ASSETS.glob("*.js"):
        response = client.get(f"/demo-assets/{asset.name}")
        assert response.text == asset.read_text()
        assert "javascript" in response.headers["content-type"]


def test_every_route_is_behind_the_checks(client):
    for path in ("/", "/config", "/serving", "/faces", "/demo-assets/photo.js", "/gradio_api/startup-events"):
        assert client.get(path, headers={"Host": "localhost:7860"}).status_code == 200
        assert client.get(path, headers={"Host": "evil.example"}).status_code == 403
    for origin in ("http://evil.example", "null", "http://["):
        for path in ("/photo", "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/run/refresh", "/login"):
            assert client.post(path, headers={"Origin": origin}).status_code == 403
        preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert client.options("/gradio_api/upload", headers=preflight).status_code == 403
        with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/webcam", headers={"Origin": origin}):
            pass


def test_foreign_upload_writes_nothing(client, uploads):
    files = {"files": ("film.mp4", b"film")}
    assert client.post("/gradio_api/upload", files=files, headers={"Origin": "http://evil.example"}).status_code == 403
    assert not list(uploads.path.rglob("film.mp4"))
    (saved,) = client.post("/gradio_api/upload", files=files).json()
    assert Path(saved).is_relative_to(uploads.path)
    uploads.sweep(now=time.time() + KEEP_S + 1)
    assert not Path(saved).exists()


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 900_000,
        b'{"data":' * 100_000,
        b"[" * 400_000 + b"]" * 400_000,
        b'{"data": 1e999, "fn_index": 10000000}',
        b"\xff",
    ],
    ids=["open lists", "open objects", "deep", "infinite", "no text"],
)
def test_malformed_json_for_gradio_is_refused(client, content):
    for path in ("/gradio_api/queue/join", "/gradio_api/reset", "/gradio_api/cancel"):
        answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500


@pytest.mark.parametrize(
    "path", ["run/predict", "call/predict", "component_server", "deep_link", "proxy=http://a", "vibe-edit"]
)
def test_unused_routes_of_gradio_are_closed(client, path):
    for method in ("GET", "POST"):
        assert client.request(method, f"/gradio_api/{path}", json={"data": []}).status_code == 404


@pytest.mark.parametrize("data", [[], [1], [{"path": "/etc/passwd"}, True, "haar"], ["x", [], {}], None, "text"])
@pytest.mark.parametrize("index", [-1, 0, 1, 2, 99, None])
def test_malformed_call_of_a_function_is_no_failure_of_the_server(client, caplog, data, index):
    content = {"data": data, "fn_index": index, "session_hash": "abc"}
    answer = client.post("/gradio_api/queue/join", json=content)
    assert answer.status_code < 500
    assert all(record.exc_info is None for record in caplog.records)


@pytest.mark.usefixtures("client")
def test_failure_of_a_function_of_gradio_is_one_line(caplog, capfd):
    try:
        raise ValueError("broken\nin two lines")
    except ValueError:
        gradio.queueing.traceback.print_exc()
    assert [record.getMessage() for record in caplog.records] == ["Gradio failed (ValueError: broken in two lines)"]
    assert capfd.readouterr() == ("", "")


def test_page_behind_a_proxy_has_the_path_of_the_proxy(shipped, detector):
    listening = Listening(host="127.0.0.1", port=7860, allowed_hosts=["faces.example"], root_path="/demo/faces")
    app = build_app(shipped, {"haar": detector}, faces="all", listening=listening)
    headers = {"Host": "faces.example", "X-Forwarded-Proto": "https"}
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        for prefix in ("", "/demo/faces"):  # a proxy may strip its path
            page = client.get(f"{prefix}/", headers=headers).text
            assert '"root":"https://faces.example/demo/faces"' in page
            assert 'src=\\"/demo/faces/demo-assets/webcam.js\\"' in page
            assert client.get(f"{prefix}/demo-assets/webcam.js", headers=headers).status_code == 200
            assert client.get(f"{prefix}/serving", headers=headers).status_code == 200
            with client.websocket_connect(f"{prefix}/webcam", headers={"Host": "faces.example"}) as socket:
                socket.send_bytes(b"")
                assert "error" in socket.receive_json()


def test_address_is_announced_once_the_server_listens():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    connected = []

    def connect() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connected.append(connection.getpeername())
        server.should_exit = True

    config = uvicorn.Config(FastAPI(), host="127.0.0.1", port=port, log_level="warning")
    server = Server(config, connect)
    asyncio.run(server.serve())
    assert connected == [("127.0.0.1", port)]
