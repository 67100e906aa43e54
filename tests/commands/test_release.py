"""`make release` replaces the shipped folder completely, or not at all."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.paths import PRETRAINED
from tests.support.repositories import commit_all, git

from emotion_detection.commands.release import FIGURES, ReleasePaths, release
from emotion_detection.data.dataset import save
from emotion_detection.errors import DataError, EmotionDetectionError, ModelError, UsageError
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.stages.evaluate import prediction_rows, write_csv


@pytest.fixture(scope="module")
def classifier():
    return EmotionClassifier(PRETRAINED / "model.onnx")


@pytest.fixture
def paths(drawn, classifier, tmp_path, monkeypatch):
    """A pipeline whose model is the shipped one and whose data are the drawn faces."""
    monkeypatch.chdir(tmp_path)
    for folder in ("model", "report", "recipes"):
        (tmp_path / folder).mkdir()
    save(drawn, tmp_path / "faces.npz")
    shutil.copy(PRETRAINED / "model.onnx", tmp_path / "model")
    run = json.loads((PRETRAINED / "run.json").read_text())
    trained = {key: value for key, value in run.items() if key not in ("git_commit", "code_tree", "git_note")}
    (tmp_path / "model" / "run.json").write_text(json.dumps(trained))
    for name in ("metrics.json", "classes.csv", *FIGURES):
        shutil.copy(PRETRAINED / name, tmp_path / "report")
    val = drawn.of("val")
    write_predictions(tmp_path / "report", val, classifier.probabilities(val.images))
    (tmp_path / "recipes" / "some.yaml").write_text("train: {}\n")
    data = {"dataset": "fer2013", "digest": "d" * 64, "dvc_md5": "m"}
    (tmp_path / "data_report.json").write_text(json.dumps(data))
    return ReleasePaths(
        faces=tmp_path / "faces.npz",
        data_report=tmp_path / "data_report.json",
        model=tmp_path / "model",
        report=tmp_path / "report",
        recipe=Path("recipes/some.yaml"),
        pretrained=tmp_path / "pretrained",
    )


def write_predictions(report, faces, probabilities):
    write_csv(report / "predictions_val.csv", prediction_rows(faces, probabilities))


def set_trained(paths, **train):
    """Change the settings that the model was trained with."""
    run = json.loads((paths.model / "run.json").read_text())
    (paths.model / "run.json").write_text(json.dumps(run | {"train": train}))


def assert_rejected(paths, error, message):
    """The release fails, and the previously shipped folder is unchanged."""
    paths.pretrained.mkdir()
    (paths.pretrained / "old.txt").write_text("old")
    with pytest.raises(error, match=message):
        release(paths)
    assert [path.name for path in paths.pretrained.iterdir()] == ["old.txt"]


def test_release_writes_model_metadata_and_figures(paths):
    release(paths)
    names = {"model.onnx", "metrics.json", "classes.csv", "run.json", "README.md", *FIGURES}
    assert {path.name for path in paths.pretrained.iterdir()} == names
    run = json.loads((paths.pretrained / "run.json").read_text())
    assert (run["dataset"], run["dataset_digest"], run["recipe"]) == ("fer2013", "d" * 64, "recipes/some.yaml")
    assert "recipes/some.yaml" in (paths.pretrained / "README.md").read_text()


def test_release_names_the_commit_and_the_tree_from_which_it_was_made(paths, tmp_path):
    release(paths)
    kept = json.loads((paths.pretrained / "run.json").read_text())
    assert "code_tree" not in kept  # there is no repository
    shutil.rmtree(paths.pretrained)
    commit = commit_all(tmp_path)
    release(paths)
    run = json.loads((paths.pretrained / "run.json").read_text())
    assert (run["git_commit"], run["code_tree"]) == (commit, git(tmp_path, "rev-parse", "HEAD^{tree}"))
    assert run["git_note"].startswith("the commit on which the model was released")


def test_release_replaces_all_old_files(paths):
    paths.pretrained.mkdir()
    (paths.pretrained / "old.txt").write_text("old")
    release(paths)
    assert not (paths.pretrained / "old.txt").exists()


def test_model_of_other_data_is_rejected(paths):
    paths.data_report.write_text(json.dumps({"dataset": "sample", "digest": "d", "dvc_md5": "m"}))
    assert_rejected(paths, DataError, "is trained on sample, but")


def test_recipe_with_another_value_is_rejected(paths):
    set_trained(paths, epochs=60, augment={"mixup": 0.3, "scale": [0.9, 1.1]})
    paths.recipe.write_text("train:\n  epochs: 60\n  augment:\n    scale: [0.9, 1.1]\n    mixup: 0.2\n")
    assert_rejected(
        paths,
        ModelError,
        r"is not trained with recipes/some\.yaml: train\.augment\.mixup is 0\.2 in the recipe and 0\.3 in the training",
    )
    paths.recipe.write_text("train:\n  epochs: 60\n  augment:\n    scale: [0.9, 1.1]\n    mixup: 0.3\n")
    release(paths)


@pytest.mark.parametrize("number", ["1e-3", "1.0e-3", "0.001", "'0.001'"])
def test_recipe_may_write_a_number_in_any_notation(paths, number):
    """PyYAML reads 1e-3 as a string."""
    set_trained(paths, weight_decay=0.001)
    paths.recipe.write_text(f"train:\n  weight_decay: {number}\n")
    release(paths)


def test_other_number_in_scientific_notation_is_rejected(paths):
    set_trained(paths, weight_decay=0.001)
    paths.recipe.write_text("train:\n  weight_decay: 2e-3\n")
    assert_rejected(paths, ModelError, r"train\.weight_decay is 2e-3 in the recipe and 0\.001 in the training")


def test_report_of_another_model_is_rejected(paths, drawn, classifier):
    """Even if its accuracy is the same."""
    val = drawn.of("val")
    original = classifier.probabilities(val.images)
    sharper = original**1.1 / (original**1.1).sum(axis=1, keepdims=True)
    assert (sharper.argmax(1) == original.argmax(1)).all()
    write_predictions(paths.report, val, sharper)
    assert_rejected(paths, ModelError, "is the report of another model")


def test_report_of_other_faces_is_rejected(paths, drawn, classifier):
    train = drawn.of("train")
    write_predictions(paths.report, train, classifier.probabilities(train.images))
    assert_rejected(paths, ModelError, "or of other faces")


@pytest.mark.parametrize("file", ["recipes/some.yaml", "model/model.onnx", "report/predictions_val.csv", "faces.npz"])
def test_missing_file_is_named(paths, tmp_path, file):
    (tmp_path / file).unlink()
    assert_rejected(paths, UsageError, f"{Path(file).name} does not exist: run `make repro`")


@pytest.mark.parametrize(
    "name", ["model/run.json", "data_report.json", "report/predictions_val.csv", "report/metrics.json"]
)
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"a,b\n1,2\n", b'{"train": 3, "run_id": "0"}'])
def test_damaged_file_is_refused_and_the_shipped_model_stays(paths, tmp_path, name, content):
    paths.pretrained.mkdir()
    (paths.pretrained / "model.onnx").write_text("the last good one")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EmotionDetectionError):
        release(paths)
    assert [path.name for path in paths.pretrained.iterdir()] == ["model.onnx"]


def test_full_disk_keeps_the_shipped_model(paths, monkeypatch):
    def fill(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    paths.pretrained.mkdir()
    (paths.pretrained / "model.onnx").write_text("the last good one")
    monkeypatch.setattr(shutil, "copy", fill)
    with pytest.raises(OSError, match="No space left") as error:
        release(paths)
    assert error.value.filename == str(paths.pretrained)
    assert [path.name for path in paths.pretrained.iterdir()] == ["model.onnx"]


def test_overlay_replaces_settings_of_the_recipe(paths):
    set_trained(paths, epochs=2, seed=1)
    paths.recipe.write_text("train: {epochs: 70, seed: 1}\n")
    overlay = Path("recipes/overlay.yaml")
    overlay.write_text("train: {epochs: 2}\n")
    assert_rejected(paths, ModelError, "train.epochs is 70 in the recipe and 2 in the training")
    release(replace(paths, overlay=overlay))
    assert "recipes/some.yaml with recipes/overlay.yaml" in (paths.pretrained / "README.md").read_text()


def test_candidate_of_another_data_set_needs_its_name(paths):
    report = json.loads(paths.data_report.read_text())
    paths.data_report.write_text(json.dumps(report | {"dataset": "sample"}))
    release(replace(paths, dataset="sample"))
    assert json.loads((paths.pretrained / "run.json").read_text())["dataset"] == "sample"
