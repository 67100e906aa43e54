"""Register the model in MLflow's registry, and move the alias to it if it is better on the same faces of val."""

import json
import logging
import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from cyclopts import Parameter

from emotion_detection.arrays import Probabilities
from emotion_detection.atomic import atomic_output
from emotion_detection.command_line import run_command
from emotion_detection.config import Params, load_params
from emotion_detection.data import dataset
from emotion_detection.data.dataset import Faces
from emotion_detection.decoding.json_text import read_json
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import ModelError, StoreError
from emotion_detection.evaluation import acceptance, metrics, paired
from emotion_detection.experiments import delivery, promotion, registry, runs
from emotion_detection.experiments.copied_run import training_run
from emotion_detection.experiments.dvc_data import forget_file
from emotion_detection.experiments.journal import WAIT_S, BusyError, Journal, journal_of, writable
from emotion_detection.experiments.outages import OutageError, bounded
from emotion_detection.experiments.promotion import Decision
from emotion_detection.experiments.store_location import project_folder
from emotion_detection.inference import pretrained
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.pretrained import MODEL_NAME
from emotion_detection.synthetic.sample import draw_faces

DATASET = "fer2013"  # its model is registered as MODEL_NAME; the names of other models end with their data set
COPIED_TAGS = ("git_commit", "git_dirty", "label_source", "votes_digest")  # from the run to the version
NOT_COMPARABLE, UNOPPOSED = "not comparable", "unopposed"  # verdicts without a comparison
UNREAD = {"verdict": "not compared"}  # the evidence if the store does not have the file of the present version
NOT_REGISTERED = "not registered yet"
TIMEOUT_S = 10  # for a request to the store
ADDRESS = "address.json"  # in a postponed registration: the file that the stage has written
MODEL_FILES = ("model.onnx", "run.json", "history.csv", "initial_weights")  # what a registration needs

logger = logging.getLogger(__name__)


@Parameter(name="*")
@dataclass(frozen=True)
class RegisterPaths:
    """The files of the register stage."""

    params: Path
    """params.yaml"""
    faces: Path
    """The faces of the prepare stage."""
    data_report: Path
    """The JSON report of the prepare stage."""
    model: Path
    """The folder of the train stage."""
    report: Path
    """The folder of the evaluate stage."""
    registered: Path
    """The JSON file to write."""


@dataclass(frozen=True)
class Candidate:
    """A model that wants the alias: it is compared with the version that has it on the faces of val."""

    model: Path  # model.onnx
    tags: dict[str, str]  # of its version
    val: Faces
    params: Params

    def decide(self, holder: registry.Version | None) -> Decision:
        """Whether the alias moves from its holder to this model."""
        try:
            comparison = self._compare(holder) if holder else None
        except OutageError:
            raise
        except StoreError as error:  # it says nothing about the models, so it must not promote one
            remedy = "`dvc repro --force --single-item register` compares again"
            return Decision(False, f"the {self.params.register_.alias} cannot be read ({error}): {remedy}", UNREAD)
        verdict, result = _verdict(holder, comparison, self.params.register_.alias)
        objections = acceptance.objections(self._measurements, self.params.register_) if holder else []
        wins = verdict in (UNOPPOSED, *self.params.register_.promote_on)
        evidence = {
            "verdict": verdict,
            "opponent": holder.number if holder else None,
            "dataset_digest": self.tags["dataset_digest"],
            **(_figures(comparison) if isinstance(comparison, paired.Comparison) else {}),
            **_rounded(self._measurements.as_dict()),
            "objections": objections,
            "promoted": wins and not objections,
        }
        reason = f"{result}, but {' and '.join(objections)}" if wins and objections else result
        return Decision(wins and not objections, reason, evidence)

    def _compare(self, holder: registry.Version) -> paired.Comparison | str:
        """The comparison with the holder, or why there is none."""
        for key, what in (("dataset_digest", "was trained on other data"), ("labels", "has other labels")):
            if holder.tags.get(key) != self.tags[key]:
                return what
        try:
            opponent = EmotionClassifier(registry.fetch(f"models:/{holder.name}/{holder.number}"))
            answers = opponent.probabilities(self.val.images)
        except ModelError as error:
            return f"cannot be scored ({error})"
        confidence = self.params.register_.confidence
        return paired.compare(self.val.labels, answers, self._answers, confidence=confidence)

    @cached_property
    def _classifier(self) -> EmotionClassifier:
        return EmotionClassifier(self.model)

    @cached_property
    def _answers(self) -> Probabilities:
        return self._classifier.probabilities(self.val.images)

    @cached_property
    def _measurements(self) -> acceptance.Measurements:
        report = metrics.evaluate(self.val.labels, self._answers, **self.params.evaluate.model_dump())
        return acceptance.measure(self.model, self._classifier, report, self.val.images)


