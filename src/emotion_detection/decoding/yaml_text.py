"""Read YAML that a person hands in: bounded in size, nesting and aliases, and with plain values only."""

import math
import re
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from emotion_detection.errors import ConfigError, shorten

MAX_BYTES = 100_000  # the project's own files have 1 to 5 kB
MAX_DEPTH = 20
MAX_VALUES = 5_000  # with every alias replaced by what it stands for
MAX_NUMBER = 40  # characters
# Numbers that YAML 1.1 and YAML 1.2, which DVC reads, take differently: 010 is 8 or 10, and 1:30 is 90 or text.
AMBIGUOUS = re.compile(r"[-+]?0\d|.*:")

PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}
TEXT, INTEGER, FLOAT, DATE = (f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "timestamp"))


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file as dicts with text keys, lists, text, finite numbers, booleans and None.

    Raise ConfigError with the line if the file is missing, too large, not valid YAML, nested too deeply, or contains a
    date, a tag, a duplicate key or a number that is not finite.
    """
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Return the text of a file of at most MAX_BYTES. Raise ConfigError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        text = content.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:  # also a path with a null character
        raise ConfigError(f"{path} cannot be read ({shorten(error)}): save the file as UTF-8 text") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path} has more than {MAX_BYTES // 1000} kB: a file of settings has a few kB")
    return text


def parse_yaml(text: str, source: str) -> Any:
    """Return the content of a YAML text as `read_yaml` does; `source` is the file that the ConfigError names."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    except yaml.reader.ReaderError as error:  # a control character, such as in a binary file
        raise ConfigError(f"{source} cannot be read ({shorten(error)}): save the file as UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {_describe(error)}") from error
    except (RecursionError, ValueError, OverflowError) as error:  # a Unicode escape that is no character
        raise ConfigError(f"{source} is not valid YAML: {shorten(error)}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _describe(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    problem = shorten(error.problem or error.context or "unknown problem")
    return f"line {mark.line + 1}: {problem}" if mark else problem


def _problem(message: str, node: Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark)


def _measure(node: Node, known: dict[Node, tuple[int, int]]) -> tuple[int, int]:
    """Return the number of values below a node, with aliases replaced, and their depth. `known` has finished nodes."""
    if node in known:
        return known[node]
    known[node] = (MAX_VALUES, MAX_DEPTH)  # until it is finished: for a node that contains itself
    children = [] if isinstance(node, ScalarNode) else _children(node)
    sizes = [_measure(child, known) for child in children]
    size, depth = 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
    if size > MAX_VALUES:
        raise _problem("its aliases (*) stand for too many values: write the values without aliases", node)
    if depth > MAX_DEPTH:
        raise _problem(f"more than {MAX_DEPTH} levels are nested: settings have at most four", node)
    known[node] = (size, depth)
    return size, depth


def _children(node: Node) -> list[Node]:
    return [part for pair in node.value for part in pair] if isinstance(node, MappingNode) else list(node.value)


class _Loader(yaml.SafeLoader):
    """Loads plain values only and refuses what would silently change their meaning."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Compose a node; refuse it before its children are read if it is too deep or one too many."""
        self._depth, self._values = self._depth + 1, self._values + 1
        if self._depth > MAX_DEPTH or self._values > MAX_VALUES:
            limit = f"{MAX_DEPTH} levels are nested" if self._depth > MAX_DEPTH else f"{MAX_VALUES} values"
            raise yaml.MarkedYAMLError(problem=f"more than {limit}", problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        if node.tag == DATE:
            raise _problem(f"{shorten(node.value)} is a date: put it in quotes", node)
        if node.tag not in PLAIN:
            raise _problem(f"the tag {shorten(node.tag)} is not allowed: write plain values", node)
        if node.tag in (INTEGER, FLOAT):
            return _number(super().construct_object, node)
        value = super().construct_object(node, deep)
        if node.tag == TEXT and any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
            raise _problem("a text contains a character that no text can have", node)
        return value

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys: set[str] = set()
        for key, _ in node.value:  # before `<<` is merged, because merged keys may be replaced
            if not isinstance(key, ScalarNode) or key.tag not in (TEXT, "tag:yaml.org,2002:merge"):
                name = shorten(key.value) if isinstance(key, ScalarNode) else "a list or a mapping"
                raise _problem(f"{name} is not a name of a setting: put it in quotes or remove it", key)
            if key.value in keys:
                raise _problem(f"{shorten(key.value)} is there twice: remove one", key)
            keys.add(key.value)
        return super().construct_mapping(node, deep)


def _number(construct: Any, node: Node) -> int | float:
    """Return a number. PyYAML raises ValueError for `0x_` and for 5,000 digits, and accepts `.inf` and `.nan`."""
    value, text = math.nan, node.value if isinstance(node, ScalarNode) else ""
    if len(text) <= MAX_NUMBER and not AMBIGUOUS.match(text):
        with suppress(ValueError):
            value = construct(node)
    if not math.isfinite(value):
        raise _problem(f"{shorten(node.value, MAX_NUMBER)} is not a number that a setting can have", node)
    return value
