"""The same faces from every form, and what a person is told about them."""

import gzip
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from benchmarks.read_csv import write_table
from tests.support.fer_files import (
    autumn_members,
    class_members,
    drawn_faces,
    jpeg,
    kaggle_members,
    original_members,
    parquet,
    png,
    table,
    text,
    write_folder,
    write_tar,
    write_zip,
)
from tests.support.paths import ARCHIVE

from emotion_detection.data import archives
from emotion_detection.data.dataset import NO_SPLIT, Faces, digest
from emotion_detection.data.formats import OFFICIAL, read_raw
from emotion_detection.data.splits import drop_leaks, duplicates
from emotion_detection.emotions import EMOTIONS, SAMPLE_COMMENT, SPLITS

FACES = drawn_faces()
MERGED = replace(FACES, splits=np.where(FACES.splits > 0, 2, 0).astype(np.uint8))
NO_SPLITS = replace(FACES, splits=np.full(len(FACES), NO_SPLIT, np.uint8))
ICML = "emotion, Usage, pixels"


def assert_same(found: Faces, expected: Faces) -> None:
    for name in ("images", "labels", "splits", "copied"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype


def in_order(faces: Faces) -> Faces:
    """Sorted by split, label and pixels: equal for equal sets of rows."""
    keys = [
        (split, label, image.tobytes())
        for image, label, split in zip(faces.images, faces.labels, faces.splits, strict=True)
    ]
    return faces[np.array(sorted(range(len(keys)), key=keys.__getitem__))]


# --- The same rows in the same order -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda p: text(p / "x", table(FACES)), FACES),
        (lambda p: text(p / "x", table(FACES, ICML)), FACES),
        (lambda p: text(p / "x", "﻿" + table(FACES).replace("\n", "\r\n")), FACES),
        (lambda p: text(p / "x", table(FACES).rstrip("\n")), FACES),
        (lambda p: text(p / "train.csv", table(FACES, "emotion,pixels")), NO_SPLITS),
        (lambda p: text(p / "x", gzip.compress(table(FACES).encode())), FACES),
        (
            lambda p: write_tar(
                p / "x.gz", {"fer2013/README": b"hi", "fer2013/fer2013.csv": table(FACES).encode()}
            ),
            FACES,
        ),
        (lambda p: write_tar(p / "x", {"./fer2013.csv": table(FACES).encode()}), FACES),
        (lambda p: write_zip(p / "x", {"README": b"", "fer2013.csv": table(FACES).encode()}), FACES),
        (lambda p: write_folder(p / "d", {"fer2013.csv": table(FACES).encode()}), FACES),
        (lambda p: write_folder(p / "d", autumn_members(FACES)), FACES),
        (lambda p: write_zip(p / "x", autumn_members(FACES)), FACES),
        (
            lambda p: write_folder(
                p / "d",
                {
                    "default/train/0000.parquet": parquet(MERGED.of("train"), old=True),
                    "default/test/0000.parquet": parquet(MERGED.of("test"), old=True),
                },
            ),
            MERGED,
        ),
        (lambda p: text(p / "x", parquet(FACES)), NO_SPLITS),
    ],
    ids=[
        "csv", "icml", "bom-and-crlf", "no-last-newline", "no-usage", "csv-gz", "tar-gz", "tar", "zip",
        "folder", "parquet", "parquet-zip", "parquet-jeneral", "parquet-one-file",
    ],
)  # fmt: skip
def test_rows_in_the_order_of_the_table(tmp_path, write, expected):
    raw = read_raw(write(tmp_path))
    assert_same(raw.faces, expected)
    assert raw.dataset == f"custom-{digest(expected)[:8]}"


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda p: write_zip(p / "x", kaggle_members(FACES)), FACES),
        (lambda p: write_folder(p / "d", kaggle_members(FACES)), FACES),
        (lambda p: write_tar(p / "x.gz", kaggle_members(FACES)), FACES),
        (lambda p: write_folder(p / "d", original_members(FACES)), MERGED),
        (lambda p: write_zip(p / "x", original_members(FACES)), MERGED),
        (
            lambda p: write_folder(p / "d", original_members(FACES, "val")),
            replace(MERGED, splits=MERGED.splits // 2),
        ),
        (lambda p: write_folder(p / "d", class_members(FACES)), NO_SPLITS),
        (
            lambda p: write_zip(
                p / "x", {f"a\\{name}".replace("/", "\\"): v for name, v in class_members(FACES).items()}
            ),
            NO_SPLITS,
        ),
    ],
    ids=[
        "kaggle-zip", "kaggle-folder", "kaggle-tar", "original", "original-zip", "original-val", "classes",
        "backslashes",
    ],
)  # fmt: skip
def test_the_same_faces_from_folders(tmp_path, write, expected):
    assert_same(in_order(read_raw(write(tmp_path)).faces), in_order(expected))


def test_jpegs_are_decoded_as_they_are(tmp_path):
    decoded = [np.array(cv2.imdecode(np.frombuffer(jpeg(face), "u1"), 0), "u1") for face in FACES.images]
    raw = read_raw(write_zip(tmp_path / "x", kaggle_members(FACES, jpeg)))
    assert_same(in_order(raw.faces), in_order(replace(FACES, images=np.stack(decoded))))


def test_colour_pictures_become_gray(tmp_path):
    colour = np.dstack([FACES.images[0]] * 3)
    raw = read_raw(write_folder(tmp_path / "d", {"sad/1.png": png(colour), "happy/1.png": png(colour)}))
    np.testing.assert_array_equal(raw.faces.images, [FACES.images[0]] * 2)
    assert [EMOTIONS[label] for label in raw.faces.labels] == ["happy", "sad"]


