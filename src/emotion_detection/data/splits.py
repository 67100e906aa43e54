"""Split the faces, drop leaks between splits, and find duplicate images."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emotion_detection.arrays import Images, Labels
from emotion_detection.data.dataset import NO_SPLIT, TEST, TRAIN, VAL, Faces
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.errors import ConfigError, DataError


@dataclass(frozen=True)
class Duplicates:
    """distinct: number of different images. groups: the rows of each image that occurs more than once.

    conflicts: the groups whose rows have different labels. blank: the rows whose pixels all have the same value.
    Groups are ordered by their first row.
    """

    distinct: int
    groups: tuple[NDArray[np.intp], ...]
    conflicts: tuple[NDArray[np.intp], ...]
    blank: NDArray[np.intp]


def split_faces(faces: Faces, *, val_fraction: float, test_fraction: float) -> Faces:
    """Assign each row without an official split by a hash of its pixels.

    Copies of an image get the same split, and the order of the rows does not matter. An official split into three
    parts is kept. If the source has training rows and one held-out part, that part is split in half into val and
    test. Otherwise the rows of each class are split by the fractions.
    """
    if val_fraction + test_fraction >= 1:
        raise ConfigError("prepare.val_fraction and prepare.test_fraction leave no training rows: reduce one of them")
    present = set(np.unique(faces.splits).tolist())
    by_fraction = {TEST: test_fraction, VAL: val_fraction, TRAIN: 1.0}
    if NO_SPLIT in present:
        return _split_by_fraction(faces, faces.splits == NO_SPLIT, by_fraction)
    if present == {TRAIN}:
        return _split_by_fraction(faces, faces.splits == TRAIN, by_fraction)
    if TRAIN not in present:
        raise DataError("the source has no training rows: use the complete data set, not only its test part")
    if len(present) == 2:
        return _split_by_fraction(faces, faces.splits != TRAIN, {TEST: 0.5, VAL: 1.0})
    return faces


def _split_by_fraction(faces: Faces, rows: NDArray[np.bool_], fractions: dict[int, float]) -> Faces:
    """Distribute the selected rows over the splits; the last split gets the rest."""
    hashes, inverse, copies = np.unique(image_hashes(faces.images[rows]), return_inverse=True, return_counts=True)
    # Copies may have different labels. The smallest one counts for all of them, in any order of the rows.
    image_labels = np.full(len(hashes), len(EMOTIONS))
    np.minimum.at(image_labels, inverse, faces.labels[rows])
    bounds = np.cumsum(list(fractions.values()))[:-1]
    image_splits = np.empty(len(hashes), np.uint8)
    for label in np.unique(image_labels):
        # The images are sorted by hash, which is a random order.
        size = copies[image_labels == label]
        middle = (np.cumsum(size) - size / 2) / size.sum()
        chosen = np.searchsorted(bounds, middle, side="right")
        image_splits[image_labels == label] = np.array(list(fractions), np.uint8)[chosen]
    splits = faces.splits.copy()
    splits[rows] = image_splits[inverse]
    return replace(faces, splits=splits)


def drop_leaks(faces: Faces) -> tuple[Faces, dict[str, int]]:
    """Mark val and test rows that the source also has in train, then drop the rows that leak.

    Training rows that also occur in val or test are dropped, and val rows that also occur in test. Returns the
    remaining faces and the number of rows: train_dropped, val_dropped, val_copied and test_copied. The copied rows
    are counted before any row is dropped.
    """
    hashes = image_hashes(faces.images)
    train, val, test = (faces.splits == split for split in (TRAIN, VAL, TEST))
    copied = (val | test) & np.isin(hashes, hashes[train])
    train_dropped = train & np.isin(hashes, hashes[val | test])
    val_dropped = val & np.isin(hashes, hashes[test])
    masks = {
        "train_dropped": train_dropped,
        "val_dropped": val_dropped,
        "val_copied": val & copied,
        "test_copied": test & copied,
    }
    kept = replace(faces, copied=copied)[~(train_dropped | val_dropped)]
    return kept, {name: int(mask.sum()) for name, mask in masks.items()}


def find_duplicates(faces: Faces) -> Duplicates:
    """Find identical images, those with conflicting labels, and blank images."""
    hashes, inverse, copies = np.unique(image_hashes(faces.images), return_inverse=True, return_counts=True)
    by_image = np.argsort(inverse, kind="stable")
    starts = np.cumsum(copies)[:-1]
    groups = [rows for rows in np.split(by_image, starts) if len(rows) > 1]
    groups.sort(key=lambda rows: int(rows[0]))
    pixels = faces.images.reshape(len(faces), IMAGE_SIZE * IMAGE_SIZE)
    return Duplicates(
        distinct=len(hashes),
        groups=tuple(groups),
        conflicts=tuple(_conflicting(groups, faces.labels)),
        blank=np.flatnonzero((pixels == pixels[:, :1]).all(axis=1)),
    )


def _conflicting(groups: Sequence[NDArray[np.intp]], labels: Labels) -> list[NDArray[np.intp]]:
    return [rows for rows in groups if len(np.unique(labels[rows])) > 1]


def image_hashes(images: Images) -> NDArray[np.uint64]:
    """A 64-bit hash of the pixels of each image, u64 (n,). The probability of a collision in FER-2013 is 4e-11."""
    digests = b"".join(hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(digests, "<u8")
