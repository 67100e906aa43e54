"""Draw readings on a frame: box, label and probability bars of each face."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from emotion_detection.arrays import Frame
from emotion_detection.emotions import EMOTIONS
from emotion_detection.inference.reading import Box, Reading
from emotion_detection.plotting.colors import COLORS, LIGHT, rgb, text_color

FONT = cv2.FONT_HERSHEY_DUPLEX  # OpenCV's fonts contain ASCII only
MIN_LABEL_PX = 10
MIN_NAME_PX = 8
MIN_BAR_PX = 3


def draw(frame_rgb: Frame, readings: Sequence[Reading]) -> Frame:
    """Return a copy of the frame with the box, the label and seven bars of each reading.

    The bars are in the order of EMOTIONS; 100 % is as wide as their panel. All sizes scale with the frame and the
    face. An unsure reading has a thin box and a question mark.
    """
    drawn = np.array(frame_rgb, order="C")
    for reading in readings:
        _draw_box(drawn, reading)
    panels: list[Box] = []
    for reading in readings:
        faces = [face.box for face in readings if face is not reading]
        panels.append(_draw_bars(drawn, reading, faces + panels))
    for reading in readings:  # last, so that nothing covers the text
        _draw_label(drawn, reading)
    return drawn


def _line_px(frame: Frame) -> int:
    return max(1, round(min(frame.shape[:2]) / 240))


def _draw_box(frame: Frame, reading: Reading) -> None:
    box, line_px = reading.box, _line_px(frame)
    start, end = (box.left, box.top), (box.left + box.width - 1, box.top + box.height - 1)
    cv2.rectangle(frame, start, end, rgb(COLORS[reading.emotion]), max(1, line_px // 3) if reading.unsure else line_px)


def _draw_label(frame: Frame, reading: Reading) -> None:
    """Draw track, emotion and confidence above the box, or inside it at the top of the frame."""
    box, color = reading.box, COLORS[reading.emotion]
    track = "" if reading.track is None else f"{reading.track} "
    text = f"{track}{reading.emotion}{'?' if reading.unsure else ''} {reading.confidence:.0%}"
    shorter_px = min(frame.shape[:2])
    bounds = (max(MIN_LABEL_PX, shorter_px / 45), max(MIN_LABEL_PX, shorter_px / 18))
    letter_px = round(float(np.clip(box.width / 8, *bounds)))
    width_px, height_px = _text_px(text, letter_px), round(1.9 * letter_px)
    left = max(0, min(box.left, frame.shape[1] - width_px - letter_px))
    top = box.top - height_px if box.top >= height_px else max(box.top, 0)
    cv2.rectangle(frame, (left, top), (left + width_px + letter_px, top + height_px), rgb(color), cv2.FILLED)
    _write(frame, text, (left + letter_px // 2, top + round(1.4 * letter_px)), letter_px, color=text_color(color))


def _text_px(text: str, letter_px: int) -> int:
    (width_px, _), _ = cv2.getTextSize(text, FONT, _scale(letter_px), _stroke_px(letter_px))
    return int(width_px)


def _write(frame: Frame, text: str, start: tuple[int, int], letter_px: int, *, color: str) -> None:
    cv2.putText(frame, text, start, FONT, _scale(letter_px), rgb(color), _stroke_px(letter_px), cv2.LINE_AA)


def _scale(letter_px: int) -> float:
    return float(cv2.getFontScaleFromHeight(FONT, letter_px, _stroke_px(letter_px)))


def _stroke_px(letter_px: int) -> int:
    return max(1, round(letter_px / 14))


def _draw_bars(frame: Frame, reading: Reading, occupied: Sequence[Box]) -> Box:
    """Draw seven bars on a darkened panel, with names if they are legible. Return the panel."""
    row_px = max(MIN_BAR_PX, reading.box.height // len(EMOTIONS))
    letter_px = row_px // 2
    names_px = _text_px("surprise", letter_px) + letter_px if letter_px >= MIN_NAME_PX else 0
    size = (max(row_px, round(0.45 * reading.box.width), names_px), row_px * len(EMOTIONS))
    place = _panel(frame, reading.box, size, occupied=occupied)
    panel = frame[place.top : place.top + place.height, place.left : place.left + place.width]
    panel[:] = panel // 3  # the colors are legible on any background
    for row, (emotion, probability) in enumerate(zip(EMOTIONS, reading.probabilities, strict=True)):
        top, length_px = row * row_px, round(float(probability) * place.width)
        panel[top + row_px // 8 : top + row_px - row_px // 8, :length_px] = rgb(COLORS[emotion])
        if 0 < names_px <= place.width:
            _write(panel, emotion, (letter_px // 2, top + round(0.75 * row_px)), letter_px, color=LIGHT)
    return place


def _panel(frame: Frame, box: Box, size: tuple[int, int], *, occupied: Sequence[Box]) -> Box:
    """Return the first free place: right of the box, left of it, below it, or else a narrow strip inside it."""
    frame_height, frame_width = frame.shape[:2]
    width, height = min(size[0], frame_width), min(size[1], frame_height)
    gap = _line_px(frame) + 1
    level = max(0, min(box.top, frame_height - height))
    right, below = box.left + box.width + gap, box.top + box.height + gap
    for left, top in ((right, level), (box.left - gap - width, level), (box.left, below)):
        place = Box(left, top, width, height)
        fits = 0 <= left <= frame_width - width and top <= frame_height - height
        if fits and not any(place.overlap(face) > 0 for face in occupied):
            return place
    narrow = min(width, max(1, box.width // 4))
    inside = box.left + box.width - narrow
    return Box(max(0, min(inside, frame_width - narrow)), level, narrow, height)


def save_image(frame_rgb: Frame, path: Path) -> None:
    """Write an RGB frame in the format of the suffix. Creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = ".jpg" if path.suffix.lower() == ".jfif" else path.suffix
    encoded = cv2.imencode(suffix, cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2BGR))[1]
    path.write_bytes(encoded.tobytes())  # raises OSError on a full disk; imwrite only returns False
