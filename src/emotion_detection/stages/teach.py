"""Trained models -> what they think of every training face, as a file that a student's recipe names."""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from emotion_detection.dataset import load
from emotion_detection.distillation import mean_of_mirrored, save_lessons
from emotion_detection.errors import one_line
from emotion_detection.inference import EmotionClassifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, nargs="+", metavar="model.onnx", help="models of the train stage")
    parser.add_argument("--faces", type=Path, required=True, help="npz file of the prepare stage")
    parser.add_argument("--folder", type=Path, required=True, help="where the file is written")
    arguments = parser.parse_args()
    with one_line():
        teach(arguments)


def teach(paths: argparse.Namespace) -> None:
    """Average all teachers over each training face and its mirror image, and print what goes into the recipe."""
    faces = load(paths.faces).of("train")
    teachers = tqdm(paths.teachers, "teachers", disable=None)
    opinions = [mean_of_mirrored(EmotionClassifier(path), faces.images) for path in teachers]
    probabilities = np.mean(opinions, axis=0)
    agreed = (probabilities.argmax(1) == faces.labels).mean()
    path = save_lessons(probabilities, faces, paths.teachers, paths.folder)
    print(f"{len(faces):,} faces; the teachers' first choice is the label of {agreed:.1%}\ntrain:\n  distil:")
    print(f"    teacher: {path}\n    weight: 0.7\n    temperature: 1")


if __name__ == "__main__":
    main()
