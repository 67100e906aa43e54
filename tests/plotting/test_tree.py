"""A tree as text and as a figure."""

from PIL import Image

from emotion_detection.plotting.tree import Node, draw_tree, tree_lines

ROOT = Node("root", ("r",), (Node("first", (), (Node("old"),)), Node("second", ("s", "t"))))


def test_branches_are_indented():
    assert list(tree_lines(ROOT)) == ["root, r", "├─ first", "│  └─ old", "└─ second, s, t"]


def test_figure_grows_with_the_tree(tmp_path):
    draw_tree(Node("alone"), tmp_path / "alone.png", title="one")
    draw_tree(ROOT, tmp_path / "tree.png", title="four")
    sizes = [Image.open(tmp_path / name).size for name in ("alone.png", "tree.png")]
    assert sizes[0][0] < sizes[1][0]
    assert sizes[0][1] < sizes[1][1]


def test_names_are_no_formulas(tmp_path):
    draw_tree(Node(r"$\frac$", (r"$\nothing{$",)), tmp_path / "one.png", title=r"$\frac$")
    assert (tmp_path / "one.png").is_file()
