"""The scores and the summary of the evaluate stage."""

import errno
import json
import os
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from tests.support.onnx_files import write_linear
from tests.support.paths import ROOT

from emotion_detection.data.dataset import save
from emotion_detection.errors import DataError, ModelError
from emotion_detection.evaluation.calibration import at_temperature
from emotion_detection.experiments import copied_run
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.stages import evaluate
from emotion_detection.stages.evaluate import mirror_scores, predict_splits, summary, undo_calibration


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return EmotionClassifier(write_linear(tmp_path_factory.mktemp("onnx") / "model.onnx"))


def test_temperature_is_undone_for_every_split(drawn, classifier):
    predictions = predict_splits(drawn, classifier)
    assert set(predictions) == {"val", "test", "test_clean"}
    scaled = {split: (faces, at_temperature(p, 1.6)) for split, (faces, p) in predictions.items()}
    for split, (faces, probabilities) in undo_calibration(scaled, 1.6).items():
        assert faces is predictions[split][0]
        np.testing.assert_allclose(probabilities, predictions[split][1], atol=1e-5)


def test_mirror_scores_of_symmetric_faces_equal_the_plain_accuracy(params, drawn, classifier):
    scores = mirror_scores(drawn, classifier, params.evaluate)
    ends = ("", "_low", "_high")
    assert set(scores) == {f"{split}_flip_accuracy{end}" for split in ("val", "test") for end in ends}
    assert scores["val_flip_accuracy_low"] <= scores["val_flip_accuracy"] <= scores["val_flip_accuracy_high"]
    symmetric = replace(drawn, images=drawn.images // 2 + drawn.images[:, :, ::-1] // 2)
    labels, probabilities = symmetric.of("test").labels, classifier.probabilities(symmetric.of("test").images)
    plain = float((probabilities.argmax(axis=1) == labels).mean())
    assert mirror_scores(symmetric, classifier, params.evaluate)["test_flip_accuracy"] == plain


def test_summary_includes_the_mirror_accuracy_if_it_was_measured():
    ends = ("", "_low", "_high")
    scores = {f"{split}_accuracy{end}": 0.7 for split in ("test", "test_clean") for end in ends}
    scores |= {f"{split}_{name}": 0.5 for split in ("test", "test_clean") for name in ("rows", "macro_f1", "ece")}
    scores |= {"test_flip_accuracy": 0.713}
    assert "71.3 % averaged with the mirror image" in summary(scores, "test")
    assert "mirror" not in summary(scores, "test_clean")


class FakeRun:
    """A run that logs nothing."""

    def log_stage_params(self, *_):
        pass

    def log_history(self, *_):
        pass

    def tag_all(self, *_):
        pass

    def log_scores(self, *_):
        pass

    def log_folder(self, *_):
        pass

    def note(self, *_):
        pass


@pytest.fixture
def paths(drawn, tmp_path, monkeypatch):
    """The files of an evaluate stage, with an earlier report."""
    monkeypatch.setattr("emotion_detection.experiments.delivery.stage_run", lambda *_, **__: nullcontext(FakeRun()))
    monkeypatch.setattr(evaluate, "detector_scores", lambda *_: {})
    (tmp_path / "model").mkdir()
    write_linear(tmp_path / "model" / "model.onnx")
    (tmp_path / "model" / "run.json").write_text('{"run_id": "0"}')
    row = dict.fromkeys(sorted(copied_run.CURVES), 1.0)
    evaluate.write_csv(tmp_path / "model" / "history.csv", [row])
    save(drawn, tmp_path / "faces.npz")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "metrics.json").write_text("the last good one")
    return evaluate.EvaluatePaths(ROOT / "params.yaml", tmp_path / "faces.npz", tmp_path / "model", tmp_path / "report")


@pytest.mark.parametrize("function", ["write_report", "draw_figures"])
def test_report_is_never_half_filled(paths, monkeypatch, function):
    def fill(folder, *_):
        folder.mkdir(exist_ok=True)
        (folder / "half").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(evaluate, function, fill)
    with pytest.raises(OSError, match="No space left") as error:
        evaluate.evaluate(paths)
    assert error.value.filename == str(paths.report)
    assert [path.name for path in paths.report.iterdir()] == ["metrics.json"]
    assert (paths.report / "metrics.json").read_text() == "the last good one"


@pytest.mark.slow
def test_new_report_replaces_the_last_one(paths):
    evaluate.evaluate(paths)
    names = {path.name for path in paths.report.iterdir()}
    assert {"metrics.json", "classes.csv", "confusion_test.png", "learning_curves.png"} <= names


@pytest.mark.parametrize(
    ("settings", "keep"), [({"train": {"keep": "last"}}, "last"), ({"train": []}, "val_macro_f1"), ({}, "val_macro_f1")]
)
def test_learning_curves_mark_the_kept_epoch(paths, monkeypatch, settings, keep):
    kept = []
    monkeypatch.setattr(evaluate, "draw_figures", lambda *_: None)
    monkeypatch.setattr(evaluate, "end_to_end", lambda *_: [{"group": "all"}])
    monkeypatch.setattr("emotion_detection.evaluation.figures.learning_curves", lambda *_, keep: kept.append(keep))
    (paths.model / "run.json").write_text(json.dumps({"run_id": "0", **settings}))
    evaluate.evaluate(paths)
    assert kept == [keep]


@pytest.mark.parametrize("name", ["history.csv", "run.json", "model.onnx"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"a,b\n1,2\n", b"[]"])
def test_damaged_file_of_the_model_is_refused(paths, name, content):
    (paths.model / name).write_bytes(content)
    with pytest.raises((DataError, ModelError), match=name):
        evaluate.evaluate(paths)
    assert (paths.report / "metrics.json").read_text() == "the last good one"


def test_faces_are_counted_from_the_picture_to_the_reading(drawn, classifier):
    rows = list(evaluate.end_to_end(drawn.of("test"), classifier))
    assert (rows[0]["group"], rows[0]["faces"]) == ("all", 7)
    assert 0 <= float(str(rows[0]["found_and_read_right"])) <= float(str(rows[0]["found"])) <= 1
