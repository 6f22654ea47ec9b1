"""Variational dense autoencoder.

```
(T, C) ─ flatten ─ dense h ─ dense latent ─ dense h ─ dense T·2·C ─► (T, 2·C) ─► (2T, C)
```
The layers of `dense_ae`, with a distribution of each value at the end: see `vae`.
"""

from typing import Any

import keras

from tocsin.records import Floats32
from tocsin_trainer.models import dense_ae, vae


def build(windows: Floats32, seed: int) -> Any:
    """For the shape of the windows.

    Args:
        windows: (N, T, C).
        seed: of the weights, and of the noise in training.

    Returns:
        A Keras model to train, (K, T, C) → (K, 2T, C): means, then log standard deviations.
    """
    keras.utils.set_random_seed(seed)
    _, length, channels = windows.shape
    hidden, latent = dense_ae.sizes(length, channels)
    window = keras.Input((length, channels))
    x = dense_ae.encoded(window, hidden)
    mean = keras.layers.Dense(latent, name="latent")(x)
    log_variance = keras.layers.Dense(latent, name="log_variance")(x)
    z = vae.sampled(mean, log_variance, window, seed)
    pairs = dense_ae.decoded(z, hidden, length, 2 * channels)
    return keras.Model(window, vae.distribution(pairs), name="dense_vae")
