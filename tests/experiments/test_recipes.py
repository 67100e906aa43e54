"""Recipes are compared with runs by value, whatever the notation."""

import pytest
import yaml
from tests.support.paths import ROOT

from emotion_detection.config import coerce_setting, same_setting
from emotion_detection.experiments.recipes import recipe_differences


@pytest.mark.parametrize(
    ("key", "left", "right"),
    [
        ("learning_rate", "1e-3", 0.001),
        ("learning_rate", "1.0e-3", 1e-3),
        ("dropout", 0, 0.0),
        ("epochs", 60.0, 60),
        ("widths", [8, 16], (8, 16)),
        ("augment.scale", [1, "1.1e0"], (1.0, 1.1)),
        ("distillation.temperature", 1, 1.0),
        ("class_weight", None, None),
    ],
)
def test_same_value_in_another_notation_is_equal(key, left, right):
    assert same_setting(key, left, right)
    assert same_setting(key, right, left)


@pytest.mark.parametrize(
    ("key", "left", "right"),
    [
        ("learning_rate", "1e-3", 0.002),
        ("widths", [8, 16], [16, 8]),
        ("widths", [8], [8, 8]),
        ("class_weight", None, "balanced"),
        ("augment.flip", True, False),
        ("epochs", "many", 60),
    ],
)
def test_other_value_differs(key, left, right):
    assert not same_setting(key, left, right)


@pytest.mark.parametrize(
    ("key", "value"), [("epochs", "many"), ("augment.missing", 1), ("missing.key", 1), ("seed.key", 1)]
)
def test_value_that_train_does_not_accept_is_unchanged(key, value):
    assert coerce_setting(key, value) == value


def test_setting_that_the_run_does_not_have_is_unknown():
    assert recipe_differences({"augment": {"mixup": 0}}, {"epochs": 1}) == [("augment.mixup", 0, "unknown")]


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_committed_recipe_equals_the_training_that_adopts_it(params, path):
    train = yaml.safe_load(path.read_text())["train"]
    trained = params.train.model_dump(mode="json")
    trained |= {key: value for key, value in train.items() if key != "augment"}
    trained["augment"] = trained["augment"] | train.get("augment", {})
    validated = type(params.train).model_validate(trained).model_dump(mode="json")
    assert recipe_differences(train, validated) == []
