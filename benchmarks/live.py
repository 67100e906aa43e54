"""Compare the display loop of the original project with ours on the same frames.

    python benchmarks/live.py [--faces build/faces.npz] [--frames 60]

Frames are FER-2013's val faces (without --faces: drawn faces), pasted into backgrounds with the spectrum of a
photograph. For each frame, the original loads the cascade, searches at full size with (1.3, 5) and calls Keras's
predict for every face. Its network is seed_cnn with random weights, which are as fast as trained ones. Times are in ms
per frame on all cores. Compare the ratios: they depend less on the machine.
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
from emotion_detection.decoding.images import decode
from emotion_detection.evaluation.detector_crops import draw_background, draw_scene, paste_face, place_boxes
from emotion_detection.inference.detector import HaarDetector, to_gray
from emotion_detection.inference.face_tracker import SMOOTHING_S, FaceTracker
from emotion_detection.inference.reading import Box
from emotion_detection.inference.recognizer import Recognizer
from emotion_detection.model.architectures import build
from emotion_detection.synthetic.sample import draw_faces

ROOT = Path(__file__).parents[1]
FPS = 25
SIZES = {"640x480": (480, 640, (70, 130)), "1280x720": (720, 1280, (100, 220))}
Frames = list[np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, help="npz file of the prepare stage, of FER-2013")
    parser.add_argument("--frames", type=int, default=60, help="frames of each video and each set of stills")
    arguments = parser.parse_args()
    faces = load(arguments.faces).of("val").images if arguments.faces else draw_faces(per_class=30, seed=3)[0]
    detectable = detectable_faces(faces)
    original, recognizer = Original(), Recognizer.load()
    print(f"{'':26}{'original':>10}{'ours':>8}{'ratio':>7}{'p95':>7}{'faces':>14}")
    for name, (height, width, sides) in SIZES.items():
        for people in (1, 5):
            rng = np.random.default_rng(people)
            video = swaying_video(detectable, people, height, width, sides, arguments.frames, rng)
            tracker = FaceTracker(recognizer)
            compare(f"video {name}, {people}", video, original, tracker.recognize)
            stills = [
                image_with_faces(random_faces(detectable, people, rng), height, width, sides, rng)
                for _ in range(arguments.frames // 3)
            ]
            compare(f"stills {name}, {people}", stills, original, lambda frame, _: recognizer.recognize(frame))
    latency(detectable, recognizer, arguments.frames)
    relative_to_haar(detectable, recognizer)
    recall(faces)
    steadiness(detectable, recognizer)


class Original:
    """The display mode of atulapra/Emotion-detection, without its window."""

    def __init__(self) -> None:
        recipe = merged((ROOT / "params.yaml").read_text(), (ROOT / "recipes/seed_cnn.yaml").read_text(), source="")
        self._model = build(check_params(yaml.safe_load(recipe), "seed_cnn.yaml").train)

    def detect_and_classify(self, frame: np.ndarray) -> list[Box]:
        cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        boxes = [Box(*map(int, box)) for box in cascade.detectMultiScale(gray, scaleFactor=1.3, minNeighbors=5)]
        for box in boxes:
            face = cv2.resize(gray[box.top : box.top + box.height, box.left : box.left + box.width], (48, 48))
            self._model.predict(face[np.newaxis, :, :, np.newaxis], verbose=0)
        return boxes


def detectable_faces(faces: np.ndarray) -> np.ndarray:
    """The faces that our detector finds in a simple scene; other faces would not take any time."""
    detector, rng = HaarDetector(), np.random.default_rng(0)
    kept = []
    for face in faces[:150]:
        image, (true_box,) = draw_scene([face], height=240, width=320, sides_px=(90, 110), rng=rng)
        if any(box.overlap(true_box) > 0.4 for box in detector.detect(image)):
            kept.append(face)
    return np.array(kept)


def random_faces(faces: np.ndarray, count: int, rng: np.random.Generator) -> Sequence[np.ndarray]:
    return list(faces[rng.permutation(len(faces))[:count]])


def rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., np.newaxis], 3, axis=2)


def image_with_faces(
    faces: Sequence[np.ndarray], height: int, width: int, sides: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    return rgb(draw_scene(faces, height=height, width=width, sides_px=sides, rng=rng)[0])


def swaying_video(
    faces: np.ndarray,
    people: int,
    height: int,
    width: int,
    sides: tuple[int, int],
    count: int,
    rng: np.random.Generator,
) -> Frames:
    """Draw a video of swaying people with the noise of a camera."""
    sway = 24
    empty = draw_background(height, width, rng)
    boxes = place_boxes(people, height=height - 2 * sway, width=width - 2 * sway, sides_px=sides, rng=rng)
    shown, frames = random_faces(faces, people, rng), []
    for number in range(count):
        canvas = empty.copy()
        for person, (face, box) in enumerate(zip(shown, boxes, strict=True)):
            right, down = (sway * (1 + wave(number / pace + person)) for wave, pace in ((np.sin, 12), (np.cos, 17)))
            paste_face(canvas, face, Box(box.left + round(right), box.top + round(down), box.width, box.height))
        noisy = np.clip(canvas + rng.normal(0, 3, canvas.shape), 0, 255)
        frames.append(rgb(noisy.astype(np.uint8)))
    return frames


def timed(call: Callable[..., Any], *values: Any) -> tuple[float, Any]:
    """Return the milliseconds of call(*values) and its result."""
    start = time.perf_counter()
    result = call(*values)
    return 1000 * (time.perf_counter() - start), result


def compare(name: str, frames: Frames, original: Original, ours: Callable[[np.ndarray, float], Any]) -> None:
    """Time both on the same frames, alternately: ours on every frame, the original on every fifth."""
    theirs_ms, ours_ms, theirs_found, ours_found = [], [], [], []
    original.detect_and_classify(frames[0])  # Keras compiles the network
    for number, frame in enumerate(frames):
        spent, readings = timed(ours, frame, number / FPS)
        ours_ms.append(spent)
        ours_found.append(len(readings))
        if number % 5 == 0:
            spent, boxes = timed(original.detect_and_classify, frame)
            theirs_ms.append(spent)
            theirs_found.append(len(boxes))
    theirs, mine = np.mean(theirs_ms), np.mean(ours_ms)
    print(
        f"{name + ' faces':26}{theirs:8.1f}ms{mine:6.1f}ms{theirs / mine:6.1f}x{np.percentile(ours_ms, 95):5.0f}ms"
        f"{np.mean(theirs_found):7.2f}{np.mean(ours_found):7.2f}",
        flush=True,
    )


def latency(faces: np.ndarray, recognizer: Recognizer, count: int) -> None:
    """p50 and p95 of decoding and reading a 640x480 JPEG, which is the work of the demo's server."""
    for people in (1, 5, 10):
        sides = (60, 90) if people == 10 else (70, 110)
        frames = swaying_video(faces, people, 480, 640, sides, count, np.random.default_rng(people))
        jpegs = [cv2.imencode(".jpg", frame, (cv2.IMWRITE_JPEG_QUALITY, 80))[1] for frame in frames]
        tracker, spent = FaceTracker(recognizer), []
        for number, jpeg in enumerate(jpegs):
            start = time.perf_counter()
            tracker.recognize(decode(jpeg.tobytes(), "a frame"), number / FPS)
            spent.append(1000 * (time.perf_counter() - start))
        middle, late = np.percentile(spent, (50, 95))
        print(f"server latency, 640x480, {people:2} faces: p50 {middle:.1f} ms, p95 {late:.1f} ms")


