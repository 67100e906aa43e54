"""Trained models -> what they think of every training face, as a file that a student's recipe names."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emotion_detection.config import Train, load_params
from emotion_detection.data.dataset import Faces, load
from emotion_detection.errors import InputError
from emotion_detection.inference.classifier import EmotionClassifier, mirror_averaged
from emotion_detection.training.augmentation import batches
from emotion_detection.training.distillation import AS_THEY_ARE, changes, read_soft_labels, save_soft_labels

Probabilities = NDArray[np.float32]


def soft_labels(
    *teachers: Path,
    faces: Path,
    data_report: Path,
    folder: Path,
    epochs: int = 0,
    params: Path = Path("params.yaml"),
) -> None:
    """Average the probabilities that models give the training faces, and print the settings that train with them.

    Args:
        teachers: model.onnx files, or earlier soft labels (.npz).
        faces: The npz file of the prepare stage.
        data_report: Its JSON report.
        folder: Where the file is written.
        epochs: Predict the augmented faces of this many epochs; 0: the unchanged faces.
        params: The settings of the augmentation.
    """
    if not teachers:
        raise InputError("no model was given: name one or more model.onnx files, or earlier soft labels (.npz)")
    if epochs < 0:
        raise InputError(f"--epochs is {epochs}: use 1 or more, or leave it out for the unchanged faces")
    taught, dataset = load(faces).of("train"), json.loads(data_report.read_text())["dataset"]
    if epochs:
        train = load_params(params).train
        if train.final_plain_fraction:
            raise InputError(
                f"{params} has train.final_plain_fraction {train.final_plain_fraction:g}: "
                "write 0, because soft labels for augmented faces cover only one kind of augmentation"
            )
        probabilities, changed = of_changed(teachers, taught, dataset, train, epochs), changes(train)
    else:
        probabilities, changed = of_faces(teachers, taught, dataset), AS_THEY_ARE
        agreed = (probabilities.argmax(1) == taught.labels).mean()
        print(f"{len(taught):,} faces; the most likely emotion is the label of {agreed:.1%}")
    path = save_soft_labels(probabilities, taught, teachers, folder, changed=changed)
    print(f"train:\n  distillation:\n    soft_labels: {path}\n    weight: 0.7\n    temperature: 1")


def of_faces(paths: Sequence[Path], faces: Faces, dataset: str) -> Probabilities:
    """The teachers' mean probabilities (n,7) of the faces as they are."""
    teachers = [asked(path, faces, dataset) for path in paths]
    opinions = [opinion() for opinion in tqdm(teachers, "teachers", disable=None)]
    return np.mean(opinions, axis=0)


def asked(path: Path, faces: Faces, dataset: str) -> Callable[[], Probabilities]:
    """A checked teacher, which gives its probabilities (n,7): a model averages each face with its mirror image."""
    if path.suffix == ".npz":
        lessons = read_soft_labels(path, faces)
        return lambda: lessons
    teacher = model(path, dataset)
    return lambda: mirror_averaged(teacher, faces.images)


def model(path: Path, dataset: str) -> EmotionClassifier:
    if path.suffix == ".npz":
        raise InputError(f"{path} holds answers, no model to ask about changed faces: name the model.onnx files")
    teacher = EmotionClassifier(path)
    learnt = teacher.about.get("dataset", "nobody knows what")
    if learnt != dataset:
        raise InputError(f"{path} learnt from {learnt}, these faces are {dataset}: name models trained on {dataset}")
    return teacher


def of_changed(paths: Sequence[Path], faces: Faces, dataset: str, train: Train, epochs: int) -> Probabilities:
    """The teachers' mean probabilities (v,m,7) of the m faces that each of the epochs 1 to v is taught."""
    teachers = [model(path, dataset) for path in paths]
    opinions = [
        np.mean([teacher.probabilities(images[..., 0]) for teacher in teachers], axis=0)
        for images in tqdm(
            augmented_batches(faces, train, epochs),
            "batches",
            total=epochs * -(-len(faces) // train.batch_size),
            disable=None,
        )
    ]
    return np.concatenate(opinions).reshape(epochs, -1, opinions[0].shape[1])


def augmented_batches(faces: Faces, train: Train, epochs: int) -> Iterator[NDArray[np.uint8]]:
    """The batches of changed faces of each epoch, u8 (b,48,48,1)."""
    nothing = np.empty((len(faces), 0), np.float32)
    for epoch in range(1, epochs + 1):
        changed = batches(faces, nothing, train.augment, batch_size=train.batch_size, seed=train.seed, epoch=epoch)
        yield from (images for images, _ in changed)
