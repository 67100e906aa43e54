"""Read faces from image files in class folders, or from parquet files."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from emotion_detection.arrays import Gray
from emotion_detection.data.archives import Member
from emotion_detection.data.dataset import NO_SPLIT, Faces
from emotion_detection.decoding.images import decode_gray
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE, SPLITS
from emotion_detection.errors import DataError, MediaError

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


@dataclass(frozen=True)
class EncodedFace:
    """An image before decoding. `where` identifies it in error messages; split is an index or NO_SPLIT."""

    where: str
    split: int
    label: int
    content: bytes


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
    try:
        return decode_gray(face.content, face.where, side=IMAGE_SIZE)
    except MediaError as error:
        raise DataError(str(error)) from error


def from_folders(members: Sequence[Member], source: str) -> tuple[Faces, str]:
    """Read .../<emotion>/<image> files. Return the faces in the order of their names, and the layout.

    Raises DataError if a file is not in a folder named after an emotion, or is not an image.
    """
    located = [(member, *_locate(member.name, source)) for member in members]
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


def is_in_class_folder(name: str) -> bool:
    """Whether the folder of a file is named after an emotion."""
    *folders, _ = name.lower().split("/")
    return bool(folders) and folders[-1] in LABEL_OF_NAME


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
