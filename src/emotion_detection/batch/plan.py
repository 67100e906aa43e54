"""Divide a source into parts: fixed sets of pictures, each of which is read at once and gives one parquet file.

The plan is a file with a line of JSON for each part. So it needs no memory, however many pictures there are, and a part
means the same pictures after a restart.
"""

import json
import os
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from emotion_detection.batch.parquet_shards import open_parquet
from emotion_detection.batch.storage import Storage
from emotion_detection.data.archives import READ_ERRORS
from emotion_detection.data.tar_files import list_files
from emotion_detection.data.zip_files import UTF8, open_zip
from emotion_detection.decoding.images import HEAD_BYTES, SUFFIXES, is_picture
from emotion_detection.errors import DataError, UsageError

SHARDS = (".zip", ".tar", ".tar.gz", ".tgz", ".parquet")
MAX_SHARD_BYTES = 1 << 36  # unpacked
MAX_DIRECTORY_BYTES = 1 << 26  # of a zip file: about half a million files
BRACES = re.compile(r"\{(?P<first>\d+)\.\.(?P<last>\d+)\}")  # of WebDataset: faces-{000..099}.tar
ENTRY = struct.Struct("<42xL")  # of the directory of a zip file, before its name: the position of the file
AFTER_ENTRIES = (b"PK\5\6", b"PK\6\6")  # what follows the last entry: the end record, or that of large files
TOO_MANY = "lists more files than can be read: divide it into smaller archives"
MAX_BRACES = 1_000_000
WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Part:
    """Pictures that are read together: files, or the files or rows [start, stop) of a shard.

    Names are relative to the source. A `stop` of None means the end of the shard. `count` is the number of files or
    rows; it is None for a shard that cannot be counted without reading it. `offset` is where a shard describes the
    first file, so that the descriptions before it are not read again: the position of its header in a tar file, or of
    its entry in the directory of a zip file, in which the entries of the part end before `end`. 0 is unknown.
    """

    pictures: tuple[str, ...] = ()
    shard: str = ""
    start: int = 0
    stop: int | None = None
    count: int | None = None
    offset: int = 0
    end: int = 0

    def dump(self) -> str:
        return json.dumps({key: value for key, value in asdict(self).items() if value})

    @classmethod
    def parse(cls, line: str) -> "Part":
        fields = json.loads(line)
        return cls(**(fields | {"pictures": tuple(fields.get("pictures", ()))}))


def source_folder(source: Storage) -> Storage:
    """The folder that the names in a plan are relative to: the source itself, or the folder of its files."""
    is_file = source.path.lower().endswith((*SHARDS, *SUFFIXES)) and not source.is_local
    if not is_file and source.is_folder():  # over HTTP, this would download a large file
        return source
    return source.at(WILDCARD.split(BRACES.split(source.path)[0])[0].rpartition("/")[0])


def source_files(source: Storage, folder: Storage) -> list[str] | None:
    """The names of the files that a source stands for; None means all files in the folder.

    A source is a folder, a file, or a pattern: faces-{000..099}.tar or photos/*.zip. Raises UsageError if there is no
    such file, or if one of a range is missing.
    """
    if source.path == folder.path:
        return None
    return [name for path in _expand(source.path) for name in _matches(source.at(path), folder)]


def _expand(path: str) -> Iterator[str]:
    """Replace {000..099} by each of these numbers."""
    match = BRACES.search(path)
    if match is None:
        yield path
        return
    first, last = match["first"], match["last"]
    if not 0 <= int(last) - int(first) < MAX_BRACES:
        raise UsageError(f"{match[0]} is not a range of numbers: use for example {{000..099}}")
    for number in range(int(first), int(last) + 1):
        yield from _expand(f"{path[: match.start()]}{number:0{len(first)}}{path[match.end() :]}")


def _matches(source: Storage, folder: Storage) -> list[str]:
    """The names of the file or of the files of a pattern; folders that match a pattern are read with all they contain.

    What a pattern matches besides pictures and shards is left out.
    """
    if source.exists():
        return [_relative(source.path, folder)]
    pattern = _relative(source.path, folder)
    found = sorted(set(_glob(folder, pattern.split("/"), ""))) if WILDCARD.search(pattern) else []
    if not found:
        raise UsageError(f"{source} does not exist: use a folder, an archive, a parquet file, or a pattern of them")
    names = []
    for name, is_folder in found:
        inside = _walk(folder, name) if is_folder else [name]
        names += [one for one in inside if is_visible(one) and _is_wanted(folder, one)]
    return names


def _glob(source: Storage, pattern: list[str], folder: str) -> Iterator[tuple[str, bool]]:
    """Yield the files and folders of a pattern, and whether each is a folder; ** stands for any number of folders.

    The glob of fsspec would leave out a folder whose server does not respond.
    """
    first, *rest = pattern
    prefix = f"{folder}/" if folder else ""
    if rest and not WILDCARD.search(first):
        yield from _glob(source, rest, f"{prefix}{first}")
        return
    if first == "**" and rest:
        yield from _glob(source, rest, folder)
        rest = pattern
    for name, is_folder in source.entries(folder).items():
        if fnmatchcase(name, first) and not rest:
            yield f"{prefix}{name}", is_folder
        elif fnmatchcase(name, first) and is_folder:
            yield from _glob(source, rest, f"{prefix}{name}")


def _relative(path: str, folder: Storage) -> str:
    return path.removeprefix(folder.path).strip("/")


def _is_wanted(source: Storage, name: str) -> bool:
    return name.lower().endswith(SHARDS) or _is_picture(source, name)


