"""Limits of requests: sizes, times, and how many at once; with an app in this process and with raw connections."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
from starlette.requests import ClientDisconnect
from tests.serving.conftest import connected
from tests.support.reverse_proxy import free_port, serving

from emotion_detection.errors import MediaError
from emotion_detection.serving.connections import ServiceProtocol
from emotion_detection.serving.gate import LARGE_BYTES, Gate
from emotion_detection.serving.limits import LimitMiddleware
from emotion_detection.serving.settings import Limits

PATH, INFER = "/v1/recognize", "/v2/models/emotion-detection/infer"
SMALL = Limits(threads=1, body_bytes=10_000, held_bytes=25_000, queue=1, per_client=2)
IMPATIENT = Limits(threads=1, body_grace_s=0.3, body_rate=10**9)


def pieces(count: int) -> Iterator[bytes]:
    """A body without a declared length."""
    for _ in range(count):
        yield bytes(1000)


@pytest.fixture(scope="module")
def small():
    with connected(SMALL) as client:
        yield client


@pytest.fixture(scope="module")
def port(small) -> Iterator[int]:
    """The same app behind a real server."""
    port = free_port()
    with serving(small.app, port, http=ServiceProtocol, lifespan="off"):
        yield port


@pytest.fixture(scope="module")
def impatient_port() -> Iterator[int]:
    """The port of a server that waits only a moment for a body."""
    with connected(IMPATIENT) as client:
        port = free_port()
        with serving(client.app, port, http=ServiceProtocol, lifespan="off"):
            yield port


def talk(port: int, content: bytes) -> bytes:
    """Send bytes and return what comes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(content)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while received := connection.recv(10_000):
                answer += received
        return answer


# Sizes


@pytest.mark.parametrize("path", [PATH, INFER])
@pytest.mark.parametrize("body", [lambda: bytes(20_000), lambda: pieces(20)], ids=["declared", "counted"])
def test_large_body_is_refused(small, path, body):
    answer = small.post(path, content=body())
    assert answer.status_code == 413
    assert "larger than 0.01 MB" in answer.json()["error"]


def test_declared_size_is_refused_before_the_body_arrives(port):
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\n".encode()
    assert b"413" in talk(port, head).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: 100\r\n\r\nshort", b"408"),
        (b"Content-Length: -1\r\n\r\n", b"400"),
        (b"Content-Length: many\r\n\r\n", b"400"),
        (b"Content-Length: 3\r\nContent-Length: 9\r\n\r\nabc", b"400"),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"408"),
        (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
    ],
)
@pytest.mark.parametrize("path", [PATH, INFER])
def test_body_that_lies_about_its_size_is_ended(impatient_port, path, head, status):
    answer = talk(impatient_port, f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode() + head)
    assert status in answer.partition(b"\r\n")[0]


