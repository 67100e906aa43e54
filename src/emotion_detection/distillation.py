"""Teachers' probabilities as a versioned artefact, and the targets that a student learns from them."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_detection.config import Distil, Train
from emotion_detection.dataset import Faces, digest
from emotion_detection.errors import InputError
from emotion_detection.inference import EmotionClassifier
from emotion_detection.labels import EMOTIONS
from emotion_detection.named import read_named, write_named
from emotion_detection.trees import flat

Images = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

AS_THEY_ARE = ""  # the changes of faces that nobody changed
REMEDY = "python -m emotion_detection.stages.teach makes one and says what to write into params.yaml"


def mean_of_mirrored(classifier: EmotionClassifier, images: Images) -> Probabilities:
    """Probabilities f32 (n,7) of images u8 (n,48,48), each averaged with those of its mirror image."""
    both = np.stack([classifier.probabilities(images), classifier.probabilities(images[:, :, ::-1])])
    return both.mean(axis=0, dtype=np.float32)


def changes(train: Train) -> str:
    """What decides how the faces of an epoch are drawn and changed, and so which faces its lessons are about."""
    settings = train.model_dump(mode="json", include={"seed", "batch_size", "augment"})
    return json.dumps(settings, sort_keys=True)


def save_lessons(
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
    return write_named(content.getvalue(), folder)


def targets(train: Train, faces: Faces) -> tuple[Probabilities, Probabilities | None]:
    """What a student is taught: a target for each face, f32 (n,7), and what changed faces add to theirs, f32 (v,m,7).

    Target: (1 - weight) one-hot + weight softened teacher. Lessons about the faces as they are go into the targets, and
    there is nothing to add. Lessons about changed faces are added by `batches`: a teacher that sees what the student
    sees teaches a function, not a list of faces (Beyer et al. 2022, arXiv 2106.05237). InputError if the file is not
    there, not the one of that name, or made for other training faces or other changes.
    """
    distil, truth = train.distil, np.eye(len(EMOTIONS), dtype=np.float32)[faces.labels]
    if distil.teacher == "none":
        return truth, None
    path = Path(distil.teacher)
    lessons, changed = _read(path, faces)
    lessons = distil.weight * _softened(lessons, distil)
    truth *= 1 - distil.weight
    if changed == AS_THEY_ARE:
        return truth + lessons, None
    _check(changed, train, path)
    return truth, lessons


def _check(changed: str, train: Train, path: Path) -> None:
    """InputError unless training changes the faces as those were changed that the lessons are about."""
    made = flat(json.loads(changed) | {"finish": 0})
    here = flat(json.loads(changes(train)) | {"finish": train.finish})
    differ = [f"train.{key} {value}, not {here[key]}" for key, value in made.items() if value != here[key]]
    if differ:
        raise InputError(f"{path} is about faces changed with {', '.join(differ)}: let train have that, or {REMEDY}")


def read_lessons(path: Path, faces: Faces) -> Probabilities:
    """The probabilities f32 (n,7) of a file about the faces as they are; InputError as in `targets`."""
    lessons, changed = _read(path, faces)
    if changed != AS_THEY_ARE:
        raise InputError(f"{path} is about changed faces, and says nothing of others: name the models that made it")
    return lessons


def _read(path: Path, faces: Faces) -> tuple[Probabilities, str]:
    with np.load(io.BytesIO(read_named(path, REMEDY)), allow_pickle=False) as lessons:
        if "faces" not in lessons:
            raise InputError(f"{path} holds no lessons: {REMEDY}")
        if str(lessons["faces"]) != digest(faces):
            raise InputError(f"{path} was made for other training faces: {REMEDY}")
        changed = str(lessons["changes"]) if "changes" in lessons else AS_THEY_ARE  # before 2026-11-26 there were none
        return lessons["probabilities"].astype(np.float32), changed


def _softened(probabilities: Probabilities, distil: Distil) -> Probabilities:
    """p^(1/T), normalised, as in Hinton et al. 2015 (arXiv 1503.02531).

    The student's own temperature stays 1, so that training is plain cross-entropy whoever teaches.
    """
    softened = probabilities ** (1 / distil.temperature)
    softened /= softened.sum(axis=-1, keepdims=True)
    return softened
