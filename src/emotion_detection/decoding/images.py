"""Decode pictures. A gate checks their format, size and cost before any decoder reserves memory for them.

Pillow reads the headers and decodes all formats but two: OpenCV decodes JPEG because it is a third faster and releases
the GIL, and 16-bit color because Pillow drops 8 of the bits. Both decoders get only what the gate has accepted.
"""

import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from emotion_detection.arrays import Frame, Gray
from emotion_detection.decoding.memory import memory_ceiling
from emotion_detection.errors import MediaError, TooLargeError

MAX_PIXELS = 1 << 27  # 134 megapixels or 400 MB as RGB: more than phones take (108 megapixels), less than the memory
MAX_BYTES = 1 << 28
# The most pixels of formats that take 0.4 us and 18 bytes for each, also for a file of 2 kB.
COSTLY: dict[type[ImageFile.ImageFile], int] = {
    WebPImageFile: 1 << 26,
    AvifImageFile: 1 << 26,
    Jpeg2KImageFile: 1 << 24,
}
HEAD_BYTES = 64  # enough to recognize each format
# Of the memory that a decoder may reserve: for a header, and for each pixel. WebP and AVIF take the most: RGBA twice,
# and the planes of a video frame.
HEADER_MEMORY = 3 << 26
PIXEL_MEMORY = 32
# A header with more than this is an attack: photos with a depth map have 10 MB of metadata in 150 segments.
MAX_HEADER_BYTES = 3 << 22
MAX_HEADER_READS = 50_000
JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not in compressed data (ITU-T T.81, B.1.1.2)
JPEG_END, JPEG_SCAN = b"\xff\xd9", b"\xff\xda"
MAX_SCANS = 100  # of a progressive JPEG; encoders write about 10, and each one costs as much as a baseline picture
MAX_COMMENT_BYTES = 1 << 20  # of a GIF or PPM, whose headers take time that grows with the square of their size
READ_COMPLETELY = (WebPImageFile, AvifImageFile, TiffImageFile)  # by Pillow, to read the header
MAX_TIFF_TAGS = 1 << 12
MAX_TIFF_VALUES = 1 << 17  # of a tag; the largest ones list the strips
MAX_TIFF_TILE = 1 << 24  # pixels
TIFF_SIDES = (256, 257, 322, 323)  # width and height of the picture and of its tiles
TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # of a value
TIFF_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
MAX_JPEG2000_TILES = 1 << 14  # tiles times channels: OpenJPEG reserves several kB for each before it decodes

# Pictures that must not be skipped silently. Others are recognized by their content.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k"),
)
HEIC = re.compile(rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1)", re.DOTALL)


class _JpegFile(JpegImageFile):
    """Pillow reads the metadata when it opens a JPEG."""

    def getexif(self) -> Image.Exif:
        _check_exif(self.info.get("exif", b""))
        return super().getexif()


SIGNATURES: dict[re.Pattern[bytes], type[ImageFile.ImageFile]] = {
    re.compile(pattern, re.DOTALL): plugin
    for pattern, plugin in {
        rb"\xff\xd8\xff": _JpegFile,
        rb"\x89PNG\r\n\x1a\n": PngImageFile,
        rb"GIF8[79]a": GifImageFile,
        rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0": BmpImageFile,  # and the size of its header
        rb"RIFF.{4}WEBP": WebPImageFile,
        rb"II[*+]\0|MM\0[*+]": TiffImageFile,
        rb".{4}ftypavi[fs]|.{4}ftypmif1.{4}(.{4})*?avif": AvifImageFile,
        rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51": Jpeg2KImageFile,
        rb"P[1-6f]\s+[\d#]": PpmImageFile,
    }.items()
}
# What Pillow and OpenCV raise for damaged files.
DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
    cv2.error,
)

# What makes a stored picture upright (EXIF 2.3, 4.6.4).
UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


def is_picture(head: bytes) -> bool:
    """Whether a file that starts with these HEAD_BYTES is a picture in a format that `decode` reads."""
    return _plugin(head) is not None


