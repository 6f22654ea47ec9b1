"""Fits the preprocessing on rows of the training part, and on nothing else."""

import numpy as np

from tocsin.core.preprocess import Limit, Preprocessor, Standardise
from tocsin.records import Floats
from tocsin_trainer.dataset import Stretch

LIMIT = 1000.0  # scales: far outside of anything a model reconstructs, yet its square is finite


def fit_preprocessor(train: tuple[Stretch, ...]) -> Preprocessor:
    """Robust standardisation, a centre and a scale a channel.

    The centre is the median. The scale is the interquartile range as a standard deviation, but at least half of the
    standard deviation without the outermost percent: a pulsed signal has an interquartile range near nothing. A
    constant channel is scaled by a hundredth of its value, so that any change of it shows.
    """
    rows = np.concatenate([stretch.rows.values for stretch in train])
    low, first, center, third, high = np.percentile(rows, (0.5, 25, 50, 75, 99.5), axis=0)
    spread: Floats = np.clip(rows, low, high).std(axis=0)
    scale = np.maximum((third - first) / 1.349, spread / 2)
    scale = np.where(scale > 0, scale, rows.std(axis=0))
    tiny = 1e-9 * np.maximum(np.abs(center), 1.0)
    scale = np.where(scale > tiny, scale, np.where(center != 0, np.abs(center) / 100, 1.0))
    return Preprocessor((Standardise(center, scale), Limit(LIMIT)))
