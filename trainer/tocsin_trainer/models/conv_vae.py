"""Variational 1-D convolutional autoencoder.

```
(T, C) ─ conv /2 ─ conv /2 ─ conv ─► (T/4, latent) ─ conv ×2 ─ conv ×2 ─ conv ─► (T, 2·C) ─► (2T, C)
```
The layers of `conv_ae`, with a distribution of each value at the end: see `vae`.
"""

from typing import Any

import keras

from tocsin.records import Floats32
from tocsin_trainer.models import conv_ae, vae


def build(windows: Floats32, seed: int) -> Any:
    """For the shape of the windows.

    Args:
        windows: (N, T, C), T ≥ 8.
        seed: of the weights, and of the noise in training.

    Returns:
        A Keras model to train, (K, T, C) → (K, 2T, C): means, then log standard deviations.
    """
    keras.utils.set_random_seed(seed)
    _, length, channels = windows.shape
    filters, latent = conv_ae.sizes(channels)
    window = keras.Input((length, channels))
    x = conv_ae.encoded(window, filters)
    mean = keras.layers.Conv1D(latent, 3, padding="same", name="latent")(x)
    log_variance = keras.layers.Conv1D(latent, 3, padding="same", name="log_variance")(x)
    z = vae.sampled(mean, log_variance, window, seed)
    pairs = conv_ae.decoded(z, filters, length, 2 * channels)
    return keras.Model(window, vae.distribution(pairs), name="conv_vae")
