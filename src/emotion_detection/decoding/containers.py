"""Read from the container of a video what OpenCV does not tell: the number of frames, their orientation, and damage.

Only a missing answer follows from an unknown structure: bytes after the last box and odd sizes are no damage.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

ContainerKind = Literal["iso", "avi", "matroska", "other"]

MAX_BOXES = 100_000  # limits the work on a hostile file
MAX_MOOV_BYTES = 1 << 26  # about 10 hours of video
MAX_ELEMENTS = 1_000_000
# The matrix of a track (a, b, c, d) by the EXIF orientation that turns and mirrors in the same way
# (ISO/IEC 14496-12, 6.2.2).
ORIENTATIONS = {
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
SEGMENT, CLUSTER = 0x18538067, 0x1F43B675  # of Matroska and WebM (RFC 9559)
UNKNOWN_SIZE = -1


@dataclass(frozen=True)
class VideoTrack:
    """The first video track. `frames` is exact, or None if the container does not tell it.

    is_trimmed: an edit list hides some of the frames. orientation: as in EXIF, or None if the container has no matrix.
    """

    kind: ContainerKind
    frames: int | None = None
    is_trimmed: bool = False
    orientation: int | None = None


def read_track(path: Path) -> VideoTrack:
    """Read the header of a video. Damage gives unknown values, not errors."""
    with path.open("rb") as stream:
        head = stream.read(12)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):  # old .mov files have no ftyp
            try:
                return _iso_track(_find_moov(stream))
            except (struct.error, LookupError, ArithmeticError, ValueError, OSError):
                return VideoTrack("iso")
    if head[:4] == b"RIFF" and head[8:] == b"AVI ":
        return VideoTrack("avi")
    return VideoTrack("matroska" if head[:4] == b"\x1a\x45\xdf\xa3" else "other")


def _find_moov(stream: BinaryIO) -> bytes:
    """The content of the box moov; empty if there is none."""
    place = 0
    for _ in range(MAX_BOXES):
        stream.seek(place)
        size, name = struct.unpack(">I4s", stream.read(8))
        header = 8
        if size == 1:
            (size,), header = struct.unpack(">Q", stream.read(8)), 16
        if name == b"moov":
            return stream.read(min(max(size - header, 0) if size else MAX_MOOV_BYTES, MAX_MOOV_BYTES))
        if size < header:  # up to the end of the file, or damaged
            return b""
        place += size
    return b""


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The name and content of each box in a box."""
    place = 0
    for _ in range(MAX_BOXES):
        if place + 8 > len(content):
            return
        size, name = struct.unpack_from(">I4s", content, place)
        if size < 8:
            return
        yield name, content[place + 8 : place + size]
        place += size


def _box(content: bytes, *names: bytes) -> bytes:
    """The content of a box inside other boxes. Raises LookupError if there is none."""
    for wanted in names:
        content = next((inner for name, inner in _boxes(content) if name == wanted), b"")
        if not content:
            raise LookupError(wanted)
    return content


def _iso_track(moov: bytes) -> VideoTrack:
    (timescale,) = struct.unpack_from(">I", *_after_dates(_box(moov, b"mvhd")))
    tracks = [inner for name, inner in _boxes(moov) if name == b"trak"]
    track = next((track for track in tracks if _box(track, b"mdia", b"hdlr")[8:12] == b"vide"), b"")
    header = _box(track, b"tkhd")
    a, b, _, c, d = struct.unpack_from(">5i", header, 52 if header[0] else 40)
    matrix = tuple(round(value / 65536) for value in (a, b, c, d))
    (frames,) = struct.unpack_from(">I", _box(track, b"mdia", b"minf", b"stbl", b"stsz"), 8)
    return VideoTrack("iso", frames or None, _is_trimmed(track, timescale), ORIENTATIONS.get(matrix, 1))


def _after_dates(header: bytes) -> tuple[bytes, int]:
    """A box mvhd or mdhd, and where its timescale is: two dates of 32 or 64 bits come before it."""
    return header, 20 if header[0] else 12


def _is_trimmed(track: bytes, movie_timescale: int) -> bool:
    """Whether the edit list shows less than the media has, by more than a frame."""
    names = [name for name, _ in _boxes(track)]
    if b"edts" not in names:
        return False
    content, place = _after_dates(_box(track, b"mdia", b"mdhd"))
    (timescale,) = struct.unpack_from(">I", content, place)
    durations = _box(track, b"mdia", b"minf", b"stbl", b"stts")[8:]  # pairs: so many frames, so long each
    media_s = sum(count * length for count, length in struct.iter_unpack(">II", durations)) / max(timescale, 1)
    edits = _box(track, b"edts", b"elst")
    form = ">Qqi" if edits[0] else ">Iii"
    count = min(struct.unpack_from(">I", edits, 4)[0], len(edits) // struct.calcsize(form))
    entries = [struct.unpack_from(form, edits, 8 + edit * struct.calcsize(form)) for edit in range(count)]
    shown_s = sum(length for length, start, _ in entries if start >= 0) / max(movie_timescale, 1)  # -1: a pause
    return 0 < shown_s < media_s - 0.02


def is_damaged_matroska(path: Path) -> bool:
    """Whether a Matroska or WebM file is cut, or has bytes between its clusters' blocks that are no elements."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        _, length = _element(stream)
        stream.seek(min(length, size), 1)
        name, length = _element(stream)
        if name != SEGMENT:
            return True
        end = size if length == UNKNOWN_SIZE else stream.tell() + length
        return _end_of_elements(stream, min(end, size)) != end


def _end_of_elements(stream: BinaryIO, end: int) -> int:
    """Walk over the elements of a segment, and over those of its clusters. Return where this is not possible any more.

    After intact elements this is `end`.
    """
    for _ in range(MAX_ELEMENTS):
        place = stream.tell()
        if place >= end:
            return place
        name, length = _element(stream)
        if not name:
            return place
        if name != CLUSTER and length != UNKNOWN_SIZE:  # the elements of a cluster come next
            if stream.tell() + length > end:
                return stream.tell() + length
            stream.seek(length, 1)
    return end


def _element(stream: BinaryIO) -> tuple[int, int]:
    """The ID and length of an EBML element; the ID 0 for bytes that are none (RFC 8794, 4 and 5)."""
    name, name_bytes = _number(stream, keep_marker=True)
    length, length_bytes = _number(stream, keep_marker=False)
    if not 1 <= name_bytes <= 4 or not length_bytes:
        return 0, 0
    return name, UNKNOWN_SIZE if length == (1 << 7 * length_bytes) - 1 else length


def _number(stream: BinaryIO, *, keep_marker: bool) -> tuple[int, int]:
    """A number of variable length and the bytes that it takes; (0, 0) if there is none."""
    first = stream.read(1)
    if not first or not first[0]:
        return 0, 0
    count = 9 - first[0].bit_length()
    rest = stream.read(count - 1)
    value = int.from_bytes(first + rest, "big")
    return (value if keep_marker else value - (1 << 7 * count)), count
