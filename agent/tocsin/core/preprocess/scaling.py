"""Steps that make channels alike: in units of their own scale, and within what float32 can square."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from tocsin.core.preprocess.step import Filter, Step
from tocsin.records import Floats


@dataclass(frozen=True)
class Standardise(Step):
    """(x − center) / scale: a constant of each a channel, or a row and channel.

    Standard, robust and min-max scaling are this step with other constants: mean and standard deviation, median and
    spread of the middle half, middle and half of the range.

    Attributes:
        center: (C,) or (T, C), in the unit of what comes in.
        scale: the same shape, > 0.
    """

    center: Floats
    scale: Floats
    name: ClassVar[str] = "standardise"

    def transform(self, windows: Floats) -> Floats:
        """(K, T, C) in units of the scale."""
        return (windows - self.center) / self.scale

    def inverse(self, windows: Floats) -> Floats:
        """(K, T, C) in engineering units."""
        return windows * self.scale + self.center

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        center, scale = np.asarray(form["center"], np.float64), np.asarray(form["scale"], np.float64)
        finite = np.isfinite(center).all() and np.isfinite(scale).all()
        if center.ndim not in (1, 2) or center.shape != scale.shape or not (finite and (scale > 0).all()):
            raise ValueError("expected one finite center and one positive scale a channel")
        return cls(center, scale)


@dataclass(frozen=True)
class Limit(Filter):
    """Keeps |x| ≤ limit, so that the square of a wild value still fits float32.

    Attributes:
        limit: in units of the scale; far outside of what any model has seen.
    """

    limit: float
    name: ClassVar[str] = "limit"

    def transform(self, windows: Floats) -> Floats:
        """(K, T, C) within ± limit."""
        return np.clip(windows, -self.limit, self.limit)

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        limit = float(form["limit"])
        if not 0 < limit < np.inf:
            raise ValueError("expected a limit above 0")
        return cls(limit)
