"""Read the faces in a video: follow people from frame to frame and smooth their probabilities over time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from emotion_detection.arrays import Frame, Gray
from emotion_detection.inference.detector import to_gray
from emotion_detection.inference.face_patch import Patch, follow, patch, similarity, surroundings
from emotion_detection.inference.reading import Box, Reading
from emotion_detection.inference.recognizer import Recognizer

SMOOTHING_S = 0.4  # a new expression gets the majority after 0.4 ln 2 = 0.28 s
SCAN_EVERY_S = 0.3  # how often the detector runs, unless it says otherwise (scan_every_s)
SCAN_AGAIN_S = 0.1  # the same while no face is known, a face is out of sight or a face is not yet confirmed
SMALLEST_FACE = 1 / 16  # of the frame's shorter side: the detector scans a video no finer than needed for it
CONFIRM_S = 0.2  # a new face is shown when it is detected twice, unless the frame before is older than this
FOLLOW_S = 1.0  # how long a face is followed that the detector does not confirm
HOLD_S = 0.3  # how long a face that is out of sight keeps its reading
FORGET_S = 2.0  # a person who returns later gets a new track
SAME_PERSON = 0.6  # similarity of patches, see face_patch
SAME_PLACE = 0.3  # overlap of two boxes of one face
SAME_FACE_THERE = 0.55  # similarity that is enough in the same place at the same time
COVERED = 0.2  # similarity that is enough there if another face covers a part of this one
TOUCHING = 0.05  # overlap of two faces of which one covers the other
GONE = 0.4  # similarity below which a face is no longer in its place
PART = 0.12  # overlap with a known face beyond which a new box is a second box of it
READ_EVERY_S = 0.06  # how often a face is classified: expressions do not change faster
FAR = 1.0  # of the box's side: how far a face moves while it is out of sight, per second and at once
JITTER = 0.15  # of the box's side: smaller movements are mostly noise of the detector


@dataclass(frozen=True, eq=False)
class _Track:
    reading: Reading  # smoothed; without a number until the face is confirmed
    face: Patch  # when it was last detected
    velocity: tuple[float, float]  # px/s to the right and down
    read_s: float  # classified
    detected_s: float
    seen_s: float  # detected or followed

    def expected(self, time_s: float) -> Box:
        """Where the face is if it moves on. A face out of sight does not move for longer than HOLD_S."""
        box, elapsed_s = self.reading.box, min(time_s - self.seen_s, HOLD_S)
        right, down = (round(speed * elapsed_s) for speed in self.velocity)
        return replace(box, left=box.left + right, top=box.top + down)


@dataclass(frozen=True, eq=False)
class _Sighting:
    """A face in the current frame, and the person it belongs to if that is known."""

    box: Box
    track: _Track | None
    face: Patch | None = None  # None: followed, not detected

    def needs_reading(self, time_s: float) -> bool:
        return self.track is None or not 0 <= time_s - self.track.read_s < READ_EVERY_S


class FaceTracker:
    """Reads the frames of one video in order. Keeps only the people of the last two seconds."""

    def __init__(self, recognizer: Recognizer, *, smoothing_s: float = SMOOTHING_S) -> None:
        """smoothing_s: time constant of the exponential average of a person's probabilities; 0 for none."""
        self._recognizer, self._smoothing_s = recognizer, smoothing_s
        self._scan_every_s: float = getattr(recognizer.detector, "scan_every_s", SCAN_EVERY_S)
        self._tracks: list[_Track] = []
        self._track_count = 0
        self._scanned_s = self._frame_s = -math.inf

    def recognize(self, frame_rgb: Frame, time_s: float) -> list[Reading]:
        """Return the readings of a frame `time_s` seconds into the video, from left to right, with their tracks."""
        gray = to_gray(frame_rgb)
        previous_s, self._frame_s = self._frame_s, time_s
        continues = 0 <= time_s - previous_s <= CONFIRM_S
        self._tracks = [track for track in self._tracks if 0 <= time_s - track.seen_s < FORGET_S]
        sightings = self._sightings(gray, previous_s, time_s)
        places = [track.reading.box for track in self._tracks if track.reading.track and _held(track, time_s)]
        seen = []
        for sighting, reading in zip(sightings, self._read(gray, sightings, time_s), strict=True):
            known_place = any(sighting.box.overlap(place) >= SAME_PLACE for place in places)
            confirmed = not continues or known_place or (sighting.track is not None and sighting.face is not None)
            seen.append(self._update(sighting, reading, time_s, confirmed=confirmed))
        sighted = {id(sighting.track) for sighting in sightings}
        unseen = [track for track in self._tracks if id(track) not in sighted and track.reading.track]
        self._tracks = seen + unseen
        shown = {track.reading.box: track.reading for track in (*seen, *_held_tracks(gray, unseen, seen, time_s))}
        numbered = [box for box, reading in shown.items() if reading.track]
        return [shown[box] for box in self._recognizer.select(numbered)]

    def _read(self, gray: Gray, sightings: Sequence[_Sighting], time_s: float) -> list[Reading | None]:
        """Classify the faces with one call of the network; None for a face that was classified just before."""
        due = [sighting for sighting in sightings if sighting.needs_reading(time_s)]
        readings = iter(self._recognizer.read(gray, [sighting.box for sighting in due]))
        return [next(readings) if sighting.needs_reading(time_s) else None for sighting in sightings]

    def _sightings(self, gray: Gray, previous_s: float, time_s: float) -> list[_Sighting]:
        """The faces that the detector finds if a scan is due, and the faces that are followed."""
        followed = _follow_all(gray, self._tracks, time_s)
        if not self._scan_is_due(followed, previous_s, time_s):
            return followed
        self._scanned_s = time_s
        smallest = round(SMALLEST_FACE * min(gray.shape))
        boxes = self._recognizer.detector.detect(gray, smallest_px=smallest)
        detected = _assign(gray, sorted(boxes, key=lambda box: box.left), self._tracks, followed, time_s)
        sightings = detected + _without(followed, detected)
        return [sighting for sighting in sightings if not _is_part_of_known(sighting, sightings)]

    def _scan_is_due(self, followed: Sequence[_Sighting], previous_s: float, time_s: float) -> bool:
        """Scan at once for a face that went out of sight or is not yet confirmed, and often while one is missing."""
        active = [track for track in self._tracks if _held(track, time_s)]
        known = {id(sighting.track) for sighting in followed}
        missing = [track for track in active if id(track) not in known]
        if any(track.seen_s == previous_s for track in missing) or any(not track.reading.track for track in active):
            return True
        pause_s = self._scan_every_s if active and not missing else min(SCAN_AGAIN_S, self._scan_every_s)
        return not 0 <= time_s - self._scanned_s < pause_s

    def _update(self, sighting: _Sighting, reading: Reading | None, time_s: float, *, confirmed: bool) -> _Track:
        """Smooth the reading of a known person, or start the track of a new one."""
        track = sighting.track
        if track is None:
            # The detector found this face, and so it was classified.
            assert sighting.face is not None
            assert reading is not None
            number = self._next_number() if confirmed else None
            return _Track(replace(reading, track=number), sighting.face, (0.0, 0.0), time_s, time_s, time_s)
        number = track.reading.track or (self._next_number() if confirmed else None)
        probabilities = track.reading.probabilities
        if reading is not None:
            weight = np.float32(self._weight(time_s - track.read_s))
            probabilities = probabilities + weight * (reading.probabilities - probabilities)
        return replace(
            track,
            reading=Reading(_smoothed_box(track.reading.box, sighting.box), probabilities, number),
            face=track.face if sighting.face is None else sighting.face,
            velocity=_velocity(track, sighting.box, time_s),
            read_s=track.read_s if reading is None else time_s,
            detected_s=track.detected_s if sighting.face is None else time_s,
            seen_s=time_s,
        )

    def _weight(self, elapsed_s: float) -> float:
        """The weight of a new reading in the average."""
        return 1 - math.exp(-elapsed_s / self._smoothing_s) if self._smoothing_s else 1.0

    def _next_number(self) -> int:
        self._track_count += 1
        return self._track_count


