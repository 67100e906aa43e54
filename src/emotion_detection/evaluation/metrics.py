"""How good a table of probabilities is: one Report with intervals, and its flat forms for files."""

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
# Fixed, so that the same predictions always give the same report: an interval is a measurement, not a result.
BOOTSTRAP_SEED = 0
SUM_TOLERANCE = 1e-3  # half precision on some accelerators; anything worse is not a softmax


@dataclass(frozen=True)
class Calibration:
    """Rows by their top probability, in equal-width bins over (0, 1]; each array is (bins,).

    counts int; confidence (mean top probability) and accuracy (share right) float, nan in an empty bin.
    """

    counts: Ints
    confidence: Floats
    accuracy: Floats


@dataclass(frozen=True)
class Report:
    """The score of one split. Rates are fractions of 1, log_loss is in nats, low and high bound an interval.

    Per-class arrays are float (7,) in the order of EMOTIONS, support int (7,); confusion is int (7,7), its
    rows the true emotions. A rate of 0/0 is nan: recall of an emotion without rows, precision of one that was
    never predicted.
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
    """Score probabilities (n,7) against labels int (n,); `confidence` is that of every interval, as in 0.95.

    ValueError when there are no rows, the shapes differ, or a row of probabilities is none.
    """
    truth, table = _checked(labels, probabilities)
    confusion = _confusion(truth, table.argmax(axis=1))
    right, support, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    accuracy_low, accuracy_high = _wilson(right.sum(), len(truth), confidence)
    recall_bounds = np.array([_wilson(k, n, confidence) for k, n in zip(right, support, strict=True)])
    macro_low, macro_high = _macro_f1_interval(confusion, confidence)
    bins = calibrate(truth, table, bins=ece_bins)
    return Report(
        rows=len(truth),
        accuracy=float(right.sum() / len(truth)),
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
        macro_f1=float(_mean(_f1(confusion))),
        macro_f1_low=macro_low,
        macro_f1_high=macro_high,
        log_loss=float(log_loss(truth, table, labels=range(CLASSES))),
        ece=_ece(bins),
        precision=_ratio(right, predicted),
        recall=_ratio(right, support),
        recall_low=recall_bounds[:, 0],
        recall_high=recall_bounds[:, 1],
        f1=_f1(confusion),
        support=support,
        confusion=confusion,
        calibration=bins,
    )


def macro_f1(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Mean F1 over the emotions, of labels int (n,) and predicted int (n,); the same as Report.macro_f1.

    An emotion that is predicted but has no rows, or the reverse, counts 0. One with neither was not measured
    and is left out of the mean (scikit-learn's zero_division=nan): a perfect prediction is always 1.0.
    ValueError when there are no rows, the shapes differ, or a label is none.
    """
    truth, guess = np.asarray(labels), np.asarray(predicted)
    if truth.shape != guess.shape:
        raise ValueError(f"labels and predicted differ in shape: {truth.shape} and {guess.shape}")
    _check_labels(truth)
    _check_labels(guess)
    return float(_mean(_f1(_confusion(truth, guess))))


def calibrate(labels: ArrayLike, probabilities: ArrayLike, *, bins: int) -> Calibration:
    """Confidence beside accuracy in `bins` equal-width bins ((m-1)/M, m/M], Guo et al. 2017, section 2."""
    truth, table = _checked(labels, probabilities)
    if bins < 1:
        raise ValueError(f"a calibration needs at least one bin, not {bins}")
    top = table.max(axis=1)
    place = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    right = np.bincount(place, weights=table.argmax(axis=1) == truth, minlength=bins)
    confidence = np.bincount(place, weights=top, minlength=bins)
    return Calibration(counts, confidence=_ratio(confidence, counts), accuracy=_ratio(right, counts))


def headline(report: Report, split: str) -> dict[str, float]:
    """The single numbers under flat keys, `val_accuracy` for split "val": the same in JSON, MLflow, DVC."""
    names = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "macro_f1_low", "macro_f1_high")
    return {f"{split}_{name}": float(getattr(report, name)) for name in (*names, "log_loss", "ece", "rows")}


def per_class(report: Report, split: str) -> list[dict[str, str | int | float]]:
    """One row for each emotion, ready for csv.DictWriter."""
    rates = ("precision", "recall", "recall_low", "recall_high", "f1")
    rows = []
    for label, emotion in enumerate(EMOTIONS):
        row: dict[str, str | int | float] = {"split": split, "emotion": emotion}
        row["support"] = int(report.support[label])
        rows.append(row | {rate: float(getattr(report, rate)[label]) for rate in rates})
    return rows


def _checked(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Ints, Floats]:
    truth, table = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if truth.ndim != 1 or table.shape != (len(truth), CLASSES):
        raise ValueError(f"labels must be (n,) and probabilities (n,{CLASSES}), not {truth.shape} and {table.shape}")
    _check_labels(truth)
    wrong = ~(np.isclose(table.sum(axis=1), 1, rtol=0, atol=SUM_TOLERANCE) & (table >= 0).all(axis=1))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"row {row} holds no probabilities: they must be >= 0 and sum to one, not {table[row]}")
    # float32 sums miss one by 1e-7, which scikit-learn warns about in float64.
    return truth.astype(np.intp), table / table.sum(axis=1, keepdims=True)


def _check_labels(labels: NDArray[np.generic]) -> None:
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"there must be at least one row to score, as labels (n,), not {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, not {labels.dtype}")
    if not np.isin(labels, range(CLASSES)).all():
        raise ValueError(f"labels must lie in 0..{CLASSES - 1}, not {labels.min()}..{labels.max()}")


def _confusion(labels: NDArray[np.generic], predicted: NDArray[np.generic]) -> Ints:
    matrix: Ints = confusion_matrix(labels, predicted, labels=range(CLASSES))
    return matrix


def _ratio(part: NDArray[np.generic], whole: NDArray[np.generic]) -> Floats:
    quotient = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=quotient, where=np.asarray(whole) > 0)


def _f1(confusion: Ints) -> Floats:
    """F1 (...,7) of confusions (...,7,7): 2 tp / (2 tp + fp + fn), van Rijsbergen 1979; nan where 0/0."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def _mean(scores: Floats) -> Floats:
    return np.asarray(np.nanmean(scores, axis=-1))


def _macro_f1_interval(confusion: Ints, confidence: float) -> tuple[float, float]:
    """Percentile bootstrap over rows (Efron 1979).

    The confusion matrix of n rows drawn with replacement is exactly a multinomial draw of n from the matrix's
    own shares, so 2,000 resamples cost milliseconds.
    """
    rows = int(confusion.sum())
    draws = np.random.default_rng(BOOTSTRAP_SEED).multinomial(rows, confusion.ravel() / rows, BOOTSTRAP_DRAWS)
    scores = _mean(_f1(draws.reshape(-1, CLASSES, CLASSES)))
    low, high = np.quantile(scores, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _wilson(hits: int, rows: int, confidence: float) -> tuple[float, float]:
    """Wilson 1927: stays inside [0, 1] and keeps its coverage for small classes; nan without rows."""
    if rows == 0:
        return float("nan"), float("nan")
    interval = binomtest(int(hits), int(rows)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def _ece(bins: Calibration) -> float:
    """Expected calibration error, Guo et al. 2017, equation 3: the gap of each bin, weighted by its rows."""
    gaps = np.abs(bins.accuracy - bins.confidence)
    return float(np.nansum(gaps * bins.counts) / bins.counts.sum())
