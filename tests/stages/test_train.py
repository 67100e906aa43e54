"""The train stage: when a checkpoint is resumed, and what the model folder contains."""

import json

import pytest
from tests.training.conftest import TINY

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
