"""The verdict about a version that was trained again. tests/end_to_end/test_pipeline.py trains one."""

import json
from contextlib import nullcontext

import mlflow
import pytest
from tests.support.onnx_files import write_linear

from emotion_detection import cli
from emotion_detection.commands import reproduce as command
from emotion_detection.data.dataset import save
from emotion_detection.experiments import lineage, registry, reproduction
from emotion_detection.experiments.reproduction import Finding

VERSION = "models:/tried/1"
RECORD = {"data": {"digest": "1" * 64, "dvc_md5": "2.dir"}, "versions": [{"name": "tried", "version": 1}]}
OTHER_LIBRARY = Finding("libraries", "other versions are installed")


@pytest.fixture
def outputs(tmp_path, drawn, monkeypatch):
    """The outputs of a training, and an equal model in the registry."""
    save(drawn, tmp_path / "faces.npz")
    (tmp_path / "report.json").write_text(json.dumps({"digest": "1" * 64}))
    write_linear(tmp_path / "model.onnx")
    original = write_linear(tmp_path / "original.onnx")
    monkeypatch.setattr(registry, "fetch", lambda _: original)
    monkeypatch.setattr(reproduction, "seed_scores", lambda _: [])
    return {"model": tmp_path / "model.onnx", "faces": tmp_path / "faces.npz", "report": tmp_path / "report.json"}


def test_equal_weights_are_identical(outputs):
    assert command.compare(VERSION, RECORD, outputs, [OTHER_LIBRARY]) == {"verdict": "identical", "reasons": []}


def test_models_that_val_cannot_tell_apart_are_equivalent(outputs):
    write_linear(outputs["model"], weight=1.001)
    result = command.compare(VERSION, RECORD, outputs, [OTHER_LIBRARY])
    assert result["verdict"] == "equivalent"
    assert result["reasons"][0] == "libraries: other versions are installed"
    assert "arrays of weights differ" in result["reasons"][1]
    assert result["reasons"][2].startswith("macro-F1 on val +0.0000")
    assert "this val set shows gains from" in result["reasons"][2]


@pytest.mark.parametrize(("seeds", "verdict"), [([0.1, 0.5, 0.9], "equivalent"), ([0.5, 0.5, 0.5001], "different")])
def test_spread_of_seeds_decides_if_it_is_known(outputs, monkeypatch, seeds, verdict):
    write_linear(outputs["model"], seed=2)
    monkeypatch.setattr(reproduction, "seed_scores", lambda _: seeds)
    result = command.compare(VERSION, RECORD, outputs, [])
    assert result["verdict"] == verdict
    assert f"3 seeds of this training differ by {seeds[-1] - seeds[0]:.4f}" in result["reasons"][-1]


def test_other_prepared_data_is_the_first_cause(outputs):
    write_linear(outputs["model"], weight=1.001)
    outputs["report"].write_text(json.dumps({"digest": "3" * 64}))
    result = command.compare(VERSION, RECORD, outputs, [OTHER_LIBRARY])
    assert result["verdict"] == "different"
    assert result["reasons"][0] == "the prepared data has the digest 333333333333 instead of 111111111111"


def test_digest_that_is_not_recorded_is_no_difference(outputs):
    write_linear(outputs["model"], weight=1.001)
    record = RECORD | {"data": {"digest": None, "dvc_md5": "2.dir"}}
    result = command.compare(VERSION, record, outputs, [])
    assert result["verdict"] == "equivalent"
    assert result["reasons"][0] == "the digest of the prepared data is not recorded"


def fake(monkeypatch, tmp_path, outputs, incomplete=(), findings=()):
    """Replace the checkout and the training; returns the list of trainings."""
    trainings = []
    monkeypatch.setattr(lineage, "lineage", lambda *_: RECORD)
    monkeypatch.setattr(reproduction, "check_record", lambda *_: list(incomplete))
    monkeypatch.setattr(reproduction, "checkout", lambda *_: nullcontext(tmp_path))
    monkeypatch.setattr(reproduction, "preflight", lambda *_, **__: list(findings))
    monkeypatch.setattr(reproduction, "train_again", lambda *arguments: trainings.append(arguments))
    monkeypatch.setattr(reproduction, "outputs", lambda _: outputs)
    return trainings


def test_verdict_becomes_a_tag_of_the_version(store, outputs, tmp_path, monkeypatch, capsys):
    client = mlflow.MlflowClient(store, store)
    client.create_registered_model("tried")
    client.create_model_version("tried", "somewhere")
    trainings = fake(monkeypatch, tmp_path, outputs)
    cli.main(["reproduce", VERSION])
    assert capsys.readouterr().out.splitlines()[-1] == f"{VERSION}: identical"
    assert json.loads(client.get_model_version("tried", "1").tags["reproduction"])["verdict"] == "identical"
    assert trainings[0][2] == "2.dir"


def test_preflight_prints_the_findings_and_does_not_train(outputs, tmp_path, monkeypatch, capsys):
    trainings = fake(monkeypatch, tmp_path, outputs, findings=[OTHER_LIBRARY])
    cli.main(["reproduce", VERSION, "--preflight"])
    assert capsys.readouterr().out == "libraries: other versions are installed\n"
    assert trainings == []


@pytest.mark.parametrize("place", ["incomplete", "findings"])
def test_blocking_finding_stops_before_the_training(outputs, tmp_path, monkeypatch, capsys, place):
    lost = [OTHER_LIBRARY, Finding("data", "the data is lost", blocks=True)]
    trainings = fake(monkeypatch, tmp_path, outputs, **{place: lost})
    with pytest.raises(SystemExit):
        cli.main(["reproduce", VERSION])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {VERSION} cannot be reproduced: data: the data is lost; libraries: other")
    assert trainings == []


def test_only_a_registered_version_can_be_reproduced(capsys):
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "build/model/model.onnx"])
    assert "is no registered version" in capsys.readouterr().err
