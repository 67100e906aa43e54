"""What is known of the files that a training starts from, and of the models that made them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.paths import ROOT

from emotion_detection.data.dataset import digest
from emotion_detection.experiments.parents import parents
from emotion_detection.training.distillation import save_soft_labels
from emotion_detection.training.initial_weights import save_initial_weights


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_training_from_scratch_has_no_parents(params, tmp_path):
    assert parents(params.model_dump()["train"], tmp_path) == []
    assert parents({}, tmp_path) == []


def test_soft_labels_name_their_teachers(drawn, tmp_path):
    teachers = [tmp_path / "first.onnx", tmp_path / "second.onnx"]
    for teacher in teachers:
        teacher.write_text(teacher.name)
    train = drawn.of("train")
    path = save_soft_labels(np.full((len(train), 7), 1 / 7), train, teachers, tmp_path)
    (parent,) = parents({"distillation": {"soft_labels": path.name}}, tmp_path)
    assert parent == {
        "kind": "soft_labels",
        "path": path.name,
        "sha256": sha256(path),
        "made_by": [{"name": teacher.name, "sha256": sha256(teacher)} for teacher in teachers],
    }
    assert digest(train)


def test_teachers_are_parents_that_made_their_own_labels(tmp_path):
    (tmp_path / "teacher.onnx").write_text("model")
    digest_of_teacher = sha256(tmp_path / "teacher.onnx")
    (parent,) = parents({"distillation": {"teachers": ["teacher.onnx"]}}, tmp_path)
    made_by = [{"name": "teacher.onnx", "sha256": digest_of_teacher}]
    assert parent == {"kind": "teacher", "path": "teacher.onnx", "sha256": digest_of_teacher, "made_by": made_by}
    (gone,) = parents({"distillation": {"teachers": ["gone.onnx"]}}, tmp_path)
    assert (gone["sha256"], gone["made_by"]) == (None, [])


def test_averaged_weights_are_parents(tmp_path):
    paths = [save_initial_weights([np.full(3, value, np.float32)], tmp_path) for value in (1, 2)]
    found = parents({"average": {"weights": [path.name for path in paths], "share": 0.5}}, tmp_path)
    assert [(one["kind"], one["sha256"]) for one in found] == [("averaged_weights", sha256(path)) for path in paths]


def test_file_next_to_initial_weights_says_who_made_them(tmp_path):
    path = save_initial_weights([np.zeros(3, np.float32)], tmp_path)
    missing = {"kind": "soft_labels", "path": "gone.npz"}
    told = {"made_by": [{"run_id": "1" * 32, "git_commit": "2" * 40, "parents": [missing]}]}
    path.with_suffix(".json").write_text(json.dumps(told))
    (parent,) = parents({"initial_weights": path.name}, tmp_path)
    (model,) = parent["made_by"]
    assert model["run_id"] == "1" * 32
    assert model["parents"] == [missing | {"sha256": None, "made_by": []}]


def told(tmp_path, models):
    """The models that a file next to initial weights names."""
    path = save_initial_weights([np.zeros(3, np.float32)], tmp_path)
    path.with_suffix(".json").write_text(json.dumps({"made_by": models}))
    (parent,) = parents({"initial_weights": path.name}, tmp_path)
    return parent["made_by"]


@pytest.mark.parametrize(
    ("entry", "known"),
    [
        ({"name": "a", "parents": None}, {"name": "a"}),
        ({"name": "a", "parents": 5}, {"name": "a"}),
        ({"name": "a", "parents": [5, {"kind": "k", "path": 5}, {"kind": ["k"], "path": "p"}]}, {"name": "a"}),
        ({"sha256": ["x"], "run_id": 5, "name": "a", "other": "b"}, {"name": "a"}),
    ],
    ids=repr,
)
def test_values_of_another_type_are_ignored(tmp_path, entry, known):
    assert told(tmp_path, [entry]) == [known | {"parents": []}]


def test_models_without_digest_and_run_stay_apart(tmp_path):
    assert [one["name"] for one in told(tmp_path, [{"name": "a"}, {"name": "b"}])] == ["a", "b"]


def test_file_that_cannot_be_read_is_a_parent_without_a_digest(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(path)

    (tmp_path / "weights.npz").write_bytes(b"1")
    monkeypatch.setattr(type(tmp_path), "read_bytes", refuse)
    (parent,) = parents({"initial_weights": "weights.npz"}, tmp_path)
    assert parent["sha256"] is None


@pytest.mark.parametrize(
    "text", ["", "[]", '{"made_by": 1}', '{"made_by": [1]}', '{"made_by": [{"parents": [{}]}]}', "[" * 9999]
)
def test_damaged_origin_is_ignored(tmp_path, text):
    path = save_initial_weights([np.zeros(3, np.float32)], tmp_path)
    path.with_suffix(".json").write_text(text)
    (parent,) = parents({"initial_weights": path.name}, tmp_path)
    assert parent["sha256"] == sha256(path)


def test_parent_that_is_its_own_ancestor_ends(tmp_path):
    path = save_initial_weights([np.zeros(3, np.float32)], tmp_path)
    itself = {"kind": "initial_weights", "path": path.name}
    path.with_suffix(".json").write_text(json.dumps({"made_by": [{"run_id": "1", "parents": [itself]}]}))
    (parent,) = parents({"initial_weights": path.name}, tmp_path)
    depth = 0
    while parent["made_by"][0]["parents"]:
        (parent,) = parent["made_by"][0]["parents"]
        depth += 1
    assert depth == 10


def test_missing_and_damaged_files_are_parents_too(tmp_path):
    (tmp_path / "damaged.npz").write_text("1")
    found = parents({"initial_weights": "gone.npz", "distillation": {"soft_labels": "damaged.npz"}}, tmp_path)
    assert [(one["path"], one["sha256"] is None, one["made_by"]) for one in found] == [
        ("gone.npz", True, []),
        ("damaged.npz", False, []),
    ]


def test_every_ancestor_of_the_shipped_model_has_a_run_or_a_commit_of_this_repository():
    train = json.loads((ROOT / "src" / "emotion_detection" / "pretrained" / "run.json").read_text())["train"]
    pending, seen = parents(train, ROOT), 0
    assert [one["kind"] for one in pending] == ["initial_weights", "averaged_weights"]
    while pending:
        parent = pending.pop()
        assert parent["sha256"].startswith(Path(parent["path"]).stem)
        assert parent["made_by"]
        for model in parent["made_by"]:
            assert len(model["git_commit"]) == 40
            pending += model.get("parents", [])
            seen += 1
    assert seen >= 6
