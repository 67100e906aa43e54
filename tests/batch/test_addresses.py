"""Sources and outputs at an address: a server that fails stops the command, and secrets stay out of the output."""

import io
from importlib import import_module

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tests.support.shards import write_zip

from emotion_detection.batch import run as batch_run
from emotion_detection.batch.storage import Storage

REGISTRY = import_module("fsspec.registry")._registry  # the package has an attribute of the same name


class ServerError(Exception):
    """An error of a package that is no OSError, as in aiohttp."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def hidden_by(cause: Exception) -> FileNotFoundError:
    """What fsspec's HTTP raises, whatever happened."""
    error = FileNotFoundError("https://user:PASSWORD@host/file")
    error.__cause__ = cause
    return error


class FakeServer(MemoryFileSystem):  # type: ignore[misc]
    """A file system in memory whose methods raise the chosen errors for paths with a text."""

    protocol: str | tuple[str, ...] = "fake"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    cachable = False
    errors: dict = {}  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return ("/" + path.split("://")[-1].strip("/")).rstrip("/")

    def _fail(self, method, path):
        text, error = self.errors.get(method, ("", None))
        if error is not None and text in path:
            raise error

    def ls(self, path, detail=True, **options):
        self._fail("ls", path)
        return super().ls(path, detail=detail, **options)

    def info(self, path, **options):
        self._fail("info", path)
        return super().info(path, **options)

    def open(self, path, mode="rb", **options):
        self._fail("open", path)
        if "read" in self.errors and mode == "rb":
            return FailingStream(super().open(path, mode).read(), lambda: self._fail("read", path))
        return super().open(path, mode, **options)

    def put_file(self, local, path, **options):
        self._fail("put", path)
        super().put_file(local, path, **options)


class FailingStream(io.BytesIO):
    """Fails in a small file, and in the middle of a large one: the start and the directory of an archive are read."""

    def __init__(self, content, fail):
        super().__init__(content)
        self._fail, self._size = fail, len(content)

    def read(self, size=-1):
        if self._size < 8000 or 0 < self.tell() < self._size - 3000:
            self._fail()
        return super().read(size)


@pytest.fixture
def server(monkeypatch, pngs):
    """A server with the folder photos of ten pictures."""
    monkeypatch.setattr(FakeServer, "store", {})
    monkeypatch.setattr(FakeServer, "pseudo_dirs", [""])
    monkeypatch.setattr(FakeServer, "errors", {})
    monkeypatch.setitem(REGISTRY, "fake", FakeServer)
    for name, content in pngs.items():
        FakeServer().pipe_file(f"/photos/{name}", content)
    return FakeServer


FAILURES = {
    "listing": {"ls": ("photos/1", TimeoutError(110, "Connection timed out"))},
    "access": {"open": ("photos/1", PermissionError("ExpiredToken"))},
    "reading": {"read": ("photos/1", ServerError(503))},
    "reading with OSError": {"read": ("photos/1", OSError("connection lost"))},
    "status": {"open": ("photos/1", hidden_by(ServerError(503)))},
    "connection": {
        "open": ("photos/1", hidden_by(ConnectionError("refused"))),
        "ls": ("photos/1", ConnectionError("refused")),
    },
}


@pytest.mark.parametrize("failure", FAILURES)
def test_server_that_fails_stops_the_command_which_continues_later(
    run_batch, server, tmp_path, pngs, monkeypatch, capsys, failure
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        if failure == "connection":  # after the pictures were listed
            fail_after_begin(patch, server, FAILURES[failure])
        else:
            patch.setattr(server, "errors", FAILURES[failure])
        with pytest.raises(SystemExit) as ended:
            run_batch("fake://photos", out)
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert "cannot be used (" in error
    assert "repeat the command" in error
    assert "PASSWORD" not in error
    assert not list(out.glob("part-*"))
    assert not (out / "_SUCCESS").exists()
    rows, bad = run_batch("fake://photos", out)
    assert len(rows) == len(pngs)
    assert bad == []


def fail_after_begin(monkeypatch, server, errors):
    begin = batch_run.begin

    def begin_and_fail(*arguments):
        manifest = begin(*arguments)
        monkeypatch.setattr(server, "errors", errors)
        return manifest

    monkeypatch.setattr("emotion_detection.batch.run.begin", begin_and_fail)


@pytest.mark.parametrize("cause", [None, ServerError(404), OSError("NoSuchKey")], ids=str)
def test_picture_that_is_missing_at_an_address_is_bad(run_batch, server, tmp_path, pngs, monkeypatch, cause):
    begin = batch_run.begin

    def begin_and_remove(*arguments):
        manifest = begin(*arguments)
        server().rm("/photos/1/face-1.png")
        monkeypatch.setattr(server, "errors", {"open": ("1/face-1.png", hidden_by(cause))})
        return manifest

    monkeypatch.setattr("emotion_detection.batch.run.begin", begin_and_remove)
    rows, bad = run_batch("fake://photos", tmp_path / "out")
    assert len(rows) == len(pngs) - 1
    assert [row["source"] for row in bad] == ["1/face-1.png"]
    assert bad[0]["reason"] == "it does not exist any more: check the file"


def test_server_that_fails_within_an_archive_stops_the_command(run_batch, server, tmp_path, pngs, monkeypatch, capsys):
    archive = write_zip(tmp_path / "a.zip", {name: content + bytes(30_000) for name, content in pngs.items()})
    server().pipe_file("/shards/a.zip", archive.read_bytes())
    fail_after_begin(monkeypatch, server, {"read": ("a.zip", TimeoutError(110, "Connection timed out"))})
    with pytest.raises(SystemExit) as ended:
        run_batch("fake://shards", tmp_path / "out")
    assert ended.value.code == 1
    assert "Connection timed out" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("part-*"))


