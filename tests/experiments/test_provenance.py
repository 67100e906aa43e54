"""The tags of a run: commit, changes, experiment and data. Unknown tags are left out."""

import hashlib
import json
import platform
import subprocess
import sys

import psutil
import pytest

from emotion_detection.experiments import registry
from emotion_detection.experiments.environment import environment, environment_differences, environment_digest
from emotion_detection.experiments.provenance import MODEL_DIGEST, command, origin, pinned_md5, provenance


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
    (repository / "recipes" / "champion").mkdir(parents=True)
    (repository / "recipes" / "champion" / "dvc.lock").write_text("schema: '2.0'\n")
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


@pytest.mark.usefixtures("repository")
def test_origin_of_a_clean_tree_has_an_empty_patch(repository):
    """A training that goes on after a commit replaces the patch and the tag of its start."""
    found = origin({}, repository)
    assert found.files.keys() == {"environment.json", "parents.json", "code/changes.patch"}
    assert found.files["code/changes.patch"] == b""
    assert found.tags["code_left_out"] == ""
    assert json.loads(found.files["parents.json"]) == []
    assert found.tags["code_tree"] == git("rev-parse", "HEAD^{tree}")
    assert provenance().items() <= found.tags.items()
    assert "parents" not in found.tags


def test_origin_of_a_changed_tree_has_a_patch_and_names_what_it_lacks(repository):
    (repository / "new.py").write_text("1\n")
    (repository / "film.bin").write_bytes(bytes(6_000_000))
    found = origin({}, repository)
    assert b"new.py" in found.files["code/changes.patch"]
    assert found.tags["code_left_out"] == "film.bin (6.0 MB)"


def test_origin_has_the_digests_of_the_parents(repository):
    (repository / "weights.npz").write_bytes(b"1")
    found = origin({"initial_weights": "weights.npz"}, repository)
    assert found.tags["parents"] == hashlib.sha256(b"1").hexdigest()
    (parent,) = json.loads(found.files["parents.json"])
    assert parent["path"] == "weights.npz"


def test_origin_outside_of_a_repository_has_no_code(folder):
    found = origin({}, folder)
    assert not {"code_tree", "code_left_out"} & found.tags.keys()
    assert "code/changes.patch" not in found.files


def test_environment_is_recorded_with_its_digest(folder):
    (folder / "requirements.lock").write_text("numpy==1\n")
    found = origin({}, folder)
    stored = json.loads(found.files["environment.json"])
    assert stored == environment(folder)
    assert stored["requirements_lock"] == hashlib.sha256(b"numpy==1\n").hexdigest()
    assert stored["packages"]["numpy"] == __import__("numpy").__version__
    assert stored["cpu_features"]
    assert found.tags["environment"] == environment_digest(stored)
    (folder / "requirements.lock").write_text("numpy==2\n")
    assert origin({}, folder).tags["environment"] != found.tags["environment"]


def test_differences_of_environments_are_named():
    then = {"python": "3.11.1", "packages": {"numpy": "1", "dvc": "3"}, "cpu_features": ["AVX2", "SSE"], "cores": 2}
    now = {"python": "3.11.2", "packages": {"numpy": "2"}, "cpu_features": ["SSE"], "cores": 2}
    assert environment_differences(then, then) == []
    assert environment_differences(then, now) == [
        "dvc was 3 and is not installed",
        "numpy was 1 and is 2",
        "python was 3.11.1 and is 3.11.2",
        "the CPUs differ in AVX2",
    ]


def test_command_is_that_of_the_dvc_process(monkeypatch):
    class Parent:
        def cmdline(self):
            return ["/somewhere/bin/python", "/somewhere/bin/dvc", "exp", "run", "-S", "train.seed=2"]

    monkeypatch.setattr(psutil.Process, "parents", lambda _: [Parent()])
    assert command() == "dvc exp run -S train.seed=2"


def test_command_of_a_queued_experiment_has_its_name(monkeypatch):
    class Parent:
        def cmdline(self):
            return ["/somewhere/bin/python", "-m", "dvc", "exp", "exec-run", "--infofile", "/somewhere/else"]

    monkeypatch.setattr(psutil.Process, "parents", lambda _: [Parent()])
    monkeypatch.setenv("DVC_EXP_NAME", "narrow")
    assert command() == "dvc exp run --queue --name narrow"


def test_command_without_dvc_is_that_of_this_process_without_secrets(monkeypatch):
    monkeypatch.setattr(psutil.Process, "parents", lambda _: [])
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/emotion-detection"])
    words = [
        "/somewhere/bin/python",
        "/somewhere/bin/emotion-detection",
        "tune",
        "--storage",
        "postgresql://me:pw1@host/db",
    ]
    monkeypatch.setattr(sys, "orig_argv", words)
    assert command() == "emotion-detection tune --storage postgresql://me:***@host/db"
    monkeypatch.setattr(sys, "orig_argv", ["/somewhere/bin/python", "-m", "emotion_detection.stages.train"])
    assert command() == "python -m emotion_detection.stages.train"


def test_tags_of_runs_and_versions_name_a_model_alike():
    assert registry.DIGEST == MODEL_DIGEST


def test_pinned_md5_is_that_of_the_data(tmp_path):
    pin = tmp_path / "data.dvc"
    pin.write_text("md5: 1111\nfrozen: true\nouts:\n- md5: 0123456789abcdef.dir\n  size: 3\n  path: data\n")
    assert pinned_md5(pin) == "0123456789abcdef.dir"
