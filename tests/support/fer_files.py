"""Write a few random faces in every format that copies of FER-2013 have."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from emotion_detection.data.dataset import Faces
from emotion_detection.emotions import EMOTIONS

USAGES = ("Training", "PublicTest", "PrivateTest")
ORIGINAL_FOLDERS = {
    "angry": "angry",
    "disgust": "disgusted",
    "fear": "fearful",
    "happy": "happy",
    "sad": "sad",
    "surprise": "surprised",
    "neutral": "neutral",
}


def random_faces(rows: int = 63, seed: int = 0) -> Faces:
    """Random faces of all classes, sorted by split as in fer2013.csv; three fifths are train."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (rows, 48, 48), np.uint8)
    labels = (np.arange(rows) % 7).astype(np.uint8)
    splits = np.sort(np.arange(rows) % 5 // 3 + (np.arange(rows) % 5 == 4)).astype(np.uint8)
    return Faces(images, labels, splits, np.zeros(rows, bool))


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


def csv_table(faces: Faces, header: str = "emotion,pixels,Usage") -> str:
    """A CSV table with the columns in the order of the header."""
    lines = [header]
    for image, label, split in zip(faces.images, faces.labels, faces.splits, strict=True):
        pixels = " ".join(map(str, image.ravel().tolist()))
        cells = {"emotion": str(label), "pixels": pixels, "usage": USAGES[split % 3]}
        lines.append(",".join(cells[name.strip().lower()] for name in header.split(",")))
    return "\n".join(lines) + "\n"


def kaggle_members(faces: Faces, encode: Callable[[np.ndarray], bytes] = png) -> dict[str, bytes]:
    """train|test/<emotion>/<Usage>_N.jpg. Classes share base names, as in the real archive."""
    return {
        f"{'test' if split else 'train'}/{EMOTIONS[label]}/{USAGES[split]}_{row // 7}.jpg": encode(image)
        for row, (image, label, split) in enumerate(zip(faces.images, faces.labels, faces.splits, strict=True))
    }


def original_members(faces: Faces, held_out: str = "test") -> dict[str, bytes]:
    """data/{train,test}/{angry,disgusted,...}/imN.png, as in the original project."""
    return {
        f"data/{held_out if split else 'train'}/{ORIGINAL_FOLDERS[EMOTIONS[label]]}/im{row}.png": png(image)
        for row, (image, label, split) in enumerate(zip(faces.images, faces.labels, faces.splits, strict=True))
    }


def class_members(faces: Faces) -> dict[str, bytes]:
    """<emotion>/N.png, without splits."""
    pairs = enumerate(zip(faces.images, faces.labels, strict=True))
    return {f"{EMOTIONS[label]}/{row}.png": png(image) for row, (image, label) in pairs}


def write_file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_folder(folder: Path, members: dict[str, bytes]) -> Path:
    for name, content in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zip(path: Path, members: dict[str, bytes], comment: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = comment
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def parquet(faces: Faces, names: Iterable[str] | None = None, *, old: bool = False) -> bytes:
    """A Hugging Face parquet file with image and label, or with img_bytes and labels if `old`.

    `names` are class names for its metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    encoded = [png(image) for image in faces.images]
    cells = encoded if old else [{"bytes": content, "path": None} for content in encoded]
    labels = faces.labels.tolist()
    image_column, label_column = ("img_bytes", "labels") if old else ("image", "label")
    table = pa.table({image_column: cells, label_column: labels})
    if names is not None:
        features = {label_column: {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def huggingface_members(faces: Faces) -> dict[str, bytes]:
    """data/{train,valid,test}-00000-of-00001.parquet, as in AutumnQiu/fer2013."""
    return {
        f"data/{file}-00000-of-00001.parquet": parquet(faces.of(split), EMOTIONS)
        for file, split in (("train", "train"), ("valid", "val"), ("test", "test"))
    }