def register(paths: RegisterPaths) -> None:
    """Register model.onnx, and move the alias to it if it is better than the version that has it.

    The first opponent of a model for FER-2013 is the shipped model. If the store does not respond, nothing is decided:
    copies of the files are kept, and `emotion-detection sync` registers the model with the same settings.
    """
    run_id = read_json(paths.model / "run.json", "run_id")["run_id"]
    journal = journal_of(run_id)
    try:
        with bounded(TIMEOUT_S, retries=1):
            result, sentence = _register(paths)
    except OutageError as error:
        with writable(run_id) as journal:
            _postpone(paths, journal)
        logger.warning(
            "%s. The stage continues: what it would register is kept in %s, and `emotion-detection sync` registers it "
            "when %s.", error.sentence, journal.folder, error.until
        )  # fmt: skip
        data = json.loads(paths.data_report.read_text())
        sentence = f"{model_name(data['dataset'])}: {NOT_REGISTERED}"
        result = {"name": model_name(data["dataset"]), "version": None, "run_id": run_id, "promoted": False}
        result["reason"] = f"{NOT_REGISTERED}: {error.sentence}"
    else:
        _forget(journal)
    _write_result(result, paths.registered)
    print(sentence)


def register_postponed(journal: Journal) -> str:
    """Register the model that waits in a journal, and correct the file of its stage; returns the result in a line.

    DVC then runs the stage once more, which finds the version. Hold the lock of the journal before. Raises OutageError
    if the store does not respond.
    """
    folder = journal.registration
    names = ("params.yaml", "faces.npz", "data_report.json", "model", "report", "registered.json")
    result, sentence = _register(RegisterPaths(*(folder / name for name in names)))
    written = Path(read_json(folder / ADDRESS, "registered")["registered"])
    if written.is_file():  # not that of a queued experiment, whose folder is gone
        present = read_json(written, "run_id", "version")
        if present["version"] is None and present["run_id"] == journal.run_id:
            forget_file(written, project_folder())
            _write_result(result, written)
    _forget(journal)
    return sentence


def _register(paths: RegisterPaths) -> tuple[dict[str, Any], str]:
    """Register the model; returns the content of the stage's file, and the result in a line."""
    params = load_params(paths.params)
    data = json.loads(paths.data_report.read_text())
    scores = json.loads((paths.report / "metrics.json").read_text())
    name, alias = model_name(data["dataset"]), params.register_.alias
    delivery.catch_up(read_json(paths.model / "run.json", "run_id")["run_id"])
    if name == MODEL_NAME:
        os.environ.pop("MLFLOW_RUN_ID", None)  # of `mlflow run`: it is the training's, not the shipped model's
        pretrained.seed_registry()
    # Drawn faces, so that the model does not contain images of people.
    example = draw_faces(per_class=1, seed=0)[0]
    about = {"dataset": data["dataset"], "dataset_digest": data["digest"], "dvc_md5": data["dvc_md5"]}
    with training_run(paths.model, paths.report, about) as run:
        run.log_stage_params({"register": params.register_.model_dump()})
        tags = version_tags(data, scores, run)
        version = registry.register(paths.model / "model.onnx", name, example=example[..., np.newaxis], tags=tags)
        candidate = Candidate(paths.model / "model.onnx", tags, dataset.load(paths.faces).of("val"), params)
        outcome = promotion.promote_if(name, version, alias=alias, decide=candidate.decide)
        sentence = f"{name} version {version}: {alias if outcome.promoted else f'not {alias}'}, {outcome.reason}"
        run.note("Registered", sentence)
    return {"name": name, "version": version, "run_id": run.id, **asdict(outcome)}, sentence


