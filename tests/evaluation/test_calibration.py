"""Temperature scaling: probabilities that were made too sure are made right again."""

import numpy as np
import pytest

from emotion_detection.evaluation.calibration import at_temperature, fit_temperature
from emotion_detection.evaluation.metrics import evaluate


def honest(rows=20_000, seed=0):
    """Probabilities f32 (n,7) and labels u8 (n,) drawn with just these probabilities."""
    rng = np.random.default_rng(seed)
    probabilities = softmax(rng.normal(0, 2, (rows, 7)))
    labels = (probabilities.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
    return probabilities.astype(np.float32), np.minimum(labels, 6).astype(np.uint8)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_a_temperature_is_that_of_a_softmax():
    logits = np.random.default_rng(0).normal(0, 5, (50, 7))
    probabilities = softmax(logits).astype(np.float32)
    cooled = at_temperature(probabilities, 2.5)
    assert cooled.dtype == np.float32
    np.testing.assert_allclose(cooled, softmax(logits / 2.5), atol=1e-5)
    np.testing.assert_allclose(at_temperature(cooled, 1 / 2.5), probabilities, atol=1e-4)  # undone
    np.testing.assert_array_equal(cooled.argmax(axis=1), probabilities.argmax(axis=1))


def test_honest_probabilities_are_left_as_they_are():
    assert fit_temperature(*honest()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("temperature", [0.5, 1.5, 3.0])
def test_what_was_made_too_sure_or_unsure_is_found(temperature):
    probabilities, labels = honest()
    spoilt = at_temperature(probabilities, 1 / temperature)
    assert fit_temperature(spoilt, labels) == pytest.approx(temperature, rel=0.03)


def test_calibration_lowers_the_calibration_error_and_changes_no_decision():
    probabilities, labels = honest()
    spoilt = at_temperature(probabilities, 0.5)
    mended = at_temperature(spoilt, fit_temperature(spoilt, labels))
    before, after = (evaluate(labels, table, confidence=0.95, ece_bins=15) for table in (spoilt, mended))
    assert before.ece > 0.1
    assert after.ece < 0.02
    assert after.accuracy == before.accuracy


@pytest.mark.parametrize(("right", "bound"), [(True, 0.2), (False, 5.0)])
def test_a_temperature_stays_within_its_bounds(right, bound):
    labels = np.arange(70, dtype=np.uint8) % 7
    table = np.full((7, 7), 0.1, np.float32) + 0.3 * np.eye(7, dtype=np.float32)
    table = table[labels if right else (labels + 1) % 7]
    assert fit_temperature(table, labels) == pytest.approx(bound, rel=1e-2)


def test_probabilities_of_nought_and_one_are_numbers_after_it():
    sure = np.eye(7, dtype=np.float32)
    for temperature in (0.2, 1, 5):
        table = at_temperature(sure, temperature)
        assert np.isfinite(table).all()
        np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-5)
    assert 0.2 <= fit_temperature(sure, np.array([0, 1, 2, 3, 4, 5, 5], np.uint8)) <= 5
