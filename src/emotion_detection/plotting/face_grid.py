"""Faces in rows and columns, with captions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from emotion_detection.emotions import IMAGE_SIZE
from emotion_detection.plotting.style import saved_figure

SHEET = 40  # pictures on a sheet of captioned faces


def captioned_faces(images: NDArray[np.uint8], captions: Sequence[str], path: Path, *, title: str) -> None:
    columns, across = 8, IMAGE_SIZE + 12
    rows = [captions[start : start + columns] for start in range(0, len(captions), columns)]
    heights = [IMAGE_SIZE + 14 + 9 * max(caption.count("\n") for caption in row) for row in rows]
    tops = np.cumsum([0, *heights])
    with saved_figure(path, columns * across / 50, tops[-1] / 50 + 0.4) as figure:
        axes = figure.subplots()
        for place, (face, caption) in enumerate(zip(images, captions, strict=True)):
            x_px, y_px = place % columns * across, tops[place // columns]
            draw_face(axes, face, x_px=x_px, y_px=y_px)
            axes.text(x_px + IMAGE_SIZE / 2, y_px + IMAGE_SIZE + 2, caption, ha="center", va="top", fontsize=8)
        hide_axes(axes, width_px=columns * across, height_px=max(tops[-1], 1))
        axes.set_title(title)


def draw_face(axes: Axes, face: NDArray[np.uint8], *, x_px: float, y_px: float) -> None:
    extent = (x_px, x_px + IMAGE_SIZE, y_px + IMAGE_SIZE, y_px)
    axes.imshow(face, vmin=0, vmax=255, extent=extent, interpolation="nearest")


def hide_axes(axes: Axes, *, width_px: float, height_px: float) -> None:
    # After the pictures: every imshow resets the limits. y grows downwards.
    axes.set(xlim=(-6, width_px), ylim=(height_px, -2), xticks=[], yticks=[], aspect="equal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
