"""A ceiling on the memory that decoders of untrusted files may reserve. It holds where a header lies about its size."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENFORCED = sys.platform == "linux"  # macOS ignores RLIMIT_AS, and Windows has no such limit
STATM = Path("/proc/self/statm")

_lock = threading.Lock()
_allowed: list[int] = []  # bytes, of the blocks that are running now
_before: list[int] = []  # the address space and the soft limit before the first of them


@contextmanager
def memory_ceiling(extra_bytes: int) -> Iterator[None]:
    """Let the process reserve at most `extra_bytes` more in the block. Beyond them, allocations fail (MemoryError).

    The limit belongs to the process. Blocks that run at the same time in several threads share the sum of their bytes,
    so that a large picture does not fail because of a small one, or the reverse.
    """
    if not ENFORCED:
        yield
        return
    with _lock:
        if not _allowed:
            _before[:] = _address_space(), _soft_limit()
        _allowed.append(extra_bytes)
        _apply()
    try:
        yield
    finally:
        with _lock:
            _allowed.remove(extra_bytes)
            _apply()


def _apply() -> None:
    """Set the soft limit to what the running blocks allow, or back to the limit before the first block."""
    import resource

    used, limit = _before
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = used + sum(_allowed) if _allowed else limit
    if _allowed and limit != resource.RLIM_INFINITY:
        wanted = min(wanted, limit)  # never above the limit that a person has set
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def _soft_limit() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0]


def _address_space() -> int:
    # This runs twice for each face of a data set, and Path.read_text takes 50 us longer.
    descriptor = os.open(STATM, os.O_RDONLY)
    try:
        return int(os.read(descriptor, 100).split()[0]) * os.sysconf("SC_PAGE_SIZE")
    finally:
        os.close(descriptor)
