"""Move the runs and models of a project from its SQLite file to the team's server, which must be new.

python move_runs.py FOLDER [--database URI] [--files URI]

FOLDER is the folder of the project with mlflow.db and mlruns/; it is only read. IDs, times and version numbers stay the
same, so that run IDs in ONNX files and in dvc.lock remain right. docs/team-server.md shows the command.
"""

import argparse
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow.store.db.utils as mlflow_db
from mlflow.entities import LoggedModelStatus
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, func, select, text, update

DATABASE, FILES = "postgresql+psycopg://mlflow@postgres/mlflow", "s3://mlflow"  # of compose.yaml
PROXY = "mlflow-artifacts:"  # the address of files behind the server
SCHEMA = "alembic_version"
ROWS = 1_000  # at a time
OCCUPIED = ("runs", "registered_models", "trace_info")  # a server that has some of these is not new
DEFAULT_EXPERIMENT = 0  # the ID of the experiment that every server has
FOLDERS = (("runs", "artifact_uri"), ("logged_models", "artifact_location"))
COPIES = (("model_versions", "source"), ("model_versions", "storage_location"))  # of these addresses
MLRUNS = "mlruns"  # the folder of the files


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=Path, help="the folder of the project")
    parser.add_argument("--database", default=DATABASE, help="the database of the server")
    parser.add_argument("--files", default=FILES, help="the value of the server's --artifacts-destination")
    options = parser.parse_args()
    if not (options.folder / "mlflow.db").is_file():
        sys.exit(f"{options.folder} has no mlflow.db: name the folder of the project")
    with tempfile.TemporaryDirectory() as name:
        source = create_engine(f"sqlite:///{_copy(options.folder / 'mlflow.db', Path(name))}")
        mlflow_db._upgrade_db(source)  # to the schema of this version of MLflow, that of the server
        print(move(source, create_engine(options.database), options.folder, options.files))
        source.dispose()


def _copy(store: Path, folder: Path) -> Path:
    """A copy of the SQLite file, also if a process has it open."""
    path = folder / "copy.db"
    with closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)) as original:
        original.backup(copy := sqlite3.connect(path))
        copy.close()
    return path


def move(source: Engine, target: Engine, folder: Path, files: str) -> str:
    """Copy all rows and files; returns a sentence. Everything that the database gets, it gets in one transaction."""
    schema = MetaData()
    schema.reflect(target)
    tables = [table for table in schema.sorted_tables if table.name != SCHEMA]
    with source.connect() as old, target.begin() as new:
        _check(old, new, schema)
        for table in reversed(tables):  # the rows that every new server has
            new.execute(table.delete())
        for table in tables:
            for rows in _batches(old, table):
                new.execute(table.insert(), rows)
        _continue_sequences(new, tables)
        moved = _move_files(new, schema, folder, files)
        runs = new.scalar(select(func.count()).select_from(schema.tables["runs"]))
        return f"{runs} runs and the files of {moved} folders are on the server"


def _check(old: Connection, new: Connection, schema: MetaData) -> None:
    versions = [connection.scalar(text(f"SELECT version_num FROM {SCHEMA}")) for connection in (old, new)]
    if versions[0] != versions[1]:
        sys.exit("the server has another version of MLflow: run this script with the server's version")
    experiments = schema.tables["experiments"]
    own = select(func.count()).select_from(experiments).where(experiments.c.experiment_id != DEFAULT_EXPERIMENT)
    counts = (select(func.count()).select_from(schema.tables[name]) for name in OCCUPIED)
    if any(new.scalar(count) for count in (own, *counts)):
        sys.exit("the server has experiments, runs, models or traces already: move into a new server")


def _batches(old: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    for rows in old.execution_options(yield_per=ROWS).execute(select(table)).mappings().partitions():
        yield [dict(row) for row in rows]


def _continue_sequences(new: Connection, tables: Sequence[Table]) -> None:
    """PostgreSQL numbers new rows after the copied ones."""
    for table in tables:
        for column in table.primary_key.columns if new.dialect.name == "postgresql" else ():
            sequence = new.scalar(select(func.pg_get_serial_sequence(table.name, column.name)))
            if sequence:
                new.execute(select(func.setval(sequence, func.coalesce(select(func.max(column)).scalar_subquery(), 1))))


def _move_files(new: Connection, schema: MetaData, folder: Path, files: str) -> int:
    """Upload the files of all runs and models that lie on this machine, and write where they are now.

    The ID of the experiment is the first folder of each address: by it, the server knows who may read and write.
    """
    paths = {
        row[column]: f"{row['experiment_id']}/{_place(row[column])}"
        for name, column in FOLDERS
        for row in new.execute(select(schema.tables[name])).mappings()
        if _place(row[column])
    }
    found = {address: folder / MLRUNS / _place(address) for address in paths}
    _name_missing(new, schema, found)
    uploads = {address: place for address, place in found.items() if place.is_dir()}
    for address, place in uploads.items():
        get_artifact_repository(f"{files}/{paths[address]}").log_artifacts(str(place))
    for name, column in (*FOLDERS, *COPIES):
        table = schema.tables[name]
        for address, path in paths.items():
            new.execute(update(table).where(table.c[column] == address).values({column: f"{PROXY}/{path}"}))
    experiments = schema.tables["experiments"]
    for row in new.execute(select(experiments)).mappings().all():
        if is_local(row["artifact_location"]):
            same = experiments.c.experiment_id == row["experiment_id"]
            new.execute(update(experiments).where(same).values(artifact_location=f"{PROXY}/{row['experiment_id']}"))
    return len(uploads)


def _name_missing(new: Connection, schema: MetaData, found: Mapping[str, Path]) -> None:
    """Name the addresses without a folder, as of a run without files. Stop if a model or version has none."""
    missing = [address for address, place in found.items() if not place.is_dir()]
    for address in missing:
        print(f"{address} has no folder in the project: nothing of it is uploaded", file=sys.stderr)
    models, versions = schema.tables["logged_models"], schema.tables["model_versions"]
    kept = (models.c.lifecycle_stage == "active", models.c.status == LoggedModelStatus.READY.to_int())
    needed = {*new.scalars(select(models.c.artifact_location).where(*kept)), *new.scalars(select(versions.c.source))}
    lost = needed.intersection(missing)
    if lost:
        sys.exit(f"nothing is moved: the files of {len(lost)} models are missing: restore the folders named above")


def is_local(address: str | None) -> bool:
    """Whether an address of files is on the machine that wrote it."""
    return urlsplit(address or "").scheme in ("", "file")


def _place(address: str | None) -> str:
    """The part of an address on this machine below mlruns/; "" for another address."""
    _, found, place = unquote(urlsplit(address or "").path).rpartition(f"/{MLRUNS}/")
    return place if found and is_local(address) else ""


if __name__ == "__main__":
    main()
