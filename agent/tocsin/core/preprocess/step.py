"""What a step of preprocessing is, and how its constants are read from a manifest.

Rules: a step fits nothing; it looks at each window by itself, so that a stream and a recording give the same bits; the
last axis stays the channels; it never gives more rows than it takes, so that memory is bounded by the window; constants
in an array are one a channel, the last axis; what is listed in another way is a tuple.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np

from tocsin.records import Floats

MAX_WIDTH = 101  # rows of a running filter
MAX_BANDS = 4096


class Step(ABC):
    """One step of preprocessing."""

    name: ClassVar[str]

    def rows(self, length: int) -> int:
        """Rows that come out of `length`: as many, where a step does not say otherwise.

        Raises:
            ValueError: the windows are too short for it.
        """
        return length

    def takes(self, channels: int) -> bool:
        """Whether its constants are for so many channels: numpy would spread others over the window."""
        return all(v.shape[-1] == channels for v in vars(self).values() if isinstance(v, np.ndarray))

    @abstractmethod
    def transform(self, windows: Floats) -> Floats:
        """(K, T, C) → (K, rows(T), C)."""

    def inverse(self, windows: Floats) -> Floats | None:
        """Back to the unit before the step; None where that cannot be."""
        return None

    def to_json(self) -> dict[str, Any]:
        """The manifest's form; without a limit (± infinity) is null."""
        return {"step": self.name, **{key: _listed(value) for key, value in vars(self).items()}}

    @classmethod
    @abstractmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form.

        Raises:
            KeyError: a constant is missing.
            ValueError: a constant is not what it can be.
        """


class Filter(Step):
    """A step that keeps rows and unit: it takes something off, and what it took is lost."""

    def inverse(self, windows: Floats) -> Floats:
        """Unchanged: they are in the unit already."""
        return windows


def whole(form: dict[str, Any], key: str, least: int, most: int) -> int:
    """A whole number from `least` to `most`."""
    value = form[key]
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{key}: expected a whole number from {least} to {most}, got {_shown(value)}")
    return value


def odd(form: dict[str, Any], key: str = "width") -> int:
    """An odd number of rows from 3 to MAX_WIDTH."""
    value = whole(form, key, 3, MAX_WIDTH)
    if value % 2 == 0:
        raise ValueError(f"{key}: expected an odd number of rows, so that there is a middle one, got {value}")
    return value


def above_zero(form: dict[str, Any], key: str, most: float = 1e300) -> float:
    """A finite number above 0."""
    value = form[key]
    if type(value) not in (int, float) or not 0 < value <= most:
        raise ValueError(f"{key}: expected a number above 0 and not above {most:g}, got {_shown(value)}")
    return float(value)


def each_channel(form: dict[str, Any], key: str, null: float | None = None) -> Floats:
    """(C,) finite, one a channel; `null` stands for JSON's null where that is allowed."""
    listed = form[key]
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{key}: expected a list with one number a channel, got {_shown(listed)}")
    found = np.array([math.nan if v is None or type(v) not in (int, float) else v for v in listed], np.float64)
    empty = np.array([v is None for v in listed])
    if not (np.isfinite(found) | (empty & (null is not None))).all():
        raise ValueError(f"{key}: expected one finite number a channel")
    return found if null is None else np.where(empty, null, found)


def floors(form: dict[str, Any], key: str = "floor", null: float | None = None) -> Floats:
    """(C,) as `each_channel`, all above 0."""
    found = each_channel(form, key, null)
    if not (found > 0).all():
        raise ValueError(f"{key}: expected a floor above 0 for each channel")
    return found


def long_enough(length: int, rows: int, what: str) -> int:
    """The length, where it has the rows that something needs."""
    if length < rows:
        raise ValueError(f"{length} rows are too few for {what}: it needs {rows}")
    return length


def swing(windows: Floats) -> Floats:
    """(K, C, T) about each channel's mean; time last, as sums and Fourier transforms like it best."""
    turned = np.ascontiguousarray(windows.transpose(0, 2, 1))
    turned -= turned.mean(axis=2, keepdims=True)
    return turned


def _listed(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if np.isfinite(value).all():
        return value.tolist()
    return [v if math.isfinite(v) else None for v in value.tolist()]


def _shown(value: Any) -> str:
    """A manifest's value, cut short: it may be anything."""
    return repr(value)[:40] if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
