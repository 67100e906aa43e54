"""A PostgreSQL server of Debian's package, on loopback, for as long as a test lasts."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

INSTALLED = Path("/usr/lib/postgresql")
ACCOUNT = "postgres"  # of Debian's package: PostgreSQL refuses to serve as root


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """Path of one of PostgreSQL's programs; skips the test where there is none."""
    found = shutil.which(name) or next(map(str, sorted(INSTALLED.glob(f"*/bin/{name}"), reverse=True)), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return found


@contextmanager
def server() -> Iterator[str]:
    """A server with an empty database; yields its address."""
    initdb, control = program("initdb"), program("pg_ctl")
    account = ACCOUNT if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        if account:
            shutil.chown(folder, ACCOUNT)
        data, port = Path(folder) / "data", free_port()
        options = f"-h 127.0.0.1 -p {port} -k {folder}"

        def run(*command: str) -> None:
            # No pipe: the server would inherit it, and whoever reads it would wait for the server's end.
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, user=account)

        run(initdb, "--pgdata", str(data), "--username", "tester", "--auth", "trust", "--no-sync")
        run(control, "--pgdata", str(data), "--options", options, "--log", f"{folder}/log", "--wait", "start")
        try:
            yield f"postgresql://tester:secret-word@127.0.0.1:{port}/postgres"
        finally:
            run(control, "--pgdata", str(data), "--mode", "immediate", "stop")
