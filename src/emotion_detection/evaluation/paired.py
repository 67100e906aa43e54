"""Compare two models on the same faces: McNemar's test, paired bootstrap intervals and the detectable gain."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom, norm

from emotion_detection.evaluation import metrics
from emotion_detection.evaluation.metrics import BOOTSTRAP_DRAWS, BOOTSTRAP_SEED, CLASSES, Floats, Ints

BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"
POWER = 0.8  # the usual one: a gain of this size is found in four of five comparisons


@dataclass(frozen=True)
class Counts:
    """How many faces which of the two models classifies correctly."""

    both_right: int
    only_base: int
    only_head: int
    both_wrong: int


@dataclass(frozen=True)
class Gain:
    """The score of head minus the score of base, as a fraction, and its paired bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`. Rates and gains are fractions: a gain of 0.015 is 1.5 points."""

    rows: int
    confidence: float
    counts: Counts
    mcnemar_p: float
    gains: dict[str, Gain]  # accuracy and macro_f1
    recall_gains: list[float]  # (7,) in the order of EMOTIONS; NaN for an emotion without rows
    detectable_gain: float  # in accuracy, with a power of 80 %

    @property
    def verdict(self) -> str:
        """Whether head is better or worse than base, or undecided.

        Better: McNemar's test rejects equality in favor of head, and macro-F1 does not fall. Worse: the test rejects
        it in favor of base, or the interval of the gain in macro-F1 is below 0. A promotion needs a proof; a doubt is
        enough against one.
        """
        significant = self.mcnemar_p < 1 - self.confidence
        accuracy, macro_f1 = self.gains["accuracy"], self.gains["macro_f1"]
        if (significant and accuracy.value < 0) or macro_f1.high < 0:
            return WORSE
        return BETTER if significant and macro_f1.value >= 0 else UNDECIDED

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"verdict": self.verdict}


def compare(labels: ArrayLike, base: ArrayLike, head: ArrayLike, *, confidence: float = 0.95) -> Comparison:
    """Compare the probabilities (n, 7) that two models return for the same faces with the integer labels (n,).

    `confidence` is the level of the intervals; the test rejects at 1 - confidence. Raises ValueError if there are no
    rows, if the shapes differ, or if a label is invalid.
    """
    truth, answers = np.asarray(labels), [np.asarray(table) for table in (base, head)]
    if any(table.shape != (len(truth), CLASSES) for table in answers):
        shapes = " and ".join(str(table.shape) for table in answers)
        raise ValueError(f"labels {truth.shape} need two tables of probabilities (n, {CLASSES}), not {shapes}")
    first, second = (table.argmax(axis=1) for table in answers)
    values = [metrics.macro_f1(truth, predicted) for predicted in (first, second)]  # validates the labels
    right_first, right_second = first == truth, second == truth
    counts = Counts(
        both_right=int((right_first & right_second).sum()),
        only_base=int((right_first & ~right_second).sum()),
        only_head=int((right_second & ~right_first).sum()),
        both_wrong=int((~right_first & ~right_second).sum()),
    )
    gains = {"accuracy": (counts.only_head - counts.only_base) / len(truth), "macro_f1": values[1] - values[0]}
    intervals = _bootstrap(truth, first, second, confidence)
    return Comparison(
        rows=len(truth),
        confidence=confidence,
        counts=counts,
        mcnemar_p=mcnemar(counts.only_base, counts.only_head),
        gains={name: Gain(value, *intervals[name]) for name, value in gains.items()},
        recall_gains=[_gain_of_class(truth == label, right_first, right_second) for label in range(CLASSES)],
        detectable_gain=detectable_gain(counts.only_base + counts.only_head, len(truth), confidence=confidence),
    )


def mcnemar(only_base: int, only_head: int) -> float:
    """The two-sided p-value of McNemar's mid-p test, from the faces that only one of two models classifies correctly.

    The mid-p version keeps the level for few and for many faces, where the exact test is conservative (Fagerland,
    Lydersen and Laake 2013, doi 10.1186/1471-2288-13-91).
    """
    discordant, fewer = only_base + only_head, min(only_base, only_head)
    return min(1.0, float(2 * binom.cdf(fewer, discordant, 0.5) - binom.pmf(fewer, discordant, 0.5)))


def detectable_gain(discordant: int, rows: int, *, confidence: float, power: float = POWER) -> float:
    """The smallest gain in accuracy that McNemar's test shows with this power (Connor 1987, doi 10.2307/2531961).

    The faces that only one of the models classifies correctly number `discordant` of `rows`. A gain cannot be larger
    than their share, so a share that is too small for any proof counts as the smallest one that allows it. For very few
    rows, this is more than 1: they cannot show any gain.
    """
    alpha, beta = norm.ppf((1 + confidence) / 2), norm.ppf(power)
    share = max(discordant / rows, (alpha + beta) ** 2 / rows)
    # The positive root of gain * sqrt(rows) = alpha * sqrt(share) + beta * sqrt(share - gain ** 2).
    root = np.sqrt(max(rows * alpha**2 + (rows + beta**2) * (beta**2 - alpha**2), 0))
    return float(np.sqrt(share) * (np.sqrt(rows) * alpha + root) / (rows + beta**2))


def _gain_of_class(rows: ArrayLike, right_first: ArrayLike, right_second: ArrayLike) -> float:
    """The gain in recall of the emotion that these rows have."""
    chosen = np.asarray(rows)
    if not chosen.any():
        return float("nan")
    return float(np.asarray(right_second)[chosen].mean() - np.asarray(right_first)[chosen].mean())


def _bootstrap(labels: Ints, first: Ints, second: Ints, confidence: float) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the gains (Efron 1979), by resampling rows with both answers.

    As in metrics: counts of n rows drawn with replacement are a multinomial draw from the counts of the combinations of
    label and two answers, so 2,000 resamples take milliseconds.
    """
    cells = np.bincount((labels.astype(np.intp) * CLASSES + first) * CLASSES + second, minlength=CLASSES**3)
    draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(len(labels), cells / len(labels), BOOTSTRAP_DRAWS)
    cubes = draws.reshape(-1, CLASSES, CLASSES, CLASSES)
    before, after = cubes.sum(axis=3), cubes.sum(axis=2)  # confusion matrices (2000, 7, 7)
    gains = {
        "accuracy": (_correct(after) - _correct(before)) / len(labels),
        "macro_f1": metrics.mean_f1(after) - metrics.mean_f1(before),
    }
    levels = [(1 - confidence) / 2, (1 + confidence) / 2]
    quantiles = {name: np.quantile(values, levels) for name, values in gains.items()}
    return {name: (float(low), float(high)) for name, (low, high) in quantiles.items()}


def _correct(confusions: Ints) -> Floats:
    """How many rows are classified correctly, (n,) of confusion matrices (n, 7, 7)."""
    return np.trace(confusions, axis1=1, axis2=2).astype(np.float64)
