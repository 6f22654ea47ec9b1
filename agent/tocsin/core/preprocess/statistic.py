"""Steps that show a window by a few numbers a channel: level, unrest, extremes, shape of the distribution."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from tocsin.core.preprocess.step import MAX_BANDS, Step, floors, long_enough, swing, whole
from tocsin.core.preprocess.trend import slope
from tocsin.records import Floats

STATISTICS = 5  # mean, deviation, lowest, highest, rise


@dataclass(frozen=True)
class LevelUnrest(Step):
    """Level and unrest: mean, and logarithm of the standard deviation, of equal parts of the window.

    Attributes:
        segments: S parts; rows at the window's start that do not fill a part are left out.
        floor: (C,) added to the variance before its logarithm, in the square of the channel's unit, > 0.
    """

    segments: int
    floor: Floats
    name: ClassVar[str] = "level_unrest"

    def rows(self, length: int) -> int:
        """2·S: the levels, then the unrests."""
        if length < 2 * self.segments:
            raise ValueError(f"{length} rows cannot be cut into {self.segments} parts of two or more")
        return 2 * self.segments

    def transform(self, windows: Floats) -> Floats:
        """(K, 2·S, C)."""
        parts = cut(windows, self.segments)
        variance = parts.var(axis=-1).transpose(0, 2, 1)
        return np.concatenate([parts.mean(axis=-1).transpose(0, 2, 1), 0.5 * np.log(variance + self.floor)], axis=1)

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        return cls(whole(form, "segments", 1, MAX_BANDS), floors(form))


@dataclass(frozen=True)
class WindowStatistics(Step):
    """Mean, standard deviation, lowest, highest value and rise of equal parts of the window, in the channel's unit.

    The rise is that of the least-squares line over a part.

    Attributes:
        segments: S parts; rows at the window's start that do not fill a part are left out.
    """

    segments: int
    name: ClassVar[str] = "window_statistics"

    def rows(self, length: int) -> int:
        """5·S: the means, then the deviations, the lowest, the highest, the rises."""
        if length < STATISTICS * self.segments:
            raise ValueError(f"{length} rows cannot be cut into {self.segments} parts of {STATISTICS} or more")
        return STATISTICS * self.segments

    def transform(self, windows: Floats) -> Floats:
        """(K, 5·S, C)."""
        parts = cut(windows, self.segments)
        mean = parts.mean(axis=-1)
        swung = parts - mean[..., None]
        deviation = np.sqrt((swung**2).mean(axis=-1))
        rise = slope(swung) * (parts.shape[-1] - 1)
        numbers = np.concatenate([mean, deviation, parts.min(axis=-1), parts.max(axis=-1), rise], axis=-1)
        return numbers.transpose(0, 2, 1)

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        return cls(whole(form, "segments", 1, MAX_BANDS))


@dataclass(frozen=True)
class Moments(Step):
    """Effective value, crest factor, kurtosis (all as decadic logarithms) and skewness about the mean.

    Impacts, as of a bearing that begins to fail, raise crest factor and kurtosis before the effective value (Dyer &
    Stewart, J. Mech. Des. 100, 1978). A still channel has a crest factor and a kurtosis of 1, and a skewness of 0.

    Attributes:
        floor: (C,) variance that counts as silence, added where a variance is a divisor or under a logarithm, in the
            square of the channel's unit, > 0.
    """

    floor: Floats
    name: ClassVar[str] = "moments"

    def rows(self, length: int) -> int:
        """4."""
        return min(4, long_enough(length, 4, self.name))

    def transform(self, windows: Floats) -> Floats:
        """(K, 4, C)."""
        courses = swing(windows)
        square = courses**2
        variance = square.mean(axis=-1) + self.floor
        crest = (square.max(axis=-1) + self.floor) / variance
        kurtosis = ((square**2).mean(axis=-1) + self.floor**2) / variance**2
        skewness = (square * courses).mean(axis=-1) / variance**1.5
        return np.stack([0.5 * np.log10(variance), 0.5 * np.log10(crest), np.log10(kurtosis), skewness], axis=1)

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        floor = floors(form)
        if not ((floor > 1e-100) & (floor < 1e100)).all():
            raise ValueError("floor: expected 1e-100 to 1e100, so that its square is a number")
        return cls(floor)


def cut(windows: Floats, segments: int) -> Floats:
    """(K, C, S, T // S) the window's equal parts; what does not fill a part is left out at its start."""
    part = windows.shape[1] // segments
    kept = np.ascontiguousarray(windows[:, windows.shape[1] - part * segments :].transpose(0, 2, 1))  # for faster sums
    return kept.reshape(len(windows), windows.shape[2], segments, part)
