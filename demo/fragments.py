"""Pieces of HTML in Gradio's tabs."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path


def note(text: str) -> str:
    """A message that a screen reader speaks when it has time."""
    return f'<p class="note" role="status">{html.escape(text)}</p>'


def alert(text: str) -> str:
    """A message that says what went wrong."""
    return f'<p class="message" role="alert">{html.escape(text)}</p>'


def paragraph(text: str) -> str:
    """A remark that a screen reader does not speak by itself."""
    return f'<p class="note">{html.escape(text)}</p>'


def title(text: str) -> str:
    """The title of a part of a tab."""
    return f'<h2 class="part-title">{html.escape(text)}</h2>'


def picture(path: Path, name: str, description: str) -> str:
    """A PNG file in the page itself; a click downloads it as `name`."""
    source = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    image = f'<img class="figure" src="{source}" alt="{html.escape(description)}">'
    return f'<a href="{source}" download="{html.escape(name)}">{image}</a>'


def data_table(columns: Sequence[str], cells: Iterable[Sequence[object]], label: str) -> str:
    """A table that scrolls inside its own area, also with the keyboard."""
    head = "".join(f'<th scope="col">{html.escape(column.replace("_", " "))}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in cells)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{html.escape(label)}">{table}</div>'
