"""The paper that every figure is drawn on: one style, whole files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure  # not pyplot: no global state, no window, safe in a thread

from emotion_detection.atomic import atomic_output

DPI = 150
GRAY = "#8A8A8A"
# Okabe and Ito's palette: told apart by colour-blind eyes too.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PALE = "#F5CE7B"  # orange, for what is only compared with
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": GRAY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "legend.frameon": False,
    "image.cmap": "gray",
}


@contextmanager
def saved_figure(path: Path, width_in: float, height_in: float) -> Iterator[Figure]:
    """A figure in the common style, written to `path` as a PNG if the block ends well, else not at all."""
    with rc_context(STYLE), atomic_output(path) as written:
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        yield figure
        # Without the library's version in it, the same numbers give the same bytes.
        figure.savefig(written, dpi=DPI, metadata={"Software": None})
