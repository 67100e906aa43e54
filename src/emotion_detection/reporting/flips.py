"""The faces that only one of two models reads right, for the HTML report: they are never written to Markdown."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_detection.arrays import Gray
from emotion_detection.data.dataset import Faces
from emotion_detection.emotions import EMOTIONS
from emotion_detection.reporting.comparison import Comparison
from emotion_detection.reporting.sources import LocalFaces

MAX_FACES = 60  # of each group


@dataclass(frozen=True)
class Flip:
    """A face as a data: URI, its label, and what one of the models reads instead."""

    picture: str
    emotion: str
    mistake: str


@dataclass(frozen=True)
class FlipGroup:
    """Faces whose answer flipped in the same direction; `total` counts those that are not shown too."""

    title: str
    total: int
    flips: Sequence[Flip]


def flipped_faces(comparison: Comparison, local: LocalFaces | None) -> tuple[dict[str, list[FlipGroup]], str]:
    """The faces that only one model reads right, by split, and why there are none, or ""."""
    if not comparison.splits:
        return {}, ""
    digests = {comparison.base.digest, comparison.head.digest}
    if local is None or digests != {local.digest}:
        return {}, "The faces whose answer flipped are not shown: the prepared faces of this data set are not here."
    flips = {}
    for one in comparison.splits:
        part = local.faces.of(one.split)
        if np.array_equal(part.labels, one.labels):
            flips[one.split] = [
                _group("Only the head reads these right", one.fixed, one.base_predicted, part),
                _group("Only the base reads these right", one.broken, one.head_predicted, part),
            ]
    return flips, ""


def _group(title: str, rows: NDArray[np.intp], answers: NDArray[np.intp], part: Faces) -> FlipGroup:
    """answers: the predictions of the model that reads these rows wrong."""
    # Evenly spread, so that each part of the split is seen.
    shown = rows if len(rows) <= MAX_FACES else rows[np.linspace(0, len(rows) - 1, MAX_FACES).astype(int)]
    flips = [Flip(data_uri(part.images[row]), EMOTIONS[part.labels[row]], EMOTIONS[answers[row]]) for row in shown]
    return FlipGroup(title, len(rows), flips)


def data_uri(face: Gray) -> str:
    """A face, u8 (48, 48), as a PNG in a data: URI."""
    stream = io.BytesIO()
    Image.fromarray(face).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
