"""Drawn frames can be read at any size and hide no other face; a film keeps the time of its source."""

import cv2
import numpy as np
import pytest

from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import InputError
from emotion_detection.inference.annotate import draw, save
from emotion_detection.inference.media import open_video, read_image
from emotion_detection.inference.reading import Box, Reading
from emotion_detection.inference.video_writer import CODECS, video_writer
from emotion_detection.plotting.colors import COLORS, rgb

SURE = {"happy": 0.8, "sad": 0.2}
TORN = {"happy": 0.3, "sad": 0.25, "fear": 0.25, "angry": 0.2}


def reading(box, shares=SURE, *, track=None):
    return Reading(Box(*box), np.array([shares.get(emotion, 0) for emotion in EMOTIONS], np.float32), track)


def plain(width_px=640, height_px=480):
    return np.full((height_px, width_px, 3), 90, np.uint8)


def colored(frame, emotion):
    return (frame == rgb(COLORS[emotion])).all(axis=2)


def changed(frame, before):
    """Left, top, right and bottom of what differs."""
    rows, columns = (frame != before).any(axis=2).nonzero()
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_a_frame_is_copied_not_drawn_upon():
    frame = plain()
    frame.flags.writeable = False
    drawn = draw(frame[:, ::-1], [reading((200, 150, 140, 140))])
    assert (drawn.shape, drawn.dtype) == (frame.shape, np.uint8)
    assert (frame == 90).all()
    assert (draw(frame, []) == frame).all()


@pytest.mark.parametrize("size", [(320, 240), (640, 480), (1280, 720), (3840, 2160)])
def test_a_label_can_be_read_at_any_size(size):
    side = size[1] // 4
    box = (size[0] // 2, size[1] // 2, side, side)
    drawn = draw(plain(*size), [reading(box)])
    plate = colored(drawn, "happy")[: box[1], box[0] + 2]  # where no letter stands
    assert max(18, 0.04 * size[1]) < plate.sum() < 0.15 * size[1]  # its height in px
    left = colored(drawn, "happy")[box[1] + side // 2, : box[0] + side // 2]
    assert left.sum() >= size[1] / 300  # the box's line


def test_bars_are_as_long_as_the_probabilities():
    box = (100, 100, 40, 40)  # too small for names in the bars
    shares = {"angry": 0.5, "fear": 0.25, "neutral": 0.25}
    drawn = draw(plain(), [reading(box, shares)])[:, 141:]
    lengths = {emotion: colored(drawn, emotion)[102:, 1:].sum(axis=1).max() for emotion in EMOTIONS}
    assert lengths["disgust"] == lengths["happy"] == 0
    assert lengths["angry"] == pytest.approx(2 * lengths["fear"], abs=1)
    assert lengths["fear"] == lengths["neutral"] > 0


def test_an_unsure_reading_looks_unsure():
    box = (100, 100, 200, 200)
    lines = [
        colored(draw(plain(1920, 1080), [reading(box, shares)]), "happy")[200, :200].sum() for shares in (SURE, TORN)
    ]
    assert lines[0] > lines[1] >= 1


def test_the_number_of_a_person_stands_on_the_label():
    boxes = [draw(plain(), [reading((100, 100, 90, 90), track=track)]) for track in (None, 1, 2)]
    assert len({drawn.tobytes() for drawn in boxes}) == 3


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 100, 100),
        (540, 380, 100, 100),
        (-30, -30, 100, 100),
        (600, 440, 100, 100),
        (0, 0, 640, 480),
        (-50, -50, 800, 700),
        (300, 200, 1, 1),
        (600, 0, 40, 40),
    ],
)
def test_a_face_at_the_border_keeps_its_label_in_the_frame(box):
    frame = plain()
    drawn = draw(frame, [reading(box, track=12)])
    plate = colored(drawn, "happy").sum(axis=1).max()
    assert plate > 60  # its longest row
    assert colored(drawn, "sad").any()  # a bar


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (30, 400), (400, 30)])
def test_a_tiny_frame_is_drawn_on(size):
    assert draw(plain(*size), [reading((0, 0, 30, 30))]).shape == (size[1], size[0], 3)


