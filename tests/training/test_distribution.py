"""Training on several devices; two logical CPU devices stand for two GPUs."""

import json
import subprocess
import sys

import pytest
from tests.support.paths import ROOT
from tests.training.conftest import TINY

pytestmark = pytest.mark.slow

# A process of its own, because TensorFlow must be configured before its first use.
SCRIPT = f"""
import json, sys
from pathlib import Path
import tensorflow as tf
(processor,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
from emotion_detection.training import distribution, trainer
from emotion_detection.config import load_params
from emotion_detection.data.dataset import Faces
import numpy as np
random = np.random.default_rng(0)
labels = np.tile(np.arange(7, dtype=np.uint8), 3)
images = np.full((21, 48, 48), 20, np.uint8)
for row, label in enumerate(labels):
    images[row, 6 * label : 6 * label + 6] = random.integers(150, 256, 48)  # a bright bar marks the label
faces = Faces(images, labels, np.repeat(np.array([0, 0, 1], np.uint8), 7), np.zeros(21, bool))
settings = {TINY} | {{"dropout": 0.0, "epochs": 2, "patience": 2, "batch_size": 6, "class_weight": "balanced"}}
train = load_params(Path(sys.argv[1])).train.model_copy(update=settings)
results = []
for device_type in ("GPU", "CPU"):
    trainer.Distribution = lambda: distribution.Distribution(device_type)
    strategy = trainer.Distribution()._strategy
    result = trainer.fit(train, faces, checkpoint=Path(sys.argv[2]) / device_type, on_epoch=lambda row: None)
    results.append({{"history": result.history, "devices": strategy.num_replicas_in_sync if strategy else 1}})
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The same training on one device and on two."""
    command = [sys.executable, "-c", SCRIPT, str(ROOT / "params.yaml"), str(tmp_path_factory.mktemp("checkpoint"))]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_training_uses_all_devices(results):
    assert [result["devices"] for result in results] == [1, 2]


def test_two_devices_train_like_one(results):
    one, two = (result["history"] for result in results)
    assert len(one) == len(two) == 2
    # Each device normalizes its own half of a batch, so the losses are similar but not equal.
    for row, distributed_row in zip(one, two, strict=True):
        assert row["loss"] == pytest.approx(distributed_row["loss"], rel=0.1)
        assert row["loss"] != distributed_row["loss"]
    assert two[-1]["loss"] < two[0]["loss"]
