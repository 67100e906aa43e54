"""A tree as text and as a figure. Branches that occur more than once are shown once."""

import textwrap
from collections.abc import Iterator, Mapping
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


def tree_lines(*roots: Node, indent: str = "") -> Iterator[str]:
    """Nodes and their branches as indented lines."""
    shown: set[Node] = set()
    for root in roots:
        yield from _lines(root, indent, indent, shown)


def _lines(node: Node, first: str, rest: str, shown: set[Node]) -> Iterator[str]:
    repeated = bool(node.branches) and node in shown
    shown.add(node)
    yield f"{first}{', '.join((node.title, *node.details))}{' (see above)' if repeated else ''}"
    for place, branch in enumerate(() if repeated else node.branches):
        last = place == len(node.branches) - 1
        yield from _lines(branch, f"{rest}{'└─ ' if last else '├─ '}", f"{rest}{'   ' if last else '│  '}", shown)


def draw_tree(root: Node, path: Path, *, title: str) -> None:
    """Write a PNG file with the root at the right and its branches to the left, which arrows connect."""
    depths: dict[Node, int] = {}
    _measure_depths(root, 0, depths)
    tops: dict[Node, float] = {}
    _place(root, depths, tops, {})
    columns = 1 + max(depths.values())
    height_in = max(top_in + _height(node) for node, top_in in tops.items())
    with saved_figure(path, columns * COLUMN_IN + 0.3, height_in + 0.6) as figure:
        axes = figure.subplots()
        axes.set(xlim=(-0.1, columns * COLUMN_IN), ylim=(height_in + 0.1, -0.1), xticks=[], yticks=[], aspect="equal")
        axes.spines[:].set_visible(False)
        axes.set_title(title, parse_math=False)
        lefts = {node: (columns - 1 - depth) * COLUMN_IN for node, depth in depths.items()}
        middles = {node: top_in + _height(node) / 2 for node, top_in in tops.items()}
        for node, left_in in lefts.items():
            axes.text(
                left_in + BOX_IN / 2, middles[node], "\n".join(node.lines), ha="center", va="center", fontsize=7,
                linespacing=1.2, parse_math=False,
            )  # fmt: skip
            edge = BLUE if node == root else GRAY
            box = Rectangle((left_in, tops[node]), BOX_IN, _height(node), facecolor="white", edgecolor=edge, zorder=2)
            axes.add_patch(box)  # above arrows that pass
            for branch in dict.fromkeys(node.branches):
                arrow = {"arrowstyle": "->", "color": GRAY}
                start = (lefts[branch] + BOX_IN, middles[branch])
                axes.annotate("", (left_in, middles[node]), start, arrowprops=arrow, zorder=1)


def _height(node: Node) -> float:
    return len(node.lines) * LINE_IN + 0.12


def _measure_depths(node: Node, depth: int, depths: dict[Node, int]) -> None:
    """Note the greatest distance of each node from the root, so that all arrows point to the right."""
    if depths.get(node, -1) < depth:
        depths[node] = depth
        for branch in node.branches:
            _measure_depths(branch, depth + 1, depths)


def _place(node: Node, depths: Mapping[Node, int], tops: dict[Node, float], bottoms: dict[int, float]) -> None:
    """Note the top of a node and of its branches: beside the middle of its branches, below others of its column."""
    for branch in node.branches:
        if branch not in tops:
            _place(branch, depths, tops, bottoms)
    depth = depths[node]
    middles = [tops[branch] + _height(branch) / 2 for branch in node.branches]
    wanted_in = sum(middles) / len(middles) - _height(node) / 2 if middles else 0.0
    tops[node] = max(wanted_in, bottoms.get(depth, 0.0))
    bottoms[depth] = tops[node] + _height(node) + GAP_IN
