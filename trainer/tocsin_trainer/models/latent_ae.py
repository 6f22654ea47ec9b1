"""Distance from normal running in the latent space of the convolutional autoencoder.

```
training:   conv_ae
on device:  (T, C) ─ conv /2 ─ conv /2 ─ conv ─► (T/4, latent) ─ flatten: (D,) ─ dense m·C ─ reshape ─► (m, C)
```
The last layer whitens: y = R Σ^(−½) (z − µ), with Σ the shrunk covariance of the training windows' z (Ledoit & Wolf,
2004) and R (m·C, D) of orthonormal columns, so that |y|² is the squared Mahalanobis distance of z whatever R is.
R gives each number of y a channel: of all R it is the one whose y_jc correlate most, in sum, with the courses of
channel c (its m leading principal components). That is an orthogonal Procrustes problem: the cor-max transformation of
Garthwaite & Koch (Biometrics 72, 2016), for outputs that are no neighbours of an input. So the distance's split over
channels is exact.
"""

from typing import Any

import keras
import numpy as np
from sklearn.covariance import ledoit_wolf

from tocsin.records import Floats, Floats32
from tocsin_trainer.models import conv_ae

MAX_LATENT = 256  # D: beyond it, neighbours in time are averaged
MAX_WINDOWS = 4096
MAX_ROWS = 256  # of a channel's course: beyond it, neighbours in time are averaged
SMALLEST = 0.03  # of the largest variance: below, a direction is noise, of the sensor or of int8


def build(windows: Floats32, seed: int) -> Any:
    """The autoencoder, to be trained.

    Args:
        windows: (N, T, C), T ≥ 8.
        seed: of the weights.

    Returns:
        A Keras model, (K, T, C) → (K, T, C).
    """
    return conv_ae.build(windows, seed)


def finish(model: Any, windows: Floats32) -> Any:
    """Cuts the trained autoencoder at its latent layer, and whitens that.

    Args:
        model: what `build` gave, trained.
        windows: (N, T, C) it was trained on; of more than 4,096 some are used.

    Returns:
        A Keras model, (K, T, C) → (K, m, C), whose outputs have mean 0 and variance of 1 or less in normal running.
    """
    spaced = np.linspace(0, len(windows) - 1, min(len(windows), MAX_WINDOWS)).astype(np.int64)
    chosen = windows[spaced]
    channels = windows.shape[2]
    x = model.get_layer("latent").output
    pool = -(-x.shape[1] * x.shape[2] // MAX_LATENT)
    if pool > 1:
        x = keras.layers.AveragePooling1D(pool)(x)
    x = keras.layers.Flatten()(x)
    latent = keras.Model(model.input, x).predict(chosen, batch_size=256, verbose=0).astype(np.float64)
    rows = -(-latent.shape[1] // channels)

    mean = latent.mean(axis=0)
    covariance, _ = ledoit_wolf(latent)
    variance, directions = np.linalg.eigh(covariance)
    root = directions / np.sqrt(np.maximum(variance, max(SMALLEST * variance[-1], np.finfo(np.float32).tiny)))
    kernel = root @ rotation((latent - mean) @ root, courses(chosen, rows))
    whiten = keras.layers.Dense(rows * channels, name="whiten")
    out = keras.layers.Reshape((rows, channels))(whiten(x))
    whiten.set_weights([kernel, -mean @ kernel])
    return keras.Model(model.input, out, name="latent_ae")


def courses(windows: Floats32, count: int) -> Floats:
    """(N, count · C) the leading principal components of each channel's course, of variance 1 or 0.

    Column j · C + c is the j-th of channel c.
    """
    number, length, channels = windows.shape
    pool = -(-length // MAX_ROWS)
    rows = length // pool
    pooled = windows[:, : rows * pool].reshape(number, rows, pool, channels).mean(axis=2, dtype=np.float64)
    out = np.zeros((number, count, channels))
    for c in range(channels):
        course = pooled[:, :, c] - pooled[:, :, c].mean(axis=0)
        _, directions = np.linalg.eigh(course.T @ course)
        found = course @ directions[:, ::-1][:, :count]
        spread = found.std(axis=0)
        out[:, : found.shape[1], c] = found / np.where(spread > 1e-6, spread, np.inf)
    return out.reshape(number, -1)


def rotation(white: Floats, targets: Floats) -> Floats:
    """(D, E) of orthonormal rows, E ≥ D: among those, white @ it has the largest sum of correlations with the targets.

    Args:
        white: (N, D) of unit covariance.
        targets: (N, E) of variance 1 (or 0: wants nothing).
    """
    left, _, right = np.linalg.svd(white.T @ targets, full_matrices=False)
    matrix: Floats = left @ right
    return matrix
