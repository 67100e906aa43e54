"""The changes of benchmarks/robustness.py keep the form of a face and do what their names say."""

import numpy as np
import pytest
from benchmarks.robustness import CHANGES, changed, draw, measure, occlude, show, shrink, turn
from tests.support.onnx_files import write_linear

from emotion_detection.inference.classifier import EmotionClassifier


@pytest.mark.parametrize("name", CHANGES)
def test_change_keeps_shape_and_type_and_repeats(drawn, name):
    faces = drawn.images[:3]
    result = changed(faces, CHANGES[name])
    assert (result.shape, result.dtype) == (faces.shape, np.uint8)
    np.testing.assert_array_equal(result, changed(faces, CHANGES[name]))
    assert (result != faces).any() == (name != "unchanged")


def test_quarter_of_the_face_is_covered_with_its_mean(drawn):
    face = drawn.images[:1]
    covered = changed(face, occlude(0.25))
    mask = covered != face
    assert 0.15 < mask.mean() <= 0.25
    assert np.unique(covered[mask]).tolist() == [round(float(face.mean()))]


def test_small_face_has_fewer_details_and_turn_keeps_the_center(drawn):
    face = drawn.images[:1]
    details = [np.abs(np.diff(each.astype(int), axis=2)).mean() for each in (face, changed(face, shrink(12)))]
    assert details[1] < details[0]
    spot = np.zeros((1, 48, 48), np.uint8)
    spot[0, 22:26, 22:26] = 255
    assert changed(spot, turn(30))[0, 23:25, 23:25].mean() > 200


def test_table_has_losses_and_the_test_of_the_second_model(drawn, tmp_path, capsys):
    models = [EmotionClassifier(write_linear(tmp_path / f"{seed}.onnx", seed=seed)) for seed in (1, 2)]
    rows = measure(models, drawn.images, drawn.labels)
    assert [name for name, _, _ in rows] == list(CHANGES)
    expected = (models[0].probabilities(drawn.images).argmax(1) == drawn.labels).mean()
    assert rows[0][1][0] == pytest.approx(expected)
    assert all(0 <= p <= 1 for _, _, p in rows)
    show(rows, ["old", "new"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| change | old | loss | new | loss | p |"
    assert len(lines) == 2 + len(rows)
    draw(rows, ["old", "new"], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
