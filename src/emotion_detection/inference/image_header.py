"""Read from the header of an encoded image how many pixels it has, before a decoder reserves memory for them.

Covers the formats that OpenCV decodes, and reads the bytes that its decoders read. Pillow is not used because it can
read another size than the decoder does: of a repeated TIFF tag it takes the last value, libtiff takes the first.
"""

import re
import struct
from collections.abc import Callable, Iterator
from math import prod

MAX_ENTRIES = 4096  # segments, tags or boxes: limits the work on a hostile header
MAX_NETPBM_HEADER = 1 << 16
# Start-of-frame markers of a JPEG: C0 to CF except three with other meanings (ITU-T T.81, B.1.1.3).
JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
TIFF_WIDTHS, TIFF_HEIGHTS = (256, 322), (257, 323)  # of the image and of its tiles
TIFF_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
# Boxes that contain boxes, and the bytes before the first of them (ISO/IEC 14496-12 and 23008-12).
CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0}

Reader = Callable[[bytes], int]


def header_pixels(content: bytes) -> int | None:
    """Return an upper bound of the pixels of an encoded image; None if its format or size is unknown."""
    readers = [read for signature, read in READERS.items() if re.match(signature, content, re.DOTALL)]
    try:
        return max(read(content) for read in readers) if readers else None
    except (struct.error, ValueError, OverflowError):  # the header is damaged or incomplete
        return None


def _at(offset: int, form: str) -> Reader:
    """A reader of two numbers at a fixed place."""
    return lambda content: prod(struct.unpack_from(form, content, offset))


def _in_text(pattern: bytes) -> Reader:
    """A reader of two decimal numbers. The largest match counts, so that a comment cannot hide the size."""
    return lambda content: max(int(first) * int(second) for first, second in re.findall(pattern, content))


def _jpeg(content: bytes) -> int:
    """Skip junk before a marker and fill bytes in it, as libjpeg does."""
    place = 2
    for _ in range(MAX_ENTRIES):
        marker = re.compile(rb"\xff([^\x00\xff])", re.DOTALL).search(content, place)
        if marker is None:
            break
        place = marker.end()
        if marker[1][0] in JPEG_FRAMES:
            return prod(struct.unpack_from(">HH", content, place + 3))
        if marker[1][0] not in JPEG_STANDALONE:
            place += struct.unpack_from(">H", content, place)[0]
    raise ValueError("no start of a frame")


def _bmp(content: bytes) -> int:
    (header_size,) = struct.unpack_from("<I", content, 14)
    form = "<HH" if header_size == 12 else "<ii"
    return abs(prod(struct.unpack_from(form, content, 18)))  # rows from top to bottom have a negative height


