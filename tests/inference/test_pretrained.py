"""The shipped model can be loaded, matches its metadata, and has the scores that its metadata state."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from tests.support.paths import ARCHIVE, PRETRAINED

from emotion_detection.data.archives import open_container
from emotion_detection.data.image_reader import from_folders
from emotion_detection.data.splits import drop_leaks
from emotion_detection.evaluation.metrics import evaluate, scalar_metrics
from emotion_detection.inference.classifier import EmotionClassifier


@pytest.fixture(scope="module")
def classifier():
    return EmotionClassifier(PRETRAINED / "model.onnx")


def test_model_is_small_and_has_the_digest_of_its_metadata():
    content = (PRETRAINED / "model.onnx").read_bytes()
    assert len(content) < 8e6
    assert json.loads((PRETRAINED / "run.json").read_text())["sha256"] == hashlib.sha256(content).hexdigest()


def test_model_returns_probabilities(classifier):
    faces = np.random.default_rng(0).integers(0, 256, (3, 48, 48), dtype=np.uint8)
    assert classifier.probabilities(faces).sum(axis=1) == pytest.approx(1)


@pytest.mark.slow
def test_scores_on_fer2013_equal_the_metadata(classifier):
    archive = Path(os.environ.get("FER2013_ARCHIVE", ARCHIVE))
    if not archive.is_file():
        pytest.skip("FER-2013 is not available: set FER2013_ARCHIVE to Kaggle's archive.zip")
    with open_container(archive) as container:  # the folder test/ holds val and test; the training faces are not needed
        held_out = [member for member in container.members if member.name.startswith("test/")]
        faces, _ = drop_leaks(from_folders(held_out, str(archive))[0])
    stated = json.loads((PRETRAINED / "metrics.json").read_text())
    for split in ("val", "test"):
        part = faces.of(split)
        report = evaluate(part.labels, classifier.probabilities(part.images), confidence=0.95, ece_bins=15)
        scores = scalar_metrics(report, split)
        assert {key: stated[key] for key in scores} == pytest.approx(scores, abs=2e-3)  # another CPU rounds differently
