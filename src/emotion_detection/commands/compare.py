"""Compare the latest trainings: when they ran, what differs between their settings, and what they score."""

import re
from typing import TYPE_CHECKING

from emotion_detection.errors import UsageError, shorten

if TYPE_CHECKING:
    from emotion_detection.experiments.overview import RunSummary

HEADINGS = ("run", "started", "val macro-F1", "test accuracy", "what differs")
WIDEST_NAME = 40
MOST_CHANGES = 5


def compare(*, last: int = 10) -> None:
    """Print a line for each of the latest trainings.

    Parameters
    ----------
    last:
        How many trainings to show.
    """
    if last < 1:
        raise UsageError(f"--last is {last}: use 1 or more")
    from emotion_detection.experiments import overview  # MLflow takes seconds to import

    found = overview.latest_runs(last)
    if not found:
        print("There are no runs yet: `dvc repro` makes one")
        return
    differences = overview.deviations(found)
    rows = [_row(run, different) for run, different in zip(found, differences, strict=True)]
    print("\n".join(format_table([HEADINGS, *rows])))


def _row(run: "RunSummary", different: dict[str, str]) -> tuple[str, ...]:
    name = shorten(re.sub(r" \(\d\d \w{3} \d\d:\d\d\)$", "", run.name), WIDEST_NAME)  # the time has its own column
    scores = (f"{run.scores[key]:.4f}" if key in run.scores else "–" for key in ("val_macro_f1", "test_accuracy"))
    changes = [f"{key}={value}" for key, value in different.items()]
    if len(changes) > MOST_CHANGES:
        changes[MOST_CHANGES - 1 :] = [f"and {len(changes) - MOST_CHANGES + 1} more"]
    state = [] if run.status == "FINISHED" else [run.status.lower()]
    return name, f"{run.started:%d %b %H:%M}", *scores, ", ".join([*state, *changes]) or "–"


def format_table(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines with aligned columns; the last column has its own width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
