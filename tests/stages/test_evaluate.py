"""The scores and the summary of the evaluate stage."""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.onnx_files import write_linear

from emotion_detection.evaluation.calibration import at_temperature
from emotion_detection.inference.classifier import EmotionClassifier
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