def _webp(content: bytes) -> int:
    """A lossy, lossless or extended file (RFC 9649, 2.5 to 2.7)."""
    if content[12:16] == b"VP8 ":
        return prod(side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    if content[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (1 + (bits & 0x3FFF)) * (1 + (bits >> 14 & 0x3FFF))
    if content[12:16] == b"VP8X":
        return prod(1 + int.from_bytes(content[start : start + 3], "little") for start in (24, 27))
    raise ValueError("unknown chunk")


def _tiff(content: bytes) -> int:
    """TIFF 6.0, section 2, and BigTIFF. The largest value of a repeated tag counts."""
    order = "<" if content.startswith(b"II") else ">"
    is_big = 43 in content[2:4]
    offset_form, count_form, entry_form = ("Q", "Q", "HHQ8s") if is_big else ("I", "H", "HHI4s")
    (place,) = struct.unpack_from(order + offset_form, content, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + count_form, content, place)
    if count > MAX_ENTRIES:
        raise ValueError("too many tags")
    place += struct.calcsize(order + count_form)
    sides = dict.fromkeys((*TIFF_WIDTHS, *TIFF_HEIGHTS), 0)
    for entry in range(count):
        offset = place + entry * struct.calcsize(order + entry_form)
        tag, value_type, _, value = struct.unpack_from(order + entry_form, content, offset)
        if tag in sides:
            if value_type not in TIFF_TYPES:
                raise ValueError("a size is not an integer")
            sides[tag] = max(sides[tag], struct.unpack_from(order + TIFF_TYPES[value_type], value)[0])
    return prod(max(sides[tag] for tag in tags) for tags in (TIFF_WIDTHS, TIFF_HEIGHTS))


def _avif(content: bytes) -> int:
    """The largest of all images and tracks in the file."""
    pixels = [0]
    for name, start, end in _boxes(content):
        if name == b"ispe":
            pixels.append(prod(struct.unpack_from(">II", content, start + 4)))
        elif name == b"tkhd":  # ends with the size, in 1/65536 px
            pixels.append(prod(side >> 16 for side in struct.unpack_from(">II", content, end - 8)))
    return max(pixels)


def _jp2(content: bytes) -> int:
    return max(_jpeg2000(content, start) for name, start, _ in _boxes(content) if name == b"jp2c")


def _jpeg2000(content: bytes, start: int = 0) -> int:
    """The SIZ segment of a codestream (ITU-T T.800, A.5.1)."""
    markers, _, width, height, left, top = struct.unpack_from(">4sIIIII", content, start)
    if markers != b"\xff\x4f\xff\x51":
        raise ValueError("no codestream")
    return (width - left) * (height - top)


def _boxes(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The name of each box of an ISO base media file, and where its content starts and ends, in any order."""
    pending = [(0, len(content))]
    for _ in range(MAX_ENTRIES):
        if not pending:
            return
        start, end = pending.pop()
        if start + 8 > end:
            continue
        size, name = struct.unpack_from(">I4s", content, start)
        first = start + 8
        if size == 1:
            (size,), first = struct.unpack_from(">Q", content, first), start + 16
        last = start + size if size else end  # 0: up to the end
        if last < first:
            raise ValueError("a box is smaller than its header")
        pending.append((last, end))
        if name in CONTAINERS:
            pending.append((first + CONTAINERS[name], min(last, end)))
        yield name, first, min(last, end)
    raise ValueError("too many boxes")


def _netpbm(content: bytes) -> int:
    separator = rb"(?:\s|#[^\r\n]*[\r\n])+"
    header = re.match(rb"P[1-6]" + 2 * (separator + rb"(\d+)") + rb"[\s#]", content[:MAX_NETPBM_HEADER])
    if header is None:
        raise ValueError("no size")
    return int(header[1]) * int(header[2])


def _pam(content: bytes) -> int:
    return prod(max(map(int, re.findall(name + rb"\s+(\d+)", content))) for name in (b"WIDTH", b"HEIGHT"))


# By signature. OpenEXR is missing because OpenCV does not decode it unless an environment variable allows it.
READERS: dict[bytes, Reader] = {
    rb"\x89PNG\r\n\x1a\n": _at(16, ">II"),
    rb"\xff\xd8\xff": _jpeg,
    rb"GIF8[79]a": _at(6, "<HH"),
    rb"BM": _bmp,
    rb"RIFF.{4}WEBP": _webp,
    rb"II[*+]\x00|MM\x00[*+]": _tiff,
    rb".{4}ftyp": _avif,
    rb"\x00\x00\x00\x0cjP  \r\n\x87\n": _jp2,
    rb"\xff\x4f\xff\x51": _jpeg2000,
    rb"\x59\xa6\x6a\x95": _at(4, ">II"),  # Sun raster
    rb"P[1-6]\s": _netpbm,
    rb"P7\s": _pam,
    rb"P[Ff]\s": _in_text(rb"\AP[Ff]\s+(\d+)\s+(\d+)\s"),
    rb"#\?(?:RADIANCE|RGBE)": _in_text(rb"-Y\s*\+?(\d+)\s*\+X\s*\+?(\d+)"),
}
