"""Pictures to try without a camera: drawn faces, made when the page starts, so that no person's picture is in here."""

import cv2
import numpy as np

from emotion_detection.canvases import background, paste
from emotion_detection.faces import Box
from emotion_detection.synthetic import draw_faces

EXAMPLES = {"one": 1, "two": 2, "four": 4}  # name -> faces
SIDE_PX = 150


def example(name: str) -> bytes:
    """A JPEG of some drawn faces, in rows of two."""
    count = EXAMPLES[name]
    rng = np.random.default_rng(count)
    faces, _ = draw_faces(per_class=2, seed=count)
    columns, step = min(count, 2), round(SIDE_PX * 1.9)
    rows = -(-count // columns)
    canvas = background(step * rows, step * columns, rng)
    for number, face in enumerate(faces[rng.permutation(len(faces))[:count]]):
        row, column = divmod(number, columns)
        edge = (step - SIDE_PX) // 2
        paste(canvas, face, Box(step * column + edge, step * row + edge, SIDE_PX, SIDE_PX))
    return cv2.imencode(".jpg", canvas)[1].tobytes()
