"""The search space: which settings of `train` vary, and how the values of a trial become a Train."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

import yaml
from pydantic import ValidationError

from emotion_detection.config import Categorical, NumberRange, Train, flatten, unflatten
from emotion_detection.decoding.yaml_text import parse_yaml
from emotion_detection.errors import ConfigError

Space = Mapping[str, NumberRange | Categorical]
Values = dict[str, Any]  # key of train -> its value in a trial; lists are stored as YAML text

DIGITS = 3  # of a sampled number
# Settings that have an effect only if another setting has one of these values. Other trials do not get them.
CONDITIONS = {
    "widths": ("architecture", ("fer_resnet", "fer_vgg")),
    "blocks": ("architecture", ("fer_resnet", "fer_vgg")),
    "stem_stride": ("architecture", ("fer_resnet",)),
    "standardize": ("architecture", ("fer_resnet", "fer_vgg")),
    "head": ("architecture", ("fer_resnet", "fer_vgg")),
    "momentum": ("optimizer", ("sgd",)),
}


def check(space: Space, base: Train) -> None:
    """Raise ConfigError unless `train` accepts every value of the space, and every pair of values together."""
    known = flatten(base.model_dump())
    for key in space:
        if key not in known:
            raise ConfigError(f"tune.space.{key} is not a setting of train; use one of {', '.join(sorted(known))}")
        if key in ("epochs", "patience"):
            raise ConfigError(f"tune.space.{key} cannot vary: tune.epochs sets the epochs of every trial")
        _check_effect(key, space, known)
    extremes = {key: _extremes(dimension) for key, dimension in space.items()}
    for keys in [*((key,) for key in extremes), *combinations(extremes, 2)]:
        for values in product(*(extremes[key] for key in keys)):
            _with_values(base, dict(zip(keys, values, strict=True)))


def _check_effect(key: str, space: Space, base: Values) -> None:
    if key not in CONDITIONS:
        return
    parent, required = CONDITIONS[key]
    dimension = space.get(parent)
    possible = dimension.choices if isinstance(dimension, Categorical) else [base[parent]]
    if not set(required) & set(possible):
        named = " or ".join(required)
        raise ConfigError(
            f"tune.space.{key} has no effect, because {parent} is never {named}: remove {key} from tune.space, "
            f"or add {named} to tune.space.{parent}"
        )


def parents_first(space: Space) -> list[str]:
    """The keys of the space in an order in which `has_effect` can be evaluated."""
    parents = {parent for parent, _ in CONDITIONS.values()}
    return sorted(space, key=lambda key: key not in parents)


def has_effect(key: str, values: Mapping[str, Any], base: Train) -> bool:
    """Whether a setting has an effect in a trial with these values; the other settings come from `base`."""
    if key not in CONDITIONS:
        return True
    parent, required = CONDITIONS[key]
    return values.get(parent, getattr(base, parent)) in required


def settings(base: Train, values: Values, *, epochs: int) -> Train:
    """The `train` section of a trial: `base` with the trial's values, trained for `epochs` epochs."""
    return _with_values(base, _parsed(values) | {"epochs": epochs, "patience": epochs})


def fragment(values: Values) -> dict[str, Any]:
    """A recipe for `make adopt`: a `train` section with the values of a trial only."""
    return {"train": unflatten(_parsed(values))}


def rounded(value: Any, dimension: NumberRange | Categorical) -> Any:
    """A sampled number with three digits, within its range; other values are unchanged."""
    if isinstance(dimension, Categorical) or isinstance(value, int):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), dimension.low), dimension.high)


def as_text(choice: Any) -> Any:
    """A choice as the study stores it: a list as one line of YAML, other values unchanged."""
    if not isinstance(choice, Sequence) or isinstance(choice, str):
        return choice
    return yaml.safe_dump(list(choice), default_flow_style=True, width=1000).strip()


def locate(train: Train, space: Space) -> Values | None:
    """The point of the space with the settings of `train`; None if they are outside the space."""
    leaves = flatten(train.model_dump())
    values = {key: as_text(leaves[key]) for key in space if has_effect(key, leaves, train)}
    return values if all(_contains(space[key], value) for key, value in values.items()) else None


def known_points(base: Train, recipes: Mapping[str, Any], space: Space) -> list[Values]:
    """The different points of the space that the recipes describe; each recipe changes settings of `base`."""
    points: list[Values] = []
    for name, recipe in recipes.items():
        point = locate(_with_values(base, flatten(recipe.get("train", {})), source=name), space)
        if point is not None and point not in points:
            points.append(point)
    return points


def _contains(dimension: NumberRange | Categorical, value: Any) -> bool:
    if isinstance(dimension, Categorical):
        return value in [as_text(choice) for choice in dimension.choices]
    return bool(dimension.low <= value <= dimension.high)


def _extremes(dimension: NumberRange | Categorical) -> Sequence[Any]:
    return dimension.choices if isinstance(dimension, Categorical) else (dimension.low, dimension.high)


def _parsed(values: Values) -> Values:
    return {
        key: parse_yaml(value, f"the study's {key}") if isinstance(value, str) else value
        for key, value in values.items()
    }


def _with_values(base: Train, values: Values, *, source: str = "tune.space") -> Train:
    try:
        return Train.model_validate(unflatten(flatten(base.model_dump()) | values))
    except ValidationError as error:
        first = error.errors()[0]
        given = ", ".join(f"{key}: {as_text(value)}" for key, value in values.items())
        message = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
        raise ConfigError(f"{source} has values that train does not accept ({given}): it {message}") from error
