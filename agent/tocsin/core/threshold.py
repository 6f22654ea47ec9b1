"""A limit on the anomaly score, from scores of normal running.

| method     | limit                                   | parameters            |
|------------|-----------------------------------------|-----------------------|
| mu_sigma   | mean + k · standard deviation           | k, mean, sigma        |
| quantile   | the q-quantile of the scores × margin   | q, margin             |
| fixed      | a number that the user gave             | –                     |
"""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from tocsin.errors import BundleError
from tocsin.records import Floats


@dataclass(frozen=True)
class Threshold:
    """The limit and where it comes from.

    Attributes:
        value: score at which ratio = 1, > 0.
        method: `mu_sigma`, `quantile` or `fixed`.
        parameters: of the method.
    """

    value: float
    method: str = "fixed"
    parameters: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {"method": self.method, "value": self.value, "parameters": self.parameters}

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form.

        Raises:
            BundleError: no positive, finite value.
        """
        try:
            value = float(form["value"])
            parameters = {str(key): float(item) for key, item in form.get("parameters", {}).items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"the manifest's threshold is damaged: {error}") from error
        if not 0 < value < np.inf:
            raise BundleError(f"the manifest's threshold is {value}: expected a finite number above 0")
        return cls(value, str(form.get("method", "fixed")), parameters)


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


def k_table(scores: Floats, ks: tuple[float, ...] = (2, 3, 4, 5, 6, 8)) -> list[dict[str, float]]:
    """For each k: the limit, and the part of these scores at or above it."""
    limits = [(k, mu_sigma(scores, k).value) for k in ks]
    return [{"k": k, "threshold": limit, "over": float(np.mean(scores >= limit))} for k, limit in limits]


def _positive(value: float) -> float:
    return max(value, float(np.finfo(np.float32).tiny))
