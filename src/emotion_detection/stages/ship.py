"""The pipeline's model, with all that is known of it, -> the folder that ships with the project."""

import argparse
import csv
import hashlib
import json
import shutil
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from emotion_detection.card import card
from emotion_detection.config import load_recipe
from emotion_detection.dataset import load
from emotion_detection.errors import InputError, one_line
from emotion_detection.inference import EmotionClassifier
from emotion_detection.labels import EMOTIONS
from emotion_detection.replacing import replacing
from emotion_detection.trees import flat

DATASET = "fer2013"
FIGURES = ("confusion_test.png", "reliability_test.png", "learning_curves.png")
PREDICTIONS = "predictions_val.csv"
SAME = 1e-3  # of a probability: the report has four digits, another CPU rounds otherwise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, required=True, help="npz file of the prepare stage")
    parser.add_argument("--data-report", type=Path, required=True, help="its JSON report")
    parser.add_argument("--model", type=Path, required=True, help="folder of the train stage")
    parser.add_argument("--report", type=Path, required=True, help="folder of the evaluate stage")
    parser.add_argument("--recipe", type=Path, required=True, help="the recipe that params.yaml took over")
    parser.add_argument("--pretrained", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    with one_line():
        ship(arguments)


def ship(paths: argparse.Namespace) -> None:
    """Replace the shipped folder as a whole.

    InputError if the model learnt from anything but FER-2013, or if the recipe or the report is not this model's.
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
    with replacing(paths.pretrained) as folder:
        folder.mkdir()
        for source in (model, *papers):
            shutil.copy(source, folder)
        (folder / "run.json").write_text(json.dumps(run, indent=2) + "\n")
        write_card(folder)
    print(f"{paths.pretrained}: run {run['run_id']}, made by {run['recipe']}")


def check_data(paths: argparse.Namespace) -> dict[str, Any]:
    """What the report of the data tells; InputError if it is not FER-2013."""
    data: dict[str, Any] = json.loads(paths.data_report.read_text())
    if data["dataset"] != DATASET:
        raise InputError(
            f"{paths.model} learnt from {data['dataset']}; what ships learnt from {DATASET}: make data first"
        )
    return data


def check_recipe(run: Mapping[str, Any], paths: argparse.Namespace) -> None:
    """InputError unless the model was trained with every setting of the recipe."""
    trained = flat(run.get("train", {}))
    for key, value in flat(load_recipe(paths.recipe).get("train", {})).items():
        if key not in trained or trained[key] != value:
            raise InputError(
                f"{paths.model} was not made by {paths.recipe}, which has train.{key} {value}, not "
                f"{trained.get(key, 'unknown')}: name its recipe, or make adopt FROM={paths.recipe} and make repro"
            )


def check(paths: argparse.Namespace) -> None:
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
    (folder / "README.md").write_text(card(run, metrics, classes, megabytes=megabytes))


if __name__ == "__main__":
    main()
