"""Run a function as a command: its arguments become flags, and its errors become one line."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cyclopts import App, CycloptsError

from emotion_detection.errors import MAX_MESSAGE, report_errors, shorten

USAGE_ERROR = 2
POLL_S = 1  # between two looks at the parent process


def run_command(function: Callable[..., Any], arguments: Sequence[str] | None = None) -> None:
    """Call `function` with the command line's flags; `arguments` replaces sys.argv[1:].

    Each argument of the function is a flag, and so is each field of a dataclass argument.
    """
    app = App()
    app.default(function)
    end_with_dvc()
    run_app(app, arguments)


def end_with_dvc() -> None:
    """In a stage that DVC runs: send SIGTERM to this process if DVC ends, which does not end its stages itself.

    Otherwise the next `dvc repro` would train next to it, with the same checkpoint.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    if "DVC_STAGE" in os.environ:
        threading.Thread(target=watch, daemon=True, name="dvc").start()


def run_app(app: App, arguments: Sequence[str] | None = None) -> None:
    """Run an app. A wrong flag prints one line and exits with status 2; `report_errors` has the other statuses."""
    app.suppress_keyboard_interrupt = False  # report_errors says what to do
    with _log_to_stderr(), report_errors():
        try:
            app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        except CycloptsError as error:
            print(f"error: {shorten(error, MAX_MESSAGE)} (--help lists the options)", file=sys.stderr)
            sys.exit(USAGE_ERROR)


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Print the package's log messages, from INFO on, as plain lines."""
    logger, handler = logging.getLogger("emotion_detection"), logging.StreamHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
