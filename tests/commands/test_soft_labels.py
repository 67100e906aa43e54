"""The command labels the training faces with teachers and prints the settings that use the result."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from tests.support.paths import PRETRAINED, ROOT

from emotion_detection.cli import main
from emotion_detection.commands.soft_labels import soft_labels
from emotion_detection.config import Distillation, load_params
from emotion_detection.data.dataset import save
from emotion_detection.errors import ConfigError, DataError, ModelError, UsageError
from emotion_detection.inference.classifier import EmotionClassifier, mirror_averaged
from emotion_detection.training.augmentation import batches
from emotion_detection.training.content_addressed import read_comment
from emotion_detection.training.distillation import read_soft_labels, save_soft_labels, targets

TEACHER = PRETRAINED / "model.onnx"
EPOCHS = 2


@pytest.fixture(scope="module")
def train_faces(drawn):
    return drawn.of("train")


@pytest.fixture(scope="module")
def classifier():
    return EmotionClassifier(TEACHER)


@pytest.fixture(scope="module")
def params_file(tmp_path_factory):
    """The committed params, with small batches."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["train"] |= {"batch_size": 8, "final_plain_fraction": 0}
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="module")
def label(drawn, tmp_path_factory):
    """A function that runs the command on the drawn faces and returns the file that it wrote."""
    data = tmp_path_factory.mktemp("data")
    save(drawn, data / "faces.npz")

    def run(folder: Path, *teachers: Path, dataset: str = "fer2013", **settings) -> Path:
        (data / "report.json").write_text(json.dumps({"dataset": dataset}))
        inputs = {"faces": data / "faces.npz", "data_report": data / "report.json"}
        soft_labels(*teachers, **inputs, folder=folder / "soft_labels", **settings)
        (written,) = (folder / "soft_labels").iterdir()
        return written

    return run


@pytest.fixture(scope="module")
def augmented(label, params_file, tmp_path_factory):
    """Soft labels of the augmented faces of two epochs."""
    return label(tmp_path_factory.mktemp("augmented"), TEACHER, epochs=EPOCHS, params=params_file)


def test_command_prints_the_settings_for_the_file(drawn, train_faces, classifier, tmp_path, capsys):
    save(drawn, tmp_path / "faces.npz")
    (tmp_path / "report.json").write_text(json.dumps({"dataset": "fer2013"}))
    paths = {"faces": "faces.npz", "data-report": "report.json", "folder": "soft_labels"}
    flags = [word for flag, name in paths.items() for word in (f"--{flag}", str(tmp_path / name))]
    main(["soft-labels", str(TEACHER), str(TEACHER), *flags])
    (written,) = (tmp_path / "soft_labels").iterdir()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "soft_labels:" in line]
    assert line.split() == ["soft_labels:", str(written)]
    expected = mirror_averaged(classifier, train_faces.images)
    np.testing.assert_allclose(read_soft_labels(written, train_faces), expected, atol=1e-3)


def test_teacher_of_another_data_set_is_refused(label, tmp_path):
    with pytest.raises(ModelError, match=r"model\.onnx was trained on fer2013, but the faces are of custom-01234567"):
        label(tmp_path, TEACHER, dataset="custom-01234567")
    assert not (tmp_path / "soft_labels").exists()


def test_soft_labels_say_that_a_teacher_learned_from_votes(label, tmp_path):
    model = onnx.load(TEACHER)
    model.metadata_props.add(key="label_source", value="FER-2013 and FER+")
    onnx.save(model, tmp_path / "voted.onnx")
    assert read_comment(label(tmp_path, TEACHER)) == b""
    first = label(tmp_path / "first", TEACHER, tmp_path / "voted.onnx")
    second = label(tmp_path / "second", first)
    assert read_comment(first) == read_comment(second) == b"FER-2013 and FER+"


def test_earlier_soft_labels_are_averaged_with_a_model(label, train_faces, classifier, tmp_path):
    earlier = save_soft_labels(np.full((14, 7), 1 / 7, np.float32), train_faces, [TEACHER], tmp_path)
    written = label(tmp_path, TEACHER, earlier)
    expected = (mirror_averaged(classifier, train_faces.images) + 1 / 7) / 2
    np.testing.assert_allclose(read_soft_labels(written, train_faces), expected, atol=1e-3)


def test_epochs_label_the_faces_as_training_augments_them(augmented, train_faces, classifier, params_file):
    train = load_params(params_file).train
    distillation = Distillation(
        soft_labels=str(augmented), teachers=(), teachers_see="augmented", weight=0.75, temperature=1
    )
    labels, additions = targets(train.model_copy(update={"distillation": distillation}), train_faces)
    assert additions is not None
    assert additions.shape == (EPOCHS, 16, 7)  # 14 faces fill two batches of 8
    for epoch in range(EPOCHS):
        epoch_batches = batches(
            train_faces, labels, train.augment, batch_size=train.batch_size, seed=train.seed, epoch=epoch + 1
        )
        images = np.concatenate([images for images, _ in epoch_batches])[..., 0]
        np.testing.assert_allclose(additions[epoch], 0.75 * classifier.probabilities(images), atol=1e-3)


@pytest.mark.parametrize(
    ("epochs", "fraction", "error", "message"),
    [
        (1, 0.5, ConfigError, "has train.final_plain_fraction 0.5: write 0"),
        (-1, 0, UsageError, "--epochs is -1: use 1 or more"),
    ],
)
def test_unusable_epochs_are_refused(label, params_file, tmp_path, epochs, fraction, error, message):
    params = tmp_path / "params.yaml"
    params.write_text(params_file.read_text().replace("final_plain_fraction: 0", f"final_plain_fraction: {fraction}"))
    with pytest.raises(error, match=message):
        label(tmp_path, TEACHER, epochs=epochs, params=params)
    assert not (tmp_path / "soft_labels").exists()


def test_soft_labels_of_augmented_faces_are_no_teacher_for_unchanged_faces(label, augmented, tmp_path):
    with pytest.raises(ModelError, match="contains soft labels for augmented faces only"):
        label(tmp_path, TEACHER, augmented)


def test_soft_labels_are_no_teacher_for_augmented_faces(label, augmented, params_file, tmp_path):
    with pytest.raises(UsageError, match=r"\.npz contains soft labels, which cannot predict augmented faces"):
        label(tmp_path, augmented, epochs=1, params=params_file)


def test_missing_teachers_are_refused(label, tmp_path):
    with pytest.raises(UsageError, match="teachers are missing: give one or more"):
        label(tmp_path)


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_missing_or_damaged_report_names_the_stage_that_writes_it(drawn, tmp_path, content):
    save(drawn, tmp_path / "faces.npz")
    report = tmp_path / "report.json"
    if content is not None:
        report.write_text(content)
    with pytest.raises(DataError, match=r"report\.json cannot be read .*dvc repro prepare"):
        soft_labels(TEACHER, faces=tmp_path / "faces.npz", data_report=report, folder=tmp_path)
