"""Read any supported copy of FER-2013. The format is detected from the content, not from the file name."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emotion_detection.data import csv_reader, image_reader
from emotion_detection.data.archives import Container, Member, open_container
from emotion_detection.data.dataset import NO_SPLIT, TEST, TRAIN, VAL, Faces, digest
from emotion_detection.data.parquet_reader import from_parquet
from emotion_detection.data.tables import Candidate, read_tables
from emotion_detection.decoding.images import HEAD_BYTES, SUFFIXES, is_picture
from emotion_detection.emotions import EMOTIONS, SAMPLE_COMMENT, SPLITS
from emotion_detection.errors import DataError, shorten

SUPPORTED = "fer2013.csv, icml_face_data.csv, Kaggle's archive.zip, folders named after emotions, or parquet files"

# The number of rows of each emotion, in the order of EMOTIONS, in the official train, val and test splits.
OFFICIAL = np.array(
    [
        [3995, 436, 4097, 7215, 4830, 3171, 4965],
        [467, 56, 496, 895, 653, 415, 607],
        [491, 55, 528, 879, 594, 416, 626],
    ]
)
VOTES_FOLDER = "votes"  # beside the source in data/; see data.votes
NEARLY = 0.02  # of the faces: fewer differences are named
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
UTF16 = "is text in UTF-16: save it as UTF-8, for example with `iconv -f UTF-16 -t UTF-8`"
SEPARATORS = "separates its columns with semicolons or tabs: save it with commas"
HEADERLESS = "has no header line: write emotion,pixels,Usage above its rows, or join the parts of the table"
HEADER_BYTES = 4096  # the start of a file, by which its format is recognized
MAX_NAMED = 5
UNSUPPORTED = {
    b"\xff\xfe": UTF16,
    b"\xfe\xff": UTF16,
    b"<!doctype html": WEB_PAGE,
    b"<html": WEB_PAGE,
    b"version https://git-lfs": "is a Git LFS pointer, not the data: run `git lfs pull` in its repository",
    b"\x80\x02": PICKLE,
    b"\x80\x03": PICKLE,
    b"\x80\x04": PICKLE,
    b"\x80\x05": PICKLE,
    b"bzh": "is a bzip2 file: unpack it and pass what it contains",
    b"\xfd7zxz": "is an xz file: unpack it and pass what it contains",
    b"\x28\xb5\x2f\xfd": "is a zstd file: unpack it and pass what it contains",
    b"rar!": "is a RAR archive: unpack it and pass the folder",
    b"7z\xbc\xaf": "is a 7z archive: unpack it and pass the folder",
    b"pk\x03\x04": NESTED,
    b"\x1f\x8b": NESTED,
}


@dataclass(frozen=True)
class RawData:
    """The faces of a source, a description of its format, the name of the data set, and notes for the user.

    `files` are the names of the image files in the order of the faces; none if the faces are rows of a table.
    `dataset` is "sample", "fer2013" (the official counts per split and emotion), "fer2013-merged" (the same, but with
    val and test merged) or "custom-" and the first 8 hex digits of the digest.
    """

    faces: Faces
    form: str
    dataset: str
    notes: tuple[str, ...]
    files: tuple[str, ...] = ()


def read_raw(path: Path) -> RawData:
    """Read a file or folder of any supported format. Raise DataError if it is unsupported or damaged."""
    path = single_file(path)
    with open_container(path) as container:
        if container.hidden and not container.members:
            name = shorten(container.hidden[0].name, 80)
            raise DataError(f"{path} contains only hidden files, such as {name}: remove the dot from its name")
        if not container.members:
            raise DataError(f"{path} is empty: use {SUPPORTED}")
        # torch.save writes a zip file that contains a pickle.
        if any(member.name.endswith(("data.pkl", ".pt", ".pth", ".pkl")) for member in container.members):
            raise DataError(f"{path} {PICKLE}")
        faces, form, notes, files = _read(container, path)
        dataset = "sample" if container.comment == SAMPLE_COMMENT else _dataset(faces)
    packed = "" if container.kind == "file" else f" in a {container.kind}"
    notes = (*notes, *_count_notes(faces, dataset), *_class_notes(faces), *_split_notes(faces))
    return RawData(faces, form + packed, dataset, notes, files)


def single_file(path: Path) -> Path:
    """Return the only visible file of a folder, such as data/; otherwise return `path` itself.

    The folder of votes is no part of the data set.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist: pass the path of {SUPPORTED}")
    if not path.is_dir():
        return path
    visible = [child for child in path.iterdir() if not child.name.startswith(".")]
    sources = [child for child in visible if child.name != VOTES_FOLDER or child.is_file()]
    return sources[0] if len(sources) == 1 and sources[0].is_file() else path


