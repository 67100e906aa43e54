"""The shipped model: its files, its name in the registry, and how to register it."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emotion_detection.emotions import EMOTIONS

if TYPE_CHECKING:
    from emotion_detection.experiments.registry import Version

FOLDER = Path(__file__).parents[1] / "pretrained"
MODEL = FOLDER / "model.onnx"
MODEL_NAME = "emotion-detection"
ALIAS = "champion"
CHAMPION = f"models:/{MODEL_NAME}@{ALIAS}"
RUN_TAGS = ("dataset", "dataset_digest", "dvc_md5", "run_id", "recipe", "label_source", "git_commit", "git_note")
SCORE_TAGS = ("val_accuracy", "val_macro_f1", "test_accuracy", "test_macro_f1")


def seed_registry() -> "Version":
    """Register the shipped model as champion if the registry has no champion; return the champion.

    The scores, the metadata and the figures are logged in a run named `pretrained`. Raises StoreError if the store
    does not respond.
    """
    from emotion_detection.experiments import promotion, registry, runs  # MLflow takes seconds to import
    from emotion_detection.synthetic.sample import draw_faces

    with runs.exclusive_store():  # two demos may start at the same time
        for version in registry.versions(MODEL_NAME):
            if ALIAS in version.aliases:
                return version
        about, scores = _metadata()
        digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
        tags = _run_tags(about) | {"pretrained": digest, registry.DIGEST: digest}
        with runs.start_run(runs.find_run({"pretrained": digest}), name="pretrained", tags=tags) as run:
            run.log_params({"train": about["train"]})
            run.log_scores(scores, history=[{}])
            run.log_folder(FOLDER, "pretrained")
            # A drawn face, so that the model does not contain an image of a person.
            example = draw_faces(per_class=1, seed=0)[0][..., np.newaxis]
            number = registry.register(MODEL, MODEL_NAME, example=example, tags=_version_tags())
        promotion.promote(MODEL_NAME, number, alias=ALIAS, reason="the shipped model", kind="seed")
    return registry.resolve(CHAMPION)


def seed_new_store() -> None:
    """Register the shipped model in the project's own SQLite file, if no other version was ever champion there.

    A registration that was interrupted is completed. Any other store may belong to a team: only the command
    `emotion-detection seed-registry` writes there.
    """
    from emotion_detection.experiments import ledger, registry
    from emotion_detection.experiments.store_location import is_default_store

    if not is_default_store() or ledger.history(MODEL_NAME):
        return
    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    if all(version.tags.get(registry.DIGEST) == digest for version in registry.versions(MODEL_NAME)):
        seed_registry()


def _version_tags() -> dict[str, str]:
    """The tags that the register stage sets, from the metadata of the shipped model."""
    run, metrics = _metadata()
    return {
        "labels": ",".join(EMOTIONS),
        **_run_tags(run),
        **{key: f"{metrics[key]:.6f}" for key in SCORE_TAGS},
    }


def _run_tags(run: dict[str, Any]) -> dict[str, str]:
    return {key: str(run[key]) for key in RUN_TAGS if key in run}


def _metadata() -> tuple[dict[str, Any], dict[str, float]]:
    """The contents of run.json and metrics.json."""
    run, metrics = (json.loads((FOLDER / name).read_text()) for name in ("run.json", "metrics.json"))
    return run, metrics
