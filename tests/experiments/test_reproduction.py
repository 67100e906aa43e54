"""What stands between a version and its reproduction is named before a training; models are compared exactly."""

import hashlib
import json
import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper
from tests.support.onnx_files import write_linear
from tests.support.paths import ROOT
from tests.support.repositories import commit_all, git

from emotion_detection.config import flatten, load_params
from emotion_detection.experiments import dvc_data, reproduction, runs
from emotion_detection.experiments.environment import environment
from emotion_detection.experiments.patches import code_state
from emotion_detection.experiments.recorded import plain_value
from emotion_detection.experiments.repository import git_bytes
from emotion_detection.experiments.reproduction import check_record, checkout, preflight, weight_difference


def store_in_cache(data, cache):
    """What `dvc add` does with a folder of one file; returns the MD5."""
    md5 = dvc_data.folder_md5(data)
    (file,) = data.iterdir()
    content = hashlib.md5(file.read_bytes()).hexdigest()
    listing = json.dumps([{"md5": content, "relpath": file.name}])
    for name, text in ((content, file.read_bytes()), (md5, listing.encode())):
        path = cache / "files" / "md5" / name[:2] / name[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    return md5


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A committed project with data in DVC's cache, and the record of a run in it."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "faces.csv").write_text("emotion,pixels\n0,1\n")
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "requirements.lock").write_text(
        f"numpy=={np.__version__}\nnot-installed==1.0\nnumpy==0.1 ; python_version < '3'\n"
    )
    (folder / "weights.npz").write_bytes(b"1")
    (folder / ".gitignore").write_text("/data\n/cache\nuntracked.npz\n")
    commit_all(folder)
    monkeypatch.setattr(dvc_data, "cache_folder", lambda project: project / "cache")
    monkeypatch.setattr(dvc_data, "has_remote", lambda _: False)
    return folder


@pytest.fixture
def record(project):
    settings = load_params(project / "params.yaml").model_dump(include={"prepare", "train"})
    return {
        "code": {"commit": git(project, "rev-parse", "HEAD"), "is_here": True, "dirty": False, "left_out": []},
        "run": {"id": None},
        "release": None,
        "data": {"dvc_md5": store_in_cache(project / "data", project / "cache")},
        "params": {key: plain_value(str(value)) for key, value in flatten(settings).items()},
        "parents": [
            {
                "kind": "initial_weights",
                "path": "weights.npz",
                "sha256": hashlib.sha256(b"1").hexdigest(),
                "made_by": [],
            }
        ],
        "environment": environment(project),
    }


def patch_of(project) -> bytes:
    state = code_state(project)
    assert state is not None
    return state.patch


def findings(record, project):
    """The findings of a checkout as (subject, blocks, text)."""
    with checkout(record, project) as folder:
        return [(one.subject, one.blocks, one.text) for one in preflight(record, folder, project)]


def test_complete_record_has_no_findings(record, project):
    assert check_record(record, project) == []
    assert findings(record, project) == []


def test_shipped_model_is_made_again_where_its_training_is_known(record, project, monkeypatch):
    monkeypatch.setattr(reproduction, "read_bytes", lambda *_: None)
    release = {"run_id": "a" * 32, "recipe": "recipes/some.yaml"}
    assert check_record(record | {"release": release, "run": {"id": "a" * 32}}, project) == []
    for run in (None, {"id": "b" * 32}):  # the shipped file without a registry, or as the first champion of one
        (finding,) = check_record(record | {"release": release, "run": run}, project)
        assert finding.blocks
        assert "train with its recipe, recipes/some.yaml" in finding.text


def test_checkout_is_removed_at_the_end_and_after_an_error(record, project):
    def fail():
        with checkout(record, project) as folder:
            places.append(folder)
            raise ValueError

    places: list[Path] = []
    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert not places[0].exists()
    assert git(project, "worktree", "list").count("\n") == 0


def test_checkout_leaves_other_worktrees_alone(record, project, tmp_path):
    """Also one whose folder is absent, as that of a disk that is not mounted."""
    git(project, "worktree", "add", "--detach", str(tmp_path / "other"))
    (tmp_path / "other").rename(tmp_path / "unmounted")
    with checkout(record, project):
        pass
    assert str(tmp_path / "other") in git(project, "worktree", "list")