@dataclass(frozen=True)
class _Contents:
    """The members of a container by what they contain; `others` also has tables without images or labels."""

    tables: list[Candidate]
    parquet: list[Member]
    images: list[Member]
    others: list[Candidate]


def _read(container: Container, path: Path) -> tuple[Faces, str, tuple[str, ...], tuple[str, ...]]:
    """Read faces, format, notes and the names of the image files.

    If there are several formats, the one with most bytes is read.
    """
    contents = _sort(container)
    sizes = {
        "table": [table.member.size for table in contents.tables],
        "parquet": [member.size for member in contents.parquet],
        "image": [member.size for member in contents.images],
    }
    kind = max(sizes, key=lambda kind: (len(sizes[kind]) > 0, sum(sizes[kind])))
    if not sizes[kind]:
        raise DataError(_unknown(container, path))
    _check_parts(contents, kind, container, path)
    if kind == "table":
        faces, form, notes = _read_tables(contents.tables, container, path)
        read = {table.member.name for table in contents.tables}
    elif kind == "parquet":
        faces, form, notes = _read_parquet(contents.parquet, path)
        read = {member.name for member in contents.parquet}
    else:
        faces, form, notes = _read_folders(contents.images, container, path)
        read = {member.name for member in contents.images}
    files = tuple(sorted(read)) if kind == "image" else ()  # `from_folders` sorts the faces in the same way
    return faces, form, (*notes, *_skipped_notes(container, read)), files


def _sort(container: Container) -> _Contents:
    """Sort the members by their content. The content of images is checked when they are decoded."""
    contents = _Contents([], [], [], [])
    for member in container.members:
        is_archive = container.kind not in ("file", "gzip")
        if is_archive and member.name.lower().endswith(SUFFIXES):
            contents.images.append(member)
            continue
        head = _head(member)
        if csv_reader.has_labels(head):
            contents.tables.append(Candidate(member, head))
        elif head.startswith(b"PAR1"):
            contents.parquet.append(member)
        elif is_archive and (image_reader.is_in_class_folder(member.name) or is_picture(head[:HEAD_BYTES])):
            contents.images.append(member)
        else:
            contents.others.append(Candidate(member, head))
    return contents


def _head(member: Member) -> bytes:
    with member.open() as stream:
        return stream.read(HEADER_BYTES)


def _where(member: Member, container: Container, path: Path) -> str:
    return str(path) if container.kind == "file" else f"{path}: {member.name}"


def _unknown(container: Container, path: Path) -> str:
    """The error message for a source without anything that can be read. The largest file is most likely the data."""
    largest = max(container.members, key=lambda member: member.size)
    where, head = _where(largest, container, path), _head(largest)
    if csv_reader.is_table(head):
        with largest.open() as stream:
            csv_reader.read_table(stream, where)  # raises DataError, because the images or the labels are missing
    return _unsupported(where, head)


def _read_tables(tables: Sequence[Candidate], container: Container, path: Path) -> tuple[Faces, str, tuple[str, ...]]:
    faces, used, notes = read_tables(tables, container, path)
    columns = shorten(",".join(used[0].columns), 80)
    form = f"CSV table {columns}" if len(used) == 1 else f"{len(used)} CSV tables {columns}"
    if len(used) == 1:
        return faces, form, (*notes, *_md5_notes(used[0].md5, faces))
    known = [note for table in used if table.md5 in KNOWN_MD5 for note in _md5_notes(table.md5, table.faces)]
    return faces, form, (*notes, *known)


def _read_parquet(members: Sequence[Member], path: Path) -> tuple[Faces, str, tuple[str, ...]]:
    faces, layout = from_parquet(members, str(path))
    return faces, f"Hugging Face parquet with {layout}", ()


def _read_folders(images: Sequence[Member], container: Container, path: Path) -> tuple[Faces, str, tuple[str, ...]]:
    faces, layout = image_reader.from_folders(images, str(path))
    md5 = "" if container.kind == "folder" else _md5(path)
    return faces, f"images as {layout}", _md5_notes(md5, faces) if md5 in KNOWN_MD5 else ()


def _skipped_notes(container: Container, read: set[str]) -> tuple[str, ...]:
    """What was not read: other files, and hidden files that contain data."""
    others = [member for member in container.members if member.name not in read]
    hidden = [member for member in container.hidden if _is_data(_head(member))]
    skipped = [shorten(member.name, 60) for member in (*others, *hidden)]
    if not skipped:
        return ()
    names = ", ".join(skipped[:MAX_NAMED]) + (f" and {len(skipped) - MAX_NAMED:,} more" * (len(skipped) > MAX_NAMED))
    return (f"{len(skipped):,} other file{'s were' if len(skipped) > 1 else ' was'} not read: {names}",)


