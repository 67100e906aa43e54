"""Soft labels: the probabilities of teacher models, as a file or for each batch, and the targets made from them."""

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from emotion_detection.arrays import Images, Probabilities
from emotion_detection.config import Distillation, Train, flatten, unflatten
from emotion_detection.data.dataset import Faces, digest
from emotion_detection.decoding.npz import Header, Npz
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import ConfigError, ModelError, shorten
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.training.content_addressed import file_digest, open_content_addressed, write_content_addressed
from emotion_detection.training.votes import label_targets, votes_comment

SUM_TOLERANCE = 0.01  # of seven probabilities in float16
Settings = dict[str, Any]  # of `augmentation_settings`, by dotted key

MAX_DIFFERENCES = 5  # in an error message
MAX_TEXT = 4 * 10_000  # bytes of a text: the settings of the augmentation have 200 characters
TEACHER_REMEDY = "correct train.distillation.teachers, or train that model first"
UNCHANGED = ""  # in place of augmentation settings: the soft labels are those of the unchanged faces
# Settings of the augmentation that older files do not have, with the values that change nothing.
LATER: Settings = {
    "augment.gamma": [1, 1],
    "augment.gradient": 0,
    "augment.blur": 0,
    "augment.noise": 0,
    "augment.jpeg": 0,
    "augment.erase_with": "noise",
}
REMEDY = "`emotion-detection soft-labels` creates one and prints the settings for params.yaml"


def augmentation_settings(train: Train) -> str:
    """Return, as JSON, the settings that determine the order and the augmentation of the faces in every epoch.

    Those of LATER that are off are left out, so that the same settings have the same text as before.
    """
    settings = flatten(train.model_dump(mode="json", include={"seed", "batch_size", "augment"}))
    chosen = {key: value for key, value in settings.items() if key not in LATER or value != LATER[key]}
    return json.dumps(unflatten(chosen), sort_keys=True)


def save_soft_labels(
    probabilities: Probabilities,
    faces: Faces,
    teachers: Sequence[Path],
    folder: Path,
    *,
    augmentation: str = UNCHANGED,
    label_source: str = "",
) -> Path:
    """Write soft labels and their origin into a file named after its digest, and return its path.

    probabilities: (n,7) of the unchanged faces; or (v,m,7) of the m augmented faces in each of the epochs 1 to v, with
    `augmentation` from `augmentation_settings`. They are stored as float16: three digits are enough, and those of
    28,000 faces take 400 kB.
    label_source: the labels that the teachers learned from, see `votes.label_tags`.
    """
    names = [f"{path.name} {file_digest(path, REMEDY)}" for path in teachers]
    content = io.BytesIO()
    np.savez(
        content,
        probabilities=probabilities.astype(np.float16),
        faces=np.array(digest(faces)),
        changes=np.array(augmentation),
        teachers=np.array(names),
    )
    return write_content_addressed(content.getvalue(), folder, comment=votes_comment(label_source))


def targets(train: Train, faces: Faces) -> tuple[Probabilities, Probabilities | None]:
    """Return the target of each face, f32 (n,7), and what to add to those of augmented faces, f32 (v,m,7) or None.

    A target is (1 - weight) * `label_targets` + weight * softened soft label. Soft labels for the unchanged faces are
    part of the first array. `batches` adds soft labels for augmented faces, of a file or of `Teachers`: teacher and
    student then see the same input (Beyer et al. 2022, arXiv 2106.05237), unless teachers_see is "moved".

    Raise ModelError if the file of soft labels is missing, damaged or made for other faces, and ConfigError if it was
    made with another augmentation, or if train.votes needs votes that the faces do not have.
    """
    distillation, hard_targets = train.distillation, label_targets(train, faces)
    if distillation.soft_labels is None:
        return (1 - distillation.weight) * hard_targets, None
    path = Path(distillation.soft_labels)
    probabilities, augmentation = _read(path, faces)
    soft_labels = distillation.weight * _soften(probabilities, distillation)
    hard_targets *= 1 - distillation.weight
    if augmentation is None:
        return hard_targets + soft_labels, None
    _check_augmentation(augmentation, train, path)
    return hard_targets, soft_labels


class Teachers:
    """Models that label each batch, so that no view of a face repeats. `batches` decides which view they see."""

    def __init__(self, distillation: Distillation) -> None:
        """Raise ModelError if a file of distillation.teachers is missing or not a usable model."""
        self._distillation = distillation
        self._models = [load_teacher(Path(path)) for path in distillation.teachers]

    def __call__(self, images: Images) -> Probabilities:
        """Return what to add to the targets of images u8 (b,48,48): weight * softened mean probabilities, f32 (b,7)."""
        mean: Probabilities = np.mean([model.probabilities(images) for model in self._models], axis=0)
        return self._distillation.weight * _soften(mean, self._distillation)


