"""Steps that smooth a signal: what is left of a fault of a few rows is less, of a slow one as much as before."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tocsin.core.preprocess.step import Filter, above_zero, long_enough, odd, whole
from tocsin.records import Floats

PIECE = 1 << 20  # values that are sorted at once
MAX_ORDER = 6


@dataclass(frozen=True)
class RunningMedian(Filter):
    """The median of the rows around each row; near the edges, that of the window's first or last `width` rows.

    Attributes:
        width: rows, odd.
    """

    width: int
    name: ClassVar[str] = "median"

    def rows(self, length: int) -> int:
        """As many as come in."""
        return long_enough(length, self.width, self.name)

    def transform(self, windows: Floats) -> Floats:
        """(K, T, C)."""
        return running_median(windows, self.width)

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        return cls(odd(form))


@dataclass(frozen=True)
class Ewma(Filter):
    """Exponentially weighted mean of the rows so far, begun anew with each window: y_t = y_t−1 + α (x_t − y_t−1).

    Attributes:
        alpha: weight of the newest row, 0 < α ≤ 1.
    """

    alpha: float
    name: ClassVar[str] = "ewma"

    def transform(self, windows: Floats) -> Floats:
        """(K, T, C); the sums over 1, 2, 4, … rows, so that no loop runs over the rows."""
        out = windows * self.alpha
        out[:, 0] = windows[:, 0]
        decay, reach = 1.0 - self.alpha, 1
        while reach < windows.shape[1] and decay > 0:
            out[:, reach:] += decay * out[:, :-reach]
            decay, reach = decay * decay, 2 * reach
        return out

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        return cls(above_zero(form, "alpha", 1.0))


@dataclass(frozen=True)
class SavitzkyGolay(Filter):
    """The value in the middle of a polynomial laid through the rows around (Savitzky & Golay, Anal. Chem. 36, 1964).

    Near the edges, the polynomial through the window's first or last `width` rows. Keeps peaks better than a mean does.

    Attributes:
        width: rows, odd.
        order: of the polynomial, below the width.
    """

    width: int
    order: int
    name: ClassVar[str] = "savgol"

    def rows(self, length: int) -> int:
        """As many as come in."""
        return long_enough(length, self.width, self.name)

    def transform(self, windows: Floats) -> Floats:
        """(K, T, C)."""
        half, inner = self.width // 2, windows.shape[1] - self.width + 1
        weight = _projection(self.width, self.order)
        out = np.zeros(windows.shape)
        for row in range(self.width):  # not a matrix product: its bits depend on how many windows there are
            out[:, half : half + inner] += weight[half, row] * windows[:, row : row + inner]
            out[:, :half] += weight[:half, row, None] * windows[:, row, None]
            out[:, half + inner :] += weight[half + 1 :, row, None] * windows[:, inner - 1 + row, None]
        return out

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        width, order = odd(form), whole(form, "order", 0, MAX_ORDER)
        if order >= width:
            raise ValueError(f"order: expected less than the width of {width}, got {order}")
        return cls(width, order)


def running_median(windows: Floats, width: int) -> Floats:
    """(K, T, C) median of `width` rows around each row, or of the nearest `width` rows at the edges.

    Args:
        windows: (K, T, C), T ≥ width.
        width: odd.
    """
    half, inner = width // 2, windows.shape[1] - width + 1
    around = sliding_window_view(windows, width, axis=1)
    out = np.empty_like(windows)
    values = windows.shape[2] * width
    for rows in _pieces(inner, max(1, PIECE // values)):
        for some in _pieces(len(windows), max(1, PIECE // (values * (rows.stop - rows.start)))):
            near = np.partition(around[some, rows], half, axis=-1)[..., half]
            out[some, half + rows.start : half + rows.stop] = near
    out[:, :half] = out[:, half, None]
    out[:, half + inner :] = out[:, half + inner - 1, None]
    return out


def _pieces(length: int, most: int) -> list[slice]:
    return [slice(start, min(start + most, length)) for start in range(0, length, most)]


@lru_cache(maxsize=16)
def _projection(width: int, order: int) -> Floats:
    """(width, width) row i: what the values weigh in the fitted polynomial's value at i."""
    at = np.linspace(-1.0, 1.0, width)
    powers = np.vander(at, order + 1)
    weight: Floats = powers @ np.linalg.pinv(powers)
    weight.flags.writeable = False
    return weight
