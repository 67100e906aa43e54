"""Who may use the demo: the checks of Host, Origin and Sec-Fetch-Site, which stand before every route."""

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocket

from emotion_detection.errors import UsageError
from emotion_detection.serving.access import AccessMiddleware, AllowedHosts, parse_address, parse_allowed_name

OWN = "http://127.0.0.1:7860"
ROUTES = ("/", "/upload", "/static/a.js", "/no/such/route")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


def client(host: str = "127.0.0.1", allowed: tuple[str, ...] = ()) -> TestClient:
    app = FastAPI()
    app.add_api_route("/", lambda: "page", methods=["GET"])
    app.add_api_route("/upload", lambda: "saved", methods=["POST"])

    async def camera(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json("reading")

    app.add_api_websocket_route("/webcam", camera)
    app.add_middleware(AccessMiddleware, hosts=AllowedHosts(host, allowed))
    return TestClient(app, base_url=OWN)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:7860",
        "127.0.0.2",
        "localhost",
        "LocalHost:7860",
        "localhost.",
        "localhost.:7860",
        "[::1]",
        "[::1]:7860",
        "::1",
        "[0:0:0:0:0:0:0:1]:7860",
        "[::ffff:127.0.0.1]:7860",
        "[::FFFF:7f00:1]",
    ],
)
def test_every_spelling_of_this_computer_is_accepted(host):
    assert client().get("/", headers={"Host": host}).status_code == 200
    assert client("::1").get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.localhost",
        "192.0.2.7:7860",
        "0.0.0.0",
        "[::]",
        "[::ffff:192.0.2.7]",
        "127.0.0.1:7860@evil.example",
        "127.0.0.1 evil.example",
        "[::1",
        "http://[",
        "",
        "a" * 10_000,
    ],
)
@pytest.mark.parametrize("listens", ["127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.2", "0:0:0:0:0:0:0:1"])
def test_foreign_and_malformed_hosts_are_refused(host, listens):
    for path in ROUTES:
        assert client(listens).get(path, headers={"Host": host}).status_code == 403


def test_two_hosts_or_none_are_refused():
    app = AccessMiddleware(FastAPI(), AllowedHosts("127.0.0.1"))
    for hosts in ([], [b"127.0.0.1", b"127.0.0.1"], [b"127.0.0.1", b"evil.example"]):
        assert status(app, [(b"host", host) for host in hosts]) == 403


def status(app: AccessMiddleware, headers: list[tuple[bytes, bytes]]) -> int:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": headers}
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"]


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "http://127.0.0.1:81",
        "http://127.0.0.1",
        "http://localhost:7860",
        "http://127.0.0.1.evil.example:7860",
        "http://127.0.0.1:7860@evil.example",
        "http://[",
        "http://[::1",
        "file://",
        "chrome-extension://abc",
        "javascript:127.0.0.1:7860",
        "//127.0.0.1:7860",
        "127.0.0.1:7860",
        "http://127.0.0.1:x",
        "",
        "é",
        "http://127.0.0.1:7860 http://evil.example",
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_page_of_another_origin_is_refused_on_every_route(origin, method):
    for path in ROUTES:
        assert client().request(method, path, headers={"Origin": origin.encode()}).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://["])
def test_camera_of_another_origin_is_refused_with_a_reason(origin):
    headers = {"Origin": origin, "Host": "127.0.0.1:7860"}
    with pytest.raises(WebSocketDenialResponse) as refused, client().websocket_connect("/webcam", headers=headers):
        pass
    assert refused.value.status_code == 403
    assert "may not use this server" in refused.value.json()["error"]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:7860", "http://127.0.0.1:7860"),
        ("localhost:7860", "http://LOCALHOST:7860"),
        ("[::1]:7860", "http://[::1]:7860"),
        ("localhost", "http://localhost"),
        ("localhost", "http://localhost:80"),
        ("localhost", "https://localhost"),
        ("localhost:8080", "http://localhost:8080"),  # a forwarded port
    ],
)
def test_own_page_is_accepted(host, origin):
    headers = {"Host": host, "Origin": origin}
    assert client().post("/upload", headers=headers).json() == "saved"
    with client().websocket_connect("/webcam", headers=headers) as socket:
        assert socket.receive_json() == "reading"


