"""Teachers' probabilities as a versioned artefact, and the targets that a student learns from them."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_detection.config import Distil
from emotion_detection.dataset import Faces, digest
from emotion_detection.errors import InputError
from emotion_detection.inference import EmotionClassifier
from emotion_detection.labels import EMOTIONS
from emotion_detection.replacing import replacing

Images = NDArray[np.uint8]


def mean_of_mirrored(classifier: EmotionClassifier, images: Images) -> NDArray[np.float32]:
    """Probabilities f32 (n,7) of images u8 (n,48,48), each averaged with those of its mirror image."""
    both = np.stack([classifier.probabilities(images), classifier.probabilities(images[:, :, ::-1])])
    return both.mean(axis=0, dtype=np.float32)


def save_lessons(probabilities: NDArray[np.float32], faces: Faces, teachers: Sequence[Path], folder: Path) -> Path:
    """Write probabilities (n,7) for the faces beside what made them; returns the file, named by its own digest.

    Half precision: a probability needs three digits, and 28,000 faces then fit into 400 kB.
    """
    names = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in teachers]
    content = io.BytesIO()
    np.savez(
        content,
        allow_pickle=False,
        probabilities=probabilities.astype(np.float16),
        faces=np.array(digest(faces)),
        teachers=np.array(names),
    )
    path = folder / f"{_name(content.getvalue())}.npz"
    with replacing(path) as written:
        written.write_bytes(content.getvalue())
    return path


def targets(distil: Distil, faces: Faces) -> NDArray[np.float32]:
    """What a student is taught for each face, f32 (n,7): (1 - weight) one-hot + weight softened teacher.

    The teacher's probabilities p are softened to p^(1/T), normalised, as in Hinton et al. 2015 (arXiv 1503.02531); the
    student's own temperature stays 1, so that training is plain cross-entropy whoever teaches. InputError if the file
    is not there, not the one of that name, or made for other faces.
    """
    truth = np.eye(len(EMOTIONS), dtype=np.float32)[faces.labels]
    if distil.teacher == "none":
        return truth
    softened = read_lessons(Path(distil.teacher), faces) ** (1 / distil.temperature)
    softened /= softened.sum(axis=1, keepdims=True)
    return (1 - distil.weight) * truth + distil.weight * softened


def read_lessons(path: Path, faces: Faces) -> NDArray[np.float32]:
    """The probabilities f32 (n,7) of a file of save_lessons; InputError as in `targets`."""
    remedy = "python -m emotion_detection.stages.teach makes one and says what to write into params.yaml"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    if path.stem != _name(content):
        raise InputError(f"{path} is not the file of that name any more (it would be {_name(content)}.npz): {remedy}")
    with np.load(io.BytesIO(content), allow_pickle=False) as lessons:
        if str(lessons["faces"]) != digest(faces):
            raise InputError(f"{path} was made for other training faces: {remedy}")
        return lessons["probabilities"].astype(np.float32)


def _name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
