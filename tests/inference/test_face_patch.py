"""A face is found again near its last place, and different faces are told apart."""

import numpy as np
import pytest

from emotion_detection.evaluation.detector_crops import draw_background, paste_face
from emotion_detection.inference.face_patch import follow, patch, similarity, surroundings
from emotion_detection.inference.reading import Box


def picture(face, left, top):
    canvas = draw_background(240, 320, np.random.default_rng(3))
    paste_face(canvas, face, Box(left, top, 100, 100))
    return canvas


@pytest.mark.parametrize("moved", [(0, 0), (1, 1), (7, -5), (-30, 20)])
def test_face_is_followed_to_the_pixel(drawn_faces, moved):
    start = Box(108, 68, 84, 84)
    face = patch(surroundings(picture(drawn_faces[0], 100, 60), start))
    box, similar = follow(face, picture(drawn_faces[0], 100 + moved[0], 60 + moved[1]), start)
    assert similar > 0.8
    assert (box.left - start.left, box.top - start.top) == pytest.approx(moved, abs=1)


def test_different_faces_are_less_similar(drawn_faces):
    box = Box(108, 68, 84, 84)
    around = [surroundings(picture(face, 100, 60), box) for face in drawn_faces[:4]]
    others = [similarity(patch(around[0]), other) for other in around[1:]]
    assert similarity(patch(around[0]), around[0]) == pytest.approx(1)
    assert max(others) < 0.7


def test_uniform_pictures_are_not_similar():
    flat = surroundings(np.full((100, 100), 80, np.uint8), Box(30, 30, 40, 40))
    assert similarity(patch(flat), flat) == 0
