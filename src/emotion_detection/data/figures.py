"""Figures of a data set: classes, samples and duplicates. Each function writes one PNG file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from emotion_detection.data.dataset import Faces
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE, SPLITS
from emotion_detection.plotting.face_grid import MAX_FACES, captioned_faces, draw_face, hide_axes
from emotion_detection.plotting.style import BLUE, saved_figure


def classes_per_split(faces: Faces, path: Path) -> None:
    """Plot the number of faces of each emotion in each split, as bars of its share of the split."""
    splits = [split for split in SPLITS if len(faces.of(split))]
    if not splits:
        raise ValueError("no face belongs to a split")
    with saved_figure(path, 2 + 2.6 * len(splits), 3) as figure:
        figure.suptitle("Faces of each emotion, as a share of their split", x=0.01, ha="left", fontsize=11)
        panels = figure.subplots(1, len(splits), sharex=True, sharey=True, squeeze=False)[0]
        for axes, split in zip(panels, splits, strict=True):
            counts = np.bincount(faces.of(split).labels, minlength=len(EMOTIONS))
            bars = axes.barh(EMOTIONS, counts / counts.sum(), color=BLUE, height=0.7)
            axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, color="#444444")
            axes.set_title(f"{split}: {counts.sum():,}")
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.grid(axis="x")
        panels[0].xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        panels[0].margins(x=0.25)  # room for the counts
        panels[0].invert_yaxis()


def contact_sheet(faces: Faces, path: Path, *, per_class: int = 12, seed: int = 0) -> None:
    """Show up to `per_class` random faces of each emotion, one row per emotion."""
    random = np.random.default_rng(seed)
    pitch = IMAGE_SIZE + 2
    with saved_figure(path, 1 + 0.62 * per_class, 0.6 + 0.62 * len(EMOTIONS)) as figure:
        axes = figure.subplots()
        for label in range(len(EMOTIONS)):
            rows = random.permutation(np.flatnonzero(faces.labels == label))[:per_class]
            for column, face in enumerate(faces.images[rows]):
                draw_face(axes, face, x_px=column * pitch, y_px=label * pitch)
        hide_axes(axes, width_px=per_class * pitch, height_px=len(EMOTIONS) * pitch)
        axes.set_yticks([label * pitch + IMAGE_SIZE / 2 for label in range(len(EMOTIONS))], EMOTIONS)
        axes.set_title(f"Up to {per_class} faces of each emotion, chosen at random")


def duplicates_sheet(faces: Faces, groups: Sequence[NDArray[np.intp]], *, path: Path) -> None:
    """Show images that occur more than once; each of `groups` contains the rows of one image.

    The caption has one line for each label and split of the copies, such as "fear train ×2". Groups with the most
    conflicting labels come first, then those with the most copies.
    """
    ordered = sorted(groups, key=lambda rows: (-len(np.unique(faces.labels[rows])), -len(rows)))
    shown = ordered[:MAX_FACES]
    title = f"{len(groups):,} pictures occur more than once; {len(shown)} here, contradicting labels first"
    images = faces.images[[int(rows[0]) for rows in shown]]
    captioned_faces(images, [_caption(faces, rows.tolist()) for rows in shown], path, title=title)


def _caption(faces: Faces, rows: list[int]) -> str:
    names = [EMOTIONS[faces.labels[row]] for row in rows]
    splits = [SPLITS[s] if s < len(SPLITS) else "no split" for s in faces.splits[rows]]
    texts = [f"{name} {split}" for name, split in zip(names, splits, strict=True)]
    counts = {text: texts.count(text) for text in sorted(set(texts))}
    return "\n".join(text if count == 1 else f"{text} ×{count}" for text, count in counts.items())
