"""Draw readings on a frame: box, label and probability bars of each face."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
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
ROW_SCALES = (1.0, 0.7, 0.5)  # of a seventh of the box: a smaller panel is better than one on a face


def draw(frame_rgb: Frame, readings: Sequence[Reading]) -> Frame:
    """Return a copy of the frame with the box, the label and seven bars of each reading.

    The bars are in the order of EMOTIONS; 100 % is as wide as their panel. All sizes scale with the frame and the
    face. An unsure reading has a thin box and a question mark. A panel covers no face: where none has room, the bars
    are a small strip without a background.
    """
    drawn = np.array(frame_rgb, order="C")
    for reading in readings:
        _draw_box(drawn, reading)
    occupied = [reading.box for reading in readings] + [_label(drawn, reading).place for reading in readings]
    for reading in readings:
        occupied.append(_draw_bars(drawn, reading, occupied, alone=len(readings) == 1))
    for reading in readings:  # last, so that nothing covers the text
        _draw_label(drawn, reading)
    return drawn


def _line_px(frame: Frame) -> int:
    return max(1, round(min(frame.shape[:2]) / 240))


def _draw_box(frame: Frame, reading: Reading) -> None:
    box, line_px = reading.box, _line_px(frame)
    start, end = (box.left, box.top), (box.left + box.width - 1, box.top + box.height - 1)
    cv2.rectangle(frame, start, end, rgb(COLORS[reading.emotion]), max(1, line_px // 3) if reading.unsure else line_px)


@dataclass(frozen=True)
class _Label:
    """The text of a reading, and the plate on which it is written."""

    text: str
    letter_px: int
    place: Box


def _label(frame: Frame, reading: Reading) -> _Label:
    """Track, emotion and confidence, above the box, or inside it at the top of the frame."""
    box = reading.box
    track = "" if reading.track is None else f"{reading.track} "
    text = f"{track}{reading.emotion}{'?' if reading.unsure else ''} {reading.confidence:.0%}"
    shorter_px = min(frame.shape[:2])
    bounds = (max(MIN_LABEL_PX, shorter_px / 45), max(MIN_LABEL_PX, shorter_px / 18))
    letter_px = round(float(np.clip(box.width / 8, *bounds)))
    width_px, height_px = _text_px(text, letter_px) + letter_px, round(1.9 * letter_px)
    left = max(0, min(box.left, frame.shape[1] - width_px))
    top = box.top - height_px if box.top >= height_px else max(box.top, 0)
    return _Label(text, letter_px, Box(left, top, width_px, height_px))


def _draw_label(frame: Frame, reading: Reading) -> None:
    label, color = _label(frame, reading), COLORS[reading.emotion]
    left, top, letter_px = label.place.left, label.place.top, label.letter_px
    end = (left + label.place.width, top + label.place.height)
    cv2.rectangle(frame, (left, top), end, rgb(color), cv2.FILLED)
    start = (left + letter_px // 2, top + round(1.4 * letter_px))
    _write(frame, label.text, start, letter_px, color=text_color(color))


def _text_px(text: str, letter_px: int) -> int:
    (width_px, _), _ = cv2.getTextSize(text, FONT, _scale(letter_px), _stroke_px(letter_px))
    return int(width_px)


def _write(frame: Frame, text: str, start: tuple[int, int], letter_px: int, *, color: str) -> None:
    cv2.putText(frame, text, start, FONT, _scale(letter_px), rgb(color), _stroke_px(letter_px), cv2.LINE_AA)


def _scale(letter_px: int) -> float:
    return float(cv2.getFontScaleFromHeight(FONT, letter_px, _stroke_px(letter_px)))


def _stroke_px(letter_px: int) -> int:
    return max(1, round(letter_px / 14))


def _draw_bars(frame: Frame, reading: Reading, occupied: Sequence[Box], *, alone: bool) -> Box:
    """Draw seven bars on a darkened panel, with names if they are legible. Return the panel."""
    place = _free_place(frame, reading.box, occupied, anywhere=alone)
    inside = place is None
    place = place or _strip(frame, reading.box)
    panel = frame[place.top : place.top + place.height, place.left : place.left + place.width]
    if not inside:
        panel[:] = panel // 3  # the colors are legible on any background
    row_px = place.height // len(EMOTIONS)
    letter_px, names_px = _names(row_px)
    for row, (emotion, probability) in enumerate(zip(EMOTIONS, reading.probabilities, strict=True)):
        top, length_px = row * row_px, round(float(probability) * place.width)
        panel[top + row_px // 8 : top + row_px - row_px // 8, :length_px] = rgb(COLORS[emotion])
        if not inside and 0 < names_px <= place.width:
            _write(panel, emotion, (letter_px // 2, top + round(0.75 * row_px)), letter_px, color=LIGHT)
    return place


def _names(row_px: int) -> tuple[int, int]:
    """The height of the letters in a row of bars, and the width of the longest name; 0 if they are not legible."""
    letter_px = row_px // 2
    return letter_px, _text_px("surprise", letter_px) + letter_px if letter_px >= MIN_NAME_PX else 0


def _free_place(frame: Frame, box: Box, occupied: Sequence[Box], *, anywhere: bool) -> Box | None:
    """The largest panel that covers nothing: right of the box, left of it, below it, above it, or in a corner.

    A panel in a corner is far from its box, so it is used only for a face that is `anywhere` unmistakable.
    """
    frame_height, frame_width = frame.shape[:2]
    for row_px in _row_heights(frame, box):
        height = row_px * len(EMOTIONS)
        width = max(row_px, round(0.45 * box.width * row_px * len(EMOTIONS) / max(box.height, 1)), _names(row_px)[1])
        if width > frame_width or height > frame_height:
            continue
        for place in _places(frame, box, width, height, corners=anywhere):
            fits = 0 <= place.left <= frame_width - width and 0 <= place.top <= frame_height - height
            if fits and not any(place.overlap(other) > 0 for other in occupied):
                return place
    return None


def _row_heights(frame: Frame, box: Box) -> list[int]:
    """Heights to try for a row of bars, from a seventh of the box down to the smallest that is legible."""
    full_px, shorter_px = box.height / len(EMOTIONS), min(frame.shape[:2])
    smallest = [2 * max(MIN_NAME_PX, shorter_px // 60), max(MIN_BAR_PX, shorter_px // 80)]
    scaled = [round(full_px * scale) for scale in ROW_SCALES]
    heights = {max(px, MIN_BAR_PX) for px in (*scaled, *(px for px in smallest if px < full_px))}
    return sorted(heights, reverse=True)


def _places(frame: Frame, box: Box, width: int, height: int, *, corners: bool) -> Iterator[Box]:
    frame_height, frame_width = frame.shape[:2]
    gap = _line_px(frame) + 1
    level = max(0, min(box.top, frame_height - height))
    left = max(0, min(box.left, frame_width - width))
    yield Box(box.left + box.width + gap, level, width, height)
    yield Box(box.left - gap - width, level, width, height)
    yield Box(left, box.top + box.height + gap, width, height)
    label_px = max(MIN_LABEL_PX, min(frame.shape[:2]) // 18) * 2
    yield Box(left, box.top - label_px - gap - height, width, height)
    if corners:
        for left, top in product((frame_width - width, 0), (frame_height - height, 0)):
            yield Box(left, top, width, height)


def _strip(frame: Frame, box: Box) -> Box:
    """A small place in the lower right corner of the visible part of the box."""
    frame_height, frame_width = frame.shape[:2]
    right, bottom = (
        max(1, min(end, size))
        for end, size in ((box.left + box.width, frame_width), (box.top + box.height, frame_height))
    )
    row_px = max(1, min(max(MIN_BAR_PX, box.height // 60), frame_height // len(EMOTIONS)))
    width, height = min(max(1, box.width // 4), right), min(row_px * len(EMOTIONS), bottom)
    return Box(right - width, bottom - height, width, height)


def save_image(frame_rgb: Frame, path: Path) -> None:
    """Write an RGB frame in the format of the suffix. Creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = ".jpg" if path.suffix.lower() == ".jfif" else path.suffix
    encoded = cv2.imencode(suffix, cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2BGR))[1]
    path.write_bytes(encoded.tobytes())  # raises OSError on a full disk; imwrite only returns False