def is_picture_file(path: Path) -> bool:
    """Whether a regular file is a picture, by its suffix or its content. A file that cannot be opened is none."""
    if not path.is_file():
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            return is_picture(stream.read(HEAD_BYTES))
    except OSError:
        return False


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Frame:
    """Read an image file as RGB u8 (height, width, 3). Raises MediaError as `decode` does."""
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise MediaError(f"{path} is larger than {MAX_BYTES >> 20} MiB: scale the image down")
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_BYTES)
    except OSError as error:
        raise MediaError(f"{path} cannot be opened ({error.strerror}): check its name and permissions") from error
    return decode(content, str(path), max_pixels=max_pixels)


def decode(content: bytes, where: str = "the picture", *, max_pixels: int = MAX_PIXELS) -> Frame:
    """Decode a picture to RGB u8 (height, width, 3), upright.

    Gray and CMYK are converted to RGB, and more than 8 bits to 8; transparency is dropped. Of an animation, the first
    frame is returned. `where` names the picture in error messages. Raises MediaError if it is damaged or truncated, and
    TooLargeError if its header declares more than `max_pixels`; then no memory is reserved for it.
    """

    def check(image: ImageFile.ImageFile) -> None:
        most = min(max_pixels, COSTLY.get(type(image), max_pixels))
        if image.width * image.height > most:
            raise TooLargeError(f"{where} has more than {most / 1e6:.3g} megapixels: scale the image down")

    return _decode(content, where, check, max_pixels, gray=False)


def decode_gray(content: bytes, where: str, *, side: int) -> Gray:
    """Decode a square picture to gray u8 (side, side). Raises MediaError as `decode` does, and for other sizes."""

    def check(image: ImageFile.ImageFile) -> None:
        if image.size != (side, side):
            size = f"{image.width}x{image.height} instead of {side}x{side}"
            raise MediaError(f"{where} has {size} pixels: crop and resize the face")

    return _decode(content, where, check, side * side, gray=True)


def _decode(
    content: bytes, where: str, check: Callable[[ImageFile.ImageFile], None], max_pixels: int, *, gray: bool
) -> NDArray[np.uint8]:
    """Decode a picture to gray or RGB. `check` gets the picture before memory is reserved, and may raise."""
    if not content:
        raise MediaError(f"{where} is empty: use a JPEG or PNG")
    plugin = _plugin(content[:HEAD_BYTES])
    if plugin is None:
        raise MediaError(f"{where} {_unknown(content[:HEAD_BYTES])}")
    with _media_errors(where):
        image = _open(plugin, content, max_pixels)
        check(image)
        _check_data(image, len(content))
        with memory_ceiling(HEADER_MEMORY + PIXEL_MEMORY * image.width * image.height):
            return np.ascontiguousarray(_upright(image, _stored(image, content, gray=gray)))


@contextmanager
def _media_errors(where: str) -> Iterator[None]:
    """Turn the decoders' errors into a MediaError."""
    try:
        yield
    except MediaError:
        raise
    except _TooCostlyError as error:
        raise MediaError(f"{where} {error}: convert it to a JPEG or PNG") from error
    except Image.DecompressionBombError as error:  # a frame that is larger than its picture
        raise MediaError(f"{where} has too many megapixels: scale the image down") from error
    except (MemoryError, SystemError) as error:  # Pillow's JPEG 2000 decoder turns the first into the second
        raise MediaError(f"{where} needs more memory than its size explains: convert it to a JPEG or PNG") from error
    except DAMAGED as error:
        raise MediaError(f"{where} is damaged or truncated: use a complete copy") from error


def _plugin(head: bytes) -> type[ImageFile.ImageFile] | None:
    return next((plugin for pattern, plugin in SIGNATURES.items() if pattern.match(head)), None)


def _unknown(head: bytes) -> str:
    if HEIC.match(head):
        return "is a HEIC image, which cannot be read: convert it to a JPEG or PNG"
    return "is not a readable image: use a JPEG or PNG"


class _TooCostlyError(Exception):
    """A picture whose header costs more than a header should."""


class _HeaderStream(io.BytesIO):
    """The bytes of a picture. The reads are limited until `limited` is false, because some headers never end."""

    def __init__(self, content: bytes, max_bytes: int) -> None:
        super().__init__(content)
        self.limited, self._bytes, self._reads = True, max_bytes, MAX_HEADER_READS

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        if self.limited:
            self._bytes -= len(content)
            self._reads -= 1
            if self._bytes < 0 or self._reads < 0:
                raise _TooCostlyError("has too much metadata")
        return content


