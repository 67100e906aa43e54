"""The files that the pipeline writes for a model, with the predictions of an invented one."""

import csv
import io
import json

import numpy as np

from emotion_detection.data.dataset import Faces, digest
from emotion_detection.evaluation import metrics
from emotion_detection.reporting.results import Origin, Results, read_results
from emotion_detection.stages.evaluate import collect_scores, prediction_rows

SETTINGS = {"train.epochs": 2, "train.learning_rate": 0.1}


def probabilities(faces: Faces, *, right: float, seed: int) -> np.ndarray:
    """Invented probabilities, f32 (n, 7); a share of `right` of the faces is read right."""
    generator = np.random.default_rng(seed)
    table = generator.random((len(faces), 7))
    chosen = generator.random(len(faces)) < right
    table[chosen, faces.labels[chosen]] += 2
    return (table / table.sum(axis=1, keepdims=True)).astype(np.float32)


def result_files(faces: Faces, *, right: float, seed: int, epochs: int = 3, dataset: str = "faces") -> dict[str, bytes]:
    """The contents of the files of a training and of its evaluation, by their names."""
    predictions = {
        split: (faces.of(split), probabilities(faces.of(split), right=right, seed=seed)) for split in ("val", "test")
    }
    reports = {
        split: metrics.evaluate(part.labels, table, confidence=0.95, ece_bins=15)
        for split, (part, table) in predictions.items()
    }
    classes = [row for split, report in reports.items() for row in metrics.per_class(report, split)]
    history = [{"epoch": epoch, "val_macro_f1": epoch / 10, "val_loss": 1 / epoch} for epoch in range(1, epochs + 1)]
    rows = {split: len(faces.of(split)) for split in ("train", "val", "test")}
    data = {"dataset": dataset, "digest": digest(faces), "dvc_md5": "m", "rows": rows}
    return {
        "metrics.json": json.dumps(collect_scores(reports, reports)).encode(),
        "classes.csv": table_bytes(classes),
        "history.csv": table_bytes(history),
        "data_report.json": json.dumps(data).encode(),
        **{f"predictions_{split}.csv": table_bytes(prediction_rows(*pair)) for split, pair in predictions.items()},
    }


def table_bytes(rows) -> bytes:
    """Rows as a CSV file."""
    records, stream = list(rows), io.StringIO()
    writer = csv.DictWriter(stream, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue().encode()


def results(faces: Faces, name: str = "here", *, right: float, seed: int = 0, settings=SETTINGS, **known) -> Results:
    """The results of an invented model."""
    return read_results(Origin(name, "run"), result_files(faces, right=right, seed=seed).get, params=settings, **known)
