"""Watch what a command and its child processes connect to, with strace: native libraries are seen too."""

import os
import re
import shutil
from functools import cache
from pathlib import Path

import pytest

CALLS = "connect,sendto,sendmsg,sendmmsg"
ADDRESS = re.compile(r'inet_addr\("(?P<v4>[^"]+)"\)|inet_pton\(AF_INET6, "(?P<v6>[^"]+)"|sun_path=@?"(?P<unix>[^"]+)"')
PORT = re.compile(r"sin6?_port=htons\((\d+)\)")
DNS_PORT = "53"  # also of a resolver on this computer
RESOLVER = "resolve"  # systemd's, reached through a Unix socket: /run/systemd/resolve/...
LOOPBACK = re.compile(r"127\.|::1$|::ffff:127\.")
# Variables that a test machine may have set, and with which some libraries send nothing. The project's own switches
# must be enough.
SWITCHES = re.compile("CI$|GITHUB_|PYTEST_|DO_NOT_TRACK|GRADIO_|HF_|MLFLOW_|DVC_|ORT_|.*TELEMETRY|.*ANALYTICS")


@cache
def has_strace() -> bool:
    """Whether strace works here; some containers forbid it."""
    return shutil.which("strace") is not None and not os.system("strace -f true 2>/dev/null")


needs_strace = pytest.mark.skipif(not has_strace(), reason="strace is missing or forbidden: apt-get install strace")


def without_switches() -> dict[str, str]:
    """This environment as a user has it: without the variables that could keep a library silent."""
    return {name: value for name, value in os.environ.items() if not SWITCHES.match(name)}


def traced(log: Path, *command: str) -> list[str]:
    """The command line that runs `command` and writes its connections to `log`; the plain command without strace."""
    if not has_strace():
        return list(command)
    return [
        "strace",
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-e",
        f"trace={CALLS}",
        "-e",
        "signal=none",
        "-o",
        str(log),
        *command,
    ]


def foreign_addresses(log: Path) -> set[str]:
    """Addresses beyond this computer that a traced command tried to reach, and resolvers anywhere."""
    return {address for line in log.read_text(errors="replace").splitlines() if (address := _foreign(line))}


def _foreign(line: str) -> str:
    match = ADDRESS.search(line)
    if match is None:
        return ""
    if match["unix"]:
        return match["unix"] if RESOLVER in match["unix"] else ""
    address, port = match["v4"] or match["v6"], PORT.search(line)
    number = port[1] if port else ""
    return "" if LOOPBACK.match(address) and number != DNS_PORT else f"{address} port {number}"
