"""What each family is shown of a window, and the constants of that, fitted on the training part and on nothing else.

| signal                | t2                          | pca, conv_ae, lstm_ae |
|-----------------------|-----------------------------|-----------------------|
| slow (process values) | level_unrest                | the signal itself     |
| vibration             | log_spectrum                | log_spectrum          |
"""

import numpy as np

from tocsin.core.preprocess import LevelUnrest, Limit, LogSpectrum, Preprocessor, Standardise, Step
from tocsin.records import Floats, Floats32
from tocsin_trainer.dataset import VIBRATION_HZ

LIMIT = 1000.0  # scales: far outside of anything a model explains, yet its square is finite
BANDS = 64
CYCLE_PARTS = 12  # of a window in step with a cycle: the course of a cycle, coarsely
SILENCE = 1e-6  # of the median power
CALM = 0.01  # of the median variance: a still channel is calm, not minus infinity
CHUNK = 256  # windows transformed at once


def is_vibration(sample_rate_hz: float) -> bool:
    """Whether windows are looked at by their spectrum."""
    return sample_rate_hz >= VIBRATION_HZ


def feature_steps(family: str, windows: Floats, sample_rate_hz: float, in_step: bool) -> tuple[Step, ...]:
    """The steps before standardisation; none where the signal itself is shown.

    Args:
        family: name in `tocsin_trainer.models.FAMILIES`.
        windows: (N, T, C) of the training part, engineering units.
        sample_rate_hz: of the grid.
        in_step: windows follow a machine's cycle, one after the other.
    """
    length = windows.shape[1]
    variance = np.median(windows.var(axis=1), axis=0)
    if is_vibration(sample_rate_hz):
        power = max(float(np.median(variance)), np.finfo(np.float64).tiny)
        return (LogSpectrum(min(BANDS, length // 4), SILENCE * power),)
    if family == "t2":
        whole = windows.reshape(-1, windows.shape[2]).var(axis=0)
        floor = CALM * np.where(variance > 0, variance, np.where(whole > 0, whole, 1.0))
        return (LevelUnrest(max(1, min(CYCLE_PARTS, length // 4)) if in_step else 1, floor),)
    return ()


def fit_preprocessor(features: tuple[Step, ...], windows: Floats) -> Preprocessor:
    """Feature steps, then robust standardisation: a centre and a scale a channel, or a feature and channel.

    The centre is the median. The scale is the interquartile range as a standard deviation, but at least half of the
    standard deviation without the outermost percent: a pulsed signal has an interquartile range near nothing. What is
    constant is scaled by a hundredth of its value, so that any change of it shows.

    Args:
        features: what `feature_steps` gives.
        windows: (N, T, C) of the training part, engineering units.
    """
    values = prepared(Preprocessor(features), windows) if features else windows.reshape(-1, windows.shape[2])
    low, first, center, third, high = np.percentile(values, (0.5, 25, 50, 75, 99.5), axis=0)
    spread: Floats = np.clip(values, low, high).std(axis=0)
    scale = np.maximum((third - first) / 1.349, spread / 2)
    scale = np.where(scale > 0, scale, values.std(axis=0))
    tiny = 1e-9 * np.maximum(np.abs(center), 1.0)
    scale = np.where(scale > tiny, scale, np.where(center != 0, np.abs(center) / 100, 1.0))
    return Preprocessor((*features, Standardise(center, scale), Limit(LIMIT)))


def prepared(preprocessor: Preprocessor, windows: Floats) -> Floats32:
    """(N, rows(T), C) as the model sees the windows, without all of the intermediate results at once."""
    out = np.empty((len(windows), preprocessor.rows(windows.shape[1]), windows.shape[2]), np.float32)
    for start in range(0, len(windows), CHUNK):
        out[start : start + CHUNK] = preprocessor.transform(windows[start : start + CHUNK])
    return out
