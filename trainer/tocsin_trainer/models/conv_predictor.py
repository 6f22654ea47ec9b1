"""Causal dilated convolutions that predict each row from the rows before it.

```
(T, C) ─ without the last row ─ conv, dilation 1 ─ 2 ─ 4 ─ … ─ conv 1 ─► (T − R, C): rows R … T − 1
```
Each prediction sees the R rows before its own (van den Oord et al., WaveNet, 2016; Bai et al., 2018). Nothing is
padded: rows whose past lies before the window are not predicted.
"""

from typing import Any

import keras

from tocsin.records import Floats32

KERNEL = 3
MAX_LAYERS = 5  # R = 63 rows


def build(windows: Floats32, seed: int) -> Any:
    """For the shape of the windows.

    Args:
        windows: (N, T, C), T ≥ 8.
        seed: of the weights.

    Returns:
        A Keras model, (K, T, C) → (K, T − R, C), R ≤ T / 2.
    """
    keras.utils.set_random_seed(seed)
    _, length, channels = windows.shape
    filters = min(32, 12 + channels)
    window = keras.Input((length, channels))
    x = keras.layers.Cropping1D((0, 1))(window)
    for layer in range(layers(length)):
        x = dilated(x, filters, 2**layer)
    return keras.Model(window, keras.layers.Conv1D(channels, 1)(x), name="conv_predictor")


def dilated(x: Any, filters: int, dilation: int) -> Any:
    """(n, F) → (n − 2 · dilation, filters), relu.

    The rows side by side and a plain convolution: of a dilated one the converter makes one thing for a single window,
    and another, that rounds otherwise, for many.
    """
    if dilation == 1:
        return keras.layers.Conv1D(filters, KERNEL, activation="relu")(x)
    reach = (KERNEL - 1) * dilation
    rows = [keras.layers.Cropping1D((at, reach - at))(x) for at in range(0, reach + 1, dilation)]
    return keras.layers.Conv1D(filters, 1, activation="relu")(keras.layers.Concatenate()(rows))


def layers(length: int) -> int:
    """As many as see half of the window at most."""
    return next(n for n in range(MAX_LAYERS, 0, -1) if n == 1 or 2 * past(n) <= length)


def past(layers: int) -> int:
    """R: rows that a prediction is made of."""
    return int(1 + (KERNEL - 1) * (2**layers - 1))
