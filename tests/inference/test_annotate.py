"""Annotations are legible at any size and do not cover other faces."""

import cv2
import numpy as np
import pytest

from emotion_detection.decoding.images import read_image
from emotion_detection.emotions import EMOTIONS
from emotion_detection.inference.annotate import draw, save_image
from emotion_detection.inference.reading import Box, Reading
from emotion_detection.plotting.colors import COLORS, rgb

SURE = {"happy": 0.8, "sad": 0.2}
UNSURE = {"happy": 0.3, "sad": 0.25, "fear": 0.25, "angry": 0.2}


def reading(box, shares=SURE, *, track=None):
    return Reading(Box(*box), np.array([shares.get(emotion, 0) for emotion in EMOTIONS], np.float32), track)


def plain(width_px=640, height_px=480):
    return np.full((height_px, width_px, 3), 90, np.uint8)


def colored(frame, emotion):
    return (frame == rgb(COLORS[emotion])).all(axis=2)


def test_frame_is_not_changed():
    frame = plain()
    frame.flags.writeable = False
    drawn = draw(frame[:, ::-1], [reading((200, 150, 140, 140))])
    assert (drawn.shape, drawn.dtype) == (frame.shape, np.uint8)
    assert (frame == 90).all()
    assert (draw(frame, []) == frame).all()


@pytest.mark.parametrize("size", [(320, 240), (640, 480), (1280, 720), (3840, 2160)])
def test_label_is_legible_at_any_size(size):
    side = size[1] // 4
    box = (size[0] // 2, size[1] // 2, side, side)
    drawn = draw(plain(*size), [reading(box)])
    plate = colored(drawn, "happy")[: box[1], box[0] + 2]  # left of the letters
    assert max(18, 0.04 * size[1]) < plate.sum() < 0.15 * size[1]  # its height in px
    left = colored(drawn, "happy")[box[1] + side // 2, : box[0] + side // 2]
    assert left.sum() >= size[1] / 300  # the box's line


def test_bar_lengths_are_proportional_to_probabilities():
    box = (100, 100, 40, 40)  # too small for names in the bars
    shares = {"angry": 0.5, "fear": 0.25, "neutral": 0.25}
    drawn = draw(plain(), [reading(box, shares)])[:, 141:]
    lengths = {emotion: colored(drawn, emotion)[102:, 1:].sum(axis=1).max() for emotion in EMOTIONS}
    assert lengths["disgust"] == lengths["happy"] == 0
    assert lengths["angry"] == pytest.approx(2 * lengths["fear"], abs=1)
    assert lengths["fear"] == lengths["neutral"] > 0


def test_unsure_reading_has_a_thin_box():
    box = (100, 100, 200, 200)
    lines = [
        colored(draw(plain(1920, 1080), [reading(box, shares)]), "happy")[200, :200].sum() for shares in (SURE, UNSURE)
    ]
    assert lines[0] > lines[1] >= 1


def test_label_contains_the_track():
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
def test_label_and_bars_stay_in_the_frame(box):
    frame = plain()
    drawn = draw(frame, [reading(box, track=12)])
    plate = colored(drawn, "happy").sum(axis=1).max()
    assert plate > 60  # its longest row
    assert colored(drawn, "sad").any()  # a bar


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (30, 400), (400, 30)])
def test_tiny_frame_is_annotated(size):
    assert draw(plain(*size), [reading((0, 0, 30, 30))]).shape == (size[1], size[0], 3)


def test_bars_do_not_cover_another_face():
    # The first face has a neighbor to the right; the second has a neighbor to the left and the border to the right.
    boxes = [(300, 100, 140, 140), (480, 100, 140, 140)]
    for first, second in (boxes, boxes[::-1]):
        drawn = draw(plain(), [reading(first, UNSURE), reading(second, UNSURE)])
        single = draw(plain(), [reading(second, UNSURE)])
        inside = np.s_[second[1] + 5 : second[1] + 135, second[0] + 5 : second[0] + 135]
        assert (drawn[inside] == single[inside]).all()


def darkened(frame, drawn):
    """Where a panel was drawn: a third of the background's brightness."""
    return (drawn == frame // 3).all(axis=2)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((360, 480), (70, 154, 234, 234)),  # room for a small panel only
        ((360, 480), (20, 60, 320, 320)),  # room below only
        ((480, 480), (160, 0, 320, 320)),
        ((1500, 2000), (295, 647, 956, 956)),
        ((300, 300), (4, 4, 292, 292)),  # no room at all
    ],
)
def test_panel_covers_no_part_of_a_face_in_a_portrait(size, box):
    frame = plain(*size)
    drawn = draw(frame, [reading(box)])
    left, top, width, height = box
    inside = np.s_[top + 5 : top + height - 5, left + 5 : left + width - 5]
    assert not darkened(frame, drawn)[inside].any()
    assert colored(drawn, "sad").any()  # the bars are there


def test_panel_is_next_to_its_face_when_there_are_several():
    boxes = [(20, 200, 250, 250), (370, 200, 250, 250)]
    frame = plain()
    drawn = darkened(frame, draw(frame, [reading(box) for box in boxes]))
    assert drawn[:, 276:364].any()  # between the faces
    for left, top, width, height in boxes:
        assert not drawn[top + 5 : top + height - 5, left + 5 : left + width - 5].any()


def test_bars_in_a_crowd_are_narrow_and_inside_the_box():
    crowd = [reading((left, top, 100, 100)) for left in range(10, 600, 105) for top in range(60, 400, 105)]
    frame = plain()
    drawn = draw(frame, crowd)
    box = crowd[6].box
    untouched = (drawn == frame).all(axis=2)[box.top + 40 : box.top + 70, box.left + 5 : box.left + 70]
    assert untouched.all()


@pytest.mark.parametrize(("name", "worst"), [("a.png", 0), ("b/c.jpg", 12), ("d.jfif", 12)])
def test_annotated_image_is_saved(name, worst, tmp_path):
    frame = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8), (0, 0), 5)
    save_image(frame, tmp_path / name)
    assert np.abs(read_image(tmp_path / name).astype(int) - frame).max() <= worst
