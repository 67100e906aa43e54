"""Both downloads against a server on this machine that plays the host, breaks off and refuses."""

import hashlib
import io
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.support.fer_files import autumn_members, drawn_faces, kaggle_members

from emotion_detection.data.downloads import download
from emotion_detection.data.formats import read_raw
from emotion_detection.errors import InputError

FACES = drawn_faces()
COMMIT = "c" * 40
HUB = "/datasets/AutumnQiu/fer2013"


class Host(ThreadingHTTPServer):
    """files: path -> bytes or a JSON tree; the first `breaks` answers of bytes end half-way.

    log: path and Range of each request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, object] = {}
        self.breaks = 0
        self.log: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.log.append((path, self.headers["Range"]))
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        content = self.server.files.get(path)
        if content is None:
            self._answer(404, b"{}", "application/json")
        elif isinstance(content, bytes):
            self._send_file(content)
        else:
            self._answer(200, json.dumps(content).encode(), "application/json")

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _send_file(self, content: bytes) -> None:
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self._answer(206 if start else 200, content[start:], "application/octet-stream", start, len(content))

    def _answer(self, status: int, body: bytes, kind: str, start: int = 0, total: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hashlib.md5(self.path.encode()).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind == "application/octet-stream" and self.server.breaks:
            self.server.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    kaggle = pytest.importorskip("kagglesdk.kaggle_env")
    with Host() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setitem(kaggle._env_to_endpoint, kaggle.KaggleEnv.PROD, server.url)
        for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_ENVIRONMENT"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))  # nobody's account is used
        yield server
        server.shutdown()


def serve_kaggle(host: Host) -> dict[str, bytes]:
    # What is fetched counts by whole MiB, so there must be some.
    members = kaggle_members(FACES) | {"README": os.urandom(4 << 20)}
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    service = "/v1/datasets.DatasetApiService"
    host.files[f"{service}/GetDataset"] = {"currentVersionNumber": 1}
    host.files[f"{service}/DownloadDataset"] = sink.getvalue()
    return members


def serve_huggingface(host: Host) -> dict[str, bytes]:
    members = autumn_members(FACES)
    everything = members | {"README.md": b"words", "train.pt": b"\x80\x02"}
    host.files[f"/api{HUB}/revision/main"] = {"id": "AutumnQiu/fer2013", "sha": COMMIT, "siblings": []}
    host.files[f"/api{HUB}/tree/{COMMIT}"] = [
        {"type": "file", "path": name, "size": len(content), "oid": f"{row:040}"}
        for row, (name, content) in enumerate(everything.items())
    ]
    for name, content in everything.items():
        host.files[f"{HUB}/resolve/{COMMIT}/{name}"] = content
    return members


SERVE = {"kaggle": serve_kaggle, "huggingface": serve_huggingface}


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("source", SERVE)
def test_what_the_host_holds_arrives(host, tmp_path, source):
    members = SERVE[source](host)
    folder = download(source, tmp_path / "download")
    assert files(folder) == members
    assert folder.is_relative_to(tmp_path / "download")
    assert len(read_raw(folder).faces) == len(FACES)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("source", SERVE)
def test_only_the_data_set_is_asked_for(host, tmp_path, source):
    """No telemetry, no version check: every request is about the data set itself."""
    SERVE[source](host)
    download(source, tmp_path / "download")
    assert {path for path, _ in host.log} <= set(host.files)
    assert len(host.log) > 1


def test_kaggle_goes_on_where_it_broke_off(host, tmp_path):
    members = serve_kaggle(host)
    host.breaks = 1
    with pytest.raises(InputError, match="run the same command again"):
        download("kaggle", tmp_path / "download")
    assert not list((tmp_path / "download").rglob("*.jpg"))
    (half,) = (len(content) for content in files(tmp_path / "download").values())
    assert half > 0
    assert files(download("kaggle", tmp_path / "download")) == members
    assert host.log[-1][1] == f"bytes={half}-"


def test_huggingface_tries_again_when_it_breaks_off(host, tmp_path):
    members = serve_huggingface(host)
    host.breaks = 1
    assert files(download("huggingface", tmp_path / "download")) == members
    assert max(host.log.count(one) for one in host.log) > 2  # HEAD, the broken GET, the whole GET


@pytest.mark.parametrize("source", SERVE)
def test_a_refusing_host_is_told_in_one_line(host, tmp_path, source):
    with pytest.raises(InputError, match=f"{source} did not deliver .*the host answered 404") as caught:
        download(source, tmp_path / "download")
    assert "\n" not in str(caught.value)
    assert len(host.log) > 0
    assert files(tmp_path / "download") == {}


@pytest.mark.parametrize("source", SERVE)
def test_an_unreachable_host_is_told_in_one_line(host, tmp_path, source):
    host.shutdown()
    host.server_close()
    with pytest.raises(InputError, match=f"{source} did not deliver .*refused.*give their path") as caught:
        download(source, tmp_path / "download")
    assert "\n" not in str(caught.value)
    assert files(tmp_path / "download") == {}


def test_a_data_set_without_parquet_is_refused(host, tmp_path):
    serve_huggingface(host)
    host.files[f"/api{HUB}/tree/{COMMIT}"] = []
    with pytest.raises(InputError, match="no parquet file"):
        download("huggingface", tmp_path / "download")


def test_the_environment_is_as_before(host, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", "mine")
    serve_kaggle(host)
    download("kaggle", tmp_path / "download")
    assert os.environ["KAGGLEHUB_CACHE"] == "mine"
