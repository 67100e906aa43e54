"""How two sources of faces differ: labels, pixels, splits, and faces that only one of them has."""

import hashlib
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from emotion_detection.data.archives import Container, open_container
from emotion_detection.data.formats import RawData, read_raw, single_file
from emotion_detection.data.splits import image_hashes
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import DataError

MOST_NAMED = 3


@dataclass(frozen=True)
class _Face:
    """A face of a source. The name is that of its file, or its row in a table."""

    pixels: int  # their hash
    split: int
    label: int
    name: str


def describe_changes(before: Path, after: Path) -> str:
    """What has changed from one source to another, in words; "" if all faces are the same or one cannot be read.

    before, after: files or folders of any supported format. Of archives of pictures, only those that differ are
    decoded, so that FER-2013 takes seconds.
    """
    try:
        with _different(before, after) as sources:
            tables = [_faces(read_raw(source)) if source else [] for source in sources]
    except DataError:
        return ""
    return _describe(*tables)


@contextmanager
def _different(before: Path, after: Path) -> Iterator[tuple[Path | None, Path | None]]:
    """Two folders with the members that differ, or None if one has none; tables are read completely."""
    paths = [single_file(before), single_file(after)]
    with open_container(paths[0]) as old, open_container(paths[1]) as new, tempfile.TemporaryDirectory() as folder:
        if "file" in (old.kind, new.kind):
            yield before, after
            return
        by_crc = old.kind == new.kind == "zip"
        pairs = zip((old, new), paths, strict=True)
        contents = [_checksums(path) if by_crc else _hashes(container) for container, path in pairs]
        common = contents[0].items() & contents[1].items()
        names = [{name for name, _ in found.items() - common} for found in contents]
        yield (_extract(old, names[0], Path(folder, "before")), _extract(new, names[1], Path(folder, "after")))


def _checksums(path: Path) -> dict[str, str]:
    """The checksum of each member of a zip by its name, which the archive contains."""
    with zipfile.ZipFile(path) as archive:
        return {one.filename: f"{one.CRC} {one.file_size}" for one in archive.infolist() if not one.is_dir()}


def _hashes(container: Container) -> dict[str, str]:
    """The hash of each member by its name."""
    return {member.name: hashlib.blake2b(member.read(), digest_size=16).hexdigest() for member in container.members}


def _extract(container: Container, names: set[str], folder: Path) -> Path | None:
    for member in container.members:
        if member.name in names:
            path = folder / PurePosixPath(member.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(member.read())
    return folder if names else None


def _faces(raw: RawData) -> list[_Face]:
    names = raw.files or [f"row {row:,}" for row in range(1, len(raw.faces) + 1)]
    rows = zip(image_hashes(raw.faces.images), raw.faces.splits, raw.faces.labels, names, strict=True)
    return [_Face(int(pixels), int(split), int(label), name) for pixels, split, label, name in rows]


def _describe(before: list[_Face], after: list[_Face]) -> str:
    """Match the faces that differ: first by their pixels, then by their names."""
    common = Counter((face.pixels, face.split, face.label) for face in before)
    common &= Counter((face.pixels, face.split, face.label) for face in after)
    gone, come = _without(before, common), _without(after, common)
    relabeled = _pairs(gone, come, lambda face: (face.pixels, face.split))
    moved = _pairs(gone, come, lambda face: face.pixels)
    redrawn = _pairs(gone, come, lambda face: (face.name, face.split))
    labels = [f"{new.name}: {EMOTIONS[old.label]} is now {EMOTIONS[new.label]}" for old, new in relabeled]
    found = (
        _count(labels, "label has changed", "labels have changed"),
        _count([new.name for _, new in redrawn], "face has other pixels", "faces have other pixels"),
        _count([new.name for _, new in moved], "face is in another split", "faces are in another split"),
        _count([face.name for face in gone], "face is missing", "faces are missing"),
        _count([face.name for face in come], "face is new", "faces are new"),
    )
    return ", ".join(one for one in found if one)


def _without(faces: list[_Face], common: Counter[tuple[int, int, int]]) -> list[_Face]:
    """The faces that are not among the common ones, each of which stands for one face."""
    left = common.copy()
    rest = []
    for face in faces:
        key = (face.pixels, face.split, face.label)
        left[key] -= 1
        if left[key] < 0:
            rest.append(face)
    return rest


def _pairs(gone: list[_Face], come: list[_Face], key: Callable[[_Face], object]) -> list[tuple[_Face, _Face]]:
    """Take the faces with the same key out of both lists, in pairs."""
    waiting: dict[object, list[_Face]] = {}
    for face in come:
        waiting.setdefault(key(face), []).append(face)
    pairs = [(face, waiting[key(face)].pop(0)) for face in gone if waiting.get(key(face))]
    taken = {id(face) for pair in pairs for face in pair}
    for faces in (gone, come):
        faces[:] = [face for face in faces if id(face) not in taken]
    return pairs


def _count(names: list[str], one: str, several: str) -> str:
    """A number of changes with the first names; "" for none."""
    if not names:
        return ""
    rest = ", ..." if len(names) > MOST_NAMED else ""
    return f"{len(names):,} {one if len(names) == 1 else several} ({', '.join(names[:MOST_NAMED])}{rest})"
