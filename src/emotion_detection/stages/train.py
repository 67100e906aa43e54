"""Train a model, write it for Keras and ONNX with its history, and record the training in an MLflow run."""

import csv
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from emotion_detection.atomic import atomic_output
from emotion_detection.command_line import run_command
from emotion_detection.config import Params, Train, load_params
from emotion_detection.data.dataset import Faces, digest, load
from emotion_detection.decoding.json_text import read_json
from emotion_detection.decoding.yaml_text import read_yaml
from emotion_detection.emotions import SPLITS
from emotion_detection.errors import ConfigError, DataError, shorten
from emotion_detection.experiments.dvc_data import folder_md5
from emotion_detection.experiments.provenance import model_digests, origin
from emotion_detection.training.distillation import check_teachers, teacher_digests
from emotion_detection.training.votes import check_votes, label_tags

if TYPE_CHECKING:
    from emotion_detection.experiments.runs import Run
    from emotion_detection.training.trainer import TrainingResult

RUN_ID = re.compile("[0-9a-f]{32}")
HISTORY = "history.csv"
FINISHED = "finished"  # a file in the checkpoint of a finished training: the MD5 of its model, as DVC records it


@Parameter(name="*")
@dataclass(frozen=True)
class TrainPaths:
    """The files of the train stage."""

    params: Path
    """The file params.yaml."""
    pipeline: Path
    """The file dvc.yaml. A checkpoint is only resumed with the same version of the code that it lists."""
    faces: Path
    """The npz file of the prepare stage."""
    data_report: Path
    """Its JSON report."""
    data_figures: Path
    """The folder of its figures."""
    checkpoints: Path
    """The folder of unfinished trainings."""
    model: Path
    """The folder to write."""
    recipe: Path | None = None
    """A recipe that replaces settings of `train`."""
    overlay: Path | None = None
    """A recipe that replaces settings of that recipe."""
    lock: Path | None = None
    """The dvc.lock of the pipeline that runs this stage; that next to `pipeline` if omitted."""


def train(paths: TrainPaths) -> None:
    """Train a model, or resume its training and its MLflow run.

    A store that does not respond costs only a warning: what it misses is kept in a journal, see `delivery`.
    """
    params, faces, data = load_inputs(paths)
    # TensorFlow and MLflow take seconds to import. A wrong setting should be refused at once.
    from emotion_detection.experiments import delivery, description
    from emotion_detection.training.optimizer import resolve_precision
    from emotion_detection.training.trainer import fit

    settings = params.model_dump(include={"prepare", "train"})
    _remove_recorded(paths.checkpoints, paths.lock or paths.pipeline.with_name("dvc.lock"))
    project = paths.pipeline.resolve().parent
    started = origin(settings["train"], project)
    tags = started.tags | {
        "dataset": data["dataset"],
        "dataset_digest": data["digest"],
        "dvc_md5": data["dvc_md5"],
        **label_tags(params.train, faces, data["dataset"]),
        "precision": resolve_precision(params.train.precision),
    }
    checkpoint = paths.checkpoints / _key(settings, _inputs(params.train, tags), paths.pipeline)
    described = description.describe(settings["train"], data["dataset"], _counts(faces), project)
    name = tags.get("dvc_experiment", described.name)
    with delivery.stage_run(_local_id(checkpoint), name=name, tags=tags, create=True) as run:
        run.log_params(settings)
        run.log_contents(started.files)
        run.note("Training", described.note)
        _log_inputs(run, faces, paths, data)
        result = fit(params.train, faces, checkpoint=checkpoint, on_epoch=run.log_epoch)
        about = {
            "run_id": run.id,
            "dataset": data["dataset"],
            "label_source": tags["label_source"],
            "architecture": params.train.architecture,
        }
        save(result, params.train, about | {"temperature": str(result.temperature)}, paths.model)
        run.attempt(lambda: _log_result(run, result.history, paths.model))
    _finish(checkpoint, paths.model)


def _counts(faces: Faces) -> dict[str, int]:
    return {split: len(faces.of(split)) for split in SPLITS}


def load_inputs(paths: TrainPaths) -> tuple[Params, Faces, dict[str, Any]]:
    """Load the settings, the faces and the report of the prepare stage. Raise an error if they do not fit."""
    params = load_params(paths.params, [recipe for recipe in (paths.recipe, paths.overlay) if recipe])
    faces = load(paths.faces)
    params.train.check_batch_size(len(faces.of("train")))
    check_votes(params.train, faces)
    data = read_json(paths.data_report, "dataset", "digest", "dvc_md5")
    check_teachers(params.train, data["dataset"])
    check_digest(faces, data["digest"], paths)
    return params, faces, data


