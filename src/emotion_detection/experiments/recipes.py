"""Compare a recipe with the settings of a run, as values of the config models instead of as YAML text."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from emotion_detection.config import flatten, same_setting


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
