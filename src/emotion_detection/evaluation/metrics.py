"""Scores of predicted probabilities with confidence intervals, and their flat forms for files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, log_loss

from emotion_detection.emotions import EMOTIONS

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

CLASSES = len(EMOTIONS)
BOOTSTRAP_DRAWS = 2000
# Fixed, so that the same predictions always give the same intervals.
BOOTSTRAP_SEED = 0
SUM_TOLERANCE = 1e-3  # enough for half precision on accelerators


@dataclass(frozen=True)
class Calibration:
    """Rows binned by their highest probability, in equal-width bins over (0, 1]. Each array is (bins,).

    `confidence` is the mean highest probability of a bin and `accuracy` its share of correct predictions; both are
    NaN in an empty bin.
    """

    counts: Ints
    confidence: Floats
    accuracy: Floats


@dataclass(frozen=True)
class Report:
    """The scores of one split. Rates are between 0 and 1, log_loss is in nats, `_low` and `_high` bound an interval.

    Arrays of the classes are (7,) in the order of EMOTIONS. `confusion` is (7, 7); its rows are the true emotions.
    A rate of 0/0 is NaN: the recall of an emotion without rows, the precision of one that is never predicted.
    """

    rows: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    macro_f1_low: float
    macro_f1_high: float
    log_loss: float
    ece: float
    precision: Floats
    recall: Floats
    recall_low: Floats
    recall_high: Floats
    f1: Floats
    support: Ints
    confusion: Ints
    calibration: Calibration


def evaluate(labels: ArrayLike, probabilities: ArrayLike, *, confidence: float, ece_bins: int) -> Report:
    """Score probabilities (n, 7) against integer labels (n,).

    `confidence` is the level of all intervals, such as 0.95. Raises ValueError if there are no rows, if the shapes
    differ, or if a row does not contain probabilities.
    """
    truth, table = _validated(labels, probabilities)
    confusion = _confusion(truth, table.argmax(axis=1))
    correct, support, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    accuracy_low, accuracy_high = _wilson(correct.sum(), len(truth), confidence)
    recall_bounds = np.array([_wilson(k, n, confidence) for k, n in zip(correct, support, strict=True)])
    macro_low, macro_high = _macro_f1_interval(confusion, confidence)
    bins = calibrate(truth, table, bins=ece_bins)
    return Report(
        rows=len(truth),
        accuracy=float(correct.sum() / len(truth)),
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
        macro_f1=float(mean_f1(confusion)),
        macro_f1_low=macro_low,
        macro_f1_high=macro_high,
        log_loss=float(log_loss(truth, table, labels=range(CLASSES))),
        ece=_ece(bins),
        precision=_ratio(correct, predicted),
        recall=_ratio(correct, support),
        recall_low=recall_bounds[:, 0],
        recall_high=recall_bounds[:, 1],
        f1=_f1(confusion),
        support=support,
        confusion=confusion,
        calibration=bins,
    )


def macro_f1(labels: ArrayLike, predicted: ArrayLike) -> float:
    """The mean F1 of the emotions, from integer labels and predictions (n,). Equal to Report.macro_f1.

    An emotion that is predicted but has no rows counts as 0, and vice versa. One with neither is left out of the mean
    (scikit-learn's zero_division=nan), so a perfect prediction always scores 1. Raises ValueError if there are no
    rows, if the shapes differ, or if a label is invalid.
    """
    truth, prediction = np.asarray(labels), np.asarray(predicted)
    if truth.shape != prediction.shape:
        raise ValueError(f"labels and predicted differ in shape: {truth.shape} and {prediction.shape}")
    _check_labels(truth)
    _check_labels(prediction)
    return float(mean_f1(_confusion(truth, prediction)))


def calibrate(labels: ArrayLike, probabilities: ArrayLike, *, bins: int) -> Calibration:
    """Confidence and accuracy in `bins` equal-width bins ((m-1)/M, m/M], Guo et al. 2017, section 2."""
    truth, table = _validated(labels, probabilities)
    if bins < 1:
        raise ValueError(f"calibration needs at least one bin, not {bins}")
    top = table.max(axis=1)
    bin_of = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    correct = np.bincount(bin_of, weights=table.argmax(axis=1) == truth, minlength=bins)
    confidence = np.bincount(bin_of, weights=top, minlength=bins)
    return Calibration(counts, confidence=_ratio(confidence, counts), accuracy=_ratio(correct, counts))


def scalar_metrics(report: Report, split: str) -> dict[str, float]:
    """The scalar scores under flat keys such as val_accuracy, which JSON files, MLflow and DVC share."""
    names = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "macro_f1_low", "macro_f1_high")
    return {f"{split}_{name}": float(getattr(report, name)) for name in (*names, "log_loss", "ece", "rows")}


def per_class(report: Report, split: str) -> list[dict[str, str | int | float]]:
    """The scores of the emotions, one row each, for csv.DictWriter."""
    rates = ("precision", "recall", "recall_low", "recall_high", "f1")
    rows = []
    for label, emotion in enumerate(EMOTIONS):
        row: dict[str, str | int | float] = {"split": split, "emotion": emotion}
        row["support"] = int(report.support[label])
        rows.append(row | {rate: float(getattr(report, rate)[label]) for rate in rates})
    return rows


def _validated(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Ints, Floats]:
    truth, table = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if truth.ndim != 1 or table.shape != (len(truth), CLASSES):
        raise ValueError(f"labels must be (n,) and probabilities (n, {CLASSES}), not {truth.shape} and {table.shape}")
    _check_labels(truth)
    invalid = ~(np.isclose(table.sum(axis=1), 1, rtol=0, atol=SUM_TOLERANCE) & (table >= 0).all(axis=1))
    if invalid.any():
        row = int(invalid.argmax())
        raise ValueError(f"row {row} does not contain probabilities: they must be >= 0 and sum to 1, not {table[row]}")
    # The sums of float32 rows differ from 1 by 1e-7, about which scikit-learn warns in float64.
    return truth.astype(np.intp), table / table.sum(axis=1, keepdims=True)


def _check_labels(labels: NDArray[np.generic]) -> None:
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"labels must be (n,) with at least one row, not {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, not {labels.dtype}")
    if not np.isin(labels, range(CLASSES)).all():
        raise ValueError(f"labels must be in 0..{CLASSES - 1}, not {labels.min()}..{labels.max()}")


def _confusion(labels: NDArray[np.generic], predicted: NDArray[np.generic]) -> Ints:
    matrix: Ints = confusion_matrix(labels, predicted, labels=range(CLASSES))
    return matrix


def _ratio(numerator: NDArray[np.generic], denominator: NDArray[np.generic]) -> Floats:
    """The quotient, NaN where the denominator is 0."""
    quotient = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) > 0)


def _f1(confusion: Ints) -> Floats:
    """F1 (..., 7) of confusion matrices (..., 7, 7): 2 tp / (2 tp + fp + fn), van Rijsbergen 1979; NaN for 0/0."""
    true_positives = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(2 * true_positives, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def mean_f1(confusion: Ints) -> Floats:
    """The macro-F1 (...,) of confusion matrices (..., 7, 7), as in `macro_f1`."""
    return _mean(_f1(confusion))


def _mean(scores: Floats) -> Floats:
    return np.asarray(np.nanmean(scores, axis=-1))


def _macro_f1_interval(confusion: Ints, confidence: float) -> tuple[float, float]:
    """Percentile bootstrap over rows (Efron 1979).

    The confusion matrix of n rows drawn with replacement has exactly the multinomial distribution of n draws from the
    cells of the original matrix, so 2,000 resamples take milliseconds.
    """
    rows = int(confusion.sum())
    draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(rows, confusion.ravel() / rows, BOOTSTRAP_DRAWS)
    scores = mean_f1(draws.reshape(-1, CLASSES, CLASSES))
    low, high = np.quantile(scores, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _wilson(successes: int, rows: int, confidence: float) -> tuple[float, float]:
    """Wilson score interval (1927): stays within [0, 1] and is accurate for small classes; NaN without rows."""
    if rows == 0:
        return float("nan"), float("nan")
    interval = binomtest(int(successes), int(rows)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def _ece(bins: Calibration) -> float:
    """Expected calibration error, Guo et al. 2017, equation 3: the mean gap of the bins, weighted by their rows."""
    gaps = np.abs(bins.accuracy - bins.confidence)
    return float(np.nansum(gaps * bins.counts) / bins.counts.sum())


def kept_epoch(history: Sequence[Mapping[str, float]], keep: str) -> int:
    """The place of the epoch whose weights train.keep chooses, counted from 1; 0 without epochs.

    keep: val_macro_f1 or val_loss for the best epoch, the first one of equal scores; or last.
    """
    if keep == "last" or not history:
        return len(history)
    scores = [-row["val_loss"] if keep == "val_loss" else row["val_macro_f1"] for row in history]
    return 1 + scores.index(max(scores))
