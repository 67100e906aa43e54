"""A small training that several tests share."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from emotion_detection.config import Train
from emotion_detection.training.checkpoint import Epoch
from emotion_detection.training.trainer import TrainingResult, fit

# The smallest fer_resnet, without residual blocks: most of the time of a short training goes into building and tracing
# its network.
TINY = {"architecture": "fer_resnet", "widths": (8,), "blocks": (0,), "stem_stride": 2, "precision": "float32"}


@dataclass(frozen=True)
class Trained:
    """A finished training: its result, its checkpoint folder, and the rows that on_epoch received."""

    result: TrainingResult
    checkpoint: Path
    rows: list[Epoch]


@pytest.fixture(scope="session")
def tiny(params) -> Train:
    """Settings of a training of three epochs with three steps each, with dropout and a moving average."""
    return params.train.model_copy(
        update={**TINY, "epochs": 3, "patience": 3, "batch_size": 6, "ema": 0.9, "dropout": 0.5}
    )


@pytest.fixture(scope="session")
def trained(tiny, drawn, tmp_path_factory) -> Trained:
    """The uninterrupted training of `tiny`."""
    checkpoint, rows = tmp_path_factory.mktemp("checkpoint"), []
    result = fit(tiny, drawn, checkpoint=checkpoint, on_epoch=lambda row: rows.append(dict(row)))
    return Trained(result, checkpoint, rows)
