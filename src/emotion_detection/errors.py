"""The errors that a user can fix, and how a command shows them."""

import errno
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from emotion_detection.redaction import scrubbed_output

DEBUG = "EMOTION_DETECTION_DEBUG"  # an environment variable: 1 prints the traceback of an unexpected error
MAX_MESSAGE = 1_500  # characters of a printed error
BROKEN_PIPE, INTERRUPTED, UNEXPECTED = 141, 130, 70  # exit statuses: 128 + SIGPIPE, 128 + SIGINT, EX_SOFTWARE

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
REMEDIES = {
    **dict.fromkeys(FULL, "free some space"),
    **dict.fromkeys(FORBIDDEN, "change its permissions or choose another place"),
    errno.EMFILE: "allow more open files with `ulimit -n`",
    errno.ENOMEM: "free some memory",
}
# How libraries that do not raise an OSError say the same (HDF5, SQLite, TensorFlow).
PHRASES = {"no space left": errno.ENOSPC, "disk is full": errno.ENOSPC, "readonly database": errno.EROFS}


class EmotionDetectionError(Exception):
    """Base of all errors here. The message is one sentence: what is wrong, where, and what to do about it."""


class UsageError(EmotionDetectionError):
    """A command was called with a wrong or missing argument, or its output cannot be written."""


class ConfigError(EmotionDetectionError):
    """params.yaml or a recipe is wrong."""


class DataError(EmotionDetectionError):
    """A data set, or a file that the pipeline made from it, is missing, damaged or unknown."""


class MediaError(EmotionDetectionError):
    """A picture, video or camera cannot be read, or a video cannot be written."""


class TooLargeError(MediaError):
    """A picture has more pixels than allowed. No memory was reserved for them."""


class ModelError(EmotionDetectionError):
    """A model file, weights or soft labels are missing, damaged or do not fit."""


class StoreError(EmotionDetectionError):
    """An MLflow store, a model registry or the storage of a search cannot be used."""


class MissingPackageError(EmotionDetectionError):
    """A package of an extra is not installed."""

    def __init__(self, package: str, extra: str = "train") -> None:
        super().__init__(
            f"{package} is not installed: install the extra {extra}, for example with "
            f"`pip install '.[{extra}]'` in a checkout of the project"
        )


class DivergedError(EmotionDetectionError):
    """Training diverged: the loss is NaN or infinite."""


class TerminatedError(KeyboardInterrupt):
    """A signal asked the process to end. All code that ends on Ctrl-C ends on it too."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Raise TerminatedError on SIGTERM and SIGHUP, unless the process ignores or handles them (nohup, a server)."""

    def interrupt(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second signal must not disturb the end
        raise TerminatedError(number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [getattr(signal, name) for name in names if signal.getsignal(getattr(signal, name)) is signal.SIG_DFL]
    set_by_us = []
    with suppress(ValueError):  # not the main thread, which alone gets signals
        for number in numbers:
            signal.signal(number, interrupt)
            set_by_us.append(number)
    try:
        yield
    finally:
        for number in set_by_us:
            signal.signal(number, signal.SIG_DFL)


def shorten(text: object, limit: int = 200) -> str:
    """Return text in one line of at most `limit` characters, for text in a message that other people wrote.

    Control characters, which could change a terminal, are removed.
    """
    head = str(text)[: 4 * limit]
    line = " ".join("".join(character if character.isprintable() else " " for character in head).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


@contextmanager
def report_errors() -> Iterator[None]:
    """Print any error as one line on stderr and exit.

    The status is 1 for what a user can fix (an EmotionDetectionError, a full disk, a folder that cannot be written, too
    little memory), 130 for Ctrl-C, 141 if the reader of stdout is gone (`| head`), and 70 for an unexpected error, a
    bug. With EMOTION_DETECTION_DEBUG=1, the traceback comes before the line. SIGTERM and SIGHUP end the body like
    Ctrl-C, with 143 and 129. Secrets are removed from everything that the body prints or logs.
    """
    with scrubbed_output(), signals_interrupt(), _report():
        yield


@contextmanager
def _report() -> Iterator[None]:
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get(DEBUG) == "1":
            traceback.print_exc()
        if isinstance(error, BrokenPipeError):
            _discard_output()
            sys.exit(BROKEN_PIPE)
        message, status = _message(error)
        with suppress(OSError):  # stderr itself may be on the full disk
            print(message, file=sys.stderr)
        sys.exit(status)


def _message(error: BaseException) -> tuple[str, int]:
    """The line to print and the exit status."""
    if isinstance(error, TerminatedError):
        return "\nterminated; repeat the command to continue", 128 + error.signal
    if isinstance(error, KeyboardInterrupt):
        return "\ninterrupted; repeat the command to continue", INTERRUPTED
    if isinstance(error, ImportError):
        error = _missing_package(error)
    if isinstance(error, EmotionDetectionError):
        return f"error: {shorten(error, MAX_MESSAGE)}", 1
    known = _known_problem(error)
    return (f"error: {known}", 1) if known else (f"error: {_bug(error)}", UNEXPECTED)


def _known_problem(error: BaseException) -> str | None:
    """A sentence for a problem of the machine or of a file, in whatever library it came up."""
    if isinstance(error, MemoryError):
        return "there is not enough memory: close other programs, or use smaller settings or files"
    if isinstance(error, RecursionError):
        return "the input is nested too deeply: use a simpler file"
    if isinstance(error, OSError) and error.errno is not None:
        return describe_os_error(error)
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in REMEDIES:
            return describe_os_error(cause)
        number = next((number for phrase, number in PHRASES.items() if phrase in str(cause).lower()), None)
        if number:
            return describe_os_error(OSError(number, os.strerror(number)))
    return None


def describe_os_error(error: OSError) -> str:
    """Return one sentence: which file or server, what is wrong with it, and what to do."""
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return f"a server does not respond ({shorten(error.strerror)}): check its address, then repeat the command"
    path = error.filename2 or error.filename
    what = f"{shorten(path)} cannot be used" if path else "a file cannot be used"
    if error.errno in FULL:
        what = what.replace("used", "written")
    remedy = REMEDIES.get(error.errno or 0, "check the path")
    return f"{what} ({shorten(error.strerror)}): {remedy}, then repeat the command"


def _bug(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    ours = [frame for frame in frames if "emotion_detection" in frame.filename] or frames
    place = f" in {Path(ours[-1].filename).name}, line {ours[-1].lineno}" if ours else ""
    return (
        f"unexpected {type(error).__name__}{place} ({shorten(error.__cause__ or error)}): this is a bug, "
        f"repeat the command with {DEBUG}=1 to see where and report it"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, at most ten."""
    cause: BaseException | None = error
    for _ in range(10):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _discard_output() -> None:
    """Send stdout to nowhere: Python would write the rest at exit and complain."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _missing_package(error: ImportError) -> Exception:
    """The error to show for a failed import: a package that is not installed is not a bug."""
    for cause in _causes(error):
        if isinstance(cause, ModuleNotFoundError) and cause.name and not cause.name.startswith("emotion_detection"):
            return MissingPackageError(cause.name.split(".")[0])
    return error
