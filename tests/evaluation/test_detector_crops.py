"""Faces in many conditions are detected and counted by size, turn, light and emotion."""

import numpy as np
import pytest

from emotion_detection.evaluation.detector_crops import Conditions, detect_in_conditions, end_to_end_rows
from emotion_detection.inference.detector import HaarDetector
from emotion_detection.synthetic.sample import draw_faces


def test_each_group_of_a_condition_gets_a_third_of_the_faces():
    conditions = Conditions.draw(600, seed=1)
    rows = list(end_to_end_rows(np.zeros(600, np.uint8), conditions, np.ones(600, bool), np.zeros(600, bool)))
    assert [row["group"] for row in rows[:2]] == ["all", "side up to 12 % of the picture's height"]
    assert len(rows) == 1 + 3 * 3 + 7
    assert all(150 < int(str(row["faces"])) < 250 for row in rows[1:10])
    assert {row["found"] for row in rows[:10]} == {"1.000"}
    assert {row["found_and_read_right"] for row in rows[:10]} == {"0.000"}
    assert rows[-1] == {"group": rows[-1]["group"], "faces": 0, "found": "", "found_and_read_right": ""}


def test_shares_count_faces_that_are_not_detected():
    labels = np.array([0, 0, 3, 3], np.uint8)
    detected, correct = np.array([True, False, True, True]), np.array([False, False, True, True])
    rows = {row["group"]: row for row in end_to_end_rows(labels, Conditions.draw(4, seed=0), detected, correct)}
    assert (rows["all"]["found"], rows["all"]["found_and_read_right"]) == ("0.750", "0.500")
    assert (rows["angry"]["found"], rows["angry"]["found_and_read_right"]) == ("0.500", "0.000")
    assert rows["happy"]["found_and_read_right"] == "1.000"


@pytest.mark.parametrize(("turn", "found"), [(0, True), (90, False)])
def test_faces_are_turned(turn, found):
    faces, _ = draw_faces(per_class=1, seed=1)
    many = np.full(3, 1.0)
    conditions = Conditions(0.4 * many, turn * many, many)
    detected, crops = detect_in_conditions(faces[:3], conditions, HaarDetector(), seed=0)
    assert detected.all() == found
    assert crops.shape == (detected.sum(), 48, 48)
