"""Trained models -> what they think of every training face, as a file that a student's recipe names."""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emotion_detection.batches import batches
from emotion_detection.config import Train, load_params
from emotion_detection.dataset import Faces, load
from emotion_detection.distillation import AS_THEY_ARE, changes, mean_of_mirrored, read_lessons, save_lessons
from emotion_detection.errors import InputError, one_line
from emotion_detection.inference import EmotionClassifier

Probabilities = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, nargs="+", metavar="FILE", help="model.onnx, or earlier lessons (.npz)")
    parser.add_argument("--faces", type=Path, required=True, help="npz file of the prepare stage")
    parser.add_argument("--data-report", type=Path, required=True, help="its JSON report")
    parser.add_argument("--folder", type=Path, required=True, help="where the file is written")
    parser.add_argument("--epochs", type=int, default=0, metavar="N", help="ask about the changed faces of N epochs")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="which says how they are changed")
    arguments = parser.parse_args()
    with one_line():
        teach(arguments)


def teach(paths: argparse.Namespace) -> None:
    """Average what all teachers say of each training face, and print what goes into the recipe.

    InputError if a teacher learnt from another data set: what is tested here may have been taught there.
    """
    faces, dataset = load(paths.faces).of("train"), json.loads(paths.data_report.read_text())["dataset"]
    if paths.epochs < 0:
        raise InputError(f"--epochs is {paths.epochs}: ask about 1 or more, or leave it out for the faces as they are")
    if paths.epochs:
        train = load_params(paths.params).train
        if train.finish:
            raise InputError(
                f"{paths.params} has train.finish {train.finish}: write 0, as its faces are changed otherwise"
            )
        probabilities, changed = of_changed(paths.teachers, faces, dataset, train, paths.epochs), changes(train)
    else:
        probabilities, changed = of_faces(paths.teachers, faces, dataset), AS_THEY_ARE
        agreed = (probabilities.argmax(1) == faces.labels).mean()
        print(f"{len(faces):,} faces; the teachers' first choice is the label of {agreed:.1%}")
    path = save_lessons(probabilities, faces, paths.teachers, paths.folder, changed=changed)
    print(f"train:\n  distil:\n    teacher: {path}\n    weight: 0.7\n    temperature: 1")


def of_faces(paths: list[Path], faces: Faces, dataset: str) -> Probabilities:
    """The teachers' mean probabilities (n,7) of the faces as they are."""
    teachers = [asked(path, faces, dataset) for path in paths]
    opinions = [opinion() for opinion in tqdm(teachers, "teachers", disable=None)]
    return np.mean(opinions, axis=0)


def asked(path: Path, faces: Faces, dataset: str) -> Callable[[], Probabilities]:
    """A checked teacher, which gives its probabilities (n,7): a model averages each face with its mirror image."""
    if path.suffix == ".npz":
        lessons = read_lessons(path, faces)
        return lambda: lessons
    teacher = model(path, dataset)
    return lambda: mean_of_mirrored(teacher, faces.images)


def model(path: Path, dataset: str) -> EmotionClassifier:
    if path.suffix == ".npz":
        raise InputError(f"{path} holds answers, no model to ask about changed faces: name the model.onnx files")
    teacher = EmotionClassifier(path)
    learnt = teacher.about.get("dataset", "nobody knows what")
    if learnt != dataset:
        raise InputError(f"{path} learnt from {learnt}, these faces are {dataset}: name models trained on {dataset}")
    return teacher


def of_changed(paths: list[Path], faces: Faces, dataset: str, train: Train, epochs: int) -> Probabilities:
    """The teachers' mean probabilities (v,m,7) of the m faces that each of the epochs 1 to v is taught."""
    teachers = [model(path, dataset) for path in paths]
    opinions = [
        np.mean([teacher.probabilities(images[..., 0]) for teacher in teachers], axis=0)
        for images in tqdm(
            taught(faces, train, epochs), "batches", total=epochs * -(-len(faces) // train.batch_size), disable=None
        )
    ]
    return np.concatenate(opinions).reshape(epochs, -1, opinions[0].shape[1])


def taught(faces: Faces, train: Train, epochs: int) -> Iterator[NDArray[np.uint8]]:
    """The batches of changed faces of each epoch, u8 (b,48,48,1)."""
    nothing = np.empty((len(faces), 0), np.float32)
    for epoch in range(1, epochs + 1):
        changed = batches(faces, nothing, train.augment, batch_size=train.batch_size, seed=train.seed, epoch=epoch)
        yield from (images for images, _ in changed)


if __name__ == "__main__":
    main()
