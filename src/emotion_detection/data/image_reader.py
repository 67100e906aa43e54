"""Encoded pictures in class folders or parquet files: names tell split and label, bytes the face."""

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emotion_detection.data.archives import Member
from emotion_detection.data.dataset import NO_SPLIT, Faces
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE, SPLITS
from emotion_detection.errors import InputError

# Copies of the data set name the same seven classes in these ways.
SYNONYMS = {
    "angry": ("angry", "anger"),
    "disgust": ("disgust", "disgusted"),
    "fear": ("fear", "fearful"),
    "happy": ("happy", "happiness"),
    "sad": ("sad", "sadness"),
    "surprise": ("surprise", "surprised"),
    "neutral": ("neutral",),
}
LABEL_OF_NAME = {name: EMOTIONS.index(emotion) for emotion, names in SYNONYMS.items() for name in names}
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "publictest"),
    "test": ("test", "testing", "privatetest"),
}
SPLIT_OF_NAME = {name: SPLITS.index(split) for split, names in SPLIT_NAMES.items() for name in names}
USAGE_PREFIX = re.compile("(training|publictest|privatetest)_")
PICTURE_BYTES = 1 << 16  # a face has some 2,000; what unpacks to gigabytes of pixels does not fit in here
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
# The bytes that end a whole file: without them OpenCV fills the missing part with gray and says nothing.
ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND\xaeB`\x82"}


@dataclass(frozen=True)
class Encoded:
    """One picture before decoding; `where` names it in errors, split is an index or NO_SPLIT."""

    where: str
    split: int
    label: int
    content: bytes


def is_picture(head: bytes) -> bool:
    return head.startswith(tuple(ENDS))


def decode_all(pictures: Iterable[Encoded], total: int) -> Faces:
    """Decode in the given order; InputError names the first picture that is no 48x48 face."""
    images, labels, splits = bytearray(), bytearray(), bytearray()
    for picture in tqdm(pictures, total=total, unit=" faces", disable=None):
        images += _decode(picture).tobytes()
        labels.append(picture.label)
        splits.append(picture.split)
    array = np.frombuffer(images, np.uint8).reshape(len(labels), IMAGE_SIZE, IMAGE_SIZE)
    faces = (array, np.frombuffer(labels, np.uint8), np.frombuffer(splits, np.uint8))
    return Faces(*faces, np.zeros(len(labels), bool))


def _decode(picture: Encoded) -> NDArray[np.uint8]:
    end = next((end for start, end in ENDS.items() if picture.content.startswith(start)), None)
    if end is None:
        raise InputError(f"{picture.where} is neither a JPEG nor a PNG picture: remove it or get it again")
    if end not in picture.content[-1024:]:  # some writers append a little of their own
        raise InputError(f"{picture.where} is a picture that is cut short: get it again")
    try:
        image = cv2.imdecode(np.frombuffer(picture.content, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:  # sizes beyond all bounds
        image = None
    if image is None:
        raise InputError(f"{picture.where} is a damaged picture: get it again")
    if image.shape != (IMAGE_SIZE, IMAGE_SIZE):
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise InputError(
            f"{picture.where} is {size} and not {IMAGE_SIZE}x{IMAGE_SIZE} pixels: cut out and resize the face"
        )
    return image


def from_folders(members: Sequence[Member], source: str) -> tuple[Faces, str]:
    """Faces of .../<emotion>/<picture>, in the order of their names, and the layout in words."""
    located = [(member, *_locate(member.name, source)) for member in members if _belongs(member.name)]
    encoded = (
        Encoded(f"{source}: {member.name}", split, label, member.read(PICTURE_BYTES))
        for member, split, label in located
    )
    layout = "<emotion>/<picture>"
    if all(_usage(member.name) is not None for member, _, _ in located):
        layout = "train|test/<emotion>/<Usage>_<number>"
    elif all(split != NO_SPLIT for _, split, _ in located):
        layout = "<split>/<emotion>/<picture>"
    by_name = sorted(range(len(located)), key=lambda row: located[row][0].name)
    return decode_all(encoded, len(located))[np.array(by_name, np.intp)], layout


def _belongs(name: str) -> bool:
    """Whether a file is a face or claims to be one; a readme or a licence beside the folders does not."""
    *folders, file = name.lower().split("/")
    return file.endswith(PICTURE_SUFFIXES) or (bool(folders) and folders[-1] in LABEL_OF_NAME)


def _locate(name: str, source: str) -> tuple[int, int]:
    """Split and label by the names of a picture and its folders."""
    *folders, _ = name.lower().split("/")
    if not folders or folders[-1] not in LABEL_OF_NAME:
        known = ", ".join(EMOTIONS)
        raise InputError(
            f"{source}: {name} is not in a folder named after an emotion: rename its folder to one of {known}"
        )
    usage = _usage(name)
    return split_of(folders[:-1]) if usage is None else usage, LABEL_OF_NAME[folders[-1]]


def _usage(name: str) -> int | None:
    """The official split, which Kaggle's archive keeps in the file's own name."""
    found = USAGE_PREFIX.match(name.lower().rsplit("/", 1)[-1])
    return SPLIT_OF_NAME[found[1]] if found else None


def split_of(words: Iterable[str]) -> int:
    """The split that a folder or file is named after, the innermost first; NO_SPLIT if none is."""
    found = [SPLIT_OF_NAME[word] for word in words if word in SPLIT_OF_NAME]
    return found[-1] if found else NO_SPLIT


def from_parquet(members: Sequence[Member], source: str) -> tuple[Faces, str]:
    """Faces of Hugging Face parquet files, row by row, and their layout in words."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for member in members:
        where = f"{source}: {member.name}"
        try:
            table = pq.ParquetFile(io.BytesIO(member.read()))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{where} is a damaged parquet file: get it again") from error
        tables.append((where, table, split_of(re.split("[^a-z]+", member.name.lower()))))
    tables.sort(key=lambda table: table[2])  # train, val, test: the order of fer2013.csv; the sort is stable
    encoded = (picture for where, table, split in tables for picture in _rows(table, where, split))
    faces = decode_all(encoded, sum(table.metadata.num_rows for _, table, _ in tables))
    return faces, " and ".join(_picture_columns(tables[0][1], tables[0][0]))


def _rows(table: Any, where: str, split: int) -> Iterator[Encoded]:
    pictures, labels = _picture_columns(table, where)
    label_of = _labels(table, labels, where)
    for row, (cell, label) in enumerate(_cells(table, where, (pictures, labels)), 1):
        content = cell["bytes"] if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise InputError(f"{where}: row {row} holds no picture: get the file again")
        if label not in label_of:
            raise InputError(f"{where}: row {row} has label {label!r}, which is not one of 0 to 6: get it again")
        yield Encoded(f"{where}: row {row}", split, label_of[label], content)


def _cells(table: Any, where: str, names: tuple[str, str]) -> Iterator[tuple[Any, Any]]:
    import pyarrow as pa

    batches = table.iter_batches(1024, columns=list(names))
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{where} is a damaged parquet file: get it again") from error
        if batch is None:
            return
        yield from zip(*(batch[name].to_pylist() for name in names), strict=True)


def _picture_columns(table: Any, where: str) -> tuple[str, str]:
    names = table.schema_arrow.names
    for pair in (("image", "label"), ("img_bytes", "labels")):
        if set(pair) <= set(names):
            return pair
    raise InputError(f"{where} has the columns {', '.join(names)}: a parquet file needs image and label")


def _labels(table: Any, column: str, where: str) -> dict[int, int]:
    """What the numbers mean: by the class names the file carries, else in the order of fer2013.csv."""
    metadata = json.loads((table.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get(column, {}).get("names") or EMOTIONS
    unknown = [name for name in names if name.lower() not in LABEL_OF_NAME]
    if unknown:
        raise InputError(f"{where} has a class named {unknown[0]!r}: the classes are {', '.join(EMOTIONS)}")
    return {number: LABEL_OF_NAME[name.lower()] for number, name in enumerate(names)}
