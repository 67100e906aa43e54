"""What speaks against a new model whatever it is compared with, and the result of a comparison in words."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emotion_detection.arrays import Images
from emotion_detection.config import Register
from emotion_detection.emotions import EMOTIONS
from emotion_detection.evaluation.metrics import Report
from emotion_detection.evaluation.paired import UNDECIDED, Comparison, Gain
from emotion_detection.inference.classifier import EmotionClassifier

TIMINGS = 15  # of one face; the median is little affected by other processes


@dataclass(frozen=True)
class Measurements:
    """What a model costs, and its weakest emotion. Rates are fractions of the faces of val."""

    weakest: str  # the emotion with the lowest recall
    min_recall: float
    ece: float
    ms: float  # for one face, in this process
    mb: float  # of the ONNX file

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def measure(path: Path, classifier: EmotionClassifier, report: Report, images: Images) -> Measurements:
    """Measure a model; `report` has its scores on val, and `images` at least one face, uint8 (n, 48, 48)."""
    weakest = int(np.nanargmin(report.recall))
    return Measurements(
        weakest=EMOTIONS[weakest],
        min_recall=float(report.recall[weakest]),
        ece=report.ece,
        ms=milliseconds(classifier, images[:1]),
        mb=path.stat().st_size / 1e6,
    )


def milliseconds(classifier: EmotionClassifier, images: Images) -> float:
    """The median time to classify these images."""
    classifier.probabilities(images)
    times = []
    for _ in range(TIMINGS):
        started = time.perf_counter()
        classifier.probabilities(images)
        times.append(time.perf_counter() - started)
    return float(np.median(times) * 1000)


def objections(measured: Measurements, limits: Register) -> list[str]:
    """Why a model must not replace another one, whatever the comparison says; empty if nothing speaks against it."""
    recall = f"its recall of {measured.weakest} is {measured.min_recall:.1%}"
    found = (
        (measured.min_recall < limits.min_recall, f"{recall} (min_recall: {limits.min_recall:g})"),
        (measured.ece > limits.max_ece, f"its calibration error is {measured.ece:.3f} (max_ece: {limits.max_ece:g})"),
        (measured.ms > limits.max_ms, f"a face takes {measured.ms:.0f} ms (max_ms: {limits.max_ms:g})"),
        (measured.mb > limits.max_mb, f"its file has {measured.mb:.1f} MB (max_mb: {limits.max_mb:g})"),
    )
    return [reason for applies, reason in found if applies]


def describe(comparison: Comparison, opponent: str) -> str:
    """The result in words: how many more faces are right, how sure that is, and what could have been shown."""
    counts = comparison.counts
    more = counts.only_head - counts.only_base
    faces = f"{abs(more):,} {'fewer' if more < 0 else 'more'} right of {comparison.rows:,}"
    text = f"{comparison.verdict} {'against' if comparison.verdict == UNDECIDED else 'than'} {opponent}: {faces} "
    text += f"({_p_value(comparison.mcnemar_p)}), macro-F1 {_points(comparison.gains['macro_f1'])}"
    if comparison.verdict != UNDECIDED:
        return text
    return f"{text}; this val set shows gains from {100 * comparison.detectable_gain:.1f} points"


def _p_value(p: float) -> str:
    """As the APA style prints it: p = .31."""
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".")


def _points(gain: Gain) -> str:
    return f"{100 * gain.value:+.1f} points [{100 * gain.low:.1f}, {100 * gain.high:.1f}]"
