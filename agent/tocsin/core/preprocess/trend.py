"""Steps that take off where a signal lies, so that only how it moves is left; there is no way back."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from tocsin.core.preprocess.step import Step, long_enough, swing
from tocsin.records import Floats


@dataclass(frozen=True)
class Detrend(Step):
    """Takes the least-squares line off each channel of each window: level and slope are no longer seen."""

    name: ClassVar[str] = "detrend"

    def rows(self, length: int) -> int:
        """As many as come in."""
        return long_enough(length, 3, self.name)

    def transform(self, windows: Floats) -> Floats:
        """(K, T, C) about 0."""
        courses = swing(windows)
        line = slope(courses)[..., None] * centred(windows.shape[1])
        return (courses - line).transpose(0, 2, 1)

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        return cls()


@dataclass(frozen=True)
class Difference(Step):
    """Each row less the row before. The first row is 0, so that models see windows of the length that was chosen."""

    name: ClassVar[str] = "difference"

    def rows(self, length: int) -> int:
        """As many as come in."""
        return long_enough(length, 2, self.name)

    def transform(self, windows: Floats) -> Floats:
        """(K, T, C) unit per row."""
        return np.diff(windows, axis=1, prepend=windows[:, :1])

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        return cls()


def centred(length: int) -> Floats:
    """(T,) places of the rows about their middle."""
    return np.arange(length, dtype=np.float64) - (length - 1) / 2


def slope(courses: Floats) -> Floats:
    """(…) least-squares slope of (…, T) courses, unit per row."""
    at = centred(courses.shape[-1])
    rise: Floats = np.asarray((courses * at).sum(axis=-1)) / float(np.sum(at**2))
    return rise
