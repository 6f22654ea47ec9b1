"""What trains: backend, devices, number format.

Rules: several GPUs train together under TensorFlow only; float16 is for a GPU, a CPU is slower with it; whatever
trained, the model that comes out is an ordinary float32 one.
"""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import keras
import numpy as np

from tocsin.records import Floats32


def gpus() -> tuple[str, ...]:
    """Names of the GPUs that the Keras backend sees."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 - only where it is the backend

        return tuple(device.name for device in tf.config.list_logical_devices("GPU"))
    if keras.backend.backend() == "jax":
        import jax  # noqa: PLC0415

        return tuple(str(device) for device in jax.devices() if device.platform == "gpu")
    return ()


def uses_float16(wanted: Literal["auto", "on", "off"]) -> bool:
    """Whether to calculate in float16."""
    return wanted == "on" or (wanted == "auto" and bool(gpus()))


@contextmanager
def number_format(float16: bool) -> Iterator[None]:
    """Layers made within calculate in float16 where that is asked for; their weights are float32 all the same."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16" if float16 else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class Devices:
    """One device, or several that share each batch.

    Args:
        names: TensorFlow's; empty = all GPUs.
    """

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        chosen = names or gpus()
        together = len(chosen) > 1 and keras.backend.backend() == "tensorflow"
        self._strategy = _mirrored(chosen) if together else None
        self.count = len(chosen) if together else 1

    def scope(self) -> AbstractContextManager[Any]:
        """Models made within have their weights on every device."""
        return nullcontext() if self._strategy is None else self._strategy.scope()

    def share(self, batch: Floats32) -> Any:
        """(K, T, C), K a multiple of the devices → an equal part for each, as a training step takes it."""
        if self._strategy is None:
            return batch
        import tensorflow as tf  # noqa: PLC0415

        parts = np.split(batch, self.count)
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )


@functools.cache
def _mirrored(names: tuple[str, ...]) -> Any:
    """One a process and set of devices: two of them mix up their messages."""
    import tensorflow as tf  # noqa: PLC0415

    return tf.distribute.MirroredStrategy(names)
