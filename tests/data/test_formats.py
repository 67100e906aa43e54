"""Every supported format gives the same faces, and the notes for the user are right."""

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
    class_members,
    csv_table,
    huggingface_members,
    jpeg,
    kaggle_members,
    original_members,
    parquet,
    png,
    random_faces,
    write_file,
    write_folder,
    write_tar,
    write_zip,
)
from tests.support.paths import ARCHIVE

from emotion_detection.data import archives
from emotion_detection.data.dataset import NO_SPLIT, Faces, digest
from emotion_detection.data.formats import OFFICIAL, read_raw
from emotion_detection.data.splits import drop_leaks, find_duplicates
from emotion_detection.emotions import EMOTIONS, SAMPLE_COMMENT, SPLITS
from emotion_detection.errors import DataError

FACES = random_faces()
MERGED = replace(FACES, splits=np.where(FACES.splits > 0, 2, 0).astype(np.uint8))
NO_SPLITS = replace(FACES, splits=np.full(len(FACES), NO_SPLIT, np.uint8))
ICML = "emotion, Usage, pixels"


def assert_same(faces: Faces, expected: Faces) -> None:
    for name in ("images", "labels", "splits", "copied"):
        np.testing.assert_array_equal(getattr(faces, name), getattr(expected, name))
        assert getattr(faces, name).dtype == getattr(expected, name).dtype


def sort_rows(faces: Faces) -> Faces:
    """Sort the rows by split, label and pixels."""
    keys = [
        (split, label, image.tobytes())
        for image, label, split in zip(faces.images, faces.labels, faces.splits, strict=True)
    ]
    return faces[np.array(sorted(range(len(keys)), key=keys.__getitem__))]


# Formats


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda p: write_file(p / "x", csv_table(FACES)), FACES),
        (lambda p: write_file(p / "x", csv_table(FACES, ICML)), FACES),
        (lambda p: write_file(p / "x", "﻿" + csv_table(FACES).replace("\n", "\r\n")), FACES),
        (lambda p: write_file(p / "x", csv_table(FACES).rstrip("\n")), FACES),
        (lambda p: write_file(p / "train.csv", csv_table(FACES, "emotion,pixels")), NO_SPLITS),
        (lambda p: write_file(p / "x", gzip.compress(csv_table(FACES).encode())), FACES),
        (
            lambda p: write_tar(
                p / "x.gz", {"fer2013/README": b"hi", "fer2013/fer2013.csv": csv_table(FACES).encode()}
            ),
            FACES,
        ),
        (lambda p: write_tar(p / "x", {"./fer2013.csv": csv_table(FACES).encode()}), FACES),
        (lambda p: write_zip(p / "x", {"README": b"", "fer2013.csv": csv_table(FACES).encode()}), FACES),
        (lambda p: write_folder(p / "d", {"fer2013.csv": csv_table(FACES).encode()}), FACES),
        (lambda p: write_folder(p / "d", huggingface_members(FACES)), FACES),
        (lambda p: write_zip(p / "x", huggingface_members(FACES)), FACES),
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
        (lambda p: write_file(p / "x", parquet(FACES)), NO_SPLITS),
    ],
    ids=[
        "csv", "icml", "bom-and-crlf", "no-last-newline", "no-usage", "csv-gz", "tar-gz", "tar", "zip",
        "folder", "parquet", "parquet-zip", "parquet-jeneral", "parquet-one-file",
    ],
)  # fmt: skip
def test_ordered_format_keeps_the_order_of_rows(tmp_path, write, expected):
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
def test_folders_give_the_same_faces(tmp_path, write, expected):
    assert_same(sort_rows(read_raw(write(tmp_path)).faces), sort_rows(expected))


def test_jpeg_images_are_decoded(tmp_path):
    decoded = [np.array(cv2.imdecode(np.frombuffer(jpeg(face), "u1"), 0), "u1") for face in FACES.images]
    raw = read_raw(write_zip(tmp_path / "x", kaggle_members(FACES, jpeg)))
    assert_same(sort_rows(raw.faces), sort_rows(replace(FACES, images=np.stack(decoded))))


def test_color_images_become_gray(tmp_path):
    color = np.dstack([FACES.images[0]] * 3)
    raw = read_raw(write_folder(tmp_path / "d", {"sad/1.png": png(color), "happy/1.png": png(color)}))
    np.testing.assert_array_equal(raw.faces.images, [FACES.images[0]] * 2)
    assert [EMOTIONS[label] for label in raw.faces.labels] == ["happy", "sad"]


