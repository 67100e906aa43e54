"""The original's display loop against ours on the same frames, side by side in one run.

    python benchmarks/live.py [--faces build/faces.npz] [--frames 60]

Frames are made of FER-2013's val faces (the drawn ones of the sample without --faces) pasted into backgrounds with the
spectrum of a photograph. The original reads the cascade anew for each frame, searches it at full size with (1.3, 5) and
calls Keras's predict for every face; its network here is seed_cnn with random weights, which take as long as trained
ones. Times are medians in ms of one frame on all cores; ratios are what to compare.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import yaml

from emotion_detection.commands.adopt import merged
from emotion_detection.config import check_params
from emotion_detection.data.dataset import load
from emotion_detection.evaluation.detector_crops import background, paste, place, scene
from emotion_detection.inference.detector import HaarDetector, to_gray
from emotion_detection.inference.face_tracker import FaceTracker
from emotion_detection.inference.media import decode_image
from emotion_detection.inference.reading import Box
from emotion_detection.inference.recognizer import Recognizer
from emotion_detection.model.architectures import build
from emotion_detection.synthetic.sample import draw_faces

ROOT = Path(__file__).parents[1]
RATE = 25  # frames a second of the videos
SIZES = {"640x480": (480, 640, (70, 130)), "1280x720": (720, 1280, (100, 220))}
Frames = list[np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, help="npz file of the prepare stage, of FER-2013")
    parser.add_argument("--frames", type=int, default=60, help="frames of each video and each set of stills")
    arguments = parser.parse_args()
    every = load(arguments.faces).of("val").images if arguments.faces else draw_faces(per_class=30, seed=3)[0]
    easy = found_alone(every)
    original, recognizer = Original(), Recognizer.load()
    print(f"{'':26}{'original':>10}{'ours':>8}{'ratio':>7}{'p95':>7}{'faces':>14}")
    for name, (height, width, sides) in SIZES.items():
        for people in (1, 5):
            rng = np.random.default_rng(people)
            video = moving(easy, people, height, width, sides, arguments.frames, rng)
            follower = FaceTracker(recognizer)
            compare(f"video {name}, {people}", video, original, follower.recognize)
            stills = [
                rgb(scene(some(easy, people, rng), height=height, width=width, sides_px=sides, rng=rng)[0])
                for _ in range(arguments.frames // 3)
            ]
            compare(f"stills {name}, {people}", stills, original, lambda frame, _: recognizer.recognize(frame))
    latency(easy, recognizer, arguments.frames)
    over_haar(easy, recognizer)
    recall(every)
    steadiness(easy, recognizer)


class Original:
    """The loop of atulapra/Emotion-detection's display mode, without its window."""

    def __init__(self) -> None:
        recipe = merged((ROOT / "params.yaml").read_text(), (ROOT / "recipes/seed_cnn.yaml").read_text(), source="")
        self._model = build(check_params(yaml.safe_load(recipe), "seed_cnn.yaml").train)

    def show(self, frame: np.ndarray) -> list[Box]:
        cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        boxes = [Box(*map(int, box)) for box in cascade.detectMultiScale(gray, scaleFactor=1.3, minNeighbors=5)]
        for box in boxes:
            face = cv2.resize(gray[box.top : box.top + box.height, box.left : box.left + box.width], (48, 48))
            self._model.predict(face[np.newaxis, :, :, np.newaxis], verbose=0)
        return boxes


def found_alone(faces: np.ndarray) -> np.ndarray:
    """Those faces that the detector finds at all: a video of faces that nobody finds compares nothing."""
    detector, rng = HaarDetector(), np.random.default_rng(0)
    kept = []
    for face in faces[:150]:
        picture, (truth,) = scene([face], height=240, width=320, sides_px=(90, 110), rng=rng)
        if any(box.overlap(truth) > 0.4 for box in detector.detect(picture)):
            kept.append(face)
    return np.array(kept)


def some(faces: np.ndarray, count: int, rng: np.random.Generator) -> Sequence[np.ndarray]:
    return list(faces[rng.permutation(len(faces))[:count]])


def rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., np.newaxis], 3, axis=2)


def moving(
    faces: np.ndarray,
    people: int,
    height: int,
    width: int,
    sides: tuple[int, int],
    count: int,
    rng: np.random.Generator,
) -> Frames:
    """A video of people who sway, with a camera's noise."""
    sway = 24
    empty = background(height, width, rng)
    boxes = place(people, height=height - 2 * sway, width=width - 2 * sway, sides_px=sides, rng=rng)
    shown, frames = some(faces, people, rng), []
    for number in range(count):
        canvas = empty.copy()
        for person, (face, box) in enumerate(zip(shown, boxes, strict=True)):
            right, down = (sway * (1 + wave(number / pace + person)) for wave, pace in ((np.sin, 12), (np.cos, 17)))
            paste(canvas, face, Box(box.left + round(right), box.top + round(down), box.width, box.height))
        noisy = np.clip(canvas + rng.normal(0, 3, canvas.shape), 0, 255)
        frames.append(rgb(noisy.astype(np.uint8)))
    return frames