def _check_parts(contents: _Contents, kind: str, container: Container, path: Path) -> None:
    """Raise DataError for a part of a table without a header, and for a parquet file that is damaged at its start."""
    for other in contents.others:
        is_part = kind == "table" and csv_reader.is_headless(other.head)
        if is_part or (kind == "parquet" and other.member.name.lower().endswith(".parquet")):
            raise DataError(_unsupported(_where(other.member, container, path), other.head))


def _is_data(head: bytes) -> bool:
    return csv_reader.is_table(head) or head.startswith(b"PAR1") or is_picture(head[:HEAD_BYTES])


def _unsupported(where: str, head: bytes) -> str:
    """The error message for a file that starts with these bytes."""
    for magic, problem in UNSUPPORTED.items():
        if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(magic):
            return f"{where} {problem}"
    if csv_reader.is_headless(head):
        return f"{where} {HEADERLESS}"
    if csv_reader.is_table(head.replace(b"\0", b"")):
        return f"{where} {UTF16}"
    if csv_reader.is_table(head.translate(bytes.maketrans(b";\t", b",,"))):
        return f"{where} {SEPARATORS}"
    if where.lower().endswith(".parquet"):
        return f"{where} is a damaged parquet file: download it again"
    if is_picture(head[:HEAD_BYTES]):
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


def _count_notes(faces: Faces, dataset: str) -> tuple[str, ...]:
    """How many faces the data set has less or more than FER-2013; which ones if it is nearly FER-2013."""
    if dataset in ("sample", "fer2013", "fer2013-merged"):
        return ()
    counts = _counts(faces)
    unsplit = np.bincount(faces.labels[faces.splits == NO_SPLIT], minlength=len(EMOTIONS))
    train, held_out = OFFICIAL[TRAIN], OFFICIAL[VAL] + OFFICIAL[TEST]
    layouts: list[tuple[tuple[str, ...], np.ndarray, np.ndarray]] = [
        (SPLITS, counts, OFFICIAL),
        (
            ("train", "the held-out part"),
            np.stack([counts[TRAIN], counts[VAL] + counts[TEST]]),
            np.stack([train, held_out]),
        ),
        (("all",), (counts.sum(axis=0) + unsplit)[None], (train + held_out)[None]),
        (("train",), (counts[TRAIN] + unsplit)[None], train[None]),
    ]
    for names, present, official in layouts:
        difference = official - present
        if len(faces) == present.sum() and np.abs(difference).sum() <= NEARLY * official.sum():
            return (_difference_note(names, difference, int(present.sum()), int(official.sum())),)
    return (f"the data set has {len(faces):,} faces; FER-2013 has {OFFICIAL.sum():,}",)


def _difference_note(names: Sequence[str], difference: np.ndarray, present: int, official: int) -> str:
    """For example "35,880 of FER-2013's 35,887 faces: 7 are missing in train/happy"."""
    part = " training" if tuple(names) == ("train",) else ""
    cells = [
        f"{abs(count):,} {'are missing' if count > 0 else 'too many'} in {names[row]}/{EMOTIONS[label]}"
        for (row, label), count in np.ndenumerate(difference)
        if count
    ]
    if not cells:
        return f"the numbers of faces are those of FER-2013's {official:,}{part} faces"
    rest = f" and {len(cells) - MAX_NAMED} more differences" if len(cells) > MAX_NAMED else ""
    return f"{present:,} of FER-2013's {official:,}{part} faces: {', '.join(cells[:MAX_NAMED])}{rest}"


def _md5_notes(md5: str, faces: Faces) -> tuple[str, ...]:
    if md5 in KNOWN_MD5:
        return (f"the MD5 {md5} is that of {KNOWN_MD5[md5]}",)
    if len(faces) == OFFICIAL.sum():
        return (f"the row count is the official one but the MD5 {md5} is unknown: the file was rewritten",)
    return ()


def _class_notes(faces: Faces) -> tuple[str, ...]:
    missing = [emotion for label, emotion in enumerate(EMOTIONS) if not (faces.labels == label).any()]
    return (f"no face is labeled {' or '.join(missing)}",) if missing else ()


def _split_notes(faces: Faces) -> tuple[str, ...]:
    present = set(np.unique(faces.splits).tolist())
    if NO_SPLIT in present and len(present) > 1:
        count = int((faces.splits == NO_SPLIT).sum())
        return (f"{count:,} faces are in no folder or file named after a split: they will be split by their pixels",)
    if NO_SPLIT in present or present == {TRAIN}:
        return ("the official split cannot be recovered: rows will be split by a hash of their pixels",)
    if TRAIN in present and len(present) == 2:
        return ("val and test are merged: the held-out rows will be split in half by a hash of their pixels",)
    return ()