def test_rest_of_a_longer_body_is_not_a_picture(port):
    """Bytes after the declared ones are another request, which is malformed here."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\nabMORE BYTES\r\n\r\n".encode()
    answer = talk(port, head)
    assert b"422" in answer.partition(b"\r\n")[0]
    assert answer.count(b"HTTP/1.1 ") == 2


def test_client_that_leaves_is_no_failure(port, small, caplog):
    service = small.app_state["service"]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nx".encode())
    line = f'emotion_detection_requests_total{{route="{PATH}",status="499"}}'
    while line not in service.metrics_text().decode():
        threading.Event().wait(0.01)
    assert caplog.text == ""


def test_bodies_of_all_clients_together_are_bounded(small):
    """Two requests wait with their bodies, and a third one does not fit."""
    service, reading, free = small.app_state["service"], threading.Event(), threading.Event()
    read = service.read

    def slow(*values, **names):
        reading.set()
        free.wait(20)
        return read(*values, **names)

    statuses: list[int] = []
    service.read = slow
    try:
        threads = [threading.Thread(target=lambda: statuses.append(_post(small, bytes(9_000)))) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert reading.wait(20)
        _wait_for_clients(service, 2)
        assert small.post(PATH, content=bytes(9_000)).status_code == 503
        assert small.post(PATH, content=bytes(10)).status_code in (429, 503)
        assert small.get("/v2/health/live").status_code == 200
    finally:
        free.set()
        for thread in threads:
            thread.join()
        service.read = read
    assert statuses == [422, 422]
    assert _post(small, bytes(9_000)) == 422  # the memory is free again


def test_unread_answers_hold_no_bodies():
    """The start of an answer waits for ever if the client does not read: the memory is free before."""
    starts: list[int] = []

    async def app(_scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200})

    async def receive():
        return {"type": "http.request", "body": bytes(100)}

    async def send(_):
        starts.append(limits._held)

    limits = LimitMiddleware(app, Limits(threads=1))
    scope = {"type": "http", "query_string": b"", "headers": [(b"content-length", b"100")]}
    asyncio.run(limits(scope, receive, send))
    assert (starts, limits._held) == ([0], 0)


def test_connection_of_a_client_that_does_not_read_is_closed(monkeypatch):
    monkeypatch.setattr(ServiceProtocol, "unread_s", 0.2)
    ended = threading.Event()

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        ended.set()  # the server drops what is sent after the end of the connection

    port = free_port()
    with (
        serving(app, port, http=ServiceProtocol, lifespan="off"),
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert ended.wait(60)


def test_end_waits_for_a_picture_as_long_as_it_is_told():
    """Also if nobody waits for the picture any more."""
    reading, free = threading.Event(), threading.Event()

    async def stays() -> bool:
        return False

    def read() -> None:
        reading.set()
        free.wait(60)

    async def cancel(gate: Gate) -> None:
        request = asyncio.create_task(gate.run("a", read, size=1, left=stays))
        await asyncio.to_thread(reading.wait)
        request.cancel()

    gate = Gate(Limits(threads=1))
    try:
        asyncio.run(cancel(gate))
        assert gate.close(0.1) is False
    finally:
        free.set()
    assert gate.close() is True


def test_request_of_a_client_that_has_left_is_not_read():
    async def has_left() -> bool:
        return True

    gate = Gate(Limits(threads=1))
    with pytest.raises(ClientDisconnect):
        asyncio.run(gate.run("a", lambda: pytest.fail("read"), size=1, left=has_left))
    gate.close()


def test_requests_of_clients_that_have_left_are_dropped_from_the_queue():
    port, reading, free, contents = free_port(), threading.Event(), threading.Event(), []

    def slow(_model, content, *_, **__):
        contents.append(content)
        reading.set()
        free.wait(20)
        raise MediaError("no picture")

    request = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(connected(Limits(threads=1)))
        stack.enter_context(serving(client.app, port, http=ServiceProtocol, lifespan="off"))
        service = client.app_state["service"]
        service.read = slow
        stays = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        try:
            stays.sendall(request + b"stay")
            assert reading.wait(20)
            with socket.create_connection(("127.0.0.1", port), timeout=20) as leaves:
                leaves.sendall(request + b"gone")
                _wait_for_clients(service, 2)
            # The server sees the events in their order: the end of the connection before this request.
            assert httpx.get(f"http://127.0.0.1:{port}/v2/health/live").status_code == 200
        finally:
            free.set()
        assert stays.recv(1000).startswith(b"HTTP/1.1 422")
        while f'requests_total{{route="{PATH}",status="499"}} 1.0' not in service.metrics_text().decode():
            threading.Event().wait(0.01)
    assert contents == [b"stay"]


def _post(client, content: bytes) -> int:
    return client.post(PATH, content=content).status_code


def _wait_for_clients(service, count: int) -> None:
    while service.gate._clients.total() < count:
        threading.Event().wait(0.01)


@pytest.mark.parametrize(
    ("limits", "status"), [(Limits(threads=1, queue=0), 503), (Limits(threads=1, queue=5, per_client=1), 429)]
)
def test_request_that_finds_no_place_is_told_to_come_back(limits, status):
    with connected(limits) as client:
        service, reading, free = client.app_state["service"], threading.Event(), threading.Event()

        def wait(*_, **__):
            reading.set()
            free.wait(20)

        service.read = wait
        thread = threading.Thread(target=lambda: _post(client, b"x"))
        thread.start()
        try:
            assert reading.wait(20)
            answer = client.post(PATH, content=b"x")
            assert (answer.status_code, answer.headers["retry-after"]) == (status, "1")
            assert answer.json()["error"].endswith(".")
        finally:
            free.set()
            thread.join()


def test_large_pictures_leave_a_thread_to_others():
    with connected(Limits(threads=2, body_bytes=10**7)) as client:
        service, reading, free = client.app_state["service"], threading.Event(), threading.Event()
        read, large = service.read, bytes(LARGE_BYTES + 1)

        def slow(model, content, *values, **names):
            if content == large:
                reading.set()
                free.wait(20)
            return read(model, content, *values, **names)

        service.read = slow
        threads = [threading.Thread(target=lambda: _post(client, large)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            assert reading.wait(20)
            _wait_for_clients(service, 3)
            assert _post(client, b"small") == 422
        finally:
            free.set()
            for thread in threads:
                thread.join()


# Heads


def test_long_address_and_many_headers_are_refused(client):
    assert client.get("/v2?" + "a" * 9_000).status_code == 414
    assert client.get("/v2", headers={f"x-{number}": "1" for number in range(200)}).status_code == 431


@pytest.mark.parametrize("path", ["/v2/models/%00/infer", "/v2/models/%ff%fe/infer", "/v2/models/..%2f..%2fetc/infer"])
def test_hostile_name_of_a_model_is_not_found(client, path):
    answer = client.post(path, content=json.dumps({"inputs": []}))
    assert answer.status_code == 404
    assert "\x00" not in answer.text
