"""Every figure is a readable picture of a sane size, is drawn alike twice, and is whole or absent."""

import cv2
import matplotlib
import numpy as np
import pytest

from emotion_detection.data import figures as data_figures
from emotion_detection.data.dataset import Faces
from emotion_detection.data.splits import duplicates
from emotion_detection.emotions import EMOTIONS
from emotion_detection.evaluation import figures
from emotion_detection.evaluation.metrics import evaluate

CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "val_macro_f1", "learning_rate")


def drawn_faces(rows=60):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (rows, 48, 48), dtype=np.uint8)
    labels = (np.arange(rows) % 7).astype(np.uint8)
    return Faces(images, labels, (np.arange(rows) % 3).astype(np.uint8), np.zeros(rows, bool))


def drawn_probabilities(rows=60):
    scores = np.random.default_rng(1).random((rows, 7)) ** 3
    return scores / scores.sum(axis=1, keepdims=True)


def read(path):
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert picture is not None, f"{path} is no picture"
    return picture


FACES = drawn_faces()
PROBABILITIES = drawn_probabilities()
# As many rows as a real split, whose longer numbers need more room.
REPORT = evaluate(np.tile(FACES.labels, 80), np.tile(PROBABILITIES, (80, 1)), confidence=0.95, ece_bins=15)
NARROW = evaluate([0, 0, 3], np.eye(7)[[0, 3, 3]], confidence=0.95, ece_bins=15)  # five emotions without rows
HISTORY = [{"epoch": float(epoch)} | dict.fromkeys(CURVES, 1 / epoch) for epoch in (1, 2, 3)]
TWICE = Faces(*(np.concatenate([a, a]) for a in (FACES.images, FACES.labels, FACES.splits, FACES.copied)))
NOBODY = FACES[np.zeros(len(FACES), bool)]

DRAWINGS = {
    "classes": lambda path: data_figures.classes_per_split(FACES, path),
    "classes of one split": lambda path: data_figures.classes_per_split(FACES.of("val"), path),
    "contact": lambda path: data_figures.contact_sheet(FACES, path),
    "contact of nobody": lambda path: data_figures.contact_sheet(NOBODY, path),
    "duplicates": lambda path: data_figures.duplicates_sheet(TWICE, duplicates(TWICE).groups, path=path),
    "no duplicates": lambda path: data_figures.duplicates_sheet(FACES, duplicates(FACES).groups, path=path),
    "confusion": lambda path: figures.confusion_matrix(REPORT, path, title="val"),
    "confusion of two": lambda path: figures.confusion_matrix(NARROW, path, title="val"),
    "scores": lambda path: figures.per_class_scores(REPORT, path, title="val"),
    "scores of two": lambda path: figures.per_class_scores(NARROW, path, title="val"),
    "reliability": lambda path: figures.reliability(REPORT, path, title="val"),
    "reliability of sureness": lambda path: figures.reliability(NARROW, path, title="val"),
    "reliability before and after": lambda path: figures.reliability(REPORT, path, title="val", raw=NARROW),
    "curves": lambda path: figures.learning_curves(HISTORY, path),
    "curves of one epoch": lambda path: figures.learning_curves(HISTORY[:1], path),
    "mistakes": lambda path: figures.mistakes(FACES, PROBABILITIES, path=path),
    "no mistakes": lambda path: figures.mistakes(FACES, np.eye(7)[FACES.labels], path=path),
}
every_drawing = pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS.keys())


@every_drawing
@pytest.mark.filterwarnings("error")
def test_a_figure_is_a_picture_of_sane_size(draw, tmp_path):
    draw(tmp_path / "figure.png")
    picture = read(tmp_path / "figure.png")
    height_px, width_px = picture.shape
    assert 400 <= width_px <= 2000
    assert 50 <= height_px <= 2000
    assert len(np.unique(picture)) > 1  # not blank
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]