def test_bars_hide_no_other_face():
    # The first has a neighbour on its right, the second on its left and the frame's end on its right.
    boxes = [(300, 100, 140, 140), (480, 100, 140, 140)]
    for mine, other in (boxes, boxes[::-1]):
        drawn = draw(plain(), [reading(mine, TORN), reading(other, TORN)])
        exclusive_store = draw(plain(), [reading(other, TORN)])
        inside = np.s_[other[1] + 5 : other[1] + 135, other[0] + 5 : other[0] + 135]
        assert (drawn[inside] == exclusive_store[inside]).all()


def test_bars_between_faces_stand_inside_narrow():
    crowd = [reading((left, top, 100, 100)) for left in range(10, 600, 105) for top in range(60, 400, 105)]
    frame = plain()
    drawn = draw(frame, crowd)
    box = crowd[6].box
    untouched = (drawn == frame).all(axis=2)[box.top + 40 : box.top + 70, box.left + 5 : box.left + 70]
    assert untouched.all()


@pytest.mark.parametrize(("name", "worst"), [("a.png", 0), ("b/c.jpg", 12), ("d.jfif", 12)])
def test_a_drawn_picture_is_saved(name, worst, tmp_path):
    frame = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8), (0, 0), 5)
    save(frame, tmp_path / name)
    assert np.abs(read_image(tmp_path / name).astype(int) - frame).max() <= worst


def played(path):
    with open_video(path) as video:
        return [(round(at_s, 2), int(frame[:, :, 0].mean())) for at_s, frame in video]


def gray(value, width_px=64):
    return np.full((48, width_px, 3), value, np.uint8)


@pytest.mark.parametrize("suffix", CODECS)
def test_a_film_is_a_video_of_its_frames(suffix, tmp_path, capfd):
    with video_writer(tmp_path / f"f{suffix}", 10) as reel:
        for number in range(10):
            reel.add(number / 10, gray(20 * number))
    seen = played(tmp_path / f"f{suffix}")
    assert [at_s for at_s, _ in seen] == [number / 10 for number in range(10)]
    assert [value for _, value in seen] == pytest.approx([20 * number for number in range(10)], abs=6)
    assert [file.name for file in tmp_path.iterdir()] == [f"f{suffix}"]
    assert capfd.readouterr() == ("", "")


def test_a_film_keeps_red_red(tmp_path):
    red = gray(0)
    red[..., 0] = 200
    with video_writer(tmp_path / "f.mp4", 10) as reel:
        reel.add(0.0, red)
    with open_video(tmp_path / "f.mp4") as video:
        ((_, frame),) = video
    assert frame[24, 32] == pytest.approx([200, 0, 0], abs=12)


def test_a_film_of_an_unsteady_source_keeps_its_time(tmp_path):
    with video_writer(tmp_path / "f.mp4", 10) as reel:
        for at_s, value in ((0, 0), (0.1, 50), (0.12, 100), (0.5, 150), (0.61, 200)):
            reel.add(at_s, gray(value))
    values = [value for _, value in played(tmp_path / "f.mp4")]
    assert values == pytest.approx([0, 50, 100, 100, 100, 150, 200], abs=6)


def test_a_film_does_not_fill_the_disk_with_a_leap_in_time(tmp_path):
    with video_writer(tmp_path / "f.mp4", 10) as reel:
        for at_s in (0, 0.1, 1e6, 1e6 + 0.1):
            reel.add(at_s, gray(100))
    assert len(played(tmp_path / "f.mp4")) == 4


def test_a_film_takes_frames_of_other_sizes_and_rates(tmp_path):
    with video_writer(tmp_path / "f.mp4", None) as reel:
        reel.add(0.0, gray(100))
        reel.add(0.04, gray(100, width_px=100))
    with video_writer(tmp_path / "g.mp4", 240.0) as fast:
        for number in range(24):
            fast.add(number / 240, gray(100))
    assert len(played(tmp_path / "f.mp4")) == 2
    assert len(played(tmp_path / "g.mp4")) == 7  # a tenth of a second, at 60 a second


def test_a_film_of_another_form_is_told(tmp_path):
    with pytest.raises(InputError, match=r"neither .mp4 .* nor .webm"), video_writer(tmp_path / "f.gif", 10):
        pass
    assert not list(tmp_path.iterdir())


def test_a_film_is_whole_or_not_there(tmp_path):
    def fail():
        with video_writer(tmp_path / "f.mp4", 10) as reel:
            reel.add(0.0, gray(100))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())