def test_class_names_in_parquet_rule_over_the_order_of_the_table(tmp_path):
    alphabetical = sorted(EMOTIONS)
    relabelled = replace(FACES, labels=np.array([alphabetical.index(EMOTIONS[k]) for k in FACES.labels], "u1"))
    path = text(tmp_path / "train-0.parquet", parquet(relabelled, alphabetical))
    np.testing.assert_array_equal(read_raw(path).faces.labels, FACES.labels)


def test_junk_beside_the_faces_is_passed_over(tmp_path):
    junk = {
        "README.md": b"hi" * 9999,
        "model.h5": bytes(9999),
        "notes.csv": b"a,b",
        ".DS_Store": b"x",
        "__MACOSX/happy/._1.png": b"x",
        "happy/.1.png": b"x",
    }
    raw = read_raw(write_folder(tmp_path / "d", junk | class_members(FACES)))
    assert_same(in_order(raw.faces), in_order(NO_SPLITS))


def test_order_in_the_archive_means_nothing(tmp_path):
    forward = kaggle_members(FACES)
    backward = dict(reversed(forward.items()))
    one = read_raw(write_zip(tmp_path / "one", forward)).faces
    assert_same(one, read_raw(write_zip(tmp_path / "two", backward)).faces)


def test_a_packed_folder_reads_as_the_folder_and_packs_the_same(tmp_path):
    folder = write_folder(tmp_path / "d", kaggle_members(FACES) | {"README": b"hi"})
    archives.pack(folder, tmp_path / "one.zip")
    os.utime(folder / "README", (0, 0))
    (folder / "README").chmod(0o600)
    archives.pack(folder, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert_same(read_raw(tmp_path / "one.zip").faces, read_raw(folder).faces)


# --- What a person is told ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("faces", "name"), [(FACES, "fer2013"), (MERGED, "fer2013-merged")])
def test_official_counts_are_fer2013(tmp_path, monkeypatch, faces, name):
    counts = [np.bincount(FACES.of(split).labels, minlength=7) for split in SPLITS]
    monkeypatch.setattr("emotion_detection.data.formats.OFFICIAL", np.array(counts))
    raw = read_raw(text(tmp_path / "x", table(faces)))
    assert raw.dataset == name
    assert any("copy that was written anew" in note for note in raw.notes)
    assert any("halved" in note for note in raw.notes) == (faces is MERGED)
    swapped = replace(faces, labels=np.where(np.arange(63) == 0, 1, faces.labels).astype(np.uint8))
    assert read_raw(text(tmp_path / "x", table(swapped))).dataset.startswith("custom-")


def test_known_md5_is_told(tmp_path, monkeypatch):
    path = text(tmp_path / "x", table(FACES))
    monkeypatch.setattr(
        "emotion_detection.data.formats.KNOWN_MD5", {hashlib.md5(path.read_bytes()).hexdigest(): "fer2013.csv"}
    )
    assert any("known one of fer2013.csv" in note for note in read_raw(path).notes)


def test_sample_is_told_by_its_comment(tmp_path):
    assert read_raw(write_zip(tmp_path / "x", kaggle_members(FACES), SAMPLE_COMMENT)).dataset == "sample"
    assert read_raw(write_zip(tmp_path / "y", kaggle_members(FACES), b"other")).dataset.startswith("custom-")


def test_a_lost_split_is_told(tmp_path):
    raw = read_raw(write_folder(tmp_path / "d", class_members(FACES)))
    assert any("official split is not recoverable" in note for note in raw.notes)
    assert not any("split" in note for note in read_raw(text(tmp_path / "x", table(FACES))).notes)


# --- At full size ------------------------------------------------------------------------------------------


def test_a_table_of_full_size_is_read_exactly(tmp_path):
    images, labels = write_table(tmp_path / "x")
    faces = read_raw(tmp_path / "x").faces
    np.testing.assert_array_equal(faces.images, images)
    np.testing.assert_array_equal(faces.labels, labels)
    assert np.bincount(faces.splits).tolist() == [28_709, 3_589, 3_589]


@pytest.fixture(scope="module")
def archive() -> Faces:
    beside = ARCHIVE
    path = Path(os.environ.get("FER2013_ARCHIVE", beside))
    if not path.is_file():
        pytest.skip("FER-2013 itself is not here: set FER2013_ARCHIVE to Kaggle's archive.zip")
    raw = read_raw(path)
    assert raw.dataset == "fer2013"
    return raw.faces


def test_the_real_archive_has_the_official_counts(archive):
    counts = [np.bincount(archive.of(split).labels, minlength=7) for split in SPLITS]
    np.testing.assert_array_equal(counts, OFFICIAL)
    assert OFFICIAL.sum(axis=1).tolist() == [28_709, 3_589, 3_589]


def test_the_real_archive_leaks_as_known(archive):
    kept, counts = drop_leaks(archive)
    assert (counts["train_dropped"], counts["test_copied"], counts["val_copied"]) == (703, 288, 280)
    assert len(kept.of("train")) == 28_709 - 703
    assert len(kept.of("test")) == 3_589
    assert kept.of("test").copied.sum() == 288


def test_the_real_archive_repeats_as_known(archive):
    found = duplicates(archive)
    assert (found.distinct, len(found.groups), len(found.conflicts)) == (34_034, 1_516, 57)
    assert len(found.blank) == 12
