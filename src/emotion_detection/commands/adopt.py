"""Write a recipe's settings into params.yaml: `make adopt FROM=recipes/fer_resnet.yaml`."""

import difflib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from emotion_detection.atomic import atomic_output
from emotion_detection.config import check_params, load_params
from emotion_detection.errors import InputError

COLOURS = {"-": "\033[31m", "+": "\033[32m", "@": "\033[36m"}
PLAIN = "\033[0m"


def adopt(recipe: str = "", *, params: Path = Path("params.yaml")) -> None:
    """Write the settings of a recipe into params.yaml and print what changed.

    Args:
        recipe: A YAML file with some of the sections of params.yaml, such as recipes/fer_resnet.yaml.
        params: The file to change. Comments and layout stay.
    """
    if not recipe.strip():
        raise InputError("FROM is missing: give a recipe, such as recipes/fer_resnet.yaml")
    load_params(params)  # what was wrong before is not the recipe's fault
    before = _read(params)
    after = merged(before, _read(Path(recipe)), source=recipe)
    if after == before:
        print(f"{params} already has every setting of {recipe}")
        return
    with atomic_output(params) as written:
        written.write_text(after, encoding="utf-8")
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print("\n".join(_difference(before, after, name=str(params), colour=colour)))


def merged(params: str, recipe: str, *, source: str) -> str:
    """The text of params.yaml with a recipe's values; InputError names `source` and the first key that is wrong."""
    # Round trip: comments, order and the way numbers are written stay as a person wrote them.
    editor = YAML()
    editor.width = sys.maxsize  # never fold a line
    editor.preserve_quotes = True
    editor.representer.add_representer(type(None), _null)
    try:
        tree, fragment = editor.load(params), editor.load(recipe)
    except YAMLError as error:
        raise InputError(f"{source} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(fragment, dict):
        raise InputError(f"{source} holds no section: write the settings under `train:`, as params.yaml does")
    _merge(tree, fragment)
    stream = io.StringIO()
    editor.dump(tree, stream)
    # The text that will be read is checked, not the tree: this is what the stages do.
    check_params(yaml.safe_load(stream.getvalue()), source)
    return stream.getvalue()


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")  # ruamel writes nothing


def _merge(tree: Any, fragment: Any) -> None:
    for key, value in fragment.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        elif key not in tree or tree[key] != value:
            _set(tree, key, value)


def _set(tree: Any, key: Any, value: Any) -> None:
    if isinstance(value, list) and isinstance(tree.get(key), list):
        tree[key][:] = value  # in place: the brackets stay, and the comment behind them
    else:
        tree[key] = value
    *_, comment, _ = tree.ca.items.get(key) or [None, None]
    if comment:
        comment.column = 0  # else it keeps its column, however short the new value: one space is all it needs


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _difference(before: str, after: str, *, name: str, colour: bool) -> Iterator[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), name, name, "before", "now", lineterm="")
    for line in lines:
        yield f"{COLOURS[line[0]]}{line}{PLAIN}" if colour and line[0] in COLOURS else line