def load_teacher(path: Path, dataset: str = "") -> EmotionClassifier:
    """Load a model.onnx. Raise ModelError if it was trained on another data set than `dataset`; "" accepts all."""
    if not path.is_file():
        raise ModelError(f"{path} does not exist: {TEACHER_REMEDY}")
    teacher = EmotionClassifier(path)
    trained_on = teacher.metadata.get("dataset", "an unknown data set")
    if dataset and trained_on != dataset:
        raise ModelError(
            f"{path} was trained on {trained_on}, but the faces are of {dataset}: use models trained on {dataset}"
        )
    return teacher


def check_teachers(train: Train, dataset: str) -> None:
    """Raise ModelError if a teacher that labels each batch cannot be used or was trained on another data set."""
    for path in train.distillation.teachers:
        load_teacher(Path(path), dataset)


def teacher_digests(train: Train) -> str:
    """The SHA-256 (hex) of the teachers that label each batch, in one text: their paths do not identify them."""
    return "".join(file_digest(Path(path), TEACHER_REMEDY) for path in train.distillation.teachers)


def _check_augmentation(augmentation: Settings, train: Train, path: Path) -> None:
    expected = LATER | augmentation | {"final_plain_fraction": 0}
    current = flatten(json.loads(augmentation_settings(train)))
    actual = LATER | current | {"final_plain_fraction": train.final_plain_fraction}
    different = [
        f"train.{shorten(key, 50)} {shorten(value, 50)} (not {actual.get(key)})"
        for key, value in expected.items()
        if value != actual.get(key)
    ]
    if different or expected.keys() != actual.keys():
        named = ", ".join(different[:MAX_DIFFERENCES]) or "fewer settings"
        raise ConfigError(f"{path} was made with {named}: use the same settings, or another file ({REMEDY})")


def read_soft_labels(path: Path, faces: Faces) -> Probabilities:
    """Read soft labels (n,7) of the unchanged faces. Raise ModelError if the file is not usable for these faces."""
    probabilities, augmentation = _read(path, faces)
    if augmentation is not None:
        raise ModelError(f"{path} contains soft labels for augmented faces only: use the models that made it")
    return probabilities


def _read(path: Path, faces: Faces) -> tuple[Probabilities, Settings | None]:
    """Return the probabilities, and the settings of the augmentation or None for those of the unchanged faces."""
    with open_content_addressed(path, REMEDY) as arrays:
        made_for, text = _read_text(arrays, "faces"), _read_text(arrays, "changes")
        is_text = made_for is not None and (text is not None or "changes" not in arrays.headers)
        if not is_text or "probabilities" not in arrays.headers:
            raise ModelError(f"{path} contains no soft labels: {REMEDY}")
        if made_for != digest(faces):
            raise ModelError(f"{path} was made for other training faces: {REMEDY}")
        augmentation = _parse_settings(text, path) if text else None  # absent in the oldest files
        _check_shape(arrays.headers["probabilities"], augmentation, len(faces), path)
        probabilities = arrays.read("probabilities").astype(np.float32)
    if not (probabilities >= 0).all() or not (np.abs(probabilities.sum(axis=-1) - 1) < SUM_TOLERANCE).all():
        raise ModelError(f"{path} has rows that are no probabilities (NaN, negative or of another sum): {REMEDY}")
    return probabilities, augmentation


def _read_text(arrays: Npz, name: str) -> str | None:
    """Return an array that is one text, or None if it is absent or something else."""
    header = arrays.headers.get(name)
    is_text = header and header.dtype.kind == "U" and header.dtype.isnative and header.shape == ()
    if not header or not is_text or not 0 < header.dtype.itemsize <= MAX_TEXT:
        return None
    text = arrays.read(name)
    # NumPy does not check the code points, and an invalid one can crash Python. All texts here are ASCII.
    return str(text) if (text.reshape(1).view(np.uint32) < 128).all() else None


def _parse_settings(text: str, path: Path) -> Settings:
    """Return the settings of `augmentation_settings`, by dotted key."""
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        settings = flatten(json.loads(text))
        if isinstance(settings.get("batch_size"), int) and settings["batch_size"] > 0:
            return settings
    raise ModelError(f"{path} does not contain the settings of its augmentation: {REMEDY}")


def _check_shape(header: Header, augmentation: Settings | None, faces: int, path: Path) -> None:
    """Compare the shape with the number of faces, and with the batch size that filled up the last batch."""
    batch_size = augmentation["batch_size"] if augmentation else 1
    rows, views = -(-faces // batch_size) * batch_size, header.shape[:-2]
    is_expected = header == (np.dtype(np.float16), (*views, rows, len(EMOTIONS)))
    if not is_expected or len(views) != (augmentation is not None) or 0 in views:
        raise ModelError(
            f"{path} contains {shorten(header.dtype, 40)}{shorten(header.shape, 60)} instead of float16 probabilities "
            f"of {faces} faces: {REMEDY}"
        )


def _soften(probabilities: Probabilities, distillation: Distillation) -> Probabilities:
    """Return p^(1/T), normalized (Hinton et al. 2015, arXiv 1503.02531).

    The temperature of the student is always 1, so the loss is the usual cross-entropy.
    """
    softened = probabilities ** (1 / distillation.temperature)
    softened /= softened.sum(axis=-1, keepdims=True)
    return softened
