"""The colors of emotions can be distinguished, also with color blindness and on light and dark backgrounds."""

from itertools import combinations

import cv2
import numpy as np
import pytest

from emotion_detection.emotions import EMOTIONS
from emotion_detection.plotting.colors import COLORS, DARK, LIGHT, contrast, luminance, rgb, text_color

# Machado, Oliveira and Fernandes 2009, table 1, severity 1.0: the perceived linear RGB without one type of cones.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def perceived_lab(color, vision):
    srgb = np.array(rgb(color)) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    perceived = np.clip(np.array(VISION[vision]) @ linear, 0, 1).astype(np.float32)
    return cv2.cvtColor(perceived[None, None], cv2.COLOR_LRGB2Lab)[0, 0]


def test_every_emotion_has_a_color():
    assert tuple(COLORS) == EMOTIONS


@pytest.mark.parametrize("vision", VISION)
def test_any_two_colors_can_be_distinguished(vision):
    distances = {
        (first, second): np.linalg.norm(perceived_lab(COLORS[first], vision) - perceived_lab(COLORS[second], vision))
        for first, second in combinations(COLORS, 2)
    }
    assert min(distances.values()) > 19, min(distances, key=distances.__getitem__)


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_color_contrasts_with_light_and_dark_backgrounds(emotion):
    assert contrast(COLORS[emotion], LIGHT) > 2
    assert contrast(COLORS[emotion], DARK) > 3
    assert contrast(COLORS[emotion], text_color(COLORS[emotion])) > 4.5  # WCAG 2.2, 1.4.3: text


def test_contrast_follows_wcag():
    assert (luminance("#000000"), luminance("#FFFFFF")) == pytest.approx((0, 1))
    assert contrast("#FFFFFF", "#000000") == contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)
    assert rgb("#0A10FF") == (10, 16, 255)
