"""Figures of a data set: classes, samples and duplicates. Each function writes one PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from emotion_detection.data.dataset import Faces
from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE, SPLITS
from emotion_detection.plotting.face_grid import SHEET, captioned_faces, draw_face, hide_axes
from emotion_detection.plotting.style import BLUE, saved_figure


def classes_per_split(faces: Faces, path: Path) -> None:
    """How many faces of each emotion every split holds, in counts and in shares of the split."""
    splits = [split for split in SPLITS if len(faces.of(split))]
    if not splits:
        raise ValueError("no face belongs to a split, so there is nothing to count")
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


def contact_sheet(faces: Faces, path: Path, *, each: int = 12, seed: int = 0) -> None:
    """`each` faces of every emotion drawn with `seed`, one row an emotion; fewer where there are fewer."""
    random = np.random.default_rng(seed)
    pitch = IMAGE_SIZE + 2
    with saved_figure(path, 1 + 0.62 * each, 0.6 + 0.62 * len(EMOTIONS)) as figure:
        axes = figure.subplots()
        for label in range(len(EMOTIONS)):
            rows = random.permutation(np.flatnonzero(faces.labels == label))[:each]
            for column, face in enumerate(faces.images[rows]):
                draw_face(axes, face, x_px=column * pitch, y_px=label * pitch)
        hide_axes(axes, width_px=each * pitch, height_px=len(EMOTIONS) * pitch)
        axes.set_yticks([label * pitch + IMAGE_SIZE / 2 for label in range(len(EMOTIONS))], EMOTIONS)
        axes.set_title(f"Up to {each} faces of each emotion, chosen at random")


def duplicates_sheet(faces: Faces, groups: Sequence[NDArray[np.intp]], *, path: Path) -> None:
    """Pictures that occur more than once, `groups` being the rows of each: one face, and what its copies say.

    A caption has a line for each label and split of the copies, as "fear train ×2". Groups with the most
    contradicting labels come first, then those with the most copies.
    """
    ordered = sorted(groups, key=lambda rows: (-len(np.unique(faces.labels[rows])), -len(rows)))
    shown = ordered[:SHEET]
    title = f"{len(groups):,} pictures occur more than once; {len(shown)} here, contradicting labels first"
    images = faces.images[[int(rows[0]) for rows in shown]]
    captioned_faces(images, [_carried(faces, rows.tolist()) for rows in shown], path, title=title)


def _carried(faces: Faces, rows: list[int]) -> str:
    names = [EMOTIONS[faces.labels[row]] for row in rows]
    splits = [SPLITS[s] if s < len(SPLITS) else "no split" for s in faces.splits[rows]]
    carried = [f"{name} {split}" for name, split in zip(names, splits, strict=True)]
    counts = {text: carried.count(text) for text in sorted(set(carried))}
    return "\n".join(text if count == 1 else f"{text} ×{count}" for text, count in counts.items())
