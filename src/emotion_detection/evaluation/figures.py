"""Figures of a model's scores and of its training. Each function writes one PNG file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from emotion_detection.data.dataset import Faces
from emotion_detection.emotions import EMOTIONS
from emotion_detection.evaluation.metrics import Report, kept_epoch
from emotion_detection.plotting.face_grid import MAX_FACES, captioned_faces
from emotion_detection.plotting.style import BLUE, GRAY, GREEN, ORANGE, PALE, RED, saved_figure


def mistakes(faces: Faces, probabilities: NDArray[np.floating], *, path: Path) -> None:
    """Draw the most confident mistakes, at most MAX_FACES: true → predicted emotion and its probability.

    FER-2013's images have no license: write this figure to build/ and do not commit it.
    """
    predicted, top = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != faces.labels)
    worst = wrong[np.argsort(-top[wrong], kind="stable")][:MAX_FACES]
    rows = zip(faces.labels[worst], predicted[worst], top[worst], strict=True)
    captions = [f"{EMOTIONS[true]} →\n{EMOTIONS[prediction]} {confidence:.0%}" for true, prediction, confidence in rows]
    title = (
        f"{len(wrong):,} of {len(faces):,} faces are misclassified; the {len(worst)} most confident (true → predicted)"
    )
    captioned_faces(faces.images[worst], captions, path, title=title)


def confusion_matrix(report: Report, path: Path, *, title: str) -> None:
    """Draw the share of each true emotion (row) that each prediction (column) gets, and the count below it."""
    shares = report.confusion / np.maximum(report.support[:, None], 1)  # 0 for an emotion without rows
    names = [f"{emotion} ({rows:,})" for emotion, rows in zip(EMOTIONS, report.support, strict=True)]
    with saved_figure(path, 7.2, 6.2) as figure:
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), share in np.ndenumerate(shares):
            color = "white" if share > 0.65 else "#222222"  # readable on the darker blues
            weight = "bold" if row == column else "normal"
            count = f"{report.confusion[row, column]:,}"
            axes.text(column, row - 0.08, f"{share:.0%}", ha="center", color=color, fontsize=14, weight=weight)
            axes.text(column, row + 0.25, count, ha="center", color=color, fontsize=7.5)
        axes.set_xticks(range(len(EMOTIONS)), EMOTIONS, fontsize=11)
        axes.set_yticks(range(len(EMOTIONS)), names, fontsize=11)
        axes.set_xticks(np.arange(0.5, len(EMOTIONS) - 1), minor=True)
        axes.set_yticks(np.arange(0.5, len(EMOTIONS) - 1), minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.set_xlabel("predicted", fontsize=11)
        axes.set_ylabel("true (faces)", fontsize=11)
        axes.set_title(title)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)


def per_class_scores(report: Report, path: Path, *, title: str) -> None:
    """Draw recall with its interval, precision and F1 of each emotion as grouped bars. NaN leaves a gap."""
    width = 0.26
    positions = np.arange(len(EMOTIONS))
    whiskers = np.abs([report.recall - report.recall_low, report.recall_high - report.recall])
    with saved_figure(path, 8, 3.6) as figure:
        axes = figure.subplots()
        axes.bar(positions - width, report.recall, width, yerr=whiskers, capsize=2, color=BLUE, label="recall")
        axes.bar(positions, report.precision, width, color=ORANGE, label="precision")
        axes.bar(positions + width, report.f1, width, color=GREEN, label="F1")
        axes.axhline(report.macro_f1, color=GRAY, linestyle="--", linewidth=1, label="macro-F1")
        names = [f"{emotion}\n{rows:,}" for emotion, rows in zip(EMOTIONS, report.support, strict=True)]
        axes.set_xticks(positions, names)
        axes.set(ylim=(0, 1), title=title)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="y")
        figure.legend(loc="outside lower center", ncols=4)


def reliability(report: Report, path: Path, *, title: str, raw: Report | None = None) -> None:
    """Draw the accuracy over the confidence in the report's bins, with the number of faces below, and the ECE.

    raw: the report of the same rows before calibration, drawn as a pale line.
    """
    bins = report.calibration
    edges = np.linspace(0, 1, len(bins.counts) + 1)
    with saved_figure(path, 4.8, 5.4) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        shares = upper.bar(edges[:-1], bins.accuracy, np.diff(edges), align="edge", color=BLUE, edgecolor="white")
        upper.plot(bins.confidence, bins.confidence, "_", color=RED, markersize=11, markeredgewidth=2)
        upper.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1)
        names, ece = ["accuracy", "mean confidence", "perfect calibration"], f"ECE {report.ece:.1%}"
        if raw is not None:
            before = raw.calibration
            upper.plot(before.confidence, before.accuracy, color=PALE, marker=".")
            names, ece = [*names, "before calibration"], f"{ece}, {raw.ece:.1%} before calibration"
        upper.legend([shares, *upper.lines], names, loc="upper left")
        upper.set(ylim=(0, 1), ylabel="accuracy", title=f"{title}: {ece}")
        upper.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        lower.bar(edges[:-1], bins.counts, np.diff(edges), align="edge", color=GRAY, edgecolor="white")
        lower.set(xlim=(0, 1), xlabel="probability of the predicted emotion", ylabel="faces")
        lower.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        for axes in (upper, lower):
            axes.grid(axis="y")


def learning_curves(history: Sequence[dict[str, float]], path: Path, *, keep: str = "val_macro_f1") -> None:
    """Draw accuracy, loss and learning rate over the epochs, and mark the epoch that train.keep chooses.

    A row of the history has epoch, loss, accuracy, val_loss, val_accuracy, val_macro_f1 and learning_rate. Epoch 0 has
    the initial weights.
    """
    if not history:
        raise ValueError("the history has no epochs to draw")
    kept = history[kept_epoch(history, keep) - 1]
    chosen = f"{'best at' if keep == 'val_macro_f1' else 'kept'} epoch {kept['epoch']:.0f}"
    with saved_figure(path, 11, 3.6) as figure:
        scores, losses, rates = figure.subplots(1, 3, width_ratios=[2, 2, 1])
        _curves(scores, history, {"accuracy": GRAY, "val_accuracy": BLUE, "val_macro_f1": ORANGE})
        _curves(losses, history, {"loss": GRAY, "val_loss": BLUE})
        _curves(rates, history, {"learning_rate": GREEN})
        about = f": {chosen}," if kept["epoch"] else " of the initial weights:"
        scores.set_title(f"Accuracy and macro-F1{about} {kept['val_macro_f1']:.1%}")
        scores.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        losses.set_title("Loss")
        rates.set_title("Learning rate")
        for axes in (scores, losses, rates):
            axes.axvline(kept["epoch"], color=RED, linestyle="--", linewidth=1, zorder=0)


def _curves(axes: Axes, history: Sequence[dict[str, float]], colors: dict[str, str]) -> None:
    epochs = [row["epoch"] for row in history]
    for key, color in colors.items():
        marker = "o" if len(history) == 1 else None  # a line with a single point is invisible
        axes.plot(epochs, [row[key] for row in history], color=color, label=key, marker=marker)
    if len(colors) > 1:
        axes.legend()
    axes.set_xlabel("epoch")
    if len(history) == 1:
        axes.set_xlim(epochs[0] - 1.5, epochs[0] + 1.5)  # a narrower axis would get ticks between epochs
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(axis="y")