def test_checkout_runs_no_hook(record, project, tmp_path):
    hook = project / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\n")
    hook.chmod(0o755)
    with checkout(record, project) as folder:
        assert folder.is_dir()
    assert not (tmp_path / "ran").exists()


def test_worktree_is_removed_if_a_signal_arrives_while_it_is_made(record, project, monkeypatch):
    def interrupted(*arguments, **options):
        git_bytes(*arguments, **options)
        if "add" in arguments:
            raise KeyboardInterrupt

    monkeypatch.setattr(reproduction, "git_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt), checkout(record, project):
        pass
    assert git(project, "worktree", "list").count("\n") == 0


def test_checkout_of_a_killed_process_is_removed_and_one_in_use_is_not(record, project, tmp_path):
    abandoned = tmp_path / "reproduce-1" / "project"
    git(project, "worktree", "add", "--detach", str(abandoned))
    (abandoned.parent / "reproduce.lock").touch()
    own = tmp_path / "reproduce-2" / "project"  # of the user
    git(project, "worktree", "add", "--detach", str(own))
    with checkout(record, project) as first, checkout(record, project):
        assert first.is_dir()
        assert not abandoned.parent.exists()
    assert own.is_dir()
    assert git(project, "worktree", "list").count("\n") == 1


def test_checkout_has_the_changes_of_the_run(record, project, monkeypatch):
    (project / "new.py").write_text("new\n")
    patch = patch_of(project)
    (project / "new.py").unlink()
    monkeypatch.setattr(reproduction, "read_bytes", lambda *_: patch)
    with checkout(record, project) as folder:
        assert (folder / "new.py").read_text() == "new\n"


def test_checkout_with_another_tree_is_named(record, project):
    record["code"]["tree"] = git(project, "rev-parse", "HEAD^{tree}")
    assert findings(record, project) == []
    record["code"]["tree"] = "1" * 40
    ((subject, blocks, text),) = findings(record, project)
    assert (subject, blocks) == ("code", False)
    assert text.endswith("instead of " + "1" * 40)


def test_changed_byte_of_the_data_is_named(record, project):
    (project / "data" / "faces.csv").write_text("emotion,pixels\n1,1\n")
    ((subject, blocks, text),) = findings(record, project)
    assert (subject, blocks) == ("data", False)
    assert "faces.csv has another content" in text


def test_changed_label_of_the_data_is_named(record, project):
    (project / "data" / "faces.csv").write_text("emotion,pixels\n1,1\n")
    seen: list[str] = []

    def describe(before, after):
        seen.extend((folder / "faces.csv").read_text() for folder in (before, after))
        return "1 label has changed"

    with checkout(record, project) as folder:
        (finding,) = preflight(record, folder, project, describe=describe)
    assert "faces.csv has another content: 1 label has changed); the recorded data is used" in finding.text
    assert seen == ["emotion,pixels\n0,1\n", "emotion,pixels\n1,1\n"]


def test_damaged_cache_is_replaced_by_the_data(record, project):
    content = hashlib.md5((project / "data" / "faces.csv").read_bytes()).hexdigest()
    (project / "cache" / "files" / "md5" / content[:2] / content[2:]).write_text("damaged")
    ((subject, blocks, text),) = findings(record, project)
    assert (subject, blocks) == ("data", False)
    assert "faces.csv" in text
    assert "is damaged" in text
    assert text.endswith("data is used instead")


def test_lost_data_blocks_unless_there_is_a_remote(record, project, monkeypatch):
    shutil.rmtree(project / "cache")
    shutil.rmtree(project / "data")
    ((subject, blocks, text),) = findings(record, project)
    assert (subject, blocks) == ("data", True)
    assert "add a DVC remote" in text
    monkeypatch.setattr(dvc_data, "has_remote", lambda _: True)
    assert [one[1] for one in findings(record, project)] == [False]


def test_param_that_differs_from_the_run_blocks(record, project):
    tree = yaml.safe_load((project / "params.yaml").read_text())
    tree["train"]["epochs"] = 7
    (project / "params.yaml").write_text(yaml.safe_dump(tree))
    record["code"]["commit"] = commit_all(project)
    ((subject, blocks, text),) = findings(record, project)
    assert (subject, blocks) == ("params", True)
    assert text.endswith("train.epochs was 30 and is 7")


def test_param_that_was_changed_after_the_training_is_named(record, project):
    tree = yaml.safe_load((project / "params.yaml").read_text())
    tree["train"]["epochs"] = 7
    (project / "params.yaml").write_text(yaml.safe_dump(tree))
    ((subject, blocks, text),) = findings(record, project)
    assert (subject, blocks) == ("params", False)
    assert "train.epochs was 30 and is 7" in text


def test_settings_of_an_earlier_version_are_compared(record, project):
    """params.yaml had other keys then, and other sections."""
    text = (project / "params.yaml").read_text().replace(
        "  learning_rate: 0.1\n", "  learning_rate: 1e-1\n"
    ) + "old: {alias: champion}\n"
    (project / "params.yaml").write_text(text)
    record["code"]["commit"] = commit_all(project)
    assert "1e-1" in text
    assert findings(record, project) == []
    record["params"] = {"train.start": None, "train.learning_rate": 0.1}
    ((subject, blocks, text),) = findings(record, project)
    assert (subject, blocks) == ("params", True)
    assert text.endswith("train.start was None and is missing")


@pytest.mark.parametrize("text", ["[1]", "train: 1", "{"])
def test_damaged_params_of_a_commit_are_named(record, project, text):
    (project / "params.yaml").write_text(text)
    record["code"]["commit"] = commit_all(project)
    assert [one[0] for one in findings(record, project)] == ["params"]


@pytest.mark.parametrize("content", [b"2", None])
def test_changed_or_missing_parent_blocks(record, project, content):
    (project / "weights.npz").unlink()
    if content:
        (project / "weights.npz").write_bytes(content)
    record["code"]["commit"] = commit_all(project)
    ((subject, blocks, text),) = findings(record, project)
    assert (subject, blocks) == ("parents", True)
    assert "weights.npz" in text


def test_parent_that_git_does_not_track_is_copied(record, project):
    (project / "untracked.npz").write_bytes(b"1")
    record["parents"][0]["path"] = "untracked.npz"
    with checkout(record, project) as folder:
        assert preflight(record, folder, project) == []
        assert (folder / "untracked.npz").read_bytes() == b"1"


@pytest.mark.parametrize("path", ["../outside.npz", "ABSOLUTE", 5, None, "a\0b", "link/outside.npz"])
def test_path_outside_of_the_project_blocks_and_is_not_written(record, project, tmp_path, path):
    (project / "link").symlink_to(tmp_path)
    record["code"]["commit"] = commit_all(project)
    (tmp_path / "outside.npz").write_bytes(b"1")
    record["parents"][0]["path"] = str(tmp_path / "outside.npz") if path == "ABSOLUTE" else path
    with checkout(record, project) as folder:
        (finding,) = preflight(record, folder, project)
        assert not (folder.parent / "outside.npz").exists()
    assert (finding.subject, finding.blocks) == ("parents", True)
    assert "is no file of the project" in finding.text


def test_other_version_of_a_library_is_named(record, project):
    (project / "requirements.lock").write_text("numpy==0.1\n")
    record["code"]["commit"] = commit_all(project)
    record["environment"] = None
    found = findings(record, project)
    assert [one[:2] for one in found] == [("libraries", False), ("machine", False)]
    assert f"numpy {np.__version__} (not ==0.1)" in found[0][2]


def test_other_cpu_is_named(record, project):
    record["environment"] = deepcopy(record["environment"]) | {"cpu": "another"}
    ((subject, blocks, text),) = findings(record, project)
    assert (subject, blocks) == ("machine", False)
    assert text.startswith("cpu was another and is ")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "no recorded commit"),
        ({"is_here": False}, "does not have the commit"),
        ({"dirty": True}, "the run does not have the changes"),
    ],
)
def test_lost_code_blocks(record, project, code, words):
    record["code"] = code and record["code"] | code
    (finding,) = check_record(record, project)
    assert finding.blocks
    assert words in finding.text


