"""What the rows are that a model sees: instants of the window, or features of it.

Rule: a step of preprocessing that makes features is listed in `FEATURES`; others keep their rows' names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tocsin.core.preprocess import Preprocessor


@dataclass(frozen=True)
class Row:
    """One row of a model's input.

    Attributes:
        name: `312–344 Hz`, `unrest, part 2 of 4`; empty for an instant of the window.
        base: how a difference reads: 0 in the channel's unit, above 1 as a logarithm to this base, None in no unit.
        phrase: what stands in a sentence instead of the name, such as `power at 312–344 Hz`.
    """

    name: str = ""
    base: float | None = 0.0
    phrase: str = ""

    def __str__(self) -> str:
        return self.phrase or self.name


E = 2.718281828459045


def rows_of(preprocessor: Preprocessor, length: int, sample_rate_hz: float) -> tuple[Row, ...]:
    """The rows that a member's model sees of a window of `length` rows."""
    rows = (Row(),) * length
    for step in preprocessor.steps:
        if step.name in FEATURES:
            rows = FEATURES[step.name](step, len(rows), sample_rate_hz)
        elif step.rows(len(rows)) != len(rows):
            rows = tuple(Row(f"{step.name}, row {n + 1}", None) for n in range(step.rows(len(rows))))
    return rows


def _part(n: int, of: int) -> str:
    return f", part {n + 1} of {of}" if of > 1 else ""


def _level_unrest(step: Any, length: int, rate: float) -> tuple[Row, ...]:
    parts = range(step.segments)
    levels = [Row("level" + _part(n, step.segments), 0.0) for n in parts]
    return (*levels, *(Row("unrest" + _part(n, step.segments), E) for n in parts))


def _log_spectrum(step: Any, length: int, rate: float) -> tuple[Row, ...]:
    width = (length // 2) // step.bands  # bins, from the first above 0
    edges = [(1 + width * n) * rate / length for n in range(step.bands + 1)]
    bands = [Row(band(low, high), 10.0, f"power at {band(low, high)}") for low, high in pairwise(edges)]
    return (*bands, Row("effective value", 10.0))


def band(low_hz: float, high_hz: float) -> str:
    """A band of frequencies.

    >>> band(312.5, 343.75), band(0.02, 0.04)
    ('312–344 Hz', '0.02–0.04 Hz')
    """
    digits = 0 if high_hz >= 100 else 1 if high_hz >= 10 else 2 if high_hz >= 1 else 4
    low, high = (f"{hz:.{digits}f}" for hz in (low_hz, high_hz))
    if digits:
        low, high = (text.rstrip("0").rstrip(".") for text in (low, high))
    return f"{low}–{high} Hz"


FEATURES: dict[str, Callable[[Any, int, float], tuple[Row, ...]]] = {
    "level_unrest": _level_unrest,
    "log_spectrum": _log_spectrum,
}
