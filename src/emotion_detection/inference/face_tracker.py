"""Videos -> readings: people followed from frame to frame, looked for where they were, read steadily."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_detection.inference.detector import Frame, Gray, to_gray, to_model_input
from emotion_detection.inference.reading import Box, Reading
from emotion_detection.inference.recognizer import Recognizer

SMOOTHING_S = 0.3  # a new expression has the majority after 0.3 ln 2 = 0.21 s
SCAN_EVERY_S = 0.5  # the whole frame; in between only where somebody was
SCAN_EMPTY_S = 0.1  # the same, while nobody is there
HOLD_S = 0.3  # a face that the detector misses keeps its reading
FORGET_S = 1.0  # a person who comes back later is a new one
NEAR = 0.4  # of a box's side, each way: how far to look
SIZES = (0.75, 1.35)  # of a box's side: what to look for there
SAME_PLACE = 0.3  # overlap of one person's boxes from frame to frame
# Correlation of one person's faces from frame to frame. On FER-2013 two people's is below 0.51 in 95 of 100 pairs, that
# of one face and the same face in a shifted crop above 0.55 in 99.
SAME_LOOK = 0.5
LOOK_PX = 12
JITTER = 0.15  # of a box's side: moves below are mostly the detector's own noise


@dataclass(frozen=True, eq=False)
class _Track:
    reading: Reading  # smoothed
    look: NDArray[np.float32]  # of the face, unit length
    seen_s: float


class FaceTracker:
    """Reads the frames of one video, in order; keeps nothing but the people of the last second."""

    def __init__(self, recognizer: Recognizer, *, smoothing_s: float = SMOOTHING_S) -> None:
        """smoothing_s: time constant of the exponential average of a person's probabilities; 0: none."""
        self._recognizer, self._smoothing_s = recognizer, smoothing_s
        self._tracks: list[_Track] = []
        self._people = 0
        self._scanned_s = -math.inf

    def recognize(self, frame_rgb: Frame, at_s: float) -> list[Reading]:
        """Readings of frame u8 (h,w,3), taken at_s seconds into the video, from left to right, with their tracks."""
        gray = to_gray(frame_rgb)
        self._tracks = [track for track in self._tracks if 0 <= at_s - track.seen_s < FORGET_S]
        boxes = sorted(self._boxes(gray, at_s), key=lambda box: box.left)
        readings = self._recognizer.read(gray, boxes)
        looks = _looks(gray, readings)
        pairs = _matches(self._tracks, readings, looks)
        missed = [track for row, track in enumerate(self._tracks) if row not in pairs.values()]
        seen = []
        for number, (reading, look) in enumerate(zip(readings, looks, strict=True)):
            before = self._tracks[pairs[number]] if number in pairs else None
            seen.append(_Track(self._continued(reading, before, at_s), look, at_s))
        self._tracks = seen + missed
        shown = {track.reading.box: track.reading for track in (*seen, *_held(missed, seen, at_s))}
        return [shown[box] for box in self._recognizer.chosen(list(shown))]

    def _boxes(self, gray: Gray, at_s: float) -> list[Box]:
        """Where the faces are: in the whole frame now and then, else near the known ones."""
        pause = SCAN_EVERY_S if self._tracks else SCAN_EMPTY_S
        if not 0 <= at_s - self._scanned_s < pause:
            self._scanned_s = at_s
            return self._recognizer.detector.detect(gray)
        found: list[Box] = []
        for track in self._tracks:
            # Where two people's neighbourhoods overlap, each is found twice.
            found += [box for box in self._near(gray, track.reading.box) if all(box.overlap(o) < 0.5 for o in found)]
        return found

    def _near(self, gray: Gray, box: Box) -> list[Box]:
        side = max(box.width, box.height)
        left, top = max(box.left - round(NEAR * side), 0), max(box.top - round(NEAR * side), 0)
        part = gray[top : box.top + box.height + round(NEAR * side), left : box.left + box.width + round(NEAR * side)]
        if not part.size:
            return []
        smallest, largest = (round(size * side) for size in SIZES)
        found = self._recognizer.detector.detect(np.ascontiguousarray(part), smallest_px=smallest, largest_px=largest)
        return [replace(near, left=near.left + left, top=near.top + top) for near in found]

    def _continued(self, reading: Reading, before: _Track | None, at_s: float) -> Reading:
        """The reading as that of a person seen before, or of a new one."""
        if before is None:
            self._people += 1
            return replace(reading, track=self._people)
        old = before.reading
        elapsed = at_s - before.seen_s
        weight = 1 - math.exp(-elapsed / self._smoothing_s) if self._smoothing_s else 1.0
        smoothed = old.probabilities + np.float32(weight) * (reading.probabilities - old.probabilities)
        return Reading(_steadied(old.box, reading.box), smoothed, old.track)


def _looks(gray: Gray, readings: Sequence[Reading]) -> NDArray[np.float32]:
    """What tells people apart from one frame to the next, f32 (n, pixels): small faces, mean 0, length 1."""
    faces = to_model_input(gray, [reading.box for reading in readings])
    small = [cv2.resize(face, (LOOK_PX, LOOK_PX), interpolation=cv2.INTER_AREA).ravel() for face in faces]
    looks = np.array(small, np.float32).reshape(len(faces), LOOK_PX * LOOK_PX)
    looks -= looks.mean(axis=1, keepdims=True)
    return looks / np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-6)


def _matches(tracks: Sequence[_Track], readings: Sequence[Reading], looks: NDArray[np.float32]) -> dict[int, int]:
    """Reading's row -> track's row: the surest pairs first, nobody twice; place and look must both be the person's."""
    pairs: dict[int, int] = {}
    scored = []
    for row, track in enumerate(tracks):
        for number, reading in enumerate(readings):
            place, alike = track.reading.box.overlap(reading.box), float(track.look @ looks[number])
            if place >= SAME_PLACE and alike >= SAME_LOOK:
                scored.append((place + alike, number, row))
    for _, number, row in sorted(scored, reverse=True):
        if number not in pairs and row not in pairs.values():
            pairs[number] = row
    return pairs


def _held(missed: Sequence[_Track], seen: Sequence[_Track], at_s: float) -> list[_Track]:
    """Those among the missed who are still shown: they were here just now, and nobody stands in their place."""
    free = (track for track in missed if all(track.reading.box.overlap(s.reading.box) < SAME_PLACE for s in seen))
    return [track for track in free if at_s - track.seen_s <= HOLD_S]


def _steadied(old: Box, new: Box) -> Box:
    """The new box, drawn towards the old one when they hardly differ."""
    moved = math.dist(old.centre, new.centre) + abs(new.width - old.width)
    weight = min(max(moved / (JITTER * new.width), 0.3), 1.0)
    sides = ((was, now) for was, now in zip(_sides(old), _sides(new), strict=True))
    return Box(*(round(was + weight * (now - was)) for was, now in sides))


def _sides(box: Box) -> tuple[int, int, int, int]:
    return box.left, box.top, box.width, box.height