def divide(source: Storage, names: Iterable[str] | None, part_size: int) -> Iterator[Part]:
    """Yield the parts of a source; `names` are its files, or None for all files in the folder and its subfolders.

    Hidden files, and files that are neither a picture nor a shard by their suffix or content, are left out.
    """
    pictures: list[str] = []
    for name in _walk(source) if names is None else names:
        if source.is_local and not os.path.isfile(source.join(name)):
            continue  # a pipe would wait for its writer
        if name.lower().endswith(SHARDS):
            yield from _shard_parts(source, name, part_size)
        elif names is not None or _is_picture(source, name):
            pictures.append(name)
        if len(pictures) == part_size:
            yield Part(tuple(pictures), count=len(pictures))
            pictures = []
    if pictures:
        yield Part(tuple(pictures), count=len(pictures))


def _walk(source: Storage, start: str = "") -> Iterator[str]:
    """Yield the names of the files in a folder and its subfolders, without hidden ones and links to folders."""
    if not source.is_local:
        yield from _walk_address(source, start)
        return
    for folder, folders, files in os.walk(source.join(start), onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = str(folder).removeprefix(source.path).strip("/")
        for name in sorted(files):
            path = f"{inside}/{name}" if inside else name
            if is_visible(path):
                yield path


def _walk_address(source: Storage, folder: str) -> Iterator[str]:
    """The same at an address. The walk of fsspec would leave out a folder whose server does not respond."""
    for name, is_folder in sorted(source.entries(folder).items()):
        path = f"{folder}/{name}" if folder else name
        if is_visible(path):
            yield from _walk_address(source, path) if is_folder else [path]


def _raise(error: OSError) -> None:
    raise error


def is_visible(name: str) -> bool:
    """Whether neither a file nor one of its folders is hidden or made by a system."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _is_picture(source: Storage, name: str) -> bool:
    if source.is_local and not os.path.isfile(source.join(name)):
        return False
    if PurePosixPath(name).suffix.lower() in SUFFIXES:
        return True
    try:
        with source.open(name) as stream:
            return is_picture(stream.read(HEAD_BYTES))
    except OSError:
        return False


def _shard_parts(source: Storage, name: str, part_size: int) -> Iterator[Part]:
    """Divide a shard. The last part goes to its end, where a damage is noticed."""
    positions: dict[int, int] = {}
    count = _count(source, name, part_size, positions)
    if count is None:
        yield Part(shard=name)
        return
    for start in range(0, max(count, 1), part_size):
        is_last = start + part_size >= count
        size = min(part_size, count - start)
        stop = None if is_last else start + size
        offset, end = positions.get(start, 0), positions.get(start + size, 0)
        yield Part(shard=name, start=start, stop=stop, count=size, offset=offset, end=end)


def _count(source: Storage, name: str, part_size: int, positions: dict[int, int]) -> int | None:
    """The number of files or rows; None for a damaged shard, and if counting would mean reading all of it.

    Puts the position of the header of each part's first file in a tar file, or of its entry in a zip file, into
    `positions`, by the file's number. Raises StoreError if a server does not respond.
    """
    try:
        with source.open(name) as stream:
            kind = shard_kind(stream)
            if kind == "zip":
                archive = open_zip(stream, Path(name), MAX_DIRECTORY_BYTES, TOO_MANY)
                positions.update(_entry_positions(archive, stream, part_size))
                return len(archive.infolist())
            if kind == "parquet":
                return _rows(stream)
            if kind == "tar" and source.is_local:
                number = 0
                for number, file in enumerate(list_files(stream, Path(name), MAX_SHARD_BYTES, links=True), 1):
                    if number % part_size == 0:
                        positions[number] = file.end
                return number
    except (DataError, *READ_ERRORS):
        return None
    return None


def _entry_positions(archive: zipfile.ZipFile, stream: Any, part_size: int) -> dict[int, int]:
    """The position in the directory of each part's first entry and of the end, by the number of the entry.

    It is empty if the directory counts from another position than the start of the file, or does not end where its
    entries end.
    """
    entries, position = archive.infolist(), archive.start_dir
    stream.seek(position)
    if not entries or ENTRY.unpack(stream.read(ENTRY.size))[0] != entries[0].header_offset:
        return {}
    positions = {0: position}
    for number, entry in enumerate(entries, 1):
        name = entry.orig_filename.encode("utf-8" if entry.flag_bits & UTF8 else "cp437")
        position += ENTRY.size + len(name) + len(entry.extra) + len(entry.comment)
        if number % part_size == 0 or number == len(entries):
            positions[number] = position
    stream.seek(position)
    return positions if stream.read(len(AFTER_ENTRIES[0])) in AFTER_ENTRIES else {}


def shard_kind(stream: Any) -> str:
    """The kind of a shard by its content: zip, parquet, tar, gzip or an empty text. Rewinds the stream."""
    head = stream.read(512)
    stream.seek(0)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    return "tar" if head[257:262] == b"ustar" or (len(head) == 512 and not any(head)) else ""


def _rows(stream: Any) -> int:
    return int(open_parquet(stream).metadata.num_rows)


def write_plan(parts: Iterable[Part], path: Path) -> tuple[int, int | None]:
    """Write the plan. Return the number of parts and of pictures, which is None if a shard could not be counted."""
    number, pictures = 0, 0
    is_complete = True
    with path.open("w", encoding="ascii") as stream:
        for part in parts:
            stream.write(f"{part.dump()}\n")
            number += 1
            pictures += part.count or 0
            is_complete &= part.count is not None
    return number, pictures if is_complete else None


def offsets(stream: Any) -> Iterator[int]:
    """Yield the position of each line of a plan in bytes."""
    position = 0
    for line in stream:
        yield position
        position += len(line)


def read_part(stream: Any, offset: int) -> Part:
    """Read the part at a position of a plan."""
    stream.seek(offset)
    return Part.parse(next(islice(stream, 1)).decode("ascii"))
