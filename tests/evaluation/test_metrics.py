"""Scores compared with scikit-learn and with values calculated by hand."""

from dataclasses import fields
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_recall_fscore_support

from emotion_detection.emotions import EMOTIONS
from emotion_detection.evaluation.metrics import (
    Report,
    calibrate,
    evaluate,
    kept_epoch,
    macro_f1,
    per_class,
    scalar_metrics,
)

report_of = partial(evaluate, confidence=0.95, ece_bins=15)


def draw_predictions(rows=400, *, seed=0, skill=1.5):
    """Labels and float32 probabilities of a mediocre model."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 7, rows).astype(np.uint8)
    scores = np.exp(rng.normal(size=(rows, 7)) + skill * np.eye(7)[labels])
    return labels, (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)


def one_hot(predicted):
    return np.eye(7)[np.asarray(predicted)]


def equal(left: Report, right: Report) -> bool:
    values = [(getattr(left, f.name), getattr(right, f.name)) for f in fields(Report) if f.name != "calibration"]
    return all(np.allclose(a, b, equal_nan=True) for a, b in values)


def test_scores_agree_with_scikit_learn():
    labels, probabilities = draw_predictions()
    predicted = probabilities.argmax(axis=1)
    report = report_of(labels, probabilities)
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted, labels=range(7))
    assert report.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert report.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert report.log_loss == pytest.approx(log_loss(labels, probabilities, labels=range(7)), rel=1e-5)
    for actual, expected in zip(
        (report.precision, report.recall, report.f1, report.support),
        (precision, recall, f1, support),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected)


def test_rows_of_the_confusion_matrix_are_true_emotions():
    report = report_of([0, 0, 0], one_hot([0, 3, 3]))
    assert report.confusion[0, 3] == 2
    assert report.confusion[3, 0] == 0
    assert report.confusion.sum() == report.rows == 3


def test_perfect_prediction_scores_one_without_calibration_error():
    labels = np.arange(70) % 7
    report = report_of(labels, one_hot(labels))
    assert (report.accuracy, report.accuracy_high, report.macro_f1, report.ece) == (1, 1, 1, 0)
    assert (report.macro_f1_low, report.macro_f1_high) == (1, 1)
    assert report.log_loss == pytest.approx(0, abs=1e-9)


def test_accuracy_interval_is_the_wilson_interval():
    # 81 of 263: (0.2553, 0.3662) in Newcombe 1998, table I, method 3.
    labels = np.zeros(263, int)
    report = report_of(labels, one_hot(np.where(np.arange(263) < 81, 0, 1)))
    assert (report.accuracy_low, report.accuracy_high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert (report.recall_low[0], report.recall_high[0]) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_higher_confidence_widens_every_interval():
    labels, probabilities = draw_predictions()
    narrow = evaluate(labels, probabilities, confidence=0.8, ece_bins=10)
    wide = evaluate(labels, probabilities, confidence=0.99, ece_bins=10)
    assert wide.accuracy_low < narrow.accuracy_low < narrow.accuracy < narrow.accuracy_high < wide.accuracy_high
    assert wide.macro_f1_low < narrow.macro_f1_low < narrow.macro_f1 < narrow.macro_f1_high < wide.macro_f1_high
    assert (wide.recall_low < narrow.recall_low).all()


def test_macro_f1_interval_equals_that_of_resampled_rows():
    labels, probabilities = draw_predictions()
    predicted = probabilities.argmax(axis=1)
    rng = np.random.default_rng(1)
    draws = [rng.integers(0, len(labels), len(labels)) for _ in range(200)]
    expected = np.quantile([macro_f1(labels[rows], predicted[rows]) for rows in draws], [0.025, 0.975])
    report = report_of(labels, probabilities)
    assert (report.macro_f1_low, report.macro_f1_high) == pytest.approx(tuple(expected), abs=0.01)


def test_ece_equals_a_value_calculated_by_hand():
    # Two faces at 0.9, one correct: a gap of 0.4. Two at 0.6, both correct: also 0.4. In a single bin: 0.75 and 0.75.
    table = np.full((4, 7), 0.1 / 6)
    table[:2, 0] = 0.9
    table[2:] = 0.4 / 6
    table[2:, 0] = 0.6
    labels = [0, 1, 0, 0]
    assert evaluate(labels, table, confidence=0.95, ece_bins=2).ece == pytest.approx(0)
    assert evaluate(labels, table, confidence=0.95, ece_bins=4).ece == pytest.approx(0.4)


def test_confidence_on_an_edge_belongs_to_the_lower_bin():
    even = np.array([[0.5, 0.5, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]])
    bins = calibrate([0, 0], even, bins=2)
    assert bins.counts.tolist() == [1, 1]
    assert bins.confidence.tolist() == [0.5, 1]


def test_empty_bin_has_no_accuracy_and_no_weight():
    bins = calibrate([0], one_hot([0]), bins=4)
    assert np.isnan(bins.accuracy[:3]).all()
    assert report_of([0], one_hot([0])).ece == 0


def test_emotion_without_rows_has_no_recall():
    report = report_of([0, 0, 2], one_hot([0, 1, 2]))
    assert report.support[1] == 0
    assert np.isnan([report.recall[1], report.recall_low[1], report.recall_high[1]]).all()
    assert report.precision[1] == 0
    assert report.f1[1] == 0  # it was predicted incorrectly


def test_macro_f1_ignores_an_emotion_without_rows_and_predictions():
    assert macro_f1([0, 3], [0, 3]) == 1
    assert macro_f1([0, 0, 2], [0, 1, 2]) == pytest.approx((2 / 3 + 0 + 1) / 3)
    expected = f1_score([0, 0, 2], [0, 1, 2], labels=range(7), average="macro", zero_division=np.nan)
    assert macro_f1([0, 0, 2], [0, 1, 2]) == pytest.approx(expected)


def test_macro_f1_equals_that_of_the_report():
    labels, probabilities = draw_predictions(50)
    assert macro_f1(labels, probabilities.argmax(axis=1)) == report_of(labels, probabilities).macro_f1


@pytest.mark.parametrize("seed", range(3))
def test_order_of_the_rows_does_not_matter(seed):
    labels, probabilities = draw_predictions(120, seed=seed)
    order = np.random.default_rng(seed).permutation(120)
    assert equal(report_of(labels, probabilities), report_of(labels[order], probabilities[order]))


def test_one_row_is_enough():
    report = report_of([6], one_hot([6]))
    assert report.rows == 1
    assert 0 < report.accuracy_low < report.accuracy_high <= 1


def test_scalar_metrics_are_flat_finite_and_prefixed_with_the_split():
    values = scalar_metrics(report_of([0, 0], one_hot([0, 3])), "val")
    names = "accuracy accuracy_low accuracy_high macro_f1 macro_f1_low macro_f1_high log_loss ece rows"
    assert list(values) == [f"val_{name}" for name in names.split()]
    assert {type(value) for value in values.values()} == {float}
    assert np.isfinite(list(values.values())).all()


def test_per_class_has_a_row_for_each_emotion():
    rows = per_class(report_of(*draw_predictions()), "test")
    assert [row["emotion"] for row in rows] == list(EMOTIONS)
    assert " ".join(rows[0]) == "split emotion support precision recall recall_low recall_high f1"
    assert [row["support"] for row in rows] == np.bincount(draw_predictions()[0]).tolist()
    assert {row["split"] for row in rows} == {"test"}


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], np.empty((0, 7)), "at least one row"),
        ([0, 1], one_hot([0]), "must be"),
        ([0], np.ones((1, 6)) / 6, "must be"),
        ([[0]], one_hot([0]), "must be"),
        ([7], one_hot([0]), r"0\.\.6"),
        ([-1], one_hot([0]), r"0\.\.6"),
        ([0.0], one_hot([0]), "integers"),
        ([0, 0], [one_hot(0), 2 * one_hot(0)], "row 1 does not contain probabilities"),
        ([0], [[1.5, -0.5, 0, 0, 0, 0, 0]], "row 0 does not contain probabilities"),
        ([0], [[np.nan] * 7], "row 0 does not contain probabilities"),
    ],
)
def test_invalid_input_raises(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        report_of(labels, probabilities)


@pytest.mark.parametrize(("labels", "predicted"), [([], []), ([0, 1], [0]), ([0], [9]), ([0], [0.5])])
def test_macro_f1_of_invalid_input_raises(labels, predicted):
    with pytest.raises(ValueError, match=r"labels|row"):
        macro_f1(labels, predicted)


def test_calibration_without_bins_raises():
    with pytest.raises(ValueError, match="at least one bin"):
        calibrate([0], one_hot([0]), bins=0)


@pytest.mark.parametrize(("keep", "epoch"), [("val_macro_f1", 2), ("val_loss", 3), ("last", 4)])
def test_setting_chooses_the_epoch(keep, epoch):
    scores = ((0.1, 0.9), (0.4, 0.8), (0.4, 0.2), (0.2, 0.7))  # the first one of equal scores
    history = [{"val_macro_f1": f1, "val_loss": loss} for f1, loss in scores]
    assert kept_epoch(history, keep) == epoch
    assert kept_epoch([], keep) == 0
