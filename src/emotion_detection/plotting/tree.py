"""A tree as text and as a figure."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.patches import Rectangle

from emotion_detection.plotting.style import BLUE, GRAY, saved_figure

LINE = 36  # characters in a box of the figure
COLUMN_IN, LINE_IN, GAP_IN = 2.7, 0.15, 0.22
BOX_IN = 2.2  # width


@dataclass(frozen=True)
class Node:
    """A node: its title, more lines about it, and its branches."""

    title: str
    details: tuple[str, ...] = ()
    branches: tuple["Node", ...] = ()

    @property
    def lines(self) -> list[str]:
        """The lines of its box."""
        texts = (self.title, *self.details)
        return [line for text in texts for line in textwrap.wrap(text, LINE, break_long_words=True) or [""]]


def tree_lines(node: Node, first: str = "", rest: str = "") -> Iterator[str]:
    """A node and its branches as indented lines."""
    yield f"{first}{', '.join((node.title, *node.details))}"
    for place, branch in enumerate(node.branches):
        last = place == len(node.branches) - 1
        yield from tree_lines(branch, f"{rest}{'└─ ' if last else '├─ '}", f"{rest}{'   ' if last else '│  '}")


def draw_tree(root: Node, path: Path, *, title: str) -> None:
    """Write a PNG file with the root at the right and its branches to the left, which arrows connect."""
    placed = list(_place(root, depth=0, top_in=0.0)[1])
    columns = 1 + max(depth for _, depth, _, _ in placed)
    height_in = max(top_in + _height(node) for node, _, top_in, _ in placed)
    with saved_figure(path, columns * COLUMN_IN + 0.3, height_in + 0.6) as figure:
        axes = figure.subplots()
        axes.set(xlim=(-0.1, columns * COLUMN_IN), ylim=(height_in + 0.1, -0.1), xticks=[], yticks=[], aspect="equal")
        axes.spines[:].set_visible(False)
        axes.set_title(title, parse_math=False)
        for node, depth, top_in, branches in placed:
            left_in = (columns - 1 - depth) * COLUMN_IN
            middle_in = top_in + _height(node) / 2
            axes.text(
                left_in + BOX_IN / 2, middle_in, "\n".join(node.lines), ha="center", va="center", fontsize=7,
                linespacing=1.2, parse_math=False,
            )  # fmt: skip
            edge = GRAY if depth else BLUE
            axes.add_patch(Rectangle((left_in, top_in), BOX_IN, _height(node), fill=False, edgecolor=edge))
            for branch_in in branches:
                arrow = {"arrowstyle": "->", "color": GRAY}
                start = (left_in - COLUMN_IN + BOX_IN, branch_in)
                axes.annotate("", (left_in, middle_in), start, arrowprops=arrow)


def _height(node: Node) -> float:
    return len(node.lines) * LINE_IN + 0.12


Placed = tuple[Node, int, float, list[float]]  # the node, its column, its top, and the middles of its branches


def _place(node: Node, *, depth: int, top_in: float) -> tuple[float, list[Placed]]:
    """The bottom of a node with its branches, and where each of them is."""
    placed: list[Placed] = []
    middles, bottom_in = [], top_in
    for branch in node.branches:
        bottom_in, below = _place(branch, depth=depth + 1, top_in=bottom_in)
        placed += below
        middles.append(below[-1][2] + _height(branch) / 2)
    middle_in = (middles[0] + middles[-1]) / 2 if middles else top_in + _height(node) / 2
    own_top_in = max(top_in, middle_in - _height(node) / 2)
    return max(bottom_in, own_top_in + _height(node) + GAP_IN), [*placed, (node, depth, own_top_in, middles)]
