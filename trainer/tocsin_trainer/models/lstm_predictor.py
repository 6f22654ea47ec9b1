"""An LSTM that predicts each row from the rows before it.

```
(T, C) ─ without the last row ─ LSTM ─ without the first T/4 ─ dense ─► (n, C): the last n rows
```
The first quarter of the window only sets the state (Malhotra et al., ESANN 2015, predict likewise).
Rules of the fused int8 operator: tanh and sigmoid, bias, no mask; Dense on the 3-D output; no Concatenate.
"""

from typing import Any

import keras

from tocsin.records import Floats32

WARM_UP = 4  # part of the window


def build(windows: Floats32, seed: int) -> Any:
    """For the shape of the windows.

    Args:
        windows: (N, T, C), T ≥ 8.
        seed: of the weights.

    Returns:
        A Keras model, (K, T, C) → (K, T − T/4 − 1, C).
    """
    keras.utils.set_random_seed(seed)
    _, length, channels = windows.shape
    window = keras.Input((length, channels))
    x = keras.layers.Cropping1D((0, 1))(window)
    x = keras.layers.LSTM(min(32, 16 + channels), return_sequences=True)(x)
    x = keras.layers.Cropping1D((length // WARM_UP, 0))(x)
    return keras.Model(window, keras.layers.Dense(channels)(x), name="lstm_predictor")
