"""Read any supported copy of FER-2013. The format is detected from the content, not from the file name."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emotion_detection.data import csv_reader, image_reader
from emotion_detection.data.archives import Container, Member, open_container
from emotion_detection.data.dataset import NO_SPLIT, TEST, TRAIN, VAL, Faces, digest
from emotion_detection.emotions import EMOTIONS, SAMPLE_COMMENT, SPLITS
from emotion_detection.errors import DataError

SUPPORTED = "fer2013.csv, icml_face_data.csv, Kaggle's archive.zip, folders named after emotions, or parquet files"

# The number of rows of each emotion, in the order of EMOTIONS, in the official train, val and test splits.
OFFICIAL = np.array(
    [
        [3995, 436, 4097, 7215, 4830, 3171, 4965],
        [467, 56, 496, 895, 653, 415, 607],
        [491, 55, 528, 879, 594, 416, 626],
    ]
)
KNOWN_MD5 = {
    "f8428a1edbd21e88f42c73edd2a14f95": "fer2013.csv",
    "b114b9e04e6949e5fe8b6a98b3892b1d": "icml_face_data.csv",
    "3f0dfb3d3fd99c811a1299cb947e3131": "the competition's train.csv",
    "4968bdaed6c3c15f7d196c211239b79e": "Kaggle's archive.zip (msambare/fer2013)",
}

# Unsupported files by their first bytes (in lower case), with the end of the error message.
PICKLE = "is a pickle, which can run any code when it is loaded: use CSV, image or parquet files"
WEB_PAGE = "is a web page, probably a sign-in page: sign in with a browser and download the file there"
NESTED = "is an archive inside an archive: unpack the outer archive and pass this file"
UNSUPPORTED = {
    b"<!doctype html": WEB_PAGE,
    b"<html": WEB_PAGE,
    b"version https://git-lfs": "is a Git LFS pointer, not the data: run `git lfs pull` in its repository",
    b"\x80\x02": PICKLE,
    b"\x80\x03": PICKLE,
    b"\x80\x04": PICKLE,
    b"\x80\x05": PICKLE,
    b"rar!": "is a RAR archive: unpack it and pass the folder",
    b"7z\xbc\xaf": "is a 7z archive: unpack it and pass the folder",
    b"pk\x03\x04": NESTED,
    b"\x1f\x8b": NESTED,
}


@dataclass(frozen=True)
class RawData:
    """The faces of a source, a description of its format, the name of the data set, and notes for the user.

    `dataset` is "sample", "fer2013" (the official counts per split and emotion), "fer2013-merged" (the same, but with
    val and test merged) or "custom-" and the first 8 hex digits of the digest.
    """

    faces: Faces
    form: str
    dataset: str
    notes: tuple[str, ...]


def read_raw(path: Path) -> RawData:
    """Read a file or folder of any supported format. Raise DataError if it is unsupported or damaged."""
    path = single_file(path)
    with open_container(path) as container:
        if not container.members:
            raise DataError(f"{path} is empty: use {SUPPORTED}")
        # torch.save writes a zip file that contains a pickle.
        if any(member.name.endswith(("data.pkl", ".pt", ".pth", ".pkl")) for member in container.members):
            raise DataError(f"{path} {PICKLE}")
        faces, form, notes = _read(container, path)
        dataset = "sample" if container.comment == SAMPLE_COMMENT else _dataset(faces)
    packed = "" if container.kind == "file" else f" in a {container.kind}"
    return RawData(faces, form + packed, dataset, (*notes, *_split_notes(faces)))


def single_file(path: Path) -> Path:
    """Return the only visible file of a folder, such as data/; otherwise return `path` itself."""
    if not path.exists():
        raise DataError(f"{path} does not exist: pass the path of {SUPPORTED}")
    if not path.is_dir():
        return path
    visible = [child for child in path.iterdir() if not child.name.startswith(".")]
    return visible[0] if len(visible) == 1 and visible[0].is_file() else path


def _read(container: Container, path: Path) -> tuple[Faces, str, tuple[str, ...]]:
    """Read faces, format and notes. The largest member determines the format, except in folders of images."""
    largest = max(container.members, key=lambda member: member.size)
    where = str(path) if container.kind == "file" else f"{path}: {largest.name}"
    with largest.open() as stream:
        head = stream.read(4096)
    if csv_reader.is_table(head):
        return _read_table(largest, where)
    if head.startswith(b"PAR1"):
        return _read_parquet(container, path)
    # This also reads images outside class folders, which gives an error message with the name of the image.
    if container.kind != "file" and (image_reader.is_image(head) or any(map(_in_class_folder, container.members))):
        return _read_folders(container, path)
    raise DataError(_unsupported(where, head))


def _read_table(member: Member, where: str) -> tuple[Faces, str, tuple[str, ...]]:
    with member.open() as stream:
        table = csv_reader.read_table(stream, where)
    return table.faces, f"CSV table {','.join(table.columns)}", _md5_notes(table.md5, table.faces)


def _read_parquet(container: Container, path: Path) -> tuple[Faces, str, tuple[str, ...]]:
    members = [member for member in container.members if _starts_with(member, b"PAR1")]
    faces, layout = image_reader.from_parquet(members, str(path))
    return faces, f"Hugging Face parquet with {layout}", ()


def _read_folders(container: Container, path: Path) -> tuple[Faces, str, tuple[str, ...]]:
    faces, layout = image_reader.from_folders(container.members, str(path))
    md5 = "" if container.kind == "folder" else _md5(path)
    return faces, f"images as {layout}", _md5_notes(md5, faces) if md5 in KNOWN_MD5 else ()


def _in_class_folder(member: Member) -> bool:
    folders = member.name.lower().split("/")[:-1]
    return bool(folders) and folders[-1] in image_reader.LABEL_OF_NAME


def _starts_with(member: Member, magic: bytes) -> bool:
    with member.open() as stream:
        return stream.read(len(magic)) == magic


def _unsupported(where: str, head: bytes) -> str:
    """The error message for a file that starts with these bytes."""
    for magic, problem in UNSUPPORTED.items():
        if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(magic):
            return f"{where} {problem}"
    if image_reader.is_image(head):
        return f"{where} is a single image, not a data set: use folders of images named after emotions"
    kind = "text" if head.isascii() and b"\0" not in head else "a file"
    return f"{where} is {kind} in an unknown format: use {SUPPORTED}"


def _md5(path: Path) -> str:
    md5 = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        block: Callable[[], bytes] = lambda: stream.read(1 << 20)  # noqa: E731
        for content in iter(block, b""):
            md5.update(content)
    return md5.hexdigest()


def _counts(faces: Faces) -> np.ndarray:
    """Rows per split and emotion, int (3,7)."""
    counts = np.zeros((len(SPLITS), len(EMOTIONS)), int)
    known = faces.splits != NO_SPLIT
    np.add.at(counts, (faces.splits[known], faces.labels[known]), 1)
    return counts


def _dataset(faces: Faces) -> str:
    """The name of the data set. Models of the same name are compared, so other val rows must give another name."""
    counts = _counts(faces)
    held_out = counts[VAL] + counts[TEST]
    merged = not counts[VAL].any() or not counts[TEST].any()
    same_held_out = merged and np.array_equal(held_out, OFFICIAL[VAL] + OFFICIAL[TEST])
    if np.array_equal(counts, OFFICIAL):
        return "fer2013"
    if np.array_equal(counts[TRAIN], OFFICIAL[TRAIN]) and same_held_out:
        return "fer2013-merged"
    return f"custom-{digest(faces)[:8]}"


def _md5_notes(md5: str, faces: Faces) -> tuple[str, ...]:
    if md5 in KNOWN_MD5:
        return (f"the MD5 {md5} is that of {KNOWN_MD5[md5]}",)
    if len(faces) == OFFICIAL.sum():
        return (f"the row count is the official one but the MD5 {md5} is unknown: the file was rewritten",)
    return (f"the data set has {len(faces):,} rows; the complete fer2013.csv has {OFFICIAL.sum():,}",)


def _split_notes(faces: Faces) -> tuple[str, ...]:
    present = set(np.unique(faces.splits).tolist())
    if NO_SPLIT in present or present == {TRAIN}:
        return ("the official split cannot be recovered: rows will be split by a hash of their pixels",)
    if TRAIN in present and len(present) == 2:
        return ("val and test are merged: the held-out rows will be split in half by a hash of their pixels",)
    return ()
