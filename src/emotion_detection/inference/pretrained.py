"""The model that ships with the project: where it lies, what it is called, and how a registry gets it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emotion_detection.emotions import EMOTIONS, IMAGE_SIZE
from emotion_detection.inference.classifier import EmotionClassifier

if TYPE_CHECKING:
    from emotion_detection.experiments.registry import Version

FOLDER = Path(__file__).parents[1] / "pretrained"
MODEL = FOLDER / "model.onnx"
MODEL_NAME = "emotion-detection"
ALIAS = "champion"
CHAMPION = f"models:/{MODEL_NAME}@{ALIAS}"


def seed() -> "Version":
    """Give a registry that has no champion the shipped model, with its scores, as one; returns the champion.

    Its scores, papers and figures lie in a run named `pretrained`. InputError if the store does not answer.
    """
    from emotion_detection.experiments import registry, runs  # MLflow takes seconds to load: only who asks for it waits

    with runs.exclusive_store():  # two demos that start together
        for version in registry.versions(MODEL_NAME):
            if ALIAS in version.aliases:
                return version
        with runs.run(name="pretrained", tags={"pretrained": "true"}) as run:
            run.log_scores(_metadata()[1], history=[{}])
            run.log_folder(FOLDER, "pretrained")
            number = registry.register(
                MODEL,
                MODEL_NAME,
                example=np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 1), np.uint8),
                probabilities=EmotionClassifier(MODEL).probabilities(np.zeros((1, IMAGE_SIZE, IMAGE_SIZE), np.uint8)),
                tags=_tags(),
            )
        registry.set_alias(MODEL_NAME, ALIAS, number)
    return registry.resolve(CHAMPION)


def _tags() -> dict[str, str]:
    """What a version of the register stage says of itself, from the papers of the shipped model."""
    run, metrics = _metadata()
    told = ("dataset", "dataset_digest", "dvc_md5", "run_id", "recipe")
    scores = ("val_accuracy", "val_macro_f1", "test_accuracy", "test_macro_f1")
    return {
        "labels": ",".join(EMOTIONS),
        **{key: str(run[key]) for key in told},
        **{key: f"{metrics[key]:.6f}" for key in scores},
    }


def _metadata() -> tuple[dict[str, str | float], dict[str, float]]:
    """What run.json and metrics.json say."""
    run, metrics = (json.loads((FOLDER / name).read_text()) for name in ("run.json", "metrics.json"))
    return run, metrics
