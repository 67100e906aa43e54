"""What the recognizer returns: a box and the probabilities of seven emotions, as plain values."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion_detection.emotions import EMOTIONS

# A tenth of the readings of val lie below, and a third of these are right (benchmarks/crop_margin.py).
UNSURE_BELOW = 0.4


@dataclass(frozen=True)
class Box:
    """A rectangle in px of its frame; may reach over the frame's border."""

    left: int
    top: int
    width: int
    height: int

    @property
    def centre(self) -> tuple[float, float]:
        return self.left + self.width / 2, self.top + self.height / 2

    def overlap(self, other: "Box") -> float:
        """Intersection over union, 0 to 1."""
        width = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        height = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        common = max(width, 0) * max(height, 0)
        return common / (self.width * self.height + other.width * other.height - common)


@dataclass(frozen=True, eq=False)
class Reading:
    """One face of a frame: where it is, its likeliest emotion, and all probabilities f32 (7,) in EMOTIONS' order.

    track tells the people of a video apart, 1 the first; None on a still.
    """

    box: Box
    probabilities: NDArray[np.float32]
    track: int | None = None

    @property
    def emotion(self) -> str:
        return EMOTIONS[self.probabilities.argmax()]

    @property
    def confidence(self) -> float:
        """The probability of `emotion`."""
        return float(self.probabilities.max())

    @property
    def unsure(self) -> bool:
        return self.confidence < UNSURE_BELOW
