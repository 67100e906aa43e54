"""Checks of the PNG files that figures are written to."""

from pathlib import Path

import cv2
import numpy as np


def check_figure(path: Path) -> None:
    """Assert that a figure has a usual size, is not blank, and that no text is clipped at its edges."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None, f"{path} is not an image"
    height_px, width_px = image.shape
    assert 400 <= width_px <= 2000
    assert 50 <= height_px <= 2000
    assert len(np.unique(image)) > 1
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert edge.min() > 200
