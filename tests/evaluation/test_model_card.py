"""The model card says what the numbers say."""

import csv
import json

import pytest
from tests.support.paths import PRETRAINED

from emotion_detection.evaluation.model_card import model_card


@pytest.fixture(scope="module")
def shipped():
    with (PRETRAINED / "classes.csv").open(newline="") as stream:
        classes = list(csv.DictReader(stream))
    return [json.loads((PRETRAINED / name).read_text()) for name in ("run.json", "metrics.json")] + [classes]


def test_the_shipped_card_is_the_one_of_the_shipped_numbers(shipped):
    megabytes = (PRETRAINED / "model.onnx").stat().st_size / 1e6
    assert (PRETRAINED / "README.md").read_text() == model_card(*shipped, megabytes=megabytes)


def test_another_number_makes_another_card(shipped):
    run, metrics, classes = shipped
    changed = model_card(run, metrics | {"test_accuracy": 0.1234}, classes, megabytes=6.2)
    assert "| 12.3 % [" in changed
    assert "6.2 MB" in changed


def test_the_weakest_emotions_are_named(shipped):
    run, metrics, classes = shipped
    worse = [row | ({"f1": "0.01", "recall": "0.02"} if row["emotion"] == "happy" else {}) for row in classes]
    assert "Weakest: happy (2 % found), " in model_card(run, metrics, worse, megabytes=6.2)


def test_what_was_not_measured_is_not_told(shipped):
    run, metrics, classes = shipped
    bare = {key: value for key, value in metrics.items() if "flip" not in key and "detected" not in key}
    assert "mirror" not in model_card(run, bare, classes, megabytes=6.2)
    found = {"test_detected_share": 0.75, "test_detected_accuracy": 0.61, "test_detected_plain_accuracy": 0.63}
    assert "61.0 % of these are right, from FER-2013's own crops 63.0 %" in model_card(
        run, bare | found, classes, megabytes=6.2
    )


def test_a_calibration_that_did_not_help_is_told(shipped):
    run, metrics, classes = shipped
    told = model_card(
        run,
        metrics | {"test_ece": 0.05, "test_ece_uncalibrated": 0.04, "val_ece": 0.02, "val_ece_uncalibrated": 0.03},
        classes,
        megabytes=6.2,
    )
    assert "0.020 with it and 0.030 without on val, 0.050 with it and 0.040 without on test" in told


def test_the_law_is_named(shipped):
    assert "article 5(1)(f)" in model_card(*shipped, megabytes=6.2)
