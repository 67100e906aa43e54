"""Compare trackers on composed videos in which the place of every person is known.

    python -m benchmarks.tracking --faces build/faces.npz [--yunet yunet.onnx] [--against REVISION] [--frames 75]

Twelve clips show faces of FER-2013's val in front of drawn backgrounds: swaying people, slow and fast pans, zooms,
people who cross, leave and return, a cut, two similar people, changing light and noise. Each way of reading gets the
same frames: our tracker, a scan of every frame without tracking, and with --against the tracker and the Haar detector
of another Git revision. `lost` counts changes of a person's number, `mixed` numbers that were given to two people,
`flips` changes of a person's emotion per minute, and `lag` is the time until a new person is shown.
"""

import argparse
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from benchmarks.live import Original
from benchmarks.scenes import revision

from emotion_detection.arrays import Frame, Gray, Images
from emotion_detection.data.dataset import load
from emotion_detection.evaluation.detector_crops import detect_pasted_faces, draw_background, paste_face
from emotion_detection.inference.detector import FaceDetector, load_detector
from emotion_detection.inference.face_tracker import FaceTracker
from emotion_detection.inference.reading import Box, Reading
from emotion_detection.inference.recognizer import Recognizer

FPS = 25
FACES = 120  # of which those are shown that all detectors find in a simple picture
HEIGHT, WIDTH = 480, 640
Path3 = Callable[[float], tuple[float, float, float]]  # seconds -> center x, center y, side in px
Read = Callable[[Frame, float], list[Reading]]


@dataclass
class Clip:
    """`people` are faces with their paths; `light` changes the brightness over time; a cut replaces the people."""

    name: str
    people: list[tuple[Gray, Path3]]
    noise: float = 3
    light: Callable[[float], float] = lambda _: 1.0
    cut: float = np.inf  # seconds: the second half of the people replaces the first half

    def frames(self, count: int, seed: int) -> Iterator[tuple[Frame, dict[int, Box]]]:
        """Draw the frames, each with the boxes of the visible people."""
        rng = np.random.default_rng(seed)
        backgrounds = [draw_background(HEIGHT, WIDTH, rng) for _ in range(2)]
        half = len(self.people) // 2
        for number in range(count):
            second = number / FPS
            present = range(len(self.people))
            if self.cut < np.inf:
                present = range(half) if second < self.cut else range(half, len(self.people))
            canvas, boxes = backgrounds[int(second >= self.cut)].copy(), {}
            for person in present:
                face, path = self.people[person]
                x, y, side = path(second)
                box = Box(round(x - side / 2), round(y - side / 2), round(side), round(side))
                if 0 <= x < WIDTH and 0 <= y < HEIGHT:
                    paste_face(canvas, face, box)
                    if box.overlap(_inside(box)) > 0.8:
                        boxes[person] = box
            picture = canvas * self.light(second) + rng.normal(0, self.noise, canvas.shape)
            yield np.repeat(np.clip(picture, 0, 255).astype(np.uint8)[..., np.newaxis], 3, axis=2), boxes


def _inside(box: Box) -> Box:
    left, top = max(box.left, 0), max(box.top, 0)
    return Box(left, top, min(box.left + box.width, WIDTH) - left, min(box.top + box.height, HEIGHT) - top)


def sway(x: float, y: float, side: float, phase: float = 0) -> Path3:
    return lambda s: (x + 20 * np.sin(2.1 * s + phase), y + 10 * np.cos(1.5 * s + phase), side)


def pan(speed: float, x: float, y: float, side: float) -> Path3:
    return lambda s: (x - speed * s, y, side)


def zoom(rate: float, x: float, y: float, side: float) -> Path3:
    def path(s: float) -> tuple[float, float, float]:
        factor = float(np.exp(rate * s))
        return 320 + (x - 320) * factor, 240 + (y - 240) * factor, side * factor

    return path


def away(x: float, y: float, side: float, start: float, end: float) -> Path3:
    """Leave to the left at `start`, and be back at `end`."""

    def path(s: float) -> tuple[float, float, float]:
        gone = min(max((s - start) / 0.4, 0), 1) - min(max((s - end + 0.4) / 0.4, 0), 1)
        return x - gone * (x + side), y, side

    return path


