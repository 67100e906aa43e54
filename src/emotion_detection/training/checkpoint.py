"""The state of an unfinished training on the disk. A damaged state is set aside, and the one before it is used."""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_detection.atomic import atomic_output
from emotion_detection.decoding.npz import NpzError, open_npz

Epoch = dict[str, float]  # a row of the history: metric name -> value
Shapes = list[tuple[int, ...]]

KEPT = 2  # states: the second is used if the first is damaged
MAX_JSON = 50_000_000  # bytes; an epoch has about 200
VARIABLES, BEST, HISTORY, DIGESTS = "state.npz", "best.npz", "history.json", "sha256.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """A training after an epoch: the variables of network and optimizer, the best weights, and the history."""

    variables: Sequence[NDArray[Any]]
    best_weights: Sequence[NDArray[np.float32]]
    history: list[Epoch]


class _DamagedError(Exception):
    """A state is not complete, or not of this training. The message is a reason in a few words."""


def save_state(state: State, checkpoint: Path) -> None:
    """Write a state, with the digests of its files, and delete the older ones except for the one before it."""
    with atomic_output(checkpoint / f"epoch-{len(state.history):04d}") as folder:
        folder.mkdir()
        np.savez(folder / VARIABLES, *state.variables)
        np.savez(folder / BEST, *state.best_weights)
        (folder / HISTORY).write_text(json.dumps(state.history), encoding="utf-8")
        digests = {name: _digest(folder / name) for name in (VARIABLES, BEST, HISTORY)}
        (folder / DIGESTS).write_text(json.dumps(digests), encoding="utf-8")
    for older in _states(checkpoint)[KEPT:]:
        shutil.rmtree(older)


def load_state(checkpoint: Path, *, variables: Shapes, weights: Shapes, epochs: int) -> State | None:
    """Return the newest complete state, or None if there is none.

    variables, weights: the shapes that the arrays must have. Damaged states, and those of more epochs than `epochs`,
    are renamed to damaged-..., with a warning.
    """
    for folder in _states(checkpoint):
        try:
            return _read(folder, variables, weights, epochs)
        except (_DamagedError, NpzError, OSError) as error:
            aside = _set_aside(folder)
            remaining = _states(checkpoint)
            then = f"{remaining[0].name} is tried instead" if remaining else "the training starts again"
            reason = f"{Path(error.filename or folder).name}: {error.strerror}" if isinstance(error, OSError) else error
            logger.warning("%s cannot be used (%s). It was renamed to %s, and %s", folder, reason, aside.name, then)
    return None


def _states(checkpoint: Path) -> list[Path]:
    """The paths of states, newest first."""
    return sorted((path for path in checkpoint.glob("epoch-*") if not path.suffix), reverse=True)


def _set_aside(folder: Path) -> Path:
    aside = folder.with_name(f"damaged-{folder.name}")
    if aside.is_dir():
        shutil.rmtree(aside)
    return folder.rename(aside)


def _read(folder: Path, variables: Shapes, weights: Shapes, epochs: int) -> State:
    digests = _read_json(folder / DIGESTS)
    for name in (VARIABLES, BEST, HISTORY):
        if not isinstance(digests, dict) or digests.get(name) != _digest(folder / name):
            raise _DamagedError(f"{name} is damaged")
    history = _check_history(_read_json(folder / HISTORY))
    if folder.name != f"epoch-{len(history):04d}" or not 1 <= len(history) <= epochs:
        raise _DamagedError(f"its history has {len(history)} epochs")
    return State(_read_arrays(folder / VARIABLES, variables), _read_arrays(folder / BEST, weights), history)


def _read_arrays(path: Path, shapes: Shapes) -> list[NDArray[Any]]:
    with open_npz(path) as arrays:
        if [header.shape for header in arrays.headers.values()] != shapes:
            raise _DamagedError(f"{path.name} is of another network")
        return [arrays.read(name) for name in arrays.headers]


def _check_history(content: Any) -> list[Epoch]:
    """Return the history if it has a row of numbers for each of its epochs, counted from 1."""
    rows: list[Any] = content if isinstance(content, list) else [content]
    if not all(isinstance(row, dict) and row.get("epoch") == number for number, row in enumerate(rows, 1)):
        raise _DamagedError("its history is not one row per epoch")
    values = [value for row in rows for value in (row.get("val_macro_f1"), *row.values())]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise _DamagedError("its history contains values that are not numbers")
    return rows


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_JSON:
            raise _DamagedError(f"{path.name} is too large")
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _DamagedError(f"{path.name} is damaged") from error


def _digest(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(2**20), b""):
            sha.update(chunk)
    return sha.hexdigest()
