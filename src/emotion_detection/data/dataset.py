"""Labeled faces in memory, and the npz file that training reads."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_detection.arrays import Images, Labels
from emotion_detection.atomic import atomic_output
from emotion_detection.decoding.npz import Header, NpzError, open_npz
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE, SPLITS
from emotion_detection.errors import DataError, shorten

NO_SPLIT = 255  # the source does not assign the row to a split
TRAIN, VAL, TEST = range(len(SPLITS))
ARRAYS = ("images", "labels", "splits", "copied")
# The choices of FER+'s raters, in the order of its file fer2013new.csv. NF: not a face.
VOTE_CLASSES = (
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF"
)  # fmt: skip
Votes = NDArray[np.uint8]


@dataclass(frozen=True)
class Faces:
    """images u8 (n,48,48), labels u8 (n,) into EMOTIONS, splits u8 (n,) into SPLITS or NO_SPLIT.

    copied bool (n,): whether the source's training split contains the same pixels (always False for training rows).
    votes u8 (n,10) or None: how many raters chose each of VOTE_CLASSES. A row of zeros belongs to a face without votes;
    faces of the test split never have votes.
    """

    images: Images
    labels: Labels
    splits: NDArray[np.uint8]
    copied: NDArray[np.bool_]
    votes: Votes | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Faces":
        votes = None if self.votes is None else self.votes[rows]
        return Faces(self.images[rows], self.labels[rows], self.splits[rows], self.copied[rows], votes)

    @property
    def voted(self) -> NDArray[np.bool_]:
        """Whether each face has votes, bool (n,)."""
        return np.zeros(len(self), bool) if self.votes is None else has_votes(self.votes)

    def of(self, split: str) -> "Faces":
        """Return the rows of a split, given by its name in SPLITS."""
        return self[self.splits == SPLITS.index(split)]


def has_votes(votes: Votes) -> NDArray[np.bool_]:
    """Whether each row of votes u8 (n,10) contains a vote, bool (n,)."""
    return np.asarray(votes.any(axis=1))


def save(faces: Faces, path: Path) -> None:
    """Write an npz file atomically. The same faces give the same bytes."""
    arrays = {name: getattr(faces, name) for name in ARRAYS}
    if faces.votes is not None:
        arrays["votes"] = faces.votes
    with atomic_output(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


def load(path: Path) -> Faces:
    """Read a file that `save` wrote. Raise DataError if it is missing, damaged or of another kind.

    The arrays are compared with what is expected before memory is allocated for them.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist: run `dvc repro prepare`")
    try:
        with open_npz(path) as arrays:
            _check_arrays(arrays.headers, path)
            votes = arrays.read("votes") if "votes" in arrays.headers else None
            faces = Faces(**{name: arrays.read(name) for name in ARRAYS}, votes=votes)
    except (OSError, NpzError) as error:
        raise DataError(
            f"{path} is not a complete faces file ({shorten(error)}): delete it and run `dvc repro prepare`"
        ) from error
    if (faces.labels >= len(EMOTIONS)).any() or not np.isin(faces.splits, (TRAIN, VAL, TEST, NO_SPLIT)).all():
        raise DataError(f"{path} has a label or a split that does not exist: delete it and run `dvc repro prepare`")
    return faces


def _check_arrays(headers: Mapping[str, Header], path: Path) -> None:
    rows = headers["images"].shape[:1] if "images" in headers else ()
    expected = {
        "images": (np.uint8, (*rows, IMAGE_SIZE, IMAGE_SIZE)),
        "labels": (np.uint8, rows),
        "splits": (np.uint8, rows),
        "copied": (np.bool_, rows),
    }
    if "votes" in headers:
        expected["votes"] = (np.uint8, (*rows, len(VOTE_CLASSES)))
    for name, (dtype, shape) in expected.items():
        header = headers.get(name)
        if header is None:
            raise DataError(
                f"{path} is not a complete faces file (it has no {name}): delete it and run `dvc repro prepare`"
            )
        if header != (np.dtype(dtype), shape):
            raise DataError(
                f"{path}: {name} is {shorten(header.dtype, 40)}{header.shape} instead of {np.dtype(dtype)}{shape}: "
                "delete the file and run `dvc repro prepare`"
            )


def digest(faces: Faces) -> str:
    """Return the SHA-256 (hex) of images, labels and splits, in row order.

    Votes have a digest of their own: scores of models with and without votes are comparable.
    """
    sha = hashlib.sha256()
    for array in (faces.images, faces.labels, faces.splits):
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def votes_digest(faces: Faces) -> str:
    """Return the SHA-256 (hex) of the votes, in row order; "" without votes."""
    return "" if faces.votes is None else hashlib.sha256(np.ascontiguousarray(faces.votes).data).hexdigest()
