"""People keep their tracks, their readings are smoothed without delay, and different people are not confused."""

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest

from emotion_detection.evaluation.detector_crops import draw_background, paste_face
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.detector import HaarDetector
from emotion_detection.inference.face_tracker import FORGET_S, SCAN_EVERY_S, SMOOTHING_S, FaceTracker
from emotion_detection.inference.reading import Box, Reading
from emotion_detection.inference.recognizer import Recognizer

RATE = 25  # frames a second


class FixedClassifier(EmotionClassifier):
    """Returns the same probabilities for every face."""

    def __init__(self):
        self.fixed = np.full(7, 1 / 7, np.float32)

    def probabilities(self, faces):
        return np.tile(self.fixed, (len(faces), 1))


class CountingDetector(HaarDetector):
    """Counts its scans."""

    scans = 0

    def detect(self, gray, *, smallest_px=0, largest_px=0):
        self.scans += 1
        return super().detect(gray, smallest_px=smallest_px, largest_px=largest_px)


class ScriptedDetector:
    """Finds the given boxes, whatever the frame shows."""

    margin = 0.0
    boxes: Sequence[tuple[int, int]] = ()

    def detect(self, gray, *, smallest_px=0, largest_px=0):  # noqa: ARG002
        return [Box(left, top, 110, 110) for left, top in self.boxes]


@pytest.fixture
def scripted():
    return Recognizer(FixedClassifier(), ScriptedDetector())


@pytest.fixture
def recognizer():
    return Recognizer(FixedClassifier(), CountingDetector())


def probabilities_of(label, confidence=0.9):
    row = np.full(7, (1 - confidence) / 6, np.float32)
    row[label] = confidence
    return row


@cache
def background():
    return draw_background(300, 480, np.random.default_rng(5))


def frame(*pasted):
    canvas = background().copy()
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


def test_faces_are_followed_between_scans(recognizer, drawn_faces):
    tracker = FaceTracker(recognizer)
    picture = frame((drawn_faces[0], (180, 90)))
    for number in range(50):
        assert len(tracker.recognize(picture, number / RATE)) == 1
    assert recognizer.detector.scans == math.ceil(50 / RATE / SCAN_EVERY_S)


def test_new_face_is_detected_by_the_next_scan(recognizer, drawn_faces):
    tracker = FaceTracker(recognizer)
    tracker.recognize(frame((drawn_faces[0], (40, 90))), 0.0)
    both = frame((drawn_faces[0], (40, 90)), (drawn_faces[1], (300, 90)))
    counts = [len(tracker.recognize(both, number / RATE)) for number in range(1, 3 + round(SCAN_EVERY_S * RATE))]
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


def test_box_that_is_found_once_is_not_shown(scripted, drawn_faces):
    tracker = FaceTracker(scripted)
    for number in range(20):
        scripted.detector.boxes = [(60, 90)] if number != 10 else [(60, 90), (300, 100)]
        (reading,) = tracker.recognize(frame((drawn_faces[0], (60, 90))), number / RATE)
        assert reading.track == 1


def test_box_that_is_found_twice_is_shown_at_the_second_time(scripted, drawn_faces):
    tracker = FaceTracker(scripted)
    counts = []
    for number in range(4):
        scripted.detector.boxes = [(60, 90), (300, 100)] if number else [(60, 90)]
        both = frame((drawn_faces[0], (60, 90)), (drawn_faces[1], (300, 100)))
        counts.append(len(tracker.recognize(both, 0.4 * (number > 0) + number / RATE)))
    assert counts[0] == 1
    assert counts[-1] == 2


def test_second_box_of_a_known_face_is_not_shown(scripted, drawn_faces):
    tracker, picture = FaceTracker(scripted), frame((drawn_faces[0], (180, 90)))
    for number in range(30):
        scripted.detector.boxes = [(180, 90)] if number < 5 else [(180, 90), (230, 150)]  # they overlap by 0.14
        assert [reading.track for reading in tracker.recognize(picture, number / RATE)] == [1], number


