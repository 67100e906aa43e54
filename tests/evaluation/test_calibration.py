"""Temperature scaling corrects overconfident and underconfident probabilities."""

import numpy as np
import pytest

from emotion_detection.evaluation.calibration import at_temperature, fit_temperature
from emotion_detection.evaluation.metrics import evaluate


def draw_calibrated(rows=20_000, seed=0):
    """Probabilities, float32 (n, 7), and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probabilities = softmax(rng.normal(0, 2, (rows, 7)))
    labels = (probabilities.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
    return probabilities.astype(np.float32), np.minimum(labels, 6).astype(np.uint8)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_at_temperature_scales_the_logits_of_a_softmax():
    logits = np.random.default_rng(0).normal(0, 5, (50, 7))
    probabilities = softmax(logits).astype(np.float32)
    scaled = at_temperature(probabilities, 2.5)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, softmax(logits / 2.5), atol=1e-5)
    np.testing.assert_allclose(at_temperature(scaled, 1 / 2.5), probabilities, atol=1e-4)  # the inverse
    np.testing.assert_array_equal(scaled.argmax(axis=1), probabilities.argmax(axis=1))


def test_calibrated_probabilities_have_temperature_one():
    assert fit_temperature(*draw_calibrated()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("temperature", [0.5, 1.5, 3.0])
def test_temperature_of_miscalibrated_probabilities_is_found(temperature):
    probabilities, labels = draw_calibrated()
    miscalibrated = at_temperature(probabilities, 1 / temperature)
    assert fit_temperature(miscalibrated, labels) == pytest.approx(temperature, rel=0.03)


def test_calibration_reduces_the_calibration_error_and_keeps_the_predictions():
    probabilities, labels = draw_calibrated()
    overconfident = at_temperature(probabilities, 0.5)
    calibrated = at_temperature(overconfident, fit_temperature(overconfident, labels))
    before, after = (evaluate(labels, table, confidence=0.95, ece_bins=15) for table in (overconfident, calibrated))
    assert before.ece > 0.1
    assert after.ece < 0.02
    assert after.accuracy == before.accuracy


@pytest.mark.parametrize(("correct", "bound"), [(True, 0.2), (False, 5.0)])
def test_temperature_stays_within_its_bounds(correct, bound):
    labels = np.arange(70, dtype=np.uint8) % 7
    table = np.full((7, 7), 0.1, np.float32) + 0.3 * np.eye(7, dtype=np.float32)
    table = table[labels if correct else (labels + 1) % 7]
    assert fit_temperature(table, labels) == pytest.approx(bound, rel=1e-2)


def test_probabilities_of_zero_and_one_stay_finite():
    certain = np.eye(7, dtype=np.float32)
    for temperature in (0.2, 1, 5):
        table = at_temperature(certain, temperature)
        assert np.isfinite(table).all()
        np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-5)
    assert 0.2 <= fit_temperature(certain, np.array([0, 1, 2, 3, 4, 5, 5], np.uint8)) <= 5