def check_digest(faces: Faces, expected: str, paths: TrainPaths) -> None:
    """Raise DataError if the faces are not those that the report describes, since the run states its digest."""
    if digest(faces) != expected:
        raise DataError(
            f"{paths.faces} does not contain the faces that {paths.data_report} describes: run "
            "`dvc repro --force prepare`"
        )


def save(result: "TrainingResult", train: Train, about: dict[str, str], folder: Path) -> None:
    """Write the model folder atomically.

    It contains model.keras, model.onnx (with `about` in its metadata), initial_weights/, history.csv and run.json.
    """
    from emotion_detection.training.initial_weights import save_initial_weights
    from emotion_detection.training.onnx_export import export_onnx

    with atomic_output(folder) as temporary:
        temporary.mkdir()
        result.model.save(temporary / "model.keras")
        source = about.get("label_source", "")
        save_initial_weights(result.weights, temporary / "initial_weights", label_source=source)
        differences = export_onnx(result.model, temporary / "model.onnx", about=about)
        with (temporary / HISTORY).open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(result.history[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(result.history)
        run = {
            "run_id": about["run_id"],
            "label_source": about.get("label_source", "not recorded"),
            "parameters": result.model.count_params(),
            "temperature": result.temperature,
            "onnx_difference": differences.file,
            "onnx_graph_difference": differences.graph,
            "train": train.model_dump(mode="json"),
        }
        (temporary / "run.json").write_text(json.dumps(run, indent=2) + "\n")


def _log_inputs(run: "Run", faces: Faces, paths: TrainPaths, data: Mapping[str, str]) -> None:
    """Log the faces of each split, and the report and the figures of the prepare stage."""
    for split in SPLITS:
        split_faces = faces.of(split)
        arrays = (split_faces.images, split_faces.labels)
        run.log_faces(arrays, name=data["dataset"], split=split, dvc_md5=data["dvc_md5"], digest=data["digest"])
    run.log_folder(paths.data_figures, "data")
    run.log_file(paths.data_report, "data")


def _log_result(run: "Run", history: Sequence[Mapping[str, float]], model: Path) -> None:
    run.tag_all(model_digests(model))
    run.log_history(history, model / HISTORY)


def _inputs(train: Train, tags: Mapping[str, str]) -> str:
    """The digests of the faces, of the votes if they are used, and of the teachers, whose paths can have new files."""
    return tags["dataset_digest"] + tags.get("votes_digest", "") + teacher_digests(train)


def _key(settings: Mapping[str, object], digest: str, pipeline: Path) -> str:
    """Identify a training by its settings, data and code, so that no other training resumes its checkpoint."""
    content = [settings, digest, _code(pipeline)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _code(pipeline: Path) -> dict[str, str]:
    """The content of each code file that the train stage depends on, by its path in the project."""
    project = pipeline.parent
    try:
        dependencies = [
            name for name in read_yaml(pipeline)["stages"]["train"]["deps"] if not name.startswith("build/")
        ]
        paths = [project / name for name in dependencies]
        files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
        return {file.relative_to(project).as_posix(): file.read_text() for file in files}
    except (LookupError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ConfigError(
            f"{pipeline} does not list the files that stages.train depends on, or one cannot be read "
            f"({shorten(error)}): restore it with git"
        ) from error


def _finish(checkpoint: Path, model: Path) -> None:
    """Remove the checkpoint; in a stage of DVC, only mark it.

    DVC records the model after this process has ended. If it is killed before, it repeats the stage, which would train
    again in a second run.
    """
    if "DVC_STAGE" in os.environ:
        with atomic_output(checkpoint / FINISHED) as path:
            path.write_text(folder_md5(model))
    else:
        shutil.rmtree(checkpoint)


def _remove_recorded(checkpoints: Path, lock: Path) -> None:
    """Remove the checkpoints of finished trainings whose models DVC has recorded in dvc.lock."""
    recorded = lock.read_text(errors="replace") if lock.exists() else ""
    for marker in checkpoints.glob(f"*/{FINISHED}"):
        if marker.read_text() in recorded:
            for state in filter(Path.is_dir, marker.parent.iterdir()):  # the marker last, in case of a kill
                shutil.rmtree(state)
            shutil.rmtree(marker.parent)


def _unfinished_run(checkpoint: Path) -> str | None:
    """The ID of the run of a checkpoint. A damaged file is ignored: the training gets a new run."""
    path = checkpoint / "run_id"
    run_id = path.read_text(errors="replace") if path.is_file() else ""
    return run_id if RUN_ID.fullmatch(run_id) else None


def _local_id(checkpoint: Path) -> str:
    """The ID of the run, which is on the disk before the store has the run: a kill leaves no second run."""
    run_id = _unfinished_run(checkpoint)
    if run_id is None:
        run_id = uuid.uuid4().hex
        with atomic_output(checkpoint / "run_id") as path:
            path.write_text(run_id)
    return run_id


if __name__ == "__main__":
    run_command(train)
