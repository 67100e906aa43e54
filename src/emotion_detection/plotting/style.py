"""The common style of all figures, and writing them as PNG files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure  # unlike pyplot, thread-safe and without global state or a window

from emotion_detection.atomic import atomic_output

DPI = 150
GRAY = "#8A8A8A"
# The palette of Okabe and Ito, which people with color blindness can distinguish too.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PALE = "#F5CE7B"  # light orange, for values shown only for comparison
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
    """Yield a figure in the common style, and write it to `path` as a PNG file if the block succeeds."""
    with rc_context(STYLE), atomic_output(path) as temporary:
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        yield figure
        # Without the version of matplotlib in its metadata, equal figures are equal files.
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
