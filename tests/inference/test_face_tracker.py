"""Videos: people keep their number, their readings are steady but not late, and nobody is taken for another."""

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest

from emotion_detection.evaluation.detector_crops import background, paste, redetect
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.detector import HaarDetector
from emotion_detection.inference.face_tracker import FORGET_S, SCAN_EVERY_S, SMOOTHING_S, FaceTracker
from emotion_detection.inference.reading import Box
from emotion_detection.inference.recognizer import Recognizer
from emotion_detection.synthetic.sample import draw_faces

RATE = 25  # frames a second


class Scripted(EmotionClassifier):
    """A classifier that says what the test tells it, a row of probabilities for each face of a call."""

    def __init__(self):
        self.says = np.full(7, 1 / 7, np.float32)

    def probabilities(self, faces):
        return np.tile(self.says, (len(faces), 1))


class Counting(HaarDetector):
    """The real detector, which also counts how often it is asked to search a whole frame."""

    scans = 0

    def detect(self, gray, *, smallest_px=0, largest_px=0):
        self.scans += not smallest_px
        return super().detect(gray, smallest_px=smallest_px, largest_px=largest_px)


@pytest.fixture(scope="module")
def known():
    images, _ = draw_faces(per_class=6, seed=1)
    found, _ = redetect(images, HaarDetector(), seed=0)
    return images[found]


@pytest.fixture
def recognizer():
    return Recognizer(Scripted(), Counting())


def sure_of(label, by=0.9):
    row = np.full(7, (1 - by) / 6, np.float32)
    row[label] = by
    return row


def frame(*pasted):
    canvas = background(300, 480, np.random.default_rng(5))
    for face, (left, top) in pasted:
        paste(canvas, face, Box(left, top, 110, 110))
    return np.repeat(canvas[..., np.newaxis], 3, axis=2)


def test_people_keep_their_numbers_while_they_move(recognizer, known):
    follower = FaceTracker(recognizer)
    seen = []
    for number in range(40):
        drift = round(20 * math.sin(number / 8))
        readings = follower.recognize(
            frame((known[0], (60 + drift, 90)), (known[1], (300 - drift, 100))), number / RATE
        )
        seen.append(tuple(reading.track for reading in readings))
    assert seen.count((1, 2)) >= 36
    assert {track for tracks in seen for track in tracks} == {1, 2}


def test_between_scans_only_the_neighbourhood_is_searched(recognizer, known):
    follower = FaceTracker(recognizer)
    picture = frame((known[0], (180, 90)))
    for number in range(50):
        assert len(follower.recognize(picture, number / RATE)) == 1
    assert recognizer.detector.scans == math.ceil(50 / RATE / SCAN_EVERY_S)


def test_a_newcomer_is_seen_at_the_next_scan(recognizer, known):
    follower = FaceTracker(recognizer)
    follower.recognize(frame((known[0], (40, 90))), 0.0)
    both = frame((known[0], (40, 90)), (known[1], (300, 90)))
    counts = [len(follower.recognize(both, number / RATE)) for number in range(1, 2 + round(SCAN_EVERY_S * RATE))]
    assert counts[0] == 1
    assert counts[-1] == 2


def test_smoothing_cuts_flips(known):
    """A face whose reading alternates between two emotions at random, a bit more often the one."""
    rng = np.random.default_rng(0)
    noise = rng.random(75) < 0.3
    flips = {}
    for smoothing in (0.0, SMOOTHING_S):
        classifier = Scripted()
        recognizer = Recognizer(classifier, HaarDetector())
        follower = FaceTracker(recognizer, smoothing_s=smoothing)
        told = []
        for number, other in enumerate(noise):
            classifier.says = sure_of(4 if other else 3)
            told += [reading.emotion for reading in follower.recognize(frame((known[0], (180, 90))), number / RATE)]
        flips[smoothing] = sum(before != after for before, after in pairwise(told))
    assert flips[SMOOTHING_S] < flips[0.0] / 4


def test_smoothing_is_not_late(recognizer, known):
    follower = FaceTracker(recognizer)
    picture = frame((known[0], (180, 90)))
    recognizer.classifier.says = sure_of(3)
    for number in range(25):
        follower.recognize(picture, number / RATE)
    recognizer.classifier.says = sure_of(5)
    late = next(n for n in range(25) if follower.recognize(picture, (25 + n) / RATE)[0].emotion == "surprise")
    assert late / RATE <= 0.4


def test_another_person_in_the_same_place_is_another_person(recognizer, known):
    small = [cv2.resize(face, (12, 12), interpolation=cv2.INTER_AREA).ravel().astype(float) for face in known]
    unlike = int(np.argmin([np.corrcoef(small[0], other)[0, 1] for other in small]))
    follower = FaceTracker(recognizer)
    recognizer.classifier.says = sure_of(3)
    for number in range(10):
        follower.recognize(frame((known[0], (180, 90))), number / RATE)
    recognizer.classifier.says = sure_of(5)
    (fresh,) = follower.recognize(frame((known[unlike], (180, 90))), 10 / RATE)
    assert fresh.track == 2
    assert fresh.probabilities[5] == pytest.approx(0.9)  # nothing of the other one's happiness


def test_a_person_who_comes_back_late_is_a_new_one(recognizer, known):
    follower = FaceTracker(recognizer)
    there, gone = frame((known[0], (180, 90))), frame()
    follower.recognize(there, 0.0)
    assert follower.recognize(gone, 0.6) == []
    assert follower.recognize(gone, 0.6 + FORGET_S) == []
    (reading,) = follower.recognize(there, 5.0)
    assert reading.track == 2


def test_nothing_is_kept_of_those_who_left(recognizer, known):
    follower = FaceTracker(recognizer)
    for number in range(30):
        follower.recognize(frame((known[number % 3], (20 + 11 * number, 90))) if number % 2 else frame(), number * 1.5)
    assert len(follower._tracks) <= 1


def test_a_clock_that_runs_backwards_starts_anew(recognizer, known):
    follower = FaceTracker(recognizer)
    picture = frame((known[0], (180, 90)))
    follower.recognize(picture, 100.0)
    assert len(follower.recognize(picture, 0.0)) == 1


def test_the_largest_alone(known):
    follower = FaceTracker(Recognizer(Scripted(), HaarDetector(), faces="largest"))
    assert len(follower.recognize(frame((known[0], (40, 90)), (known[1], (300, 90))), 0.0)) == 1