@pytest.mark.parametrize(
    ("source", "errors"),
    [
        ("fake://shards/shard-{0..2}.tar", {"info": ("shard-1", TimeoutError(110, "Connection timed out"))}),
        ("fake://pho*/*", {"ls": ("photos/1", TimeoutError(110, "Connection timed out"))}),
        ("fake://photos/*/*.png", {"ls": ("photos/1", TimeoutError(110, "Connection timed out"))}),
        ("fake://plain", {"open": ("plain/a", TimeoutError(110, "Connection timed out"))}),
    ],
)
def test_server_that_fails_is_not_taken_for_a_missing_file(
    run_batch, server, tmp_path, pngs, monkeypatch, capsys, source, errors
):
    picture = next(iter(pngs.values()))
    for name in ("shards/shard-0.tar", "shards/shard-1.tar", "shards/shard-2.tar", "plain/a", "plain/b"):
        server().pipe_file(f"/{name}", picture)
    monkeypatch.setattr(server, "errors", errors)
    with pytest.raises(SystemExit) as ended:
        run_batch(source, tmp_path / "out")
    assert ended.value.code == 1
    assert "Connection timed out" in capsys.readouterr().err


def test_signature_of_an_address_is_not_written(run_batch, tmp_path, pngs, monkeypatch):
    opened = []

    class FakeHttp(FakeServer):
        protocol = ("http", "https")

        def open(self, path, mode="rb", **options):
            if mode == "rb":
                opened.append(path)
            return super().open(path.partition("?")[0], mode, **options)

        def info(self, path, **options):
            return super().info(path.partition("?")[0], **options)

    monkeypatch.setattr(FakeServer, "store", {})
    monkeypatch.setattr(FakeServer, "pseudo_dirs", [""])
    monkeypatch.setitem(REGISTRY, "https", FakeHttp)
    FakeHttp().pipe_file("/host/a.png", next(iter(pngs.values())))
    rows, _ = run_batch("https://host/a.png?X-Amz-Signature=SECRET99", tmp_path / "out")
    assert [row["source"] for row in rows] == ["a.png"]
    assert opened
    assert all("SECRET99" in path for path in opened)
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"SECRET99" not in path.read_bytes()


def test_file_is_uploaded_under_another_name_first(server, monkeypatch):
    monkeypatch.setattr(server, "errors", {"put": ("part-0", OSError("written in place"))})
    storage = Storage("fake://out")
    for content in (b"first", b"second"):
        with storage.writing("part-0000000.parquet") as path:
            path.write_bytes(content)
    assert server().cat_file("/out/part-0000000.parquet") == b"second"
    assert server().ls("/out/_unfinished", detail=False) == []


def test_object_store_gets_a_file_under_its_name(server, monkeypatch):
    monkeypatch.setattr(server, "protocol", ("s3", "s3a"))
    with Storage("fake://out").writing("part-0000000.parquet") as path:
        path.write_bytes(b"content")
    assert server().find("/out") == ["/out/part-0000000.parquet"]


def test_upload_that_fails_leaves_no_part(run_batch, server, folder, monkeypatch, capsys):
    monkeypatch.setattr(server, "errors", {"put": ("", ServerError(507))})
    with pytest.raises(SystemExit) as ended:
        run_batch(folder, "fake://out")
    assert ended.value.code == 1
    assert "status 507" in capsys.readouterr().err
