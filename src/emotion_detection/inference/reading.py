"""What the recognizer returns for a face: its box and the probabilities of the seven emotions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_detection.emotions import EMOTIONS

# 10 % of the val readings have a lower confidence; a third of those are correct (benchmarks/crop_margin.py).
UNSURE_BELOW = 0.4


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of its frame. It may extend beyond the frame."""

    left: int
    top: int
    width: int
    height: int

    @property
    def center(self) -> tuple[float, float]:
        return self.left + self.width / 2, self.top + self.height / 2

    def overlap(self, other: "Box") -> float:
        """Intersection over union, 0 to 1."""
        width = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        height = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        common = max(width, 0) * max(height, 0)
        return common / (self.width * self.height + other.width * other.height - common)


@dataclass(frozen=True, eq=False)
class Reading:
    """One face in a frame.

    `probabilities` are f32 (7,) in the order of EMOTIONS. `track` identifies a person in a video, starting with 1; it
    is None for an image.
    """

    box: Box
    probabilities: NDArray[np.float32]
    track: int | None = None

    @property
    def emotion(self) -> str:
        """The most likely emotion."""
        return EMOTIONS[self.probabilities.argmax()]

    @property
    def confidence(self) -> float:
        """The probability of `emotion`."""
        return float(self.probabilities.max())

    @property
    def unsure(self) -> bool:
        return self.confidence < UNSURE_BELOW

    def as_dict(self) -> dict[str, Any]:
        """Return the reading as JSON-compatible values. Probabilities are rounded to 4 places."""
        return {
            "box": [self.box.left, self.box.top, self.box.width, self.box.height],
            "emotion": self.emotion,
            "confidence": round(self.confidence, 4),
            "unsure": self.unsure,
            "track": self.track,
            "probabilities": [round(float(probability), 4) for probability in self.probabilities],
        }
