"""The search space: which spaces are accepted, and how values become settings."""

from typing import Any

import pytest
import yaml
from tests.support.paths import ROOT

from emotion_detection.config import Categorical, NumberRange, Train, check_params, load_params
from emotion_detection.errors import ConfigError
from emotion_detection.tuning import search_space

COMMITTED = ROOT / "params.yaml"
RECIPES = {path.name: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "recipes").glob("*.yaml"))}


@pytest.fixture
def base(params) -> Train:
    return params.train


def ranged(low: Any, high: Any, *, log: bool = False) -> NumberRange:
    return NumberRange(low=low, high=high, log=log)


def with_tune(**changes: Any) -> Any:
    """The committed params with changes of the section tune."""
    tree = yaml.safe_load(COMMITTED.read_text())
    return check_params(tree | {"tune": tree["tune"] | changes}, "params.yaml")


def test_train_accepts_the_committed_space(params):
    search_space.check(params.tune.space, params.train)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_accepts_the_committed_space(params, name):
    tree = yaml.safe_load(COMMITTED.read_text())
    adopted = check_params(tree | {"train": tree["train"] | RECIPES[name]["train"]}, name)
    search_space.check(params.tune.space, adopted.train)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rat": ranged(0.1, 0.2)}, "learning_rat is not a setting of train; use one of .*learning_rate"),
        ({"augment": Categorical(choices=(1,))}, "augment is not a setting"),
        ({"epochs": ranged(1, 2)}, "tune.epochs sets the epochs of every trial"),
        ({"patience": ranged(1, 2)}, "cannot vary"),
        ({"dropout": ranged(0.5, 1.5)}, r"dropout: 1\.5.*less than 1"),
        ({"batch_size": Categorical(choices=(64, 63))}, "batch_size: 63"),
        ({"architecture": Categorical(choices=("seed_cnn", "vgg"))}, "architecture: vgg"),
        # Each value is valid, but the two do not fit together.
        ({"widths": Categorical(choices=([8, 8, 8], [8, 8]))}, "as many widths as blocks"),
        (
            {"widths": Categorical(choices=([8, 8, 8],)), "blocks": Categorical(choices=([1, 1, 1], [1, 1]))},
            "as many widths as blocks",
        ),
        # The setting has no effect in any trial.
        (
            {"widths": Categorical(choices=([8, 8, 8],)), "architecture": Categorical(choices=("seed_cnn",))},
            "tune.space.widths has no effect, because architecture is never fer_resnet or fer_vgg: remove "
            "widths from tune.space",
        ),
        (
            {"momentum": ranged(0.5, 0.9), "optimizer": Categorical(choices=("adam",))},
            "momentum has no effect, because optimizer is never sgd",
        ),
    ],
)
def test_space_that_train_does_not_accept_is_refused(base, given, message):
    with pytest.raises(ConfigError, match=message) as error:
        search_space.check(given, base)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dropout": {"low": 0.5, "high": 0.1, "log": False}}, "empty or reversed range"),
        ({"dropout": {"low": 0.5, "high": 0.5, "log": False}}, "empty or reversed range"),
        ({"dropout": {"low": 0.0, "high": 0.5, "log": True}}, "must be above 0"),
        ({"batch_size": {"choices": []}}, "at least 1 item"),
        ({"batch_size": {"choices": [64, 64]}}, "a choice twice"),
        (
            {"batch_size": {"low": 8, "high": 64, "log": False, "step": 8}},
            "step is not a parameter; allowed here: low, high",
        ),
        ({"batch_size": {"choices": [2], "log": True}}, "log is not a parameter; allowed here: choices"),
        ({"batch_size": 64}, "should be"),
        ({}, "at least 1 item"),
    ],
)
def test_invalid_range_is_refused_with_its_key(given, message):
    with pytest.raises(ConfigError, match=rf"params\.yaml: tune\.space.*{message}"):
        with_tune(space=given)


def test_trial_gets_a_train_section_with_its_values(base):
    values = {"widths": "[8, 16, 32]", "augment.shift": 0.02, "architecture": "seed_cnn", "dropout": 0.25}
    train = search_space.settings(base, values, epochs=4)
    assert train == base.model_copy(
        update={
            "widths": (8, 16, 32),
            "dropout": 0.25,
            "architecture": "seed_cnn",
            "epochs": 4,
            "patience": 4,
            "augment": base.augment.model_copy(update={"shift": 0.02}),
        }
    )


