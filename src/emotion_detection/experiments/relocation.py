"""Make a moved or copied SQLite store refer to the artifacts next to it: MLflow stores absolute paths."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

ARTIFACTS = "mlruns"
# Where MLflow stores the paths of artifacts.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)


def relocate(store: Path, experiment: str, *, timeout_s: float) -> None:
    """Replace the folder in which the store was by the one in which it is, in one transaction.

    `experiment` is the one whose artifacts are next to the store. A location that somebody chose is kept. If a copy has
    no artifacts of its own, its old runs keep those of the original, and only new runs write next to the copy.
    Raises sqlite3.Error if the store cannot be read or written.
    """
    with closing(sqlite3.connect(store, timeout=timeout_s, isolation_level=None)) as database:
        stored = _stored_location(database, experiment)
        former = _former_folder(stored, store)
        if former is None:
            return
        new = store.parent
        copied_alone = (former / ARTIFACTS).exists() and not (new / ARTIFACTS).exists()
        database.execute("BEGIN IMMEDIATE")
        for table, column in LOCATIONS[:1] if copied_alone else LOCATIONS:
            _replace_prefix(database, table, column, stored.removesuffix(ARTIFACTS), f"{new.as_uri()}/")
            _replace_prefix(database, table, column, f"{former}/", f"{new}/")
        database.execute("COMMIT")


def _stored_location(database: sqlite3.Connection, experiment: str) -> str:
    """The location of the experiment's artifacts; "" if there is none."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "experiments" not in tables:
        return ""
    rows = database.execute("SELECT artifact_location FROM experiments WHERE name = ?", (experiment,)).fetchall()
    return str(rows[0][0]) if rows else ""


def _former_folder(location: str, store: Path) -> Path | None:
    """The folder in which the store was; None if the store has not moved."""
    address = urlsplit(location)
    if address.scheme != "file" or not location.endswith(f"/{ARTIFACTS}"):
        return None
    folder = Path(unquote(address.path)).parent
    original = folder / store.name
    if folder == store.parent or (original.exists() and original.samefile(store)):  # the same place by another name
        return None
    chosen = (folder / ARTIFACTS).exists() and not original.exists()
    return None if chosen else folder


def _replace_prefix(database: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    database.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
        (new, len(old) + 1, len(old), old),
    )
