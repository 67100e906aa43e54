"""Makes the modules of demo/ importable, and keeps Gradio offline."""

import os
import sys

import pytest
from tests.support.paths import ROOT

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(ROOT / "demo"))

from champion import ServedModel
from emotion_detection.inference import pretrained
from emotion_detection.inference.detector import HaarDetector


@pytest.fixture(scope="session")
def detector() -> HaarDetector:
    return HaarDetector()


@pytest.fixture(scope="session")
def shipped() -> ServedModel:
    """The shipped model, served as a file."""
    return ServedModel(str(pretrained.MODEL))
