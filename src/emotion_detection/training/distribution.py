"""Several GPUs in one training: a copy of the network on each, and of every batch a share, by tf.distribute."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
from numpy.typing import NDArray

KIND = "GPU"


class Devices:
    """All devices of a kind that the backend sees; with one or none, Keras is left alone."""

    def __init__(self, kind: str = KIND) -> None:
        self._strategy = _strategy(kind)

    def scope(self) -> AbstractContextManager[Any]:
        """Where the network and its optimizer are made, to have their copies."""
        return self._strategy.scope() if self._strategy else nullcontext()

    def prepare(self, model: keras.Model, images: NDArray[Any], targets: NDArray[Any]) -> None:
        """Let the model see one whole batch: Keras cannot tell the shapes of a divided one."""
        if self._strategy:
            model.test_on_batch(images, targets)

    def shares(self, batch: NDArray[Any] | None) -> Any:
        """A batch as it is, or divided among the devices."""
        if self._strategy is None or batch is None:
            return batch
        count = self._strategy.num_replicas_in_sync
        return self._strategy.experimental_distribute_values_from_function(
            lambda device: keras.ops.convert_to_tensor(batch[device.replica_id_in_sync_group :: count])
        )


def _strategy(kind: str) -> Any:
    if keras.backend.backend() != "tensorflow":
        return None  # another backend trains on its first device
    import tensorflow as tf

    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else None
