"""Replace the shipped model by the model of the pipeline, with its metadata, scores, figures and model card."""

import csv
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from cyclopts import Parameter

from emotion_detection.atomic import atomic_output
from emotion_detection.config import flatten, load_recipe, unflatten
from emotion_detection.data.dataset import load
from emotion_detection.decoding.json_text import read_json
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import DataError, ModelError, UsageError
from emotion_detection.experiments.patches import code_state
from emotion_detection.experiments.recipes import recipe_differences
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.pretrained import SCORE_TAGS
from emotion_detection.reporting.model_card import CardSubject, model_card
from emotion_detection.reporting.sources import read_shipped

DATASET = "fer2013"
FIGURES = ("confusion_test.png", "reliability_test.png", "learning_curves.png")
PREDICTIONS = "predictions_val.csv"
PROBABILITY_TOLERANCE = 1e-3  # the report has four digits, and another CPU rounds differently


@Parameter(name="*")
@dataclass(frozen=True)
class ReleasePaths:
    """The files of a release."""

    faces: Path
    """The npz file of the prepare stage."""
    data_report: Path
    """The JSON report of the prepare stage."""
    model: Path
    """The folder of the train stage."""
    report: Path
    """The folder of the evaluate stage."""
    recipe: Path
    """The recipe that the model was trained with."""
    pretrained: Path
    """The folder to replace."""
    overlay: Path | None = None
    """A recipe that replaced settings of that recipe."""
    dataset: str = DATASET
    """The data set that the model must be trained on. Only a model of FER-2013 may ship."""


def release(paths: ReleasePaths) -> None:
    """Replace the shipped model by the pipeline's, with its scores, figures and model card.

    The model must be trained on FER-2013 with the named recipe, and the report must be this model's.
    """
    model = paths.model / "model.onnx"
    report_files = [paths.report / name for name in ("metrics.json", "classes.csv", *FIGURES)]
    inputs = [paths.faces, paths.data_report, *recipes(paths), model, paths.report / PREDICTIONS]
    check_files([*inputs, *report_files])
    data = read_data_report(paths)
    run = read_json(paths.model / "run.json", "run_id", "train")
    check_recipe(run, paths)
    check_report(paths)
    run |= {
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "dataset": data["dataset"],
        "dataset_digest": data["digest"],
        "dvc_md5": data["dvc_md5"],
        "recipe": " with ".join(recipe.as_posix() for recipe in recipes(paths)),
        "date": date.today().isoformat(),
        **released_from(Path.cwd()),
    }
    with atomic_output(paths.pretrained) as folder:
        folder.mkdir()
        for source in (model, *report_files):
            shutil.copy(source, folder)
        (folder / "run.json").write_text(json.dumps(run, indent=2) + "\n")
        write_card(folder)
    print(f"{paths.pretrained}: run {run['run_id']}, trained with {run['recipe']}")


def released_from(project: Path) -> dict[str, str]:
    """The commit on which a model is released, and the tree of the files at that time; empty without git.

    The commit that adds the model does not exist yet. `lineage` looks it up in the history of the repository.
    """
    state = code_state(project)
    if state is None:
        return {}
    note = "the commit on which the model was released, with the code_tree of that time; the training ran before it"
    return {"git_commit": state.commit, "code_tree": state.tree, "git_note": note}


def recipes(paths: ReleasePaths) -> list[Path]:
    """The recipe, and the one that replaced settings of it, if there is one."""
    return [paths.recipe, paths.overlay] if paths.overlay else [paths.recipe]


def check_files(files: Iterable[Path]) -> None:
    """Raise UsageError if a file does not exist."""
    for path in files:
        if not path.is_file():
            raise UsageError(
                f"{path} does not exist: run `make repro` to build the model, and choose RECIPE and OVERLAY from "
                "recipes/"
            )


def read_data_report(paths: ReleasePaths) -> dict[str, Any]:
    """Read the report of the prepare stage. Raises DataError if the data set is another one."""
    data = read_json(paths.data_report, "dataset", "digest", "dvc_md5")
    if data["dataset"] != paths.dataset:
        raise DataError(
            f"{paths.model} is trained on {data['dataset']}, but the shipped model must be trained on {paths.dataset}: "
            "run `make data SOURCE=...` and `make repro`"
        )
    return data


def check_recipe(run: Mapping[str, Any], paths: ReleasePaths) -> None:
    """Raise ModelError if a setting of the recipe differs from the training."""
    if not isinstance(run["train"], dict):
        raise DataError(f"{paths.model / 'run.json'} is damaged (train is no section): repeat `dvc repro`")
    settings: dict[str, Any] = {}
    for recipe in recipes(paths):
        settings |= flatten(load_recipe(recipe).get("train", {}))
    for difference in recipe_differences(unflatten(settings), run["train"]):
        raise ModelError(
            f"{paths.model} is not trained with {paths.recipe}: train.{difference.key} is {difference.recipe} in the "
            f"recipe and {difference.run} in the training. Set RECIPE to its recipe and OVERLAY "
            "to the one that replaced settings of it, or run "
            f"`make adopt FROM={paths.recipe}` and `make repro`"
        )


def check_report(paths: ReleasePaths) -> None:
    """Raise ModelError if the report's predictions on val are not those of the model."""
    expected = EmotionClassifier(paths.model / "model.onnx").probabilities(load(paths.faces).of("val").images)
    try:
        with (paths.report / PREDICTIONS).open(newline="") as stream:
            rows = [[float(row[f"p_{emotion}"]) for emotion in EMOTIONS] for row in csv.DictReader(stream)]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{paths.report / PREDICTIONS} is damaged: run `make repro`") from error
    reported = np.array(rows)
    if reported.shape != expected.shape or np.abs(reported - expected).max() > PROBABILITY_TOLERANCE:
        raise ModelError(f"{paths.report} is the report of another model or of other faces: run `make repro`")


def write_card(folder: Path) -> None:
    """Write README.md from the other files of the folder. Raises DataError if one of them is damaged."""
    read_json(folder / "metrics.json", *SCORE_TAGS)
    megabytes = (folder / "model.onnx").stat().st_size / 1e6
    subject = CardSubject(read_shipped(folder), "Shipped model", megabytes=megabytes, is_shipped=True)
    (folder / "README.md").write_text(model_card(subject), encoding="utf-8")
