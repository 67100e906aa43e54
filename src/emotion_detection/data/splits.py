"""Splits, leaks between them, and duplicate images."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emotion_detection.data.dataset import NO_SPLIT, TEST, TRAIN, VAL, Faces
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.errors import InputError


@dataclass(frozen=True)
class Duplicates:
    """distinct: different pictures; groups: rows of each set of identical ones, in order of first row.

    conflicts: those groups whose rows do not agree on the label; blank: rows of one single gray value.
    """

    distinct: int
    groups: tuple[NDArray[np.intp], ...]
    conflicts: tuple[NDArray[np.intp], ...]
    blank: NDArray[np.intp]


def divide(faces: Faces, *, val_fraction: float, test_fraction: float) -> Faces:
    """Give every row a split by its own pixels: copies fall together and the order of rows means nothing.

    An official three-way split stays as it is. A source with training rows and one held-out part gets that
    part halved into val and test. All else is divided by the fractions, class by class.
    """
    if val_fraction + test_fraction >= 1:
        raise InputError("prepare.val_fraction and prepare.test_fraction leave no training rows: lower one")
    present = set(np.unique(faces.splits).tolist())
    by_fraction = {TEST: test_fraction, VAL: val_fraction, TRAIN: 1.0}
    if NO_SPLIT in present:
        return _share(faces, faces.splits == NO_SPLIT, by_fraction)
    if present == {TRAIN}:
        return _share(faces, faces.splits == TRAIN, by_fraction)
    if TRAIN not in present:
        raise InputError("the source has no training rows: give the whole data set, not its test part alone")
    if len(present) == 2:
        return _share(faces, faces.splits != TRAIN, {TEST: 0.5, VAL: 1.0})
    return faces


def _share(faces: Faces, rows: NDArray[np.bool_], fractions: dict[int, float]) -> Faces:
    """Deal the chosen rows out to splits; the last split takes what is left."""
    pictures, inverse, copies = np.unique(_fingerprints(faces.images[rows]), return_inverse=True, return_counts=True)
    # Copies may disagree on the label; the smallest stands for them, whatever the order of rows.
    owner = np.full(len(pictures), len(EMOTIONS))
    np.minimum.at(owner, inverse, faces.labels[rows])
    bounds = np.cumsum(list(fractions.values()))[:-1]
    chosen = np.empty(len(pictures), np.uint8)
    for label in np.unique(owner):
        # `pictures` is sorted by fingerprint, which is as good as shuffled.
        size = copies[owner == label]
        middle = (np.cumsum(size) - size / 2) / size.sum()
        chosen[owner == label] = np.array(list(fractions), np.uint8)[np.searchsorted(bounds, middle, side="right")]
    splits = faces.splits.copy()
    splits[rows] = chosen[inverse]
    return replace(faces, splits=splits)


def drop_leaks(faces: Faces) -> tuple[Faces, dict[str, int]]:
    """Mark val and test rows whose pixels the source trains on, then drop the rows that leak.

    Training rows that occur in val or test go, and val rows that occur in test. The counts are of rows:
    train_dropped, val_dropped, val_copied, test_copied (copied ones counted before any row is dropped).
    """
    pictures = _fingerprints(faces.images)
    train, val, test = (faces.splits == split for split in (TRAIN, VAL, TEST))
    copied = (val | test) & np.isin(pictures, pictures[train])
    train_dropped = train & np.isin(pictures, pictures[val | test])
    val_dropped = val & np.isin(pictures, pictures[test])
    masks = {
        "train_dropped": train_dropped,
        "val_dropped": val_dropped,
        "val_copied": val & copied,
        "test_copied": test & copied,
    }
    kept = replace(faces, copied=copied)[~(train_dropped | val_dropped)]
    return kept, {name: int(mask.sum()) for name, mask in masks.items()}


def duplicates(faces: Faces) -> Duplicates:
    """Find identical pictures, those with conflicting labels, and blank ones."""
    pictures, inverse, copies = np.unique(_fingerprints(faces.images), return_inverse=True, return_counts=True)
    by_picture = np.argsort(inverse, kind="stable")
    starts = np.cumsum(copies)[:-1]
    groups = [rows for rows in np.split(by_picture, starts) if len(rows) > 1]
    groups.sort(key=lambda rows: int(rows[0]))
    pixels = faces.images.reshape(len(faces), IMAGE_SIZE * IMAGE_SIZE)
    return Duplicates(
        distinct=len(pictures),
        groups=tuple(groups),
        conflicts=tuple(_conflicting(groups, faces.labels)),
        blank=np.flatnonzero((pixels == pixels[:, :1]).all(axis=1)),
    )


def _conflicting(groups: Sequence[NDArray[np.intp]], labels: NDArray[np.uint8]) -> list[NDArray[np.intp]]:
    return [rows for rows in groups if len(np.unique(labels[rows])) > 1]


def _fingerprints(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """One number u64 (n,) per picture: equal pixels, equal number; a chance collision is one in 10^10."""
    prints = b"".join(hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(prints, "<u8")
