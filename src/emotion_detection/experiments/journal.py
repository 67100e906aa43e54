"""What a store has missed: a folder for each run, from which it is delivered later. Imports no MLflow.

A journal has a line of JSON for each call, in the order and with the times in which a stage made them, and copies of
the files. Lines are only added: also the number of lines that the store has taken. A line that a killed process has
not finished does not count. Any other line that cannot be read is kept as a call, so that it is not lost unnoticed.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from emotion_detection.errors import DataError, StoreError, shorten
from emotion_detection.experiments.store_location import project_folder, store_uri
from emotion_detection.redaction import redact_uri

FOLDER = Path("build") / "journal"  # in the folder of the project, also for a queued experiment
LOCK_TIMEOUT_S = 600  # how long `sync` waits for another process that delivers
WAIT_S = 5  # how long a stage waits for it
MOST_JOURNALS = 9  # of one run
RECORDS, FILES, REGISTRATION = "records.jsonl", "files", "registration"
JOURNAL, DELIVERED = "journal", "delivered"  # kinds of lines that are no calls
DAMAGED = "damaged"  # the kind of a line without one, which no version can send
RUN_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
Line = dict[str, Any]
# What a line must have, by its kind; other kinds are calls.
FIELDS: dict[str, dict[str, type]] = {JOURNAL: {"at": int, "store": str}, DELIVERED: {"calls": int}}
CALL_FIELDS: dict[str, type] = {"at": int, "content": dict}


@dataclass(frozen=True)
class Journal:
    """The journal of one run, which is there as soon as something is written.

    folder: named by the run; or "RUN.2" and so on, if a stage had to write while a process delivered the first journal.
    """

    folder: Path

    @property
    def run_id(self) -> str:
        """The ID of the run, as the stages know it."""
        return self.folder.name.partition(".")[0]

    @property
    def registration(self) -> Path:
        """The folder of a model that could not be registered; it exists only if there is one."""
        return self.folder / REGISTRATION

    @property
    def exists(self) -> bool:
        """Whether something was written."""
        return bool(self._lines())

    @property
    def store(self) -> str:
        """The address of the store that has missed something, without secrets."""
        return str(self._lines()[0]["store"])

    @property
    def started(self) -> int:
        """When the journal was begun, in milliseconds since 1970."""
        return int(self._lines()[0]["at"])

    @property
    def is_for_present_store(self) -> bool:
        """Whether the present store is the one that has missed something."""
        return self.store == redact_uri(store_uri())

    def pending(self) -> list[Line]:
        """The calls that the store has not taken, each with its number in "number"."""
        lines = self._lines()
        taken = max((line["calls"] for line in lines if line["kind"] == DELIVERED), default=0)
        calls = [line for line in lines if line["kind"] not in (JOURNAL, DELIVERED)]
        return [line | {"number": number} for number, line in enumerate(calls, 1) if number > taken]

    def files(self, number: int) -> Path:
        """The folder with the artifacts of a call."""
        return self.folder / FILES / str(number)

    def begin(self, at: int) -> None:
        """Begin a new journal. An existing one is continued."""
        if not self.exists:
            self._write({"kind": JOURNAL, "at": at, "store": redact_uri(store_uri())})

    def add(self, kind: str, at: int, content: Line, write_files: Callable[[Path], object] | None = None) -> None:
        """Add a call. write_files: writes its artifacts into a folder."""
        self.begin(at)
        if write_files:
            number = 1 + sum(line["kind"] not in (JOURNAL, DELIVERED) for line in self._lines())
            shutil.rmtree(self.files(number), ignore_errors=True)  # of a killed process
            self.files(number).mkdir(parents=True)
            write_files(self.files(number))
        self._write({"kind": kind, "at": at, "content": content})

    def mark_delivered(self, number: int) -> None:
        """Note that the store has taken the calls up to this number."""
        self._write({"kind": DELIVERED, "calls": number})

    def remove(self) -> None:
        """Remove a journal of which everything is delivered. Hold its lock before.

        A removal that is killed leaves nothing that would be read. The lock file stays: the process may go on.
        """
        if self.folder.exists():
            shutil.rmtree(self.registration, ignore_errors=True)
            (self.folder / RECORDS).unlink(missing_ok=True)
            shutil.rmtree(self.folder)

    @contextmanager
    def lock(self, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Keep other processes from using this journal. May be nested. Raises BusyError after that time."""
        with _lock(self._lock_path, timeout_s):
            yield

    @property
    def _lock_path(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.lock")

    def _lines(self) -> list[Line]:
        try:
            text = (self.folder / RECORDS).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        lines = [line for part in text.split("\n") if (line := _parse(part))]
        has_begun = any(line["kind"] == JOURNAL for line in lines)
        return sorted(lines, key=lambda line: line["kind"] != JOURNAL) if has_begun else []

    def _write(self, line: Line) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / RECORDS).open("ab") as stream:
            # The newline before it ends a line that a killed process has not finished.
            stream.write(f"\n{json.dumps(line)}\n".encode())
            stream.flush()
            os.fsync(stream.fileno())


def _parse(text: str) -> Line | None:
    """A line; None for a text that a killed process has not finished. A damaged line is a call without a content."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    except RecursionError:
        line = None
    kind = line.get("kind") if isinstance(line, dict) else None
    if not isinstance(kind, str):
        return {"kind": DAMAGED, "at": 0, "content": None}
    fields = FIELDS.get(kind, CALL_FIELDS)
    if all(isinstance(line.get(name), one) for name, one in fields.items()):
        return dict(line)
    return {"kind": DAMAGED if kind in FIELDS else kind, "at": 0, "content": None}


def journal_of(run_id: str) -> Journal:
    """The journal of a run. Raises DataError for a text that is no ID, as in a damaged file."""
    if not RUN_ID.fullmatch(run_id):
        raise DataError(
            f"{shorten(run_id)} is not the ID of a run: repeat `dvc repro --force train`, which writes run.json"
        )
    return Journal(project_folder() / FOLDER / run_id)


@contextmanager
def writable(run_id: str) -> Iterator[Journal]:
    """A locked journal of the run: its first one, or another one while a process delivers that."""
    first = journal_of(run_id)
    others = [Journal(first.folder.with_name(f"{run_id}.{number}")) for number in range(2, MOST_JOURNALS)]
    last = Journal(first.folder.with_name(f"{run_id}.{MOST_JOURNALS}"))
    with ExitStack() as lock:
        for journal in (first, *others):
            try:
                lock.enter_context(journal.lock(WAIT_S if journal == first else 0))
            except BusyError:
                continue
            yield journal
            return
        lock.enter_context(last.lock())
        yield last


def journals() -> Sequence[Journal]:
    """All journals of the project, oldest first."""
    root = project_folder() / FOLDER
    found = [Journal(path) for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    return sorted((journal for journal in found if journal.exists), key=lambda journal: journal.started)


@contextmanager
def exclusive_delivery(timeout_s: float | None = None) -> Iterator[None]:
    """Let one process at a time deliver. Others wait, and get a BusyError after that time.

    timeout_s: LOCK_TIMEOUT_S if omitted.
    """
    limit_s = LOCK_TIMEOUT_S if timeout_s is None else timeout_s
    with _lock(project_folder() / FOLDER / "delivery.lock", limit_s):
        yield


@contextmanager
def _lock(path: Path, timeout_s: float) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path, is_singleton=True).acquire(timeout=timeout_s)
    except Timeout as error:
        raise BusyError(f"{path} is locked: another process is using it: wait until it ends, then repeat it") from error
    with lock:
        yield


class BusyError(StoreError):
    """Another process writes or delivers a journal."""
