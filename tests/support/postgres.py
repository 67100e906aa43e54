"""A PostgreSQL server from Debian's package, on the loopback interface."""

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

INSTALLED = Path("/usr/lib/postgresql")
ACCOUNT = "postgres"  # created by Debian's package; PostgreSQL refuses to run as root


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """Path of one of PostgreSQL's programs; skips the test if it is not installed."""
    found = shutil.which(name) or next(map(str, sorted(INSTALLED.glob(f"*/bin/{name}"), reverse=True)), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return found


@contextmanager
def server() -> Iterator[str]:
    """Run a server; yields the address of its default database."""
    initdb, control = program("initdb"), program("pg_ctl")
    account = ACCOUNT if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        if account:
            shutil.chown(folder, ACCOUNT)
        data, port = Path(folder) / "data", free_port()
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"

        def run(*command: str) -> None:
            # No pipe: the server would inherit it and keep it open.
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, user=account)

        run(initdb, "--pgdata", str(data), "--username", "tester", "--auth", "trust", "--no-sync")
        run(control, "--pgdata", str(data), "--options", options, "--log", f"{folder}/log", "--wait", "start")
        try:
            yield f"postgresql://tester:secret-word@127.0.0.1:{port}/postgres"
        finally:
            run(control, "--pgdata", str(data), "--mode", "immediate", "stop")


def empty_database(address: str) -> str:
    """Create a database on the server with that address; returns its address."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{address.rpartition('/')[0]}/{name}"
