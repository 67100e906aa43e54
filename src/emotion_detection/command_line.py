"""Run a function as a command: its arguments become flags, and its errors become one line."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cyclopts import App, CycloptsError

from emotion_detection.errors import report_errors

USAGE_ERROR = 2


def run_command(function: Callable[..., Any], arguments: Sequence[str] | None = None) -> None:
    """Call `function` with the command line's flags; `arguments` replaces sys.argv[1:].

    Each argument of the function is a flag, and so is each field of a dataclass argument.
    """
    app = App()
    app.default(function)
    run_app(app, arguments)


def run_app(app: App, arguments: Sequence[str] | None = None) -> None:
    """Run an app. A wrong flag prints one line and exits with status 2, a user's mistake with status 1."""
    with _log_to_stderr(), report_errors():
        try:
            app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        except CycloptsError as error:
            print(f"error: {' '.join(str(error).split())} (--help lists the options)", file=sys.stderr)
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
