"""A project that was copied, moved, downloaded without .git, or put on a full or read-only disk."""

import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest
from tests.support import fer_files
from tests.support.namespaces import needs_namespaces, with_read_only, with_small_disk
from tests.support.project import Project

pytestmark = pytest.mark.timeout(600)
PREPARED = ("build/faces.npz", "build/data_report.json", "build/data/classes.png")


@pytest.fixture(scope="module")
def original(tmp_path_factory, migrated_store) -> Project:
    """A project whose data are prepared."""
    project = Project(tmp_path_factory.mktemp("original"), migrated_store)
    project.run("dvc", "repro", "prepare")
    return project


@pytest.fixture
def copied(original, tmp_path) -> Project:
    """A copy of it, made with cp -r."""
    project = object.__new__(Project)
    project.folder, project.env = tmp_path / "copy of the project", dict(original.env)
    shutil.copytree(original.folder, project.folder, symlinks=True)
    return project


def check_one_sentence(output: str) -> None:
    """The error is one line and no traceback."""
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, output
    assert "Traceback" not in output
    assert "unexpected" not in errors[0]


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in PREPARED}


def prepare(project: Project) -> list[str]:
    """The command of the prepare stage, as dvc.yaml has it."""
    paths = ("--data", "data", "--pin", "data.dvc", "--faces", PREPARED[0], "--report", PREPARED[1], "--figures")
    project.env["PYTHONPATH"] = "src"
    module = ("-m", "emotion_detection.stages.prepare", "--params", "params.yaml")
    return [sys.executable, *module, *paths, "build/data"]


def test_copied_and_moved_project_is_up_to_date(copied, original, tmp_path):
    assert copied.stale().keys() == original.stale().keys()
    project = object.__new__(Project)
    project.folder, project.env = tmp_path / "moved", copied.env
    os.rename(copied.folder, project.folder)
    assert "prepare" not in project.stale()
    assert digests(project.folder) == digests(original.folder)


def test_project_without_git_runs(copied):
    """As GitHub's "Download ZIP" gives it: README's first commands work."""
    for name in (".git", ".dvc/cache", ".dvc/tmp", "build", "data"):
        shutil.rmtree(copied.folder / name, ignore_errors=True)
    source = fer_files.write_file(copied.folder.parent / "a.csv", fer_files.csv_table(fer_files.random_faces(140)))
    copied.run(sys.executable, "-m", "emotion_detection", "data", str(source))
    copied.run("dvc", "repro", "prepare")
    assert sum(copied.read("data_report.json")["rows"].values()) == 140


def test_linked_data_folder_is_refused_before_anything_changes(copied, tmp_path):
    shutil.move(copied.folder / "data", tmp_path / "elsewhere")
    (copied.folder / "data").symlink_to(tmp_path / "elsewhere")
    before = {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()}
    source = fer_files.write_file(tmp_path / "a.csv", fer_files.csv_table(fer_files.random_faces(140)))
    command = [sys.executable, "-m", "emotion_detection", "data", str(source)]
    check_one_sentence(copied.run(*command, fails=True))
    assert {path.name: path.read_bytes() for path in (copied.folder / "data").iterdir()} == before


@needs_namespaces
@pytest.mark.parametrize("kilobytes", [40, 300])
def test_full_disk_is_one_sentence_and_keeps_the_last_good_output(copied, kilobytes):
    build = copied.folder / "build"
    size = sum(path.stat().st_size for path in build.rglob("*") if path.is_file()) // 1024
    before = digests(copied.folder)
    params = copied.folder / "params.yaml"
    params.write_text(params.read_text().replace("test_fraction: 0.1", "test_fraction: 0.2"))
    output = copied.run(*with_small_disk(build, size + kilobytes, *prepare(copied)), fails=True)
    check_one_sentence(output)
    after = copied.folder / "build.after"
    assert {name: hashlib.sha256((after / name[6:]).read_bytes()).hexdigest() for name in PREPARED} == before
    assert not list(after.rglob("*unfinished*"))


@needs_namespaces
def test_read_only_project_is_one_sentence(copied):
    output = copied.run(*with_read_only(copied.folder, *prepare(copied)), fails=True)
    check_one_sentence(output)
    predict = [sys.executable, "-m", "emotion_detection", "predict", "docs/webcam.png"]
    check_one_sentence(copied.run(*with_read_only(copied.folder, *predict, "--out", "a.csv"), fails=True))
    assert "Traceback" not in copied.run(*with_read_only(copied.folder, *predict))
