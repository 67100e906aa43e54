"""What a service says about its challenger becomes evidence of a promotion."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import mlflow
import pytest

from emotion_detection.cli import main
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import UsageError
from emotion_detection.experiments import runs
from emotion_detection.serving.comparison import Comparison, read_comparison
from emotion_detection.serving.tokens import VARIABLE

COMPARISON = Comparison(
    champion="models:/faces/1",
    challenger="models:/faces/2",
    faces=4,
    agreement=0.75,
    mean_difference=0.1,
    emotions=list(EMOTIONS),
    counts=[[0] * 7] * 7,
)


@contextmanager
def answering(
    content: bytes, status: int = 200, *, location: str = ""
) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """The address of a server with one answer, and the paths and tokens that it was asked with."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def client(store) -> mlflow.MlflowClient:  # noqa: ARG001
    runs.connect()
    client = mlflow.MlflowClient()
    client.create_registered_model("faces")
    for _ in range(3):
        client.create_model_version("faces", "file:///nowhere")
    return client


def test_comparison_is_stored_with_the_promoted_version(client, capsys, monkeypatch):
    monkeypatch.setenv(VARIABLE, "0123456789abcdef-secret")
    with answering(COMPARISON.model_dump_json().encode()) as (address, asked):
        main(["promote", "models:/faces/2", "--reason", "agrees", "--shadow", f"{address}/"])
    assert asked == [("/v1/shadow", "Bearer 0123456789abcdef-secret")]
    assert "agreed with models:/faces/1 on 75.0% of 4 faces" in capsys.readouterr().out
    version = client.get_model_version_by_alias("faces", "champion")
    assert json.loads(version.tags["shadow"]) == COMPARISON.model_dump()


def test_comparison_of_another_version_is_refused(client, capsys):
    with (
        answering(COMPARISON.model_dump_json().encode()) as (address, _),
        pytest.raises(SystemExit),
    ):
        main(["promote", "models:/faces/3", "--reason", "agrees", "--shadow", address])
    assert "with models:/faces/2, and not with models:/faces/3" in capsys.readouterr().err
    assert client.get_registered_model("faces").aliases == {}


@pytest.mark.parametrize(
    ("content", "status"), [(b"no JSON", 200), (b"{}", 200), (b"{}", 404), (b"\xff" * 200_000, 200)]
)
def test_answer_that_is_no_comparison_is_refused(content, status):
    with answering(content, status) as (address, _), pytest.raises(UsageError, match="start the service with --shadow"):
        read_comparison(address)


def test_token_does_not_follow_a_redirect(monkeypatch):
    monkeypatch.setenv(VARIABLE, "0123456789abcdef-secret")
    with (
        answering(COMPARISON.model_dump_json().encode()) as (other, asked),
        answering(b"", 302, location=other) as (address, _),
        pytest.raises(UsageError, match="302"),
    ):
        read_comparison(address)
    assert asked == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://[", "http://", "https://127.0.0.1:1"])
def test_service_that_does_not_answer_is_named(address):
    with pytest.raises(UsageError, match="gives no comparison"):
        read_comparison(address)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "127.0.0.1:8000", "ftp://host"])
def test_address_of_another_kind_is_refused(address):
    with pytest.raises(UsageError, match="is not the address of a service"):
        read_comparison(address)
