"""Grids of faces with captions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from emotion_detection.arrays import Gray, Images
from emotion_detection.emotions import IMAGE_SIZE
from emotion_detection.plotting.style import saved_figure

MAX_FACES = 40  # the maximum number of faces in one figure


def captioned_faces(images: Images, captions: Sequence[str], path: Path, *, title: str) -> None:
    """Write a PNG file with up to eight faces per row, each above its caption."""
    columns, column_px = 8, IMAGE_SIZE + 12
    rows = [captions[start : start + columns] for start in range(0, len(captions), columns)]
    heights = [IMAGE_SIZE + 14 + 9 * max(caption.count("\n") for caption in row) for row in rows]
    tops = np.cumsum([0, *heights])
    with saved_figure(path, columns * column_px / 50, tops[-1] / 50 + 0.4) as figure:
        axes = figure.subplots()
        for index, (face, caption) in enumerate(zip(images, captions, strict=True)):
            x_px, y_px = index % columns * column_px, tops[index // columns]
            draw_face(axes, face, x_px=x_px, y_px=y_px)
            axes.text(x_px + IMAGE_SIZE / 2, y_px + IMAGE_SIZE + 2, caption, ha="center", va="top", fontsize=8)
        hide_axes(axes, width_px=columns * column_px, height_px=max(tops[-1], 1))
        axes.set_title(title)


def draw_face(axes: Axes, face: Gray, *, x_px: float, y_px: float) -> None:
    """Draw a face with its top left corner at (x_px, y_px), one data unit per pixel; y grows downwards."""
    extent = (x_px, x_px + IMAGE_SIZE, y_px + IMAGE_SIZE, y_px)
    axes.imshow(face, vmin=0, vmax=255, extent=extent, interpolation="nearest")


def hide_axes(axes: Axes, *, width_px: float, height_px: float) -> None:
    """Hide ticks and spines and set the limits. Call this after `draw_face`, which resets the limits."""
    axes.set(xlim=(-6, width_px), ylim=(height_px, -2), xticks=[], yticks=[], aspect="equal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
