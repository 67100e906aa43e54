"""Run a command in a mount namespace of its own: with a full disk or a read-only folder, as an ordinary user has them.

chmod does not stop root, and tests often run as root.
"""

import os
import shlex
from pathlib import Path

import pytest

UNSHARE = ("unshare", "--map-root-user", "--mount", "sh", "-c")


def has_namespaces() -> bool:
    """Whether a mount namespace can be made here; some containers forbid it."""
    return os.system(f"{' '.join(UNSHARE)} 'mount -t tmpfs none /mnt' 2>/dev/null") == 0


needs_namespaces = pytest.mark.skipif(not has_namespaces(), reason="unshare is missing or forbidden here")


def with_small_disk(folder: Path, kilobytes: int, *command: str) -> list[str]:
    """The command line that runs `command` while `folder` is a disk of this size, with the folder's content.

    The content of the disk is copied back to the folder with the suffix .after.
    """
    here, kept = shlex.quote(str(folder)), shlex.quote(f"{folder}.after")
    script = (
        f"cp -a {here} {kept}.before && mount -t tmpfs -o size={kilobytes}k none {here} && "
        f"cp -a {kept}.before/. {here}; "
        f"{shlex.join(command)}; status=$?; cp -a {here} {kept}; exit $status"
    )
    return [*UNSHARE, script]


def with_read_only(folder: Path, *command: str) -> list[str]:
    """The command line that runs `command` while nothing can be written in `folder`."""
    here = shlex.quote(str(folder))
    script = f"mount --bind {here} {here} && mount -o remount,bind,ro {here} && cd {here} && {shlex.join(command)}"
    return [*UNSHARE, script]
