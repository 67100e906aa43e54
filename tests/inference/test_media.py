"""Images, folders, videos and cameras give upright RGB frames, or an error with cause and remedy."""

import struct

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.support.videos import slow_down, write_video

from emotion_detection.errors import MediaError
from emotion_detection.inference.media import (
    MAX_PIXELS,
    Video,
    decode_image,
    find_images,
    open_video,
    read_image,
    source_kind,
)

# Each corner has its own color, so that rotated, mirrored and swapped channels are noticed.
RED, GREEN, BLUE, GRAY = (200, 30, 30), (30, 200, 30), (30, 30, 200), (128, 128, 128)
CORNERS = np.array([[RED, GREEN], [BLUE, GRAY]], np.uint8)


def picture(width_px=64, height_px=48):
    return cv2.resize(CORNERS, (width_px, height_px), interpolation=cv2.INTER_NEAREST)


def encoded(suffix, image=None):
    """RGB, gray or RGBA, 8 or 16 bits, as the bytes of a file."""
    image = picture() if image is None else image
    order = {2: image, 3: image[..., [2, 1, 0, *range(3, image.shape[-1])]] if image.ndim == 3 else image}[image.ndim]
    return cv2.imencode(suffix, order)[1].tobytes()


def corners(image):
    """The four corner pixels, (2,2,3)."""
    return image[[[2, 2], [-3, -3]], [[2, -3], [2, -3]]].astype(int)


