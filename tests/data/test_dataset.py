"""Splits, leaks, duplicates and the npz file."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.support.fer_files import drawn_faces

from emotion_detection.data.dataset import NO_SPLIT, Faces, digest, load, save
from emotion_detection.data.splits import divide, drop_leaks, duplicates
from emotion_detection.errors import InputError


def faces_of(images, labels, splits) -> Faces:
    """Faces whose picture number k is told by one number: equal numbers, equal pixels."""
    pixels = np.stack([np.random.default_rng(k).integers(0, 256, (48, 48), np.uint8) for k in images])
    labels, splits = np.array(labels, np.uint8), np.array(splits, np.uint8)
    return Faces(pixels, labels, splits, np.zeros(len(labels), bool))


def unsplit(faces: Faces) -> Faces:
    return replace(faces, splits=np.full(len(faces), NO_SPLIT, np.uint8))


def test_npz_brings_back_the_same_faces(tmp_path):
    faces = replace(drawn_faces(), copied=np.arange(63) % 2 == 0)
    save(faces, tmp_path / "deep" / "faces.npz")
    again = load(tmp_path / "deep" / "faces.npz")
    for name in ("images", "labels", "splits", "copied"):
        np.testing.assert_array_equal(getattr(again, name), getattr(faces, name))
        assert getattr(again, name).dtype == getattr(faces, name).dtype
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["faces.npz"]


def test_npz_is_the_same_byte_for_byte(tmp_path):
    save(drawn_faces(), tmp_path / "one.npz")
    save(drawn_faces(), tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "faces.npz"
    save(drawn_faces(), path)
    before = path.read_bytes()

    def broken(file, **_):
        file.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="no space"):
        save(drawn_faces(seed=1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_load_refuses_what_save_did_not_write(tmp_path):
    path = tmp_path / "faces.npz"
    with pytest.raises(InputError, match="does not exist"):
        load(path)
    save(drawn_faces(), path)
    whole = path.read_bytes()
    for broken in (b"", b"text", whole[:200], whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="not a complete faces file"):
            load(path)
    np.save(tmp_path / "bare.npy", np.zeros(3))
    (tmp_path / "bare.npy").replace(path)
    with pytest.raises(InputError, match="not a complete faces file"):
        load(path)


def test_load_refuses_pickled_and_misshapen_arrays(tmp_path):
    path = tmp_path / "faces.npz"
    arrays: dict[str, Any] = {name: np.zeros(2, np.uint8) for name in ("labels", "splits", "copied")}
    np.savez(path, images=np.array([{}, {}], dtype=object), **arrays)
    with pytest.raises(InputError, match="not a complete faces file"):
        load(path)
    np.savez(path, images=np.zeros((3, 48, 48), np.uint8), **arrays)
    with pytest.raises(InputError, match="labels is"):
        load(path)


def test_digest_depends_on_every_array():
    faces = drawn_faces()
    changed = [
        replace(faces, images=np.bitwise_xor(faces.images, np.uint8(1))),
        replace(faces, labels=faces.labels[::-1]),
        replace(faces, splits=faces.splits[::-1]),
    ]
    assert digest(faces) == digest(drawn_faces())
    assert len({digest(one) for one in (faces, *changed)}) == 4


def test_divide_keeps_an_official_split():
    faces = drawn_faces()
    assert divide(faces, val_fraction=0.1, test_fraction=0.1) is faces


def test_divide_holds_the_fractions_in_every_class():
    faces = unsplit(drawn_faces(700))
    divided = divide(faces, val_fraction=0.1, test_fraction=0.2)
    for label in range(7):
        assert np.bincount(divided.splits[divided.labels == label]).tolist() == [70, 10, 20]
    np.testing.assert_array_equal(divided.images, faces.images)


def test_divide_does_not_see_the_order_of_rows():
    faces = unsplit(drawn_faces(200))
    rows = np.random.default_rng(0).permutation(200)
    shuffled = divide(faces[rows], val_fraction=0.2, test_fraction=0.2)
    np.testing.assert_array_equal(shuffled.splits, divide(faces, val_fraction=0.2, test_fraction=0.2).splits[rows])


def test_divide_keeps_copies_together_even_with_conflicting_labels():
    pictures = np.arange(300) % 100
    faces = unsplit(faces_of(pictures, np.arange(300) // 100 % 2, np.zeros(300)))
    splits = divide(faces, val_fraction=0.3, test_fraction=0.3).splits
    assert set(splits) == {0, 1, 2}
    np.testing.assert_array_equal(splits[:100], splits[100:200])
    np.testing.assert_array_equal(splits[:100], splits[200:])


@pytest.mark.parametrize("held_out", [1, 2])
def test_divide_halves_one_held_out_part(held_out):
    faces = drawn_faces(700)
    merged = replace(faces, splits=np.where(faces.splits > 0, held_out, 0).astype(np.uint8))
    divided = divide(merged, val_fraction=0.1, test_fraction=0.1)
    np.testing.assert_array_equal(divided.splits == 0, faces.splits == 0)
    for label in range(7):
        _, val, test = np.bincount(divided.splits[divided.labels == label])
        assert abs(int(val) - int(test)) <= 1


def test_divide_splits_a_source_that_is_all_training():
    faces = replace(drawn_faces(70), splits=np.zeros(70, np.uint8))
    assert np.bincount(divide(faces, val_fraction=0.2, test_fraction=0.2).splits).tolist() == [42, 14, 14]


def test_divide_refuses_what_leaves_nothing_to_train_on():
    faces = drawn_faces()
    with pytest.raises(InputError, match="no training rows"):
        divide(faces[faces.splits > 0], val_fraction=0.1, test_fraction=0.1)
    with pytest.raises(InputError, match="test_fraction leave no training rows"):
        divide(faces, val_fraction=0.5, test_fraction=0.5)


def test_drop_leaks_marks_and_drops():
    #                 train         val           test
    pictures = [0, 1, 2, 2, 3, 10, 1, 11, 12, 2, 11, 20]
    splits = [0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    kept, counts = drop_leaks(faces_of(pictures, np.zeros(12), splits))
    assert counts == {"train_dropped": 3, "val_dropped": 1, "val_copied": 1, "test_copied": 1}
    expected = faces_of([0, 3, 10, 1, 12, 2, 11, 20], np.zeros(8), [0, 0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(kept.images, expected.images)
    np.testing.assert_array_equal(kept.splits, expected.splits)
    assert kept.copied.tolist() == [False, False, False, True, False, True, False, False]


def test_duplicates_tells_groups_conflicts_and_blanks():
    faces = faces_of([5, 6, 5, 7, 6, 8, 6], [0, 1, 0, 2, 3, 4, 1], np.zeros(7))
    faces.images[3] = 255
    found = duplicates(faces)
    assert found.distinct == 4
    assert [rows.tolist() for rows in found.groups] == [[0, 2], [1, 4, 6]]
    assert [rows.tolist() for rows in found.conflicts] == [[1, 4, 6]]
    assert found.blank.tolist() == [3]
