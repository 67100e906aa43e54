"""Boxes and readings are plain values."""

import json

import numpy as np
import pytest

from emotion_detection.emotions import EMOTIONS
from emotion_detection.inference.reading import UNSURE_BELOW, Box, Reading


def reading(confidence, *, track=None):
    rest = (1 - confidence) / 6
    return Reading(Box(1, 2, 30, 40), np.array([rest] * 3 + [confidence] + [rest] * 3, np.float32), track)


def test_overlap_is_intersection_over_union():
    box = Box(0, 0, 10, 10)
    assert box.overlap(box) == 1
    assert box.overlap(Box(5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert box.overlap(Box(10, 0, 10, 10)) == box.overlap(Box(30, 30, 5, 5)) == 0


def test_center_is_between_the_sides():
    assert Box(10, 20, 30, 41).center == (25, 40.5)


def test_emotion_has_the_highest_probability():
    assert reading(0.9).emotion == EMOTIONS[3]
    assert reading(0.9).confidence == pytest.approx(0.9)


def test_reading_is_unsure_below_the_threshold():
    assert reading(UNSURE_BELOW - 0.01).unsure
    assert not reading(UNSURE_BELOW + 0.01).unsure


def test_as_dict_contains_json_values():
    values = reading(0.4, track=2).as_dict()
    assert json.loads(json.dumps(values)) == values
    assert values == {
        "box": [1, 2, 30, 40],
        "emotion": "happy",
        "confidence": 0.4,
        "unsure": False,
        "track": 2,
        "probabilities": [0.1, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1],
    }
    assert reading(0.4).as_dict()["track"] is None
