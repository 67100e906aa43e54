"""Evaluate the exported model on val and test: metrics, predictions and figures."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cyclopts import Parameter

from emotion_detection.arrays import Probabilities
from emotion_detection.atomic import atomic_output
from emotion_detection.command_line import run_command
from emotion_detection.config import Evaluate, load_params
from emotion_detection.data.dataset import Faces, load
from emotion_detection.decoding.json_text import read_json
from emotion_detection.emotions import EMOTIONS
from emotion_detection.evaluation import figures, metrics
from emotion_detection.evaluation.calibration import at_temperature
from emotion_detection.evaluation.detector_crops import (
    Conditions,
    detect_in_conditions,
    detect_pasted_faces,
    end_to_end_rows,
)
from emotion_detection.experiments import delivery
from emotion_detection.experiments.copied_run import read_history
from emotion_detection.experiments.provenance import model_digests
from emotion_detection.inference.classifier import EmotionClassifier, mirror_averaged
from emotion_detection.inference.detector import HaarDetector

Predictions = dict[str, tuple[Faces, Probabilities]]  # split -> its faces and their probabilities
Reports = dict[str, metrics.Report]  # split -> its scores

END_TO_END_FACES = 1000  # enough for groups of 300


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
    """Score model.onnx with onnxruntime. No other stage uses the test split.

    If the store does not respond, the scores and the report are kept for it in the journal of the run.
    """
    params = load_params(paths.params).evaluate
    faces = load(paths.faces)
    history = read_history(paths.model / "history.csv")
    about = read_json(paths.model / "run.json", "run_id")
    classifier = EmotionClassifier(paths.model / "model.onnx")
    with delivery.stage_run(about["run_id"]) as run:
        run.log_stage_params({"evaluate": params.model_dump()})
        # What a store that did not respond has missed.
        run.tag_all(model_digests(paths.model))
        run.log_history(history, paths.model / "history.csv")
        predictions = predict_splits(faces, classifier)
        reports = compute_reports(predictions, params)
        raw_reports = compute_reports(undo_calibration(predictions, classifier.temperature), params)
        scores = collect_scores(reports, raw_reports) | {"temperature": classifier.temperature}
        scores |= mirror_scores(faces, classifier, params)
        scores |= detector_scores(faces.of("test"), predictions["test"][1], classifier)
        with atomic_output(paths.report) as folder:
            write_report(folder, predictions, reports, scores)
            write_csv(folder / "end_to_end.csv", end_to_end(faces.of("test"), classifier))
            run.log_scores(scores, history)  # before the figures, so that an error while drawing does not lose them
            draw_figures(folder, predictions, reports, raw_reports)
            figures.learning_curves(history, folder / "learning_curves.png", keep=trained_keep(about))
        run.log_folder(paths.report, "report")
        run.note("Scores", "\n".join(f"- {summary(scores, split)}" for split in reports))
    for split in reports:
        print(summary(scores, split))


def trained_keep(about: Mapping[str, Any]) -> str:
    """train.keep of a model by its run.json; older ones have no such setting."""
    settings = about.get("train")
    return str(settings.get("keep", "val_macro_f1")) if isinstance(settings, dict) else "val_macro_f1"


def predict_splits(faces: Faces, classifier: EmotionClassifier) -> Predictions:
    """The probabilities of val, test and test_clean, the test faces that have no copy in the training split."""
    predictions = {
        split: (faces.of(split), classifier.probabilities(faces.of(split).images)) for split in ("val", "test")
    }
    test, probabilities = predictions["test"]
    if not test.copied.all():
        predictions["test_clean"] = (test[~test.copied], probabilities[~test.copied])
    return predictions


def compute_reports(predictions: Predictions, params: Evaluate) -> Reports:
    return {
        split: metrics.evaluate(faces.labels, probabilities, **params.model_dump())
        for split, (faces, probabilities) in predictions.items()
    }


def undo_calibration(predictions: Predictions, temperature: float) -> Predictions:
    """The probabilities that the network returns without its temperature."""
    return {
        split: (faces, at_temperature(probabilities, 1 / temperature))
        for split, (faces, probabilities) in predictions.items()
    }


def collect_scores(reports: Reports, raw_reports: Reports) -> dict[str, float]:
    """The scalar scores of all splits, and their ECE before calibration."""
    scores: dict[str, float] = {}
    for split, report in reports.items():
        scores |= metrics.scalar_metrics(report, split)
    return scores | {f"{split}_ece_uncalibrated": report.ece for split, report in raw_reports.items()}


def mirror_scores(faces: Faces, classifier: EmotionClassifier, params: Evaluate) -> dict[str, float]:
    """The accuracy and its interval if the probabilities of a face and its mirror image are averaged."""
    scores = {}
    for split in ("val", "test"):
        part = faces.of(split)
        report = metrics.evaluate(part.labels, mirror_averaged(classifier, part.images), **params.model_dump())
        for end in ("", "_low", "_high"):
            scores[f"{split}_flip_accuracy{end}"] = float(getattr(report, f"accuracy{end}"))
    return scores


def detector_scores(test: Faces, probabilities: Probabilities, classifier: EmotionClassifier) -> dict[str, float]:
    """The accuracy on the detector's crops of pasted faces, and on the original crops of the same faces."""
    detected, (crops,) = detect_pasted_faces(test.images, HaarDetector(), seed=0)
    if not detected.any():
        return {"test_detected_share": 0.0, "test_found_and_read_right": 0.0}
    labels = test.labels[detected]
    correct = classifier.probabilities(crops).argmax(1) == labels
    return {
        "test_detected_share": float(detected.mean()),
        "test_found_and_read_right": float(correct.sum() / len(test)),
        "test_detected_accuracy": float(correct.mean()),
        "test_detected_plain_accuracy": float((probabilities[detected].argmax(1) == labels).mean()),
    }