def _postpone(paths: RegisterPaths, journal: Journal) -> None:
    """Keep copies of all that a registration needs. They are complete or absent."""
    journal.begin(time.time_ns() // 1_000_000)
    with atomic_output(journal.registration) as folder:
        (folder / "model").mkdir(parents=True)
        shutil.copyfile(paths.params, folder / "params.yaml")
        shutil.copyfile(paths.data_report, folder / "data_report.json")
        shutil.copytree(paths.report, folder / "report")
        for source in (paths.model / name for name in MODEL_FILES):
            if source.exists():
                copy = shutil.copytree if source.is_dir() else shutil.copyfile
                copy(source, folder / "model" / source.name)
        dataset.save(replace(dataset.load(paths.faces).of("val"), votes=None), folder / "faces.npz")
        (folder / ADDRESS).write_text(json.dumps({"registered": str(paths.registered.resolve())}))


def _forget(journal: Journal) -> None:
    """Remove a registration that has taken place. One that another process uses stays: `sync` finds the version."""
    if journal.registration.exists():
        with suppress(BusyError), journal.lock(WAIT_S):
            shutil.rmtree(journal.registration, ignore_errors=True)  # another process may have removed it
            if not journal.pending():
                journal.remove()


def _write_result(result: dict[str, Any], path: Path) -> None:
    with atomic_output(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")


def model_name(dataset_name: str) -> str:
    """The name in the registry of a model that was trained on this data set."""
    return MODEL_NAME if dataset_name == DATASET else f"{MODEL_NAME}-{dataset_name}"


def version_tags(data: dict[str, str], scores: dict[str, float], run: runs.Run) -> dict[str, str]:
    """The tags of the version: its labels, data set, run, commit and scores."""
    run_tags = run.tags
    shown = {key: f"{scores[key]:.6f}" for key in ("val_accuracy", "val_macro_f1", "test_accuracy", "test_macro_f1")}
    return {
        "labels": ",".join(EMOTIONS),
        "dataset": data["dataset"],
        "dataset_digest": data["digest"],
        "dvc_md5": data["dvc_md5"],
        "run_id": run.id,
        **{key: run_tags[key] for key in COPIED_TAGS if key in run_tags},
        **shown,
    }


def _verdict(
    holder: registry.Version | None, comparison: paired.Comparison | str | None, alias: str
) -> tuple[str, str]:
    """The verdict and its sentence."""
    if holder is None or comparison is None:
        return UNOPPOSED, f"there was no {alias} before"
    opponent = f"version {holder.number}"
    if isinstance(comparison, str):
        return NOT_COMPARABLE, f"{NOT_COMPARABLE} with {opponent}, which {comparison}"
    return comparison.verdict, acceptance.describe(comparison, opponent)


def _figures(comparison: paired.Comparison) -> dict[str, Any]:
    """The figures of a comparison as the version's tag shows them."""
    figures = comparison.as_dict()
    figures["recall_gains"] = dict(zip(EMOTIONS, figures["recall_gains"], strict=True))
    return _rounded(figures)


def _rounded(value: Any) -> Any:
    """Plain values with six decimals, as in other tags; None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value


if __name__ == "__main__":
    run_command(register)
