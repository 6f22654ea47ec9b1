"""1-D convolutional autoencoder.

```
(T, C) ─ conv /2 ─ conv /2 ─ conv ─► (T/4, latent) ─ conv ×2 ─ conv ×2 ─ conv ─► (T, C)
```
Up-sampling is a convolution to twice the filters and a reshape of them into time: no operator but CONV_2D and RESHAPE
in the converted file. A T that is no multiple of 4 is rounded up inside and cropped at the end.
"""

from typing import Any

import keras

from tocsin.records import Floats32

STRIDE = 4


def build(windows: Floats32, seed: int) -> Any:
    """For the shape of the windows; weights are drawn from Keras' own seed.

    Args:
        windows: (N, T, C), T ≥ 8.
        seed: of the weights.

    Returns:
        A Keras model, (K, T, C) → (K, T, C).
    """
    keras.utils.set_random_seed(seed)
    _, length, channels = windows.shape
    filters, latent = sizes(channels)
    window = keras.Input((length, channels))
    x = encoded(window, filters)
    x = keras.layers.Conv1D(latent, 3, padding="same", name="latent")(x)
    return keras.Model(window, decoded(x, filters, length, channels), name="conv_ae")


def sizes(channels: int) -> tuple[int, int]:
    """Filters, and latent numbers a step of four rows."""
    return min(48, 16 + channels), max(2, channels // 2)


def encoded(window: Any, filters: int) -> Any:
    """(T, C) → (T/4, filters)."""
    x = window
    for _ in range(2):
        x = keras.layers.Conv1D(filters, 5, strides=2, padding="same", activation="relu")(x)
    return x


def decoded(latent: Any, filters: int, length: int, channels: int) -> Any:
    """(T/4, latent) → (length, channels)."""
    x, steps = latent, latent.shape[1]
    for _ in range(2):
        x = keras.layers.Conv1D(2 * filters, 3, padding="same", activation="relu")(x)
        steps *= 2
        x = keras.layers.Reshape((steps, filters))(x)
    x = keras.layers.Conv1D(channels, 3, padding="same")(x)
    return keras.layers.Cropping1D((0, steps - length))(x) if steps > length else x
