"""Simple detectors to stand beside ours: the same tables, the same causal scores, the same rule for the limit.

Rules: a score at row t depends on rows up to t; means, scales, directions and limits come from the training part
alone. The limit is the trainer's own rule on scores of a quarter that was held back, the model then fitted on all.
"""

from collections.abc import Callable, Iterator
from itertools import accumulate

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from suites import Features

from tocsin.records import Floats
from tocsin_trainer.calibrate import ThresholdRule

Score = Callable[[Floats], Floats]
"""(n, d) → (n,)"""
HELD_BACK = 0.25
MAX_FITTED = 20_000
CHUNK = 4_000
BANDS = 64
Detector = Callable[[Floats], Score]
"""Fits (n, d) standardised features of normal running."""


def z_max(_: Floats) -> Score:
    """The largest deviation of any feature."""
    return lambda x: np.abs(x).max(axis=1)


def t_squared(train: Floats) -> Score:
    """Hotelling's T²: the Mahalanobis distance, with a shrunken covariance."""
    fitted = LedoitWolf().fit(train)
    mean, precision = fitted.location_, np.linalg.pinv(fitted.covariance_)
    return lambda x: np.einsum("ij,jk,ik->i", x - mean, precision, x - mean)


def pca(kind: str, most: int = 100) -> Detector:
    """Residual of 90 % of the variance: `q`, or `tq`, the larger of T² within and Q outside, each by its own limit."""

    def fit(train: Floats) -> Score:
        train = _some(train)
        tried = max(1, min(most, *(size - 1 for size in train.shape)))
        fast = train.shape[1] > 300 and min(train.shape) > 2 * tried
        model = PCA(tried, svd_solver="randomized" if fast else "full", random_state=0).fit(train)
        share = np.cumsum(model.explained_variance_) / max(1e-12, float(train.var(axis=0, ddof=1).sum()))
        kept = min(int(np.searchsorted(share, 0.9)) + 1, len(share), max(1, train.shape[1] - 1))
        axes, variance = model.components_[:kept], np.maximum(model.explained_variance_[:kept], 1e-9)

        def parts(x: Floats) -> tuple[Floats, Floats]:
            inside = (x - model.mean_) @ axes.T
            outside = np.maximum(((x - model.mean_) ** 2).sum(axis=1) - (inside**2).sum(axis=1), 0)
            return (inside**2 / variance).sum(axis=1), outside / x.shape[1]

        limit_t, limit_q = (np.quantile(part, 0.999) + 1e-9 for part in parts(train))
        if kind == "q":
            return lambda x: parts(x)[1]
        return lambda x: np.maximum(parts(x)[0] / limit_t, parts(x)[1] / limit_q)

    return fit


def isolation_forest(train: Floats) -> Score:
    """How quickly random cuts set a row apart."""
    forest = IsolationForest(n_estimators=100, random_state=0).fit(train)
    return lambda x: -forest.score_samples(x)


def random(_: Floats) -> Score:
    """Knows nothing."""
    return lambda x: np.random.default_rng(len(x)).random(len(x))


def scored(features: Features, train: list[Floats], test: list[Floats]) -> Iterator[tuple[str, list[Floats], float]]:
    """Each detector's name, its scores of each test table (a row or a frame each), and its limit.

    Args:
        features: what to look at.
        train: (n, C) tables in engineering units.
        test: the same.
    """
    if features.kind == "rows":
        yield from _by_row(features, np.concatenate(train), test)
        return
    made = [frames(features, table) for table in train]
    normal = np.concatenate(made)
    mean, scale = _spread(normal)
    normal = (normal - mean) / scale
    others = [(frames(features, table) - mean) / scale for table in test]
    order = np.random.default_rng(0).permutation(len(normal))  # there are few, of few recordings
    kept, held = np.split(order, [int(len(normal) * (1 - HELD_BACK))])
    for name, detector in {
        "random": random,
        "z-max": z_max,
        "T²": t_squared,
        "PCA Q": pca("q"),
        "PCA T²+Q": pca("tq"),
        "isolation forest": isolation_forest,
    }.items():
        limit = ThresholdRule().limit(detector(normal[kept])(normal[held])).value
        score = detector(normal)
        yield name, [score(other) for other in others], limit


