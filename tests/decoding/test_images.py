"""Pictures become upright RGB or gray arrays. Damaged and too large ones are refused before they are decoded."""

import struct
import threading
import time
import zlib
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.support.pictures import (
    BYTE,
    CORNERS,
    LONG,
    NOISE,
    SHORT,
    bmp,
    box,
    by_pillow,
    chunk,
    corners,
    encoded,
    exif,
    gif,
    gray_tiff,
    large_avif,
    lossless_webp,
    picture,
    png,
    resized_avif,
    resized_jp2,
    resized_jpeg,
    segment,
    tagged,
    tiff,
)

from emotion_detection.decoding import images
from emotion_detection.decoding.images import (
    HEAD_BYTES,
    MAX_PIXELS,
    decode,
    decode_gray,
    is_picture,
    is_picture_file,
    read_image,
)
from emotion_detection.decoding.memory import ENFORCED
from emotion_detection.errors import MediaError

MEGABYTE = 1 << 20
FLIPPED = Image.fromarray(NOISE[::-1])
MORE: dict[str, Any] = {"save_all": True, "append_images": [FLIPPED]}
GRAY = NOISE[..., 0].copy()
SUFFIXES = (".jpg", ".png", ".gif", ".bmp", ".webp", ".avif", ".tiff", ".jp2", ".ppm", ".pnm")
PICTURES = {
    **{suffix: encoded(suffix, NOISE) for suffix in SUFFIXES},
    **{f"gray {suffix}": encoded(suffix, GRAY) for suffix in (".jpg", ".png", ".pgm", ".pbm", ".pfm", ".tiff")},
    "16-bit png": encoded(".png", NOISE.astype(np.uint16) * 257),
    "16-bit tiff": encoded(".tiff", NOISE.astype(np.uint16) * 257),
    "lossless webp": encoded(".webp", NOISE, (cv2.IMWRITE_WEBP_QUALITY, 101)),
    "lossy webp": encoded(".webp", NOISE, (cv2.IMWRITE_WEBP_QUALITY, 50)),
    "progressive jpeg": by_pillow("JPEG", progressive=True),
    "cmyk jpeg": by_pillow("JPEG", mode="CMYK"),
    "jpeg with fill bytes": encoded(".jpg", NOISE)[:2] + b"\xff\xff\xff" + encoded(".jpg", NOISE)[2:],
    "jpeg with a junk byte": encoded(".jpg", NOISE)[:20] + b"\x00" + encoded(".jpg", NOISE)[20:],
    "animated png": by_pillow("PNG", **MORE),
    "animated webp": by_pillow("WEBP", **MORE),
    "animated avif": by_pillow("AVIF", **MORE),
    "big tiff": by_pillow("TIFF", big_tiff=True),
    "lzw tiff": by_pillow("TIFF", compression="tiff_lzw"),
    "jpeg tiff": by_pillow("TIFF", compression="jpeg"),
    "codestream": by_pillow("JPEG2000", no_jp2=True),
    "netpbm with comments": b"P5 # a comment with 99 99\n# 100 100\n 64\n48 # more\n255\n" + GRAY.tobytes(),
}


def error_of(call, *arguments, **options):
    with pytest.raises(MediaError) as error:
        call(*arguments, **options)
    message = str(error.value)
    assert "\n" not in message
    assert ": " in message  # the cause, then the remedy
    return message


@pytest.fixture
def no_decoder(monkeypatch):
    """Decoding a picture fails the test."""

    def decode_it(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "_stored", decode_it)


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_decoded_to_rgb(name):
    image = decode(PICTURES[name])
    assert (image.shape, image.dtype) == ((48, 64, 3), np.uint8)
    assert image.flags.writeable
    assert image.flags.c_contiguous
    assert is_picture(PICTURES[name][:HEAD_BYTES])


