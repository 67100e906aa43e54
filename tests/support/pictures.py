"""Small pictures in all formats, and files that are larger than they look."""

import base64
import io
import struct
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Each corner has its own color, so that rotated, mirrored and swapped channels are noticed.
RED, GREEN, BLUE, GRAY = (200, 30, 30), (30, 200, 30), (30, 30, 200), (128, 128, 128)
CORNERS = np.array([[RED, GREEN], [BLUE, GRAY]], np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
BYTE, SHORT, LONG = 1, 3, 4  # types of TIFF values
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# A black AVIF of 16000x16000 pixels.
LARGE_AVIF = (
    b"c-muNU{FXasVqn=%S>Yc0uY^>nP!-qnV9D5Xy^nKdYzkElE?r7iWw<6MNl?FL1uCZ0~+8f$SlbPvlxL`E;A=T8N_h`@fjhajKT~I+*5&Ujm*"
    b"rvG`LzRASaax%1bOWFm%q($p_n&m03_!0HnP$3zGAJv`A)gK`O*Ly9Nkm5Gcs3$OMTnb8v6~DW1eKL+3_$9*~f5a(+%xUUE(a&}3c)Hjr}h%"
    b"z|8)pMVZyVPtA%0lI2#Zc1W_5Ca#t{P(*0pMMuIN%3+RHH!-<B_BR))W{;>uK?5>dH!7BTFoa?w~i(##v8m@ai&1??1Y7yUjH@O_*xcOWi?;"
    b"mc;K}9lVgm+y^|+=PlZUz<?apasoFB<tLvru{@4Ozv7!h2ChS&wIqTi&tG}g~oDY52Sn`VP^MtGo(dW-alrw#PUKip%<GQ28-D?XsYFW1~|G"
    b"44)!q~J~22KCsp0mcjS(~8kw&B)CDc`nfCs-00=GFGfxhL95ocRAQM#4p<X+fgaLZ62{4Yo@krHD;A{a=4l@Ubsk+z)7Kcoa#7#|UiUX}-mt"
    b"<B?yPE@0ZQ#_hYQs=x5`72-X-wY9!yPG;Up(^!1|=ZPA-qf0+D4Bb!}4f4?-9}V)+ARi6#(I6iU@{tqd!8CCApP^$Y^+Way0Qw*Sv;"
)


def picture(width_px: int = 64, height_px: int = 48) -> NDArray[np.uint8]:
    return cv2.resize(CORNERS, (width_px, height_px), interpolation=cv2.INTER_NEAREST)


def corners(image: NDArray[np.uint8]) -> NDArray[np.int_]:
    """The four corner pixels, (2,2,3)."""
    return image[[[2, 2], [-3, -3]], [[2, -3], [2, -3]]].astype(int)


def encoded(suffix: str, image: NDArray | None = None, parameters: tuple[int, ...] = ()) -> bytes:
    """RGB, gray or RGBA, 8 or 16 bits, as the bytes of a file."""
    image = picture() if image is None else image
    bgr = image if image.ndim == 2 else image[..., [2, 1, 0, *range(3, image.shape[-1])]]
    return cv2.imencode(suffix, bgr, parameters)[1].tobytes()


def by_pillow(form: str, image: NDArray = NOISE, *, mode: str = "RGB", **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).convert(mode).save(stream, form, **options)
    return stream.getvalue()


def exif(orientation: int) -> bytes:
    """EXIF 2.3, 4.6.4: tag 0x0112, a short."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def tagged(jpeg: bytes, metadata: bytes) -> bytes:
    """The JPEG with EXIF metadata, in as many segments as it needs."""
    parts = (metadata[start : start + 60_000] for start in range(0, len(metadata), 60_000))
    return jpeg[:2] + b"".join(segment(0xE1, b"Exif\0\0" + part) for part in parts) + jpeg[2:]


def resized_jpeg(jpeg: bytes, width: int, height: int) -> bytes:
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", height, width) + jpeg[place + 4 :]


def box(name: bytes, content: bytes) -> bytes:
    """A box of an ISO base media file."""
    return struct.pack(">I4s", 8 + len(content), name) + content


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes, bits: int = 8) -> bytes:
    """A PNG with these chunks between its header and its end."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    return PNG_SIGNATURE + header + b"".join(chunks) + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int], tail: bytes = b"", order: str = "<", big: bool = False) -> bytes:
    """A TIFF of the entries (tag, type, number of values, value or offset), then `tail`."""
    name, version = (b"II" if order == "<" else b"MM"), 43 if big else 42
    if big:
        header = name + struct.pack(f"{order}HHHQQ", version, 8, 0, 16, len(entries))
    else:
        header = name + struct.pack(f"{order}HIH", version, 8, len(entries))
    packed = []
    for tag, kind, count, value in entries:
        entry = bytearray(struct.pack(f"{order}HHQQ" if big else f"{order}HHII", tag, kind, count, value))
        if kind == SHORT and count == 1:
            entry[-8 if big else -4 :] = struct.pack(f"{order}H", value) + bytes(6 if big else 2)
        packed.append(bytes(entry))
    return header + b"".join(packed) + bytes(8) + tail


def gray_tiff(width: int, height: int, **options) -> bytes:
    """An uncompressed gray TIFF with little data."""
    entries = ((256, LONG, 1, width), (257, LONG, 1, height), (258, SHORT, 1, 8), (259, SHORT, 1, 1))
    strips = ((262, SHORT, 1, 1), (273, LONG, 1, 200), (277, SHORT, 1, 1), (278, LONG, 1, height))
    return tiff(*entries, *strips, tail=bytes(1000), **options)


def gif(width: int, height: int, frame: tuple[int, int], comment: bytes = b"") -> bytes:
    """A GIF of one frame, without its data."""
    header = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    return header + comment + b"," + struct.pack("<HHHH", 0, 0, *frame) + b"\0\x02\x02\x44\x01\0;"


def bmp(width: int, height: int, bits: int = 24, compression: int = 0, data: bytes = bytes(900)) -> bytes:
    fields = (40, width, height, 1, bits, compression, 0, 0, 0, 2 if bits == 8 else 0, 0)
    return b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + struct.pack("<IiiHHIIiiII", *fields) + data


def lossless_webp(width: int, height: int) -> bytes:
    bits = struct.pack("<I", (width - 1) | (height - 1) << 14)
    chunk = b"VP8L" + struct.pack("<I", 10) + b"\x2f" + bits + b"\x88\x88\x08\0\0"
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def resized_jp2(content: bytes, width: int, height: int, tile_px: int) -> bytes:
    """A jp2 whose codestream declares another size; its header keeps the old one."""
    place = content.index(b"\xff\x4f\xff\x51") + 8
    sizes = struct.pack(">IIIIIIII", width, height, 0, 0, tile_px, tile_px, 0, 0)
    return content[:place] + sizes + content[place + 32 :]


def large_avif() -> bytes:
    return zlib.decompress(base64.b85decode(LARGE_AVIF))


def resized_avif(content: bytes, width: int, height: int) -> bytes:
    """An AVIF whose container declares another size than its stream."""
    place = content.index(b"ispe") + 8
    return content[:place] + struct.pack(">II", width, height) + content[place + 8 :]
