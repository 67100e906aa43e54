"""Shipping: the whole folder is replaced by a model and its own papers, or nothing is."""

import argparse
import json
import shutil
from pathlib import Path

import pytest

from emotion_detection.dataset import save
from emotion_detection.errors import InputError
from emotion_detection.inference import EmotionClassifier
from emotion_detection.stages.ship import FIGURES, ship

PRETRAINED = Path(__file__).parents[1] / "pretrained"


@pytest.fixture
def paths(drawn, tmp_path):
    """The shipped model, posing as one that the pipeline has just made of the drawn faces."""
    for folder in ("model", "report"):
        (tmp_path / folder).mkdir()
    save(drawn, tmp_path / "faces.npz")
    shutil.copy(PRETRAINED / "model.onnx", tmp_path / "model")
    shutil.copy(PRETRAINED / "run.json", tmp_path / "model")
    for name in ("classes.csv", *FIGURES):
        shutil.copy(PRETRAINED / name, tmp_path / "report")
    val = drawn.of("val")
    right = EmotionClassifier(PRETRAINED / "model.onnx").probabilities(val.images).argmax(1) == val.labels
    metrics = json.loads((PRETRAINED / "metrics.json").read_text()) | {"val_accuracy": float(right.mean())}
    (tmp_path / "report" / "metrics.json").write_text(json.dumps(metrics))
    data = {"dataset": "fer2013", "digest": "d" * 64, "dvc_md5": "m"}
    (tmp_path / "data_report.json").write_text(json.dumps(data))
    return argparse.Namespace(
        faces=tmp_path / "faces.npz",
        data_report=tmp_path / "data_report.json",
        model=tmp_path / "model",
        report=tmp_path / "report",
        recipe=Path("recipes/some.yaml"),
        pretrained=tmp_path / "pretrained",
    )


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_model_papers_and_figures_are_shipped_together(paths):
    ship(paths)
    names = {"model.onnx", "metrics.json", "classes.csv", "run.json", "README.md", *FIGURES}
    assert {path.name for path in paths.pretrained.iterdir()} == names
    run = json.loads((paths.pretrained / "run.json").read_text())
    assert (run["dataset"], run["dataset_digest"], run["recipe"]) == ("fer2013", "d" * 64, "recipes/some.yaml")
    assert "recipes/some.yaml" in (paths.pretrained / "README.md").read_text()


def test_the_old_folder_is_replaced_as_a_whole(paths):
    paths.pretrained.mkdir()
    (paths.pretrained / "old.txt").write_text("old")
    ship(paths)
    assert not (paths.pretrained / "old.txt").exists()


@pytest.mark.parametrize(
    ("file", "values", "sentence"),
    [
        ("data_report.json", {"dataset": "sample"}, "learnt from sample"),
        ("report/metrics.json", {"val_accuracy": 0.123}, "tells of another model, with 0.1230 on val"),
    ],
)
def test_what_does_not_belong_together_is_refused_and_nothing_lost(paths, file, values, sentence):
    paths.pretrained.mkdir()
    (paths.pretrained / "old.txt").write_text("old")
    change(paths.data_report.parent / file, **values)
    with pytest.raises(InputError, match=sentence):
        ship(paths)
    assert [path.name for path in paths.pretrained.iterdir()] == ["old.txt"]
