"""Soft labels: the probabilities of teacher models as a file, and the training targets made from them."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emotion_detection.arrays import Probabilities
from emotion_detection.config import Distillation, Train, flatten
from emotion_detection.data.dataset import Faces, digest
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import ConfigError, ModelError
from emotion_detection.training.content_addressed import read_content_addressed, write_content_addressed

UNCHANGED = ""  # in place of augmentation settings: the soft labels are those of the unchanged faces
REMEDY = "`emotion-detection soft-labels` creates one and prints the settings for params.yaml"


def augmentation_settings(train: Train) -> str:
    """Return, as JSON, the settings that determine the order and the augmentation of the faces in every epoch."""
    settings = train.model_dump(mode="json", include={"seed", "batch_size", "augment"})
    return json.dumps(settings, sort_keys=True)


def save_soft_labels(
    probabilities: Probabilities, faces: Faces, teachers: Sequence[Path], folder: Path, *, augmentation: str = UNCHANGED
) -> Path:
    """Write soft labels and their origin into a file named after its digest, and return its path.

    probabilities: (n,7) of the unchanged faces; or (v,m,7) of the m augmented faces in each of the epochs 1 to v, with
    `augmentation` from `augmentation_settings`. They are stored as float16: three digits are enough, and those of
    28,000 faces take 400 kB.
    """
    names = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in teachers]
    content = io.BytesIO()
    np.savez(
        content,
        probabilities=probabilities.astype(np.float16),
        faces=np.array(digest(faces)),
        changes=np.array(augmentation),
        teachers=np.array(names),
    )
    return write_content_addressed(content.getvalue(), folder)


def targets(train: Train, faces: Faces) -> tuple[Probabilities, Probabilities | None]:
    """Return the target of each face, f32 (n,7), and what to add to those of augmented faces, f32 (v,m,7) or None.

    A target is (1 - weight) * one-hot label + weight * softened soft label. Soft labels for the unchanged faces are
    part of the first array. `batches` adds soft labels for augmented faces: teacher and student then see the same
    input (Beyer et al. 2022, arXiv 2106.05237).

    Raise ModelError if the file of soft labels is missing, damaged or made for other faces, and ConfigError if it was
    made with another augmentation.
    """
    distillation, one_hot = train.distillation, np.eye(len(EMOTIONS), dtype=np.float32)[faces.labels]
    if distillation.soft_labels is None:
        return one_hot, None
    path = Path(distillation.soft_labels)
    probabilities, augmentation = _read(path, faces)
    soft_labels = distillation.weight * _soften(probabilities, distillation)
    one_hot *= 1 - distillation.weight
    if augmentation == UNCHANGED:
        return one_hot + soft_labels, None
    _check_augmentation(augmentation, train, path)
    return one_hot, soft_labels


def _check_augmentation(augmentation: str, train: Train, path: Path) -> None:
    expected = flatten(json.loads(augmentation) | {"final_plain_fraction": 0})
    actual = flatten(json.loads(augmentation_settings(train)) | {"final_plain_fraction": train.final_plain_fraction})
    different = [f"train.{key} {value} (not {actual[key]})" for key, value in expected.items() if value != actual[key]]
    if different:
        raise ConfigError(
            f"{path} was made with {', '.join(different)}: use the same settings, or another file ({REMEDY})"
        )


def read_soft_labels(path: Path, faces: Faces) -> Probabilities:
    """Read soft labels (n,7) of the unchanged faces. Raise ModelError if the file is not usable for these faces."""
    probabilities, augmentation = _read(path, faces)
    if augmentation != UNCHANGED:
        raise ModelError(f"{path} contains soft labels for augmented faces only: use the models that made it")
    return probabilities


def _read(path: Path, faces: Faces) -> tuple[Probabilities, str]:
    """Return the probabilities and the augmentation settings."""
    with np.load(io.BytesIO(read_content_addressed(path, REMEDY)), allow_pickle=False) as arrays:
        if "faces" not in arrays:
            raise ModelError(f"{path} contains no soft labels: {REMEDY}")
        if str(arrays["faces"]) != digest(faces):
            raise ModelError(f"{path} was made for other training faces: {REMEDY}")
        augmentation = str(arrays["changes"]) if "changes" in arrays else UNCHANGED  # absent in the oldest files
        return arrays["probabilities"].astype(np.float32), augmentation


def _soften(probabilities: Probabilities, distillation: Distillation) -> Probabilities:
    """Return p^(1/T), normalized (Hinton et al. 2015, arXiv 1503.02531).

    The temperature of the student is always 1, so the loss is the usual cross-entropy.
    """
    softened = probabilities ** (1 / distillation.temperature)
    softened /= softened.sum(axis=-1, keepdims=True)
    return softened
