"""The page's own HTML, without a browser."""

import re

from detectors import Detectors
from page import _example_buttons, _fragment


def test_options_begin_with_the_demos_own():
    for name in ("webcam", "photo"):
        fragment = _fragment(name, Detectors("haar"), "largest", examples="")
        checked = re.findall(r'name="([^"]+)" value="([^"]+)" checked', fragment)
        assert checked == [(f"{name}-faces", "largest"), (f"{name}-detector", "haar")]
        assert f'name="{name}-detector" value="yunet"' in fragment
        assert "$" not in fragment


def test_examples_are_below_the_path_of_a_proxy():
    buttons = _example_buttons("/faces")
    assert 'src="/faces/examples/four.jpg"' in buttons
    assert 'aria-label="Read the drawing of four people"' in buttons
    assert 'aria-label="Read the drawing of one person"' in buttons
