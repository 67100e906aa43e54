"""The train stage: when a checkpoint is resumed, and what the model folder contains."""

import errno
import json
import os
import subprocess
import sys

import pytest
import yaml
from tests.support.paths import ROOT
from tests.training.conftest import TINY

from emotion_detection.config import Distillation
from emotion_detection.data.dataset import save
from emotion_detection.errors import ConfigError, DataError
from emotion_detection.experiments.dvc_data import folder_md5
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.stages import train
from emotion_detection.training.trainer import fit


def test_checkpoint_key_depends_on_params_data_and_code(tmp_path):
    pipeline = tmp_path / "dvc.yaml"
    pipeline.write_text("stages: {train: {deps: [build/faces.npz, requirements.lock, src/training]}}")
    (tmp_path / "requirements.lock").write_text("keras==1")
    (tmp_path / "src" / "training").mkdir(parents=True)
    code = tmp_path / "src" / "training" / "trainer.py"
    code.write_text("")
    settings, other_settings = {"train": {"epochs": 1}}, {"train": {"epochs": 2}}
    key = train._key(settings, "digest", pipeline)
    assert key == train._key(settings, "digest", pipeline)
    other_keys = {train._key(other_settings, "digest", pipeline), train._key(settings, "other digest", pipeline)}
    assert len({key, *other_keys}) == 3
    code.write_text("# edited")
    assert train._key(settings, "digest", pipeline) != key


def test_checkpoint_key_depends_on_votes_and_on_the_content_of_teachers(params, tmp_path):
    path = tmp_path / "model.onnx"
    distillation = Distillation(
        soft_labels=None, teachers=(str(path),), teachers_see="augmented", weight=1, temperature=1
    )
    student = params.train.model_copy(update={"distillation": distillation})
    seen = {train._inputs(params.train, {"dataset_digest": "d"})}
    assert seen == {"d"}
    seen.add(train._inputs(params.train, {"dataset_digest": "d", "votes_digest": "v"}))
    for content in (b"first", b"second"):
        path.write_bytes(content)
        seen.add(train._inputs(student, {"dataset_digest": "d"}))
    assert len(seen) == 4


