"""Read faces from image files in class folders, or from parquet files."""

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from emotion_detection.arrays import Gray
from emotion_detection.data.archives import Member
from emotion_detection.data.dataset import NO_SPLIT, Faces
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE, SPLITS
from emotion_detection.errors import DataError

# Names that copies of the data set use for the seven classes.
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
# A face has about 2,000 bytes. The limit keeps out large images.
MAX_IMAGE_BYTES = 1 << 16
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
# The last bytes of a complete file by its first bytes. OpenCV fills the missing part of a truncated file with gray.
END_MARKERS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND\xaeB`\x82"}


@dataclass(frozen=True)
class EncodedFace:
    """An image before decoding. `where` identifies it in error messages; split is an index or NO_SPLIT."""

    where: str
    split: int
    label: int
    content: bytes


def is_image(head: bytes) -> bool:
    return head.startswith(tuple(END_MARKERS))


def decode_faces(encoded: Iterable[EncodedFace], total: int) -> Faces:
    """Decode images in the given order. Raise DataError for the first one that is not a 48x48 image."""
    images, labels, splits = bytearray(), bytearray(), bytearray()
    for face in tqdm(encoded, total=total, unit=" faces", disable=None):
        images += _decode(face).tobytes()
        labels.append(face.label)
        splits.append(face.split)
    array = np.frombuffer(images, np.uint8).reshape(len(labels), IMAGE_SIZE, IMAGE_SIZE)
    faces = (array, np.frombuffer(labels, np.uint8), np.frombuffer(splits, np.uint8))
    return Faces(*faces, np.zeros(len(labels), bool))


def _decode(face: EncodedFace) -> Gray:
    end = next((end for start, end in END_MARKERS.items() if face.content.startswith(start)), None)
    if end is None:
        raise DataError(f"{face.where} is not a JPEG or PNG image: remove it or download it again")
    if end not in face.content[-1024:]:  # some programs append data after the end
        raise DataError(f"{face.where} is a truncated image: download it again")
    try:
        image = cv2.imdecode(np.frombuffer(face.content, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:  # the image claims more pixels than OpenCV allows
        image = None
    if image is None:
        raise DataError(f"{face.where} is a damaged image: download it again")
    if image.shape != (IMAGE_SIZE, IMAGE_SIZE):
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise DataError(
            f"{face.where} has {size} instead of {IMAGE_SIZE}x{IMAGE_SIZE} pixels: crop and resize the face"
        )
    return image


def from_folders(members: Sequence[Member], source: str) -> tuple[Faces, str]:
    """Read .../<emotion>/<image> files. Return the faces in the order of their names, and the layout."""
    located = [(member, *_locate(member.name, source)) for member in members if _is_face(member.name)]
    encoded = (
        EncodedFace(f"{source}: {member.name}", split, label, member.read(MAX_IMAGE_BYTES))
        for member, split, label in located
    )
    layout = "<emotion>/<image>"
    if all(_usage(member.name) is not None for member, _, _ in located):
        layout = "train|test/<emotion>/<Usage>_<number>"
    elif all(split != NO_SPLIT for _, split, _ in located):
        layout = "<split>/<emotion>/<image>"
    by_name = sorted(range(len(located)), key=lambda row: located[row][0].name)
    return decode_faces(encoded, len(located))[np.array(by_name, np.intp)], layout


def _is_face(name: str) -> bool:
    """Whether a file should be a face, by its suffix or its folder. A README file outside the folders is not."""
    *folders, file = name.lower().split("/")
    return file.endswith(IMAGE_SUFFIXES) or (bool(folders) and folders[-1] in LABEL_OF_NAME)


def _locate(name: str, source: str) -> tuple[int, int]:
    """Return the split and label according to the names of an image and its folders."""
    *folders, _ = name.lower().split("/")
    if not folders or folders[-1] not in LABEL_OF_NAME:
        known = ", ".join(EMOTIONS)
        raise DataError(
            f"{source}: {name} is not in a folder named after an emotion: rename its folder to one of {known}"
        )
    usage = _usage(name)
    return split_of(folders[:-1]) if usage is None else usage, LABEL_OF_NAME[folders[-1]]


def _usage(name: str) -> int | None:
    """The official split, which the file names in Kaggle's archive start with; None for other names."""
    match = USAGE_PREFIX.match(name.lower().rsplit("/", 1)[-1])
    return SPLIT_OF_NAME[match[1]] if match else None


def split_of(words: Iterable[str]) -> int:
    """Return the split named by the last word that is the name of a split, or NO_SPLIT."""
    splits = [SPLIT_OF_NAME[word] for word in words if word in SPLIT_OF_NAME]
    return splits[-1] if splits else NO_SPLIT


def from_parquet(members: Sequence[Member], source: str) -> tuple[Faces, str]:
    """Read Hugging Face parquet files. Return the faces in the order of the rows, and the layout."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for member in members:
        where = f"{source}: {member.name}"
        try:
            table = pq.ParquetFile(io.BytesIO(member.read()))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{where} is a damaged parquet file: download it again") from error
        tables.append((where, table, split_of(re.split("[^a-z]+", member.name.lower()))))
    tables.sort(key=lambda table: table[2])  # train, val, test, as in fer2013.csv; the sort is stable
    encoded = (face for where, table, split in tables for face in _rows(table, where, split))
    faces = decode_faces(encoded, sum(table.metadata.num_rows for _, table, _ in tables))
    return faces, " and ".join(_column_names(tables[0][1], tables[0][0]))


def _rows(table: Any, where: str, split: int) -> Iterator[EncodedFace]:
    image_column, label_column = _column_names(table, where)
    label_of = _label_mapping(table, label_column, where)
    for row, (cell, label) in enumerate(_cells(table, where, (image_column, label_column)), 1):
        content = cell["bytes"] if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise DataError(f"{where}: row {row} contains no image: download the file again")
        if label not in label_of:
            raise DataError(f"{where}: row {row} has label {label!r} instead of 0 to 6: download the file again")
        yield EncodedFace(f"{where}: row {row}", split, label_of[label], content)


def _cells(table: Any, where: str, names: tuple[str, str]) -> Iterator[tuple[Any, Any]]:
    import pyarrow as pa

    batches = table.iter_batches(1024, columns=list(names))
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{where} is a damaged parquet file: download it again") from error
        if batch is None:
            return
        yield from zip(*(batch[name].to_pylist() for name in names), strict=True)


def _column_names(table: Any, where: str) -> tuple[str, str]:
    """The names of the image and label columns."""
    names = table.schema_arrow.names
    for pair in (("image", "label"), ("img_bytes", "labels")):
        if set(pair) <= set(names):
            return pair
    raise DataError(f"{where} has the columns {', '.join(names)}: use a file with the columns image and label")


def _label_mapping(table: Any, column: str, where: str) -> dict[int, int]:
    """Labels by the numbers in the file: by its class names if it contains them, else in the order of fer2013.csv."""
    metadata = json.loads((table.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get(column, {}).get("names") or EMOTIONS
    unknown = [name for name in names if name.lower() not in LABEL_OF_NAME]
    if unknown:
        raise DataError(f"{where} has a class named {unknown[0]!r}: use the classes {', '.join(EMOTIONS)}")
    return {number: LABEL_OF_NAME[name.lower()] for number, name in enumerate(names)}
