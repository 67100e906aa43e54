"""What turns a network into one that can be taught: precision, loss, optimizer and schedule, by params."""

import math
import platform
from pathlib import Path
from typing import Any

import keras
from keras import ops

from emotion_detection.config import Train


def resolve_precision(precision: str) -> str:
    """`auto` -> mixed_bfloat16 on any accelerator and on processors that multiply bfloat16, else float32.

    It is about twice as fast there. An accelerator older than Nvidia's Ampere only emulates it: name float32 for those.
    """
    if precision != "auto":
        return precision
    return "mixed_bfloat16" if _multiplies_bfloat16() else "float32"


def _multiplies_bfloat16() -> bool:
    if any(not device.startswith("cpu") for device in keras.distribution.list_devices()):
        return True
    flags = Path("/proc/cpuinfo").read_text().split() if platform.system() == "Linux" else []
    return "avx512_bf16" in flags or "amx_bf16" in flags


def compile_for(model: keras.Model, train: Train, *, steps: int) -> None:
    """Give the model its loss and an optimizer whose learning rate spans `steps` training steps."""
    settings: dict[str, Any] = {
        "learning_rate": LearningRate(train, steps),
        "weight_decay": train.weight_decay or None,
        "use_ema": train.ema > 0,
        "ema_momentum": train.ema,
    }
    if train.optimizer == "adam":
        optimizer = keras.optimizers.Adam(**settings)
    else:
        optimizer = keras.optimizers.SGD(momentum=train.momentum, nesterov=train.momentum > 0, **settings)
    # Decay favours the simpler function; a smaller bias or batch-norm scale is not simpler.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=train.label_smoothing)
    model.compile(optimizer, loss, metrics=["accuracy"])


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise to train.learning_rate over the warm-up, then constant, half a cosine to 0, or linear to 0.

    cosine: Loshchilov & Hutter 2017 (arXiv 1608.03983); one_cycle: after Smith & Topin 2018 (arXiv 1708.07120).
    """

    def __init__(self, train: Train, steps: int) -> None:
        self._peak, self._shape = train.learning_rate, train.schedule
        self._rise = max(1, round(train.warmup * steps))
        self._fall = max(1, steps - self._rise)

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        risen = ops.minimum((step + 1) / self._rise, 1.0)
        fallen = ops.clip((step - self._rise) / self._fall, 0.0, 1.0)
        left = {
            "constant": 1.0,
            "cosine": 0.5 * (1 + ops.cos(math.pi * fallen)),
            "one_cycle": 1 - fallen,
        }[self._shape]
        return self._peak * risen * left
