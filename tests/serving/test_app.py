"""The app: what it says about itself, who may use it, its log, and its end."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import TypeAdapter
from tests.serving.conftest import connected
from tests.support.chromium import START_MS, browser_or_skip
from tests.support.reverse_proxy import free_port, serving

from emotion_detection.errors import UsageError
from emotion_detection.serving.listening import Listening
from emotion_detection.serving.request_log import JsonFormatter
from emotion_detection.serving.tensors import InferAnswer, InferRequest
from emotion_detection.serving.tokens import VARIABLE, read_token

TOKEN = "0123456789abcdef-secret"
FACE = {"name": "faces", "shape": [1, 48, 48, 1], "datatype": "UINT8", "data": [128] * 2304}


# What it says


def test_root_names_the_model_and_every_address(client):
    about = client.get("/").json()
    assert about["model"]["name"] == "emotion-detection"
    assert about["ready"] is True
    for address in ("documentation", "open_inference_protocol", "metrics"):
        assert client.get(about[address]).status_code == 200


def test_unknown_address_and_method_are_sentences(client):
    for answer, status in ((client.get("/nothing"), 404), (client.put("/v1/recognize"), 405)):
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert client.put("/v1/recognize").headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_of_the_api_load_nothing_from_other_hosts(client, path):
    page = client.get(path).text
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert addresses
    for address in addresses:
        assert client.get(address).status_code == 200, address


@pytest.mark.slow
def test_pages_of_the_api_work_in_a_browser_without_another_host(client, photo, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(photo)
    port, foreign = free_port(), list[str]()

    def refuse(route: Any) -> None:
        foreign.append(route.request.url)
        route.abort()

    with browser_or_skip(tmp_path / "photo.jpg") as browser, serving(client.app, port, lifespan="off"):
        page = browser.new_page()
        page.set_default_timeout(START_MS)
        # A request that the policy blocks fails; another one reaches this function.
        page.route(re.compile("^https?://(?!127)"), refuse)
        page.goto(f"http://127.0.0.1:{port}/docs")
        page.locator("#operations-Pictures-recognize .opblock-summary").click()
        page.get_by_role("button", name="Try it out").click()
        page.set_input_files("input[type=file]", tmp_path / "photo.jpg")
        page.get_by_role("button", name="Execute").click()
        answer = page.locator(".live-responses-table .highlight-code").first.text_content()
        assert '"faces": 2' in (answer or "")
        page.goto(f"http://127.0.0.1:{port}/redoc")
        page.get_by_role("heading", name="Read the faces in one picture or in several").wait_for()
        page.wait_for_load_state("networkidle")
    assert foreign == []


def test_description_of_the_api_names_what_is_answered(client):
    about = client.get("/openapi.json").json()
    operations = [one for path in about["paths"].values() for one in path.values()]
    assert {tag for one in operations for tag in one["tags"]} == {"Pictures", "Open Inference Protocol (V2)", "Service"}
    assert "HTTPValidationError" not in json.dumps(about)
    assert "404" not in about["paths"]["/v1/recognize"]["post"]["responses"]
    assert "422" not in about["paths"]["/v2/models/{model}"]["get"]["responses"]
    assert client.post("/v1/recognize?faces=none").json().keys() == {"error"}
    for path in ("/v2/health/ready", "/v2/models/{model}/ready", "/v2/models/{model}/versions/{version}/ready"):
        responses = about["paths"][path]["get"]["responses"]
        assert responses["503"]["content"] == responses["200"]["content"]
    example = about["paths"]["/v2/models/{model}/infer"]["post"]["responses"]["200"]["content"]["application/json"]
    TypeAdapter(InferAnswer).validate_python(example["example"])
    schema = about["paths"]["/"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    name = schema["$ref"].rpartition("/")[2]
    assert about["components"]["schemas"][name]["properties"].keys() == client.get("/").json().keys()


def test_description_of_the_api_has_no_loose_ends(client):
    about = client.get("/openapi.json").json()
    assert set(about["paths"]) >= {"/v1/recognize", "/v2", "/v2/models/{model}/infer", "/v2/health/ready"}
    references = set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(about)))
    assert references <= set(about["components"]["schemas"])
    operations = [one for path in about["paths"].values() for one in path.values()]
    names = [one["operationId"] for one in operations]
    assert len(set(names)) == len(names)
    assert all(one["summary"] for one in operations)


def test_example_of_the_documentation_works(client):
    body = client.get("/openapi.json").json()["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]
    example = body["content"]["application/json"]["example"]
    TypeAdapter(InferRequest).validate_python(example)
    assert client.post("/v2/models/emotion-detection/infer", json=example).status_code == 200


def test_metrics_count_requests_by_the_pattern_of_their_route(client):
    client.get("/v2/models/faces")
    client.post("/v2/models/emotion-detection/infer", json={"inputs": [FACE]})
    client.get("/a/path/that/nobody/has")
    text = client.get("/metrics").text
    assert 'requests_total{route="/v2/models/{model}",status="200"}' in text
    assert 'requests_total{route="none",status="404"}' in text
    assert "nobody" not in text
    assert re.search(r'emotion_detection_faces_total{emotion="\w+"} [1-9]', text)
    assert re.search(r'emotion_detection_model_info{name="emotion-detection",sha256="\w{64}",version="\w+"} 1', text)


# Who may use it


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8000"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "attacker.example"}, 403),
        ({"origin": "https://attacker.example"}, 403),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"x-forwarded-for": "192.0.2.7"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/v2/health/ready", "/metrics", "/docs"])
def test_foreign_names_and_pages_are_refused(client, path, headers, status):
    answer = client.get(path, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]


def test_allowed_name_is_accepted():
    listening = Listening(host="0.0.0.0", port=8000, allowed_hosts=["faces.example"])
    with connected(listening=listening) as client:
        assert client.get("/v2", headers={"host": "faces.example"}).status_code == 200
        assert client.get("/v2", headers={"host": "192.0.2.7:8000"}).status_code == 200  # a probe
        assert client.get("/v2", headers={"host": "other.example"}).status_code == 403


@pytest.mark.parametrize("stripped", [True, False])
def test_service_works_under_a_path(stripped):
    listening = Listening(host="127.0.0.1", port=8000, root_path="/ai/faces")
    log: list[dict] = []
    with connected(listening=listening, log=log) as client:
        prefix = "" if stripped else "/ai/faces"
        assert client.get(f"{prefix}/v2/models/faces").status_code == 200
        page = client.get(f"{prefix}/docs").text
        assert "'/ai/faces/openapi.json'" in page
        assert log[0]["route"] == "/v2/models/{model}"


@pytest.fixture(scope="module")
def guarded():
    with connected(token=TOKEN) as client:
        yield client


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer",
        "Bearer \xff",
        "Bearer  ",
    ],
)
def test_request_without_the_token_is_refused(guarded, value):
    headers = {} if value is None else {b"authorization": value.encode("latin-1")}
    for method, path in (
        ("GET", "/v2"),
        ("GET", "/metrics"),
        ("GET", "/"),
        ("POST", "/v1/recognize"),
        ("POST", "/docs"),
    ):
        answer = guarded.request(method, path, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert TOKEN not in answer.text


def test_token_opens_the_service(guarded):
    assert guarded.get("/v2", headers={"authorization": f"bearer {TOKEN}"}).status_code == 200


def test_two_tokens_in_a_request_are_refused(guarded):
    headers = [("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer other")]
    assert guarded.get("/v2", headers=headers).status_code == 401


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"])
def test_health_and_documentation_need_no_token(guarded, path):
    assert guarded.get(path).status_code == 200


def test_documentation_names_the_token(guarded, client):
    assert guarded.get("/openapi.json").json()["security"] == [{"token": []}]
    assert "security" not in client.get("/openapi.json").json()


def test_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert read_token(None) == TOKEN
    path = tmp_path / "token"
    path.write_text("another-token-of-a-file\n")
    assert read_token(path) == "another-token-of-a-file"


@pytest.mark.parametrize("content", [b"", b"short", b"a token with spaces in it", b"\xff" * 20, None])
def test_wrong_token_file_is_named(tmp_path, content):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="token") as refused:
        read_token(path)
    assert "spaces in it" not in str(refused.value)


# The log


def test_each_request_is_one_line_without_its_path_or_its_content(photo):
    log: list[dict] = []
    with connected(token=TOKEN, log=log) as client:
        headers = {"authorization": f"Bearer {TOKEN}", "x-request-id": "abc-1"}
        answer = client.post("/v1/recognize?faces=largest", content=photo, headers=headers)
        client.get("/secret/place?token=1")
    assert answer.headers["x-request-id"] == "abc-1"
    assert [line["status"] for line in log] == [200, 401]
    assert set(log[0]) == {"time", "level", "request_id", "method", "route", "status", "ms", "bytes", "client"}
    assert (log[0]["request_id"], log[0]["route"], log[0]["bytes"]) == ("abc-1", "/v1/recognize", len(answer.content))
    text = json.dumps(log)
    assert not any(secret in text for secret in (TOKEN, "secret", "token", "largest"))


@pytest.mark.parametrize("value", ["", "a b", 'a"b', "\x1b[2J", "a" * 200, "é"])
def test_harmful_request_id_is_replaced(client, value):
    answer = client.get("/v2", headers={b"x-request-id": value.encode("latin-1")})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_message_of_a_library_is_a_line_of_json():
    import logging

    record = logging.LogRecord("uvicorn.error", logging.ERROR, "file", 1, "first\nsecond %s", ("\x1b[2J",), None)
    entry = json.loads(JsonFormatter().format(record))
    assert entry["message"] == "first second [2J"
    assert entry["level"] == "error"


# The end


def test_sigterm_drains_before_the_server_ends(monkeypatch):
    """The server's own handler gets the signal after `drain_s`; a second signal does not wait."""
    ended: list[int] = []
    handlers = {signal.SIGTERM: lambda number, _: ended.append(number)}
    monkeypatch.setattr(signal, "getsignal", handlers.__getitem__)
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    with connected(drain_s=3600) as client:
        assert client.get("/v2/health/ready").status_code == 200
        handlers[signal.SIGTERM](signal.SIGTERM, None)
        assert ended == []
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200
        answer = client.post("/v2/models/emotion-detection/infer", json={"inputs": [FACE]})
        assert answer.status_code == 200
        handlers[signal.SIGTERM](signal.SIGTERM, None)
        assert ended == [signal.SIGTERM]


def test_file_of_the_model_may_be_deleted_after_the_start(tmp_path):
    from emotion_detection.inference.pretrained import MODEL

    copy = Path(tmp_path / "model.onnx")
    copy.write_bytes(MODEL.read_bytes())
    with connected(model=str(copy)) as client:
        copy.unlink()
        assert isinstance(client, TestClient)
        answer = client.post("/v2/models/emotion-detection/infer", json={"inputs": [FACE]})
    assert answer.status_code == 200