def tagged(jpeg, orientation):
    """The JPEG with an EXIF orientation tag (EXIF 2.3, 4.6.4: tag 0x0112, a short)."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def error_of(call, *arguments):
    with pytest.raises(MediaError) as error:
        call(*arguments)
    message = str(error.value)
    assert "\n" not in message
    assert ": " in message  # the cause, then the remedy
    return message


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".gif"])
def test_image_is_decoded_to_rgb(suffix):
    image = decode_image(encoded(suffix), "it")
    assert (image.shape, image.dtype) == ((48, 64, 3), np.uint8)
    assert np.abs(corners(image) - CORNERS).max() < 45  # a GIF's palette is coarse


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda upright: upright),
        (2, lambda upright: upright[:, ::-1]),
        (3, lambda upright: upright[::-1, ::-1]),
        (6, lambda upright: np.rot90(upright)),  # to be rotated clockwise
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
def test_exif_orientation_is_applied(orientation, stored):
    jpeg = encoded(".jpg", np.ascontiguousarray(stored(picture())))
    image = decode_image(tagged(jpeg, orientation), "it")
    assert image.shape == (48, 64, 3)
    assert np.abs(corners(image) - CORNERS).max() < 30


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_are_converted_to_8(suffix):
    image = decode_image(encoded(suffix, picture().astype(np.uint16) * 257), "it")
    assert image.dtype == np.uint8
    assert corners(image).tolist() == CORNERS.tolist()


def test_gray_is_converted_to_rgb():
    image = decode_image(encoded(".png", picture()[..., 0]), "it")
    assert image.shape == (48, 64, 3)
    assert (image == image[..., :1]).all()


def test_transparency_is_dropped():
    clear = np.dstack([picture(), np.zeros((48, 64), np.uint8)])
    assert corners(decode_image(encoded(".png", clear), "it")).tolist() == CORNERS.tolist()


def test_cmyk_is_converted_to_rgb(tmp_path):
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(corners(read_image(tmp_path / "cmyk.jpg")) - CORNERS).max() < 40


def test_single_pixel_is_decoded():
    assert decode_image(encoded(".png", picture(1, 1)), "it").shape == (1, 1, 3)


def test_data_after_a_jpeg_is_ignored():
    assert decode_image(encoded(".jpg") + b"a short film" * 999, "it").shape == (48, 64, 3)


def truncated(content, share=0.6):
    return content[: int(share * len(content))]


def resized(png, width_px, height_px):
    return png[:16] + struct.pack(">II", width_px, height_px) + png[24:]


NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
UNREADABLE = "is damaged or not a readable image"
BROKEN = {
    "empty": (b"", "is empty"),
    "text": (b"Not an image.\n" * 99, UNREADABLE),
    "truncated jpeg": (truncated(encoded(".jpg", NOISE)), UNREADABLE),
    "jpeg without its last bytes": (truncated(encoded(".jpg", NOISE), 0.99), UNREADABLE),
    "first bytes of a jpeg": (encoded(".jpg")[:3], UNREADABLE),
    "jpeg with empty segments": (b"\xff\xd8" + b"\xff\xe0\x00\x00" * 50, UNREADABLE),
    "truncated webp": (truncated(encoded(".webp", NOISE)), UNREADABLE),
    "truncated gif": (truncated(encoded(".gif", NOISE)), UNREADABLE),
    "truncated tiff": (truncated(encoded(".tiff", NOISE)), UNREADABLE),
    "huge png": (resized(encoded(".png"), 20_000, 20_000), "megapixels"),
    "png beyond the limits of OpenCV": (resized(encoded(".png"), 1 << 30, 1 << 30), "megapixels"),
    "huge bmp": (encoded(".bmp")[:18] + struct.pack("<ii", 40_000, 40_000) + encoded(".bmp")[26:], "megapixels"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_image_is_reported_in_one_line(name, tmp_path, capfd):
    content, cause = BROKEN[name]
    (tmp_path / "it.jpg").write_bytes(content)
    message = error_of(read_image, tmp_path / "it.jpg")
    assert message.startswith(f"{tmp_path / 'it.jpg'} ")
    assert cause in message
    assert capfd.readouterr() == ("", "")  # OpenCV prints nothing


def test_huge_jpeg_is_rejected_by_its_header():
    jpeg = bytearray(encoded(".jpg"))
    place = jpeg.index(b"\xff\xc0") + 5
    assert struct.unpack(">HH", jpeg[place : place + 4]) == (48, 64)
    jpeg[place : place + 4] = struct.pack(">HH", 30_000, 30_000)
    del jpeg[place + 20 :]  # nothing to decode
    assert "more than 134 megapixels" in error_of(decode_image, bytes(jpeg), "it")
    assert MAX_PIXELS < 30_000**2


@pytest.fixture
def no_decoder(monkeypatch):
    """Decoding an image fails the test."""

    def decode(*_):
        raise AssertionError("the image was decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)


BOMBS = {
    suffix: encoded(suffix) for suffix in (".jpg", ".png", ".webp", ".bmp", ".tiff", ".gif", ".avif", ".jp2", ".ppm")
}
BOMBS |= {"jpeg with a junk byte": BOMBS[".jpg"][:20] + b"\x00" + BOMBS[".jpg"][20:]}
BOMBS |= {"rotated jpeg": tagged(BOMBS[".jpg"], 6)}


@pytest.mark.parametrize("name", BOMBS)
def test_large_image_is_not_decoded(name, no_decoder):  # noqa: ARG001
    with pytest.raises(MediaError, match=r"^it has more than 0\.00307 megapixels: scale the image down$"):
        decode_image(BOMBS[name], "it", max_pixels=64 * 48 - 1)


@pytest.mark.parametrize("name", BOMBS)
def test_image_of_the_largest_size_is_decoded(name):
    assert decode_image(BOMBS[name], "it", max_pixels=64 * 48).size == 3 * 64 * 48


def test_image_of_unknown_size_is_not_decoded(no_decoder):  # noqa: ARG001
    assert UNREADABLE in error_of(decode_image, b"\x76\x2f\x31\x01" + bytes(99), "it")


@pytest.mark.parametrize("name", ["absent.jpg", "folder.jpg"])
def test_missing_file_and_folder_are_reported(name, tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    assert "cannot be opened" in error_of(read_image, tmp_path / name)


def test_images_of_a_folder_are_sorted_by_name(tmp_path):
    for name in ("b.JPG", "a/z.png", "a/b/c.webp", "c.txt", ".hidden.jpg", ".git/x.png", "._b.jpg", "d.heic"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert names == ["b.JPG", "d.heic", "a/z.png", "a/b/c.webp"]


def test_folder_without_images_is_reported(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert "contains no images" in error_of(list, find_images(tmp_path))


def test_kind_of_source_depends_on_name_or_content(tmp_path):
    for name in ("a.MP4", "a.jpg", "a.txt"):
        (tmp_path / name).write_bytes(b"text\n" * 99)
    (tmp_path / "photo").write_bytes(encoded(".png"))
    kinds = {name: source_kind(str(tmp_path / name)) for name in ("", "a.MP4", "a.jpg", "photo")}
    assert kinds == {"": "folder", "a.MP4": "video", "a.jpg": "image", "photo": "image"}
    assert source_kind("camera:0") == "camera"
    assert "is not a known image or video format" in error_of(source_kind, str(tmp_path / "a.txt"))
    assert "does not exist" in error_of(source_kind, str(tmp_path / "absent.mp4"))


def moving(count):
    return (np.roll(picture(), 2 * shift, axis=1) for shift in range(count))


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm"])
def test_video_frames_have_their_times(suffix, tmp_path):
    path = write_video(tmp_path / f"v{suffix}", moving(12), fps=20)
    with open_video(path) as video:
        assert (video.name, video.fps, video.frames, video.live) == (str(path), 20, 12, False)
        times, frames = zip(*video, strict=True)
    assert times == pytest.approx([number / 20 for number in range(12)], abs=1e-3)
    assert np.abs(corners(frames[0]) - CORNERS).max() < 40
    assert frames[0].shape == (48, 64, 3)
    assert np.abs(frames[3][:, 8].astype(int) - frames[0][:, 2]).mean() < 20  # it moves


def test_variable_frame_rate_is_respected(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving(8), fps=10)
    slow_down(path, 4, 3)
    with open_video(path) as video:
        times = [at_s for at_s, _ in video]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.7, 1.0, 1.3], abs=1e-3)


def test_trimmed_video_is_not_truncated(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving(8), fps=10)
    slow_down(path, 4, 3, trimmed=True)
    with open_video(path) as video:
        assert (len(list(video)), video.frames) == (6, 8)


class CaptureWithoutTimes:
    """A capture without frame rate and number of frames, and with wrong times."""

    def __init__(self, times_s):
        self.times_s, self.now_s = list(times_s), 0.0

    def get(self, what):
        return 1000 * self.now_s if what == cv2.CAP_PROP_POS_MSEC else float("nan")

    def read(self):
        if not self.times_s:
            return False, None
        self.now_s = self.times_s.pop(0)
        return True, np.zeros((4, 4, 3), np.uint8)


def test_wrong_times_are_replaced_by_the_default_rate(tmp_path):
    (tmp_path / "v.h264").write_bytes(b"a raw stream")
    video = Video(CaptureWithoutTimes([5, 5, 5.5, 2]), str(tmp_path / "v.h264"))
    assert (video.fps, video.frames) == (None, None)
    assert [at_s for at_s, _ in video] == pytest.approx([0, 0.04, 0.5, 0.54])


def read_until_error(video):
    times = []
    try:
        for at_s, _ in video:
            times.append(at_s)
    except MediaError as error:
        return times, str(error)
    raise AssertionError("no error")


def test_camera_frames_have_clock_times(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving(5), fps=1)
    capture = cv2.VideoCapture(str(path))
    video = Video(capture, "camera:0", live=True)
    assert video.frames is None
    times, message = read_until_error(video)
    assert "sends no more frames" in message
    assert times[0] == 0
    assert times == sorted(times)
    assert times[-1] < 4  # 4 s according to the file


def test_video_is_closed_after_the_block(tmp_path):
    with open_video(write_video(tmp_path / "v.mp4", moving(3))) as video:
        next(iter(video))
    with pytest.raises(MediaError, match="no readable frames"):
        next(iter(video))


def test_truncated_video_raises_after_its_last_frame(tmp_path):
    path = write_video(tmp_path / "v.avi", (NOISE for _ in range(20)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_video(path) as video:
        times, message = read_until_error(video)
    assert 5 <= len(times) < 15
    assert f"is truncated after {len(times)} readable frames" in message


def read_frames(source):
    with open_video(source) as video:
        return list(video)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.mp4", b""),
        ("text.mp4", b"a line of text\n" * 999),
        ("list.mp4", b"#EXTM3U\n#EXTINF:10,\nabsent.ts\n"),
        ("audio.avi", b"RIFF" + bytes(4) + b"WAVEfmt " + bytes(40)),
    ],
)
def test_other_file_is_not_a_video(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert "is damaged or not a readable video" in error_of(read_frames, tmp_path / name)


def test_truncated_mp4_is_reported(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving(20))
    path.write_bytes(path.read_bytes()[:-200])
    assert "is damaged or not a readable video" in error_of(read_frames, path)
    assert "is not a file" in error_of(read_frames, tmp_path)


@pytest.mark.parametrize(("source", "remedy"), [("camera:99", "connect the camera"), ("camera:x", "use camera:0")])
def test_missing_camera_is_reported(source, remedy, capfd):
    assert remedy in error_of(read_frames, source)
    assert capfd.readouterr() == ("", "")
