"""What a reading looks like on its frame, and the video file that drawn frames make."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from emotion_detection.emotions import EMOTIONS
from emotion_detection.inference.detector import Frame
from emotion_detection.inference.reading import Box, Reading
from emotion_detection.plotting.colors import COLORS, LIGHT, ink, rgb

FONT = cv2.FONT_HERSHEY_DUPLEX  # OpenCV's fonts know ASCII only
SMALLEST_LETTER_PX = 10
SMALLEST_NAME_PX = 8
SMALLEST_BAR_PX = 3


def draw(frame_rgb: Frame, readings: Sequence[Reading]) -> Frame:
    """A copy of the RGB frame u8 (h,w,3) with box, label and seven bars of each reading.

    The bars stand in the order of EMOTIONS, a full panel's width meaning 100 %. All sizes follow the frame's and
    the face's. A reading that is unsure has a thin box and a question mark.
    """
    drawn = np.array(frame_rgb, order="C")
    for reading in readings:
        _outline(drawn, reading)
    panels: list[Box] = []
    for reading in readings:
        others = [other.box for other in readings if other is not reading]
        panels.append(_bars(drawn, reading, others + panels))
    for reading in readings:  # above all boxes: letters are read, lines only seen
        _label(drawn, reading)
    return drawn


def _line_px(frame: Frame) -> int:
    return max(1, round(min(frame.shape[:2]) / 240))


def _outline(frame: Frame, reading: Reading) -> None:
    box, width_px = reading.box, _line_px(frame)
    far = (box.left + box.width - 1, box.top + box.height - 1)
    thin_px = max(1, width_px // 3)
    cv2.rectangle(
        frame, (box.left, box.top), far, rgb(COLORS[reading.emotion]), thin_px if reading.unsure else width_px
    )


def _label(frame: Frame, reading: Reading) -> None:
    """A plate above the box, or in it where the frame ends: the person's number, the emotion, its probability."""
    box, color = reading.box, COLORS[reading.emotion]
    person = "" if reading.track is None else f"{reading.track} "
    text = f"{person}{reading.emotion}{'?' if reading.unsure else ''} {reading.confidence:.0%}"
    smaller_px = min(frame.shape[:2])
    bounds = (max(SMALLEST_LETTER_PX, smaller_px / 45), max(SMALLEST_LETTER_PX, smaller_px / 18))
    letter_px = round(float(np.clip(box.width / 8, *bounds)))
    width_px, height_px = _text_px(text, letter_px), round(1.9 * letter_px)
    left = max(0, min(box.left, frame.shape[1] - width_px - letter_px))
    top = box.top - height_px if box.top >= height_px else max(box.top, 0)
    cv2.rectangle(frame, (left, top), (left + width_px + letter_px, top + height_px), rgb(color), cv2.FILLED)
    _write(frame, text, (left + letter_px // 2, top + round(1.4 * letter_px)), letter_px, color=ink(color))


def _text_px(text: str, letter_px: int) -> int:
    (width_px, _), _ = cv2.getTextSize(text, FONT, _scale(letter_px), _stroke_px(letter_px))
    return int(width_px)


def _write(frame: Frame, text: str, start: tuple[int, int], letter_px: int, *, color: str) -> None:
    cv2.putText(frame, text, start, FONT, _scale(letter_px), rgb(color), _stroke_px(letter_px), cv2.LINE_AA)


def _scale(letter_px: int) -> float:
    return float(cv2.getFontScaleFromHeight(FONT, letter_px, _stroke_px(letter_px)))


def _stroke_px(letter_px: int) -> int:
    return max(1, round(letter_px / 14))


def _bars(frame: Frame, reading: Reading, others: Sequence[Box]) -> Box:
    """Seven bars on a darkened panel beside the box, which is returned; their names where they can be read."""
    row_px = max(SMALLEST_BAR_PX, reading.box.height // len(EMOTIONS))
    letter_px = row_px // 2
    names_px = _text_px("surprise", letter_px) + letter_px if letter_px >= SMALLEST_NAME_PX else 0
    size = (max(row_px, round(0.45 * reading.box.width), names_px), row_px * len(EMOTIONS))
    place = _panel(frame, reading.box, size, others=others)
    panel = frame[place.top : place.top + place.height, place.left : place.left + place.width]
    panel[:] = panel // 3  # any face behind it, light or dark, leaves the colours legible
    for row, (emotion, share) in enumerate(zip(EMOTIONS, reading.probabilities, strict=True)):
        top, length_px = row * row_px, round(float(share) * place.width)
        panel[top + row_px // 8 : top + row_px - row_px // 8, :length_px] = rgb(COLORS[emotion])
        if 0 < names_px <= place.width:
            _write(panel, emotion, (letter_px // 2, top + round(0.75 * row_px)), letter_px, color=LIGHT)
    return place


def _panel(frame: Frame, box: Box, size: tuple[int, int], *, others: Sequence[Box]) -> Box:
    """Right of the box, left of it or below it, where it fits and hides none of the others; else narrow, inside."""
    frame_height, frame_width = frame.shape[:2]
    width, height = min(size[0], frame_width), min(size[1], frame_height)
    gap = _line_px(frame) + 1
    top = max(0, min(box.top, frame_height - height))
    right, below = box.left + box.width + gap, box.top + box.height + gap
    for left, beside in ((right, top), (box.left - gap - width, top), (box.left, below)):
        place = Box(left, beside, width, height)
        fits = 0 <= left <= frame_width - width and beside <= frame_height - height
        if fits and not any(place.overlap(other) > 0 for other in others):
            return place
    narrow = min(width, max(1, box.width // 4))
    inside = box.left + box.width - narrow
    return Box(max(0, min(inside, frame_width - narrow)), top, narrow, height)


def save(frame_rgb: Frame, path: Path) -> None:
    """Write RGB u8 (h,w,3) as the suffix says, into a folder that is made; InputError if it has no such form."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = ".jpg" if path.suffix.lower() == ".jfif" else path.suffix
    encoded = cv2.imencode(suffix, cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2BGR))[1]
    path.write_bytes(encoded.tobytes())  # not imwrite, which returns False where the disk is full
