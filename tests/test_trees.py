from emotion_detection.config import flatten, unflatten

TREE = {"a": 1, "b": {"c": [1, 2], "d": {"e": "x"}}}


def test_a_tree_is_flattened_by_dotted_keys_and_lists_are_leaves():
    assert flatten(TREE) == {"a": 1, "b.c": [1, 2], "b.d.e": "x"}


def test_nested_is_the_way_back():
    assert unflatten(flatten(TREE)) == TREE