def test_box_between_a_known_and_a_new_face_belongs_to_the_known_one(scripted, drawn_faces):
    tracker, picture = FaceTracker(scripted), frame((drawn_faces[0], (180, 90)))
    found = iter([(180, 90), (225, 135)])  # the second one overlaps the first one by 0.21: a new face
    scans = []

    def detect(*_, **__):
        scans.append(next(found, (205, 115)))  # it overlaps the first one by 0.43 and the second one by 0.5
        return [Box(*scans[-1], 110, 110)]

    scripted.detector.detect = detect
    for number in range(30):
        assert [reading.track for reading in tracker.recognize(picture, number / RATE)] == [1], number
    assert len(scans) > 3


def test_new_face_is_shown_at_once_in_a_slow_video(scripted, drawn_faces):
    tracker = FaceTracker(scripted)
    tracker.recognize(frame(), 0.0)
    scripted.detector.boxes = [(60, 90)]
    (reading,) = tracker.recognize(frame((drawn_faces[0], (60, 90))), 1.0)
    assert reading.track == 1


def test_person_who_returns_within_two_seconds_keeps_the_track(recognizer, drawn_faces):
    tracker = FaceTracker(recognizer)
    for number in range(5):
        tracker.recognize(frame((drawn_faces[0], (60, 90))), number / RATE)
    for number in range(5, 45):
        tracker.recognize(frame(), number / RATE)
    shown = [tracker.recognize(frame((drawn_faces[0], (90, 100))), number / RATE) for number in range(45, 52)]
    assert [reading.track for reading in shown[-1]] == [1]


def test_face_that_the_detector_misses_is_followed_for_a_second(scripted, drawn_faces):
    tracker = FaceTracker(scripted)
    scripted.detector.boxes = [(60, 90)]
    tracker.recognize(frame((drawn_faces[0], (60, 90))), 0.0)
    scripted.detector.boxes = []
    last = []
    for number in range(1, 40):
        readings = tracker.recognize(frame((drawn_faces[0], (60 + 2 * number, 90))), number / RATE)
        if readings:
            last = [number, readings[0].box.left]
    assert 25 <= last[0] <= 35
    assert last[1] == pytest.approx(60 + 2 * 25, abs=8)


def test_people_who_cross_keep_their_tracks_and_probabilities(scripted, drawn_faces):
    """One person is always happy and the other always sad; their boxes cross within a second."""
    emotions = {0: probabilities_of(3), 1: probabilities_of(4)}
    tracker = FaceTracker(scripted)
    for number in range(50):
        places = [(20 + 6 * number, 60), (330 - 6 * number, 130)]
        scripted.detector.boxes = places
        seen = frame(*zip(drawn_faces[:2], places, strict=True))
        scripted.read = lambda _, boxes, places=places: [
            Reading(box, emotions[int(abs(box.top - places[1][1]) < abs(box.top - places[0][1]))]) for box in boxes
        ]
        readings = {reading.track: reading for reading in tracker.recognize(seen, number / RATE)}
    assert set(readings) == {1, 2}
    assert readings[1].probabilities[3] > 0.85
    assert readings[2].probabilities[4] > 0.85


def test_nothing_is_scanned_while_all_faces_are_followed(recognizer, drawn_faces):
    tracker = FaceTracker(recognizer)
    picture = frame((drawn_faces[0], (180, 90)))
    tracker.recognize(picture, 0.0)
    scans = recognizer.detector.scans
    for number in range(1, 6):
        tracker.recognize(picture, number / RATE)
    assert recognizer.detector.scans == scans


def test_cut_is_scanned_at_once(recognizer, drawn_faces):
    tracker = FaceTracker(recognizer)
    for number in range(3):
        tracker.recognize(frame((drawn_faces[0], (60, 90))), number / RATE)
    scans = recognizer.detector.scans
    tracker.recognize(frame((drawn_faces[1], (300, 100))), 3 / RATE)
    assert recognizer.detector.scans == scans + 1