def _is_part_of_known(sighting: _Sighting, sightings: Sequence[_Sighting]) -> bool:
    """Whether a new face overlaps a known one: the detector has found a second box of it."""
    known = [other for other in sightings if other.track is not None]
    return sighting.track is None and any(sighting.box.overlap(other.box) > PART for other in known)


def _held(track: _Track, time_s: float) -> bool:
    return time_s - track.seen_s <= HOLD_S


def _follow_all(gray: Gray, tracks: Sequence[_Track], time_s: float) -> list[_Sighting]:
    """Follow the faces that were in sight until now. Of two tracks in one place, the more similar one is followed."""
    found = []
    for track in tracks:
        if _held(track, time_s) and time_s - track.detected_s <= FOLLOW_S:
            box, similar = follow(track.face, gray, track.expected(time_s))
            if similar >= SAME_PERSON:
                found.append((similar, _Sighting(box, track)))
    kept: list[_Sighting] = []
    for _, sighting in sorted(found, key=lambda pair: -pair[0]):
        if all(sighting.box.overlap(other.box) < SAME_PLACE for other in kept):
            kept.append(sighting)
    return kept


def _assign(
    gray: Gray, boxes: Sequence[Box], tracks: Sequence[_Track], followed: Sequence[_Sighting], time_s: float
) -> list[_Sighting]:
    """Assign each box to a track, best pairs first. A box without a track is a new face."""
    places = {id(sighting.track): sighting.box for sighting in followed}
    around = [surroundings(gray, box) for box in boxes]
    covered = [any(box.overlap(other) > TOUCHING for other in boxes if other is not box) for box in boxes]
    scored = []
    for row, track in enumerate(tracks):
        for number, box in enumerate(boxes):
            similar = similarity(track.face, around[number])
            enough = COVERED if covered[number] else SAME_FACE_THERE
            score = _score(track, box, similar, enough, places.get(id(track)), time_s)
            if score > 0:
                scored.append((score, number, row))
    matches: dict[int, int] = {}
    for _, number, row in sorted(scored, reverse=True):
        if number not in matches and row not in matches.values():
            matches[number] = row
    sightings = []
    for number, box in enumerate(boxes):
        known = tracks[matches[number]] if number in matches else None
        # A face that another one covers looks different: the known picture of it is kept.
        face = known.face if known is not None and covered[number] else patch(around[number])
        sightings.append(_Sighting(box, known, face))
    return sightings


