"""Whether the store has the version that the register stage has written down.

DVC compares files, so it does not notice another MLFLOW_TRACKING_URI or a deleted store. `make repro` runs this module
after `dvc repro`; its exit status is 1 if the version must be registered again. Imports no MLflow for a SQLite store.
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from emotion_detection.decoding.json_text import read_json
from emotion_detection.errors import StoreError, report_errors
from emotion_detection.experiments.store_location import sqlite_path, store_uri
from emotion_detection.redaction import redact_uri

QUERY = """
SELECT 1 FROM model_versions WHERE name = ? AND version = ? AND run_id = ? AND current_stage NOT LIKE 'Deleted%'
"""


def is_registered(path: Path) -> bool:
    """Whether the store has the version of a file of the register stage. Also True for a store that does not respond.

    Raises DataError if the file is damaged.
    """
    version = read_json(path, "name", "version", "run_id")
    if version["version"] is None:  # the store did not respond
        return False
    identity = (version["name"], version["version"], version["run_id"])
    database = sqlite_path(store_uri())
    return _is_in_registry(*identity) if database is None else _is_in_file(database, identity)


def _is_in_file(database: Path, identity: tuple[Any, ...]) -> bool:
    if not database.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as file:
            return file.execute(QUERY, identity).fetchone() is not None
    except sqlite3.Error as error:
        if "no such table" in str(error):  # the file is new
            return False
        print(f"{database} cannot be asked for the registered version: {error}.", file=sys.stderr)
        return True


def _is_in_registry(name: str, number: int, run_id: str) -> bool:
    from emotion_detection.experiments.registry import NotRegisteredError, resolve

    try:
        return resolve(f"models:/{name}/{number}").run_id == run_id
    except NotRegisteredError:
        return False
    except StoreError as error:
        print(f"{error}.", file=sys.stderr)
        return True


def main(path: Path) -> None:
    """Exit with status 1, and say why, if the version must be registered again."""
    if path.is_file() and not is_registered(path):
        print(f"{redact_uri(store_uri())} does not contain the version of {path}: it is registered again")
        sys.exit(1)


if __name__ == "__main__":
    with report_errors():
        main(Path(sys.argv[1]))
