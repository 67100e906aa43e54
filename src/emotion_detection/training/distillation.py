"""Teachers' probabilities as a versioned artefact, and the targets that a student learns from them."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_detection.config import Distillation, Train, flatten
from emotion_detection.data.dataset import Faces, digest
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import InputError
from emotion_detection.training.content_addressed import read_content_addressed, write_content_addressed

Images = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

AS_THEY_ARE = ""  # the changes of faces that nobody changed
REMEDY = "`emotion-detection soft-labels` creates one and prints what to write into params.yaml"


def changes(train: Train) -> str:
    """What decides how the faces of an epoch are drawn and changed, and so which faces its lessons are about."""
    settings = train.model_dump(mode="json", include={"seed", "batch_size", "augment"})
    return json.dumps(settings, sort_keys=True)


def save_soft_labels(
    probabilities: Probabilities, faces: Faces, teachers: Sequence[Path], folder: Path, *, changed: str = AS_THEY_ARE
) -> Path:
    """Write probabilities beside what made them; returns the file, named by its own digest.

    probabilities: (n,7) of the faces as they are, or (v,m,7) of the m faces that each of the epochs 1 to v is taught,
    changed as `changed` says. Half precision: a probability needs three digits, and 28,000 then fit into 400 kB.
    """
    names = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in teachers]
    content = io.BytesIO()
    np.savez(
        content,
        probabilities=probabilities.astype(np.float16),
        faces=np.array(digest(faces)),
        changes=np.array(changed),
        teachers=np.array(names),
    )
    return write_content_addressed(content.getvalue(), folder)


def targets(train: Train, faces: Faces) -> tuple[Probabilities, Probabilities | None]:
    """What a student is taught: a target for each face, f32 (n,7), and what changed faces add to theirs, f32 (v,m,7).

    Target: (1 - weight) one-hot + weight softened teacher. Lessons about the faces as they are go into the targets, and
    there is nothing to add. Lessons about changed faces are added by `batches`: a teacher that sees what the student
    sees teaches a function, not a list of faces (Beyer et al. 2022, arXiv 2106.05237). InputError if the file is not
    there, not the one of that name, or made for other training faces or other changes.
    """
    distillation, truth = train.distillation, np.eye(len(EMOTIONS), dtype=np.float32)[faces.labels]
    if distillation.soft_labels is None:
        return truth, None
    path = Path(distillation.soft_labels)
    lessons, changed = _read(path, faces)
    lessons = distillation.weight * _softened(lessons, distillation)
    truth *= 1 - distillation.weight
    if changed == AS_THEY_ARE:
        return truth + lessons, None
    _check(changed, train, path)
    return truth, lessons


def _check(changed: str, train: Train, path: Path) -> None:
    """InputError unless training changes the faces as those were changed that the lessons are about."""
    made = flatten(json.loads(changed) | {"final_plain_fraction": 0})
    here = flatten(json.loads(changes(train)) | {"final_plain_fraction": train.final_plain_fraction})
    differ = [f"train.{key} {value}, not {here[key]}" for key, value in made.items() if value != here[key]]
    if differ:
        raise InputError(f"{path} is about faces changed with {', '.join(differ)}: let train have that, or {REMEDY}")


def read_soft_labels(path: Path, faces: Faces) -> Probabilities:
    """The probabilities f32 (n,7) of a file about the faces as they are; InputError as in `targets`."""
    lessons, changed = _read(path, faces)
    if changed != AS_THEY_ARE:
        raise InputError(f"{path} is about changed faces, and says nothing of others: name the models that made it")
    return lessons


def _read(path: Path, faces: Faces) -> tuple[Probabilities, str]:
    with np.load(io.BytesIO(read_content_addressed(path, REMEDY)), allow_pickle=False) as lessons:
        if "faces" not in lessons:
            raise InputError(f"{path} holds no lessons: {REMEDY}")
        if str(lessons["faces"]) != digest(faces):
            raise InputError(f"{path} was made for other training faces: {REMEDY}")
        changed = str(lessons["changes"]) if "changes" in lessons else AS_THEY_ARE  # before 2026-11-26 there were none
        return lessons["probabilities"].astype(np.float32), changed


def _softened(probabilities: Probabilities, distillation: Distillation) -> Probabilities:
    """p^(1/T), normalised, as in Hinton et al. 2015 (arXiv 1503.02531).

    The student's own temperature stays 1, so that training is plain cross-entropy whoever teaches.
    """
    softened = probabilities ** (1 / distillation.temperature)
    softened /= softened.sum(axis=-1, keepdims=True)
    return softened
