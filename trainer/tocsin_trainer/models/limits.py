"""Limits on each number of a window by itself: what every control system has, as a member to measure others against.

```
(T, C) ─ depthwise convolution of one row, weight 1 ─► (T, C)
```
Standardisation has done the work: the largest square of a standardised number is the score. Where windows keep step
with a machine's cycle, each row has its own mean and spread, and this is a tolerance band about the cycle.
"""

from typing import Any

import keras
import numpy as np

from tocsin.records import Floats32


def build(windows: Floats32, seed: int) -> Any:
    """For the shape of the windows; nothing is fitted.

    Args:
        windows: (N, T, C), standardised.
        seed: not used.

    Returns:
        A Keras model, (K, T, C) → (K, T, C), that gives what it is shown.
    """
    _, length, channels = windows.shape
    window = keras.Input((length, channels))
    same = keras.layers.DepthwiseConv1D(1, name="same")
    out = same(window)
    same.set_weights([np.ones((1, channels, 1), np.float32), np.zeros(channels, np.float32)])
    return keras.Model(window, out, name="limits")
