"""Limits of requests: with an app in this process, and with raw connections to a real server."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

import limits
from emotion_detection.serving.connections import BoundedProtocol
from limits import LimitMiddleware, Pace
from uploads import UploadFolder

PIECE = bytes(10_000)


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    monkeypatch.setattr(limits, "PHOTO_BYTES", 50_000)
    monkeypatch.setattr(limits, "VIDEO_BYTES", 100_000)
    monkeypatch.setattr(limits, "OTHER_BYTES", 20_000)


def echo_app(uploads: UploadFolder | None = None) -> FastAPI:
    """An app that answers each path with the number of bytes it got."""
    app = FastAPI()

    async def count(request: Request) -> int:
        return sum([len(chunk) async for chunk in request.stream()])

    async def parse(content: dict[str, str]) -> int:
        return len(content)

    async def ignore() -> str:
        return "not read"

    app.add_api_route("/json", parse, methods=["POST"])
    app.add_api_route("/ignore", ignore, methods=["POST"])
    for path in ("/photo", "/gradio_api/upload", "/other"):
        app.add_api_route(path, count, methods=["POST"])
    app.add_middleware(LimitMiddleware, uploads=uploads)
    return app


@pytest.fixture
def client() -> TestClient:
    return TestClient(echo_app())


def pieces(count: int) -> Iterator[bytes]:
    """A body without a declared length."""
    for _ in range(count):
        yield PIECE


@pytest.mark.parametrize(
    ("path", "limit", "what"),
    [
        ("/photo", 5, "picture"),
        ("/gradio_api/upload", 10, "video"),
        ("/gradio_api/upload/", 10, "video"),
        ("/other", 2, "request"),
    ],
)
@pytest.mark.parametrize("declared", [True, False])
def test_body_is_bounded_by_what_it_is(client, path, limit, what, declared):
    def send(count: int) -> httpx.Response:
        return client.post(path, content=PIECE * count if declared else pieces(count))

    assert send(limit).json() == limit * len(PIECE)
    refused = send(limit + 1)
    assert refused.status_code == 413
    assert what in refused.json()["error"]


def test_json_that_is_too_long_is_refused_with_the_reason(client):
    headers = {"Content-Type": "application/json"}
    assert client.post("/json", content=pieces(3), headers=headers).status_code == 413
    assert client.post("/json", content=b"[" * 19_000, headers=headers).status_code in (400, 422)


def test_prefix_of_a_proxy_does_not_change_the_limit():
    app = LimitMiddleware(echo_app())

    async def prefixed(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": "/faces", "path": f"/faces{scope['path']}"}, receive, send)

    client = TestClient(prefixed)
    assert client.post("/photo", content=PIECE * 5).status_code == 200
    assert client.post("/other", content=PIECE * 5).status_code == 413


def test_head_of_a_request_is_bounded(client):
    assert client.post("/other", headers={f"x-{number}": "1" for number in range(150)}).status_code == 431
    assert client.post("/other", headers={"x": "1" * 40_000}).status_code == 431
    assert client.post(f"/other?{'x' * 9000}").status_code == 414


def test_bodies_of_one_client_at_the_same_time_are_bounded(monkeypatch):
    monkeypatch.setattr(limits, "BODIES_PER_CLIENT", 2)
    asyncio.run(_bodies_at_the_same_time(echo_app()))


async def _bodies_at_the_same_time(app: ASGIApp) -> None:
    finish = asyncio.Event()

    async def slow_body():
        yield b"x"
        await finish.wait()

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        slow = [asyncio.create_task(client.post("/other", content=slow_body())) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert (await client.post("/other", content=b"x")).status_code == 503
        assert (await client.get("/other")).status_code == 405  # without a body
        finish.set()
        assert [reply.status_code for reply in await asyncio.gather(*slow)] == [200, 200]
        assert (await client.post("/other", content=b"x")).json() == 1


def test_client_with_very_many_requests_is_slowed_down(monkeypatch):
    monkeypatch.setattr(limits, "REQUESTS_PER_S", 10)
    monkeypatch.setattr(limits, "REQUESTS_AT_ONCE", 3)
    monkeypatch.setattr(limits, "REMEMBERED", 5)
    pace = Pace()
    assert [pace.delay_s("a", 100.0) for _ in range(5)] == pytest.approx([0, 0, 0, 0.1, 0.2])
    assert pace.delay_s("b", 100.0) == 0
    assert pace.delay_s("a", 100.4) == 0
    for number in range(20):
        pace.delay_s(f"other {number}", 200.0 + number)
    assert len(pace._used_s) <= 6


def test_upload_without_room_is_refused(tmp_path, monkeypatch):
    uploads = UploadFolder(tmp_path)
    client = TestClient(echo_app(uploads))
    assert client.post("/gradio_api/upload", content=PIECE).status_code == 200
    monkeypatch.setattr(uploads, "reserve", lambda *_: "The demo has no room.")
    refused = client.post("/gradio_api/upload", content=PIECE)
    assert (refused.status_code, refused.json()["error"]) == (507, "The demo has no room.")
    assert client.post("/photo", content=PIECE).status_code == 200
    uploads.close()


def test_failure_is_one_line_in_the_terminal_and_a_sentence_for_the_client(caplog):
    app = FastAPI()

    async def fail() -> float:
        return 1 / 0

    async def fail_socket(socket: WebSocket) -> None:
        await socket.accept()
        raise ValueError("broken\nin two lines")

    app.add_api_route("/fail", fail)
    app.add_api_websocket_route("/fail", fail_socket)
    app.add_middleware(LimitMiddleware)
    client = TestClient(app)
    answer = client.get("/fail")
    assert (answer.status_code, answer.json()["error"]) == (500, limits.FAILED)
    with client.websocket_connect("/fail") as socket, pytest.raises(WebSocketDisconnect) as closed:
        socket.receive_text()
    assert closed.value.code == limits.INTERNAL_ERROR
    assert [record.getMessage() for record in caplog.records] == [
        "GET /fail failed (ZeroDivisionError: division by zero)",
        "WebSocket /fail failed (ValueError: broken in two lines)",
    ]
    assert all(record.exc_info is None for record in caplog.records)


# Raw connections


@contextlib.contextmanager
def serving(app: ASGIApp) -> Iterator[int]:
    """The port of a server in a thread."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = uvicorn.Config(app, port=port, http=BoundedProtocol, log_level="error", proxy_headers=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def port(monkeypatch) -> Iterator[int]:
    monkeypatch.setattr(BoundedProtocol, "head_s", 0.8)
    monkeypatch.setattr(limits, "BODY_GRACE_S", 0.8)
    monkeypatch.setattr(limits, "BODY_RATE", 1_000_000)
    with serving(echo_app()) as port:
        yield port