def _open(plugin: type[ImageFile.ImageFile], content: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header. The pixels are not decoded."""
    _quiet_pillow()
    if plugin in CHECKS:
        CHECKS[plugin](content)
    if plugin is GifImageFile or plugin is PpmImageFile:
        max_bytes = MAX_COMMENT_BYTES
    else:
        max_bytes = MAX_HEADER_BYTES + 2 * len(content) * (plugin in READ_COMPLETELY)
    stream = _HeaderStream(content, max_bytes)
    # libwebp reserves two pictures, and uses them later.
    with memory_ceiling(HEADER_MEMORY + 8 * max_pixels * (plugin is WebPImageFile)):
        image = plugin(stream)
    if plugin is _JpegFile:
        _check_jpeg(image, content, stream.tell())
    elif plugin is PngImageFile and image.size != struct.unpack_from(">II", content, 16):
        raise ValueError("two headers")
    stream.limited = False
    return image


@cache
def _quiet_pillow() -> None:
    """Pillow warns about damaged metadata, which changes no pixel."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())


def _check_data(image: ImageFile.ImageFile, size: int) -> None:
    """Check that a file is large enough for its pixels, before memory is reserved. Deflate saves 1031/1032."""
    bits = 1 if image.mode in ("1", "L", "P") else 8 * max(len(image.getbands()) - 1, 1)  # at least: 15 for RGB
    codec = image.tile[0].codec_name if image.tile else ""
    least = {"raw": 8, "zip": 8 * 1032, "bmp_rle": 128}.get(codec)  # bits for each byte; a run has 255 pixels
    if (
        least
        and not isinstance(image, TiffImageFile | AvifImageFile)
        and image.width * image.height * bits > least * size
    ):
        raise ValueError("the data cannot contain so many pixels")


def _check_jpeg(image: ImageFile.ImageFile, content: bytes, start: int) -> None:
    """Follow the markers from the first scan to the end of the picture, as libjpeg does.

    A block of 8x8 pixels takes at least one bit. A truncated JPEG has no end, and OpenCV would fill it with gray.
    """
    if image.width * image.height > 8 * 64 * len(content):
        raise ValueError("the data cannot contain so many pixels")
    scans, place = 1, start
    while marker := JPEG_MARKER.search(content, place):
        if marker[0] == JPEG_END:
            return
        scans += marker[0] == JPEG_SCAN
        if scans > MAX_SCANS:
            raise _TooCostlyError(f"has more than {MAX_SCANS} scans")
        place = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2], "big")
    raise ValueError("no end")


def _check_png(content: bytes) -> None:
    """Check the checksums of the chunks that contain pixels, up to the end. Pillow does not check them all."""
    place, name = 8, b""
    for _ in range(MAX_HEADER_READS):
        length, name = struct.unpack_from(">I4s", content, place)
        if place == 8 and name != b"IHDR":
            raise ValueError("no header")
        end = place + 8 + length
        if name in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            (checksum,) = struct.unpack_from(">I", content, end)
            if zlib.crc32(memoryview(content)[place + 4 : end]) != checksum:
                raise ValueError("a damaged chunk")
        if name == b"IEND":
            return
        place = end + 4
    raise _TooCostlyError("has too many chunks")


