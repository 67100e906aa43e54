"""The exported model, scored on every split that it has not learnt from: numbers, predictions, figures."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from emotion_detection.atomic import atomic_output
from emotion_detection.command_line import run_command
from emotion_detection.config import Evaluate, load_params
from emotion_detection.data.dataset import Faces, load
from emotion_detection.emotions import EMOTIONS
from emotion_detection.evaluation import figures, metrics
from emotion_detection.evaluation.calibration import at_temperature
from emotion_detection.evaluation.detector_crops import redetect
from emotion_detection.experiments import runs
from emotion_detection.inference.classifier import EmotionClassifier, mirror_averaged
from emotion_detection.inference.detector import HaarDetector

Scored = dict[str, tuple[Faces, NDArray[np.float32]]]  # split -> its faces and their probabilities (n,7)
Reports = dict[str, metrics.Report]  # split -> its scores


@Parameter(name="*")
@dataclass(frozen=True)
class EvaluatePaths:
    """The files of the evaluate stage."""

    params: Path
    """params.yaml"""
    faces: Path
    """The npz file of the prepare stage."""
    model: Path
    """The folder of the train stage."""
    report: Path
    """The folder to write."""


def evaluate(paths: EvaluatePaths) -> None:
    """Score model.onnx, the file that ships, with onnxruntime; the test split is looked at here and nowhere else."""
    params = load_params(paths.params).evaluate
    faces = load(paths.faces)
    history = read_history(paths.model / "history.csv")
    run_id = json.loads((paths.model / "run.json").read_text())["run_id"]
    with runs.run(run_id) as run:
        classifier = EmotionClassifier(paths.model / "model.onnx")
        scored = score(faces, classifier)
        reports, raw = judged(scored, params), judged(uncalibrated(scored, classifier.temperature), params)
        headline = {key: value for name, one in reports.items() for key, value in metrics.headline(one, name).items()}
        headline |= {f"{name}_ece_uncalibrated": one.ece for name, one in raw.items()}
        headline |= {"temperature": classifier.temperature}
        headline |= mirrored(faces, classifier, params) | detected(faces.of("test"), scored["test"][1], classifier)
        with atomic_output(paths.report) as folder:
            write(folder, scored, reports, headline)
        run.log_scores(headline, history)
        # Only now, with model and scores safe: the original lost fifty epochs to a plot that failed.
        draw(paths.report, scored, reports, raw)
        figures.learning_curves(history, paths.report / "learning_curves.png")
        run.log_folder(paths.report, "report")
    for name in reports:
        print(summary(headline, name))


def score(faces: Faces, classifier: EmotionClassifier) -> Scored:
    """Faces and probabilities of each scored split; test_clean are the test rows without a copy in training."""
    scored = {split: (faces.of(split), classifier.probabilities(faces.of(split).images)) for split in ("val", "test")}
    test, probabilities = scored["test"]
    if not test.copied.all():
        scored["test_clean"] = (test[~test.copied], probabilities[~test.copied])
    return scored


def judged(scored: Scored, params: Evaluate) -> Reports:
    return {name: metrics.evaluate(part.labels, p, **params.model_dump()) for name, (part, p) in scored.items()}


def uncalibrated(scored: Scored, temperature: float) -> Scored:
    """What the network would say without its temperature."""
    return {name: (part, at_temperature(p, 1 / temperature)) for name, (part, p) in scored.items()}


def mirrored(faces: Faces, classifier: EmotionClassifier, params: Evaluate) -> dict[str, float]:
    """Accuracy, with interval, when a face and its mirror image are averaged: twice the time."""
    numbers = {}
    for split in ("val", "test"):
        part = faces.of(split)
        one = metrics.evaluate(part.labels, mirror_averaged(classifier, part.images), **params.model_dump())
        for end in ("", "_low", "_high"):
            numbers[f"{split}_flip_accuracy{end}"] = float(getattr(one, f"accuracy{end}"))
    return numbers


def detected(test: Faces, probabilities: NDArray[np.float32], classifier: EmotionClassifier) -> dict[str, float]:
    """Accuracy on faces that the detector found in larger pictures and cropped, beside that on their own crops."""
    found, (crops,) = redetect(test.images, HaarDetector(), seed=0)
    if not found.any():
        return {"test_detected_share": 0.0}
    labels = test.labels[found]
    return {
        "test_detected_share": float(found.mean()),
        "test_detected_accuracy": float((classifier.probabilities(crops).argmax(1) == labels).mean()),
        "test_detected_plain_accuracy": float((probabilities[found].argmax(1) == labels).mean()),
    }


def write(folder: Path, scored: Scored, reports: Reports, headline: dict[str, float]) -> None:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(headline, indent=2) + "\n")
    write_rows(
        folder / "classes.csv", [row for name, report in reports.items() for row in metrics.per_class(report, name)]
    )
    for split in ("val", "test"):
        write_rows(folder / f"predictions_{split}.csv", predictions(*scored[split]))


def draw(folder: Path, scored: Scored, reports: Reports, raw: Reports) -> None:
    for name, report in reports.items():
        interval = f"{report.accuracy:.1%} [{report.accuracy_low:.1%}, {report.accuracy_high:.1%}]"
        title = f"{name}: accuracy {interval}, macro-F1 {report.macro_f1:.3f}"
        figures.confusion_matrix(report, folder / f"confusion_{name}.png", title=title)
        figures.per_class_scores(report, folder / f"classes_{name}.png", title=title)
        figures.reliability(report, folder / f"reliability_{name}.png", title=name, raw=raw[name])
    for split in ("val", "test"):
        figures.mistakes(*scored[split], path=folder / f"mistakes_{split}.png")


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
    rows, f1, ece = (headline[f"{split}_{name}"] for name in ("rows", "macro_f1", "ece"))
    told = f"{split:10} accuracy {accuracy:.1f} % [{low:.1f}, {high:.1f}]"
    if f"{split}_flip_accuracy" in headline:
        told += f", {100 * headline[f'{split}_flip_accuracy']:.1f} % with the mirror image"
    return f"{told}, macro-F1 {f1:.3f}, ECE {ece:.3f}, {rows:.0f} faces"


if __name__ == "__main__":
    run_command(evaluate)
