"""Shipping: the whole folder is replaced by a model and its own papers, or nothing is."""

import json
import shutil
from pathlib import Path

import pytest
from tests.support.paths import PRETRAINED

from emotion_detection.commands.release import FIGURES, ReleasePaths, release
from emotion_detection.data.dataset import save
from emotion_detection.errors import InputError
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.stages.evaluate import predictions, write_rows


@pytest.fixture
def paths(drawn, tmp_path, monkeypatch):
    """The shipped model, posing as one that the pipeline has just made of the drawn faces."""
    monkeypatch.chdir(tmp_path)
    for folder in ("model", "report", "recipes"):
        (tmp_path / folder).mkdir()
    save(drawn, tmp_path / "faces.npz")
    shutil.copy(PRETRAINED / "model.onnx", tmp_path / "model")
    shutil.copy(PRETRAINED / "run.json", tmp_path / "model")
    for name in ("metrics.json", "classes.csv", *FIGURES):
        shutil.copy(PRETRAINED / name, tmp_path / "report")
    val = drawn.of("val")
    tell(tmp_path / "report", val, EmotionClassifier(PRETRAINED / "model.onnx").probabilities(val.images))
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


def tell(report, faces, probabilities):
    write_rows(report / "predictions_val.csv", predictions(faces, probabilities))


def refused(paths, sentence):
    """Nothing is shipped, and what was shipped before is still there."""
    paths.pretrained.mkdir()
    (paths.pretrained / "old.txt").write_text("old")
    with pytest.raises(InputError, match=sentence):
        release(paths)
    assert [path.name for path in paths.pretrained.iterdir()] == ["old.txt"]


def test_model_papers_and_figures_are_shipped_together(paths):
    release(paths)
    names = {"model.onnx", "metrics.json", "classes.csv", "run.json", "README.md", *FIGURES}
    assert {path.name for path in paths.pretrained.iterdir()} == names
    run = json.loads((paths.pretrained / "run.json").read_text())
    assert (run["dataset"], run["dataset_digest"], run["recipe"]) == ("fer2013", "d" * 64, "recipes/some.yaml")
    assert "recipes/some.yaml" in (paths.pretrained / "README.md").read_text()


def test_the_old_folder_is_replaced_as_a_whole(paths):
    paths.pretrained.mkdir()
    (paths.pretrained / "old.txt").write_text("old")
    release(paths)
    assert not (paths.pretrained / "old.txt").exists()


def test_a_model_of_other_data_is_refused(paths):
    paths.data_report.write_text(json.dumps({"dataset": "sample", "digest": "d", "dvc_md5": "m"}))
    refused(paths, "learnt from sample")


def test_a_recipe_that_the_model_was_not_trained_with_is_refused(paths, tmp_path):
    run = json.loads((tmp_path / "model" / "run.json").read_text())
    run["train"] = {"epochs": 60, "augment": {"mixup": 0.3, "scale": [0.9, 1.1]}}
    (tmp_path / "model" / "run.json").write_text(json.dumps(run))
    paths.recipe.write_text("train:\n  epochs: 60\n  augment:\n    scale: [0.9, 1.1]\n    mixup: 0.2\n")
    refused(paths, r"was not made by recipes/some\.yaml, which has train\.augment\.mixup 0\.2, not 0\.3: ")
    paths.recipe.write_text("train:\n  epochs: 60\n  augment:\n    scale: [0.9, 1.1]\n    mixup: 0.3\n")
    release(paths)


def test_a_report_of_another_model_is_refused(paths, drawn, tmp_path):
    """Even one that is right as often."""
    val = drawn.of("val")
    made = EmotionClassifier(PRETRAINED / "model.onnx").probabilities(val.images)
    sharper = made**1.1 / (made**1.1).sum(axis=1, keepdims=True)
    assert (sharper.argmax(1) == made.argmax(1)).all()
    tell(tmp_path / "report", val, sharper)
    refused(paths, "tells of another model")


def test_a_report_of_other_faces_is_refused(paths, drawn, tmp_path):
    train = drawn.of("train")
    tell(tmp_path / "report", train, EmotionClassifier(PRETRAINED / "model.onnx").probabilities(train.images))
    refused(paths, "or of other faces")


@pytest.mark.parametrize("file", ["recipes/some.yaml", "model/model.onnx", "report/predictions_val.csv", "faces.npz"])
def test_what_is_missing_is_named(paths, tmp_path, file):
    (tmp_path / file).unlink()
    refused(paths, f"{Path(file).name} is not there")
