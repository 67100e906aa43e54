"""Trained models -> what they think of every training face, as a file that a student's recipe names."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emotion_detection.dataset import Faces, load
from emotion_detection.distillation import mean_of_mirrored, read_lessons, save_lessons
from emotion_detection.errors import InputError, one_line
from emotion_detection.inference import EmotionClassifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, nargs="+", metavar="FILE", help="model.onnx, or earlier lessons (.npz)")
    parser.add_argument("--faces", type=Path, required=True, help="npz file of the prepare stage")
    parser.add_argument("--data-report", type=Path, required=True, help="its JSON report")
    parser.add_argument("--folder", type=Path, required=True, help="where the file is written")
    arguments = parser.parse_args()
    with one_line():
        teach(arguments)


def teach(paths: argparse.Namespace) -> None:
    """Average what all teachers say of each training face, and print what goes into the recipe.

    InputError if a teacher learnt from another data set: what is tested here may have been taught there.
    """
    faces, dataset = load(paths.faces).of("train"), json.loads(paths.data_report.read_text())["dataset"]
    teachers = [asked(path, faces, dataset) for path in paths.teachers]
    opinions = [opinion() for opinion in tqdm(teachers, "teachers", disable=None)]
    probabilities = np.mean(opinions, axis=0)
    agreed = (probabilities.argmax(1) == faces.labels).mean()
    path = save_lessons(probabilities, faces, paths.teachers, paths.folder)
    print(f"{len(faces):,} faces; the teachers' first choice is the label of {agreed:.1%}\ntrain:\n  distil:")
    print(f"    teacher: {path}\n    weight: 0.7\n    temperature: 1")


def asked(path: Path, faces: Faces, dataset: str) -> Callable[[], NDArray[np.float32]]:
    """A checked teacher, which gives its probabilities (n,7): a model averages each face with its mirror image."""
    if path.suffix == ".npz":
        lessons = read_lessons(path, faces)
        return lambda: lessons
    teacher = EmotionClassifier(path)
    learnt = teacher.about.get("dataset", "nobody knows what")
    if learnt != dataset:
        raise InputError(f"{path} learnt from {learnt}, these faces are {dataset}: name models trained on {dataset}")
    return lambda: mean_of_mirrored(teacher, faces.images)


if __name__ == "__main__":
    main()