def fetch_metadata(site: str, mode: str, target: str) -> dict[str, str]:
    return {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": target}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_website_without_an_origin_changes_nothing(site):
    for mode, target in (("navigate", "document"), ("no-cors", "empty")):
        assert client().post("/upload", headers=fetch_metadata(site, mode, target)).status_code == 403


def test_other_website_may_link_to_the_demo_but_not_embed_it():
    assert client().get("/", headers=fetch_metadata("cross-site", "navigate", "document")).status_code == 200
    for mode, target in (("navigate", "iframe"), ("no-cors", "image"), ("no-cors", "script")):
        assert client().get("/", headers=fetch_metadata("cross-site", mode, target)).status_code == 403


def test_programs_without_a_page_are_accepted():
    assert client().post("/upload").json() == "saved"
    assert client().post("/upload", headers=fetch_metadata("same-origin", "cors", "empty")).status_code == 200
    assert client().post("/upload", headers=fetch_metadata("none", "navigate", "document")).status_code == 200


def test_refusal_is_a_page_for_people_and_json_for_scripts():
    page = client().get("/", headers={"Host": "desk.example:80", "Accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert "start the server with --allowed-host desk.example<" in page.text
    answer = client().post("/upload", headers={"Host": "desk.example"}).json()
    assert answer["error"].endswith("start the server with --allowed-host desk.example")
    assert answer["error"] == answer["detail"]


def test_refusal_repeats_no_markup_and_no_long_text():
    for host in ("<script>alert(1)</script>", "x" * 5000):
        page = client().get("/", headers={"Host": host, "Accept": "text/html"})
        assert "<script>" not in page.text
        assert len(page.text) < 1000


# Proxies and port forwarding


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("faces.example.org", "https://faces.example.org"),
        ("faces.example.org:8443", "https://faces.example.org:8443"),
        ("faces.example.org", "https://faces.example.org:8443"),  # nginx's $host has no port
        ("127.0.0.1:7860", "https://faces.example.org"),  # a proxy that does not pass the name on
        ("FACES.example.org.", "https://Faces.example.org"),
    ],
)
def test_name_of_a_proxy_is_accepted_if_it_is_allowed(host, origin):
    headers = {"Host": host, "Origin": origin}
    assert client(allowed=("faces.example.org",)).post("/upload", headers=headers).json() == "saved"
    assert client().post("/upload", headers=headers).status_code == 403
    assert client(allowed=("other.example.org",)).post("/upload", headers=headers).status_code == 403


def test_forwarded_name_is_checked_like_the_host():
    headers = {"X-Forwarded-Host": "evil.example"}  # Gradio would build its links from it
    assert client().get("/", headers=headers).status_code == 403
    assert client(allowed=("evil.example",)).get("/", headers=headers).status_code == 200
    headers = {"X-Forwarded-Host": "faces.example.org:8443", "Origin": "https://faces.example.org:8443"}
    assert client(allowed=("faces.example.org",)).post("/upload", headers=headers).status_code == 200


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP"])
def test_proxy_that_hides_its_name_gets_the_reason(name):
    page = client().get("/", headers={name: "https", "Accept": "text/html"})
    assert page.status_code == 403
    assert "Start the server with --allowed-host" in page.text
    allowed = client(allowed=("faces.example.org",))
    assert "Let it send this name in Host or in X-Forwarded-Host" in allowed.get("/", headers={name: "https"}).text
    for passed_on in ("Host", "X-Forwarded-Host"):
        assert allowed.get("/", headers={name: "https", passed_on: "faces.example.org"}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_demo_of_a_network_is_reached_by_address_but_not_by_foreign_names(host, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Desk")
    for name in ("192.0.2.7:7860", "[2001:db8::7]:7860", "localhost", "desk:7860", "desk.local"):
        origin = f"http://{name}"
        assert client(host).post("/upload", headers={"Host": name, "Origin": origin}).status_code == 200
    for name in ("evil.example", "desk.evil.example"):
        assert client(host).get("/", headers={"Host": name}).status_code == 403
    assert client(host, ("evil.example",)).get("/", headers={"Host": "evil.example"}).status_code == 200


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("faces.example.org", "faces.example.org"),
        ("FACES.example.org.:8443", "faces.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("[2001:DB8::7]", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
    ],
)
def test_allowed_name_is_normalized(text, name):
    assert parse_allowed_name(text) == name


@pytest.mark.parametrize("text", ["", " ", "*", "*.example.org", "http://faces.example.org", "a/b", "a b", "ü" * 300])
def test_allowed_name_that_is_no_name_is_refused(text):
    with pytest.raises(UsageError, match="--allowed-host"):
        parse_allowed_name(text)


def test_address_without_a_name_is_malformed():
    for netloc in ("", ":80", "[]", "a:b", "a:", "a:999999", "a@b"):
        assert parse_address(netloc) is None
