"""Example pictures of drawn people, rendered when the demo starts: no photograph of a person is needed."""

import cv2
import numpy as np

from emotion_detection.synthetic.sample import draw_frame

# Name -> emotions, a seed with which the detector finds every face, and the width in px.
EXAMPLES = {
    "one": (["happy"], 2, 480),
    "two": (["surprise", "neutral"], 10, 640),
    "four": (["neutral", "happy", "sad", "surprise"], 0, 1120),
}
HEIGHT_PX = 400


def draw_example(name: str) -> bytes:
    """The JPEG file of an example."""
    emotions, seed, width_px = EXAMPLES[name]
    frame, _ = draw_frame(emotions, np.random.default_rng(seed), width_px=width_px, height_px=HEIGHT_PX)
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()
