"""Measure how the margin of a detector's crop affects the accuracy: the curve that a detector's `margin` is from.

    python benchmarks/crop_margin.py --faces build/faces.npz [--detector yunet] [--model model.onnx] [--count 1500]

Faces of val are pasted into larger images, detected there and cropped by to_model_input. The accuracy on the detected
faces is compared with the accuracy on FER-2013's own crops of the same faces. Also prints the accuracy by confidence,
which inference.reading.UNSURE_BELOW is based on.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from emotion_detection.arrays import Labels, Probabilities
from emotion_detection.data.dataset import load
from emotion_detection.evaluation import detector_crops
from emotion_detection.inference import pretrained
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.detector import load_detector

MARGINS = np.arange(-0.24, 0.13, 0.04)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="npz file of the prepare stage, of FER-2013")
    parser.add_argument("--detector", default="haar", help="haar, yunet, or the path of YuNet's file")
    parser.add_argument("--model", type=Path, default=pretrained.MODEL)
    parser.add_argument("--count", type=int, default=1500, help="number of faces")
    parser.add_argument("--figure", type=Path, help="PNG file to write")
    arguments = parser.parse_args()
    val = load(arguments.faces).of("val")
    classifier = EmotionClassifier(arguments.model)
    print_accuracy_by_confidence(classifier.probabilities(val.images), val.labels)
    val = val[np.random.default_rng(0).permutation(len(val))[: arguments.count]]
    detected, crops = detector_crops.detect_pasted_faces(
        val.images, load_detector(arguments.detector), margins=MARGINS.tolist(), seed=0
    )
    labels = val.labels[detected]
    plain = float((classifier.probabilities(val.images[detected]).argmax(1) == labels).mean())
    accuracies = [float((classifier.probabilities(faces).argmax(1) == labels).mean()) for faces in crops]
    print(f"{detected.mean():.1%} of {len(val)} faces detected; their accuracy with FER-2013's crops: {plain:.1%}")
    for margin, accuracy in zip(MARGINS, accuracies, strict=True):
        print(f"margin {margin:+.2f}: {accuracy:.1%}, {100 * (accuracy - plain):+.1f} points")
    if arguments.figure:
        draw(accuracies, plain, arguments.figure)


def print_accuracy_by_confidence(probabilities: Probabilities, labels: Labels) -> None:
    top, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    for low in np.arange(0.2, 0.7, 0.05):
        rows = (top >= low) & (top < low + 0.05)
        if rows.any():
            print(
                f"confidence {low:.2f} to {low + 0.05:.2f}: {rows.sum():4} faces, accuracy {correct[rows].mean():.0%}"
            )


def draw(accuracies: list[float], plain: float, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(MARGINS, accuracies, marker="o", label="detector's crops")
    axes.axhline(plain, color="gray", linestyle="--", label="FER-2013's crops of the same faces")
    axes.set(xlabel="margin (fraction of the detector's box)", ylabel="val accuracy", title="Accuracy by crop margin")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
