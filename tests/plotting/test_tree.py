"""A tree as text and as a figure."""

import itertools

from matplotlib.axes import Axes
from PIL import Image

from emotion_detection.plotting.tree import Node, draw_tree, tree_lines

ROOT = Node("root", ("r",), (Node("first", (), (Node("old"),)), Node("second", ("s", "t"))))


def test_branches_are_indented():
    assert list(tree_lines(ROOT)) == ["root, r", "├─ first", "│  └─ old", "└─ second, s, t"]


def test_branch_that_occurs_again_is_shown_once():
    shared = Node("shared", (), (Node("old"),))
    root = Node("root", (), (Node("first", (), (shared,)), shared))
    shown = ["root", "├─ first", "│  └─ shared", "│     └─ old", "└─ shared (see above)"]
    assert list(tree_lines(root)) == shown
    assert list(tree_lines(*root.branches, indent="  "))[-1] == "  shared (see above)"


def test_figure_has_a_box_for_each_node_and_arrows_to_the_right(tmp_path, monkeypatch):
    shared = Node("shared")
    root = Node("root", (), (Node("first", (), (shared,)), shared, Node("second")))
    boxes, arrows = [], []
    monkeypatch.setattr(Axes, "add_patch", lambda _, box: boxes.append(box))
    monkeypatch.setattr(Axes, "annotate", lambda _, __, end, start, **___: arrows.append((start, end)))
    draw_tree(root, tmp_path / "tree.png", title="four")
    assert len(boxes) == 4
    assert len(arrows) == 4
    assert all(start[0] < end[0] for start, end in arrows)
    edges = sorted((box.get_x(), box.get_y(), box.get_height()) for box in boxes)
    for (left, top, height), (other_left, other_top, _) in itertools.pairwise(edges):
        assert left != other_left or top + height < other_top


def test_figure_grows_with_the_tree(tmp_path):
    draw_tree(Node("alone"), tmp_path / "alone.png", title="one")
    draw_tree(ROOT, tmp_path / "tree.png", title="four")
    sizes = [Image.open(tmp_path / name).size for name in ("alone.png", "tree.png")]
    assert sizes[0][0] < sizes[1][0]
    assert sizes[0][1] < sizes[1][1]


def test_names_are_no_formulas(tmp_path):
    draw_tree(Node(r"$\frac$", (r"$\nothing{$",)), tmp_path / "one.png", title=r"$\frac$")
    assert (tmp_path / "one.png").is_file()
