"""Read the faces in a video: track people from frame to frame and smooth their probabilities over time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_detection.arrays import Frame, Gray
from emotion_detection.inference.detector import to_gray, to_model_input
from emotion_detection.inference.reading import Box, Reading
from emotion_detection.inference.recognizer import Recognizer

SMOOTHING_S = 0.3  # a new expression gets the majority after 0.3 ln 2 = 0.21 s
SCAN_EVERY_S = 0.5  # how often the complete frame is searched; between scans only around known faces
SCAN_EMPTY_S = 0.1  # the same while no face is tracked
HOLD_S = 0.3  # how long a face that the detector misses keeps its reading
FORGET_S = 1.0  # a person who returns later gets a new track
SEARCH_MARGIN = 0.4  # of the box's side: how far around it to search between scans
SEARCH_SIZES = (0.75, 1.35)  # of the box's side: which faces to search for
MIN_OVERLAP = 0.3  # of the boxes of one person in consecutive frames
# Correlation of one person's faces in consecutive frames. On FER-2013 it is below 0.51 for 95 % of pairs of different
# people, and above 0.55 for 99 % of pairs of a face with a shifted crop of itself.
MIN_CORRELATION = 0.5
APPEARANCE_PX = 12
JITTER = 0.15  # of the box's side: smaller movements are mostly noise of the detector


@dataclass(frozen=True, eq=False)
class _Track:
    reading: Reading  # smoothed
    appearance: NDArray[np.float32]  # a row of _appearances
    detected_s: float


class FaceTracker:
    """Reads the frames of one video in order. Keeps only the people of the last second."""

    def __init__(self, recognizer: Recognizer, *, smoothing_s: float = SMOOTHING_S) -> None:
        """smoothing_s: time constant of the exponential average of a person's probabilities; 0 for none."""
        self._recognizer, self._smoothing_s = recognizer, smoothing_s
        self._tracks: list[_Track] = []
        self._track_count = 0
        self._scanned_s = -math.inf

    def recognize(self, frame_rgb: Frame, time_s: float) -> list[Reading]:
        """Return the readings of a frame `time_s` seconds into the video, from left to right, with their tracks."""
        gray = to_gray(frame_rgb)
        self._tracks = [track for track in self._tracks if 0 <= time_s - track.detected_s < FORGET_S]
        boxes = sorted(self._detect(gray, time_s), key=lambda box: box.left)
        readings = self._recognizer.read(gray, boxes)
        appearances = _appearances(gray, readings)
        matches = _match(self._tracks, readings, appearances)
        missed = [track for row, track in enumerate(self._tracks) if row not in matches.values()]
        detected = []
        for number, (reading, appearance) in enumerate(zip(readings, appearances, strict=True)):
            previous = self._tracks[matches[number]] if number in matches else None
            detected.append(_Track(self._update(reading, previous, time_s), appearance, time_s))
        self._tracks = detected + missed
        shown = {track.reading.box: track.reading for track in (*detected, *_held_tracks(missed, detected, time_s))}
        return [shown[box] for box in self._recognizer.select(list(shown))]

    def _detect(self, gray: Gray, time_s: float) -> list[Box]:
        """Search the complete frame if a scan is due, else the surroundings of each tracked face."""
        pause_s = SCAN_EVERY_S if self._tracks else SCAN_EMPTY_S
        if not 0 <= time_s - self._scanned_s < pause_s:
            self._scanned_s = time_s
            return self._recognizer.detector.detect(gray)
        boxes: list[Box] = []
        for track in self._tracks:
            # A face in the surroundings of two tracks is detected twice.
            nearby = self._detect_near(gray, track.reading.box)
            boxes += [box for box in nearby if all(box.overlap(known) < 0.5 for known in boxes)]
        return boxes

    def _detect_near(self, gray: Gray, box: Box) -> list[Box]:
        side = max(box.width, box.height)
        margin = round(SEARCH_MARGIN * side)
        left, top = max(box.left - margin, 0), max(box.top - margin, 0)
        part = gray[top : box.top + box.height + margin, left : box.left + box.width + margin]
        if not part.size:
            return []
        smallest, largest = (round(size * side) for size in SEARCH_SIZES)
        boxes = self._recognizer.detector.detect(np.ascontiguousarray(part), smallest_px=smallest, largest_px=largest)
        return [replace(box, left=box.left + left, top=box.top + top) for box in boxes]

    def _update(self, reading: Reading, previous: _Track | None, time_s: float) -> Reading:
        """Smooth the reading of a known person, or give a new person a track."""
        if previous is None:
            self._track_count += 1
            return replace(reading, track=self._track_count)
        old = previous.reading
        elapsed_s = time_s - previous.detected_s
        weight = 1 - math.exp(-elapsed_s / self._smoothing_s) if self._smoothing_s else 1.0
        smoothed = old.probabilities + np.float32(weight) * (reading.probabilities - old.probabilities)
        return Reading(_smoothed_box(old.box, reading.box), smoothed, old.track)


def _appearances(gray: Gray, readings: Sequence[Reading]) -> NDArray[np.float32]:
    """Small versions of the faces, f32 (n, pixels), with mean 0 and length 1: their dot product is the correlation."""
    faces = to_model_input(gray, [reading.box for reading in readings])
    size = (APPEARANCE_PX, APPEARANCE_PX)
    small = [cv2.resize(face, size, interpolation=cv2.INTER_AREA).ravel() for face in faces]
    appearances = np.array(small, np.float32).reshape(len(faces), APPEARANCE_PX * APPEARANCE_PX)
    appearances -= appearances.mean(axis=1, keepdims=True)
    return appearances / np.maximum(np.linalg.norm(appearances, axis=1, keepdims=True), 1e-6)


def _match(tracks: Sequence[_Track], readings: Sequence[Reading], appearances: NDArray[np.float32]) -> dict[int, int]:
    """Assign readings to tracks by index, best pairs first. Both position and appearance must match."""
    scored = []
    for row, track in enumerate(tracks):
        for number, reading in enumerate(readings):
            overlap = track.reading.box.overlap(reading.box)
            correlation = float(track.appearance @ appearances[number])
            if overlap >= MIN_OVERLAP and correlation >= MIN_CORRELATION:
                scored.append((overlap + correlation, number, row))
    matches: dict[int, int] = {}
    for _, number, row in sorted(scored, reverse=True):
        if number not in matches and row not in matches.values():
            matches[number] = row
    return matches


def _held_tracks(missed: Sequence[_Track], detected: Sequence[_Track], time_s: float) -> list[_Track]:
    """The missed tracks that are still shown: detected within HOLD_S, and without another face in their place."""
    boxes = [track.reading.box for track in detected]
    free = [track for track in missed if all(track.reading.box.overlap(box) < MIN_OVERLAP for box in boxes)]
    return [track for track in free if time_s - track.detected_s <= HOLD_S]


def _smoothed_box(old: Box, new: Box) -> Box:
    """Move the old box towards the new one: all the way for a large movement, less for jitter."""
    moved = math.dist(old.center, new.center) + abs(new.width - old.width)
    weight = min(max(moved / (JITTER * new.width), 0.3), 1.0)
    sides = ((before, now) for before, now in zip(_sides(old), _sides(new), strict=True))
    return Box(*(round(before + weight * (now - before)) for before, now in sides))


def _sides(box: Box) -> tuple[int, int, int, int]:
    return box.left, box.top, box.width, box.height
