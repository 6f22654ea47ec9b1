"""Hotelling's T²: the Mahalanobis distance from normal running, solved and not trained.

```
(T, C) ─ flatten ─ dense T·C ─ reshape ─► (T, C)        y = Σ^(−½) (x − µ)
```
Σ is shrunk towards a sphere (Ledoit & Wolf, Journal of Multivariate Analysis 88, 2004), so that it can be inverted with
fewer windows than numbers in one. The symmetric root is taken: each y is the whitened neighbour of its own x, and the
score's split over channels has a meaning. Weights are rounded to what int8 holds, see `tocsin_trainer.models.rounding`.
"""

from typing import Any

import keras
import numpy as np
from sklearn.covariance import ledoit_wolf

from tocsin.errors import DataError
from tocsin.records import Floats, Floats32
from tocsin_trainer.models.rounding import rounded

MAX_INPUTS = 768  # numbers a window: the layer has the square of it
MAX_WINDOWS = 8192
MAX_EXTREMES = 512  # windows that tell how large outputs usually are
REACH = 16.0  # times the usual largest output: what int8 outputs have to tell from one another
USUAL = 0.95  # part of the windows whose largest output is usual: a wild one in normal running makes all others coarse
SMALLEST = 1e-3  # of the mean variance: below, a direction is noise, of the sensor or of int8


def build(windows: Floats32, seed: int) -> Any:
    """Solves for the windows.

    Args:
        windows: (N, T, C) normal, standardised; of more than 8,192 a random part is used.
        seed: of the part.

    Returns:
        A Keras model, (K, T, C) → (K, T, C), whose outputs have mean 0 and variance about 1 in normal running.

    Raises:
        DataError: more than 768 numbers a window.
    """
    _, length, channels = windows.shape
    if length * channels > MAX_INPUTS:
        raise DataError(
            f"t2 takes up to {MAX_INPUTS} numbers a window, got {length} × {channels}: "
            "leave some channels out with --columns, or leave t2 out of --families"
        )
    mean, variance, directions = spectrum(windows, seed)
    root = rounded(directions / np.sqrt(variance) @ directions.T, directions * variance @ directions.T)

    window = keras.Input((length, channels))
    whiten = keras.layers.Dense(length * channels, name="whiten")
    out = keras.layers.Reshape((length, channels))(whiten(keras.layers.Flatten()(window)))
    whiten.set_weights([root, -mean @ root])
    return keras.Model(window, out, name="t2")


def spectrum(windows: Floats32, seed: int) -> tuple[Floats, Floats, Floats]:
    """Of the shrunk covariance of flattened windows, none of its variances below what is noise.

    Args:
        windows: (N, T, C); of more than 8,192 a random part is used.
        seed: of the part.

    Returns:
        (D,) mean, (D,) variances along the directions, and (D, D) directions, a column each; D = T·C.

    Raises:
        DataError: nothing varies.
    """
    chosen = windows[np.sort(np.random.default_rng(seed).permutation(len(windows))[:MAX_WINDOWS])]
    flat = chosen.reshape(len(chosen), -1).astype(np.float64)
    covariance, _ = ledoit_wolf(flat)
    variance, directions = np.linalg.eigh(covariance)
    if variance.mean() <= 0:
        raise DataError("no channel changes in normal running: there is nothing to tell what is unusual by")
    return flat.mean(axis=0), np.maximum(variance, SMALLEST * variance.mean()), directions


def extremes(model: Any, windows: Floats32) -> Floats32:
    """(2, T, C) windows that are small and give large outputs: along the direction of least variance, both ways.

    A fault that breaks a tight relation between channels moves y far and x hardly at all: of int8 outputs whose range
    came from normal running, nothing of it would be left.

    Args:
        model: as `build` gives it.
        windows: (N, T, C) normal, standardised.
    """
    root = np.asarray(model.get_layer("whiten").get_weights()[0], np.float64)
    return steepest(root, windows[:MAX_EXTREMES])


def steepest(gain: Floats, windows: Floats32, reach: float = REACH) -> Floats32:
    """(2, T, C) small windows that y = gainᵀ (x − µ) makes large, see `extremes`.

    Args:
        gain: (T·C, T·C) weights of the layer.
        windows: (N, T, C) normal, standardised.
        reach: how large, in what nineteen of twenty of these stay below.
    """
    inward, gains, outward = np.linalg.svd(gain)
    seen = windows.reshape(-1, len(gain)).astype(np.float64)
    center = seen.mean(axis=0)
    usual = float(np.quantile(np.abs((seen - center) @ gain).max(axis=1), USUAL))
    wanted = reach * usual / (gains[0] * float(np.abs(outward[0]).max()))
    far = min(wanted, float(np.abs(seen).max()) / float(np.abs(inward[:, 0]).max()))
    both = center + far * np.array([[1.0], [-1.0]]) * inward[:, 0]
    made: Floats32 = both.reshape(2, *windows.shape[1:]).astype(np.float32)
    return made