@pytest.mark.parametrize("name", [name for name in PICTURES if name not in ("gray .pbm", "gray .pfm")])
def test_opencv_decodes_the_same_pixels(name):
    bgr = cv2.imdecode(np.frombuffer(PICTURES[name], np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    assert np.abs(decode(PICTURES[name]).astype(int) - bgr[..., ::-1]).max() <= (40 if "cmyk" in name else 2)


@pytest.mark.parametrize("name", ["gray .jpg", "gray .png", ".jpg", ".png", "animated png"])
def test_gray_is_what_opencv_decodes(name):
    content = PICTURES[name]
    square = encoded(".png" if "png" in name else name[-4:], cv2.resize(decode(content), (48, 48)))
    expected = cv2.imdecode(np.frombuffer(square, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert expected is not None
    assert np.array_equal(decode_gray(square, "it", side=48), expected)


@pytest.mark.parametrize("name", PICTURES)
def test_truncated_picture_is_refused(name):
    for share in (0.1, 0.5, 0.9, 0.99):
        with pytest.raises(MediaError, match=r"it is (damaged or truncated|not a readable image)"):
            decode(PICTURES[name][: int(share * len(PICTURES[name]))], "it")


@pytest.mark.parametrize("name", PICTURES)
def test_any_number_of_first_bytes_is_no_other_error(name):
    for length in range(1, 120, 3):
        error_of(decode, PICTURES[name][:length])


@pytest.mark.parametrize("name", PICTURES)
def test_largest_size_is_exact(name, no_decoder):  # noqa: ARG001
    with pytest.raises(MediaError, match=r"^it has more than 0\.00307 megapixels: scale the image down$"):
        decode(PICTURES[name], "it", max_pixels=64 * 48 - 1)
    with pytest.raises(KeyboardInterrupt):
        decode(PICTURES[name], "it", max_pixels=64 * 48)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_orientation_is_applied(form, orientation):
    stored = Image.fromarray(picture())
    # What turns the upright picture into the stored one.
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    if orientation in back:
        stored = stored.transpose(back[orientation])
    metadata = Image.Exif()
    metadata[0x112] = orientation
    image = decode(by_pillow(form, np.asarray(stored), exif=metadata))
    assert image.shape == (48, 64, 3)
    assert np.abs(corners(image) - CORNERS).max() < 30


@pytest.mark.parametrize("orientation", [3, 6])
def test_deep_tiff_is_upright(orientation):
    stored = np.ascontiguousarray(np.rot90(picture(), 2 if orientation == 3 else 1)).astype(np.uint16) * 257
    height, width = stored.shape[:2]
    sizes = ((256, SHORT, 1, width), (257, SHORT, 1, height), (258, SHORT, 3, 8 + 2 + 11 * 12 + 8))
    rest = (
        (259, SHORT, 1, 1),
        (262, SHORT, 1, 2),
        (273, LONG, 1, 8 + 2 + 11 * 12 + 8 + 6),
        (274, SHORT, 1, orientation),
        (277, SHORT, 1, 3),
        (278, SHORT, 1, height),
        (279, LONG, 1, stored.nbytes),
        (284, SHORT, 1, 1),
    )
    content = tiff(*sizes, *rest, tail=struct.pack("<HHH", 16, 16, 16) + stored.tobytes())
    assert corners(decode(content)).tolist() == CORNERS.tolist()


def test_damaged_orientation_is_ignored():
    jpeg = tagged(encoded(".jpg"), exif(99)[:-9])
    assert decode(jpeg).shape == (48, 64, 3)
    assert decode(tagged(encoded(".jpg"), exif(99))).shape == (48, 64, 3)


def test_avif_is_turned_and_mirrored():
    """Boxes irot and imir (ISO/IEC 23008-12, 6.5.10 and 6.5.12), as Pillow writes them for an orientation."""
    metadata = Image.Exif()
    metadata[0x112] = 6
    content = by_pillow("AVIF", np.ascontiguousarray(np.rot90(picture())), exif=metadata)
    assert b"irot" in content
    assert np.abs(corners(decode(content)) - CORNERS).max() < 30


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_pictures_use_the_complete_range(suffix, channels, bits):
    values = (picture() * np.uint16(257) >> np.uint16(16 - bits)).astype(np.uint16)
    values[20:28, 20:28] = (1 << bits) - 1
    image = decode(encoded(suffix, values if channels == 3 else values[..., 0].copy()))
    expected = CORNERS if channels == 3 else CORNERS[..., :1].repeat(3, 2)
    assert np.abs(corners(image) - expected).max() <= 1


def test_deep_picture_with_transparency_keeps_its_colors():
    deep = np.dstack([picture().astype(np.uint16) * 257, np.zeros((48, 64), np.uint16)])
    assert corners(decode(encoded(".png", deep))).tolist() == CORNERS.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_tiff_of_large_numbers_is_scaled(dtype):
    gray = np.linspace(0, 1, 48 * 64).reshape(48, 64)
    values = gray.astype(np.float32) if dtype == np.float32 else (gray * ((1 << 20) - 1)).astype(np.int32)
    image = decode(by_pillow("TIFF", values, mode="F" if dtype == np.float32 else "I"))
    assert image[0, 0].tolist() == [0, 0, 0]
    assert image[-1, -1].tolist() == [255, 255, 255]
    assert int(image[24, 0, 0]) == pytest.approx(127, abs=3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK"])
def test_any_mode_is_converted(mode):
    form = "JPEG" if mode == "CMYK" else "TIFF" if mode == "PA" else "PNG"
    image = decode(by_pillow(form, picture(), mode=mode))
    assert image.shape == (48, 64, 3)
    if mode not in ("1", "L", "LA"):
        assert np.abs(corners(image) - CORNERS).max() < 60  # a palette is coarse


def test_transparency_is_dropped():
    clear = np.dstack([picture(), np.zeros((48, 64), np.uint8)])
    assert corners(decode(encoded(".png", clear))).tolist() == CORNERS.tolist()


def test_animation_gives_its_first_frame():
    for form in ("GIF", "WEBP", "PNG", "AVIF", "TIFF"):
        content = by_pillow(form, picture(), save_all=True, append_images=[Image.fromarray(picture()[::-1])])
        assert np.abs(corners(decode(content)) - CORNERS).max() < 45


def test_data_after_the_end_is_ignored():
    for suffix in (".jpg", ".png", ".gif", ".bmp"):
        assert decode(encoded(suffix) + b"a short film" * 999).shape == (48, 64, 3)


def test_single_pixel_is_decoded():
    assert decode(encoded(".png", picture(1, 1))).shape == (1, 1, 3)


def test_face_of_another_size_is_refused(no_decoder):  # noqa: ARG001
    message = error_of(decode_gray, encoded(".png"), "row 7", side=48)
    assert message == "row 7 has 64x48 instead of 48x48 pixels: crop and resize the face"


# Hostile and damaged files


FLAT = zlib.compress(bytes(8 * MEGABYTE), 9)
JPEG, JP2, AVIF = encoded(".jpg"), by_pillow("JPEG2000"), by_pillow("AVIF")
# 5,000 tags that all contain the same 600 kB.
OVERLAPPING = b"II*\0" + struct.pack("<IH", 8, 5000)
OVERLAPPING += b"".join(struct.pack("<HHII", 1000 + tag, BYTE, 500_000, 10) for tag in range(5000)) + bytes(550_000)
TOO_LARGE, COSTLY, DAMAGED, UNKNOWN = "megapixels", "convert it", "damaged or truncated", "is not a readable image"
REFUSED = {
    "gif of 35 bytes": (gif(65535, 65535, (65535, 65535)), TOO_LARGE),
    "gif: frame larger than the canvas": (gif(1, 1, (65535, 65535)), TOO_LARGE),
    "gif: no data": (gif(11_000, 11_000, (11_000, 11_000)), DAMAGED),
    "gif: endless comment": (gif(10, 10, (10, 10), b"!\xfe" + (b"\xff" + b"a" * 255) * 60_000 + b"\0"), COSTLY),
    "bmp of 1 kB": (bmp(40_000, 40_000), TOO_LARGE),
    "bmp: negative height": (bmp(30_000, -30_000), TOO_LARGE),
    "bmp: no data": (bmp(11_000, 11_000), DAMAGED),
    "bmp: runs": (bmp(6000, 6000, 8, 1, b"\0\0\0\0\xff\xff\xff\0" + b"\0\x02\xff\xff" * 20), DAMAGED),
    "tiff of 1 kB": (gray_tiff(30_000, 30_000), TOO_LARGE),
    "tiff: no data": (gray_tiff(11_000, 11_000), DAMAGED),
    "tiff: big endian": (gray_tiff(30_000, 30_000, order=">"), TOO_LARGE),
    "tiff: 64 bits": (gray_tiff(30_000, 30_000, big=True), TOO_LARGE),
    "tiff: repeated tag": (tiff((256, LONG, 1, 30_000), (256, LONG, 1, 1), (257, LONG, 1, 1)), DAMAGED),
    "tiff: large tiles": (
        tiff((256, LONG, 1, 1), (257, LONG, 1, 1), (322, LONG, 1, 30_000), (323, LONG, 1, 30_000)),
        COSTLY,
    ),
    "tiff: overlapping tags": (
        tiff(
            *[(tag, LONG, 1, 64) for tag in (256, 257)],
            *[(40_000 + tag, BYTE, 900_000, 50) for tag in range(3000)],
            tail=bytes(MEGABYTE),
        ),
        COSTLY,
    ),
    "tiff: five million strips": (tiff((256, LONG, 1, 64), (257, LONG, 1, 48), (273, LONG, 5_000_000, 8)), COSTLY),
    "tiff: five million channels": (tiff((256, LONG, 1, 64), (257, LONG, 1, 48), (258, SHORT, 5_000_000, 8)), COSTLY),
    "tiff: too many tags": (tiff(*[(1000, LONG, 1, 1)] * 5000, (256, LONG, 1, 1), (257, LONG, 1, 1)), COSTLY),
    "tiff: rational width": (tiff((256, 5, 1, 30_000), (257, LONG, 1, 1)), DAMAGED),
    "tiff: tags outside the file": (b"II+\x00\x08\x00\x00\x00" + b"\xff" * 8 + bytes(99), DAMAGED),
    "webp of 34 bytes": (lossless_webp(16383, 16383), "damaged|megapixels"),
    "webp: unknown chunk": (b"RIFF" + bytes(4) + b"WEBPALPH" + bytes(99), DAMAGED),
    "jpeg: 900 megapixels": (resized_jpeg(JPEG, 30_000, 30_000), DAMAGED),
    "jpeg: junk byte": (
        resized_jpeg(JPEG, 30_000, 30_000)[:20] + b"\0" + resized_jpeg(JPEG, 30_000, 30_000)[20:],
        DAMAGED,
    ),
    "jpeg: 121 megapixels": (resized_jpeg(JPEG, 11_000, 11_000), DAMAGED),
    "jpeg: 900 megapixels and 2 MB": (
        resized_jpeg(JPEG, 30_000, 30_000) + bytes(2 * MEGABYTE) + b"\xff\xd9",
        TOO_LARGE,
    ),
    "jpeg: overlapping exif": (tagged(JPEG, OVERLAPPING), COSTLY),
    "jpeg: empty segments": (b"\xff\xd8" + b"\xff\xe0\x00\x02" * 500_000 + JPEG[2:], COSTLY),
    "jpeg: only segments": (b"\xff\xd8" + b"\xff\xe0\x00\x00" * 99_999, COSTLY),
    "png of 1 kB": (png(30_000, 30_000, chunk(b"IDAT", FLAT)), TOO_LARGE),
    "png: little data": (png(11_000, 11_000, chunk(b"IDAT", FLAT[:1000])), DAMAGED),
    "png: little deep data": (png(11_000, 11_000, chunk(b"IDAT", FLAT[:1000]), bits=16), DAMAGED),
    "png: text": (png(64, 48, chunk(b"zTXt", b"a\0\0" + FLAT)), DAMAGED),
    "png: profile": (png(64, 48, chunk(b"iCCP", b"a\0\0" + FLAT)), DAMAGED),
    "png: 100,000 texts": (png(64, 48, *[chunk(b"tEXt", b"a\0")] * 100_000), COSTLY),
    "png: two headers": (
        png(30_000, 30_000, png(64, 48, bits=16)[8:33], chunk(b"IDAT", FLAT[:1000]), bits=16),
        DAMAGED,
    ),
    "png: wrong checksum": (encoded(".png")[:60] + b"??" + encoded(".png")[62:], DAMAGED),
    "png beyond the limits of OpenCV": (png(1 << 30, 1 << 30), TOO_LARGE),
    "avif: large container": (resized_avif(AVIF, 30_000, 30_000), DAMAGED),
    "avif: many boxes": (box(b"ftyp", b"avif") + box(b"free", b"") * 9999, DAMAGED),
    "jp2: small header, large stream": (resized_jp2(JP2, 30_000, 30_000, 30_000), DAMAGED),
    "jp2: many tiles": (resized_jp2(JP2, 11_000, 11_000, 45), COSTLY),
    "codestream of 121 megapixels": (
        resized_jp2(JP2, 11_000, 11_000, 11_000)[JP2.index(b"\xff\x4f\xff\x51") :],
        TOO_LARGE,
    ),
    "ppm": (b"P6\n30000 30000\n255\n", TOO_LARGE),
    "ppm: no data": (b"P6\n11000 11000\n255\n", DAMAGED),
    "ppm: size in a comment": (b"P5\n# 1 1\n30000 30000\n255\n", TOO_LARGE),
    "ppm: endless comment": (b"P6\n#" + b"x" * 5 * MEGABYTE + b"\n10 10\n255\n" + bytes(300), COSTLY),
    "pfm": (b"Pf\n30000 30000\n-1.0\n", TOO_LARGE),
    "hdr": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 30000 +X 30000\n", UNKNOWN),
    "sun raster": (struct.pack(">8I", 0x59A66A95, 30_000, 30_000, 24, 0, 1, 0, 0), UNKNOWN),
    "openexr": (b"\x76\x2f\x31\x01" + bytes(99), UNKNOWN),
    "text": (b"Not an image.\n" * 99, UNKNOWN),
    "text that starts like a bitmap": (b"BMW, Audi and other cars\n" * 99, UNKNOWN),
    "text that starts like a pixmap": (b"P1 is the first of them\n" * 99, UNKNOWN),
    "empty": (b"", "is empty"),
    "heic": (box(b"ftyp", b"heic\0\0\0\0mif1heic") + bytes(99), "is a HEIC image"),
}


@pytest.fixture
def peak_mb():
    """A function that returns how much the memory of the process has grown since the start of the test, at its peak."""

    def high_water_mark():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1000

    if not ENFORCED:
        return lambda: 0.0
    with open("/proc/self/clear_refs", "w") as resets:
        resets.write("5")
    before = high_water_mark()
    return lambda: high_water_mark() - before


@pytest.mark.parametrize("name", REFUSED)
def test_refused_picture_takes_little_memory_and_time(name, peak_mb):
    content, cause = REFUSED[name]
    start_s = time.thread_time()
    with pytest.raises(MediaError, match=cause) as error:
        decode(content, "it")
    assert str(error.value).startswith("it ")
    assert "\n" not in str(error.value)
    assert time.thread_time() - start_s < 1
    assert peak_mb() < 300


@pytest.mark.skipif(not ENFORCED, reason="only Linux limits the memory")
def test_stream_larger_than_its_container_does_not_fill_the_memory(peak_mb):
    assert TOO_LARGE in error_of(decode, large_avif())
    with suppress(MediaError):
        decode(resized_avif(large_avif(), 64, 48))
    assert peak_mb() < 300


def test_jpeg_with_many_scans_is_refused():
    progressive = by_pillow("JPEG", np.zeros((500, 500, 3), np.uint8), progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    assert decode(progressive[:-2] + scan * 20 + b"\xff\xd9").shape == (500, 500, 3)
    assert "scans" in error_of(decode, progressive[:-2] + scan * 200 + b"\xff\xd9")
    film = b"\xff\xda\x00\x02" * 200  # after the end of the picture, as in a motion photo
    assert decode(progressive + film).shape == (500, 500, 3)


def test_large_metadata_is_accepted():
    """A depth map in 100 segments."""
    jpeg = JPEG[:2] + segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(60_000)) * 100 + JPEG[2:]
    assert decode(jpeg).shape == (48, 64, 3)


def test_messages_of_decoders_are_not_shown(capfd):
    for name in ("tiff: overlapping tags", "jpeg: 121 megapixels", "png: profile", "gif: no data"):
        error_of(decode, REFUSED[name][0])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [MemoryError, SystemError])
def test_end_of_the_memory_is_reported(error, monkeypatch):
    def decode_it(*_, **__):
        raise error

    monkeypatch.setattr(images, "_stored", decode_it)
    assert "needs more memory than its size explains" in error_of(decode, JPEG)


def test_two_threads_decode_at_the_same_time():
    errors = []

    def work():
        try:
            for content in PICTURES.values():
                assert decode(content).shape == (48, 64, 3)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# Files


@pytest.mark.parametrize("name", ["absent.jpg", "folder.jpg"])
def test_missing_file_and_folder_are_reported(name, tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    assert "cannot be opened" in error_of(read_image, tmp_path / name)


def test_file_larger_than_the_limit_is_not_read(tmp_path, peak_mb):
    with (tmp_path / "large.jpg").open("wb") as stream:
        stream.write(JPEG)
        stream.truncate(1 << 30)  # sparse
    assert "is larger than 256 MiB" in error_of(read_image, tmp_path / "large.jpg")
    assert peak_mb() < 300


def test_error_names_the_file(tmp_path):
    (tmp_path / "it.jpg").write_bytes(JPEG[:-40])
    assert error_of(read_image, tmp_path / "it.jpg").startswith(f"{tmp_path / 'it.jpg'} is damaged")


@pytest.mark.parametrize("name", ["a.jpg", "a.jpe", "a.jp2", "a.ppm", "a.pgm", "a.heic", "a", "a.unknown"])
def test_picture_is_recognized_by_its_suffix_or_content(name, tmp_path):
    known = {".jpe": ".jpg", ".heic": ".jpg", ".unknown": ".png", "": ".webp"}
    suffix = (tmp_path / name).suffix
    (tmp_path / name).write_bytes(encoded(known.get(suffix, suffix), picture()[..., 0] if suffix == ".pgm" else None))
    assert is_picture_file(tmp_path / name)


def test_text_and_folders_are_no_pictures(tmp_path):
    (tmp_path / "notes.txt").write_text("BMW")
    (tmp_path / "folder.jpg").mkdir()
    assert not is_picture_file(tmp_path / "notes.txt")
    assert not is_picture_file(tmp_path / "folder.jpg")
    assert not is_picture_file(tmp_path / "absent.jpg")


def test_largest_file_of_a_phone_is_allowed():
    assert MAX_PIXELS > 12_000 * 9_000  # 108 megapixels
