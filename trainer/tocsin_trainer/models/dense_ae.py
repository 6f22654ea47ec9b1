"""Dense autoencoder of the whole window at once: the plain one of the text books.

```
(T, C) ─ flatten ─ dense h ─ dense latent ─ dense h ─ dense T·C ─ reshape ─► (T, C)
```
"""

from typing import Any

import keras

from tocsin.records import Floats32

MAX_HIDDEN, MIN_HIDDEN = 64, 8
MAX_WEIGHTS = 1 << 15  # of one layer: h shrinks for long windows of many channels
MAX_LATENT = 32


def build(windows: Floats32, seed: int) -> Any:
    """For the shape of the windows.

    Args:
        windows: (N, T, C).
        seed: of the weights.

    Returns:
        A Keras model, (K, T, C) → (K, T, C).
    """
    keras.utils.set_random_seed(seed)
    _, length, channels = windows.shape
    hidden, latent = sizes(length, channels)
    window = keras.Input((length, channels))
    x = encoded(window, hidden)
    x = keras.layers.Dense(latent, name="latent")(x)
    return keras.Model(window, decoded(x, hidden, length, channels), name="dense_ae")


def sizes(length: int, channels: int) -> tuple[int, int]:
    """Units of the hidden layers, and latent numbers a window."""
    hidden = max(MIN_HIDDEN, min(MAX_HIDDEN, MAX_WEIGHTS // (length * channels)))
    return hidden, min(MAX_LATENT, max(4, 2 * channels), hidden)


def encoded(window: Any, hidden: int) -> Any:
    """(T, C) → (h,)."""
    return keras.layers.Dense(hidden, activation="relu")(keras.layers.Flatten()(window))


def decoded(latent: Any, hidden: int, length: int, channels: int) -> Any:
    """(latent,) → (length, channels)."""
    x = keras.layers.Dense(hidden, activation="relu")(latent)
    return keras.layers.Reshape((length, channels))(keras.layers.Dense(length * channels)(x))
