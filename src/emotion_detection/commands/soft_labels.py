"""The command `emotion-detection soft-labels`: label the training faces with trained models, for distillation."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from emotion_detection.arrays import Images, Probabilities
from emotion_detection.config import Train, load_params
from emotion_detection.data.dataset import Faces, load
from emotion_detection.errors import ConfigError, UsageError
from emotion_detection.experiments.provenance import read_data_report
from emotion_detection.inference.classifier import EmotionClassifier, mirror_averaged
from emotion_detection.training.augmentation import batches
from emotion_detection.training.distillation import (
    UNCHANGED,
    augmentation_settings,
    load_teacher,
    read_soft_labels,
    save_soft_labels,
)
from emotion_detection.training.votes import learned_from, votes_comment

MAX_EPOCHS = 1000  # 28,709 faces then take 400 MB


def soft_labels(
    *teachers: Path,
    faces: Path,
    data_report: Path,
    folder: Path,
    epochs: int = 0,
    params: Path = Path("params.yaml"),
) -> None:
    """Average the probabilities that models predict for the training faces, and print the settings to train with them.

    Args:
        teachers: model.onnx files, or earlier soft labels (.npz).
        faces: The npz file of the prepare stage.
        data_report: The JSON report of the prepare stage.
        folder: The folder for the file of soft labels.
        epochs: How many epochs of augmented faces to label; 0 labels the unchanged faces.
        params: The settings of the augmentation.
    """
    if not teachers:
        raise UsageError("teachers are missing: give one or more model.onnx files, or earlier soft labels (.npz)")
    if not 0 <= epochs <= MAX_EPOCHS:
        raise UsageError(
            f"--epochs is {epochs}: use 1 or more, at most {MAX_EPOCHS}, or omit it for the unchanged faces"
        )
    train_faces, (dataset,) = load(faces).of("train"), read_data_report(data_report, "dataset")
    if epochs:
        train = _load_train(params)
        train.check_batch_size(len(train_faces))
        probabilities = label_augmented(teachers, train_faces, dataset, train, epochs)
        augmentation = augmentation_settings(train)
    else:
        probabilities, augmentation = label_unchanged(teachers, train_faces, dataset), UNCHANGED
        agreement = (probabilities.argmax(1) == train_faces.labels).mean()
        print(f"{len(train_faces):,} faces; the most likely emotion is the label of {agreement:.1%}")
    source = _label_source(teachers)
    path = save_soft_labels(
        probabilities, train_faces, teachers, folder, augmentation=augmentation, label_source=source
    )
    print(f"train:\n  distillation:\n    soft_labels: {path}\n    weight: 0.7\n    temperature: 1")


def label_unchanged(paths: Sequence[Path], faces: Faces, dataset: str) -> Probabilities:
    """Return the mean probabilities (n,7) of the teachers for the unchanged faces."""
    predictors = [_predictor(path, faces, dataset) for path in paths]
    predictions = [predict() for predict in tqdm(predictors, "teachers", disable=None)]
    return np.mean(predictions, axis=0)


def label_augmented(paths: Sequence[Path], faces: Faces, dataset: str, train: Train, epochs: int) -> Probabilities:
    """Return the mean probabilities (v,m,7) of the teachers for the m augmented faces in each of the epochs 1 to v."""
    teachers = [_load_teacher(path, dataset) for path in paths]
    bar = tqdm(
        _augmented_batches(faces, train, epochs),
        "batches",
        total=epochs * -(-len(faces) // train.batch_size),
        disable=None,
    )
    predictions = [np.mean([teacher.probabilities(images) for teacher in teachers], axis=0) for images in bar]
    return np.concatenate(predictions).reshape(epochs, -1, predictions[0].shape[1])


def _predictor(path: Path, faces: Faces, dataset: str) -> Callable[[], Probabilities]:
    """Check a teacher and return a function that predicts (n,7). A model averages each face with its mirror image."""
    if path.suffix == ".npz":
        probabilities = read_soft_labels(path, faces)
        return lambda: probabilities
    teacher = _load_teacher(path, dataset)
    return lambda: mirror_averaged(teacher, faces.images)


def _label_source(teachers: Sequence[Path]) -> str:
    """The label_source of a teacher that learned from votes; "" if none did or it is not recorded."""
    return next((source for source in map(learned_from, teachers) if votes_comment(source)), "")


def _load_teacher(path: Path, dataset: str) -> EmotionClassifier:
    if path.suffix == ".npz":
        raise UsageError(f"{path} contains soft labels, which cannot predict augmented faces: use model.onnx files")
    return load_teacher(path, dataset)


def _augmented_batches(faces: Faces, train: Train, epochs: int) -> Iterator[Images]:
    """Yield the batches of augmented faces of each epoch, u8 (b,48,48)."""
    no_targets = np.empty((len(faces), 0), np.float32)
    for epoch in range(1, epochs + 1):
        epoch_batches = batches(
            faces, no_targets, train.augment, batch_size=train.batch_size, seed=train.seed, epoch=epoch
        )
        yield from (images[..., 0] for images, _ in epoch_batches)


def _load_train(params: Path) -> Train:
    train = load_params(params).train
    if train.final_plain_fraction:
        raise ConfigError(
            f"{params} has train.final_plain_fraction {train.final_plain_fraction:g}: "
            "write 0, because soft labels for augmented faces cover only one kind of augmentation"
        )
    return train
