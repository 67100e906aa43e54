"""Register the model in MLflow's registry, and move the alias to it if it is the best on val."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cyclopts import Parameter

from emotion_detection.atomic import atomic_output
from emotion_detection.command_line import run_command
from emotion_detection.config import load_params
from emotion_detection.emotions import EMOTIONS
from emotion_detection.experiments import registry, runs
from emotion_detection.inference.pretrained import MODEL_NAME
from emotion_detection.synthetic.sample import draw_faces

DATASET = "fer2013"  # its model is registered as MODEL_NAME; the names of other models end with their data set


@Parameter(name="*")
@dataclass(frozen=True)
class RegisterPaths:
    """The files of the register stage."""

    params: Path
    """params.yaml"""
    data_report: Path
    """The JSON report of the prepare stage."""
    model: Path
    """The folder of the train stage."""
    report: Path
    """The folder of the evaluate stage."""
    registered: Path
    """The JSON file to write."""


def register(paths: RegisterPaths) -> None:
    """Register model.onnx, and move the alias to it if it is better than the champion of the same data set."""
    params = load_params(paths.params).register_
    data = json.loads(paths.data_report.read_text())
    run_id = json.loads((paths.model / "run.json").read_text())["run_id"]
    metrics = json.loads((paths.report / "metrics.json").read_text())
    name = MODEL_NAME if data["dataset"] == DATASET else f"{MODEL_NAME}-{data['dataset']}"
    # Drawn faces, so that the model does not contain images of people.
    example = draw_faces(per_class=1, seed=0)[0]
    with runs.start_run(run_id) as run:
        version = registry.register(
            paths.model / "model.onnx",
            name,
            example=example[..., np.newaxis],
            tags=version_tags(data, metrics, run),
        )
        promoted, reason = registry.promote_if_better(name, version, alias=params.alias, min_gain=params.min_gain)
        outcome = f"{name} version {version}: {params.alias if promoted else f'not {params.alias}'}, {reason}"
        run.note("Registered", outcome)
    result = {"name": name, "version": version, "run_id": run_id, "promoted": promoted, "reason": reason}
    with atomic_output(paths.registered) as path:
        path.write_text(json.dumps(result, indent=2) + "\n")
    print(outcome)


def version_tags(data: dict[str, str], metrics: dict[str, float], run: runs.Run) -> dict[str, str]:
    """The tags of the version: its labels, data set, run, commit and scores."""
    run_tags = run.tags
    scores = {key: f"{metrics[key]:.6f}" for key in ("val_accuracy", "val_macro_f1", "test_accuracy", "test_macro_f1")}
    return {
        "labels": ",".join(EMOTIONS),
        "dataset": data["dataset"],
        "dataset_digest": data["digest"],
        "dvc_md5": data["dvc_md5"],
        "run_id": run.id,
        **{key: run_tags[key] for key in ("git_commit", "git_dirty") if key in run_tags},
        **scores,
    }


if __name__ == "__main__":
    run_command(register)
