"""The drawn example pictures."""

import pytest

from emotion_detection.inference.detector import to_gray
from emotion_detection.inference.media import decode_image
from examples import EXAMPLES, draw_example


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_face_of_an_example_is_found(detector, name):
    frame = decode_image(draw_example(name), name)
    assert len(detector.detect(to_gray(frame))) == len(EXAMPLES[name][0])