def _score(track: _Track, box: Box, similar: float, enough: float, followed: Box | None, time_s: float) -> float:
    """How well the box fits the track; 0 if it may be another person. `enough` is the similarity in the same place."""
    if followed is not None:
        overlap = followed.overlap(box)
        return 2 + overlap + similar if overlap >= SAME_PLACE else 0.0
    expected = track.expected(time_s)
    if _held(track, time_s) and expected.overlap(box) >= SAME_PLACE and similar >= enough:
        return 1 + expected.overlap(box) + similar
    reach = FAR * max(box.width, box.height) * (1 + time_s - track.seen_s)
    near = math.dist(expected.center, box.center) <= reach
    return similar if near and similar >= SAME_PERSON else 0.0


def _without(followed: Sequence[_Sighting], detected: Sequence[_Sighting]) -> list[_Sighting]:
    """The followed faces that the detector missed. It must find a new face twice before the face is followed."""
    known = {id(sighting.track) for sighting in detected}
    return [
        sighting
        for sighting in followed
        if id(sighting.track) not in known
        and sighting.track is not None
        and sighting.track.reading.track
        and all(sighting.box.overlap(other.box) < SAME_PLACE for other in detected)
    ]


def _held_tracks(gray: Gray, unseen: Sequence[_Track], seen: Sequence[_Track], time_s: float) -> list[_Track]:
    """The tracks out of sight that are still shown: something like the face, and no other face, is in their place."""
    boxes = [track.reading.box for track in seen]
    held = [track for track in unseen if _held(track, time_s)]
    free = [track for track in held if all(track.reading.box.overlap(box) < SAME_PLACE for box in boxes)]
    return [track for track in free if similarity(track.face, surroundings(gray, track.reading.box)) >= GONE]


def _velocity(track: _Track, box: Box, time_s: float) -> tuple[float, float]:
    """The average speed of the last movements, in px/s; the older movements fade within a few frames."""
    elapsed_s = time_s - track.seen_s
    if not 0 < elapsed_s <= HOLD_S:
        return 0.0, 0.0
    moved = (now - before for now, before in zip(box.center, track.reading.box.center, strict=True))
    right, down = ((old + distance / elapsed_s) / 2 for old, distance in zip(track.velocity, moved, strict=True))
    return right, down


def _smoothed_box(old: Box, new: Box) -> Box:
    """Move the old box towards the new one: all the way for a large movement, less for jitter."""
    moved = math.dist(old.center, new.center) + abs(new.width - old.width)
    weight = min(max(moved / (JITTER * new.width), 0.3), 1.0)
    sides = ((before, now) for before, now in zip(_sides(old), _sides(new), strict=True))
    return Box(*(round(before + weight * (now - before)) for before, now in sides))


def _sides(box: Box) -> tuple[int, int, int, int]:
    return box.left, box.top, box.width, box.height
