"""Steps that take out what the machine did not do: wild single values, and values that cannot be.

Short gaps are not filled here: a missing value is held by the resampler, before there are windows.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from tocsin.core.preprocess.denoising import running_median
from tocsin.core.preprocess.step import Filter, above_zero, each_channel, floors, long_enough, odd
from tocsin.records import Floats

SIGMA_OF_MAD = 1.4826  # of normally distributed values
PIECE = 1 << 14  # values looked at more closely at once


@dataclass(frozen=True)
class Despike(Filter):
    """A value far from the running median becomes that median (Hampel filter; Pearson, IEEE Trans. CST 10, 2002).

    Far is more than `spreads` times the larger of the floor and of 1.4826 times the median absolute deviation, of the
    `width` rows around the value, or of the first or last `width` rows for values near the window's edge. A spike of
    width // 2 rows is taken out as well as a single value, a step or a longer pulse is not.

    Attributes:
        width: rows, odd.
        spreads: n.
        floor: (C,) least spread in the channel's unit, > 0; infinite leaves the channel alone.
    """

    width: int
    spreads: float
    floor: Floats
    name: ClassVar[str] = "despike"

    def rows(self, length: int) -> int:
        """As many as come in."""
        return long_enough(length, self.width, self.name)

    def transform(self, windows: Floats) -> Floats:
        """(K, T, C) without spikes."""
        middle = running_median(windows, self.width)
        off = np.abs(windows - middle)
        found = np.nonzero(off > self.spreads * self.floor)
        if not len(found[0]):
            return windows
        out = windows.copy()
        span = np.arange(self.width)
        for start in range(0, len(found[0]), PIECE):  # few values as a rule, but it may be all
            k, t, c = at = tuple(axis[start : start + PIECE] for axis in found)
            first = np.clip(t - self.width // 2, 0, windows.shape[1] - self.width)
            near = windows[k[:, None], first[:, None] + span, c[:, None]]
            deviation = np.median(np.abs(near - middle[at][:, None]), axis=1)
            wild = off[at] > self.spreads * SIGMA_OF_MAD * deviation
            out[at] = np.where(wild, middle[at], windows[at])
        return out

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        return cls(odd(form), above_zero(form, "spreads", 1e6), floors(form, null=np.inf))


@dataclass(frozen=True)
class Clip(Filter):
    """Keeps each channel between two values: the sensor's range, say.

    Attributes:
        low: (C,) in the channel's unit; minus infinity = no limit.
        high: (C,) above low; infinity = no limit.
    """

    low: Floats
    high: Floats
    name: ClassVar[str] = "clip"

    def transform(self, windows: Floats) -> Floats:
        """(K, T, C) within low and high."""
        return np.clip(windows, self.low, self.high)

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        low, high = each_channel(form, "low", -np.inf), each_channel(form, "high", np.inf)
        if low.shape != high.shape or not (low < high).all():
            raise ValueError("expected one low and one high a channel, low below high")
        return cls(low, high)
