import pytest

from emotion_detection.config import flatten, unflatten
from emotion_detection.errors import ConfigError

TREE = {"a": 1, "b": {"c": [1, 2], "d": {"e": "x"}}}


def test_a_tree_is_flattened_by_dotted_keys_and_lists_are_leaves():
    assert flatten(TREE) == {"a": 1, "b.c": [1, 2], "b.d.e": "x"}


def test_nested_is_the_way_back():
    assert unflatten(flatten(TREE)) == TREE


def test_key_below_a_value_is_refused():
    with pytest.raises(ConfigError, match=r"seed\.x is not a parameter: seed is no section"):
        unflatten({"seed": 1, "seed.x": 2})
