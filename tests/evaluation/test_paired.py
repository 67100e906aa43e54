"""The paired comparison, against values by hand, scipy's exact test, resampled rows and simulated experiments."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest
from sklearn.metrics import f1_score

from emotion_detection.evaluation.paired import compare, detectable_gain, mcnemar

ROWS = 700
TRUTH = np.arange(ROWS) % 7


def answers(right):
    """Probabilities of a model that is right for these rows; otherwise it names the next emotion."""
    return np.eye(7)[np.where(right, TRUTH, (TRUTH + 1) % 7)] * 0.93 + 0.01


def share(percent, *, start=0):
    """Rows of all emotions, in percent of all."""
    place = np.arange(ROWS) // 7  # 0..99
    return (place >= start) & (place < start + percent)


def mean_f1(truth, predicted):
    """scikit-learn's macro-F1, but fast."""
    table = np.bincount(truth * 7 + predicted, minlength=49).reshape(7, 7)
    return np.mean(2 * np.diag(table) / (table.sum(axis=0) + table.sum(axis=1)))


def test_counts_and_gains_by_hand():
    result = compare(TRUTH, answers(share(60)), answers(share(55) | share(10, start=70)))
    counts = result.counts
    assert (counts.both_right, counts.only_base, counts.only_head, counts.both_wrong) == (385, 35, 70, 210)
    assert result.rows == ROWS
    assert result.gains["accuracy"].value == pytest.approx(0.05)
    assert result.recall_gains == pytest.approx([0.05] * 7)
    assert result.mcnemar_p == pytest.approx(0.0006, abs=0.0003)
    assert result.verdict == "better"


@pytest.mark.parametrize(("fewer", "more"), [(0, 5), (0, 6), (3, 11), (40, 60), (200, 260)])
def test_p_value_is_the_exact_one_less_half_of_the_observed_outcome(fewer, more):
    exact = binomtest(fewer, fewer + more).pvalue
    expected = exact - binom.pmf(fewer, fewer + more, 0.5)
    assert mcnemar(fewer, more) == pytest.approx(expected)
    assert mcnemar(more, fewer) == mcnemar(fewer, more)


def test_equal_models_are_undecided():
    assert [mcnemar(0, 0), mcnemar(7, 7)] == pytest.approx([1, 1])
    result = compare(TRUTH, answers(share(60)), answers(share(60)))
    assert (result.verdict, result.mcnemar_p, result.gains["macro_f1"].high) == ("undecided", 1, 0)


@pytest.mark.parametrize(
    ("head", "verdict"),
    [
        (share(55), "worse"),
        (share(60) | share(1, start=60), "better"),  # 7 faces more, and none fewer
        (share(58) | share(3, start=60), "undecided"),
        (share(62, start=4), "undecided"),
    ],
)
def test_verdicts(head, verdict):
    assert compare(TRUTH, answers(share(60)), answers(head)).verdict == verdict


def test_higher_accuracy_with_a_lost_emotion_is_not_better():
    """The share of right faces rises, but the rarest emotion is never read."""
    truth = np.where(np.arange(1000) < 20, 1, 3)
    base = np.where(np.arange(1000) < 900, truth, (truth + 1) % 7)
    head = np.where(np.arange(1000) >= 20, truth, 3)
    result = compare(truth, np.eye(7)[base], np.eye(7)[head])
    assert result.gains["accuracy"].value > 0
    assert result.mcnemar_p < 0.001
    assert result.gains["macro_f1"].value < 0
    assert result.verdict == "worse"


def test_higher_confidence_needs_more_proof():
    tables = answers(share(60)), answers(share(60) | share(1, start=60))
    assert compare(TRUTH, *tables, confidence=0.999).verdict == "undecided"


def test_intervals_agree_with_resampled_rows():
    rng = np.random.default_rng(3)
    base, head = (answers(rng.random(ROWS) < accuracy) for accuracy in (0.6, 0.64))
    result = compare(TRUTH, base, head)
    predicted = [table.argmax(axis=1) for table in (base, head)]
    draws = rng.integers(0, ROWS, (3000, ROWS))
    scores = [[mean_f1(TRUTH[rows], answer[rows]) for rows in draws] for answer in predicted]
    expected = np.quantile(np.subtract(scores[1], scores[0]), [0.025, 0.975])
    found = result.gains["macro_f1"]
    assert [found.low, found.high] == pytest.approx(list(expected), abs=0.005)
    assert mean_f1(TRUTH, predicted[0]) == pytest.approx(f1_score(TRUTH, predicted[0], average="macro"))
    assert found.low < found.value < found.high
    assert compare(TRUTH, base, head) == result  # the same seed


def test_error_rate_and_power_are_those_that_are_stated():
    """Simulated experiments on 3,589 faces, of which one of the models alone reads a tenth."""
    rng, rows, discordant = np.random.default_rng(0), 3589, 0.1
    gain = detectable_gain(round(rows * discordant), rows, confidence=0.95)
    assert gain == pytest.approx(0.0148, abs=0.0002)

    def rejected(true_gain):
        each = [(discordant - true_gain) / 2, (discordant + true_gain) / 2, 1 - discordant]
        counts = rng.multinomial(rows, each, 2000)
        return np.mean([mcnemar(base, head) < 0.05 for base, head, _ in counts])

    assert rejected(0) == pytest.approx(0.05, abs=0.015)
    assert rejected(gain) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("discordant", [0, 3, 50])
def test_detectable_gain_needs_at_least_eight_faces(discordant):
    gain = detectable_gain(discordant, 1000, confidence=0.95)
    assert gain >= 7.8 / 1000
    assert gain <= max(discordant / 1000, 7.9 / 1000)


@pytest.mark.parametrize("discordant", [0, 2])
@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.filterwarnings("error")
def test_a_few_faces_cannot_show_any_gain(discordant, rows):
    assert 1 < detectable_gain(discordant, rows, confidence=0.95) < 3


def test_p_value_is_at_most_one():
    assert max(mcnemar(each, each) for each in range(200)) == 1


def test_result_is_plain_for_json():
    plain = compare(TRUTH, answers(share(60)), answers(share(55))).as_dict()
    assert plain["verdict"] == "worse"
    assert set(plain["gains"]["accuracy"]) == {"value", "low", "high"}
    assert plain["counts"]["only_base"] == 35


@pytest.mark.parametrize(
    ("labels", "base", "head"),
    [
        (TRUTH, np.eye(7)[TRUTH], np.eye(7)[TRUTH][1:]),
        (TRUTH, np.eye(6)[TRUTH % 6], np.eye(7)[TRUTH]),
        (np.array([], int), np.empty((0, 7)), np.empty((0, 7))),
        (np.full(ROWS, 7), np.eye(7)[TRUTH], np.eye(7)[TRUTH]),
    ],
)
def test_wrong_shapes_and_labels_raise(labels, base, head):
    with pytest.raises(ValueError, match="labels"):
        compare(labels, base, head)