def end_to_end(test: Faces, classifier: EmotionClassifier) -> Iterator[dict[str, object]]:
    """The shares of faces that are found and read right in scenes of many sizes, turns and lights, as table rows."""
    chosen = test[np.random.default_rng(0).permutation(len(test))[:END_TO_END_FACES]]
    conditions = Conditions.draw(len(chosen), seed=0)
    detected, crops = detect_in_conditions(chosen.images, conditions, HaarDetector(), seed=0)
    correct = detected.copy()
    correct[detected] = classifier.probabilities(crops).argmax(1) == chosen.labels[detected]
    return end_to_end_rows(chosen.labels, conditions, detected, correct)


def write_report(folder: Path, predictions: Predictions, reports: Reports, scores: dict[str, float]) -> None:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(scores, indent=2) + "\n")
    write_csv(
        folder / "classes.csv", [row for split, report in reports.items() for row in metrics.per_class(report, split)]
    )
    for split in ("val", "test"):
        write_csv(folder / f"predictions_{split}.csv", prediction_rows(*predictions[split]))


def draw_figures(folder: Path, predictions: Predictions, reports: Reports, raw_reports: Reports) -> None:
    for split, report in reports.items():
        interval = f"{report.accuracy:.1%} [{report.accuracy_low:.1%}, {report.accuracy_high:.1%}]"
        title = f"{split}: accuracy {interval}, macro-F1 {report.macro_f1:.3f}"
        figures.confusion_matrix(report, folder / f"confusion_{split}.png", title=title)
        figures.per_class_scores(report, folder / f"classes_{split}.png", title=title)
        figures.reliability(report, folder / f"reliability_{split}.png", title=split, raw=raw_reports[split])
    for split in ("val", "test"):
        figures.mistakes(*predictions[split], path=folder / f"mistakes_{split}.png")


def prediction_rows(faces: Faces, probabilities: Probabilities) -> Iterator[dict[str, object]]:
    for label, copied, row in zip(faces.labels, faces.copied, probabilities, strict=True):
        yield {
            "emotion": EMOTIONS[label],
            "predicted": EMOTIONS[row.argmax()],
            "copied": int(copied),
            **{f"p_{emotion}": f"{p:.4f}" for emotion, p in zip(EMOTIONS, row, strict=True)},
        }


def write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    records = list(rows)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def summary(scores: dict[str, float], split: str) -> str:
    """The scores of a split in a line."""
    accuracy, low, high = (100 * scores[f"{split}_accuracy{end}"] for end in ("", "_low", "_high"))
    rows, f1, ece = (scores[f"{split}_{name}"] for name in ("rows", "macro_f1", "ece"))
    line = f"{split:10} accuracy {accuracy:.1f} % [{low:.1f}, {high:.1f}]"
    if f"{split}_flip_accuracy" in scores:
        line += f", {100 * scores[f'{split}_flip_accuracy']:.1f} % averaged with the mirror image"
    return f"{line}, macro-F1 {f1:.3f}, ECE {ece:.3f}, {rows:.0f} faces"


if __name__ == "__main__":
    run_command(evaluate)
