"""Compare two results: scores, paired tests, emotions, settings and data."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_detection.config import flatten, same_setting
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import shorten
from emotion_detection.evaluation import metrics, paired
from emotion_detection.reporting.results import PREDICTED_SPLITS, Results, is_count
from emotion_detection.reporting.templating import one_line

NOT_RECORDED = "not recorded"
UNREADABLE = "too long to be shown"
MAX_DATA = 80  # characters of a value of the data report
CONFIDENCE = 0.95
ECE_BINS = 15
SPLITS = ("val", "test", "test_clean")
TRAINING = "train."


@dataclass(frozen=True)
class Row:
    """A line of a table, as text. `is_better` is None if neither side is better or it cannot be said."""

    name: str
    base: str
    head: str
    change: str = ""
    is_better: bool | None = None


@dataclass(frozen=True)
class Kind:
    """How a score is shown: as a percentage or as a plain number, and whether a higher one is better."""

    label: str
    percent: bool = False
    higher_is_better: bool | None = True


SPLIT_SCORES = {
    "accuracy": Kind("accuracy", percent=True),
    "macro_f1": Kind("macro-F1"),
    "log_loss": Kind("log loss", higher_is_better=False),
    "ece": Kind("calibration error (ECE)", higher_is_better=False),
    "flip_accuracy": Kind("accuracy with the mirror image", percent=True),
}
FURTHER_SCORES = {
    "test_found_and_read_right": Kind("test faces found and read right", percent=True),
    "test_detected_share": Kind("test faces found by the detector", percent=True),
    "test_detected_accuracy": Kind("accuracy on the detector's crops", percent=True),
    "temperature": Kind("temperature", higher_is_better=None),
}


@dataclass(frozen=True)
class SplitComparison:
    """The same faces of a split, read by both models. The arrays are (n,); confusions are (7, 7) counts."""

    split: str
    labels: NDArray[np.uint8]
    base_predicted: NDArray[np.intp]
    head_predicted: NDArray[np.intp]
    test: paired.Comparison
    base_confusion: NDArray[np.intp]
    head_confusion: NDArray[np.intp]

    @property
    def fixed(self) -> NDArray[np.intp]:
        """The rows that only the head reads right."""
        return np.flatnonzero((self.base_predicted != self.labels) & (self.head_predicted == self.labels))

    @property
    def broken(self) -> NDArray[np.intp]:
        """The rows that only the base reads right."""
        return np.flatnonzero((self.base_predicted == self.labels) & (self.head_predicted != self.labels))

    @property
    def confusion_change(self) -> NDArray[np.intp]:
        """How many more faces the head puts into each cell: rows are true emotions, columns are predictions."""
        return self.head_confusion - self.base_confusion

    @property
    def largest_change(self) -> int:
        """The largest absolute value of `confusion_change`."""
        return int(np.abs(self.confusion_change).max())


@dataclass(frozen=True)
class Comparison:
    """All that differs between two results."""

    base: Results
    head: Results
    verdict: str
    notes: tuple[str, ...]  # what limits the comparison
    scores: tuple[Row, ...]
    splits: tuple[SplitComparison, ...]
    classes: Mapping[str, tuple[Row, ...]]  # by split
    settings: tuple[Row, ...]
    data: tuple[Row, ...]


def compare_results(base: Results, head: Results) -> Comparison:
    """Compare two results. What a side lacks, or what cannot be compared, is named in `notes`."""
    reason = why_not_paired(base, head)
    splits = (
        ()
        if reason
        else tuple(_compare_split(base, head, split) for split in PREDICTED_SPLITS if _both(base, head, split))
    )
    same_data = not (base.digest and head.digest) or base.digest == head.digest
    return Comparison(
        base=base,
        head=head,
        verdict=verdict(splits, reason),
        notes=tuple(_notes(base, head, reason)),
        scores=_changes(score_rows(base.metrics, head.metrics), same_data),
        splits=splits,
        classes={split: _changes(rows, same_data) for split, rows in class_rows(base, head).items()},
        settings=tuple(setting_rows(base.params, head.params)),
        data=tuple(data_rows(base, head)),
    )


def _changes(rows: Iterable[Row], same_data: bool) -> tuple[Row, ...]:
    """The rows; without changes if the data differ, because these compare different faces."""
    return tuple(row if same_data else replace(row, change="", is_better=None) for row in rows)


def why_not_paired(base: Results, head: Results) -> str:
    """Why the two models cannot be compared face by face; "" if they can."""
    if base.digest and head.digest and base.digest != head.digest:
        return "the data sets differ, so the scores are of different faces"
    shared = [split for split in PREDICTED_SPLITS if _both(base, head, split)]
    if not shared:
        return "the predictions of both sides are needed for the paired test"
    if any(not np.array_equal(base.predictions[split].labels, head.predictions[split].labels) for split in shared):
        return "the labels of the predictions differ, so the scores are of different faces"
    return ""


def _both(base: Results, head: Results, split: str) -> bool:
    return split in base.predictions and split in head.predictions


def _compare_split(base: Results, head: Results, split: str) -> SplitComparison:
    before, after = base.predictions[split], head.predictions[split]
    reports = [_report(results, split) for results in (base, head)]
    return SplitComparison(
        split=split,
        labels=before.labels,
        base_predicted=before.probabilities.argmax(axis=1),
        head_predicted=after.probabilities.argmax(axis=1),
        test=paired.compare(before.labels, before.probabilities, after.probabilities),
        base_confusion=reports[0].confusion,
        head_confusion=reports[1].confusion,
    )


def _report(results: Results, split: str) -> metrics.Report:
    predictions = results.predictions[split]
    return metrics.evaluate(predictions.labels, predictions.probabilities, confidence=CONFIDENCE, ece_bins=ECE_BINS)


def _notes(base: Results, head: Results, reason: str) -> list[str]:
    notes = [f"No paired test: {reason}."] if reason else []
    for side, results in (("Base", base), ("Head", head)):
        if results.missing:
            notes.append(f"{side} has no {', '.join(results.missing)}.")
    if not reason and not (base.digest and head.digest):
        notes.append("One side has no digest of its data. The labels agree row by row, so the faces count as the same.")
    return notes


def score_rows(base: Mapping[str, float], head: Mapping[str, float]) -> list[Row]:
    """The scores of each split with their intervals, then those of other measurements."""
    kinds = {
        f"{split}_{name}": Kind(f"{split} {kind.label}", kind.percent, kind.higher_is_better)
        for split in SPLITS
        for name, kind in SPLIT_SCORES.items()
    } | FURTHER_SCORES
    return [_score_row(key, kind, base, head) for key, kind in kinds.items() if key in base or key in head]


def _score_row(key: str, kind: Kind, base: Mapping[str, float], head: Mapping[str, float]) -> Row:
    before, after = (show_score(scores, key, percent=kind.percent) for scores in (base, head))
    if key not in base or key not in head:
        return Row(kind.label, before, after)
    change = head[key] - base[key]
    shown = f"{100 * change:+.1f}" if kind.percent else f"{change:+.3f}"
    same = not float(shown) or kind.higher_is_better is None
    return Row(kind.label, before, after, shown, None if same else (change > 0) == kind.higher_is_better)


def show_score(scores: Mapping[str, float], key: str, *, percent: bool) -> str:
    """A score with its interval, such as "70.1 % [68.6, 71.6]"."""
    if key not in scores:
        return NOT_RECORDED
    value, *bounds = (scores[name] for name in (key, f"{key}_low", f"{key}_high") if name in scores)
    show: Callable[[float], str] = (lambda x: f"{100 * x:.1f}") if percent else (lambda x: f"{x:.3f}")
    interval = f" [{show(bounds[0])}, {show(bounds[1])}]" if len(bounds) == 2 else ""
    return f"{show(value)}{' %' if percent else ''}{interval}"


def class_rows(base: Results, head: Results) -> dict[str, tuple[Row, ...]]:
    """The recall of each emotion with its interval, and the change of recall and F1, by split."""
    before, after = class_scores(base), class_scores(head)
    rows = {split: [_class_row(before, after, split, emotion) for emotion in EMOTIONS] for split in SPLITS}
    return {split: tuple(row for row in found if row is not None) for split, found in rows.items() if any(found)}


def class_scores(results: Results) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The rows of classes.csv by split and emotion; without this file, they are computed from the predictions."""
    rows: list[Mapping[str, Any]] = list(results.classes)
    if not rows:
        rows = [row for split in results.predictions for row in metrics.per_class(_report(results, split), split)]
    return {(row.get("split", ""), row["emotion"]): row for row in rows}


