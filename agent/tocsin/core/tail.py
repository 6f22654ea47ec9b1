"""The tail of a distribution: a generalised Pareto law on what exceeds a high level.

    P(Y > y | Y > 0) = (1 + ξ·y/σ)^(−1/ξ)        exp(−y/σ) at ξ = 0

Rules: exceedances are of the *logarithm* of the score. There a Pareto tail is ξ = 0 and lighter ones are below, so that
one narrow prior on ξ holds for mean squares of whatever noise; few exceedances say little about ξ themselves. The fit
is the maximum of likelihood × prior over a grid: nothing to converge (cf. Coles, An Introduction to Statistical
Modeling of Extreme Values, 2001, ch. 4; Siffer et al., Anomaly Detection in Streams with Extreme Value Theory, 2017).
"""

from dataclasses import dataclass

import numpy as np

from tocsin.records import Floats

SHAPE_MEAN, SHAPE_SD = 0.0, 0.15  # the prior on ξ
SHAPES = np.linspace(-0.5, 0.5, 26)
SCALES = np.geomspace(0.4, 2.5, 41)  # times the mean exceedance
TINY = 1e-9


@dataclass(frozen=True)
class Tail:
    """Laws of exceedances, one a row of weights.

    Attributes:
        shape: (B,) ξ.
        scale: (B,) σ, > 0.
    """

    shape: Floats
    scale: Floats

    def survival(self, y: float | Floats) -> Floats:
        """(…, B) the probability that an exceedance is above y ≥ 0, of shape (…, 1) or one number."""
        inside = np.maximum(1.0 + self.shape * y / self.scale, 0.0)
        flat = np.abs(self.shape) < TINY
        power = -1.0 / np.where(flat, 1.0, self.shape)
        with np.errstate(divide="ignore"):
            bent = inside**power
        out: Floats = np.where(flat, np.exp(-y / self.scale), np.where(inside > 0, bent, 0.0))
        return out

    def quantile(self, p: float) -> Floats:
        """(B,) the y that an exceedance is above with probability p, 0 < p ≤ 1."""
        flat = np.abs(self.shape) < TINY
        safe = np.where(flat, 1.0, self.shape)
        out: Floats = self.scale * np.where(flat, -np.log(p), (p**-safe - 1.0) / safe)
        return out


def fit_tail(exceedances: Floats, weights: Floats | None = None, shape_mean: Floats | None = None) -> Tail:
    """The law that exceedances follow.

    Args:
        exceedances: (n,) ≥ 0, n ≥ 1, of the log score over a level.
        weights: (B, n) how much each counts, a row a law; None = one row of ones.
        shape_mean: (B,) centre of the prior on ξ; drawn from the prior itself it makes B fits to B resamplings spread
            as a posterior does. None = SHAPE_MEAN.

    >>> float(fit_tail(np.random.default_rng(0).exponential(0.2, 500)).scale[0].round(2))
    0.22
    """
    y = np.maximum(np.asarray(exceedances, np.float64), 0.0)
    rows = np.ones((1, len(y))) if weights is None else weights
    centre = np.full(len(rows), SHAPE_MEAN) if shape_mean is None else shape_mean
    mean = max(float(y.mean()), TINY)
    shape, scale = (axis.ravel() for axis in np.meshgrid(SHAPES, SCALES * mean, indexing="ij"))
    flat = np.abs(shape) < TINY
    safe = np.where(flat, 1.0, shape)
    inside = 1.0 + shape * y[:, None] / scale
    with np.errstate(divide="ignore", invalid="ignore"):
        bent = -(1.0 + 1.0 / safe) * np.log(inside)
    logs = np.where(flat, -y[:, None] / scale, np.where(inside > 0, bent, -1e3)) - np.log(scale)
    prior = -0.5 * ((shape - centre[:, None]) / SHAPE_SD) ** 2
    best = np.argmax(rows @ logs + prior, axis=1)
    return Tail(shape[best], scale[best])
