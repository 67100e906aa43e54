"""The exported model, scored on every split that it has not learnt from: numbers, predictions, figures."""

import argparse
import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_detection import figures, metrics, tracking
from emotion_detection.config import Evaluate, load_params
from emotion_detection.dataset import Faces, load
from emotion_detection.errors import one_line
from emotion_detection.inference import EmotionClassifier
from emotion_detection.labels import EMOTIONS
from emotion_detection.replacing import replacing

# test_clean: the test rows that have no copy in the source's training split.
SPLITS_SCORED = ("val", "test", "test_clean")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True, help="params.yaml")
    parser.add_argument("--faces", type=Path, required=True, help="npz file of the prepare stage")
    parser.add_argument("--model", type=Path, required=True, help="folder of the train stage")
    parser.add_argument("--report", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    with one_line():
        evaluate(arguments)


def evaluate(paths: argparse.Namespace) -> None:
    """Score model.onnx, the file that ships, with onnxruntime; the test split is looked at here and nowhere else."""
    params = load_params(paths.params).evaluate
    run_id = json.loads((paths.model / "run.json").read_text())["run_id"]
    with tracking.run(run_id) as run:
        with replacing(paths.report) as folder:
            folder.mkdir()
            headline = score(load(paths.faces), paths.model, folder, params)
        run.log_scores(headline, epochs=len(read_history(paths.model / "history.csv")))
        run.log_folder(paths.report, "report")
    for split in SPLITS_SCORED:
        print(summary(headline, split))


def score(faces: Faces, model: Path, folder: Path, params: Evaluate) -> dict[str, float]:
    """Fill the report's folder; returns the flat metrics of all scored splits."""
    classifier = EmotionClassifier(model / "model.onnx")
    headline: dict[str, float] = {}
    classes: list[dict[str, float | str]] = []
    for split in ("val", "test"):
        part = faces.of(split)
        probabilities = classifier.probabilities(part.images)
        rows = {split: np.ones(len(part), bool)} | ({"test_clean": ~part.copied} if split == "test" else {})
        for name, chosen in rows.items():
            report = metrics.evaluate(part.labels[chosen], probabilities[chosen], **params.model_dump())
            headline |= metrics.headline(report, name)
            classes += metrics.per_class(report, name)
            draw(report, name, folder)
        figures.mistakes(part, probabilities, path=folder / f"mistakes_{split}.png")
        write_rows(folder / f"predictions_{split}.csv", predictions(part, probabilities))
    (folder / "metrics.json").write_text(json.dumps(headline, indent=2) + "\n")
    write_rows(folder / "classes.csv", classes)
    # Only now, with the model and its scores on disk: a figure that fails must cost nothing.
    figures.learning_curves(read_history(model / "history.csv"), folder / "learning_curves.png")
    return headline


def draw(report: metrics.Report, split: str, folder: Path) -> None:
    interval = f"{report.accuracy:.1%} [{report.accuracy_low:.1%}, {report.accuracy_high:.1%}]"
    title = f"{split}: accuracy {interval}, macro-F1 {report.macro_f1:.3f}"
    figures.confusion_matrix(report, folder / f"confusion_{split}.png", title=title)
    figures.per_class_scores(report, folder / f"classes_{split}.png", title=title)
    figures.reliability(report, folder / f"reliability_{split}.png", title=split)


def predictions(faces: Faces, probabilities: NDArray[np.float32]) -> Iterator[dict[str, object]]:
    for label, copied, row in zip(faces.labels, faces.copied, probabilities, strict=True):
        named = {f"p_{emotion}": f"{p:.4f}" for emotion, p in zip(EMOTIONS, row, strict=True)}
        yield {
            "emotion": EMOTIONS[label],
            "predicted": EMOTIONS[row.argmax()],
            "copied": int(copied),
            **named,
        }


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    listed = list(rows)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(listed[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed)


def read_history(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def summary(headline: dict[str, float], split: str) -> str:
    accuracy, low, high = (100 * headline[f"{split}_accuracy{end}"] for end in ("", "_low", "_high"))
    rows, f1 = headline[f"{split}_rows"], headline[f"{split}_macro_f1"]
    return f"{split:10} accuracy {accuracy:.1f} % [{low:.1f}, {high:.1f}], macro-F1 {f1:.3f}, {rows:.0f} faces"


if __name__ == "__main__":
    main()
