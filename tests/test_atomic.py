"""An output is complete or absent, and a failure keeps its previous content."""

import errno
import os

import pytest

from emotion_detection.atomic import atomic_output


def contents(folder):
    """The text of each file in a folder by its relative path."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write_folder(path, *names):
    path.mkdir()
    for name in names:
        (path / name).write_text("new")


def test_file_replaces_file(tmp_path):
    path = tmp_path / "faces.npz"
    path.write_text("old")
    with atomic_output(path) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".npz"  # libraries choose formats by it
        assert path.read_text() == "old"
    assert contents(tmp_path) == {"faces.npz": "new"}


def test_folder_replaces_folder_with_all_its_files(tmp_path):
    write_folder(tmp_path / "model", "old_only", "both")
    with atomic_output(tmp_path / "model") as temporary:
        write_folder(temporary, "both", "new_only")
    assert contents(tmp_path) == {"model/both": "new", "model/new_only": "new"}


def test_missing_parent_folders_are_created(tmp_path):
    with atomic_output(tmp_path / "a" / "b" / "file") as temporary:
        temporary.write_text("new")
    assert contents(tmp_path) == {"a/b/file": "new"}


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_failure_keeps_the_old_file(tmp_path, error):
    def fail(path):
        with atomic_output(path) as temporary:
            temporary.write_text("half")
            raise error

    (tmp_path / "file").write_text("old")
    with pytest.raises(type(error)):
        fail(tmp_path / "file")
    assert contents(tmp_path) == {"file": "old"}


def test_failure_keeps_the_old_folder(tmp_path):
    def fail(path):
        with atomic_output(path) as temporary:
            write_folder(temporary, "half")
            raise OSError("no space left")

    write_folder(tmp_path / "model", "kept")
    with pytest.raises(OSError, match="no space"):
        fail(tmp_path / "model")
    assert contents(tmp_path) == {"model/kept": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_failed_rename_keeps_the_old_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("not permitted")

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="not permitted"), atomic_output(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert contents(tmp_path) == {"file": "old"}


@pytest.mark.parametrize("leftover", ["file", "folder"])
def test_leftover_of_a_killed_process_is_removed(tmp_path, leftover):
    with atomic_output(tmp_path / "model") as temporary:
        name = temporary.name
        write_folder(temporary)
    if leftover == "folder":
        write_folder(tmp_path / name, "stale")
    else:
        (tmp_path / name).write_text("stale")
    with atomic_output(tmp_path / "model") as temporary:
        write_folder(temporary, "fresh")
    assert contents(tmp_path) == {"model/fresh": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_block_without_output_keeps_the_old_folder(tmp_path):
    write_folder(tmp_path / "model", "kept")
    with pytest.raises(FileNotFoundError), atomic_output(tmp_path / "model"):
        pass
    assert contents(tmp_path) == {"model/kept": "new"}


def test_file_does_not_replace_folder(tmp_path):
    write_folder(tmp_path / "report", "kept")
    with pytest.raises(OSError, match="report"), atomic_output(tmp_path / "report") as temporary:
        temporary.write_text("a file")
    assert contents(tmp_path) == {"report/kept": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_full_disk_names_the_output(tmp_path):
    with pytest.raises(OSError, match="No space left") as error, atomic_output(tmp_path / "model.onnx"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert error.value.filename == str(tmp_path / "model.onnx")


@pytest.mark.parametrize("renamed", [0, 1])
def test_failed_rename_keeps_the_old_folder(tmp_path, monkeypatch, renamed):
    replace, calls = os.replace, []

    def refuse_one(source, target):
        calls.append(source)
        if len(calls) == renamed + 1:
            raise OSError(errno.EIO, "not permitted")
        replace(source, target)

    write_folder(tmp_path / "model", "kept")
    monkeypatch.setattr(os, "replace", refuse_one)
    with pytest.raises(OSError, match="not permitted"), atomic_output(tmp_path / "model") as temporary:
        write_folder(temporary, "fresh")
    assert contents(tmp_path) == {"model/kept": "new"}


def test_folder_of_a_process_killed_while_renaming_is_restored(tmp_path):
    write_folder(tmp_path / "previous-model", "kept")
    with pytest.raises(RuntimeError), atomic_output(tmp_path / "model"):
        raise RuntimeError
    assert contents(tmp_path) == {"model/kept": "new"}


def test_output_is_flushed_before_it_is_renamed(tmp_path, monkeypatch):
    events = []

    def recorded(name):
        original = getattr(os, name)

        def call(*arguments):
            events.append(name)
            return original(*arguments)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, recorded(name))
    with atomic_output(tmp_path / "model") as temporary:
        write_folder(temporary, "a", "b")
    assert events == ["fsync", "fsync", "fsync", "replace", "fsync"]  # folder, two files; then the parent folder


def test_read_only_files_can_be_an_output(tmp_path):
    with atomic_output(tmp_path / "model.onnx") as temporary:
        temporary.write_text("new")
        temporary.chmod(0o444)
    assert contents(tmp_path) == {"model.onnx": "new"}
