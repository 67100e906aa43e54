"""Pictures to try without a camera: drawn people, made when the page starts, so that nobody's picture is in here."""

import cv2
import numpy as np

from emotion_detection.synthetic.sample import draw_frame

# Name -> who is drawn, a seed by which the detector finds them all, and the width in px.
EXAMPLES = {
    "one": (["happy"], 2, 480),
    "two": (["surprise", "neutral"], 10, 640),
    "four": (["neutral", "happy", "sad", "surprise"], 0, 1120),
}
HEIGHT_PX = 400


def example(name: str) -> bytes:
    """A JPEG of drawn people side by side."""
    emotions, seed, width_px = EXAMPLES[name]
    frame, _ = draw_frame(emotions, np.random.default_rng(seed), width_px=width_px, height_px=HEIGHT_PX)
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()
