"""An output is whole or not there; what stood there before survives every failure."""

import os

import pytest

from emotion_detection.atomic import atomic_output


def contents(folder):
    """Every file below a folder by its relative name."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write_folder(path, *names):
    path.mkdir()
    for name in names:
        (path / name).write_text("new")


def test_a_file_takes_the_place_of_a_file(tmp_path):
    path = tmp_path / "faces.npz"
    path.write_text("old")
    with atomic_output(path) as written:
        written.write_text("new")
        assert written.suffix == ".npz"  # libraries choose formats by it
        assert path.read_text() == "old"
    assert contents(tmp_path) == {"faces.npz": "new"}


def test_a_folder_takes_the_place_of_a_folder_with_all_its_files(tmp_path):
    write_folder(tmp_path / "model", "old_only", "both")
    with atomic_output(tmp_path / "model") as written:
        write_folder(written, "both", "new_only")
    assert contents(tmp_path) == {"model/both": "new", "model/new_only": "new"}


def test_missing_parents_are_made(tmp_path):
    with atomic_output(tmp_path / "a" / "b" / "file") as written:
        written.write_text("new")
    assert contents(tmp_path) == {"a/b/file": "new"}


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_file_and_no_part_of_the_new(tmp_path, error):
    def fail(path):
        with atomic_output(path) as written:
            written.write_text("half")
            raise error

    (tmp_path / "file").write_text("old")
    with pytest.raises(type(error)):
        fail(tmp_path / "file")
    assert contents(tmp_path) == {"file": "old"}


def test_a_failure_keeps_the_old_folder_and_no_part_of_the_new(tmp_path):
    def fail(path):
        with atomic_output(path) as written:
            write_folder(written, "half")
            raise OSError("no space left")

    write_folder(tmp_path / "model", "kept")
    with pytest.raises(OSError, match="no space"):
        fail(tmp_path / "model")
    assert contents(tmp_path) == {"model/kept": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_rename_keeps_the_old_and_no_part_of_the_new(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("not permitted")

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="not permitted"), atomic_output(tmp_path / "file") as written:
        written.write_text("new")
    assert contents(tmp_path) == {"file": "old"}


@pytest.mark.parametrize("leftover", ["file", "folder"])
def test_what_a_killed_process_left_does_not_get_into_the_output(tmp_path, leftover):
    with atomic_output(tmp_path / "model") as beside:
        name = beside.name
        write_folder(beside)
    if leftover == "folder":
        write_folder(tmp_path / name, "stale")
    else:
        (tmp_path / name).write_text("stale")
    with atomic_output(tmp_path / "model") as written:
        write_folder(written, "fresh")
    assert contents(tmp_path) == {"model/fresh": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_survives_a_body_that_writes_nothing(tmp_path):
    write_folder(tmp_path / "model", "kept")
    with pytest.raises(FileNotFoundError), atomic_output(tmp_path / "model"):
        pass
    assert contents(tmp_path) == {"model/kept": "new"}


def test_a_folder_survives_a_file_of_its_name(tmp_path):
    write_folder(tmp_path / "report", "kept")
    with pytest.raises(OSError, match="report"), atomic_output(tmp_path / "report") as written:
        written.write_text("a file")
    assert contents(tmp_path) == {"report/kept": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
