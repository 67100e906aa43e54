"""The figures of scores and of training are readable PNG files that show the right values."""

import cv2
import numpy as np
import pytest

from emotion_detection.data.dataset import Faces
from emotion_detection.evaluation import figures
from emotion_detection.evaluation.metrics import evaluate

CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "val_macro_f1", "learning_rate")


def draw_faces(rows=60):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (rows, 48, 48), dtype=np.uint8)
    labels = (np.arange(rows) % 7).astype(np.uint8)
    return Faces(images, labels, (np.arange(rows) % 3).astype(np.uint8), np.zeros(rows, bool))


def draw_probabilities(rows=60):
    scores = np.random.default_rng(1).random((rows, 7)) ** 3
    return scores / scores.sum(axis=1, keepdims=True)


FACES = draw_faces()
PROBABILITIES = draw_probabilities()
# As many rows as a real split has, because longer numbers need more space.
REPORT = evaluate(np.tile(FACES.labels, 80), np.tile(PROBABILITIES, (80, 1)), confidence=0.95, ece_bins=15)
NARROW = evaluate([0, 0, 3], np.eye(7)[[0, 3, 3]], confidence=0.95, ece_bins=15)  # five emotions without rows
HISTORY = [{"epoch": float(epoch)} | dict.fromkeys(CURVES, 1 / epoch) for epoch in (1, 2, 3)]

DRAWINGS = {
    "confusion": lambda path: figures.confusion_matrix(REPORT, path, title="val"),
    "confusion with empty emotions": lambda path: figures.confusion_matrix(NARROW, path, title="val"),
    "scores": lambda path: figures.per_class_scores(REPORT, path, title="val"),
    "scores with empty emotions": lambda path: figures.per_class_scores(NARROW, path, title="val"),
    "reliability": lambda path: figures.reliability(REPORT, path, title="val"),
    "reliability of certain predictions": lambda path: figures.reliability(NARROW, path, title="val"),
    "reliability before and after": lambda path: figures.reliability(REPORT, path, title="val", raw=NARROW),
    "curves": lambda path: figures.learning_curves(HISTORY, path),
    "curves with the last epoch": lambda path: figures.learning_curves(HISTORY, path, keep="last"),
    "curves of one epoch": lambda path: figures.learning_curves(HISTORY[:1], path),
    "curves of initial weights": lambda path: figures.learning_curves([HISTORY[0] | {"epoch": 0.0}], path),
    "mistakes": lambda path: figures.mistakes(FACES, PROBABILITIES, path=path),
    "no mistakes": lambda path: figures.mistakes(FACES, np.eye(7)[FACES.labels], path=path),
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS.keys())
def test_figure_has_a_sensible_size_and_nothing_at_its_edges(draw, tmp_path):
    draw(tmp_path / "figure.png")
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]
    image = cv2.imread(str(tmp_path / "figure.png"), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    height_px, width_px = image.shape
    assert 400 <= width_px <= 2000
    assert 50 <= height_px <= 2000
    assert len(np.unique(image)) > 1  # not blank
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert edge.min() > 200  # a clipped letter would be darker


def test_raw_report_is_drawn_as_another_line(monkeypatch, tmp_path):
    saved = []

    def savefig(figure, file, **_):
        saved.append(figure)
        file.touch()

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
    figures.reliability(REPORT, tmp_path / "one.png", title="val")
    figures.reliability(REPORT, tmp_path / "two.png", title="val", raw=NARROW)
    calibrated, both = (figure.axes[0] for figure in saved)
    assert len(both.lines) == len(calibrated.lines) + 1
    np.testing.assert_array_equal(both.lines[-1].get_ydata(), NARROW.calibration.accuracy)
    labels = [text.get_text() for text in both.get_legend().get_texts()]
    assert labels == ["accuracy", "mean confidence", "perfect calibration", "before calibration"]
    assert f"{NARROW.ece:.1%} before calibration" in both.get_title(loc="left")


def test_most_confident_mistake_comes_first(tmp_path, monkeypatch):
    sheets = []
    monkeypatch.setattr(figures, "captioned_faces", lambda *shown, title: sheets.append((*shown, title)))
    table = np.full((3, 7), 0.01)
    table[[0, 1, 2], [0, 5, 6]] = [0.94, 0.7, 0.9]
    faces = FACES[np.array([0, 1, 2])]  # angry, disgust, fear: the first is correct
    figures.mistakes(faces, table, path=tmp_path / "figure.png")
    _, captions, _, title = sheets[0]
    assert captions == ["fear →\nneutral 90%", "disgust →\nsurprise 70%"]
    assert title.startswith("2 of 3 faces")


def test_nothing_to_draw_raises(tmp_path):
    with pytest.raises(ValueError, match="no epochs"):
        figures.learning_curves([], tmp_path / "figure.png")
