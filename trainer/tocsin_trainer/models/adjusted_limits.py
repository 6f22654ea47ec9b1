"""Limits on each number of a window, given all the others (regression-adjusted variables: Hawkins, Technometrics 1991).

```
(T, C) ─ means of n rows ─ flatten ─ dense ─ reshape ─ each n times ─► (T, C)      z = diag(P)^(−½) P (x − µ), P = Σ⁻¹
```
z_i is how far x_i is from what the others let expect of it, in standard deviations of that difference; the largest
square is the score. A machine that runs under many conditions has wide limits on each number, and narrow ones once the
condition, which all the other numbers tell, is taken off: so a short excursion of one sensor shows, which `limits`
cannot see, and which T² loses among hundreds of numbers. Σ is shrunk as in T²: with few windows, z nears (x − µ) / σ,
which is `limits`.

n is 1 where the layer takes all numbers of a window, else as small as that allows. Weights are rounded to what int8
holds, see `tocsin_trainer.models.rounding`: what is left of a number is the difference of large ones.
"""

from typing import Any

import keras
import numpy as np

from tocsin.errors import DataError
from tocsin.records import Floats32
from tocsin_trainer.models.rounding import rounded
from tocsin_trainer.models.t2 import MAX_EXTREMES, MAX_INPUTS, spectrum, steepest

REACH = 8.0  # times the usual largest output, for int8: the largest alone is the score, and has to be fine


def build(windows: Floats32, seed: int) -> Any:
    """Solves for the windows.

    Args:
        windows: (N, T, C) normal, standardised; of more than 8,192 a random part is used.
        seed: of the part.

    Returns:
        A Keras model, (K, T, C) → (K, T, C), whose outputs have mean 0 and variance about 1 in normal running.

    Raises:
        DataError: more than 768 channels.
    """
    _, length, channels = windows.shape
    if channels > MAX_INPUTS:
        raise DataError(
            f"adjusted_limits takes up to {MAX_INPUTS} channels, got {channels}: "
            "leave some out with --columns, or leave adjusted_limits out of --families"
        )
    each = next(n for n in range(1, length + 1) if length // n * channels <= MAX_INPUTS)
    parts, over = divmod(length, each)  # over: rows at the window's start that do not fill a part
    mean, variance, directions = spectrum(_means(windows, each), seed)
    precision = directions / variance @ directions.T
    gain = rounded(precision / np.sqrt(np.diag(precision)), directions * variance @ directions.T)

    window = keras.Input((length, channels))
    late = keras.layers.Cropping1D((over, 0))(window) if over else window
    means = keras.layers.AveragePooling1D(each)(late) if each > 1 else late
    adjust = keras.layers.Dense(parts * channels, name="adjust")
    out = keras.layers.Reshape((parts, channels))(adjust(keras.layers.Flatten()(means)))
    out = keras.layers.UpSampling1D(each)(out) if each > 1 else out
    out = keras.layers.ZeroPadding1D((over, 0))(out) if over else out
    adjust.set_weights([gain, -mean @ gain])
    return keras.Model(window, out, name="adjusted_limits")


def extremes(model: Any, windows: Floats32) -> Floats32:
    """(2, T, C) windows that are small and give large outputs, see `tocsin_trainer.models.t2.extremes`.

    Args:
        model: as `build` gives it.
        windows: (N, T, C) normal, standardised.
    """
    gain = np.asarray(model.get_layer("adjust").get_weights()[0], np.float64)
    _, length, channels = windows.shape
    each = length // (len(gain) // channels)
    made = np.zeros((2, length, channels), np.float32)
    found = np.repeat(steepest(gain, _means(windows[:MAX_EXTREMES], each), REACH), each, axis=1)
    made[:, length - found.shape[1] :] = found
    return made


def _means(windows: Floats32, each: int) -> Floats32:
    """(N, ⌊T / each⌋, C) of so many rows each, the last ones of (N, T, C) windows."""
    if each == 1:
        return windows
    count, length, channels = windows.shape
    late = windows[:, length % each :]
    means: Floats32 = late.reshape(count, length // each, each, channels).mean(axis=2)
    return means
