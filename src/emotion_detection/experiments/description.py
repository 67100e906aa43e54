"""Names and descriptions of runs that say what a training is about."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from emotion_detection.config import load_recipe
from emotion_detection.decoding.yaml_text import parse_yaml
from emotion_detection.errors import EmotionDetectionError
from emotion_detection.experiments.provenance import committed
from emotion_detection.experiments.recipes import Difference, recipe_differences

MOST_CHANGES = 3  # in a name
MOST_NOTED = 20  # in a description
MAIN_SETTINGS = (
    "architecture", "widths", "blocks", "epochs", "batch_size", "optimizer", "learning_rate", "precision", "seed"
)  # fmt: skip


@dataclass(frozen=True)
class Description:
    """The name of a run and, in Markdown, what it trains."""

    name: str
    note: str


def describe(train: Mapping[str, Any], dataset: str, faces: Mapping[str, int], project: Path) -> Description:
    """Describe a training by what it changes against the closest known settings.

    train: the section of params.yaml as plain values. faces: the number of faces in each split. project: the folder of
    the recipes.
    """
    base, changes = closest(train, bases(project))
    return Description(
        run_name(train, dataset, base, changes, datetime.now()), note(train, dataset, faces, base, changes)
    )


def bases(project: Path) -> dict[str, Mapping[str, Any]]:
    """The settings that a training may be a variant of: params.yaml of the last commit, and the recipes."""
    found: dict[str, Mapping[str, Any]] = {}
    with suppress(EmotionDetectionError, LookupError, TypeError):
        found["params.yaml"] = dict(parse_yaml(committed(project / "params.yaml"), "params.yaml")["train"])
    for path in sorted((project / "recipes").glob("*.yaml")):
        with suppress(EmotionDetectionError):
            found[path.stem] = load_recipe(path).get("train", {})
    return {name: settings for name, settings in found.items() if settings}


def closest(train: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> tuple[str, list[Difference]]:
    """The name of the settings that differ least from `train`, and the differences; "" without any."""
    compared = {name: recipe_differences(settings, train) for name, settings in known.items()}
    name = min(compared, key=lambda one: len(compared[one]), default="")
    return name, compared.get(name, [])


def run_name(train: Mapping[str, Any], dataset: str, base: str, changes: Sequence[Difference], now: datetime) -> str:
    """A name such as "fer_resnet_fast, epochs 12 on fer2013 (29 Nov 14:05)". Tables show its first words only."""
    subject = train["architecture"] if base in ("", "params.yaml") else base
    shown = [f"{change.key} {change.run}" for change in changes if change.key != "architecture"][:MOST_CHANGES]
    rest = len(changes) - len(shown)
    more = [f"{rest} more"] if rest > 0 and shown else []
    return f"{', '.join([subject, *shown, *more])} on {dataset} ({now:%d %b %H:%M})"


def note(
    train: Mapping[str, Any], dataset: str, faces: Mapping[str, int], base: str, changes: Sequence[Difference]
) -> str:
    """Markdown: the data set, the main settings, and the changes against the closest known settings."""
    counts = ", ".join(f"{count:,} {split}" for split, count in faces.items())
    settings = ", ".join(f"{key} {train[key]}" for key in MAIN_SETTINGS if key in train)
    lines = [f"- Data: {dataset}, {counts} faces", f"- Settings: {settings}"]
    if base:
        shown = [f"{change.key} {change.recipe} → {change.run}" for change in changes[:MOST_NOTED]]
        lines.append(f"- Changed against {base}: {', '.join(shown) or 'nothing'}")
    return "\n".join(lines)
