"""The pixels of an image are known before it is decoded, in every format that OpenCV decodes."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from emotion_detection.inference.image_header import header_pixels
from emotion_detection.inference.media import decode_image

GRAY = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)
SUFFIXES = (".jpg", ".png", ".gif", ".bmp", ".webp", ".avif", ".tiff", ".jp2", ".ppm", ".pnm", ".sr", ".hdr", ".pfm")
SHORT, LONG = 3, 4  # types of TIFF values


def encode(suffix, image=RGB, parameters=()):
    return cv2.imencode(suffix, image, parameters)[1].tobytes()


def by_pillow(form, **options):
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, form, **options)
    return stream.getvalue()


def box(name, content):
    return struct.pack(">I4s", 8 + len(content), name) + content


def tiff(*entries, order="<", big=False):
    """A TIFF that ends after its tags."""
    name, version = (b"II" if order == "<" else b"MM"), 43 if big else 42
    if big:
        header = name + struct.pack(f"{order}HHHQ", version, 8, 0, 16) + struct.pack(f"{order}Q", len(entries))
        form = "HHQQ"
    else:
        header = name + struct.pack(f"{order}HI", version, 8) + struct.pack(f"{order}H", len(entries))
        form = "HHII"
    packed = []
    for tag, kind, value in entries:
        entry = bytearray(struct.pack(order + form, tag, kind, 1, value))
        if kind == SHORT:
            entry[-8 if big else -4 :] = struct.pack(f"{order}H", value) + bytes(6 if big else 2)
        packed.append(bytes(entry))
    return header + b"".join(packed)


IMAGES = {
    **{suffix: encode(suffix) for suffix in SUFFIXES},
    **{f"gray {suffix}": encode(suffix, GRAY) for suffix in (".jpg", ".png", ".pgm", ".pbm", ".pam", ".pfm", ".tiff")},
    "lossless webp": encode(".webp", RGB, (cv2.IMWRITE_WEBP_QUALITY, 101)),
    "lossy webp": encode(".webp", RGB, (cv2.IMWRITE_WEBP_QUALITY, 50)),
    "progressive jpeg": by_pillow("JPEG", progressive=True),
    "jpeg with fill bytes": encode(".jpg")[:2] + b"\xff\xff\xff" + encode(".jpg")[2:],
    "jpeg with a junk byte": encode(".jpg")[:20] + b"\x00" + encode(".jpg")[20:],
    "animated gif": by_pillow("GIF", save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
    "animated png": by_pillow("PNG", save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
    "animated webp": by_pillow("WEBP", save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
    "animated avif": by_pillow("AVIF", save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
    "big tiff": by_pillow("TIFF", big_tiff=True),
    "codestream": by_pillow("JPEG2000", no_jp2=True),
    "netpbm with comments": b"P5 # a comment with 99 99\n# 100 100\n 64\n48 # more\n255\n" + GRAY.tobytes(),
}


@pytest.mark.parametrize("name", IMAGES)
def test_pixels_are_those_of_the_decoded_image(name):
    assert header_pixels(IMAGES[name]) == 64 * 48
    assert decode_image(IMAGES[name], "it").shape == (48, 64, 3)


@pytest.mark.parametrize("name", IMAGES)
def test_truncated_header_is_not_an_exception(name):
    assert header_pixels(IMAGES[name]) is not None
    for length in range(0, 120, 3):
        header_pixels(IMAGES[name][:length])


HOSTILE = {
    "jpeg: junk between segments": (
        b"\xff\xd8\xff\xe0\x00\x04ab" + b"\x00\xff\xc2\x00\x11\x08\x75\x30\x75\x30" + bytes(9)
    ),
    "bmp: negative height": b"BM" + bytes(12) + struct.pack("<Iii", 40, 30_000, -30_000) + bytes(40),
    "tiff: repeated tag": tiff((256, LONG, 30_000), (256, LONG, 1), (257, LONG, 30_000), (257, LONG, 1)),
    "tiff: repeated tag, reversed": tiff((256, LONG, 1), (256, LONG, 30_000), (257, LONG, 1), (257, LONG, 30_000)),
    "tiff: big endian": tiff((256, SHORT, 30_000), (257, SHORT, 30_000), order=">"),
    "tiff: 64 bits": tiff((256, SHORT, 30_000), (257, LONG, 30_000), big=True),
    "tiff: large tiles": tiff((256, LONG, 1), (257, LONG, 1), (322, LONG, 30_000), (323, LONG, 30_000)),
    "avif: second image": box(b"ftyp", b"avif")
    + box(
        b"meta",
        bytes(4)
        + box(
            b"iprp",
            box(
                b"ipco",
                box(b"ispe", struct.pack(">III", 0, 10, 10)) + box(b"ispe", struct.pack(">III", 0, 30_000, 30_000)),
            ),
        ),
    ),
    "avif: track": box(b"ftyp", b"avis")
    + box(b"moov", box(b"trak", box(b"tkhd", bytes(76) + struct.pack(">II", 30_000 << 16, 30_000 << 16)))),
    "hdr: size in a comment": b"#?RADIANCE\n#-Y 1 +X 1\nFORMAT=32-bit_rle_rgbe\n\n-Y 30000 +X 30000\n",
    "pam: size in a comment": b"P7\n# WIDTH 1 HEIGHT 1 ENDHDR\nWIDTH 30000\nHEIGHT 30000\nDEPTH 1\nENDHDR\n",
    "netpbm: comment": b"P5\n# 1 1\n30000 30000\n255\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_largest_declared_size_counts(name):
    assert header_pixels(HOSTILE[name]) == 30_000**2


UNKNOWN = {
    "empty": b"",
    "text": b"Not an image.\n" * 99,
    "openexr": b"\x76\x2f\x31\x01" + bytes(99),
    "jpeg without a frame": b"\xff\xd8" + b"\xff\xe0\x00\x00" * 99_999,
    "endless jpeg": b"\xff\xd8" + b"\xff\xd0" * 9999 + encode(".jpg")[2:],
    "webp with an unknown chunk": b"RIFF" + bytes(4) + b"WEBPALPH" + bytes(99),
    "tiff with too many tags": tiff(*[(1000, LONG, 1)] * 5000, (256, LONG, 1), (257, LONG, 1)),
    "tiff with a rational width": tiff((256, 5, 30_000), (257, LONG, 1)),
    "tiff with tags outside the file": b"II+\x00\x08\x00\x00\x00" + b"\xff" * 8 + bytes(99),
    "too many boxes": box(b"ftyp", b"avif") + box(b"free", b"") * 9999,
    "box smaller than its header": box(b"ftyp", b"avif") + struct.pack(">I4s", 4, b"free") + bytes(99),
    "netpbm with an endless header": b"P5\n" + b" " * 999_999 + b"64 48 255\n",
    "number with too many digits": b"#?RADIANCE\n\n-Y " + b"9" * 9999 + b" +X 1\n",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_size_is_none(name):
    assert header_pixels(UNKNOWN[name]) is None
