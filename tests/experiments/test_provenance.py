"""The tags of a run: commit, changes, experiment and data. Unknown tags are left out."""

import platform
import subprocess

import pytest

from emotion_detection.experiments.provenance import pinned_md5, provenance


def git(*arguments):
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory outside of any repository."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def repository(folder):
    git("init", "-q")
    (folder / "code.py").write_text("1\n")
    git("add", "code.py")
    git("commit", "-q", "-m", "first")
    return folder


@pytest.mark.usefixtures("repository")
def test_clean_repository_is_not_dirty():
    tags = {"git_commit": git("rev-parse", "HEAD"), "git_dirty": "false", "host": platform.node()}
    assert provenance() == {key: value for key, value in tags.items() if value}


def test_changed_file_makes_the_repository_dirty(repository):
    (repository / "code.py").write_text("2\n")
    assert provenance()["git_dirty"] == "true"


def test_changed_dvc_lock_is_ignored(repository):
    (repository / "dvc.lock").write_text("schema: '2.0'\n")
    assert provenance()["git_dirty"] == "false"


def test_new_file_makes_the_repository_dirty(repository):
    (repository / "new.py").touch()
    assert provenance()["git_dirty"] == "true"


@pytest.mark.usefixtures("folder")
def test_git_tags_are_missing_outside_of_a_repository():
    assert provenance().keys() <= {"host"}


def test_git_tags_are_missing_without_git(repository, monkeypatch):
    monkeypatch.setenv("PATH", str(repository))
    assert provenance().keys() <= {"host"}


@pytest.mark.usefixtures("repository")
def test_dvc_experiment_is_tagged(monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "upset-gulf")
    assert provenance()["dvc_experiment"] == "upset-gulf"


def test_pinned_md5_is_that_of_the_data(tmp_path):
    pin = tmp_path / "data.dvc"
    pin.write_text("md5: 1111\nfrozen: true\nouts:\n- md5: 0123456789abcdef.dir\n  size: 3\n  path: data\n")
    assert pinned_md5(pin) == "0123456789abcdef.dir"
