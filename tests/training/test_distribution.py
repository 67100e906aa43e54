"""One training on several devices; two parts of this machine's processor stand for two GPUs."""

import json
import subprocess
import sys

import pytest
from tests.support.paths import ROOT

SCRIPT = """
import json, sys
from pathlib import Path
import tensorflow as tf
parts = int(sys.argv[1])
(processor,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * parts)
from emotion_detection.training import distribution, trainer
from emotion_detection.config import load_params
from emotion_detection.data.dataset import Faces
from emotion_detection.synthetic.sample import draw_faces
import numpy as np
trainer.Devices = lambda: distribution.Devices("CPU")
images, labels = draw_faces(per_class=12, seed=0)
splits = np.tile(np.array([0, 0, 1], np.uint8), 28)
faces = Faces(images, labels, splits, np.zeros(len(labels), bool))
settings = {"widths": (8, 16), "blocks": (1, 1), "dropout": 0.0, "epochs": 2, "batch_size": 8, "precision": "float32",
            "class_weight": "balanced"}
train = load_params(Path(sys.argv[2])).train.model_copy(update=settings)
fitted = trainer.fit(train, faces, checkpoint=Path(sys.argv[3]), on_epoch=lambda row: None)
replicas = distribution.Devices("CPU")._strategy
print(json.dumps({"history": fitted.history, "devices": replicas.num_replicas_in_sync if replicas else 1}))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The same training on one device and on two."""
    told = {}
    for parts in (1, 2):
        command = [sys.executable, "-c", SCRIPT, str(parts), str(ROOT / "params.yaml")]
        command.append(str(tmp_path_factory.mktemp("checkpoint")))
        printed = subprocess.run(command, capture_output=True, text=True, check=False)
        assert printed.returncode == 0, printed.stderr
        told[parts] = json.loads(printed.stdout.splitlines()[-1])
    return told


def test_a_training_uses_all_devices_it_sees(trained):
    assert {parts: told["devices"] for parts, told in trained.items()} == {1: 1, 2: 2}


def test_two_devices_learn_what_one_does(trained):
    one, two = (trained[parts]["history"] for parts in (1, 2))
    assert len(one) == len(two) == 2
    # Batch normalisation sees half a batch on each, so the two are alike and not the same.
    for left, right in zip(one, two, strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=0.1)
        assert left["loss"] != right["loss"]
    assert two[-1]["loss"] < two[0]["loss"]
