"""Compare a recipe with the settings of a run, as values of the config models instead of as YAML text."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, TypeAdapter, ValidationError

from emotion_detection.config import Train, flatten


class Difference(NamedTuple):
    """A setting that a recipe and a run do not share."""

    key: str
    recipe: Any
    run: Any
    """"unknown" if the run does not have the setting."""


def recipe_differences(recipe: Mapping[str, Any], run: Mapping[str, Any]) -> list[Difference]:
    """The settings of a recipe's `train` section that differ in the `train` section of a run.

    Settings that the recipe does not name are not compared.
    """
    trained = flatten(run)
    return [
        Difference(key, value, trained.get(key, "unknown"))
        for key, value in flatten(recipe).items()
        if key not in trained or not same_setting(key, value, trained[key])
    ]


def same_setting(key: str, left: Any, right: Any) -> bool:
    """Whether two values of a `train` setting, such as "augment.shift", train the same.

    1e-3, which PyYAML reads as a string, equals 0.001; 1 equals 1.0; a list equals a tuple.
    """
    return bool(coerce_setting(key, left) == coerce_setting(key, right))


def coerce_setting(key: str, value: Any) -> Any:
    """The value of a `train` setting with the type that training uses; unchanged if `train` does not accept it."""
    *sections, name = key.split(".")
    model: Any = Train
    for section in sections:
        model = model.model_fields[section].annotation if _has_field(model, section) else None
    if not _has_field(model, name):
        return value
    field = model.model_fields[name]
    constrained: Any = Annotated[field.annotation, field]
    try:
        return TypeAdapter(constrained).validate_python(value)
    except ValidationError:
        return value


def _has_field(model: Any, name: str) -> bool:
    return isinstance(model, type) and issubclass(model, BaseModel) and name in model.model_fields
