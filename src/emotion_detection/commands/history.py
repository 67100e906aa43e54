"""Show who moved the aliases of a model, when, why and on which evidence."""

import json
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from emotion_detection.commands.compare import format_table
from emotion_detection.errors import shorten
from emotion_detection.inference.pretrained import MODEL_NAME

if TYPE_CHECKING:
    from emotion_detection.experiments.ledger import Entry

HEADINGS = ("", "when", "who", "alias", "from", "to", "how", "why")


def history(
    name: str | None = None, /, *, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False
) -> None:
    """Print a line for each move of an alias, oldest first.

    Parameters
    ----------
    name:
        The registered model. It may be omitted if it is `emotion-detection`, or the only one.
    as_json:
        Print JSON instead of a table, with the evidence of each move.
    """
    from emotion_detection.experiments import promotion  # MLflow takes seconds to import

    entries = promotion.history(name or promotion.default_model(MODEL_NAME))
    if as_json:
        print(json.dumps([entry.as_dict() for entry in entries], indent=2))
        return
    print("\n".join(format_table([HEADINGS, *map(_row, entries)])))


def _row(entry: "Entry") -> tuple[str, ...]:
    move = entry.move
    versions = ("–" if number is None else str(number) for number in (move.source, move.target))
    when = f"{entry.at.astimezone():%d %b %Y %H:%M}" if entry.number else ""
    return str(entry.number or ""), when, shorten(entry.by, 30), move.alias, *versions, move.kind, move.why
