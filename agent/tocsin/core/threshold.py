"""A limit on the anomaly score, from scores of normal running.

| method     | limit                                   | parameters            |
|------------|-----------------------------------------|-----------------------|
| mu_sigma   | mean + k · standard deviation           | k, mean, sigma        |
| quantile   | the q-quantile of the scores × margin   | q, margin             |
| highest    | the highest score × (1 + 1 / n); what   | highest, n, reached   |
|            | one part alone reaches counts no more   |                       |
|            | than 4 times what is usual for a part   |                       |
| pot        | that only 1 − q of the windows reach,   | q, base, shape, scale |
|            | by the tail of what lies over a base    |                       |
| budget     | that normal running reaches so many     | base, episodes,       |
|            | times an hour, as the detector counts   | shape, scale          |
| fixed      | a number that the user gave             | –                     |

Where a machine has operating modes there is a limit for each; a window of an unknown mode gets the largest.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from tocsin.core.promise import Promise
from tocsin.core.tail import fit_tail
from tocsin.errors import BundleError
from tocsin.records import Floats, Ints

ALONE = 4.0  # times what is usual: twice the amplitude
FEWEST_PARTS = 3  # of a recording, for one of them to stand out
POT_BASE = 0.98  # quantile over which pot looks, or lower, so that there are …
POT_PEAKS = 10  # … at least so many peaks


@dataclass(frozen=True)
class Threshold:
    """The limit and where it comes from.

    Attributes:
        value: score at which ratio = 1, > 0; with modes the largest limit.
        method: one of the table.
        parameters: of the method.
        limits: of each operating mode, > 0; empty where there is one.
        promise: of false alarms, where a budget was asked for.
    """

    value: float
    method: str = "fixed"
    parameters: dict[str, float] = field(default_factory=dict)
    limits: tuple[float, ...] = ()
    promise: Promise | None = None

    def of(self, mode: Ints | None) -> float | Floats:
        """The limit: one for all, or (K,) for the (K,) modes of windows."""
        if mode is None or not self.limits:
            return self.value
        table = np.array([*self.limits, self.value])  # the last for UNKNOWN, which is −1
        limits: Floats = table[mode]
        return limits

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        form: dict[str, Any] = {"method": self.method, "value": self.value, "parameters": self.parameters}
        if self.limits:
            form["limits"] = list(self.limits)
        if self.promise is not None:
            form["promise"] = self.promise.to_json()
        return form

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form.

        Raises:
            BundleError: no positive, finite value or limit, or a promise that cannot be.
        """
        try:
            value = float(form["value"])
            parameters = {str(key): float(item) for key, item in form.get("parameters", {}).items()}
            limits = tuple(float(item) for item in form.get("limits", ()))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"the manifest's threshold is damaged: {error}") from error
        if not 0 < value < np.inf:
            raise BundleError(f"the manifest's threshold is {value}: expected a finite number above 0")
        if not all(0 < limit <= value for limit in limits):
            raise BundleError(
                f"the manifest's threshold has limits {limits}: expected numbers above 0, none over {value}"
            )
        promise = None if form.get("promise") is None else Promise.from_json(form["promise"])
        return cls(value, str(form.get("method", "fixed")), parameters, limits, promise)


def mu_sigma(scores: Floats, k: float) -> Threshold:
    """Mean + k standard deviations.

    Args:
        scores: (K,) of normal running that the model was not fitted on.
        k: 3 is common; see `k_table`.

    >>> mu_sigma(np.array([1.0, 3.0]), 3).value
    5.0
    """
    mean, sigma = float(np.mean(scores)), float(np.std(scores))
    return Threshold(_positive(mean + k * sigma), "mu_sigma", {"k": k, "mean": mean, "sigma": sigma})


def quantile(scores: Floats, q: float, margin: float = 1.0) -> Threshold:
    """The q-quantile of the scores, times a margin.

    Args:
        scores: (K,) of normal running that the model was not fitted on.
        q: part of normal windows that may stay below, 0 to 1.
        margin: factor on top, ≥ 1: what a finite sample has not shown yet.

    >>> quantile(np.arange(101.0), 0.9).value
    90.0
    """
    return Threshold(_positive(float(np.quantile(scores, q)) * margin), "quantile", {"q": q, "margin": margin})


def highest(scores: Floats, independent: float, maxima: Floats | None = None) -> Threshold:
    """Over all that normal running has reached, by a margin that shrinks as recordings grow.

    Args:
        scores: (K,) of normal running that the model was not fitted on.
        independent: n, how many windows the recording holds end to end; its overlapping ones tell no more.
        maxima: of parts of the recording, each scored by models that were not fitted on it. Where one part alone is far
            above the others, it was a state that the others do not show, such as a start: no limit is to rest on that.

    >>> highest(np.array([1.0, 4.0]), 8).value
    4.5
    """
    reached, n = float(np.max(scores)), max(1.0, independent)
    top = reached
    if maxima is not None and len(maxima) >= FEWEST_PARTS:
        top = min(reached, ALONE * float(np.median(maxima)))
    return Threshold(_positive(top * (1 + 1 / n)), "highest", {"highest": top, "n": n, "reached": reached})


def pot(scores: Floats, q: float, apart: int = 1) -> Threshold:
    """The limit that only 1 − q of the windows reach, from a generalised Pareto tail of the peaks over a base.

    Peaks, not windows: neighbours overlap and tell the same (Siffer et al., Anomaly Detection in Streams with Extreme
    Value Theory, 2017, which takes each value for itself; runs declustering as in Coles, 2001, ch. 5).

    Args:
        scores: (K,) > 0, in order, of normal running that the model was not fitted on.
        q: part of normal windows below the limit, 0.5 to 1.
        apart: windows in a row below the base that separate two peaks.

    >>> scores = np.random.default_rng(0).chisquare(5, 20_000)  # one in 10,000 of them is above 25.7
    >>> round(pot(scores, 0.9999).value)
    26
    """
    known = scores[np.isfinite(scores)]
    base, peaks = 0.0, np.empty(0)
    for level in (POT_BASE, 0.95, 0.9, 0.8):
        base = max(float(np.quantile(known, min(level, q))), float(np.finfo(np.float32).tiny))
        over = np.flatnonzero(known > base)
        starts = np.flatnonzero(np.diff(over, prepend=-apart - 1) > apart)
        peaks = np.maximum.reduceat(known[over], starts) if len(over) else np.array([base])
        if len(peaks) >= POT_PEAKS:
            break
    law = fit_tail(np.log(peaks / base))
    part = max(float(np.mean(known > base)), 1.0 / len(known))
    value = base * float(np.exp(law.quantile(min(1.0, (1.0 - q) / part))[0]))
    parameters = {"q": q, "base": base, "shape": float(law.shape[0]), "scale": float(law.scale[0])}
    return Threshold(_positive(value), "pot", parameters)


def k_table(scores: Floats, ks: tuple[float, ...] = (2, 3, 4, 5, 6, 8)) -> list[dict[str, float]]:
    """For each k: the limit, and the part of these scores at or above it."""
    limits = [(k, mu_sigma(scores, k).value) for k in ks]
    return [{"k": k, "threshold": limit, "over": float(np.mean(scores >= limit))} for k, limit in limits]


def _positive(value: float) -> float:
    return max(value, float(np.finfo(np.float32).tiny))