def test_fragment_has_the_settings_of_the_trial():
    values = {"blocks": "[1, 2, 1]", "augment.mixup": 0.25, "learning_rate": 0.03}
    tree = yaml.safe_load(yaml.safe_dump(search_space.fragment(values)))
    assert tree == {"train": {"blocks": [1, 2, 1], "augment": {"mixup": 0.25}, "learning_rate": 0.03}}


@pytest.mark.parametrize(
    ("value", "dimension", "expected"),
    [
        (0.0123456, ranged(0.01, 0.3), 0.0123),
        (0.010001, ranged(0.010009, 0.3), 0.010009),  # not below its range
        (0.2999999, ranged(0.01, 0.29999), 0.29999),  # not above its range
        (17, ranged(1, 20), 17),
        ("[1, 1]", Categorical(choices=([1, 1],)), "[1, 1]"),
    ],
)
def test_sampled_number_has_three_digits(value, dimension, expected):
    assert search_space.rounded(value, dimension) == expected


def test_list_is_stored_as_text_and_scalar_unchanged():
    assert search_space.as_text((48, 96, 192)) == "[48, 96, 192]"
    assert [search_space.as_text(one) for one in ("sgd", 64, 0.5, True)] == ["sgd", 64, 0.5, True]


def test_settings_are_located_in_the_space(base):
    inside: search_space.Space = {
        "learning_rate": ranged(0.01, 0.2),
        "widths": Categorical(choices=([1, 2], list(base.widths))),
    }
    assert search_space.locate(base, inside) == {
        "learning_rate": base.learning_rate,
        "widths": search_space.as_text(base.widths),
    }
    assert search_space.locate(base, {"learning_rate": ranged(0.5, 0.6)}) is None
    assert search_space.locate(base, {"widths": Categorical(choices=([1, 2],))}) is None


def test_settings_without_effect_are_not_part_of_a_point(base):
    space: search_space.Space = {
        "architecture": Categorical(choices=("fer_resnet", "mini_xception")),
        "widths": Categorical(choices=([8, 8, 8],)),
        "learning_rate": ranged(0.01, 0.2),
    }
    other = base.model_copy(update={"architecture": "mini_xception"})
    assert search_space.locate(other, space) == {
        "architecture": "mini_xception",
        "learning_rate": base.learning_rate,
    }
    assert search_space.locate(base, space) is None  # its widths are outside the space


def test_known_points_start_with_params_and_are_unique(base):
    dimension = {"learning_rate": ranged(0.01, 0.2)}
    recipes = {"params.yaml": {}, "same.yaml": {}, "other.yaml": {"train": {"learning_rate": 0.02}}, "far.yaml": {}}
    recipes["far.yaml"] = {"train": {"learning_rate": 3.0}}
    assert search_space.known_points(base, recipes, dimension) == [
        {"learning_rate": base.learning_rate},
        {"learning_rate": 0.02},
    ]


def test_invalid_recipe_is_named(base):
    with pytest.raises(ConfigError, match=r"bad\.yaml .*dropout: 7"):
        search_space.known_points(base, {"bad.yaml": {"train": {"dropout": 7}}}, {"dropout": ranged(0.0, 0.5)})


def test_committed_search_starts_with_params_and_a_recipe():
    params = load_params(COMMITTED)
    points = search_space.known_points(params.train, {"params.yaml": {}} | RECIPES, params.tune.space)
    assert search_space.locate(params.train, params.tune.space) == points[0]
    assert len(points) >= 2


def test_choice_in_scientific_notation_is_a_number(params):
    # PyYAML reads 5e-4 without a decimal point as a string.
    space = yaml.safe_load("{weight_decay: {choices: [5e-4, 1e-3]}}")
    tune = type(params.tune).model_validate(params.tune.model_dump() | {"space": space})
    assert tune.space["weight_decay"].choices == (0.0005, 0.001)
    base = params.train.model_copy(update={"weight_decay": 0.0005})
    assert search_space.locate(base, tune.space) == {"weight_decay": 0.0005}


def test_settings_of_fer_vgg_can_vary(base):
    space: search_space.Space = {"widths": Categorical(choices=(list(base.widths), [8, 8, 8]))}
    vgg = base.model_copy(update={"architecture": "fer_vgg"})
    search_space.check(space, vgg)
    assert search_space.locate(vgg, space) == {"widths": search_space.as_text(base.widths)}
    with pytest.raises(ConfigError, match="stem_stride has no effect, because architecture is never fer_resnet"):
        search_space.check({"stem_stride": Categorical(choices=(1, 2))}, vgg)
