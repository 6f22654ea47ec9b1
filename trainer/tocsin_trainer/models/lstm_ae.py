"""LSTM autoencoder over patches of four rows.

```
(T, C) ─ conv /4 ─ LSTM ─ conv /2 ─► (T/8, latent) ─ held for 2 ─ LSTM ─ dense 4·C ─ reshape ─► (T, C)
```
A recurrent step costs the same for one row as for four, in training and on the device; and one latent vector for a
whole window trains slowly, since every gradient has to pass all steps.
Rules of the fused int8 operator: tanh and sigmoid, bias, no mask; Dense on the 3-D output; no Concatenate.
"""

from typing import Any

import keras

from tocsin.records import Floats32

PATCH, HELD = 4, 2  # rows a step, steps a latent vector


def build(windows: Floats32, seed: int) -> Any:
    """For the shape of the windows.

    Args:
        windows: (N, T, C), T ≥ 8.
        seed: of the weights.

    Returns:
        A Keras model, (K, T, C) → (K, T, C).
    """
    keras.utils.set_random_seed(seed)
    _, length, channels = windows.shape
    units, latent = min(32, 16 + channels), max(2, channels // 2)
    conv, lstm = keras.layers.Conv1D, keras.layers.LSTM
    window = keras.Input((length, channels))
    x = conv(units, PATCH, strides=PATCH, padding="same")(window)
    x = lstm(units, return_sequences=True)(x)
    x = conv(latent, HELD, strides=HELD, padding="same", name="latent")(x)
    steps = x.shape[1] * HELD
    x = conv(HELD * latent, 1)(x)
    x = keras.layers.Reshape((steps, latent))(x)
    x = lstm(units, return_sequences=True)(x)
    x = keras.layers.Dense(PATCH * channels)(x)
    x = keras.layers.Reshape((steps * PATCH, channels))(x)
    if steps * PATCH > length:
        x = keras.layers.Cropping1D((0, steps * PATCH - length))(x)
    return keras.Model(window, x, name="lstm_ae")
