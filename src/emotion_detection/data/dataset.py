"""Faces in memory and on disk: splits, leaks and the npz file that training reads."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_detection.atomic import atomic_output
from emotion_detection.emotions import IMAGE_SIZE, SPLITS
from emotion_detection.errors import InputError

NO_SPLIT = 255  # the split of a row whose source does not tell
TRAIN, VAL, TEST = range(len(SPLITS))
ARRAYS = ("images", "labels", "splits", "copied")


@dataclass(frozen=True)
class Faces:
    """images u8 (n,48,48), labels u8 (n,) into EMOTIONS, splits u8 (n,) into SPLITS or NO_SPLIT.

    copied bool (n,): the same pixels stand in the source's own training split (always False there).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    splits: NDArray[np.uint8]
    copied: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Faces":
        return Faces(self.images[rows], self.labels[rows], self.splits[rows], self.copied[rows])

    def of(self, split: str) -> "Faces":
        """The rows of one of SPLITS."""
        return self[self.splits == SPLITS.index(split)]


def save(faces: Faces, path: Path) -> None:
    """Write an npz file, the same bytes for the same faces; a reader never sees half of it."""
    with atomic_output(path) as written:
        np.savez(written, allow_pickle=False, **{name: getattr(faces, name) for name in ARRAYS})


def load(path: Path) -> Faces:
    """Read what `save` wrote; InputError if the file is missing, damaged or something else."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: run `dvc repro prepare`, which writes it")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            faces = Faces(*(arrays[name] for name in ARRAYS))
    # TypeError: a bare .npy has no context manager.
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a complete faces file: delete it and run `dvc repro prepare`") from error
    _check_arrays(faces, path)
    return faces


def _check_arrays(faces: Faces, path: Path) -> None:
    rows = len(faces.images)
    wanted = [
        (np.uint8, (rows, IMAGE_SIZE, IMAGE_SIZE)),
        (np.uint8, (rows,)),
        (np.uint8, (rows,)),
        (np.bool_, (rows,)),
    ]
    for name, (dtype, shape) in zip(ARRAYS, wanted, strict=True):
        array = getattr(faces, name)
        if array.dtype != dtype or array.shape != shape:
            raise InputError(
                f"{path}: {name} is {array.dtype}{array.shape}: delete the file and run `dvc repro prepare`"
            )


def digest(faces: Faces) -> str:
    """sha256 (hex) over images, labels and splits, in row order."""
    sha = hashlib.sha256()
    for array in (faces.images, faces.labels, faces.splits):
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
