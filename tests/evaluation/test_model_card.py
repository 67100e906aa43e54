"""The model card contains the scores and the metadata."""

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


def test_shipped_card_is_generated_from_the_shipped_scores(shipped):
    megabytes = (PRETRAINED / "model.onnx").stat().st_size / 1e6
    assert (PRETRAINED / "README.md").read_text() == model_card(*shipped, megabytes=megabytes)


def test_card_contains_changed_scores(shipped):
    run, metrics, classes = shipped
    changed = model_card(run, metrics | {"test_accuracy": 0.1234}, classes, megabytes=6.2)
    assert "| 12.3 % [" in changed
    assert "6.2 MB" in changed


def test_weakest_emotions_are_listed_with_their_recall(shipped):
    run, metrics, classes = shipped
    worse = [row | ({"f1": "0.01", "recall": "0.02"} if row["emotion"] == "happy" else {}) for row in classes]
    assert "The weakest emotions are happy (recall 2 %), " in model_card(run, metrics, worse, megabytes=6.2)


def test_missing_measurements_are_left_out(shipped):
    run, metrics, classes = shipped
    bare = {key: value for key, value in metrics.items() if "flip" not in key and "detected" not in key}
    assert "mirror" not in model_card(run, bare, classes, megabytes=6.2)
    detector = {
        "test_found_and_read_right": 0.46,
        "test_detected_share": 0.75,
        "test_detected_accuracy": 0.61,
        "test_detected_plain_accuracy": 0.63,
    }
    card = model_card(run, bare | detector, classes, megabytes=6.2)
    assert "The detector found 75 % of the test faces" in card
    assert "46 % of all test faces are found and read right" in card
    assert "61.0 % with the detector's crops and 63.0 % with FER-2013's own crops" in card


def test_calibration_error_is_given_with_and_without_temperature(shipped):
    run, metrics, classes = shipped
    card = model_card(
        run,
        metrics | {"test_ece": 0.05, "test_ece_uncalibrated": 0.04, "val_ece": 0.02, "val_ece_uncalibrated": 0.03},
        classes,
        megabytes=6.2,
    )
    assert "0.020 with it and 0.030 without it on val, and 0.050 with it and 0.040 without it on test" in card


def test_card_refers_to_the_ai_act(shipped):
    assert "article 5(1)(f)" in model_card(*shipped, megabytes=6.2)
