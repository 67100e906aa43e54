"""The demo as a door: raw HTTP requests, and messages on the WebSocket of the camera, to a server in this process."""

import json
import os
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.fuzz.seeds import Input, picture_bombs, pictures
from tests.support.cameras import jpeg_frames, picture_file
from tests.support.paths import PRETRAINED, ROOT

from emotion_detection.errors import UsageError

START_S = 90
ANSWER_S = 4
INCOMPLETE_S = 0.3  # a request that is not complete gets no answer
INTERNAL_ERROR, ABNORMAL = 1011, 1006  # close codes of a WebSocket
HEAD = b"\r\n\r\n"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def open_server() -> Callable[[Path], int]:
    """Start the demo as its command does; returns a function that sends a request (.http) or a message."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    sys.path.insert(0, os.environ.get("DEMO", str(ROOT / "demo")))
    from app import DemoOptions, serve

    port = _free_port()
    options = DemoOptions(model=str(PRETRAINED / "model.onnx"), port=port)
    threading.Thread(target=serve, args=[options], daemon=True).start()
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/serving", timeout=5):
            break
        time.sleep(0.2)

    def read(path: Path) -> int:
        content = path.read_bytes()
        return send_request(content, port) if path.suffix == ".http" else send_message(content, path.suffix, port)

    return read


def send_request(content: bytes, port: int) -> int:
    """Send a raw request; returns the status. Raises UsageError if it is refused or never complete."""
    head, _, body = content.partition(HEAD)
    whole = f"content-length: {len(body)}".encode() in head.lower() or b"content-length" not in head.lower()
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S if whole else INCOMPLETE_S) as connection:
        try:
            connection.sendall(content)
            answer = connection.recv(4096)
        except TimeoutError:
            if whole and HEAD in content:
                raise
            answer = b""
        except ConnectionError:  # refused while the body was sent
            answer = b""
    if not answer:
        raise UsageError("no answer")
    status = int(answer.split()[1])
    assert status < 500, f"status {status}"
    if status >= 400:
        raise UsageError(f"status {status}")
    return status


def send_message(content: bytes, suffix: str, port: int) -> int:
    """Send a text (.txt) or a picture to the camera's WebSocket; returns the number of readings."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    message = content.decode(errors="replace") if suffix == ".txt" else content
    try:
        with connect(f"ws://127.0.0.1:{port}/webcam", open_timeout=ANSWER_S, max_size=None) as camera:
            camera.send(message)
            if suffix == ".txt":  # it has no answer of its own
                camera.send(FRAME)
            answer = json.loads(camera.recv(ANSWER_S))
    except ConnectionClosed as error:
        code = error.rcvd.code if error.rcvd else ABNORMAL
        assert code not in (INTERNAL_ERROR, ABNORMAL), f"the socket was closed with {code}"
        raise UsageError(f"closed with {code}") from error
    if "error" in answer:
        raise UsageError(answer["error"])
    return len(answer["readings"])


(FRAME,) = jpeg_frames(1, count=1)


def _request(method: str, path: str, body: bytes = b"", **headers: str) -> Input:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return Input(".http", "\r\n".join(lines).encode("latin-1", "replace") + HEAD + body)


PATHS: tuple[str, ...] = (
    "/",
    "/config",
    "/serving",
    "/faces",
    "/examples/two.jpg",
    "/demo-assets/webcam.js",
    "/gradio_api/info",
)
PATHS += (
    "/gradio_api/startup-events",
    "/theme.css",
    "/gradio_api/heartbeat/x",
    "/gradio_api/queue/data?session_hash=x",
)


def requests() -> list[Input]:
    picture = picture_file("color", people=1)
    boundary, queue = "multipart/form-data; boundary=b", {"data": ["x", []], "fn_index": 1, "session_hash": "x"}
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\nabc\r\n--b--\r\n'
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
    return [
        *(_request("GET", path) for path in PATHS),
        _request("POST", "/photo", picture, Origin="http://localhost", Content_Type="image/jpeg"),
        _request("POST", "/photo", picture[:3000]),
        _request("POST", "/gradio_api/upload", part, Content_Type=boundary),
        _request("POST", "/gradio_api/queue/join", json.dumps(queue).encode(), Content_Type="application/json"),
        _request("GET", "/webcam", b"", Sec_WebSocket_Key="x3JJHMbDL1EzLkh9GBhXDw==", **upgrade),
    ]


