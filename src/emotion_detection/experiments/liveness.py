"""Whether the process of a run still lives: a killed process leaves its run as if it was running."""

import os
import platform
from contextlib import suppress

import psutil

CLOCK_TOLERANCE_S = 60  # by how much the wall clock may be adjusted while a process runs


def this_process() -> str:
    """A text that identifies this process among all processes of all machines: host, process ID and start."""
    return f"{this_host()}, process {os.getpid()}, started {psutil.Process().create_time():.0f}"


def this_host() -> str:
    """The host, and the container on it, whose process IDs are comparable."""
    with suppress(OSError):  # Linux only
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    return platform.node()


def has_exited(process: str) -> bool:
    """Whether a process, as `this_process` describes it, was on this host and has exited. Others count as alive."""
    host, _, rest = process.partition(", process ")
    number, _, started = rest.partition(", started ")
    if host != this_host() or not number.isdigit() or not started.isdigit():
        return False
    try:
        # The operating system reuses process IDs, but not within a minute.
        return abs(psutil.Process(int(number)).create_time() - int(started)) > CLOCK_TOLERANCE_S
    except psutil.Error:
        return True
