"""Makes the modules of demo/ importable, without telemetry."""

import os
import sys

import pytest
from tests.support.paths import ROOT

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
# Gradio imports huggingface_hub, which then keeps these for the tests of downloads in the same process.
os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
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