def request_bombs() -> list[Input]:
    origins = (
        "null",
        "http://[",
        "http://evil.example",
        "http://localhost:99999999",
        "\xff",
        "http://[::1",
        "//",
        "http://",
    )
    hosts = (
        "",
        "[",
        "[::1",
        "evil.example",
        "localhost:99999999",
        "127.0.0.1:x",
        "a" * 5000,
        "localhost.",
        "LOCALHOST",
    )
    types = ("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "x" * 5000)
    deep = b'{"data": ' + b"[" * 50_000 + b"]" * 50_000 + b', "fn_index": 0, "session_hash": "x"}'
    paths: tuple[str, ...] = (
        "/" + "a" * 60_000,
        "/%00",
        "/%ff%fe",
        "/examples/..%2f..%2fapp.py.jpg",
        "/gradio_api/file=%00",
        "//",
        "/..",
    )
    paths += ("/demo-assets/..%2fapp.py", "/gradio_api/file=../../etc/passwd", "/gradio_api/proxy=http://127.0.0.1:9/x")
    many = b"GET / HTTP/1.1\r\n" + b"".join(b"x-%d: y\r\n" % number for number in range(5000)) + b"\r\n"
    raw = (
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"GET\r\n\r\n",
        many,
        b"\r\n" * 1000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    )
    chunked = b"POST /photo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc"
    queued = [b"[]", b"null", b"{}", b'{"data": null}', b'{"fn_index": 99999}', b'{"fn_index": "x", "data": {}}', deep]
    return [
        _request("GET", "/gradio_api/file=/etc/passwd", Range="bytes=0-5"),
        *(_request("POST", "/photo", FRAME, Origin=origin) for origin in origins),
        *(_request("POST", "/gradio_api/upload", b"x", Origin=origin) for origin in origins),
        *(_request("GET", "/serving", X=host) for host in hosts),
        *(Input(".http", b"GET / HTTP/1.1\r\nHost: " + host.encode() + HEAD) for host in hosts),
        *(_request(method, path) for path in paths for method in ("GET", "POST")),
        *(_request("POST", "/gradio_api/upload", b"--b", Content_Type=kind) for kind in types),
        *(
            _request("POST", path, body, Content_Type="application/json")
            for body in queued
            for path in ("/gradio_api/queue/join", "/gradio_api/run/predict")
        ),
        *(_request("POST", "/photo", bomb.content) for bomb in picture_bombs()[::3] if isinstance(bomb.content, bytes)),
        *(Input(".http", content) for content in (*raw, chunked)),
    ]


def messages() -> list[Input]:
    texts = (b'{"faces": "all"}', b'{"faces": "largest"}', b'{"detector": "haar"}')
    return [
        Input(".jpg", FRAME),
        *(Input(".txt", text) for text in texts),
        *(Input(".jpg", one.content) for one in pictures()[:6]),
    ]


def message_bombs() -> list[Input]:
    texts: tuple[bytes, ...] = (
        b"[" * 100_000,
        b'{"faces": ' * 50_000,
        b"9" * 5000,
        b'{"faces": 1e999}',
        b"null",
        b"\x00" * 1000,
        b"x" * 3_000_000,
        b'"\\ud800"',
    )
    texts += (
        b'{"faces": {"a": []}}',
        b'{"detector": "/etc/passwd"}',
        b'{"detector": 7}',
        b'{"detector": "' + b"x" * 100_000 + b'"}',
    )
    binaries = (b"", b"\x00", b"\xff\xd8", b"x" * 2_500_000, b"\xff" * 1_999_999)
    bombs = [Input(".jpg", bomb.content) for bomb in picture_bombs() if bomb.suffix and isinstance(bomb.content, bytes)]
    return [*(Input(".txt", text) for text in texts), *(Input(".bin", content) for content in binaries), *bombs]
