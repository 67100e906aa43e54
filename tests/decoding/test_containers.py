"""The header of a video gives its frames and orientation, or nothing; no bytes of it give an error."""

import struct

import numpy as np
import pytest
from tests.support.pictures import box, picture
from tests.support.videos import set_matrix, slow_down, write_video

from emotion_detection.decoding.containers import VideoTrack, is_damaged_matroska, read_track
from emotion_detection.errors import MediaError
from emotion_detection.inference.media import open_video


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A file of eight frames in each container."""
    folder = tmp_path_factory.mktemp("films")
    frames = [np.roll(picture(), 3 * number, axis=1) for number in range(8)]
    return {suffix: write_video(folder / f"v{suffix}", frames, fps=10) for suffix in (".mp4", ".avi", ".webm", ".mkv")}


def copy(path, folder):
    target = folder / path.name
    target.write_bytes(path.read_bytes())
    return target


def test_header_tells_the_frames(films):
    assert read_track(films[".mp4"]) == VideoTrack("iso", 8, is_trimmed=False, orientation=1)
    assert read_track(films[".avi"]) == VideoTrack("avi")
    assert read_track(films[".webm"]) == read_track(films[".mkv"]) == VideoTrack("matroska")


def test_matrix_is_an_orientation(films, tmp_path):
    path = copy(films[".mp4"], tmp_path)
    set_matrix(path, 0, 1, -1, 0)
    assert read_track(path).orientation == 6
    set_matrix(path, 7, 1, 3, 2)  # none of the eight
    assert read_track(path).orientation == 1


def test_edit_list_that_hides_frames_is_noticed(films, tmp_path):
    path = copy(films[".mp4"], tmp_path)
    slow_down(path, 4, 3, trimmed=True)
    assert read_track(path).is_trimmed


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"ab",
        b"\0\0\0\x08ftyp",
        box(b"ftyp", b"isom") + struct.pack(">I4s", 3, b"moov"),
        box(b"ftyp", b"isom") + struct.pack(">I4sQ", 1, b"moov", 3),
        box(b"ftyp", b"isom") + struct.pack(">I4sQ", 1, b"free", (1 << 64) - 1),
        box(b"ftyp", b"isom") + box(b"moov", box(b"mvhd", bytes(8))),
        box(b"ftyp", b"isom") + box(b"moov", box(b"mvhd", bytes(100)) + box(b"trak", b"")),
        box(b"ftyp", b"isom") + box(b"free", b"") * 200_000,
    ],
)
def test_damaged_header_gives_no_error(content, tmp_path):
    (tmp_path / "v.mp4").write_bytes(content)
    track = read_track(tmp_path / "v.mp4")
    assert (track.frames, track.orientation) == (None, None)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_any_changed_byte_gives_no_error(suffix, films, tmp_path):
    content = films[suffix].read_bytes()
    path = tmp_path / f"v{suffix}"
    random = np.random.default_rng(0)
    for place in random.integers(0, len(content), 300):
        path.write_bytes(content[:place] + random.bytes(4) + content[place + 4 :])
        read_track(path)
        if suffix == ".webm":
            is_damaged_matroska(path)


def test_damage_of_matroska_is_found(films, tmp_path):
    content = films[".mkv"].read_bytes()
    path = tmp_path / "v.mkv"
    half = len(content) // 2
    changed = {
        "intact": content,
        "longer": content + b"and more",
        "cut": content[:half],
        "zeros": content[:half] + bytes(half // 2) + content[half + half // 2 :],
        "only a header": content[:100],
        "text": b"no film",
    }
    damaged = {}
    for name, changed_content in changed.items():
        path.write_bytes(changed_content)
        damaged[name] = is_damaged_matroska(path)
    assert damaged == {name: name not in ("intact", "longer") for name in changed}


@pytest.mark.parametrize("suffix", [".webm", ".mkv"])
def test_sound_that_is_longer_than_the_film_is_no_damage(suffix, films, tmp_path):
    """The duration of the segment (0x4489) is that of its longest track."""
    content = bytearray(films[suffix].read_bytes())
    place = content.index(b"\x44\x89\x88") + 3
    content[place : place + 8] = struct.pack(">d", 3 * struct.unpack(">d", content[place : place + 8])[0])
    (tmp_path / f"v{suffix}").write_bytes(content)
    with open_video(tmp_path / f"v{suffix}") as video:
        assert len(list(video)) == 8
    (tmp_path / f"v{suffix}").write_bytes(content[: len(content) // 2])
    with open_video(tmp_path / f"v{suffix}") as video, pytest.raises(MediaError, match="could be read"):
        list(video)
