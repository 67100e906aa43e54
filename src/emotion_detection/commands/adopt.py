"""Write a recipe's settings into params.yaml: `make adopt FROM=recipes/fer_resnet.yaml`."""

import difflib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from emotion_detection.atomic import atomic_output
from emotion_detection.config import check_params, load_params
from emotion_detection.decoding.yaml_text import parse_yaml, read_text
from emotion_detection.errors import ConfigError, UsageError, shorten

COLORS = {"-": "\033[31m", "+": "\033[32m", "@": "\033[36m"}
PLAIN = "\033[0m"


def adopt(recipe: str = "", *, params: Path = Path("params.yaml")) -> None:
    """Write the settings of a recipe into params.yaml and print what changed.

    Args:
        recipe: A YAML file with some of the sections of params.yaml, such as recipes/fer_resnet.yaml.
        params: The file to change. Comments and layout are kept.
    """
    if not recipe.strip():
        raise UsageError("FROM is missing: name a recipe, such as recipes/fer_resnet.yaml")
    load_params(params)  # reports errors that were there before the recipe
    before = read_text(params)
    after = merged(before, read_text(Path(recipe)), source=recipe)
    if after == before:
        print(f"{params} already has every setting of {recipe}")
        return
    with atomic_output(params) as written:
        written.write_text(after, encoding="utf-8")
    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print("\n".join(_difference(before, after, name=str(params), color=color)))


def merged(params: str, recipe: str, *, source: str) -> str:
    """Return the text of params.yaml with a recipe's values; ConfigError names `source` and the first wrong key."""
    # Round trip: keeps the comments, the order and the notation of numbers.
    editor = YAML()
    editor.width = sys.maxsize  # never fold a line
    editor.preserve_quotes = True
    editor.representer.add_representer(type(None), _null)
    if not isinstance(parse_yaml(recipe, source), dict):
        raise ConfigError(f"{source} has no sections: write the settings under `train:`, as in params.yaml")
    stream = io.StringIO()
    try:
        tree, fragment = editor.load(params), editor.load(recipe)
        _merge(tree, fragment)
        editor.dump(tree, stream)
    except Exception as error:  # ruamel raises many kinds for text that YAML 1.1 and YAML 1.2 read differently
        raise ConfigError(f"{source} is not valid YAML 1.2: {shorten(error)}") from error
    # Validate the text as the stages will read it, not the tree.
    check_params(parse_yaml(stream.getvalue(), source), source)
    return stream.getvalue()


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")  # by default, ruamel writes nothing


def _merge(tree: Any, fragment: Any) -> None:
    for key, value in fragment.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        elif key not in tree or tree[key] != value:
            _set(tree, key, value)


def _set(tree: Any, key: Any, value: Any) -> None:
    if isinstance(value, list) and isinstance(tree.get(key), list):
        if not value or not tree[key]:
            tree[key].fa.set_flow_style()  # an empty list has brackets; ruamel would write its values without them
        tree[key][:] = value  # in place: keeps the brackets and the comment after them
    else:
        tree[key] = value
    *_, comment, _ = tree.ca.items.get(key) or [None, None]
    if comment:
        comment.column = 0  # one space before the comment, instead of its previous column


def _difference(before: str, after: str, *, name: str, color: bool) -> Iterator[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), name, name, "before", "now", lineterm="")
    for line in lines:
        yield f"{COLORS[line[0]]}{line}{PLAIN}" if color and line[0] in COLORS else line