def clips(faces: Images) -> list[Clip]:
    """Compose the clips. Each face is used once."""
    one, two = most_similar(faces[:60])
    rest = (face for row, face in enumerate(faces) if row not in (one, two))

    def take(*paths: Path3) -> list[tuple[Gray, Path3]]:
        return list(zip(itertools.islice(rest, len(paths)), paths, strict=True))

    wide = [(150 + 170 * k, 150 + 90 * (k % 3), 70 + 12 * (k % 4)) for k in range(8)]
    spread = [(110, 120, 80), (320, 130, 90), (520, 120, 100), (200, 330, 110), (450, 340, 90)]
    grid = [(90 + 150 * (k % 4), 130 + 200 * (k // 4), 70 + 6 * k) for k in range(8)]
    return [
        Clip("swaying", take(sway(150, 240, 110), sway(330, 220, 90, 1), sway(520, 250, 120, 2))),
        Clip("slow pan", take(*(pan(90, *place) for place in wide[:6]))),
        Clip("fast pan", take(*(pan(320, *place) for place in wide))),
        Clip("zoom in", take(*(zoom(0.25, *place) for place in spread))),
        Clip("zoom out", take(*(zoom(-0.2, x, y, 1.2 * side) for x, y, side in spread))),
        Clip("crossing", take(lambda s: (120 + 150 * s, 240, 110), lambda s: (520 - 150 * s, 225, 95))),
        Clip("return", take(away(120, 240, 110, 0.8, 1.9), sway(430, 240, 110))),
        Clip("cut", take(*(sway(x, 240, side) for x, side in ((160, 120), (430, 110), (170, 110), (440, 120)))), cut=1),
        Clip("similar", [(faces[one], sway(210, 240, 110)), (faces[two], sway(400, 240, 110, 2))]),
        Clip("light", take(*(sway(*place) for place in spread)), light=lambda s: 0.65 + 0.35 * np.cos(3 * s)),
        Clip("noise", take(*(sway(*place) for place in spread)), noise=14),
        Clip("group", take(*(sway(*place) for place in grid))),
    ]


def most_similar(faces: Images) -> tuple[int, int]:
    """The rows of the two faces with the largest correlation below 0.9, which excludes copies."""
    small = np.array([cv2.resize(face, (12, 12), interpolation=cv2.INTER_AREA).ravel() for face in faces])
    correlations = np.triu(np.corrcoef(small), 1)
    correlations[correlations > 0.9] = 0
    first, second = np.unravel_index(correlations.argmax(), correlations.shape)
    return int(first), int(second)


@dataclass
class Score:
    """The sums over all clips of one way of reading."""

    people: int = 0
    found: int = 0
    false: int = 0
    lost: int = 0
    mixed: int = 0
    flips: int = 0
    lags_s: list[float] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)

    def line(self, name: str, original_ms: float) -> str:
        minutes = max(self.found, 1) / FPS / 60
        lag = f"{np.mean(self.lags_s):5.2f}{np.percentile(self.lags_s, 95):6.2f}" if self.lags_s else " -"
        mean = float(np.mean(self.ms))
        return (
            f"{name:22}{self.found / max(self.people, 1):7.3f}{self.false:7}{self.lost:6}{self.mixed:7}"
            f"{self.flips / minutes:8.1f}{lag}{mean:8.1f}{np.percentile(self.ms, 95):7.1f}{original_ms / mean:7.1f}x"
        )


class Follower:
    """Scores one way of reading a clip."""

    def __init__(self, score: Score, read: Read) -> None:
        self._score, self._read = score, read
        self._number: dict[int, int] = {}
        self._emotion: dict[int, str] = {}
        self._owner: dict[int, set[int]] = defaultdict(set)
        self._first_s: dict[int, float] = {}
        self._shown: set[int] = set()

    def look(self, frame: Frame, second: float, truth: dict[int, Box]) -> None:
        start = time.process_time()
        readings = self._read(frame, second)
        self._score.ms.append(1000 * (time.process_time() - start))
        for person, box in truth.items():
            self._first_s.setdefault(person, second)
            self._score.people += 1
            best = max(readings, key=lambda reading: box.overlap(reading.box), default=None)
            if best is not None and box.overlap(best.box) >= 0.3:
                self._score.found += 1
                self._see(person, best, second)
        everyone = list(truth.values())
        self._score.false += sum(all(reading.box.overlap(box) < 0.3 for box in everyone) for reading in readings)

    def _see(self, person: int, reading: Reading, second: float) -> None:
        if person not in self._shown:
            self._shown.add(person)
            self._score.lags_s.append(second - self._first_s[person])
        self._score.flips += self._emotion.get(person, reading.emotion) != reading.emotion
        self._emotion[person] = reading.emotion
        if reading.track is None:
            return
        self._score.lost += self._number.get(person, reading.track) != reading.track
        self._number[person] = reading.track
        owners = self._owner[reading.track]
        self._score.mixed += bool(owners) and person not in owners
        owners.add(person)


def start_tracker(tracker: type[FaceTracker], reader: Recognizer) -> Read:
    return tracker(reader).recognize


def start_stills(reader: Recognizer) -> Read:
    return lambda frame, _: reader.recognize(frame)


def ways(
    recognizer: Recognizer, detectors: dict[str, FaceDetector], against: str | None
) -> dict[str, Callable[[], Read]]:
    """Name -> a function that starts to read a clip."""
    started: dict[str, Callable[[], Read]] = {}
    for name, detector in detectors.items():
        reader = Recognizer(recognizer.classifier, detector)
        started[f"{name}, tracked"] = partial(start_tracker, FaceTracker, reader)
        started[f"{name}, every frame"] = partial(start_stills, reader)
    if against:
        old = revision(against)
        old["detector"].HaarDetector.margin = getattr(old["detector"].HaarDetector, "margin", old["detector"].MARGIN)
        previous = Recognizer(recognizer.classifier, old["detector"].HaarDetector())
        started[f"haar, {against}"] = partial(start_tracker, old["face_tracker"].FaceTracker, previous)
    return started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="npz file of the prepare stage, of FER-2013")
    parser.add_argument("--yunet", help="yunet, or the path of its file")
    parser.add_argument("--against", help="a Git revision, for example HEAD")
    parser.add_argument("--frames", type=int, default=75, help="frames of each clip")
    parser.add_argument("--clips", default="", help="comma-separated names; all by default")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    val = load(arguments.faces).of("val").images
    val = val[np.random.default_rng(1).permutation(len(val))[:FACES]]
    recognizer, original = Recognizer.load(), Original()
    detectors = {"haar": load_detector("haar")} | ({"yunet": load_detector(arguments.yunet)} if arguments.yunet else {})
    started = ways(recognizer, detectors, arguments.against)
    for detector in detectors.values():
        val = val[detect_pasted_faces(val, detector, seed=0)[0]]
    scores = {name: Score() for name in started}
    original_ms: list[float] = []
    for clip in clips(val):
        if not arguments.clips or clip.name in arguments.clips.split(","):
            print(f"{clip.name:10} recall/lost: {play(clip, started, scores, arguments.frames, original, original_ms)}")
    columns = f"{'recall':>7}{'false':>7}{'lost':>6}{'mixed':>7}{'flips':>8}{'lag':>5}{'p95':>6}"
    columns += f"{'ms':>8}{'p95':>7}{'speed':>8}"
    print(f"{'':22}{columns}")
    for name, score in scores.items():
        print(score.line(name, float(np.mean(original_ms))))


def play(
    clip: Clip,
    started: dict[str, Callable[[], Read]],
    scores: dict[str, Score],
    count: int,
    original: Original,
    original_ms: list[float],
) -> str:
    """Read a clip in all ways, and time the original on some of its frames. Return recall and lost numbers."""
    before = {name: (score.people, score.found, score.lost) for name, score in scores.items()}
    followers = [Follower(scores[name], start()) for name, start in started.items()]
    for number, (frame, truth) in enumerate(clip.frames(count, seed=len(clip.name))):
        for follower in followers:
            follower.look(frame, number / FPS, truth)
        if number % 25 == 12:
            start_s = time.process_time()
            original.detect_and_classify(frame)
            original_ms.append(1000 * (time.process_time() - start_s))
    parts = []
    for name, (people, found, lost) in before.items():
        score = scores[name]
        parts.append(f"{name} {(score.found - found) / max(score.people - people, 1):.2f}/{score.lost - lost}")
    return "; ".join(parts)


if __name__ == "__main__":
    main()
