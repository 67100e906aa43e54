"""Downloads from a local server that imitates the hosts, interrupts connections and returns errors."""

import errno
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
from tests.support.fer_files import huggingface_members, kaggle_members, random_faces

from emotion_detection.data.downloads import SOURCES, download
from emotion_detection.data.formats import read_raw
from emotion_detection.errors import DataError

FACES = random_faces()
COMMIT = "c" * 40
HUB = "/datasets/AutumnQiu/fer2013"


class Host(ThreadingHTTPServer):
    """Serves `files`, bytes or JSON by path; the first `interruptions` responses with bytes end halfway.

    `requests` contains the path and the Range header of each request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, object] = {}
        self.interruptions = 0
        self.requests: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.requests.append((path, self.headers["Range"]))
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
        if kind == "application/octet-stream" and self.server.interruptions:
            self.server.interruptions -= 1
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
        monkeypatch.setenv("HOME", str(tmp_path / "home"))  # do not use an account of the user
        yield server
        server.shutdown()


def serve_kaggle(host: Host) -> dict[str, bytes]:
    # The library resumes at multiples of 1 MiB, so the file must be larger.
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
    members = huggingface_members(FACES)
    files = members | {"README.md": b"words", "train.pt": b"\x80\x02"}
    host.files[f"/api{HUB}/revision/main"] = {"id": "AutumnQiu/fer2013", "sha": COMMIT, "siblings": []}
    host.files[f"/api{HUB}/tree/{COMMIT}"] = [
        {"type": "file", "path": name, "size": len(content), "oid": f"{row:040}"}
        for row, (name, content) in enumerate(files.items())
    ]
    for name, content in files.items():
        host.files[f"{HUB}/resolve/{COMMIT}/{name}"] = content
    return members


SERVE = {"kaggle": serve_kaggle, "huggingface": serve_huggingface}


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("source", SERVE)
def test_files_are_downloaded(host, tmp_path, source):
    members = SERVE[source](host)
    folder = download(source, tmp_path / "download")
    assert read_files(folder) == members
    assert folder.is_relative_to(tmp_path / "download")
    assert len(read_raw(folder).faces) == len(FACES)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("source", SERVE)
def test_only_the_data_set_is_requested(host, tmp_path, source):
    """The libraries send no telemetry and do not check their own version."""
    SERVE[source](host)
    download(source, tmp_path / "download")
    assert {path for path, _ in host.requests} <= set(host.files)
    assert len(host.requests) > 1


def test_kaggle_resumes_an_interrupted_download(host, tmp_path):
    members = serve_kaggle(host)
    host.interruptions = 1
    with pytest.raises(DataError, match="repeat the command"):
        download("kaggle", tmp_path / "download")
    assert not list((tmp_path / "download").rglob("*.jpg"))
    (half,) = (len(content) for content in read_files(tmp_path / "download").values())
    assert half > 0
    assert read_files(download("kaggle", tmp_path / "download")) == members
    assert host.requests[-1][1] == f"bytes={half}-"


def test_huggingface_retries_an_interrupted_download(host, tmp_path):
    members = serve_huggingface(host)
    host.interruptions = 1
    assert read_files(download("huggingface", tmp_path / "download")) == members
    assert max(map(host.requests.count, host.requests)) > 2  # HEAD, the interrupted GET, the complete GET


@pytest.mark.parametrize("source", SERVE)
def test_http_error_is_reported_in_one_line(host, tmp_path, source):
    with pytest.raises(DataError, match=f"cannot download .* from {source} .*the host answered 404") as error:
        download(source, tmp_path / "download")
    assert "\n" not in str(error.value)
    assert len(host.requests) > 0
    assert read_files(tmp_path / "download") == {}


@pytest.mark.parametrize("source", SERVE)
def test_unreachable_host_is_reported_in_one_line(host, tmp_path, source):
    host.shutdown()
    host.server_close()
    with pytest.raises(DataError, match=f"cannot download .* from {source} .*refused.*pass their path") as error:
        download(source, tmp_path / "download")
    assert "\n" not in str(error.value)
    assert read_files(tmp_path / "download") == {}


def test_full_disk_is_reported_with_its_remedy(tmp_path, monkeypatch):
    def fail(_: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "x"))

    monkeypatch.setitem(SOURCES, "kaggle", (fail, "the page"))
    with pytest.raises(DataError, match=r"cannot download the page, because .* \(No space left .*free some space"):
        download("kaggle", tmp_path / "download")


def test_data_set_without_parquet_is_rejected(host, tmp_path):
    serve_huggingface(host)
    host.files[f"/api{HUB}/tree/{COMMIT}"] = []
    with pytest.raises(DataError, match="no parquet file"):
        download("huggingface", tmp_path / "download")


def test_environment_is_restored(host, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", "mine")
    serve_kaggle(host)
    download("kaggle", tmp_path / "download")
    assert os.environ["KAGGLEHUB_CACHE"] == "mine"