def test_patch_that_does_not_fit_blocks(record, project, monkeypatch):
    (project / "params.yaml").write_text("1\n")
    patch = patch_of(project).replace(b"-  seed: 1", b"-  seed: 2")
    monkeypatch.setattr(reproduction, "read_bytes", lambda *_: patch)
    (finding,) = check_record(record, project)
    assert finding.blocks
    assert "do not fit" in finding.text


def test_version_without_a_run_blocks(record, project):
    record["run"] = None
    (finding,) = check_record(record, project)
    assert finding.blocks
    assert "no run" in finding.text


def test_empty_patch_of_changed_files_blocks(record, project, monkeypatch):
    monkeypatch.setattr(reproduction, "read_bytes", lambda *_: b"")
    assert check_record(record, project) == []
    record["code"]["dirty"] = True
    (finding,) = check_record(record, project)
    assert finding.blocks


def test_incomplete_patch_is_named(record, project):
    record["code"]["left_out"] = ["film.bin (6.0 MB)"]
    (finding,) = check_record(record, project)
    assert (finding.blocks, finding.subject) == (False, "code")
    assert "film.bin" in finding.text


@pytest.mark.usefixtures("store")
def test_data_is_fetched_from_the_remotes_of_today(record, project, monkeypatch):
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").write_text("['remote \"team\"']\n    url = s3://data\n")
    (project / ".dvc" / "config.local").write_text("['remote \"team\"']\n    secret_access_key = x\n")
    monkeypatch.setattr(reproduction, "_dvc", lambda *_, **__: 0)
    with checkout(record, project) as folder:
        shutil.copytree(project / "data", folder / "data")
        reproduction.train_again(folder, project, record["data"]["dvc_md5"])
        for name in ("config", "config.local"):
            assert (folder / ".dvc" / name).read_text() == (project / ".dvc" / name).read_text()


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("url", ["../../remote", "'../../remote'", '"../../remote"', "../../remote  # shared"])
def test_remote_with_a_relative_path_is_that_of_the_project(record, project, monkeypatch, url):
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").write_text(f"[core]\n    remote = near\n['remote \"near\"']\n    url = {url}\n")
    monkeypatch.setattr(reproduction, "_dvc", lambda *_, **__: 0)
    with checkout(record, project) as folder:
        shutil.copytree(project / "data", folder / "data")
        reproduction.train_again(folder, project, record["data"]["dvc_md5"])
        assert f'url = "{project.parent / "remote"}"\n' in (folder / ".dvc" / "config").read_text()