def _by_row(features: Features, train: Floats, test: list[Floats]) -> Iterator[tuple[str, list[Floats], float]]:
    mean, scale = _spread(train)
    normal, others = (train - mean) / scale, [(table - mean) / scale for table in test]
    kept, held = np.split(normal, [int(len(normal) * (1 - HELD_BACK))])
    for name, detector, view in (
        ("random", random, _rows),
        ("z-max", z_max, _rows),
        ("T²", t_squared, _rows),
        ("PCA Q", pca("q"), _rows),
        ("window PCA Q", pca("q", 60), _flat),
        ("window PCA T²+Q", pca("tq", 60), _flat),
        ("isolation forest", isolation_forest, _rows),
        ("window isolation forest", isolation_forest, _moments),
    ):
        early, full = detector(view(kept, features.length)), detector(view(normal, features.length))
        calibration = _causal(early, view, held, features.length)
        found = [_causal(full, view, other, features.length) for other in others]
        yield name, found, ThresholdRule().limit(calibration).value
        if name != "random":
            smooth = [_running_mean(scores, features.smooth) for scores in found]
            limit = ThresholdRule().limit(_running_mean(calibration, features.smooth)).value
            yield f"{name}, EWMA", smooth, limit


def frames(features: Features, table: Floats) -> Floats:
    """(K, d) features of the frames of one (n, C) table.

    `spectrum`: the logarithms of 64 band energies and of the rms of each channel; `means`: of 5 rows each.
    """
    view = sliding_window_view(table, features.length, axis=0)[:: features.hop]  # (K, C, T)
    if features.kind == "means":
        means: Floats = view.reshape(*view.shape[:2], -1, 5).mean(axis=3).reshape(len(view), -1)
        return means
    window = np.hanning(features.length)
    out = []
    for frame in view:
        centred = frame - frame.mean(axis=1, keepdims=True)
        power = np.abs(np.fft.rfft(centred * window)[:, 1:]) ** 2
        bands = power[:, : power.shape[1] // BANDS * BANDS].reshape(len(frame), BANDS, -1).mean(axis=2)
        out.append(np.concatenate((np.log10(bands + 1e-12).ravel(), np.log10(centred.std(axis=1) + 1e-9))))
    return np.array(out)


def _causal(score: Score, view: Callable[[Floats, int], Floats], table: Floats, length: int) -> Floats:
    """(n,) one a row; rows before the first full window take its score."""
    if view is _rows:
        return score(table)
    starts = range(0, len(table) - length + 1, CHUNK)
    scores = np.concatenate([score(view(table[start : start + CHUNK + length - 1], length)) for start in starts])
    return np.concatenate((np.full(len(table) - len(scores), scores[0]), scores))


def _rows(table: Floats, _: int) -> Floats:
    return table


def _flat(table: Floats, length: int) -> Floats:
    return sliding_window_view(table, length, axis=0).reshape(len(table) - length + 1, -1)


def _moments(table: Floats, length: int) -> Floats:
    view = sliding_window_view(table, length, axis=0)
    return np.concatenate((table[length - 1 :], view.mean(axis=2), view.std(axis=2)), axis=1)


def _running_mean(scores: Floats, span: int) -> Floats:
    share = 2 / (span + 1)
    return np.array(list(accumulate(scores.tolist(), lambda mean, score: mean + share * (score - mean))))


def _spread(train: Floats) -> tuple[Floats, Floats]:
    deviation = train.std(axis=0)
    return train.mean(axis=0), np.where(deviation < 1e-8, 1.0, deviation)


def _some(train: Floats) -> Floats:
    if len(train) <= MAX_FITTED:
        return train
    return train[np.random.default_rng(0).choice(len(train), MAX_FITTED, replace=False)]
