"""A figure is written completely or not at all, and drawing it has no side effects."""

import matplotlib
import pytest

from emotion_detection.plotting.style import saved_figure


def draw(path):
    with saved_figure(path, 1, 1) as figure:
        figure.subplots().set_title("title")


def test_style_of_other_figures_is_not_changed(tmp_path):
    before = dict(matplotlib.rcParams)
    draw(tmp_path / "figure.png")
    assert dict(matplotlib.rcParams) == before


def test_missing_folder_is_created(tmp_path):
    draw(tmp_path / "absent" / "figure.png")
    assert [file.name for file in (tmp_path / "absent").iterdir()] == ["figure.png"]


def test_file_in_place_of_the_folder_is_an_error_and_is_kept(tmp_path):
    (tmp_path / "taken").write_bytes(b"old")
    with pytest.raises(OSError, match="taken"):
        draw(tmp_path / "taken" / "figure.png")
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]
    assert (tmp_path / "taken").read_bytes() == b"old"


def test_failed_drawing_keeps_the_old_figure(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), saved_figure(path, 1, 1):
        raise KeyError
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]
    assert path.read_bytes() == b"old"


def test_failed_write_leaves_no_partial_figure(tmp_path, monkeypatch):
    def fail(_figure, file, **_):
        file.write_bytes(b"half an image")
        raise OSError("no space left")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="no space left"):
        draw(tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())


def test_failed_replacement_keeps_the_old_figure(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("not permitted")

    (tmp_path / "figure.png").write_bytes(b"old")
    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="not permitted"):
        draw(tmp_path / "figure.png")
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]
    assert (tmp_path / "figure.png").read_bytes() == b"old"
