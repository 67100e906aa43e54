"""Folders, videos and cameras give upright RGB frames, or an error with cause and remedy."""

import os
import struct

import cv2
import numpy as np
import pytest
from tests.support.pictures import CORNERS, NOISE, corners, encoded, picture
from tests.support.videos import set_matrix, slow_down, write_video

from emotion_detection.decoding.memory import ENFORCED
from emotion_detection.errors import MediaError
from emotion_detection.inference.media import Video, find_images, open_video, source_kind


def error_of(call, *arguments):
    with pytest.raises(MediaError) as error:
        call(*arguments)
    message = str(error.value)
    assert "\n" not in message
    assert ": " in message  # the cause, then the remedy
    return message


def test_images_of_a_folder_are_sorted_by_name(tmp_path):
    for name in ("b.JPG", "a/z.png", "a/b/c.webp", "c.txt", ".hidden.jpg", ".git/x.png", "._b.jpg", "d.heic"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert names == ["b.JPG", "d.heic", "a/z.png", "a/b/c.webp"]


def test_folder_contains_what_is_read_when_it_is_named_alone(tmp_path):
    names = ("a.jp2", "a.jpe", "a.pgm", "a.ppm", "photo", "a.dat")
    for name in names:
        form = {"a.jpe": ".jpg", "photo": ".png", "a.dat": ".webp"}.get(name, name[1:])
        (tmp_path / name).write_bytes(encoded(form, picture()[..., 0] if form == ".pgm" else None))
    (tmp_path / "notes").write_text("BMW\n")
    (tmp_path / "a.mp4").write_bytes(b"a video")
    assert {path.name for path in find_images(tmp_path)} == set(names)
    assert {source_kind(str(tmp_path / name)) for name in names} == {"image"}
    assert "is not a known image" in error_of(source_kind, str(tmp_path / "notes"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe")
def test_pipe_in_a_folder_is_skipped(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(encoded(".jpg"))
    assert [path.name for path in find_images(tmp_path)] == ["b.jpg"]


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


def numbered(count):
    """Frames whose gray level is their number."""
    noise = cv2.resize(NOISE[::8, ::8], (160, 120), interpolation=cv2.INTER_CUBIC)
    for number in range(count):
        frame = np.roll(noise, 3 * number, axis=1)
        frame[:24, :24] = 2 * number
        yield frame


def number_of(frame):
    return round(frame[4:20, 4:20].mean() / 2)


def read_kept(path):
    """The numbers of the frames that are read, and the error message at the end (empty if there is none)."""
    numbers: list[int] = []
    message = ""
    with open_video(path) as video:
        try:
            numbers.extend(number_of(frame) for _, frame in video)
        except MediaError as error:
            message = str(error)
    return numbers, message


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A file of 60 frames in each container, written once."""
    folder = tmp_path_factory.mktemp("films")
    return {suffix: write_video(folder / f"v{suffix}", numbered(60)).read_bytes() for suffix in CONTAINERS}


CONTAINERS = (".mp4", ".mov", ".avi", ".webm", ".mkv", ".ts", ".mpg", ".flv")


@pytest.mark.parametrize("filling", ["zeros", "noise"])
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_frames_after_a_damaged_part_are_read(suffix, filling, films, tmp_path):
    content = bytearray(films[suffix])
    start, end = int(0.4 * len(content)), int(0.55 * len(content))
    noise = np.random.default_rng(0).integers(0, 256, end - start, np.uint8).tobytes()
    content[start:end] = bytes(end - start) if filling == "zeros" else noise
    (tmp_path / f"v{suffix}").write_bytes(content)
    numbers, message = read_kept(tmp_path / f"v{suffix}")
    assert len(numbers) >= 44
    assert numbers[-1] == pytest.approx(59, abs=1)
    assert f"v{suffix}: {len(numbers)} of 60 frames could be read" in message


@pytest.mark.parametrize("suffix", [".avi", ".webm", ".mkv", ".flv"])
def test_cut_video_keeps_its_frames_and_is_reported(suffix, films, tmp_path):
    (tmp_path / f"v{suffix}").write_bytes(films[suffix][: int(0.6 * len(films[suffix]))])
    numbers, message = read_kept(tmp_path / f"v{suffix}")
    assert len(numbers) == pytest.approx(36, abs=3)
    assert f"{len(numbers)} of 60 frames could be read" in message


def test_cut_mp4_with_its_header_first_is_reported(films, tmp_path):
    """Players call it fast start: the box moov comes before mdat."""
    content = films[".mp4"]
    place = content.rindex(b"moov") - 4
    moov = bytearray(content[place:])
    table = moov.index(b"stco") + 12
    count = int.from_bytes(moov[table - 4 : table], "big")
    first = content.index(b"mdat") - 4
    for entry in range(table, table + 4 * count, 4):
        offset = int.from_bytes(moov[entry : entry + 4], "big") + len(moov)
        moov[entry : entry + 4] = offset.to_bytes(4, "big")
    (tmp_path / "v.mp4").write_bytes(content[:first] + moov + content[first:place])
    assert read_kept(tmp_path / "v.mp4") == (read_kept(tmp_path / "v.mp4")[0], "")
    size = (tmp_path / "v.mp4").stat().st_size
    (tmp_path / "v.mp4").write_bytes((tmp_path / "v.mp4").read_bytes()[: int(0.6 * size)])
    numbers, message = read_kept(tmp_path / "v.mp4")
    assert 30 < len(numbers) < 45
    assert f"{len(numbers)} of 60 frames could be read" in message


def last_box(size):
    """Bytes that look like one more box of this size."""
    return lambda content: content + size.to_bytes(4, "big") + b"abcd" + bytes(20)


ODD = {
    "noise": lambda content: content + np.random.default_rng(1).bytes(5000),
    "zeros": lambda content: content + bytes(5000),
    "text": lambda content: content + b"a note\n" * 99,
    "box that is too long": last_box(0xFFFFFFFF),
    "box that is too short": last_box(3),
    "box up to the end": last_box(0),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("suffix", CONTAINERS)
def test_bytes_after_the_end_are_no_damage(suffix, odd, films, tmp_path):
    (tmp_path / f"v{suffix}").write_bytes(ODD[odd](films[suffix]))
    numbers, message = read_kept(tmp_path / f"v{suffix}")
    assert (len(numbers), message) == (60, "")


@pytest.mark.parametrize("value", [0, 0xFFFFFFFF])
def test_wrong_size_of_a_riff_is_no_damage(value, films, tmp_path):
    content = films[".avi"]
    (tmp_path / "v.avi").write_bytes(content[:4] + value.to_bytes(4, "little") + content[8:])
    numbers, message = read_kept(tmp_path / "v.avi")
    assert (len(numbers), message) == (60, "")


def test_webm_of_unknown_size_is_no_damage(films, tmp_path):
    """As recorded by browsers: the segment has no length."""
    content = bytearray(films[".webm"])
    place = content.index(b"\x18\x53\x80\x67") + 4
    content[place : place + 8] = b"\x01" + b"\xff" * 7
    (tmp_path / "v.webm").write_bytes(content)
    numbers, message = read_kept(tmp_path / "v.webm")
    assert (len(numbers), message) == (60, "")


@pytest.mark.parametrize(
    ("matrix", "stored"),
    [
        ((1, 0, 0, 1), lambda upright: upright),
        ((0, 1, -1, 0), lambda upright: np.rot90(upright)),  # to be rotated clockwise
        ((0, -1, 1, 0), lambda upright: np.rot90(upright, -1)),
        ((-1, 0, 0, -1), lambda upright: upright[::-1, ::-1]),
        ((-1, 0, 0, 1), lambda upright: upright[:, ::-1]),  # mirrored, as by a front camera
        ((1, 0, 0, -1), lambda upright: upright[::-1]),
        ((0, 1, 1, 0), lambda upright: upright.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda upright: upright[::-1, ::-1].swapaxes(0, 1)),
    ],
)
def test_film_is_turned_and_mirrored_by_its_matrix(matrix, stored, tmp_path):
    path = write_video(tmp_path / "v.mp4", [np.ascontiguousarray(stored(picture()))] * 3)
    set_matrix(path, *matrix)
    with open_video(path) as video:
        _, frame = next(iter(video))
    assert frame.shape == (48, 64, 3)
    assert np.abs(corners(frame) - CORNERS).max() < 40


def test_large_frames_are_refused_before_they_are_decoded(films, tmp_path):
    """Motion JPEG: the header and each frame declare the size."""
    content = films[".avi"].replace(struct.pack("<II", 160, 120), struct.pack("<II", 16_000, 16_000))
    stored, large = b"\x08" + struct.pack(">HH", 120, 160), b"\x08" + struct.pack(">HH", 16_000, 16_000)
    (tmp_path / "v.avi").write_bytes(content.replace(stored, large))
    assert "has frames of 16000x16000 pixels" in error_of(read_frames, tmp_path / "v.avi")


@pytest.mark.skipif(not ENFORCED, reason="only Linux limits the memory")
def test_later_frames_that_are_larger_do_not_fill_the_memory(films, tmp_path):
    stored, large = b"\x08" + struct.pack(">HH", 120, 160), b"\x08" + struct.pack(">HH", 16_000, 16_000)
    first, rest = films[".avi"][:100_000], films[".avi"][100_000:]
    (tmp_path / "v.avi").write_bytes(first + rest.replace(stored, large))
    numbers, message = read_kept(tmp_path / "v.avi")
    assert 5 < len(numbers) < 55
    assert f"{len(numbers)} of 60 frames could be read" in message


PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{film}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{film}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 49170 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "dash": '<?xml version="1.0"?><MPD type="static" mediaPresentationDuration="PT1S"><Period><AdaptationSet>'
    '<Representation id="1" mimeType="video/mp4" bandwidth="1"><BaseURL>{film}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".avi", ".webm"])
@pytest.mark.parametrize("form", PLAYLISTS)
def test_playlist_opens_no_other_file(form, suffix, films, tmp_path):
    (tmp_path / "film.ts").write_bytes(films[".ts"])
    (tmp_path / f"list{suffix}").write_text(PLAYLISTS[form].format(film=tmp_path / "film.ts"))
    assert "is damaged or not a readable video" in error_of(read_frames, tmp_path / f"list{suffix}")


def test_settings_of_ffmpeg_are_restored(films, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "own")
    monkeypatch.delenv("OPENCV_FFMPEG_LOGLEVEL", raising=False)
    (tmp_path / "v.mp4").write_bytes(films[".mp4"])
    assert len(read_frames(tmp_path / "v.mp4")) == 60
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "own"
    assert "OPENCV_FFMPEG_LOGLEVEL" not in os.environ


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