def _entries(content: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Tag, type, number of values and value or offset of each entry in a TIFF's first directory (6.0, section 2)."""
    order = "<" if content.startswith(b"II") else ">"
    is_big = 43 in content[2:4]
    offset_form, count_form, entry_form = ("Q", "Q", "HHQ8s") if is_big else ("I", "H", "HHI4s")
    (place,) = struct.unpack_from(order + offset_form, content, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + count_form, content, place)
    place += struct.calcsize(count_form)
    for entry in range(count):
        offset = place + entry * struct.calcsize(order + entry_form)
        yield struct.unpack_from(order + entry_form, content, offset)


def _check_tiff(content: bytes) -> None:
    """Check the first directory. Of a repeated tag, Pillow takes the last value and libtiff the first."""
    order = "<" if content.startswith(b"II") else ">"
    sides: dict[int, int] = {}
    for number, (tag, kind, values, value) in enumerate(_entries(content)):
        if number == MAX_TIFF_TAGS or (tag < 600 and values > MAX_TIFF_VALUES):  # larger tags contain metadata
            raise _TooCostlyError("has too many tags or strips")
        if tag in TIFF_SIDES:
            if tag in sides:
                raise ValueError("a repeated size")
            (sides[tag],) = struct.unpack_from(order + TIFF_TYPES[kind], value)
    if sides.get(322, 0) * sides.get(323, 0) > MAX_TIFF_TILE:
        raise _TooCostlyError("has too large tiles")


def _check_exif(metadata: bytes) -> None:
    """Check that the tags do not share their bytes: Pillow copies the bytes of each tag."""
    content = metadata.removeprefix(b"Exif\0\0")
    total = 0
    with suppress(struct.error):  # damaged metadata is ignored
        for _, kind, values, _ in _entries(content):
            size = values * TIFF_SIZES.get(kind, 0)
            if size > len(content):  # Pillow reads no further
                return
            total += size
            if total > 4 * len(content):
                raise _TooCostlyError("has too much metadata")


def _check_jpeg2000(content: bytes) -> None:
    """Check the size in each codestream (ITU-T T.800, A.5.1), because a jp2 file states its size twice."""
    sizes = set()
    for place in (match.start() for match in re.finditer(rb"\xff\x4f\xff\x51", content)):
        length, _, right, bottom, left, top, width, height, *_, channels = struct.unpack_from(
            ">HH8IH", content, place + 4
        )
        if length == 38 + 3 * channels:  # otherwise these bytes are there by chance
            tiles = -(-right // max(width, 1)) * -(-bottom // max(height, 1))
            if tiles * channels > MAX_JPEG2000_TILES:
                raise _TooCostlyError("has too many tiles")
            sizes.add((right - left, bottom - top))
    if len(sizes) != 1:
        raise ValueError("two sizes")


def _stored(image: ImageFile.ImageFile, content: bytes, *, gray: bool) -> NDArray[np.uint8]:
    """The pixels u8 (h,w) or (h,w,3) as they are stored: the orientation is not applied yet, except for TIFF."""
    is_png_face = gray and isinstance(image, PngImageFile)  # older versions of the data set's pixels came from OpenCV
    if image.mode in ("L", "RGB") and (isinstance(image, JpegImageFile) or (is_png_face and not _is_deep(image))):
        flag = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
        stored = _by_opencv(image, content, flag | cv2.IMREAD_IGNORE_ORIENTATION)
        return stored if gray else cv2.cvtColor(stored, cv2.COLOR_BGR2RGB, dst=stored)
    if image.mode.startswith(("I", "F")):
        stored = to_8_bits(np.array(image))
    elif image.mode.startswith("RGB") and _is_deep(image):
        stored = to_8_bits(_by_opencv(image, content, cv2.IMREAD_UNCHANGED))[..., 2::-1]
    else:
        stored = np.array(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    if gray and stored.ndim == 3:
        return cv2.cvtColor(stored, cv2.COLOR_RGB2GRAY)
    return cv2.cvtColor(stored, cv2.COLOR_GRAY2RGB) if stored.ndim == 2 and not gray else stored


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether a PNG or TIFF has 16 bits per channel."""
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(258, (8,))) == 16
    return isinstance(image, PngImageFile) and "16" in str(image.tile[0].args)


def _by_opencv(image: ImageFile.ImageFile, content: bytes, flags: int) -> NDArray[Any]:
    stored = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if stored is None or stored.shape[1::-1] != image.size:
        raise ValueError("the decoder rejects the picture")
    return stored


def to_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale more than 8 bits to 8. The brightest pixel shows how many are in use: 12-bit cameras fill 12 of 16."""
    if values.dtype.kind == "f":
        largest = float(np.nanmax(values, initial=0))
        return (np.nan_to_num(values).clip(0, largest) * (255 / max(largest, 1))).astype(np.uint8)
    bits = max(8, int(values.max(initial=0)).bit_length())
    return (values.clip(0) >> (bits + bits % 2 - 8)).astype(np.uint8)


def _upright(image: ImageFile.ImageFile, stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if isinstance(image, TiffImageFile):  # both decoders turn it themselves
        return stored
    try:
        _check_exif(image.info.get("exif", b""))
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DAMAGED:  # damaged metadata
        return stored
    return UPRIGHT[orientation](stored) if orientation in UPRIGHT else stored


# Before Pillow reads the header.
CHECKS: dict[type[ImageFile.ImageFile], Callable[[bytes], None]] = {
    PngImageFile: _check_png,
    TiffImageFile: _check_tiff,
    Jpeg2KImageFile: _check_jpeg2000,
}
