"""Pictures to try without a camera: drawn faces, made when the page starts, so that no person's picture is in here."""

import cv2
import numpy as np

from emotion_detection.canvases import background, paste
from emotion_detection.faces import Box
from emotion_detection.synthetic import draw_faces

EXAMPLES = {"one": 1, "two": 2, "four": 4}  # name -> faces
SIDE_PX = 150


def example(name: str) -> bytes:
    """A JPEG of some drawn faces side by side."""
    count = EXAMPLES[name]
    rng = np.random.default_rng(count)
    faces, _ = draw_faces(per_class=2, seed=count)
    step = SIDE_PX * 2
    canvas = background(round(SIDE_PX * 2.2), step * max(count, 2), rng)
    for number, face in enumerate(faces[rng.permutation(len(faces))[:count]]):
        left = round(step * (number + 0.25) + (step * max(count, 2) - step * count) / 2)
        paste(canvas, face, Box(left, round(SIDE_PX * 0.6), SIDE_PX, SIDE_PX))
    return cv2.imencode(".jpg", canvas)[1].tobytes()
