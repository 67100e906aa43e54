"""The pipeline's model, with all that is known of it, -> the folder that ships with the project."""

import argparse
import csv
import hashlib
import json
import shutil
from datetime import date
from pathlib import Path

import numpy as np

from emotion_detection.card import card
from emotion_detection.dataset import load
from emotion_detection.errors import InputError, one_line
from emotion_detection.inference import EmotionClassifier
from emotion_detection.replacing import replacing

DATASET = "fer2013"
FIGURES = ("confusion_test.png", "reliability_test.png", "learning_curves.png")
SAME = 1e-6  # of an accuracy


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
    """Replace the shipped folder as a whole; InputError if the model learnt from anything but FER-2013, or the report
    is not this model's."""
    data = json.loads(paths.data_report.read_text())
    if data["dataset"] != DATASET:
        raise InputError(
            f"{paths.model} learnt from {data['dataset']}; what ships learnt from {DATASET}: make data first"
        )
    metrics = json.loads((paths.report / "metrics.json").read_text())
    check(paths, metrics)
    model = paths.model / "model.onnx"
    run = json.loads((paths.model / "run.json").read_text()) | {
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "dataset": data["dataset"],
        "dataset_digest": data["digest"],
        "dvc_md5": data["dvc_md5"],
        "recipe": paths.recipe.as_posix(),
        "date": date.today().isoformat(),
    }
    with replacing(paths.pretrained) as folder:
        folder.mkdir()
        for source in (model, *(paths.report / name for name in ("metrics.json", "classes.csv", *FIGURES))):
            shutil.copy(source, folder)
        (folder / "run.json").write_text(json.dumps(run, indent=2) + "\n")
        write_card(folder)
    print(f"{paths.pretrained}: run {run['run_id']}, val accuracy {metrics['val_accuracy']:.1%}")


def check(paths: argparse.Namespace, metrics: dict[str, float]) -> None:
    val = load(paths.faces).of("val")
    predicted = EmotionClassifier(paths.model / "model.onnx").probabilities(val.images).argmax(1)
    accuracy = float(np.mean(predicted == val.labels))
    if abs(accuracy - metrics["val_accuracy"]) > SAME:
        told = f"{metrics['val_accuracy']:.4f} on val, but {paths.model} reaches {accuracy:.4f}"
        raise InputError(f"{paths.report} tells of another model, with {told}: run dvc repro evaluate")


def write_card(folder: Path) -> None:
    """README.md of a shipped folder, from the other files in it."""
    with (folder / "classes.csv").open(newline="") as stream:
        classes = list(csv.DictReader(stream))
    run, metrics = (json.loads((folder / name).read_text()) for name in ("run.json", "metrics.json"))
    megabytes = (folder / "model.onnx").stat().st_size / 1e6
    (folder / "README.md").write_text(card(run, metrics, classes, megabytes=megabytes))


if __name__ == "__main__":
    main()
