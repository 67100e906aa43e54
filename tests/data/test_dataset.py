"""The npz file and the digest of faces."""

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.support.fer_files import random_faces
from tests.support.vote_files import random_votes

from emotion_detection.data.dataset import digest, load, save, votes_digest
from emotion_detection.errors import DataError


def test_loaded_faces_equal_the_saved_faces(tmp_path):
    faces = replace(random_faces(), copied=np.arange(63) % 2 == 0)
    save(faces, tmp_path / "deep" / "faces.npz")
    loaded = load(tmp_path / "deep" / "faces.npz")
    for name in ("images", "labels", "splits", "copied"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(faces, name))
        assert getattr(loaded, name).dtype == getattr(faces, name).dtype
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["faces.npz"]


def test_votes_are_saved_and_have_a_digest_of_their_own(tmp_path):
    faces = random_faces()
    votes = random_votes(faces)
    save(replace(faces, votes=votes), tmp_path / "faces.npz")
    loaded = load(tmp_path / "faces.npz")
    np.testing.assert_array_equal(loaded.votes, votes)
    np.testing.assert_array_equal(loaded.of("val").votes, votes[faces.splits == 1])
    assert digest(loaded) == digest(faces)
    assert votes_digest(faces) == ""
    assert votes_digest(loaded) != votes_digest(replace(faces, votes=votes[::-1]))


@pytest.mark.parametrize("votes", [np.zeros((63, 9), np.uint8), np.zeros((62, 10), np.uint8), np.zeros((63, 10))])
def test_votes_of_another_shape_are_refused(tmp_path, votes):
    save(replace(random_faces(), votes=votes), tmp_path / "faces.npz")
    with pytest.raises(DataError, match=r"votes is .* instead of uint8\(63, 10\)"):
        load(tmp_path / "faces.npz")


def test_faces_without_votes_are_saved_as_before(tmp_path):
    save(random_faces(), tmp_path / "faces.npz")
    with np.load(tmp_path / "faces.npz") as arrays:
        assert list(arrays) == ["images", "labels", "splits", "copied"]
    assert load(tmp_path / "faces.npz").votes is None


def test_equal_faces_give_equal_files(tmp_path):
    save(random_faces(), tmp_path / "first.npz")
    save(random_faces(), tmp_path / "second.npz")
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "faces.npz"
    save(random_faces(), path)
    before = path.read_bytes()

    def fail(file, **_):
        file.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="no space"):
        save(random_faces(seed=1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_missing_and_damaged_files_are_rejected(tmp_path):
    path = tmp_path / "faces.npz"
    with pytest.raises(DataError, match="does not exist"):
        load(path)
    save(random_faces(), path)
    content = path.read_bytes()
    for damaged in (b"", b"text", content[:200], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="not a complete faces file"):
            load(path)
    np.save(tmp_path / "bare.npy", np.zeros(3))
    (tmp_path / "bare.npy").replace(path)
    with pytest.raises(DataError, match="not a complete faces file"):
        load(path)


def test_pickled_and_misshapen_arrays_are_rejected(tmp_path):
    path = tmp_path / "faces.npz"
    arrays: dict[str, Any] = {name: np.zeros(2, np.uint8) for name in ("labels", "splits", "copied")}
    np.savez(path, images=np.array([{}, {}], dtype=object), **arrays)
    with pytest.raises(DataError, match="not a complete faces file"):
        load(path)
    np.savez(path, images=np.zeros((3, 48, 48), np.uint8), **arrays)
    with pytest.raises(DataError, match="labels is"):
        load(path)


def test_digest_depends_on_every_array():
    faces = random_faces()
    changed = [
        replace(faces, images=np.bitwise_xor(faces.images, np.uint8(1))),
        replace(faces, labels=faces.labels[::-1]),
        replace(faces, splits=faces.splits[::-1]),
    ]
    assert digest(faces) == digest(random_faces())
    assert len(set(map(digest, (faces, *changed)))) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": np.zeros((3, 48, 47), np.uint8)}, r"images is uint8\(3, 48, 47\) instead of"),
        ({"images": np.zeros(3, np.uint8)}, "images is uint8"),
        ({"labels": np.array([0, 1, 7], np.uint8)}, "a label or a split that does not exist"),
        ({"splits": np.array([0, 1, 9], np.uint8)}, "a label or a split that does not exist"),
        ({"labels": np.array([0.0, 1, 2])}, "labels is float64"),
        ({"copied": None}, "has no copied"),
    ],
)
def test_file_with_other_arrays_is_refused(tmp_path, changes, words):
    arrays = {
        "images": np.zeros((3, 48, 48), np.uint8),
        "labels": np.array([0, 1, 2], np.uint8),
        "splits": np.array([0, 1, 2], np.uint8),
        "copied": np.zeros(3, bool),
    } | changes
    np.savez(tmp_path / "faces.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DataError, match=words):
        load(tmp_path / "faces.npz")


def test_bomb_is_refused_before_memory_is_allocated(tmp_path):
    np.savez_compressed(tmp_path / "faces.npz", images=np.zeros((20_000, 48, 48), np.uint8))
    tracemalloc.start()
    with pytest.raises(DataError, match="compressed"):
        load(tmp_path / "faces.npz")
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
