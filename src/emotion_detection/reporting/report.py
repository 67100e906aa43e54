"""Write a comparison as one HTML file that needs no network, and as Markdown for a pull request."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from emotion_detection.emotions import EMOTIONS
from emotion_detection.evaluation import paired
from emotion_detection.evaluation.metrics import kept_epoch
from emotion_detection.reporting.comparison import Comparison, SplitComparison, show_p
from emotion_detection.reporting.curves import curves_svg
from emotion_detection.reporting.evidence import describe_shadow
from emotion_detection.reporting.flips import FlipGroup
from emotion_detection.reporting.results import Results
from emotion_detection.reporting.templating import render


def html_report(comparison: Comparison, flips: Mapping[str, Sequence[FlipGroup]], why_no_flips: str) -> str:
    """The page. flips: groups of faces by split; why_no_flips: a sentence if there are none."""
    curves = curves_svg(comparison.base.history, comparison.head.history)
    return _render("report.html", comparison, flips=flips, why_no_flips=why_no_flips, curves=curves)


def markdown_report(comparison: Comparison) -> str:
    """Markdown without pictures, which a pull request can show."""
    return _render("report.md", comparison).strip() + "\n"


def _render(name: str, comparison: Comparison, **values: Any) -> str:
    functions = {"best_epoch": best_epoch, "origin_rows": origin_rows, "shade": shade, "paired_rows": paired_rows}
    return render(name, comparison=comparison, emotions=EMOTIONS, **functions, **values)


def points(gain: Any) -> str:
    """A gain with its interval in percentage points."""
    return f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"


def best_epoch(results: Results) -> str:
    """The epoch whose weights train.keep has chosen, and the number of epochs."""
    keep = results.params.get("train.keep", "val_macro_f1")
    score = "val_loss" if keep == "val_loss" else "val_macro_f1"
    scored = [row for row in results.history if math.isfinite(row.get(score, math.nan))]
    if not scored:
        return "not recorded"
    kept = scored[kept_epoch(scored, keep) - 1]
    return f"epoch {kept['epoch']:.0f} of {len(results.history)}" if kept["epoch"] else "the initial weights"


def origin_rows(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Where both sides are from: name, base, head. Lines that are empty on both sides are left out."""
    columns = [_origin(results) for results in (comparison.base, comparison.head)]
    rows = [(name, columns[0][name] or "not recorded", columns[1][name] or "not recorded") for name in columns[0]]
    return [row for row in rows if row[1:] != ("not recorded", "not recorded")]


def _origin(results: Results) -> dict[str, str]:
    origin = results.origin
    return {
        "reference": f"{origin.reference} ({origin.kind})",
        "name": origin.name,
        "commit": origin.commit[:12] + (" with local changes" if results.tags.get("git_dirty") == "true" else ""),
        "run": origin.run_id,
        "date": origin.date,
        "data": " ".join(filter(None, (results.dataset, results.digest[:12]))),
        "kept epoch": best_epoch(results) if results.history else "",
        "as challenger": describe_shadow(results.tags),
    }


def paired_rows(splits: Sequence[SplitComparison]) -> list[tuple[str, ...]]:
    """The paired tests as rows of text: split, faces, only head, only base, p, gains, detectable gain."""
    return [_paired_row(one.split, one.test) for one in splits]


def _paired_row(split: str, test: paired.Comparison) -> tuple[str, ...]:
    counts, gains = test.counts, test.gains
    p = show_p(test.mcnemar_p).removeprefix("= ")
    shown = (points(gains["accuracy"]), points(gains["macro_f1"]), f"{100 * test.detectable_gain:.1f}")
    return split, f"{test.rows:,}", f"{counts.only_head:,}", f"{counts.only_base:,}", p, *shown


def shade(change: int, row: int, column: int, largest: int) -> str:
    """The background of a cell of the confusion difference: green for the better, red for the worse."""
    better = (change > 0) == (row == column)
    strength = round(75 * min(abs(change) / max(largest, 1), 1))
    return f"color-mix(in srgb, var(--{'good' if better else 'bad'}) {strength}%, transparent)" if change else "none"
