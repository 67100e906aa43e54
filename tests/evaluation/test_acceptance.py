"""What speaks against a model, and the sentences about a comparison."""

import numpy as np
import pytest
from tests.support.onnx_files import draw_answers, write_reader

from emotion_detection.evaluation import acceptance, metrics
from emotion_detection.evaluation.acceptance import Measurements, describe, measure, objections
from emotion_detection.evaluation.paired import Comparison, Counts, Gain
from emotion_detection.inference.classifier import EmotionClassifier

GOOD = Measurements(weakest="fear", min_recall=0.5, ece=0.02, ms=3, mb=3.5)


def compared(more: int, p: float, macro_f1: Gain) -> Comparison:
    gains = {"accuracy": Gain(more / 3543, -1, 1), "macro_f1": macro_f1}
    return Comparison(3543, 0.95, Counts(2000, 100, 100 + more, 1343 - more), p, gains, [0.0] * 7, 0.0152)


def test_measurements_of_a_file(tmp_path):
    labels = np.arange(70) % 7
    answer = np.where(labels == 2, 5, labels)  # fear is read as surprise
    path = write_reader(tmp_path / "model.onnx", row=0)
    images = draw_answers([answer])
    classifier = EmotionClassifier(path)
    report = metrics.evaluate(labels, classifier.probabilities(images), confidence=0.95, ece_bins=15)
    measured = measure(path, classifier, report, images)
    assert (measured.weakest, measured.min_recall, measured.ece) == ("fear", 0, report.ece)
    assert measured.mb == pytest.approx(path.stat().st_size / 1e6)
    assert measured.ms > 0
    assert acceptance.milliseconds(classifier, images) > 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"min_recall": 0.1}, ["its recall of fear is 10.0% (min_recall: 0.2)"]),
        ({"ece": 0.2}, ["its calibration error is 0.200 (max_ece: 0.1)"]),
        ({"ms": 80}, ["a face takes 80 ms (max_ms: 50)"]),
        ({"mb": 31}, ["its file has 31.0 MB (max_mb: 20)"]),
    ],
)
def test_each_limit_is_a_reason_of_its_own(params, changes, expected):
    assert objections(Measurements(**GOOD.as_dict() | changes), params.register_) == expected


def test_all_reasons_are_named(params):
    bad = Measurements(weakest="disgust", min_recall=0, ece=1, ms=1000, mb=1000)
    assert len(objections(bad, params.register_)) == 4


@pytest.mark.parametrize(
    ("comparison", "sentence"),
    [
        (
            compared(12, 0.31, Gain(0.004, -0.007, 0.014)),
            "undecided against version 2: 12 more right of 3,543 (p = .310), macro-F1 +0.4 points [-0.7, 1.4]; this "
            "val set shows gains from 1.5 points",
        ),
        (
            compared(80, 0.0002, Gain(0.021, 0.009, 0.033)),
            "better than version 2: 80 more right of 3,543 (p < .001), macro-F1 +2.1 points [0.9, 3.3]",
        ),
        (
            compared(-60, 0.004, Gain(-0.021, -0.033, -0.009)),
            "worse than version 2: 60 fewer right of 3,543 (p = .004), macro-F1 -2.1 points [-3.3, -0.9]",
        ),
    ],
)
def test_sentences(comparison, sentence):
    assert describe(comparison, "version 2") == sentence
