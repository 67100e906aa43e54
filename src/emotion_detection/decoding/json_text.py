"""Read the small JSON files that one stage of the pipeline writes for the next."""

import json
from pathlib import Path
from typing import Any

from emotion_detection.errors import DataError, shorten

MAX_BYTES = 10_000_000


def read_json(path: Path, *required: str, remedy: str = "repeat `dvc repro`, which writes it") -> dict[str, Any]:
    """Return the object in a JSON file.

    Raise DataError, with the remedy in its message, if the file is missing, too large or damaged, or lacks a required
    key.
    """
    try:
        with path.open("rb") as stream:
            content = json.loads(stream.read(MAX_BYTES))
        missing = [key for key in required if key not in content]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({shorten(error)}): {remedy}") from error
    if not isinstance(content, dict) or missing:
        raise DataError(f"{path} is damaged (it has no {', '.join(missing) or 'object'}): {remedy}")
    return content