def relative_to_haar(faces: np.ndarray, recognizer: Recognizer) -> None:
    """The time of an image, relative to OpenCV's default scan (1.3, 5) and to our detector."""
    plain = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    rng, ratios, own = np.random.default_rng(9), [], []
    for _ in range(20):
        frame = image_with_faces(random_faces(faces, 3, rng), 480, 640, (70, 130), rng)
        scan = timed(plain.detectMultiScale, to_gray(frame), 1.3, 5)[0]
        detect = timed(recognizer.detector.detect, to_gray(frame))[0]
        ours = timed(recognizer.recognize, frame)[0]
        ratios.append(ours / scan)
        own.append(ours / detect)
    share, over = np.median(ratios), np.median(own)
    print(f"an image with 3 faces takes {share:.2f} times a default Haar scan, {over:.2f} times our detector")


def recall(faces: np.ndarray) -> None:
    """Recall and false detections in images with five faces of many sizes."""
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
        images = [
            draw_scene(random_faces(faces, 5, rng), height=height, width=width, sides_px=sides, rng=rng)
            for _ in range(30)
        ]
        for way, detect in ways.items():
            detected = false = 0
            for gray, true_boxes in images:
                boxes = detect(gray)  # type: ignore[no-untyped-call]
                detected += sum(any(box.overlap(true_box) >= 0.3 for box in boxes) for true_box in true_boxes)
                false += sum(all(box.overlap(true_box) < 0.3 for true_box in true_boxes) for box in boxes)
            print(f"stills {name}, {way:27}: recall {detected / (5 * len(images)):.2f}, {false} false detections")


def steadiness(faces: np.ndarray, recognizer: Recognizer) -> None:
    """Changes of the emotion per minute of five swaying people, with and without smoothing, and the delay."""
    frames = swaying_video(faces, 5, 480, 640, (70, 110), 250, np.random.default_rng(2))
    for smoothing_s in (0.0, SMOOTHING_S):
        tracker, flips, shown = FaceTracker(recognizer, smoothing_s=smoothing_s), 0, 0
        last: dict[int | None, str] = {}
        for number, frame in enumerate(frames):
            for reading in tracker.recognize(frame, number / FPS):
                flips += last.get(reading.track, reading.emotion) != reading.emotion
                last[reading.track] = reading.emotion
                shown += 1
        minutes = shown / FPS / 60
        print(f"smoothing {smoothing_s:.1f} s: {flips / minutes:.0f} changes per person and minute, {len(last)} tracks")
    print(f"a change of expression shows after {SMOOTHING_S * np.log(2):.2f} s (the majority of the average)")


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main()
