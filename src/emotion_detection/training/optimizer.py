"""The precision, loss, optimizer and learning rate schedule of a training."""

import math
import platform
from pathlib import Path
from typing import Any

import keras
from keras import ops

from emotion_detection.config import Train


def resolve_precision(precision: str) -> str:
    """Replace `auto` by mixed_bfloat16 on an accelerator or a processor with bfloat16 arithmetic, else by float32.

    mixed_bfloat16 is about twice as fast there. GPUs older than Nvidia Ampere emulate bfloat16: set float32 for them.
    """
    if precision != "auto":
        return precision
    return "mixed_bfloat16" if _supports_bfloat16() else "float32"


def _supports_bfloat16() -> bool:
    if any(not device.startswith("cpu") for device in keras.distribution.list_devices()):
        return True
    flags = Path("/proc/cpuinfo").read_text().split() if platform.system() == "Linux" else []
    return "avx512_bf16" in flags or "amx_bf16" in flags


def compile_for(model: keras.Model, train: Train, *, steps: int) -> None:
    """Compile the model with the loss and optimizer of `train`; the schedule covers `steps` training steps."""
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
    # Weight decay makes the function simpler. A smaller bias or batch norm scale does not.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=train.label_smoothing)
    model.compile(optimizer, loss, metrics=["accuracy"])


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up to train.learning_rate, then constant, a half cosine to 0, or linear to 0.

    cosine: Loshchilov & Hutter 2017 (arXiv 1608.03983). one_cycle: after Smith & Topin 2018 (arXiv 1708.07120).
    """

    def __init__(self, train: Train, steps: int) -> None:
        self._peak, self._shape = train.learning_rate, train.schedule
        self._warmup_steps = max(1, round(train.warmup * steps))
        self._decay_steps = max(1, steps - self._warmup_steps)

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        warmup = ops.minimum((step + 1) / self._warmup_steps, 1.0)
        progress = ops.clip((step - self._warmup_steps) / self._decay_steps, 0.0, 1.0)
        decay = {
            "constant": 1.0,
            "cosine": 0.5 * (1 + ops.cos(math.pi * progress)),
            "one_cycle": 1 - progress,
        }[self._shape]
        return self._peak * warmup * decay
