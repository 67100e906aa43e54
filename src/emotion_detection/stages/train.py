"""faces.npz -> a trained model (Keras and ONNX), its history, and the MLflow run they belong to."""

import argparse
import csv
import hashlib
import json
import shutil
from pathlib import Path

from emotion_detection import (
    architectures,
    batches,
    calibration,
    devices,
    distillation,
    metrics,
    normalization,
    optimization,
    starts,
    symmetry,
    tracking,
    training,
)
from emotion_detection.config import Train, load_params
from emotion_detection.dataset import load
from emotion_detection.errors import one_line
from emotion_detection.export import export_onnx
from emotion_detection.labels import SPLITS
from emotion_detection.optimization import resolve_precision
from emotion_detection.provenance import provenance
from emotion_detection.replacing import replacing
from emotion_detection.starts import save_start
from emotion_detection.training import Fitted, fit

# Those that decide what a training gives.
MODULES = (
    architectures,
    batches,
    calibration,
    devices,
    distillation,
    metrics,
    normalization,
    optimization,
    starts,
    symmetry,
    training,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True, help="params.yaml")
    parser.add_argument("--faces", type=Path, required=True, help="npz file of the prepare stage")
    parser.add_argument("--data-report", type=Path, required=True, help="its JSON report")
    parser.add_argument("--data-figures", type=Path, required=True, help="its figures")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder for unfinished trainings")
    parser.add_argument("--model", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    with one_line():
        train(arguments)


def train(paths: argparse.Namespace) -> None:
    """Train, or go on training; the model is on disk before anything that may fail, and so is the run's id."""
    params = load_params(paths.params)
    faces = load(paths.faces)
    data = json.loads(paths.data_report.read_text())
    recorded = params.model_dump(include={"prepare", "train"})
    checkpoint = paths.checkpoints / _key(recorded, data["digest"])
    tags = provenance() | {
        "dataset": data["dataset"],
        "dataset_digest": data["digest"],
        "dvc_md5": data["dvc_md5"],
        "precision": resolve_precision(params.train.precision),
    }
    name = tags.get("dvc_experiment", f"{params.train.architecture} on {data['dataset']}")
    with tracking.run(_unfinished_run(checkpoint), name=name, tags=tags) as run:
        _remember_run(checkpoint, run.id)
        run.log_params(recorded)
        for split in SPLITS:
            part = faces.of(split)
            pixels = (part.images, part.labels)
            run.log_faces(pixels, name=data["dataset"], split=split, dvc_md5=data["dvc_md5"])
        run.log_folder(paths.data_figures, "data")
        run.log_file(paths.data_report, "data")
        fitted = fit(params.train, faces, checkpoint=checkpoint, on_epoch=run.log_epoch)
        about = {"run_id": run.id, "dataset": data["dataset"], "architecture": params.train.architecture}
        save(fitted, params.train, about | {"temperature": str(fitted.temperature)}, paths.model)
        run.log_missing(fitted.history)
        run.log_file(paths.model / "history.csv")
    shutil.rmtree(checkpoint)


def save(fitted: Fitted, train: Train, about: dict[str, str], folder: Path) -> None:
    """Write the model, all or none.

    model.keras, model.onnx (compared, with `about` inside), start/ for a training that goes on, history.csv, run.json.
    """
    with replacing(folder) as unfinished:
        unfinished.mkdir()
        fitted.model.save(unfinished / "model.keras")
        save_start(fitted.weights, unfinished / "start")
        differences = export_onnx(fitted.model, unfinished / "model.onnx", about=about)
        with (unfinished / "history.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(fitted.history[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(fitted.history)
        run = {
            "run_id": about["run_id"],
            "parameters": fitted.model.count_params(),
            "temperature": fitted.temperature,
            "onnx_difference": differences.file,
            "onnx_graph_difference": differences.graph,
            "train": train.model_dump(mode="json"),
        }
        (unfinished / "run.json").write_text(json.dumps(run, indent=2) + "\n")


def _key(recorded: dict[str, object], digest: str) -> str:
    """Names a training by its params, data and code, so that a checkpoint of another one is never picked up."""
    code = [Path(str(module.__file__)).read_text() for module in MODULES]
    return hashlib.sha256(json.dumps([recorded, digest, code], sort_keys=True).encode()).hexdigest()[:12]


def _unfinished_run(checkpoint: Path) -> str | None:
    path = checkpoint / "run_id"
    run_id = path.read_text() if path.exists() else None
    return run_id if run_id and tracking.exists(run_id) else None


def _remember_run(checkpoint: Path, run_id: str) -> None:
    with replacing(checkpoint / "run_id") as path:
        path.write_text(run_id)


if __name__ == "__main__":
    main()