def test_scores_of_other_seeds_are_those_of_equal_trainings():
    def train(seed, score, digest="d", **changes):
        with runs.start_run(tags={"dataset_digest": digest}) as run:
            run.log_params({"train": {"seed": seed, "widths": (4, 6)} | changes})
            run.log_scores({"val_macro_f1": score}, history=[{}])

    for seed, score in ((1, 0.5), (2, 0.4), (3, 0.6)):
        train(seed, score)
    train(4, 0.9, widths=(1, 1))
    train(5, 0.9, digest="e")
    record = {"params": {"train.seed": 1, "train.widths": [4, 6]}, "data": {"digest": "d"}}
    assert reproduction.seed_scores(record) == [0.4, 0.5, 0.6]
    assert reproduction.seed_scores({"params": None, "data": None}) == []


def test_models_that_differ_in_their_run_and_in_helper_names_are_the_same(tmp_path):
    first, second = write_linear(tmp_path / "first.onnx"), tmp_path / "second.onnx"
    model = onnx.load(first)
    model.graph.initializer[0].name = model.graph.node[2].input[1] = "kernel__7"
    onnx.helper.set_model_props(model, {"run_id": "1" * 32})
    onnx.save(model, second)
    assert weight_difference(first, second) == ""


def test_one_changed_weight_is_named(tmp_path):
    first, second = write_linear(tmp_path / "first.onnx"), tmp_path / "second.onnx"
    model = onnx.load(first)
    kernel = numpy_helper.to_array(model.graph.initializer[0]).copy()
    kernel[0, 0] += 0.5
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "kernel"))
    onnx.save(model, second)
    assert weight_difference(first, second) == "1 of 1 arrays of weights differ, by up to 0.5"


@pytest.mark.parametrize(
    ("operation", "difference"), [("Transpose", ""), ("Relu", "the networks have other operations")]
)
def test_operations_that_only_change_the_layout_are_no_difference(tmp_path, operation, difference):
    first, second = write_linear(tmp_path / "first.onnx"), tmp_path / "second.onnx"
    model = onnx.load(first)
    model.graph.node[0].output[0] = "before"
    model.graph.node.insert(1, onnx.helper.make_node(operation, ["before"], ["floats"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2]), "new_shape__1"))
    onnx.save(model, second)
    assert weight_difference(first, second) == difference


def test_other_networks_are_named(tmp_path):
    first = write_linear(tmp_path / "first.onnx")
    second = write_linear(tmp_path / "second.onnx", side=24)
    assert weight_difference(first, second) == "the networks have other layers"
