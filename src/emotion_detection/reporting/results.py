"""The results of one training, read from the files that the pipeline has written for it."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from emotion_detection.arrays import Labels, Probabilities
from emotion_detection.emotions import EMOTIONS, SPLITS
from emotion_detection.errors import DataError, shorten

METRICS, CLASSES, HISTORY, DATA_REPORT = "metrics.json", "classes.csv", "history.csv", "data_report.json"
PREDICTED_SPLITS = ("val", "test")
MAX_BYTES = 20_000_000  # of a file; the predictions of 3,589 faces have 0.3 MB
MAX_COUNT = 1_000_000_000  # of faces or epochs
RATES = ("precision", "recall", "recall_low", "recall_high", "f1")
# A tie after rounding to four digits must not change the predicted emotion.
TIE = 1e-5

Read = Callable[[str], bytes | None]  # the content of a file by its name in this module; None if there is none


@dataclass(frozen=True)
class Predictions:
    """The predictions of a split: labels u8 (n,), probabilities f32 (n, 7) in the order of EMOTIONS."""

    labels: Labels
    probabilities: Probabilities


@dataclass(frozen=True)
class Origin:
    """Where a result is from. An unknown value is ""."""

    reference: str  # as the user wrote it
    kind: str  # such as "commit", "experiment", "run" or "version"
    name: str = ""
    commit: str = ""
    run_id: str = ""
    date: str = ""


@dataclass(frozen=True)
class Results:
    """All that is known of a training. What was not found is empty, and `missing` names it."""

    origin: Origin
    metrics: Mapping[str, float] = field(default_factory=dict)
    classes: tuple[Mapping[str, str], ...] = ()  # rows of classes.csv
    predictions: Mapping[str, Predictions] = field(default_factory=dict)  # by split
    history: tuple[Mapping[str, float], ...] = ()  # rows of history.csv
    data: Mapping[str, Any] = field(default_factory=dict)  # the report of the prepare stage
    params: Mapping[str, Any] = field(default_factory=dict)  # flat, such as train.epochs
    tags: Mapping[str, str] = field(default_factory=dict)  # of the version or the run
    model: Path | None = None  # an ONNX file whose predictions can be computed if they were not recorded

    @property
    def digest(self) -> str:
        """The digest of the prepared faces; "" if it was not recorded."""
        return self._known("digest", "dataset_digest")

    @property
    def dataset(self) -> str:
        """The name of the data set; "" if it was not recorded."""
        return self._known("dataset", "dataset")

    def _known(self, key: str, tag: str) -> str:
        recorded = self.data.get(key)
        return (recorded if isinstance(recorded, str) else "") or self.tags.get(tag, "")

    @property
    def rows(self) -> dict[str, int]:
        """The number of faces of each split, as far as it was recorded."""
        counts = self.data.get("rows")
        found = {split: counts.get(split) for split in SPLITS} if isinstance(counts, Mapping) else {}
        return {split: count for split, count in found.items() if is_count(count)}

    @property
    def missing(self) -> list[str]:
        """What a complete report needs and this result lacks."""
        parts = {
            "metrics": self.metrics, "predictions": self.predictions, "learning curves": self.history,
            "settings": self.params, "data report": self.data,
        }  # fmt: skip
        return [name for name, part in parts.items() if not part]


def read_results(origin: Origin, read: Read, **known: Any) -> Results:
    """Parse the files of a result. `known` are further fields of Results. Raises DataError if a file is damaged."""
    found: dict[str, Any] = {
        "metrics": _parse(origin, METRICS, read, parse_metrics, {}),
        "classes": _parse(origin, CLASSES, read, parse_classes, ()),
        "history": _parse(origin, HISTORY, read, parse_history, ()),
        "data": _parse(origin, DATA_REPORT, read, parse_object, {}),
    }
    files = {
        split: _parse(origin, f"predictions_{split}.csv", read, parse_predictions, None) for split in PREDICTED_SPLITS
    }
    predictions = {split: parsed for split, parsed in files.items() if parsed is not None}
    return Results(origin, predictions=predictions, **(found | known))


def _parse(origin: Origin, name: str, read: Read, parse: Callable[[str], Any], default: Any) -> Any:
    content = read(name)
    if content is None:
        return default
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES // 1_000_000} MB")
        return parse(content.decode("utf-8"))
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, csv.Error, RecursionError) as error:
        raise DataError(
            f"{name} of {shorten(origin.reference)} is damaged ({shorten(error)}): repeat `dvc repro`, which writes it"
        ) from error


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value of others is a number of faces."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def parse_object(text: str) -> dict[str, Any]:
    """A JSON object, with None for NaN and infinity, which JSON does not have. Raises ValueError for anything else."""
    content = json.loads(text, parse_constant=lambda _: None)
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    return content


def parse_metrics(text: str) -> dict[str, float]:
    """Finite numbers by their names. Raises ValueError for anything else."""
    metrics = {str(name): float(value) for name, value in parse_object(text).items()}
    if not all(map(math.isfinite, metrics.values())):
        raise ValueError("it contains a number that is not finite")
    return metrics


def parse_classes(text: str) -> tuple[dict[str, str], ...]:
    """The rows of classes.csv. Raises ValueError or KeyError if a row is wrong."""
    return tuple(_parse_class(row) for row in csv.DictReader(io.StringIO(text)))


def _parse_class(row: Mapping[str, str]) -> dict[str, str]:
    """A row of classes.csv in the form in which `metrics.per_class` writes it. A rate without faces is NaN."""
    rates = {rate: float(row[rate]) for rate in RATES}
    support = int(row["support"])
    if not 0 <= support <= MAX_COUNT or any(abs(rate) > 1 for rate in rates.values()):
        raise ValueError("a row does not contain the scores of an emotion")
    known = {"split": row.get("split") or "", "emotion": EMOTIONS[EMOTIONS.index(row["emotion"])]}
    return known | {"support": str(support)} | {name: str(rate) for name, rate in rates.items()}


def parse_history(text: str) -> tuple[dict[str, float], ...]:
    """The rows of history.csv. Raises ValueError if a value is not a number."""
    rows = tuple({key: float(value) for key, value in row.items()} for row in csv.DictReader(io.StringIO(text)))
    if any(not 0 <= row.get("epoch", math.nan) <= MAX_COUNT for row in rows):
        raise ValueError("it has no epochs")
    return rows


def parse_predictions(text: str) -> Predictions:
    """The predictions of a split. Raises ValueError or KeyError if a row is wrong."""
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows:
        raise ValueError("it has no rows")
    labels = np.array([EMOTIONS.index(row["emotion"]) for row in rows], np.uint8)
    predicted = [EMOTIONS.index(row["predicted"]) for row in rows]
    table = np.array([[float(row[f"p_{emotion}"]) for emotion in EMOTIONS] for row in rows])
    table[np.arange(len(rows)), predicted] += TIE
    if not ((table >= 0).all() and np.allclose(table.sum(axis=1), 1, atol=0.01)):
        raise ValueError("a row does not contain probabilities")
    return Predictions(labels, (table / table.sum(axis=1, keepdims=True)).astype(np.float32))