@pytest.mark.slow
def test_model_folder_contains_the_temperature_in_its_files(params, drawn, tmp_path):
    settings = params.train.model_copy(update={**TINY, "epochs": 1, "batch_size": 8})
    result = fit(settings, drawn, on_epoch=lambda _: None)
    about = {
        "run_id": "0123",
        "dataset": "sample",
        "architecture": "fer_resnet",
        "temperature": str(result.temperature),
    }
    train.save(result, settings, about, tmp_path / "model")
    classifier = EmotionClassifier(tmp_path / "model" / "model.onnx")
    run = json.loads((tmp_path / "model" / "run.json").read_text())
    assert run["temperature"] == classifier.temperature == result.temperature
    assert about.items() <= classifier.metadata.items()
    assert run["train"] == settings.model_dump(mode="json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "stages: 3",
        "stages: {train: {}}",
        "stages: {train: {deps: [absent.py]}}",
        "stages: {train: {deps: [1]}}",
        "a: [",
    ],
)
def test_damaged_pipeline_file_is_refused(tmp_path, text):
    (tmp_path / "dvc.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"dvc\.yaml"):
        train._key({}, "digest", tmp_path / "dvc.yaml")


@pytest.mark.parametrize("content", [b"", b"../../etc", b"\xff\xfe", b"0" * 100_000])
def test_damaged_run_id_is_ignored(tmp_path, content):
    (tmp_path / "run_id").write_bytes(content)
    assert train._unfinished_run(tmp_path) is None


def write_inputs(folder, drawn, **settings):
    """The files of a train stage with changed settings of `train`; returns its paths."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["train"] |= settings
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    save(drawn, folder / "faces.npz")
    report = {"dataset": "sample", "digest": "0", "dvc_md5": "0"}
    (folder / "report.json").write_text(json.dumps(report))
    return train.TrainPaths(
        params=folder / "params.yaml",
        pipeline=folder / "dvc.yaml",
        faces=folder / "faces.npz",
        data_report=folder / "report.json",
        data_figures=folder / "figures",
        checkpoints=folder / "checkpoints",
        model=folder / "model",
    )


REFUSE = """
import sys
from pathlib import Path
from emotion_detection.errors import EmotionDetectionError
from emotion_detection.stages.train import TrainPaths, train
names = ("params.yaml", "dvc.yaml", "faces.npz", "report.json", "figures", "checkpoints", "model")
try:
    train(TrainPaths(*(Path(sys.argv[1]) / name for name in names)))
except EmotionDetectionError as error:
    print(error)
print(sorted({"tensorflow", "keras", "mlflow"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rat": 0.1}, "train.learning_rat is not a parameter"),
        ({"seed": 2**32}, "train.seed should be less than 4294967296"),
        ({"batch_size": 512}, "train.batch_size is 512, but the train split has 14 faces"),
        (
            {
                "distillation": {
                    "soft_labels": None,
                    "teachers": ["gone.onnx"],
                    "teachers_see": "augmented",
                    "weight": 0.5,
                    "temperature": 1,
                }
            },
            "gone.onnx does not exist: correct train.distillation.teachers",
        ),
        ({"votes": 0.5}, "train.votes is 0.5, but the training faces have no votes: add them with `make data"),
    ],
)
def test_wrong_setting_is_refused_before_tensorflow_is_imported(drawn, tmp_path, settings, words):
    write_inputs(tmp_path, drawn, **settings)
    command = [sys.executable, "-c", REFUSE, str(tmp_path)]
    message, imported = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert words in message
    assert imported == "[]"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"dataset": "sample"}', "[" * 100_000])
def test_damaged_data_report_is_refused(drawn, tmp_path, content):
    paths = write_inputs(tmp_path, drawn)
    paths.data_report.write_text(content)
    with pytest.raises(DataError, match=r"report\.json is damaged"):
        train.train(paths)


def test_faces_of_another_report_are_refused(drawn, tmp_path):
    paths = write_inputs(tmp_path, drawn, batch_size=8)
    with pytest.raises(DataError, match=r"faces\.npz does not contain the faces that .*report\.json describes: run"):
        train.train(paths)


@pytest.mark.slow
def test_full_disk_keeps_the_last_model(params, drawn, tmp_path, monkeypatch):
    settings = params.train.model_copy(update={**TINY, "epochs": 1, "batch_size": 8})
    result = fit(settings, drawn, on_epoch=lambda _: None)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.onnx").write_text("the last good one")

    def fill(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(OSError, match="No space left") as error:
        train.save(result, settings, {"run_id": "0", "temperature": "1"}, tmp_path / "model")
    assert error.value.filename == str(tmp_path / "model")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "model.onnx"]


def test_finished_checkpoint_is_kept_until_dvc_has_recorded_the_model(tmp_path, monkeypatch):
    checkpoint, lock = tmp_path / "checkpoints" / "key", tmp_path / "dvc.lock"
    model = tmp_path / "model"
    for folder in (checkpoint, model):
        folder.mkdir(parents=True)
    (model / "run.json").write_text("{}")
    monkeypatch.setenv("DVC_STAGE", "train")
    train._finish(checkpoint, model)
    train._remove_recorded(checkpoint.parent, lock)
    lock.write_text("a stage that ran later, such as one that always runs")
    train._remove_recorded(checkpoint.parent, lock)
    assert checkpoint.exists()
    lock.write_text(yaml.safe_dump({"outs": [{"path": "build/model", "md5": folder_md5(model)}]}))
    train._remove_recorded(checkpoint.parent, lock)
    assert not checkpoint.exists()


def test_checkpoint_is_removed_at_the_end_without_dvc(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    (tmp_path / "checkpoint").mkdir()
    train._finish(tmp_path / "checkpoint", tmp_path / "model")
    assert not (tmp_path / "checkpoint").exists()
