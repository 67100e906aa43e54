"""Compare detectors on pasted faces of FER-2013: found, found and read right, false boxes and cost.

    python -m benchmarks.detection --faces build/faces.npz [--split val] [--yunet yunet.onnx] [--against REVISION]

Four kinds of pictures: a face in front of a webcam (320x240), faces of 4 to 45 % of the height that are turned and lit
in many ways (640x480), pictures without faces (640x480, with --pictures FOLDER also photographs), and group pictures
of 12 megapixels with 10 to 30 upright faces of 3 to 10 % of the height. The settings were chosen on val; only report on
test. Cost is the processor time of a 640x480 picture relative to the scan of the original project.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from benchmarks.scenes import alter, draw_empty, paste_faces, revision

from emotion_detection.arrays import Gray, Labels
from emotion_detection.data.dataset import Faces, load
from emotion_detection.evaluation.detector_crops import draw_background
from emotion_detection.inference import pretrained
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.detector import FaceDetector, HaarDetector, load_detector, to_model_input
from emotion_detection.inference.reading import Box

GROUP = (3000, 4000)  # height, width


@dataclass(frozen=True)
class Picture:
    gray: Gray
    boxes: list[Box]
    labels: Labels  # of the boxes


class OriginalDetector:
    """The scan of atulapra/Emotion-detection."""

    margin = 0.0

    def __init__(self) -> None:
        self._cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")

    def detect(self, gray: Gray, *, smallest_px: int = 0, largest_px: int = 0) -> list[Box]:  # noqa: ARG002
        return [Box(*map(int, box)) for box in self._cascade.detectMultiScale(gray, 1.3, 5)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="npz file of the prepare stage, of FER-2013")
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--yunet", help="yunet, or the path of its file")
    parser.add_argument("--against", help="a Git revision whose Haar detector is compared, for example HEAD")
    parser.add_argument("--pictures", type=Path, help="folder of pictures without faces")
    parser.add_argument("--count", type=int, default=400, help="number of faces of each kind")
    parser.add_argument("--groups", type=int, default=3, help="number of group pictures")
    arguments = parser.parse_args()
    split = load(arguments.faces).of(arguments.split)
    split = split[np.random.default_rng(3).permutation(len(split))]
    paths = sorted(arguments.pictures.iterdir()) if arguments.pictures else []
    kinds = draw_pictures(split, paths, arguments.count, arguments.groups)
    detectors: dict[str, FaceDetector] = {"original": OriginalDetector()}
    if arguments.against:
        old = revision(arguments.against)["detector"]
        old.HaarDetector.margin = getattr(old.HaarDetector, "margin", old.MARGIN)
        detectors[arguments.against] = old.HaarDetector()
    detectors["haar"] = HaarDetector()
    if arguments.yunet:
        detectors["yunet"] = load_detector(arguments.yunet)
    classifier = EmotionClassifier(pretrained.MODEL)
    print(f"{'':12}" + "".join(f"{name:>32}" for name in kinds))
    print(f"{'':12}" + len(kinds) * "    found  right  false  ms/picture".rjust(32))
    for name, detector in detectors.items():
        cells = [measure(pictures, detector, classifier) for pictures in kinds.values()]
        print(f"{name:12}" + "".join(f"{cell:>32}" for cell in cells), flush=True)


def draw_pictures(faces: Faces, paths: Sequence[Path], count: int, groups: int) -> dict[str, list[Picture]]:
    rng = np.random.default_rng(5)
    webcam = [
        draw(faces[np.array([row])], draw_background(240, 320, rng), rng.integers(60, 131, 1).tolist(), 0, rng)
        for row in range(count)
    ]
    stills = []
    for start in range(count, 2 * count, 4):
        sides = (480 * np.exp(rng.uniform(np.log(0.04), np.log(0.45), 4))).astype(int).tolist()
        stills.append(draw(faces[np.arange(start, start + 4)], draw_empty(paths, 480, 640, rng), sides, 20, rng))
    empty = [Picture(draw_empty(paths, 480, 640, rng), [], np.zeros(0, np.uint8)) for _ in range(count // 4)]
    crowds = []
    for number in range(groups):
        rows = 2 * count + 30 * number + np.arange(int(rng.integers(10, 31)))
        sides = rng.integers(90, 301, len(rows)).tolist()
        crowds.append(draw(faces[rows], draw_background(*GROUP, rng), sides, 0, rng))
    return {"webcam": webcam, "turned and lit": stills, "without faces": empty, "12 megapixels": crowds}


def draw(faces: Faces, canvas: Gray, sides: Sequence[int], degrees: float, rng: np.random.Generator) -> Picture:
    images = np.array([alter(face, rng, degrees) for face in faces.images]) if degrees else faces.images
    boxes = paste_faces(canvas, images, sides, rng)
    return Picture(canvas, boxes, faces.labels[: len(boxes)])


def measure(pictures: Sequence[Picture], detector: FaceDetector, classifier: EmotionClassifier) -> str:
    total = found = right = false = 0
    spent_s = 0.0
    for picture in pictures:
        start_s = time.process_time()
        boxes = detector.detect(picture.gray)
        spent_s += time.process_time() - start_s
        false += sum(all(box.overlap(true) < 0.3 for true in picture.boxes) for box in boxes)
        best = [max(boxes, key=true.overlap, default=Box(0, 0, 1, 1)) for true in picture.boxes]
        is_found = np.array([true.overlap(box) >= 0.3 for true, box in zip(picture.boxes, best, strict=True)], bool)
        if is_found.any():
            crops = to_model_input(picture.gray, best, margin=detector.margin)
            right += (is_found & (classifier.probabilities(crops).argmax(1) == picture.labels)).sum()
        total, found = total + len(is_found), found + is_found.sum()
    shares = f"{found / total:.3f}  {right / total:.3f}" if total else "    -      -"
    return f"{shares}{false:7}{1000 * spent_s / max(len(pictures), 1):12.1f}"


if __name__ == "__main__":
    main()
