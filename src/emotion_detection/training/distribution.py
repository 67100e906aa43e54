"""Train on several GPUs with tf.distribute: each has a copy of the network and gets a part of every batch."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
from numpy.typing import NDArray

DEVICE_TYPE = "GPU"


class Distribution:
    """Distributes a training over all devices of a type. With fewer than two devices it changes nothing."""

    def __init__(self, device_type: str = DEVICE_TYPE) -> None:
        self._strategy = _strategy(device_type)

    def scope(self) -> AbstractContextManager[Any]:
        """Return the context in which to create the network and its optimizer, so that each device gets a copy."""
        return self._strategy.scope() if self._strategy else nullcontext()

    def prepare(self, model: keras.Model, images: NDArray[Any], targets: NDArray[Any]) -> None:
        """Build the model's metrics with an undistributed batch: Keras cannot infer the shapes of a distributed one."""
        if self._strategy:
            model.test_on_batch(images, targets)

    def distribute(self, batch: NDArray[Any] | None) -> Any:
        """Divide a batch among the devices, or return it unchanged."""
        if self._strategy is None or batch is None:
            return batch
        count = self._strategy.num_replicas_in_sync
        return self._strategy.experimental_distribute_values_from_function(
            lambda device: keras.ops.convert_to_tensor(batch[device.replica_id_in_sync_group :: count])
        )


def _strategy(device_type: str) -> Any:
    if keras.backend.backend() != "tensorflow":
        return None  # the other backends train on their first device
    import tensorflow as tf

    devices = [device.name for device in tf.config.list_logical_devices(device_type)]
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else None
