"""Figures of a data set."""

import numpy as np
import pytest
from tests.support.fer_files import random_faces
from tests.support.figures import check_figure

from emotion_detection.data import figures
from emotion_detection.data.dataset import Faces
from emotion_detection.data.splits import find_duplicates
from emotion_detection.emotions import EMOTIONS

FACES = random_faces()
NO_FACES = FACES[np.zeros(len(FACES), bool)]
DOUBLED = FACES[np.tile(np.arange(len(FACES)), 2)]

DRAWINGS = {
    "classes": lambda path: figures.classes_per_split(FACES, path),
    "classes of one split": lambda path: figures.classes_per_split(FACES.of("val"), path),
    "contact sheet": lambda path: figures.contact_sheet(FACES, path),
    "empty contact sheet": lambda path: figures.contact_sheet(NO_FACES, path),
    "duplicates": lambda path: figures.duplicates_sheet(DOUBLED, find_duplicates(DOUBLED).groups, path=path),
    "no duplicates": lambda path: figures.duplicates_sheet(FACES, (), path=path),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS.keys())
@pytest.mark.filterwarnings("error::UserWarning")
def test_figure_is_readable(draw, tmp_path):
    draw(tmp_path / "figure.png")
    check_figure(tmp_path / "figure.png")
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]


def test_equal_faces_give_equal_files(tmp_path):
    for name in ("first.png", "second.png"):
        figures.contact_sheet(FACES, tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_duplicates_with_conflicting_labels_come_first(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(figures, "captioned_faces", lambda *arguments, **_: calls.append(arguments))
    images = np.zeros((6, 48, 48), np.uint8)
    images[:, 0, 0] = [3, 3, 3, 2, 1, 1]
    labels = np.array([EMOTIONS.index(name) for name in ("happy", "happy", "happy", "sad", "fear", "sad")])
    faces = Faces(images, labels.astype(np.uint8), np.array([0, 0, 255, 0, 0, 2], np.uint8), np.zeros(6, bool))
    figures.duplicates_sheet(faces, find_duplicates(faces).groups, path=tmp_path / "figure.png")
    shown, captions, _ = calls[0]
    assert shown[:, 0, 0].tolist() == [1, 3]
    assert captions == ["fear train\nsad test", "happy no split\nhappy train ×2"]


def test_classes_without_faces_are_rejected(tmp_path):
    with pytest.raises(ValueError, match="no face"):
        figures.classes_per_split(NO_FACES, tmp_path / "figure.png")
