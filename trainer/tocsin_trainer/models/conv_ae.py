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
    filters, latent = min(48, 16 + channels), max(2, channels // 2)
    conv = keras.layers.Conv1D
    window = keras.Input((length, channels))
    x = conv(filters, 5, strides=2, padding="same", activation="relu")(window)
    x = conv(filters, 5, strides=2, padding="same", activation="relu")(x)
    x = conv(latent, 3, padding="same", name="latent")(x)
    steps = x.shape[1]
    for _ in range(2):
        x = conv(2 * filters, 3, padding="same", activation="relu")(x)
        steps *= 2
        x = keras.layers.Reshape((steps, filters))(x)
    x = conv(channels, 3, padding="same")(x)
    if steps > length:
        x = keras.layers.Cropping1D((0, steps - length))(x)
    return keras.Model(window, x, name="conv_ae")
