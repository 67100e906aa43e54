"""The pipeline's model, with all that is known of it, -> the folder that ships with the project."""

import csv
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from cyclopts import Parameter

from emotion_detection.atomic import atomic_output
from emotion_detection.config import flatten, load_recipe
from emotion_detection.data.dataset import load
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import InputError
from emotion_detection.evaluation.model_card import model_card
from emotion_detection.inference.classifier import EmotionClassifier

DATASET = "fer2013"
FIGURES = ("confusion_test.png", "reliability_test.png", "learning_curves.png")
PREDICTIONS = "predictions_val.csv"
SAME = 1e-3  # of a probability: the report has four digits, another CPU rounds otherwise


@Parameter(name="*")
@dataclass(frozen=True)
class ReleasePaths:
    """The files of a release."""

    faces: Path
    """The npz file of the prepare stage."""
    data_report: Path
    """Its JSON report."""
    model: Path
    """The folder of the train stage."""
    report: Path
    """The folder of the evaluate stage."""
    recipe: Path
    """The recipe that the model was trained with."""
    pretrained: Path
    """The folder to replace."""


def release(paths: ReleasePaths) -> None:
    """Replace the shipped model by the pipeline's, with its scores, figures and model card.

    The model must be trained on FER-2013 with the named recipe, and the report must be this model's.
    """
    model = paths.model / "model.onnx"
    papers = [paths.report / name for name in ("metrics.json", "classes.csv", *FIGURES)]
    needed = (paths.faces, paths.data_report, paths.recipe, model, paths.report / PREDICTIONS, *papers)
    for path in needed:
        if not path.is_file():
            raise InputError(f"{path} is not there: make repro writes what ships, recipes/ holds the recipes")
    data = check_data(paths)
    run = json.loads((paths.model / "run.json").read_text())
    check_recipe(run, paths)
    check(paths)
    run |= {
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "dataset": data["dataset"],
        "dataset_digest": data["digest"],
        "dvc_md5": data["dvc_md5"],
        "recipe": paths.recipe.as_posix(),
        "date": date.today().isoformat(),
    }
    with atomic_output(paths.pretrained) as folder:
        folder.mkdir()
        for source in (model, *papers):
            shutil.copy(source, folder)
        (folder / "run.json").write_text(json.dumps(run, indent=2) + "\n")
        write_card(folder)
    print(f"{paths.pretrained}: run {run['run_id']}, made by {run['recipe']}")


def check_data(paths: ReleasePaths) -> dict[str, Any]:
    """What the report of the data tells; InputError if it is not FER-2013."""
    data: dict[str, Any] = json.loads(paths.data_report.read_text())
    if data["dataset"] != DATASET:
        raise InputError(
            f"{paths.model} learnt from {data['dataset']}; what ships learnt from {DATASET}: make data first"
        )
    return data


def check_recipe(run: Mapping[str, Any], paths: ReleasePaths) -> None:
    """InputError unless the model was trained with every setting of the recipe."""
    trained = flatten(run.get("train", {}))
    for key, value in flatten(load_recipe(paths.recipe).get("train", {})).items():
        if key not in trained or trained[key] != value:
            raise InputError(
                f"{paths.model} was not made by {paths.recipe}, which has train.{key} {value}, not "
                f"{trained.get(key, 'unknown')}: name its recipe, or make adopt FROM={paths.recipe} and make repro"
            )


def check(paths: ReleasePaths) -> None:
    """InputError unless the report's predictions on val are those that the model makes."""
    made = EmotionClassifier(paths.model / "model.onnx").probabilities(load(paths.faces).of("val").images)
    with (paths.report / PREDICTIONS).open(newline="") as stream:
        told = np.array([[float(row[f"p_{emotion}"]) for emotion in EMOTIONS] for row in csv.DictReader(stream)])
    if told.shape != made.shape or np.abs(told - made).max() > SAME:
        raise InputError(
            f"{paths.report} tells of another model than {paths.model}, or of other faces: make repro first"
        )


def write_card(folder: Path) -> None:
    """README.md of a shipped folder, from the other files in it."""
    with (folder / "classes.csv").open(newline="") as stream:
        classes = list(csv.DictReader(stream))
    run, metrics = (json.loads((folder / name).read_text()) for name in ("run.json", "metrics.json"))
    megabytes = (folder / "model.onnx").stat().st_size / 1e6
    (folder / "README.md").write_text(model_card(run, metrics, classes, megabytes=megabytes))
