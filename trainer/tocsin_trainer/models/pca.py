"""Windowed PCA: the linear autoencoder, solved and not trained. What it leaves over is Q, the squared prediction error.

```
(T, C) ─ last n rows ─ flatten ─ dense k ─ dense n·C ─ reshape ─► (n, C)
```
`pca` looks at all rows, `pca_short` at the later half of them: it is quicker to see a change, and knows less.
Principal subspace of the flattened windows (Ku et al., Chemometrics and Intelligent Laboratory Systems 30, 1995:
dynamic PCA).
"""

from typing import Any

import keras
import numpy as np

from tocsin.records import Floats, Floats32

VARIANCE = 0.9  # part that the subspace keeps
MAX_COMPONENTS = 60
MAX_WEIGHTS = 1 << 17  # of one dense layer: bounds the file for long windows of many channels
MAX_WINDOWS = 4096


def build(windows: Floats32, seed: int) -> Any:
    """Solves for the windows.

    Args:
        windows: (N, T, C) normal, standardised; of more than 4,096 a random part is used.
        seed: of the part and the solver.

    Returns:
        A Keras model, (K, T, C) → (K, T, C).
    """
    return _build(windows, windows.shape[1], seed, "pca")


def build_short(windows: Floats32, seed: int) -> Any:
    """Solves for the later half of the windows, as `build` does for all of them: (K, T, C) → (K, ⌊T/2⌋, C)."""
    return _build(windows, max(1, windows.shape[1] // 2), seed, "pca_short")


def extremes(model: Any, windows: Floats32) -> Floats32:
    """(2k, T, C) windows along each principal direction, both ways, as far as the inputs' range goes.

    A fault moves many rows and channels together: numbers that each stay within the range of their own then add up to
    latent ones far beyond any of normal running. Cut off by int8, they would be missing in what is rebuilt.

    Args:
        model: as `build` or `build_short` gives it.
        windows: (N, T, C) normal, standardised.
    """
    directions = np.asarray(model.get_layer("encode").get_weights()[0]).T  # each times its largest number
    peak = np.abs(windows).max()
    _, length, channels = windows.shape
    each = (peak / np.abs(directions).max(axis=1, keepdims=True) * directions).reshape(len(directions), -1, channels)
    made = np.zeros((2, len(each), length, channels), np.float32)
    made[:, :, length - each.shape[1] :] = each, -each
    both: Floats32 = made.reshape(-1, length, channels)
    return both


def _build(windows: Floats32, rows: int, seed: int, name: str) -> Any:
    rng = np.random.default_rng(seed)
    _, length, channels = windows.shape
    chosen = windows[np.sort(rng.permutation(len(windows))[:MAX_WINDOWS]), length - rows :]
    flat = chosen.reshape(len(chosen), -1).astype(np.float64)
    mean = flat.mean(axis=0)
    basis = _principal(flat - mean, rng)

    window = keras.Input((length, channels))
    latent = keras.layers.Dense(basis.shape[1], name="encode")
    rebuilt = keras.layers.Dense(rows * channels, name="decode")
    late = window if rows == length else keras.layers.Cropping1D((length - rows, 0))(window)
    out = keras.layers.Reshape((rows, channels))(rebuilt(latent(keras.layers.Flatten()(late))))
    largest = np.abs(basis).max(axis=0)  # all latent numbers reach as far: one int8 range is theirs
    latent.set_weights([basis * largest, -mean @ basis * largest])
    rebuilt.set_weights([(basis / largest).T, mean])
    return keras.Model(window, out, name=name)


def _principal(flat: Floats, rng: np.random.Generator) -> Floats:
    """(T·C, k) orthonormal: directions of most variance, by a randomised range finder (Halko et al., 2011)."""
    rows, width = flat.shape
    most = max(1, min(MAX_COMPONENTS, MAX_WEIGHTS // width, width // 2, rows // 4))
    probe = _orthonormal(rng.normal(size=(width, min(width, rows, most + 10))))
    for _ in range(4):
        probe = _orthonormal(flat.T @ (flat @ probe))
    _, singular, directions = np.linalg.svd(flat @ probe, full_matrices=False)
    kept = np.cumsum(singular**2) / max(float(np.sum(flat**2)), np.finfo(np.float64).tiny)
    enough = min(most, int(np.searchsorted(kept, VARIANCE)) + 1)
    basis: Floats = probe @ directions[:enough].T
    return basis


def _orthonormal(matrix: Floats) -> Floats:
    basis: Floats = np.linalg.qr(matrix)[0]
    return basis
