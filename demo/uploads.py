"""The private folder of uploaded videos and of what is made from them: bounded, emptied by time and at the end."""

import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

PREFIX = "emotion-detection-demo-"
LOCK = "lock"
KEEP_S = 600.0
PARTIAL_S = 60.0  # since the last byte of an upload that has not ended; limits.py ends slower ones
SWEEP_EVERY_S = 20.0
YOUNG_S = 60.0  # a folder without a lock may be one that is being made
FOLDER_BYTES = 2_000_000_000
FOLDER_FILES = 2_000
CLIENT_BYTES = 600_000_000  # of one client, within KEEP_S
FREE_BYTES = 500_000_000  # that stay free on the disk


class UploadFolder:
    """A folder that only this user can read. A lock in it tells other demos that it is in use."""

    def __init__(self, parent: Path | None = None) -> None:
        """Make a new folder below `parent`, by default the system's temporary folder, and remove abandoned ones."""
        parent = parent or Path(tempfile.gettempdir())
        remove_abandoned(parent)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))  # mode 0700
        self.received = self.path / "received"  # for Gradio
        self.received.mkdir()
        self._lock = FileLock(self.path / LOCK)
        self._lock.acquire()
        self._received: dict[str, deque[tuple[float, int]]] = defaultdict(deque)  # bytes by client
        self._closing = threading.Event()
        threading.Thread(target=self._sweep_repeatedly, daemon=True, name="uploads").start()

    def reserve(self, client: str, size: int) -> str | None:
        """Count `size` bytes that a client is going to upload. Returns why they have no room, or None."""
        now = time.monotonic()
        received = self._received[client]
        while received and now - received[0][0] > KEEP_S:
            received.popleft()
        if sum(count for _, count in received) + size > CLIENT_BYTES:
            return f"You have uploaded too much. Wait {KEEP_S / 60:.0f} minutes and upload the video again."
        files = [info.st_size for _, info in self._files()]
        is_full = sum(files) + size > FOLDER_BYTES or len(files) >= FOLDER_FILES
        if is_full or shutil.disk_usage(self.path).free < size + FREE_BYTES:
            return f"The demo has no room for another video. Wait {KEEP_S / 60:.0f} minutes and upload it again."
        received.append((now, size))
        return None

    def sweep(self, *, now: float | None = None) -> None:
        """Delete the files that nobody has written to for KEEP_S, and broken-off uploads; now: seconds since 1970.

        Files that this process has open are kept.
        """
        now = time.time() if now is None else now
        in_use = {Path(file.path) for file in psutil.Process().open_files()}  # a long video may be read for hours
        for path, info in self._files():
            is_partial = path.parent == self.received  # Gradio moves a complete upload into a subfolder
            if path not in in_use and now - _changed_s(info) > (PARTIAL_S if is_partial else KEEP_S):
                with suppress(OSError):
                    path.unlink()
        for folder in sorted(self.path.rglob("*"), reverse=True):
            with suppress(OSError):
                if folder.is_dir() and folder != self.received and now - _changed_s(folder.stat()) > KEEP_S:
                    folder.rmdir()  # fails if it is not empty

    def close(self) -> None:
        """Delete the folder. Call it again if something still writes to it."""
        self._closing.set()
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for parent, _, names in os.walk(self.path):
            for name in names:
                path = Path(parent, name)
                with suppress(OSError):  # deleted in the meantime
                    if path != self.path / LOCK:
                        yield path, path.stat(follow_symlinks=False)

    def _sweep_repeatedly(self) -> None:
        while not self._closing.wait(SWEEP_EVERY_S):
            self.sweep()


def _changed_s(info: os.stat_result) -> float:
    """When a file was written or put here, in seconds since 1970.

    A copy keeps the st_mtime of its original: MLflow's copy of the shipped model would be deleted as an old file.
    """
    return max(info.st_mtime, info.st_ctime)


def remove_abandoned(parent: Path) -> None:
    """Delete the folders of demos that were killed. A demo that runs holds its lock."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout):
            if folder.is_symlink() or not folder.is_dir() or _is_young(folder):
                continue
            lock = FileLock(folder / LOCK)
            with lock.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


def _is_young(folder: Path) -> bool:
    return not (folder / LOCK).exists() and time.time() - folder.stat().st_mtime < YOUNG_S
