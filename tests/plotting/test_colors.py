"""Each emotion has a colour of its own, for every kind of eye, on paper and on a dark page."""

from itertools import combinations

import cv2
import numpy as np
import pytest

from emotion_detection.emotions import EMOTIONS
from emotion_detection.plotting.colors import COLORS, DARK, LIGHT, contrast, ink, luminance, rgb

# Machado, Oliveira and Fernandes 2009, table 1, severity 1.0: linear RGB as it is seen without one kind of cone.
EYES = {
    "all cones": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(color, eyes):
    bgr = np.array(rgb(color)[::-1]) / 255
    linear = np.where(bgr <= 0.04045, bgr / 12.92, ((bgr + 0.055) / 1.055) ** 2.4)[::-1]
    seen = np.clip(np.array(EYES[eyes]) @ linear, 0, 1).astype(np.float32)
    return cv2.cvtColor(seen[None, None], cv2.COLOR_LRGB2Lab)[0, 0]


def test_every_emotion_has_a_colour():
    assert tuple(COLORS) == EMOTIONS


@pytest.mark.parametrize("eyes", EYES)
def test_any_two_colours_stay_apart(eyes):
    apart = {
        pair: np.linalg.norm(lab(COLORS[pair[0]], eyes) - lab(COLORS[pair[1]], eyes))
        for pair in combinations(COLORS, 2)
    }
    assert min(apart.values()) > 19, min(apart, key=apart.__getitem__)


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_a_colour_is_seen_on_light_and_dark(emotion):
    assert contrast(COLORS[emotion], LIGHT) > 2
    assert contrast(COLORS[emotion], DARK) > 3
    assert contrast(COLORS[emotion], ink(COLORS[emotion])) > 4.5  # WCAG 2.2, 1.4.3: letters


def test_contrast_is_wcags():
    assert (luminance("#000000"), luminance("#FFFFFF")) == pytest.approx((0, 1))
    assert contrast("#FFFFFF", "#000000") == contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)
    assert rgb("#0A10FF") == (10, 16, 255)
