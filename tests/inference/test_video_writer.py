"""A written video contains the frames of its source, with the timing of the source."""

import numpy as np
import pytest

from emotion_detection.errors import MediaError, UsageError
from emotion_detection.inference.media import open_video
from emotion_detection.inference.video_writer import CODECS, VideoWriter, video_writer


def gray_frame(value, width_px=64):
    return np.full((48, width_px, 3), value, np.uint8)


def read_frames(path):
    """Time and mean gray value of each frame."""
    with open_video(path) as video:
        return [(round(time_s, 2), int(frame[:, :, 0].mean())) for time_s, frame in video]


@pytest.mark.parametrize("suffix", CODECS)
def test_frames_are_written_without_messages(suffix, tmp_path, capfd):
    with video_writer(tmp_path / f"v{suffix}", 10) as writer:
        for number in range(10):
            writer.add(number / 10, gray_frame(20 * number))
    times, values = zip(*read_frames(tmp_path / f"v{suffix}"), strict=True)
    assert list(times) == [number / 10 for number in range(10)]
    assert values == pytest.approx([20 * number for number in range(10)], abs=6)
    assert [file.name for file in tmp_path.iterdir()] == [f"v{suffix}"]
    assert capfd.readouterr() == ("", "")


def test_red_stays_red(tmp_path):
    red = gray_frame(0)
    red[..., 0] = 200
    with video_writer(tmp_path / "v.mp4", 10) as writer:
        writer.add(0.0, red)
    with open_video(tmp_path / "v.mp4") as video:
        ((_, frame),) = video
    assert frame[24, 32] == pytest.approx([200, 0, 0], abs=12)


def test_variable_frame_rate_keeps_its_timing(tmp_path):
    with video_writer(tmp_path / "v.mp4", 10) as writer:
        for time_s, value in ((0, 0), (0.1, 50), (0.12, 100), (0.5, 150), (0.61, 200)):
            writer.add(time_s, gray_frame(value))
    values = [value for _, value in read_frames(tmp_path / "v.mp4")]
    assert values == pytest.approx([0, 50, 100, 100, 100, 150, 200], abs=6)


def test_long_pause_is_removed(tmp_path):
    with video_writer(tmp_path / "v.mp4", 10) as writer:
        for time_s in (0, 0.1, 1e6, 1e6 + 0.1):
            writer.add(time_s, gray_frame(100))
    assert len(read_frames(tmp_path / "v.mp4")) == 4


def test_frames_are_scaled_and_high_rates_limited(tmp_path):
    with video_writer(tmp_path / "v.mp4", None) as writer:
        writer.add(0.0, gray_frame(100))
        writer.add(0.04, gray_frame(100, width_px=100))
    with video_writer(tmp_path / "fast.mp4", 240.0) as writer:
        for number in range(24):
            writer.add(number / 240, gray_frame(100))
    assert len(read_frames(tmp_path / "v.mp4")) == 2
    assert len(read_frames(tmp_path / "fast.mp4")) == 7  # a tenth of a second with 60 frames per second


def test_unknown_suffix_is_reported(tmp_path):
    with pytest.raises(UsageError, match=r"is not an .mp4 .* or .webm"), video_writer(tmp_path / "v.gif", 10):
        pass
    assert not list(tmp_path.iterdir())


def test_video_that_cannot_be_opened_is_reported(tmp_path):
    writer = VideoWriter(tmp_path / "absent" / "v.mp4", 10)
    with pytest.raises(MediaError, match="cannot be written as a video"):
        writer.add(0.0, gray_frame(100))


def test_failure_leaves_no_file(tmp_path):
    def fail():
        with video_writer(tmp_path / "v.mp4", 10) as writer:
            writer.add(0.0, gray_frame(100))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())