@every_drawing
def test_no_ink_touches_the_edge(draw, tmp_path):
    draw(tmp_path / "figure.png")
    picture = read(tmp_path / "figure.png")
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert edge.min() > 200  # a clipped letter would be dark here


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        data_figures.contact_sheet(FACES, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_drawing_leaves_the_style_of_others_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    figures.reliability(REPORT, tmp_path / "figure.png", title="val")
    assert dict(matplotlib.rcParams) == before


def test_the_curve_before_calibration_is_a_second_line(monkeypatch, tmp_path):
    drawn = []

    def keep(figure, file, **_):
        drawn.append(figure)
        file.touch()

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", keep)
    figures.reliability(REPORT, tmp_path / "one.png", title="val")
    figures.reliability(REPORT, tmp_path / "two.png", title="val", raw=NARROW)
    one, two = (figure.axes[0] for figure in drawn)
    assert len(two.lines) == len(one.lines) + 1
    np.testing.assert_array_equal(two.lines[-1].get_ydata(), NARROW.calibration.accuracy)
    named = [text.get_text() for text in two.get_legend().get_texts()]
    assert named == ["share that is right", "mean probability", "perfect calibration", "before calibration"]
    assert f"{NARROW.ece:.1%} before calibration" in two.get_title(loc="left")


def test_a_missing_folder_is_made(tmp_path):
    figures.confusion_matrix(REPORT, tmp_path / "absent" / "figure.png", title="val")
    assert [file.name for file in (tmp_path / "absent").iterdir()] == ["figure.png"]


def test_a_file_in_the_folders_place_is_an_error_and_stays(tmp_path):
    (tmp_path / "taken").write_bytes(b"older")
    with pytest.raises(OSError, match="taken"):
        figures.confusion_matrix(REPORT, tmp_path / "taken" / "figure.png", title="val")
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]
    assert (tmp_path / "taken").read_bytes() == b"older"


def test_a_failure_while_drawing_leaves_the_older_figure(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"older")
    with pytest.raises(KeyError):
        figures.learning_curves([{"epoch": 1.0, "val_macro_f1": 0.5}], path)
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]
    assert path.read_bytes() == b"older"


def test_a_failure_while_writing_leaves_no_part_of_a_figure(tmp_path, monkeypatch):
    def full(_figure, file, **_):
        file.write_bytes(b"half a pic")
        raise OSError("no space left")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(OSError, match="no space left"):
        data_figures.contact_sheet(FACES, tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())


def test_a_failed_replacement_leaves_the_older_figure_and_no_part_of_the_new(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("not permitted")

    (tmp_path / "figure.png").write_bytes(b"older")
    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="not permitted"):
        data_figures.contact_sheet(FACES, tmp_path / "figure.png")
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]
    assert (tmp_path / "figure.png").read_bytes() == b"older"


def test_duplicates_with_contradicting_labels_come_first(tmp_path, monkeypatch):
    sheets = []
    monkeypatch.setattr(data_figures, "captioned_faces", lambda *shown, **_: sheets.append(shown))
    images = np.zeros((6, 48, 48), np.uint8)
    images[:, 0, 0] = [3, 3, 3, 2, 1, 1]
    labels = np.array([EMOTIONS.index(name) for name in ("happy", "happy", "happy", "sad", "fear", "sad")])
    faces = Faces(images, labels.astype(np.uint8), np.array([0, 0, 255, 0, 0, 2], np.uint8), np.zeros(6, bool))
    data_figures.duplicates_sheet(faces, duplicates(faces).groups, path=tmp_path / "figure.png")
    shown, captions, _ = sheets[0]
    assert shown[:, 0, 0].tolist() == [1, 3]
    assert captions == ["fear train\nsad test", "happy no split\nhappy train ×2"]


def test_the_surest_mistake_comes_first(tmp_path, monkeypatch):
    sheets = []
    monkeypatch.setattr(figures, "captioned_faces", lambda *shown, title: sheets.append((*shown, title)))
    table = np.full((3, 7), 0.01)
    table[[0, 1, 2], [0, 5, 6]] = [0.94, 0.7, 0.9]
    faces = FACES[np.array([0, 1, 2])]  # angry, disgust, fear: the first is right
    figures.mistakes(faces, table, path=tmp_path / "figure.png")
    _, captions, _, title = sheets[0]
    assert captions == ["fear →\nneutral 90%", "disgust →\nsurprise 70%"]
    assert title.startswith("2 of 3 faces")


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ValueError, match="no epoch"):
        figures.learning_curves([], tmp_path / "figure.png")
    with pytest.raises(ValueError, match="no face"):
        data_figures.classes_per_split(NOBODY, tmp_path / "figure.png")
