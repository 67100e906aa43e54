"""Fill in the templates of this package with Jinja2."""

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from emotion_detection.errors import shorten

MAX_TEXT = 2_000  # characters of a text of others


def render(name: str, **values: Any) -> str:
    """The text of a template, without control characters in its values.

    HTML is escaped by default; texts of others in Markdown need the filter `code`.
    """
    return _environment().get_template(name).render(values)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("emotion_detection.reporting"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["code"] = code
    return made


def code(text: object) -> str:
    """Text of others as code in Markdown, also in a table: links, HTML and mentions in it have no effect."""
    line = one_line(text).replace("`", "'").replace("|", "\\|")
    return f"`{line}`" if line else ""


def prose(text: object) -> str:
    """Text of others as plain words in Markdown: all that could be a link, HTML or a format becomes a reference."""
    return re.sub(r"[^\w\s.,]|[._](?=\S)", lambda found: f"&#{ord(found[0])};", one_line(text))


def one_line(text: object) -> str:
    """Text of others in one line of limited length, without control characters, for a terminal or a page."""
    return shorten(text, MAX_TEXT)


def _printable(value: object) -> object:
    """What a template writes for a value. Its own markup, such as the output of a macro, stays as it is."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "".join(character if character.isprintable() else " " for character in value)
