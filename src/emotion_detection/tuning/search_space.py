"""The space of a search: which settings of `train` vary, and how the values of a trial become a Train."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

import yaml
from pydantic import ValidationError

from emotion_detection.config import Categorical, NumberRange, Train, flatten, unflatten
from emotion_detection.errors import InputError

Space = Mapping[str, NumberRange | Categorical]
Values = dict[str, Any]  # key of train -> its value in a trial; a list stands there as one line of text

DIGITS = 3  # of a drawn number: nobody wants to read, or type, seventeen


def check(space: Space, base: Train) -> None:
    """InputError unless `train` takes every value of the space, and every two of them together."""
    known = flatten(base.model_dump())
    for key in space:
        if key not in known:
            raise InputError(f"tune.space.{key} names no setting of train: use one of {', '.join(sorted(known))}")
        if key in ("epochs", "patience"):
            raise InputError(f"tune.space.{key} cannot vary: tune.epochs is what every trial may spend")
    ends = {key: _ends(dimension) for key, dimension in space.items()}
    for keys in [*((key,) for key in ends), *combinations(ends, 2)]:
        for values in product(*(ends[key] for key in keys)):
            _changed(base, dict(zip(keys, values, strict=True)))


def settings(base: Train, values: Values, *, epochs: int) -> Train:
    """The `train` section of a trial: the base with the trial's values, taught for `epochs` epochs."""
    return _changed(base, _read(values) | {"epochs": epochs, "patience": epochs})


def fragment(values: Values) -> dict[str, Any]:
    """What `make adopt` takes: a `train` section with the values of a trial alone."""
    return {"train": unflatten(_read(values))}


def drawn(value: Any, dimension: NumberRange | Categorical) -> Any:
    """What a sampler drew, a number with three digits and inside its range."""
    if isinstance(dimension, Categorical) or isinstance(value, int):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), dimension.low), dimension.high)


def text(choice: Any) -> Any:
    """A choice as a study keeps it: a list as one line of YAML, anything else as it is."""
    if not isinstance(choice, Sequence) or isinstance(choice, str):
        return choice
    return yaml.safe_dump(list(choice), default_flow_style=True, width=1000).strip()


def place(train: Train, space: Space) -> Values | None:
    """Where in the space these settings lie; None if outside."""
    leaves = flatten(train.model_dump())
    values = {key: text(leaves[key]) for key in space}
    return values if all(_contains(space[key], value) for key, value in values.items()) else None


def known(base: Train, recipes: Mapping[str, Any], space: Space) -> list[Values]:
    """Where the recipes lie in the space, each place once; `base` with a recipe's settings is its Train."""
    places: list[Values] = []
    for name, recipe in recipes.items():
        found = place(_changed(base, flatten(recipe.get("train", {})), source=name), space)
        if found is not None and found not in places:
            places.append(found)
    return places


def _contains(dimension: NumberRange | Categorical, value: Any) -> bool:
    if isinstance(dimension, Categorical):
        return value in [text(choice) for choice in dimension.choices]
    return bool(dimension.low <= value <= dimension.high)


def _ends(dimension: NumberRange | Categorical) -> Sequence[Any]:
    return dimension.choices if isinstance(dimension, Categorical) else (dimension.low, dimension.high)


def _read(values: Values) -> Values:
    return {key: yaml.safe_load(value) if isinstance(value, str) else value for key, value in values.items()}


def _changed(base: Train, values: Values, *, source: str = "tune.space") -> Train:
    try:
        return Train.model_validate(unflatten(flatten(base.model_dump()) | values))
    except ValidationError as error:
        first = error.errors()[0]
        given = ", ".join(f"{key}: {text(value)}" for key, value in values.items())
        message = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
        raise InputError(f"{source} holds what train cannot take ({given}): it {message}") from error