def timed(call: Callable[..., Any], *values: Any) -> tuple[float, Any]:
    """Milliseconds of call(*values), and what it returned."""
    start = time.perf_counter()
    result = call(*values)
    return 1000 * (time.perf_counter() - start), result


def compare(name: str, frames: Frames, original: Original, ours: Callable[[np.ndarray, float], Any]) -> None:
    """Alternate on the same frames: in a video of ours every frame counts, of the original's each fifth is enough."""
    theirs_ms, ours_ms, theirs_found, ours_found = [], [], [], []
    original.show(frames[0])  # Keras compiles
    for number, frame in enumerate(frames):
        spent, readings = timed(ours, frame, number / RATE)
        ours_ms.append(spent)
        ours_found.append(len(readings))
        if number % 5 == 0:
            spent, boxes = timed(original.show, frame)
            theirs_ms.append(spent)
            theirs_found.append(len(boxes))
    theirs, mine = np.mean(theirs_ms), np.mean(ours_ms)
    print(
        f"{name + ' faces':26}{theirs:8.1f}ms{mine:6.1f}ms{theirs / mine:6.1f}x{np.percentile(ours_ms, 95):5.0f}ms"
        f"{np.mean(theirs_found):7.2f}{np.mean(ours_found):7.2f}",
        flush=True,
    )


def latency(faces: np.ndarray, recognizer: Recognizer, count: int) -> None:
    """p50 and p95 of a video's frame at 640x480, the JPEG's decoding with it, as the demo's server spends them."""
    for people in (1, 5, 10):
        sides = (60, 90) if people == 10 else (70, 110)
        frames = moving(faces, people, 480, 640, sides, count, np.random.default_rng(people))
        jpegs = [cv2.imencode(".jpg", frame, (cv2.IMWRITE_JPEG_QUALITY, 80))[1] for frame in frames]
        follower, spent = FaceTracker(recognizer), []
        for number, jpeg in enumerate(jpegs):
            start = time.perf_counter()
            follower.recognize(decode_image(jpeg.tobytes(), "a frame"), number / RATE)
            spent.append(1000 * (time.perf_counter() - start))
        middle, late = np.percentile(spent, (50, 95))
        print(f"server latency, 640x480, {people:2} faces: p50 {middle:.1f} ms, p95 {late:.1f} ms")


def over_haar(faces: np.ndarray, recognizer: Recognizer) -> None:
    """What a still costs over the plain scan (1.3, 5) of the same frame, and over our own detector's."""
    plain = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    rng, ratios, own = np.random.default_rng(9), [], []
    for _ in range(20):
        frame = rgb(scene(some(faces, 3, rng), height=480, width=640, sides_px=(70, 130), rng=rng)[0])
        scan = timed(plain.detectMultiScale, to_gray(frame), 1.3, 5)[0]
        detect = timed(recognizer.detector.detect, to_gray(frame))[0]
        ours = timed(recognizer.recognize, frame)[0]
        ratios.append(ours / scan)
        own.append(ours / detect)
    share, over = np.median(ratios), np.median(own)
    print(f"a still with 3 faces takes {share:.2f} of a plain Haar scan, {over:.2f} of our detector's")


def recall(faces: np.ndarray) -> None:
    """Share of faces found, and boxes that are none, over pictures with five faces of many sizes."""
    plain = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    detector = HaarDetector()
    ways = {
        "original (default, 1.3, 5)": lambda gray: [
            Box(*map(int, box)) for box in plain.detectMultiScale(gray, 1.3, 5)
        ],
        "ours": detector.detect,
    }
    for name, (height, width, _) in SIZES.items():
        rng = np.random.default_rng(11)
        sides = (height // 12, height // 3)
        pictures = [scene(some(faces, 5, rng), height=height, width=width, sides_px=sides, rng=rng) for _ in range(30)]
        for way, detect in ways.items():
            found = false = 0
            for gray, truth in pictures:
                boxes = detect(gray)  # type: ignore[no-untyped-call]
                found += sum(any(box.overlap(one) >= 0.3 for box in boxes) for one in truth)
                false += sum(all(box.overlap(one) < 0.3 for one in truth) for box in boxes)
            print(
                f"stills {name}, {way:27}: {found / (5 * len(pictures)):.2f} of the faces, {false} boxes that are none"
            )


def steadiness(faces: np.ndarray, recognizer: Recognizer) -> None:
    """Flips of the emotion a minute, with and without smoothing, of five swaying people; and the smoothing's delay."""
    frames = moving(faces, 5, 480, 640, (70, 110), 250, np.random.default_rng(2))
    for smoothing_s in (0.0, 0.3):
        follower, flips, shown = FaceTracker(recognizer, smoothing_s=smoothing_s), 0, 0
        last: dict[int | None, str] = {}
        for number, frame in enumerate(frames):
            for reading in follower.recognize(frame, number / RATE):
                flips += last.get(reading.track, reading.emotion) != reading.emotion
                last[reading.track] = reading.emotion
                shown += 1
        minutes = shown / RATE / 60
        print(f"smoothing {smoothing_s:.1f} s: {flips / minutes:.0f} flips a person and minute, {len(last)} tracks")
    print(f"a change of expression shows after {0.3 * np.log(2):.2f} s (the majority of the average)")


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main()
