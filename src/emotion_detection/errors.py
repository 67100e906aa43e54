"""The errors that a user can fix, and how a command shows them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


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


@contextmanager
def report_errors() -> Iterator[None]:
    """Print an error as one line on stderr and exit with status 1; Ctrl-C exits with 130. Bugs keep their traceback."""
    try:
        try:
            yield
        except ImportError as error:
            raise _missing_package(error) from error
    except EmotionDetectionError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ninterrupted; repeat the command to continue", file=sys.stderr)
        sys.exit(130)  # what a shell expects: 128 + SIGINT


def _missing_package(error: ImportError) -> Exception:
    """The error to show for a failed import: a package that is not installed is not a bug."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and cause.name and not cause.name.startswith("emotion_detection"):
            return MissingPackageError(cause.name.split(".")[0])
        cause = cause.__cause__
    return error
