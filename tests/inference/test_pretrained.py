"""The model that ships: it loads, it is the one its papers describe, and its scores are what they say."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from tests.support.paths import ARCHIVE, PRETRAINED

from emotion_detection.data.formats import read_raw
from emotion_detection.data.splits import drop_leaks
from emotion_detection.evaluation.metrics import evaluate, headline
from emotion_detection.inference.classifier import EmotionClassifier


@pytest.fixture(scope="module")
def classifier():
    return EmotionClassifier(PRETRAINED / "model.onnx")


def test_it_is_small_and_the_file_its_papers_name():
    content = (PRETRAINED / "model.onnx").read_bytes()
    assert len(content) < 8e6
    assert json.loads((PRETRAINED / "run.json").read_text())["sha256"] == hashlib.sha256(content).hexdigest()


def test_it_reads_faces(classifier):
    faces = np.random.default_rng(0).integers(0, 256, (3, 48, 48), dtype=np.uint8)
    assert classifier.probabilities(faces).sum(axis=1) == pytest.approx(1)


def test_its_scores_are_those_it_is_shipped_with(classifier):
    beside = ARCHIVE
    archive = Path(os.environ.get("FER2013_ARCHIVE", beside))
    if not archive.is_file():
        pytest.skip("FER-2013 itself is not here: set FER2013_ARCHIVE to Kaggle's archive.zip")
    faces, _ = drop_leaks(read_raw(archive).faces)
    told = json.loads((PRETRAINED / "metrics.json").read_text())
    for split in ("val", "test"):
        part = faces.of(split)
        report = evaluate(part.labels, classifier.probabilities(part.images), confidence=0.95, ece_bins=15)
        scored = headline(report, split)
        assert {key: told[key] for key in scored} == pytest.approx(scored, abs=2e-3)  # another CPU rounds otherwise
