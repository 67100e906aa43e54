"""The `serve` command: its options, and a started server that a client of others uses until SIGTERM ends it."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.support.cameras import picture_file
from tests.support.certificates import write_certificate
from tests.support.reverse_proxy import free_port

from emotion_detection import cli
from emotion_detection.commands import serve
from emotion_detection.commands.serve import ServeOptions, settings_of
from emotion_detection.emotions import EMOTIONS
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.pretrained import CHAMPION, MODEL
from emotion_detection.serving.tokens import VARIABLE

FACES = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1), np.uint8)
HEAVY = ("mlflow", "tensorflow", "keras", "gradio", "pyarrow", "matplotlib")
SERVE = f"""
import sys
from emotion_detection.cli import main
main(["serve", *sys.argv[1:]])
print("heavy modules:", [name for name in {HEAVY} if name in sys.modules])
"""
# A picture that takes longer than any grace, and a body that may arrive as slowly as the machine of the tests is.
ENDLESS = f"""
import threading
from emotion_detection.commands import serve
from emotion_detection.serving import limits
from emotion_detection.serving.service import Service
serve.SHUTDOWN_S = 1
Service.read = lambda *_, **__: threading.Event().wait()
limits._Body._remaining_s = lambda _: 3600
{SERVE}
"""


# Options


@pytest.fixture(autouse=True)
def logs_as_before():
    """The command makes the logs of its process lines of JSON."""
    loggers = [logging.getLogger(name) for name in ("emotion_detection", "uvicorn", "python_multipart")]
    before = [(list(logger.handlers), logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "gone.onnx"], "gone.onnx"),
        (["--model", __file__], "cannot be loaded as an ONNX model"),
        (["--model", "gone.onnx", "--workers", "2"], "gone.onnx"),
        (["--model", "models:/a"], "models:/NAME@ALIAS"),
        (["--model", "models:/a", "--workers", "2"], "models:/NAME@ALIAS"),
        (["--shadow", "gone.onnx"], "gone.onnx"),
        (["--detector", "gone.onnx"], "gone.onnx"),
        (["--host", "192.0.2.1"], "192.0.2.1"),
        (["--host", ""], "--host is empty"),
        (["--allowed-host", "http://faces.example"], "is not a name"),
        (["--root-path", "faces"], "--root-path 'faces' is not a path"),
        (["--ssl-keyfile", "key.pem"], "--ssl-keyfile needs --ssl-certfile"),
        (["--token-file", "gone"], "gone cannot be read"),
    ],
)
def test_wrong_option_is_one_line(capfd, arguments, sentence):
    model = [] if "--model" in arguments else ["--model", str(MODEL)]
    with pytest.raises(SystemExit) as end:
        cli.main(["serve", "--port", str(free_port()), *model, *arguments])
    assert end.value.code == 1
    error = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("Serving ")]
    assert len(error) == 1
    assert error[0].startswith("error: ")
    assert sentence in error[0]


@pytest.mark.parametrize("arguments", [["--port", "0"], ["--workers", "0"], ["--max-body-mb", "-1"], ["--gpu"]])
def test_unknown_value_is_a_usage_error(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(["serve", *arguments])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_port_in_use_is_named(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit):
            cli.main(["serve", "--port", str(port), "--model", str(MODEL)])
    assert f"127.0.0.1:{port} cannot be used" in capsys.readouterr().err


def test_missing_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi_offline", None)
    with pytest.raises(SystemExit) as end:
        cli.main(["serve", "--model", str(MODEL)])
    assert end.value.code == 1
    assert "pip install '.[serve]'" in capsys.readouterr().err


def test_shipped_model_is_served_without_a_registry(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    assert settings_of(ServeOptions()).model == str(MODEL)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    settings = settings_of(ServeOptions())
    assert (settings.model, settings.first) == (CHAMPION, str(MODEL))
    assert settings_of(ServeOptions(model=CHAMPION)).first is None


def test_options_become_limits(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    options = ServeOptions(threads=3, queue=5, max_body_mb=1.5, max_megapixels=2, max_pictures=4, max_faces=6)
    limits = settings_of(options).limits
    assert (limits.threads, limits.queue, limits.pictures, limits.faces) == (3, 5, 4, 6)
    assert (limits.body_bytes, limits.pixels) == (1_500_000, 2_000_000)
    (tmp_path / "token").write_text("0123456789abcdef")
    settings = settings_of(ServeOptions(token_file=tmp_path / "token"))
    assert settings.token == "0123456789abcdef"
    assert "0123456789abcdef" not in repr(settings)


def test_sigterm_before_the_server_handles_it_ends_the_command(monkeypatch, capsys):
    def run(_):
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the signal was swallowed")

    monkeypatch.setattr("uvicorn.Server.run", run)
    before = signal.getsignal(signal.SIGTERM)
    serve.serve(ServeOptions(model=str(MODEL), port=free_port()))
    assert capsys.readouterr().err.endswith("The service has stopped.\n")
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_ends_a_command_that_still_prepares_the_server(monkeypatch):
    handlers = []

    def config(*_):
        handlers.append(signal.getsignal(signal.SIGTERM))
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "_config", config)
    serve.serve(ServeOptions(model=str(MODEL), port=free_port()))
    assert handlers == [signal.getsignal(signal.SIGTERM)]


# A server


@pytest.fixture(scope="module")
def photo() -> bytes:
    """A JPEG of two drawn people."""
    return picture_file("color", people=2)


class Started:
    """A process that serves, with what it has printed."""

    def __init__(self, folder: Path, *arguments: str, scheme: str = "http", script: str = SERVE) -> None:
        self.port = free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        flags = ["--port", str(self.port), "--model", str(MODEL), *arguments]
        self._output = (folder / "output").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *flags],
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"EMOTION_DETECTION_DEBUG": "1"},
            cwd=folder,
        )

    def wait(self, **options) -> None:
        """Wait until it is ready."""
        while True:
            assert self.process.poll() is None, self.output()
            try:
                if httpx.get(f"{self.url}/v2/health/ready", **options).status_code == 200:
                    return
            except httpx.TransportError:
                threading.Event().wait(0.05)

    def output(self) -> str:
        self._output.seek(0)
        return self._output.read()

    def is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def end(self) -> int:
        """Send SIGTERM, if it still runs, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self._output.flush()


