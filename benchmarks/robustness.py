"""Measure how much changes of a face cost: the accuracy on val under blur, noise, JPEG, gamma and other changes.

    python benchmarks/robustness.py --faces build/faces.npz [--model old.onnx --model new.onnx] [--figure FILE.png]

Every change is applied to the same faces, with the same random values. With two models, the table also has McNemar's p
of the second against the first. The standard error of 1,000 faces is 1.5 points.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from emotion_detection.arrays import Gray, Images, Labels
from emotion_detection.data.dataset import load
from emotion_detection.emotions import IMAGE_SIZE
from emotion_detection.errors import DataError, UsageError, report_errors
from emotion_detection.evaluation.paired import compare
from emotion_detection.inference import pretrained
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.plotting.style import BLUE, GRAY, ORANGE, saved_figure

Change = Callable[[Gray, np.random.Generator], Gray]  # a face u8 (48,48) -> the changed face, u8 (48,48)

MAX_MODELS = 2


def blur(sigma_px: float) -> Change:
    return lambda face, _: cv2.GaussianBlur(face, (0, 0), sigma_px)


def noise(deviation: float) -> Change:
    """Add normal noise; deviation in gray levels."""
    return lambda face, rng: _as_bytes(face + rng.normal(0, deviation, face.shape))


def jpeg(quality: int) -> Change:
    def compress(face: Gray, _: np.random.Generator) -> Gray:
        encoded = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        decoded = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
        assert decoded is not None
        return decoded.astype(np.uint8)

    return compress


def gamma(exponent: float) -> Change:
    """Above 1 darkens the middle gray levels, below 1 brightens them."""
    return lambda face, _: _as_bytes(255 * (face / 255) ** exponent)


def shrink(side_px: int) -> Change:
    """A face that a camera has seen with fewer pixels."""

    def resize(face: Gray, _: np.random.Generator) -> Gray:
        small = cv2.resize(face, (side_px, side_px), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, face.shape, interpolation=cv2.INTER_CUBIC).astype(np.uint8)

    return resize


def occlude(fraction: float) -> Change:
    """Cover a square of this fraction of the area, at a random place, with the mean of the face."""

    def cover(face: Gray, rng: np.random.Generator) -> Gray:
        side = round(IMAGE_SIZE * fraction**0.5)
        top, left = rng.integers(0, IMAGE_SIZE - side + 1, 2)
        covered = face.copy()
        covered[top : top + side, left : left + side] = round(float(face.mean()))
        return covered

    return cover


def turn(degrees: float) -> Change:
    """Turn in the image plane, to a random side."""

    def rotate(face: Gray, rng: np.random.Generator) -> Gray:
        center = ((IMAGE_SIZE - 1) / 2, (IMAGE_SIZE - 1) / 2)
        matrix = cv2.getRotationMatrix2D(center, float(rng.choice((-1, 1))) * degrees, 1)
        return cv2.warpAffine(face, matrix, face.shape, borderMode=cv2.BORDER_REFLECT_101).astype(np.uint8)

    return rotate


CHANGES: dict[str, Change] = {
    "unchanged": lambda face, _: face,
    **{f"blur, {sigma:g} px": blur(sigma) for sigma in (1, 2)},
    **{f"noise, {deviation} gray levels": noise(deviation) for deviation in (8, 16)},
    **{f"JPEG, quality {quality}": jpeg(quality) for quality in (30, 10)},
    **{f"gamma {exponent:g}": gamma(exponent) for exponent in (0.5, 2)},
    **{f"{side} px": shrink(side) for side in (24, 16)},
    "a quarter is covered": occlude(0.25),
    **{f"turned by {degrees} degrees": turn(degrees) for degrees in (15, 30)},
}


def changed(faces: Images, change: Change, seed: int = 0) -> Images:
    """Change every face u8 (n,48,48). Equal seeds give equal random values."""
    rng = np.random.default_rng(seed)
    return np.stack([change(face, rng) for face in faces])


def measure(models: Sequence[EmotionClassifier], faces: Images, labels: Labels) -> list[tuple[str, list[float], float]]:
    """Each change with the accuracy of each model and McNemar's p of the second against the first (NaN for one)."""
    rows = []
    for name, change in CHANGES.items():
        answers = [model.probabilities(changed(faces, change)) for model in models]
        accuracies = [float((answer.argmax(1) == labels).mean()) for answer in answers]
        p = compare(labels, *answers).mcnemar_p if len(answers) == MAX_MODELS else float("nan")
        rows.append((name, accuracies, p))
    return rows


def _as_bytes(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Gray:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def show(rows: Sequence[tuple[str, list[float], float]], names: Sequence[str]) -> None:
    """Print a Markdown table. A loss is in points, against the unchanged faces."""
    plain, two = rows[0][1], len(names) == MAX_MODELS
    print("| change |" + "".join(f" {name} | loss |" for name in names) + (" p |" if two else ""))
    print("|---|" + "--:|--:|" * len(names) + ("--:|" if two else ""))
    for change, accuracies, p in rows:
        cells = [
            f" {100 * each:.1f} | {100 * (each - base):+.1f} |" for each, base in zip(accuracies, plain, strict=True)
        ]
        print(f"| {change} |" + "".join(cells) + (f" {p:.2f} |" if two else ""))


def draw(rows: Sequence[tuple[str, list[float], float]], names: Sequence[str], path: Path) -> None:
    with saved_figure(path, 6.5, 4.2) as figure:
        axes = figure.subplots()
        places = np.arange(len(rows))
        height = 0.8 / len(names)
        for number, (name, color) in enumerate(zip(names, (BLUE, ORANGE), strict=False)):
            values = [100 * accuracies[number] for _, accuracies, _ in rows]
            axes.barh(places + number * height, values, height, color=color, label=name)
            axes.axvline(values[0], color=GRAY, linewidth=0.8, linestyle=":")
        axes.set_yticks(places + 0.4 - height / 2, [change for change, _, _ in rows])
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.set(xlabel="accuracy on val in percent", title="Accuracy on changed faces; dotted: unchanged")
        if len(names) > 1:
            axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.12))  # below the axes, where it covers no bar


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="the npz file of the prepare stage")
    parser.add_argument("--model", type=Path, action="append", help="an ONNX file, at most two; the shipped model")
    parser.add_argument("--count", type=int, default=1000, help="number of val faces")
    parser.add_argument("--figure", type=Path, help="the PNG file to write")
    arguments = parser.parse_args()
    paths = arguments.model or [pretrained.MODEL]
    if len(paths) > MAX_MODELS or arguments.count < 1:
        raise UsageError("give one or two models, and a count of 1 or more")
    val = load(arguments.faces).of("val")
    if not len(val):
        raise DataError(f"{arguments.faces} has no val faces: run `dvc repro prepare`")
    val = val[np.random.default_rng(0).permutation(len(val))[: arguments.count]]
    names = ["accuracy"] if len(paths) == 1 else [str(path) for path in paths]
    rows = measure([EmotionClassifier(path) for path in paths], val.images, val.labels)
    print(f"{len(val):,} faces of val; accuracy in percent, loss in points\n")
    show(rows, names)
    if arguments.figure:
        draw(rows, names, arguments.figure)


if __name__ == "__main__":
    with report_errors():
        main()
