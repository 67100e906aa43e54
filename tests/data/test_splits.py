"""Splitting faces, dropping leaks and finding duplicates."""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.fer_files import random_faces

from emotion_detection.data.dataset import NO_SPLIT, Faces
from emotion_detection.data.splits import drop_leaks, find_duplicates, split_faces
from emotion_detection.errors import ConfigError, DataError


def faces_of(images, labels, splits) -> Faces:
    """Faces with random pixels; equal numbers in `images` give equal pixels."""
    pixels = np.stack([np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8) for seed in images])
    labels, splits = np.array(labels, np.uint8), np.array(splits, np.uint8)
    return Faces(pixels, labels, splits, np.zeros(len(labels), bool))


def unsplit(faces: Faces) -> Faces:
    return replace(faces, splits=np.full(len(faces), NO_SPLIT, np.uint8))


def test_official_split_is_kept():
    faces = random_faces()
    assert split_faces(faces, val_fraction=0.1, test_fraction=0.1) is faces


def test_each_class_is_split_by_the_fractions():
    faces = unsplit(random_faces(700))
    result = split_faces(faces, val_fraction=0.1, test_fraction=0.2)
    for label in range(7):
        assert np.bincount(result.splits[result.labels == label]).tolist() == [70, 10, 20]
    np.testing.assert_array_equal(result.images, faces.images)


def test_split_does_not_depend_on_the_order_of_rows():
    faces = unsplit(random_faces(200))
    rows = np.random.default_rng(0).permutation(200)
    shuffled = split_faces(faces[rows], val_fraction=0.2, test_fraction=0.2)
    np.testing.assert_array_equal(shuffled.splits, split_faces(faces, val_fraction=0.2, test_fraction=0.2).splits[rows])


def test_copies_with_conflicting_labels_get_the_same_split():
    images = np.arange(300) % 100
    faces = unsplit(faces_of(images, np.arange(300) // 100 % 2, np.zeros(300)))
    splits = split_faces(faces, val_fraction=0.3, test_fraction=0.3).splits
    assert set(splits) == {0, 1, 2}
    np.testing.assert_array_equal(splits[:100], splits[100:200])
    np.testing.assert_array_equal(splits[:100], splits[200:])


@pytest.mark.parametrize("held_out", [1, 2])
def test_one_held_out_part_is_split_in_half(held_out):
    faces = random_faces(700)
    merged = replace(faces, splits=np.where(faces.splits > 0, held_out, 0).astype(np.uint8))
    result = split_faces(merged, val_fraction=0.1, test_fraction=0.1)
    np.testing.assert_array_equal(result.splits == 0, faces.splits == 0)
    for label in range(7):
        _, val, test = np.bincount(result.splits[result.labels == label])
        assert abs(int(val) - int(test)) <= 1


def test_source_with_only_training_rows_is_split():
    faces = replace(random_faces(70), splits=np.zeros(70, np.uint8))
    assert np.bincount(split_faces(faces, val_fraction=0.2, test_fraction=0.2).splits).tolist() == [42, 14, 14]


def test_source_or_fractions_without_training_rows_are_rejected():
    faces = random_faces()
    with pytest.raises(DataError, match="no training rows"):
        split_faces(faces[faces.splits > 0], val_fraction=0.1, test_fraction=0.1)
    with pytest.raises(ConfigError, match="test_fraction leave no training rows"):
        split_faces(faces, val_fraction=0.5, test_fraction=0.5)


def test_leaked_rows_are_marked_and_dropped():
    #                 train         val           test
    images = [0, 1, 2, 2, 3, 10, 1, 11, 12, 2, 11, 20]
    splits = [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    kept, counts = drop_leaks(faces_of(images, np.zeros(12), splits))
    assert counts == {"train_dropped": 3, "val_dropped": 1, "val_copied": 1, "test_copied": 1}
    expected = faces_of([0, 3, 10, 1, 12, 2, 11, 20], np.zeros(8), [0, 0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(kept.images, expected.images)
    np.testing.assert_array_equal(kept.splits, expected.splits)
    assert kept.copied.tolist() == [False, False, False, True, False, True, False, False]


def test_duplicates_conflicts_and_blank_images_are_found():
    faces = faces_of([5, 6, 5, 7, 6, 8, 6], [0, 1, 0, 2, 3, 4, 1], np.zeros(7))
    faces.images[3] = 255
    duplicates = find_duplicates(faces)
    assert duplicates.distinct == 4
    assert [rows.tolist() for rows in duplicates.groups] == [[0, 2], [1, 4, 6]]
    assert [rows.tolist() for rows in duplicates.conflicts] == [[1, 4, 6]]
    assert duplicates.blank.tolist() == [3]
