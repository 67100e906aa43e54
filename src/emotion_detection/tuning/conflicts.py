"""Refuse a search whose trials do not fit the initial weights, the soft labels or the teachers of `train`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emotion_detection.config import Categorical, NumberRange, Params, Train, flatten
from emotion_detection.data.dataset import Faces, load
from emotion_detection.errors import ConfigError
from emotion_detection.training.content_addressed import open_content_addressed
from emotion_detection.training.distillation import load_teacher, targets
from emotion_detection.training.votes import check_votes
from emotion_detection.tuning.search_space import Space, as_text

NETWORK = ("architecture", "widths", "blocks", "stem_stride", "standardize", "head")  # initial weights fit one network
# Soft labels of augmented faces fit one sequence of batches and one augmentation, and so do these settings.
BATCHES = ("seed", "batch_size", "final_plain_fraction")


def check(params: Params, faces: Path) -> None:
    """Raise an error that names the setting, the conflicting keys and the remedy.

    Reads the files of initial weights and soft labels, and the prepared faces only if there are soft labels or if a
    trial uses votes.
    """
    if any(_possible(params, "average.weights")):
        raise ConfigError(
            "train.average has no effect on a search, which compares epochs: write `weights: []` and `share: 0` under "
            "train.average in params.yaml, and remove average.weights from tune.space"
        )
    votes = _largest_votes(params)
    if votes:
        check_votes(params.train.model_copy(update={"votes": votes}), load(faces))
    for path in _possible(params, "initial_weights"):
        _check_initial_weights(path, params)
    soft_labels = _possible(params, "distillation.soft_labels")
    train_faces = load(faces).of("train") if soft_labels else None
    for path in soft_labels:
        assert train_faces is not None
        _check_soft_labels(path, params, train_faces)


def check_teachers(params: Params, dataset: str) -> None:
    """Raise ModelError if a teacher of a trial cannot be used or was trained on another data set."""
    for path in {path for teachers in _possible(params, "distillation.teachers") for path in teachers}:
        load_teacher(Path(path), dataset)


def _largest_votes(params: Params) -> float:
    """The largest train.votes of a trial."""
    dimension = params.tune.space.get("votes")
    if isinstance(dimension, NumberRange):
        return dimension.high
    values = dimension.choices if isinstance(dimension, Categorical) else (params.train.votes,)
    return max((value for value in values if isinstance(value, float)), default=0.0)


def _check_initial_weights(path: str, params: Params) -> None:
    remedy = "copy it again, or write `initial_weights: null` under train in params.yaml"
    with open_content_addressed(Path(path), remedy):
        pass  # it is complete
    conflicts = _varied(NETWORK, params)
    if conflicts:
        raise ConfigError(
            f"train.initial_weights {path} fits one network, but {_listed(conflicts)} would change the network: "
            "write `initial_weights: null` under train in params.yaml, or remove these keys from tune.space"
        )


def _check_soft_labels(path: str, params: Params, train_faces: Faces) -> None:
    distillation = params.train.distillation.model_copy(update={"soft_labels": path})
    base = params.train.model_copy(update={"distillation": distillation})
    _, of_augmented_faces = targets(base, train_faces)
    if of_augmented_faces is None:  # soft labels of the unchanged faces fit every trial
        return
    augment = [f"augment.{key}" for key in type(params.train.augment).model_fields]
    conflicts = _varied([*BATCHES, *augment], params)
    remedies = ["remove these keys from tune.space"] if conflicts else []
    if params.tune.finalists:  # they are trained with other seeds
        conflicts.append("tune.finalists")
        remedies.append("write `finalists: 0` under tune")
    if conflicts:
        raise ConfigError(
            f"train.distillation.soft_labels {path} fits one seed and one augmentation, but {_listed(conflicts)} would "
            "change them: write `soft_labels: null` and `weight: 0` under train.distillation in params.yaml, or "
            f"{' and '.join(remedies)}"
        )


def _possible(params: Params, key: str) -> list[Any]:
    """The files that a setting can name in a trial."""
    dimension = params.tune.space.get(key)
    values = dimension.choices if isinstance(dimension, Categorical) else [_leaves(params.train)[key]]
    return [value for value in values if value is not None]


def _varied(keys: Iterable[str], params: Params) -> list[str]:
    """Those of the keys that are not the same in all trials as in `train`."""
    return [f"tune.space.{key}" for key in keys if _varies(key, params.tune.space, _leaves(params.train)[key])]


def _varies(key: str, space: Space, value: Any) -> bool:
    dimension = space.get(key)
    if isinstance(dimension, Categorical):
        return any(as_text(choice) != as_text(value) for choice in dimension.choices)
    return dimension is not None


def _leaves(train: Train) -> dict[str, Any]:
    return flatten(train.model_dump())


def _listed(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])} and {keys[-1]}"
