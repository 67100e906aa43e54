"""People keep their tracks, their readings are smoothed without delay, and different people are not confused."""

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest

from emotion_detection.evaluation.detector_crops import draw_background, paste_face
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.detector import HaarDetector
from emotion_detection.inference.face_tracker import FORGET_S, SCAN_EVERY_S, SMOOTHING_S, FaceTracker
from emotion_detection.inference.reading import Box
from emotion_detection.inference.recognizer import Recognizer

RATE = 25  # frames a second


class FixedClassifier(EmotionClassifier):
    """Returns the same probabilities for every face."""

    def __init__(self):
        self.fixed = np.full(7, 1 / 7, np.float32)

    def probabilities(self, faces):
        return np.tile(self.fixed, (len(faces), 1))


class CountingDetector(HaarDetector):
    """Counts how often the complete frame is searched."""

    scans = 0

    def detect(self, gray, *, smallest_px=0, largest_px=0):
        self.scans += not smallest_px
        return super().detect(gray, smallest_px=smallest_px, largest_px=largest_px)


@pytest.fixture
def recognizer():
    return Recognizer(FixedClassifier(), CountingDetector())


def probabilities_of(label, confidence=0.9):
    row = np.full(7, (1 - confidence) / 6, np.float32)
    row[label] = confidence
    return row


def frame(*pasted):
    canvas = draw_background(300, 480, np.random.default_rng(5))
    for face, (left, top) in pasted:
        paste_face(canvas, face, Box(left, top, 110, 110))
    return np.repeat(canvas[..., np.newaxis], 3, axis=2)


def test_moving_people_keep_their_tracks(recognizer, drawn_faces):
    tracker = FaceTracker(recognizer)
    tracks_of_frames = []
    for number in range(40):
        drift = round(20 * math.sin(number / 8))
        readings = tracker.recognize(
            frame((drawn_faces[0], (60 + drift, 90)), (drawn_faces[1], (300 - drift, 100))), number / RATE
        )
        tracks_of_frames.append(tuple(reading.track for reading in readings))
    assert tracks_of_frames.count((1, 2)) >= 36
    assert {track for tracks in tracks_of_frames for track in tracks} == {1, 2}


def test_only_surroundings_are_searched_between_scans(recognizer, drawn_faces):
    tracker = FaceTracker(recognizer)
    picture = frame((drawn_faces[0], (180, 90)))
    for number in range(50):
        assert len(tracker.recognize(picture, number / RATE)) == 1
    assert recognizer.detector.scans == math.ceil(50 / RATE / SCAN_EVERY_S)


def test_new_face_is_detected_by_the_next_scan(recognizer, drawn_faces):
    tracker = FaceTracker(recognizer)
    tracker.recognize(frame((drawn_faces[0], (40, 90))), 0.0)
    both = frame((drawn_faces[0], (40, 90)), (drawn_faces[1], (300, 90)))
    counts = [len(tracker.recognize(both, number / RATE)) for number in range(1, 2 + round(SCAN_EVERY_S * RATE))]
    assert counts[0] == 1
    assert counts[-1] == 2


def test_smoothing_reduces_flips(drawn_faces):
    """The network alternates at random between two emotions for the same face; 70 % are the first one."""
    rng = np.random.default_rng(0)
    noise = rng.random(75) < 0.3
    picture = frame((drawn_faces[0], (180, 90)))
    flips = {}
    for smoothing in (0.0, SMOOTHING_S):
        classifier = FixedClassifier()
        recognizer = Recognizer(classifier, HaarDetector())
        tracker = FaceTracker(recognizer, smoothing_s=smoothing)
        emotions = []
        for number, second in enumerate(noise):
            classifier.fixed = probabilities_of(4 if second else 3)
            emotions += [reading.emotion for reading in tracker.recognize(picture, number / RATE)]
        flips[smoothing] = sum(before != after for before, after in pairwise(emotions))
    assert flips[SMOOTHING_S] < flips[0.0] / 4


def test_smoothing_delays_a_change_by_less_than_half_a_second(recognizer, drawn_faces):
    tracker = FaceTracker(recognizer)
    picture = frame((drawn_faces[0], (180, 90)))
    recognizer.classifier.fixed = probabilities_of(3)
    for number in range(25):
        tracker.recognize(picture, number / RATE)
    recognizer.classifier.fixed = probabilities_of(5)
    delay = next(n for n in range(25) if tracker.recognize(picture, (25 + n) / RATE)[0].emotion == "surprise")
    assert delay / RATE <= 0.4


def test_different_person_in_the_same_place_gets_a_new_track(recognizer, drawn_faces):
    small = [cv2.resize(face, (12, 12), interpolation=cv2.INTER_AREA).ravel().astype(float) for face in drawn_faces]
    unlike = int(np.argmin([np.corrcoef(small[0], face)[0, 1] for face in small]))
    tracker = FaceTracker(recognizer)
    recognizer.classifier.fixed = probabilities_of(3)
    for number in range(10):
        tracker.recognize(frame((drawn_faces[0], (180, 90))), number / RATE)
    recognizer.classifier.fixed = probabilities_of(5)
    (fresh,) = tracker.recognize(frame((drawn_faces[unlike], (180, 90))), 10 / RATE)
    assert fresh.track == 2
    assert fresh.probabilities[5] == pytest.approx(0.9)  # not smoothed with the first person


def test_person_who_returns_late_gets_a_new_track(recognizer, drawn_faces):
    tracker = FaceTracker(recognizer)
    present, absent = frame((drawn_faces[0], (180, 90))), frame()
    tracker.recognize(present, 0.0)
    assert tracker.recognize(absent, 0.6) == []
    assert tracker.recognize(absent, 0.6 + FORGET_S) == []
    (reading,) = tracker.recognize(present, 5.0)
    assert reading.track == 2


def test_people_who_left_are_forgotten(recognizer, drawn_faces):
    tracker = FaceTracker(recognizer)
    for number in range(12):
        tracker.recognize(
            frame((drawn_faces[number % 3], (20 + 25 * number, 90))) if number % 2 else frame(), number * 1.5
        )
    assert len(tracker._tracks) <= 1


def test_time_may_jump_back(recognizer, drawn_faces):
    tracker = FaceTracker(recognizer)
    picture = frame((drawn_faces[0], (180, 90)))
    tracker.recognize(picture, 100.0)
    assert len(tracker.recognize(picture, 0.0)) == 1


def test_only_the_largest_face_is_tracked(drawn_faces):
    tracker = FaceTracker(Recognizer(FixedClassifier(), HaarDetector(), faces="largest"))
    assert len(tracker.recognize(frame((drawn_faces[0], (40, 90)), (drawn_faces[1], (300, 90))), 0.0)) == 1
