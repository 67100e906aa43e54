"""The drawn example pictures."""

import pytest

from emotion_detection.inference.recognizer import Recognizer
from examples import EXAMPLES, draw_example


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_face_of_an_example_is_read_as_it_is_drawn(detector, shipped, name):
    readings = Recognizer(shipped.current.classifier, detector).recognize(draw_example(name))
    assert [reading.emotion for reading in readings] == EXAMPLES[name][0]
    assert not any(reading.unsure for reading in readings)
