from typing import Any

import pytest
import yaml
from tests.support.paths import ROOT

from emotion_detection.config import Categorical, NumberRange, Train, check_params, load_params
from emotion_detection.errors import InputError
from emotion_detection.tuning import search_space

COMMITTED = ROOT / "params.yaml"
RECIPES = {path.name: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "recipes").glob("*.yaml"))}


@pytest.fixture
def base(params) -> Train:
    return params.train


def ranged(low: Any, high: Any, *, log: bool = False) -> NumberRange:
    return NumberRange(low=low, high=high, log=log)


def tuned(**changes: Any) -> Any:
    """The committed params with another `tune`."""
    tree = yaml.safe_load(COMMITTED.read_text())
    return check_params(tree | {"tune": tree["tune"] | changes}, "params.yaml")


def test_the_committed_space_is_one_that_train_takes(params):
    search_space.check(params.tune.space, params.train)


@pytest.mark.parametrize("name", RECIPES)
def test_the_committed_space_suits_every_recipe(params, name):
    tree = yaml.safe_load(COMMITTED.read_text())
    adopted = check_params(tree | {"train": tree["train"] | RECIPES[name]["train"]}, name)
    search_space.check(params.tune.space, adopted.train)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rat": ranged(0.1, 0.2)}, "learning_rat names no setting of train: use one of .*learning_rate"),
        ({"augment": Categorical(choices=(1,))}, "augment names no setting"),
        ({"epochs": ranged(1, 2)}, "tune.epochs is what every trial may spend"),
        ({"patience": ranged(1, 2)}, "cannot vary"),
        ({"dropout": ranged(0.5, 1.5)}, r"dropout: 1\.5.*less than 1"),
        ({"batch_size": Categorical(choices=(64, 63))}, "batch_size: 63"),
        ({"architecture": Categorical(choices=("seed_cnn", "vgg"))}, "architecture: vgg"),
        # Each is right alone, the two are not.
        ({"widths": Categorical(choices=([8, 8, 8], [8, 8]))}, "as many widths as blocks"),
        (
            {"widths": Categorical(choices=([8, 8, 8],)), "blocks": Categorical(choices=([1, 1, 1], [1, 1]))},
            "as many widths as blocks",
        ),
    ],
)
def test_a_space_that_train_cannot_take_is_refused(base, given, message):
    with pytest.raises(InputError, match=message) as error:
        search_space.check(given, base)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dropout": {"low": 0.5, "high": 0.1, "log": False}}, "empty or reversed range"),
        ({"dropout": {"low": 0.5, "high": 0.5, "log": False}}, "empty or reversed range"),
        ({"dropout": {"low": 0.0, "high": 0.5, "log": True}}, "must lie above 0"),
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
def test_a_range_that_is_none_is_refused_with_the_rest_of_params(given, message):
    with pytest.raises(InputError, match=rf"params\.yaml: tune\.space.*{message}"):
        tuned(space=given)


def test_a_trial_is_a_train_section_with_the_trials_values(base):
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


def test_a_fragment_adopts_to_the_same_settings():
    values = {"blocks": "[1, 2, 1]", "augment.mixup": 0.25, "learning_rate": 0.03}
    tree = yaml.safe_load(yaml.safe_dump(search_space.fragment(values)))
    assert tree == {"train": {"blocks": [1, 2, 1], "augment": {"mixup": 0.25}, "learning_rate": 0.03}}


@pytest.mark.parametrize(
    ("value", "dimension", "expected"),
    [
        (0.0123456, ranged(0.01, 0.3), 0.0123),
        (0.010001, ranged(0.010009, 0.3), 0.010009),  # never below its range
        (0.2999999, ranged(0.01, 0.29999), 0.29999),  # nor above
        (17, ranged(1, 20), 17),
        ("[1, 1]", Categorical(choices=([1, 1],)), "[1, 1]"),
    ],
)
def test_a_drawn_number_has_three_digits(value, dimension, expected):
    assert search_space.drawn(value, dimension) == expected


def test_a_list_is_kept_as_text_and_a_scalar_as_it_is():
    assert search_space.text((48, 96, 192)) == "[48, 96, 192]"
    assert [search_space.text(one) for one in ("sgd", 64, 0.5, True)] == ["sgd", 64, 0.5, True]


def test_the_place_of_settings_in_a_space(base):
    inside: search_space.Space = {
        "learning_rate": ranged(0.01, 0.2),
        "widths": Categorical(choices=([1, 2], list(base.widths))),
    }
    assert search_space.place(base, inside) == {
        "learning_rate": base.learning_rate,
        "widths": search_space.text(base.widths),
    }
    assert search_space.place(base, {"learning_rate": ranged(0.5, 0.6)}) is None
    assert search_space.place(base, {"widths": Categorical(choices=([1, 2],))}) is None


def test_what_is_known_begins_with_params_and_names_each_place_once(base):
    dimension = {"learning_rate": ranged(0.01, 0.2)}
    recipes = {"params.yaml": {}, "same.yaml": {}, "other.yaml": {"train": {"learning_rate": 0.02}}, "far.yaml": {}}
    recipes["far.yaml"] = {"train": {"learning_rate": 3.0}}
    assert search_space.known(base, recipes, dimension) == [
        {"learning_rate": base.learning_rate},
        {"learning_rate": 0.02},
    ]


def test_a_broken_recipe_is_named(base):
    with pytest.raises(InputError, match=r"bad\.yaml .*dropout: 7"):
        search_space.known(base, {"bad.yaml": {"train": {"dropout": 7}}}, {"dropout": ranged(0.0, 0.5)})


def test_the_committed_search_begins_with_the_sample_and_the_hand_recipe():
    params = load_params(COMMITTED)
    places = search_space.known(params.train, {"params.yaml": {}} | RECIPES, params.tune.space)
    assert search_space.place(params.train, params.tune.space) == places[0]
    assert len(places) >= 2