def test_parquet_labels_are_mapped_by_class_names(tmp_path):
    alphabetical = sorted(EMOTIONS)
    relabeled = replace(FACES, labels=np.array([alphabetical.index(EMOTIONS[k]) for k in FACES.labels], "u1"))
    path = write_file(tmp_path / "train-0.parquet", parquet(relabeled, alphabetical))
    np.testing.assert_array_equal(read_raw(path).faces.labels, FACES.labels)


def test_other_files_among_the_faces_are_ignored(tmp_path):
    other_files = {
        "README.md": b"hi" * 9999,
        "model.h5": bytes(9999),
        "notes.csv": b"a,b",
        ".DS_Store": b"x",
        "__MACOSX/happy/._1.png": b"x",
        "happy/.1.png": b"x",
    }
    raw = read_raw(write_folder(tmp_path / "d", other_files | class_members(FACES)))
    assert_same(sort_rows(raw.faces), sort_rows(NO_SPLITS))


def test_order_of_members_does_not_matter(tmp_path):
    forward = kaggle_members(FACES)
    backward = dict(reversed(forward.items()))
    faces = read_raw(write_zip(tmp_path / "forward", forward)).faces
    assert_same(faces, read_raw(write_zip(tmp_path / "backward", backward)).faces)


def test_packed_folder_is_reproducible_and_gives_the_same_faces(tmp_path):
    folder = write_folder(tmp_path / "d", kaggle_members(FACES) | {"README": b"hi"})
    archives.pack(folder, tmp_path / "one.zip")
    os.utime(folder / "README", (0, 0))
    (folder / "README").chmod(0o600)
    archives.pack(folder, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert_same(read_raw(tmp_path / "one.zip").faces, read_raw(folder).faces)


# Names of data sets and notes


@pytest.mark.parametrize(("faces", "name"), [(FACES, "fer2013"), (MERGED, "fer2013-merged")])
def test_official_counts_are_named_fer2013(tmp_path, monkeypatch, faces, name):
    counts = [np.bincount(FACES.of(split).labels, minlength=7) for split in SPLITS]
    monkeypatch.setattr("emotion_detection.data.formats.OFFICIAL", np.array(counts))
    raw = read_raw(write_file(tmp_path / "x", csv_table(faces)))
    assert raw.dataset == name
    assert any("the file was rewritten" in note for note in raw.notes)
    assert any("split in half" in note for note in raw.notes) == (faces is MERGED)
    swapped = replace(faces, labels=np.where(np.arange(63) == 0, 1, faces.labels).astype(np.uint8))
    assert read_raw(write_file(tmp_path / "x", csv_table(swapped))).dataset.startswith("custom-")


def test_known_md5_is_noted(tmp_path, monkeypatch):
    path = write_file(tmp_path / "x", csv_table(FACES))
    monkeypatch.setattr(
        "emotion_detection.data.formats.KNOWN_MD5", {hashlib.md5(path.read_bytes()).hexdigest(): "fer2013.csv"}
    )
    assert any("that of fer2013.csv" in note for note in read_raw(path).notes)


def test_sample_is_recognized_by_its_comment(tmp_path):
    assert read_raw(write_zip(tmp_path / "x", kaggle_members(FACES), SAMPLE_COMMENT)).dataset == "sample"
    assert read_raw(write_zip(tmp_path / "y", kaggle_members(FACES), b"other")).dataset.startswith("custom-")


def test_missing_split_is_noted(tmp_path):
    raw = read_raw(write_folder(tmp_path / "d", class_members(FACES)))
    assert any("official split cannot be recovered" in note for note in raw.notes)
    assert not any("split" in note for note in read_raw(write_file(tmp_path / "x", csv_table(FACES))).notes)


@pytest.mark.parametrize(
    ("faces", "note"),
    [
        (FACES, None),
        (FACES[np.arange(63) != 3], "62 of FER-2013's 63 faces: 1 are missing in train/happy"),
        (FACES[np.r_[:63, 62]], "64 of FER-2013's 63 faces: 1 too many in test/neutral"),
        (MERGED[np.arange(63) != 3], "62 of FER-2013's 63 faces: 1 are missing in train/happy"),
        (NO_SPLITS[np.arange(63) != 3], "62 of FER-2013's 63 faces: 1 are missing in all/happy"),
        (NO_SPLITS, "the numbers of faces are those of FER-2013's 63 faces"),
        (NO_SPLITS[FACES.splits == 0], "the numbers of faces are those of FER-2013's 39 training faces"),
        (FACES[np.arange(63) < 55], "the data set has 55 faces; FER-2013 has 63"),
    ],
    ids=["complete", "missing", "too-many", "merged", "unsplit", "unsplit-complete", "train", "another"],
)
def test_what_is_missing_of_fer2013_is_noted(tmp_path, monkeypatch, faces, note):
    counts = [np.bincount(FACES.of(split).labels, minlength=7) for split in SPLITS]
    monkeypatch.setattr("emotion_detection.data.formats.OFFICIAL", np.array(counts))
    table = csv_table(faces, "emotion,pixels" if NO_SPLIT in faces.splits else "emotion,pixels,Usage")
    members = kaggle_members(faces) if NO_SPLIT not in faces.splits and len(np.unique(faces.splits)) == 3 else {}
    for path in (
        write_file(tmp_path / "x", table),
        *([write_zip(tmp_path / "y", members)] if len(members) == len(faces) else []),
    ):
        notes = [text for text in read_raw(path).notes if "FER-2013" in text]
        assert notes == ([note] if note else [])


def test_pictures_are_recognized_by_their_content(tmp_path):
    """A picture without a suffix, or with an unusual one, is not skipped."""
    members = class_members(FACES)
    renamed = {f"{name[:-4]}{('', '.jpe', '.dat')[row % 3]}": v for row, (name, v) in enumerate(members.items())}
    raw = read_raw(write_folder(tmp_path / "d", renamed))
    assert_same(sort_rows(raw.faces), sort_rows(NO_SPLITS))
    with pytest.raises(DataError, match="face is not in a folder named after an emotion"):
        read_raw(write_folder(tmp_path / "d", {"other/face": png(FACES.images[0])}))


def test_missing_emotion_is_noted(tmp_path):
    members = {name: content for name, content in class_members(FACES).items() if name[:3] not in ("sad", "dis")}
    assert "no face is labeled disgust or sad" in read_raw(write_folder(tmp_path / "d", members)).notes


def test_skipped_files_are_counted_and_named(tmp_path):
    others = {f"notes/{row}.md": b"words" for row in range(7)} | {"happy/.9.png": png(FACES.images[0])}
    members = class_members(FACES) | others | {".DS_Store": b"x", "happy/._1.png": b"x", ".git/1.png": b"x"}
    expected = "8 other files were not read: " + ", ".join(f"notes/{row}.md" for row in range(5)) + " and 3 more"
    for path in (write_folder(tmp_path / "d", members), write_zip(tmp_path / "x", members)):
        raw = read_raw(path)
        assert expected in raw.notes
        assert len(raw.faces) == len(FACES)


# Many rows, and the real data set


def test_large_table_is_read_exactly(tmp_path):
    images, labels = write_table(tmp_path / "x", rows=1500)
    faces = read_raw(tmp_path / "x").faces
    np.testing.assert_array_equal(faces.images, images)
    np.testing.assert_array_equal(faces.labels, labels)
    assert np.bincount(faces.splits).tolist() == [1200, 150, 150]


@pytest.mark.slow
def test_real_archive_has_known_counts_leaks_and_duplicates():
    path = Path(os.environ.get("FER2013_ARCHIVE", ARCHIVE))
    if not path.is_file():
        pytest.skip("FER-2013 is not available: set FER2013_ARCHIVE to Kaggle's archive.zip")
    raw = read_raw(path)
    assert raw.dataset == "fer2013"
    counts = [np.bincount(raw.faces.of(split).labels, minlength=7) for split in SPLITS]
    np.testing.assert_array_equal(counts, OFFICIAL)
    assert OFFICIAL.sum(axis=1).tolist() == [28_709, 3_589, 3_589]

    kept, leaks = drop_leaks(raw.faces)
    assert (leaks["train_dropped"], leaks["test_copied"], leaks["val_copied"]) == (703, 288, 280)
    assert len(kept.of("train")) == 28_709 - 703
    assert len(kept.of("test")) == 3_589
    assert kept.of("test").copied.sum() == 288

    duplicates = find_duplicates(raw.faces)
    assert (duplicates.distinct, len(duplicates.groups), len(duplicates.conflicts)) == (34_034, 1_516, 57)
    assert len(duplicates.blank) == 12
