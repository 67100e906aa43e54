"""The folder of uploaded videos: private, bounded, and emptied at the start, by time and at the end."""

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import uploads
from uploads import KEEP_S, LOCK, PARTIAL_S, PREFIX, UploadFolder

CHANGED_S = uploads._changed_s


@pytest.fixture(autouse=True)
def age_is_that_of_utime(monkeypatch):
    """os.utime makes files old for these tests, but not their st_ctime."""
    monkeypatch.setattr(uploads, "_changed_s", lambda info: info.st_mtime)


@pytest.fixture
def folder(tmp_path):
    folder = UploadFolder(tmp_path)
    yield folder
    folder.close()


def write(path: Path, *, age_s: float = 0, size: int = 10) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(bytes(size))
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_folder_is_private(folder):
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_end_deletes_everything(tmp_path):
    folder = UploadFolder(tmp_path)
    write(folder.path / "digest" / "film.mp4")
    write(folder.path / "tmp123")
    folder.close()
    assert list(tmp_path.iterdir()) == []
    folder.close()  # does no harm


def test_old_files_and_broken_off_uploads_are_swept(folder):
    kept = [
        write(folder.path / "digest" / "new.mp4", age_s=KEEP_S - 60),
        write(folder.received / "tmp-arriving", age_s=PARTIAL_S - 30),
        write(folder.path / "tmp-work", age_s=PARTIAL_S + 5),
        folder.path / LOCK,
    ]
    for name in ("digest/old.mp4", "readings-1/annotated.webm", "a/b/c/old.mp4"):
        write(folder.path / name, age_s=KEEP_S + 5)
    write(folder.received / "tmp-broken-off", age_s=PARTIAL_S + 5)
    outside = write(folder.path.parent / "outside.mp4", age_s=2 * KEEP_S)
    (folder.path / "digest" / "link").symlink_to(outside)
    os.utime(folder.path / "digest" / "link", (0, 0), follow_symlinks=False)
    folder.sweep()
    assert sorted(path for path in folder.path.rglob("*") if path.is_file()) == sorted(kept)
    assert outside.exists()
    folder.sweep(now=time.time() + 2 * KEEP_S)
    folder.sweep(now=time.time() + 4 * KEEP_S)
    assert sorted(folder.path.rglob("*")) == [folder.path / LOCK, folder.received]


def test_new_copy_of_an_old_file_is_kept(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "_changed_s", CHANGED_S)
    original = write(tmp_path / "original" / "model.onnx", age_s=2 * KEEP_S)
    copy = folder.path / "tmp-mlflow" / "model.onnx"
    shutil.copytree(original.parent, copy.parent)  # keeps the times
    folder.sweep()
    assert copy.exists()
    folder.sweep(now=time.time() + 2 * KEEP_S)
    assert not copy.exists()


def test_file_that_is_read_is_kept(folder):
    film = write(folder.received / "digest" / "film.mp4", age_s=2 * KEEP_S)
    with film.open("rb"):
        folder.sweep()
        assert film.exists()
    folder.sweep()
    assert not film.exists()


def test_folder_is_swept_while_the_demo_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "SWEEP_EVERY_S", 0.01)
    folder = UploadFolder(tmp_path)
    old = write(folder.path / "digest" / "old.mp4", age_s=KEEP_S + 5)
    end_s = time.monotonic() + 10
    while old.exists():
        assert time.monotonic() < end_s
        time.sleep(0.01)
    folder.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from uploads import UploadFolder
folder = UploadFolder(Path(sys.argv[1]))
(folder.path / "film.mp4").write_bytes(b"film")
print(folder.path, flush=True)
sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_start_deletes_the_folder_of_a_killed_demo_but_not_of_a_running_one(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(uploads.__file__).parent)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        other = Path(process.stdout.readline().strip())
        first = UploadFolder(tmp_path)
        assert (other / "film.mp4").exists()
        process.communicate("")
    assert (other / "film.mp4").exists()
    second = UploadFolder(tmp_path)
    assert not other.exists()
    assert first.path.exists()
    for folder in (first, second):
        folder.close()


def test_start_leaves_other_folders_alone(tmp_path):
    (tmp_path / f"{PREFIX}young").mkdir()  # another demo may be making it
    write(tmp_path / "target" / "film.mp4")
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "target")
    write(tmp_path / f"{PREFIX}file")
    UploadFolder(tmp_path).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["target", *(f"{PREFIX}{name}" for name in ("young", "link", "file"))]
    )
    assert (tmp_path / "target" / "film.mp4").exists()
    os.utime(tmp_path / f"{PREFIX}young", (0, 0))
    UploadFolder(tmp_path).close()
    assert not (tmp_path / f"{PREFIX}young").exists()


def test_uploads_of_one_client_are_bounded(folder, monkeypatch):
    monkeypatch.setattr(uploads, "CLIENT_BYTES", 100)
    assert folder.reserve("a", 60) is None
    reason = folder.reserve("a", 60)
    assert reason is not None
    assert "uploaded too much" in reason
    assert folder.reserve("b", 60) is None
    later = time.monotonic() + KEEP_S + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert folder.reserve("a", 60) is None


@pytest.mark.parametrize(("limit", "value"), [("FOLDER_BYTES", 100), ("FOLDER_FILES", 1), ("FREE_BYTES", 1 << 60)])
def test_folder_that_is_full_takes_no_upload(folder, monkeypatch, limit, value):
    write(folder.path / "digest" / "film.mp4", size=60)
    monkeypatch.setattr(uploads, limit, value)
    reason = folder.reserve("a", 60)
    assert reason is not None
    assert "no room" in reason