def drip(port: int, start: bytes, piece: bytes = b"") -> bytes:
    """Send `start`, then one piece after another until the server closes the connection; returns its answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(start)
        connection.settimeout(0.05)
        answer, end_s = b"", time.monotonic() + 20
        while time.monotonic() < end_s:
            with contextlib.suppress(TimeoutError):
                try:
                    content = connection.recv(10_000)
                except ConnectionError:
                    return answer
                if not content:
                    return answer
                answer += content
            with contextlib.suppress(ConnectionError):
                connection.sendall(piece)
    raise AssertionError("the connection is still open")


POST = b"POST /%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "piece", "answer"),
    [
        (b"", b"", b""),
        (b"GET / HTTP/1.1\r\n", b"x: 1\r\n", b""),
        (b"GET /none HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /", b"x", b"404 Not Found"),
        (POST % b"other", b"x", b"408 Request Timeout"),
        (POST % b"json", b"x", b"408 Request Timeout"),
        (POST % b"ignore", b"x", b"200 OK"),
        (POST % b"none", b"x", b"404 Not Found"),
    ],
    ids=[
        "nothing",
        "slow head",
        "slow second head",
        "slow body",
        "slow JSON",
        "body that is not read",
        "unknown route",
    ],
)
def test_slow_request_is_ended(port, start, piece, answer):
    reply = drip(port, start, piece)
    assert answer in reply
    assert bool(reply) == bool(answer)


def test_connections_of_one_client_are_bounded(monkeypatch):
    monkeypatch.setattr(BoundedProtocol, "most_of_a_client", 5)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(serving(echo_app()))
        connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5)) for _ in range(8)]
        closed = 0
        for connection in connections[5:]:
            with contextlib.suppress(ConnectionError):
                assert connection.recv(1) == b""
            closed += 1
        assert closed == 3
        connections[0].sendall(b"GET /none HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert b"404" in connections[0].recv(1000)


def test_broken_off_upload_leaves_no_file_and_no_traceback(tmp_path, capfd):
    from gradio.route_utils import upload_fn

    app = FastAPI()

    async def upload(request: Request) -> int:
        files, *_ = await upload_fn(request, tmp_path, float("inf"), None)
        return len(files)

    app.add_api_route("/gradio_api/upload", upload, methods=["POST"])
    app.add_middleware(LimitMiddleware)
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n' + bytes(5000)
    head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with serving(app) as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head + b"Content-Length: 90000\r\n\r\n" + part)
            _wait_for(lambda: list(tmp_path.iterdir()))
        _wait_for(lambda: not list(tmp_path.iterdir()))
        reply = httpx.post(
            f"http://127.0.0.1:{port}/gradio_api/upload",
            content=iter([part, *[PIECE] * 20]),
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
        assert reply.status_code == 413
        assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def _wait_for(condition) -> None:
    end_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)
