"""The stages where the whole pipeline would be too slow a test: what they refuse, and what a checkpoint is named by."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.support.onnx_files import write_linear
from tests.support.paths import ROOT

from emotion_detection.errors import InputError
from emotion_detection.evaluation.calibration import at_temperature
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.stages import evaluate, prepare, train
from emotion_detection.synthetic.sample import write_sample
from emotion_detection.training import trainer


def paths(folder: Path, **fractions: float) -> prepare.PreparePaths:
    """Arguments of prepare in a folder of its own, over committed params but for some fractions."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["prepare"] |= fractions
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    (folder / "data.dvc").write_text("outs:\n- md5: 0123.dir\n")
    names = {"params": "params.yaml", "data": "data", "pin": "data.dvc", "faces": "faces.npz", "report": "report.json"}
    return prepare.PreparePaths(**{key: folder / name for key, name in names.items()}, figures=folder / "figures")


def test_an_empty_split_is_refused_before_anything_is_written(tmp_path):
    arguments = paths(tmp_path, test_fraction=0.0)
    write_class_folders(arguments.data)
    with pytest.raises(InputError, match=r"leaves test no face: give more data, or change prepare\.\*_fraction"):
        prepare.prepare(arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "data.dvc", "data"}


def test_a_split_of_our_own_making_is_part_of_the_data_sets_name(tmp_path):
    names = []
    for fraction in (0.2, 0.3):
        folder = tmp_path / str(fraction)
        folder.mkdir()
        arguments = paths(folder, test_fraction=fraction)
        write_class_folders(arguments.data)
        prepare.prepare(arguments)
        names.append(yaml.safe_load(arguments.report.read_text())["dataset"])
    assert names[0] != names[1]
    assert names[0].split("-")[:2] == names[1].split("-")[:2] == ["custom", names[0].split("-")[1]]


def write_class_folders(data: Path) -> None:
    """The drawn sample's pictures in class folders, which tell no split."""
    import zipfile

    write_sample(data.with_suffix(".zip"), per_class=12, seed=1)
    with zipfile.ZipFile(data.with_suffix(".zip")) as archive:
        for name in archive.namelist():
            _, emotion, picture = name.split("/")
            (data / emotion).mkdir(parents=True, exist_ok=True)
            (data / emotion / f"{len(list((data / emotion).iterdir()))}{picture[-4:]}").write_bytes(archive.read(name))
    data.with_suffix(".zip").unlink()


def test_checkpoint_key_depends_on_params_data_and_code(tmp_path):
    pipeline = tmp_path / "dvc.yaml"
    pipeline.write_text("stages: {train: {deps: [build/faces.npz, requirements.lock, src/training]}}")
    (tmp_path / "requirements.lock").write_text("keras==1")
    (tmp_path / "src" / "training").mkdir(parents=True)
    code = tmp_path / "src" / "training" / "trainer.py"
    code.write_text("")
    one, more = {"train": {"epochs": 1}}, {"train": {"epochs": 2}}
    key = train._key(one, "digest", pipeline)
    assert key == train._key(one, "digest", pipeline)
    assert len({key, train._key(more, "digest", pipeline), train._key(one, "other", pipeline)}) == 3
    code.write_text("# edited")
    assert train._key(one, "digest", pipeline) != key


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return EmotionClassifier(write_linear(tmp_path_factory.mktemp("onnx") / "model.onnx"))


def test_the_temperature_is_undone_for_every_split(drawn, classifier):
    scored = evaluate.score(drawn, classifier)
    assert set(scored) == {"val", "test", "test_clean"}
    warm = {name: (part, at_temperature(p, 1.6)) for name, (part, p) in scored.items()}
    for name, (part, probabilities) in evaluate.uncalibrated(warm, 1.6).items():
        assert part is scored[name][0]
        np.testing.assert_allclose(probabilities, scored[name][1], atol=1e-5)


def test_a_mirror_image_changes_the_second_figure_only(params, drawn, classifier):
    numbers = evaluate.mirrored(drawn, classifier, params.evaluate)
    ends = ("", "_low", "_high")
    assert set(numbers) == {f"{split}_flip_accuracy{end}" for split in ("val", "test") for end in ends}
    assert numbers["val_flip_accuracy_low"] <= numbers["val_flip_accuracy"] <= numbers["val_flip_accuracy_high"]
    alike = replace(drawn, images=(drawn.images // 2 + drawn.images[:, :, ::-1] // 2))  # each its own mirror image
    labels, probabilities = alike.of("test").labels, classifier.probabilities(alike.of("test").images)
    plain = float((probabilities.argmax(axis=1) == labels).mean())
    assert evaluate.mirrored(alike, classifier, params.evaluate)["test_flip_accuracy"] == plain


def test_the_summary_tells_the_second_figure_where_there_is_one():
    ends = ("", "_low", "_high")
    headline = {f"{split}_accuracy{end}": 0.7 for split in ("test", "test_clean") for end in ends}
    headline |= {f"{split}_{name}": 0.5 for split in ("test", "test_clean") for name in ("rows", "macro_f1", "ece")}
    headline |= {"test_flip_accuracy": 0.713}
    assert "71.3 % with the mirror image" in evaluate.summary(headline, "test")
    assert "mirror" not in evaluate.summary(headline, "test_clean")


def test_the_model_folder_tells_its_temperature_three_times(params, drawn, tmp_path):
    taught = {"widths": (8,), "blocks": (1,), "epochs": 1, "batch_size": 8}
    settings = params.train.model_copy(update=taught)
    fitted = trainer.fit(settings, drawn, checkpoint=tmp_path / "state", on_epoch=lambda _: None)
    about = {
        "run_id": "0123",
        "dataset": "sample",
        "architecture": "fer_resnet",
        "temperature": str(fitted.temperature),
    }
    train.save(fitted, settings, about, tmp_path / "model")
    classifier = EmotionClassifier(tmp_path / "model" / "model.onnx")
    run = json.loads((tmp_path / "model" / "run.json").read_text())
    assert run["temperature"] == classifier.temperature == fitted.temperature
    assert about.items() <= classifier.about.items()
    assert run["train"] == settings.model_dump(mode="json")
