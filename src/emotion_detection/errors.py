"""The one error a person can mend, and how a command shows it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """Something outside the code is wrong; the message names the culprit and the remedy in one sentence."""


class DivergedError(InputError):
    """The loss of a training is no number any more."""


@contextmanager
def report_errors() -> Iterator[None]:
    """Show an InputError as one line on stderr and exit with status 1, Ctrl-C with 130; a bug keeps its traceback."""
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(130)  # what a shell expects: 128 + SIGINT
