"""The learning curves of two trainings as one SVG, which takes the colors of its page."""

import io
import math
import re
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emotion_detection.plotting.style import BLUE, ORANGE, STYLE

History = Sequence[Mapping[str, float]]  # rows of history.csv
PANELS = {
    "val_macro_f1": "macro-F1 on val",
    "val_accuracy": "accuracy on val",
    "val_loss": "loss on val",
    "loss": "loss on train",
}
MAX_DRAWN = 1e30
INK = "#010203"  # is replaced by the color of the text
FAINT = "#030201"  # is replaced by the color of lines


def curves_svg(base: History, head: History) -> str:
    """An <svg> with a panel for each curve, base in blue and head in orange; "" if there is no curve."""
    panels = [name for name in PANELS if _points([*base, *head], name)]
    if not panels:
        return ""
    colors = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), INK)
    style = (
        STYLE
        | colors
        | {"axes.edgecolor": FAINT, "grid.color": FAINT, "svg.fonttype": "none", "svg.hashsalt": "curves"}
    )
    with rc_context(style):
        figure = Figure(figsize=(3 * len(panels), 2.6), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _panel(axes, name, {"base": (base, BLUE), "head": (head, ORANGE)})
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(stream.getvalue())


def _panel(axes: Axes, name: str, sides: Mapping[str, tuple[History, str]]) -> None:
    for label, (history, color) in sides.items():
        points = _points(history, name)
        if points:
            axes.plot(*zip(*points, strict=True), color=color, label=label, marker="o" if len(points) == 1 else None)
    axes.set_title(PANELS[name])
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", linewidth=0.5)
    axes.legend()


def _points(history: History, name: str) -> list[tuple[float, float]]:
    """The points of a curve: epochs and values. Those that are too large to be drawn, or NaN, are left out."""
    return [(row["epoch"], row[name]) for row in history if abs(row.get(name, math.nan)) < MAX_DRAWN]


def _inline(svg: str) -> str:
    """An SVG file as a part of a page: without its head, as wide as its place, and in the page's colors."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r' xmlns(?::xlink)?="[^"]*"', "", body).replace("xlink:href", "href")  # HTML needs no namespaces
    body = re.sub(r' (?:width|height)="[\d.]+pt"', "", body, count=2)
    body = body.replace("<svg", '<svg role="img" aria-label="Learning curves of base and head"', 1)
    return body.replace(INK, "currentColor").replace(FAINT, "var(--line)")