def recognize_request(photo: bytes) -> bytes:
    """The bytes of a request to read a picture."""
    return f"POST /v1/recognize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(photo)}\r\n\r\n".encode() + photo


def receive_all(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    content = b""
    while received := connection.recv(100_000):
        content += received
    return content


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Iterator[Started]:
    server = Started(tmp_path_factory.mktemp("server"), "--drain-s", "0")
    try:
        server.wait()
        yield server
    finally:
        server.end()


@pytest.mark.slow
@pytest.mark.parametrize("sends_bytes", [True, False])
@pytest.mark.parametrize("gets_bytes", [True, False])
def test_client_of_triton_classifies_faces(started, sends_bytes, gets_bytes):
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(f"127.0.0.1:{started.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("emotion-detection")
    (version,) = client.get_model_metadata("emotion-detection")["versions"]
    faces = http.InferInput("faces", list(FACES.shape), "UINT8")
    faces.set_data_from_numpy(FACES, binary_data=sends_bytes)
    outputs = [http.InferRequestedOutput(name, binary_data=gets_bytes) for name in ("probabilities", "emotion")]
    result = client.infer("emotion-detection", [faces], model_version=version, outputs=outputs, request_id="a")
    expected = EmotionClassifier(MODEL).probabilities(FACES[..., 0])
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=1e-6)
    names = [one.decode() if isinstance(one, bytes) else one for one in result.as_numpy("emotion")]
    assert names == [EMOTIONS[row.argmax()] for row in expected]
    assert result.get_response()["id"] == "a"
    client.close()


@pytest.mark.slow
def test_client_of_triton_finds_faces_and_gets_sentences(started, photo):
    http, utils = pytest.importorskip("tritonclient.http"), pytest.importorskip("tritonclient.utils")
    client = http.InferenceServerClient(f"127.0.0.1:{started.port}")
    pictures = http.InferInput("pictures", [1], "BYTES")
    pictures.set_data_from_numpy(np.array([photo], object))
    result = client.infer("faces", [pictures])
    assert result.as_numpy("box").shape == (2, 4)
    assert result.as_numpy("picture").tolist() == [0, 0]
    pictures.set_data_from_numpy(np.array([b"no picture"], object))
    with pytest.raises(utils.InferenceServerException, match="is not a readable image"):
        client.infer("faces", [pictures])
    with pytest.raises(utils.InferenceServerException, match="There is no model 'other'"):
        client.infer("other", [pictures])
    client.close()


@pytest.mark.slow
def test_running_request_is_answered_after_sigterm(started, photo):
    """The last test of this server: it ends it."""
    request = recognize_request(photo)
    with socket.create_connection(("127.0.0.1", started.port), timeout=60) as connection:
        connection.sendall(request[:1000])
        while "requests_in_progress 2.0" not in httpx.get(f"{started.url}/metrics").text:
            threading.Event().wait(0.05)
        started.process.send_signal(signal.SIGTERM)
        while started.is_listening():
            threading.Event().wait(0.05)
        connection.sendall(request[1000:])
        answer = receive_all(connection)
    assert b" 200 " in answer.partition(b"\r\n")[0]
    assert started.end() == 0
    printed = started.output()
    assert "The service has stopped." in printed
    assert "heavy modules: []" in printed
    assert "Traceback" not in printed
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert lines[-1]["route"] == "/v1/recognize"


@pytest.mark.slow
def test_unanswered_requests_get_a_sentence_at_the_end(tmp_path, photo):
    """One is read, one waits and one is still arriving; the picture that is read does not hold the process."""
    server, request = Started(tmp_path, "--drain-s", "0", "--threads", "1", script=ENDLESS), recognize_request(photo)
    with ExitStack() as stack:
        stack.callback(server.end)
        server.wait()
        address = ("127.0.0.1", server.port)
        connections = [stack.enter_context(socket.create_connection(address, timeout=120)) for _ in range(3)]
        for connection, size in zip(connections, (len(request), len(request), 1000), strict=True):
            connection.sendall(request[:size])
        metrics = ""
        while not ("requests_in_progress 4.0" in metrics and "requests_waiting 1.0" in metrics):
            metrics = httpx.get(f"{server.url}/metrics", timeout=60).text
        server.process.send_signal(signal.SIGTERM)
        answers = [receive_all(connection) for connection in connections]
        assert server.process.wait(120) == 0
    for answer in answers:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head.lower()
        assert json.loads(body) == {"error": "The service is stopping: send the request again."}
    printed = server.output()
    assert "The service has stopped." in printed
    assert "Traceback" not in printed
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines if line.get("route") == "/v1/recognize"] == [503] * 3


@pytest.mark.slow
def test_two_workers_serve_https_and_count_together(tmp_path, photo):
    certificate, key = write_certificate(tmp_path / "tls")
    flags = ["--workers", "2", "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--drain-s", "0"]
    server = Started(tmp_path, *flags, scheme="https")
    try:
        server.wait(verify=False)
        for _ in range(4):  # each one is a connection, which either of the workers accepts
            answer = httpx.post(f"{server.url}/v1/recognize", content=photo, verify=False, timeout=60)
            assert len(answer.json()["readings"]) == 2
        counted = 'requests_total{route="/v1/recognize",status="200"} 4.0'
        while counted not in httpx.get(f"{server.url}/metrics", verify=False, timeout=60).text:
            threading.Event().wait(0.05)  # a request is counted after its answer
    finally:
        status = server.end()
    assert status == 0
    assert "Traceback" not in server.output()


def test_extras_are_imported_on_use():
    """`emotion-detection --help` works without the extra."""
    assert not hasattr(serve, "uvicorn")