def _class_row(
    before: Mapping[tuple[str, str], Mapping[str, Any]],
    after: Mapping[tuple[str, str], Mapping[str, Any]],
    split: str,
    emotion: str,
) -> Row | None:
    key = (split, emotion)
    if key not in before and key not in after:
        return None
    name = f"{emotion} ({(after.get(key) or before[key])['support']})"
    first, second = (_show_recall(scores.get(key)) for scores in (before, after))
    if key not in before or key not in after:
        return Row(name, first, second)
    recall, f1 = (float(after[key][rate]) - float(before[key][rate]) for rate in ("recall", "f1"))
    if not np.isfinite([recall, f1]).all():  # a side has no faces of this emotion
        return Row(name, first, second)
    return Row(name, first, second, f"{100 * recall:+.0f}, F1 {f1:+.2f}", None if abs(f1) < 0.005 else f1 > 0)


def _show_recall(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return NOT_RECORDED
    recall, low, high, precision = (
        100 * float(row[key]) for key in ("recall", "recall_low", "recall_high", "precision")
    )
    return f"{recall:.0f} [{low:.0f}, {high:.0f}], precision {precision:.0f}".replace("nan", "–")


def setting_rows(base: Mapping[str, Any], head: Mapping[str, Any]) -> list[Row]:
    """The settings that differ. Sections that only one side has recorded are left out."""
    sections = [{key.partition(".")[0] for key in params} for params in (base, head)]
    shared = sections[0] & sections[1]
    keys = sorted(key for key in base.keys() | head.keys() if key.partition(".")[0] in shared)
    differing = [key for key in keys if key not in base or key not in head or not _same(key, base[key], head[key])]
    return [Row(key, _setting(base, key), _setting(head, key)) for key in differing]


def _setting(params: Mapping[str, Any], key: str) -> str:
    return show_setting(params[key]) if key in params else "not set"


def _same(key: str, left: Any, right: Any) -> bool:
    return bool(left == right) or (key.startswith(TRAINING) and same_setting(key.removeprefix(TRAINING), left, right))


def show_setting(value: Any) -> str:
    """A setting as params.yaml writes it."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    with suppress(ValueError, RecursionError):  # an integer with thousands of digits, or a deep tree
        return one_line(value)
    return UNREADABLE


def data_rows(base: Results, head: Results) -> list[Row]:
    """What differs between the data sets. Values that only one side has recorded are left out."""
    before, after = (flatten(one.data) | {"dataset": one.dataset, "digest": one.digest} for one in (base, head))
    keys = dict.fromkeys(["dataset", "digest", *sorted(before)])
    shared = [key for key in keys if key in after and before[key] != after[key] and before[key] and after[key]]
    rows = []
    for key in shared:
        numbers = [value for value in (before[key], after[key]) if is_count(value)]
        change = f"{numbers[1] - numbers[0]:+,}" if len(numbers) == 2 else ""
        rows.append(Row(key, _show_data(before[key]), _show_data(after[key]), change))
    return rows


def _show_data(value: Any) -> str:
    return f"{value:,}" if is_count(value) else shorten(value, MAX_DATA)


def verdict(splits: tuple[SplitComparison, ...], reason: str) -> str:
    """Whether the head is better on val, in a sentence."""
    on_val = next((one.test for one in splits if one.split == "val"), None)
    if on_val is None:
        return f"Not comparable: {reason or 'one side has no predictions for val'}."
    gain = on_val.counts.only_head - on_val.counts.only_base
    difference = f"{abs(gain):,} {'more' if gain > 0 else 'fewer'} right" if gain else "as many right"
    found = f"{difference} of {on_val.rows:,} faces on val (p {show_p(on_val.mcnemar_p)})"
    heading = {paired.BETTER: "Better", paired.WORSE: "Worse"}.get(on_val.verdict, "Undecided")
    gains = on_val.detectable_gain
    # A few faces cannot show any gain.
    shown = f"; these faces show gains from {100 * gains:.1f} points" if heading == "Undecided" and gains < 1 else ""
    return f"{heading}: {found}{shown}."


def show_p(value: float) -> str:
    """A p-value with two digits, such as "= 0.031"."""
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"
