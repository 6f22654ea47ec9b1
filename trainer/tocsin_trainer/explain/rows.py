"""What the rows are that a model sees: instants of the window, or features of it.

Rule: every step of preprocessing that makes features is known here; the others keep their rows' names.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tocsin.core.groups import RateGroups
from tocsin.core.preprocess import (
    BandEnergies,
    EnvelopeSpectrum,
    LevelUnrest,
    LogMel,
    LogSpectrum,
    Moments,
    Preprocessor,
    Stack,
    Step,
    WindowStatistics,
)

EFFECTIVE = "effective value"
STATISTICS = ("mean", "deviation", "lowest value", "highest value", "rise")


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


def rows_of(preprocessor: Preprocessor, length: int, sample_rate_hz: float) -> tuple[Row, ...]:
    """The rows that a member's model sees of a window of `length` rows."""
    return _after(preprocessor.steps, (Row(),) * length, sample_rate_hz)


def column_labels(groups: RateGroups) -> dict[str, str]:
    """Columns that are features of a channel → the same as people read them: `acceleration 312–344 Hz`."""
    labels: dict[str, str] = {}
    for group in groups.groups:
        if group.features:
            rows = rows_of(Preprocessor(group.features), group.frame, group.sample_rate_hz)
            said = [f"{channel.name} {row.name}" for channel in group.channels for row in rows]
            labels |= dict(zip((column.name for column in group.columns), said, strict=True))
    return labels


def _after(steps: Sequence[Step], rows: tuple[Row, ...], rate: float) -> tuple[Row, ...]:
    for step in steps:
        rows = _made(step, rows, rate)
    return rows


def _made(step: Step, rows: tuple[Row, ...], rate: float) -> tuple[Row, ...]:  # noqa: PLR0911 - one a step
    """The rows that a step makes of others."""
    length = len(rows)
    match step:
        case LevelUnrest(segments=parts):
            return (*_parts("level", parts), *_parts("unrest", parts, math.e))
        case WindowStatistics(segments=parts):
            return tuple(row for name in STATISTICS for row in _parts(name, parts))
        case Moments():
            shape = (Row("crest factor", 10.0), Row("kurtosis", 10.0), Row("skewness", None))
            return (Row(EFFECTIVE, 10.0), *shape)
        case LogSpectrum(bands=bands):
            edges = [(1 + length // 2 // bands * n) * rate / length for n in range(bands + 1)]
            return (*(_power(low, high) for low, high in pairwise(edges)), Row(EFFECTIVE, 10.0))
        case LogMel(bands=bands, sample_rate_hz=hz):
            top = math.log1p(hz / 1400)
            edges = [700 * math.expm1(top * n / (bands + 1)) for n in range(bands + 2)]
            return tuple(_power(low, high) for low, high in zip(edges, edges[2:], strict=False))
        case EnvelopeSpectrum(bands=bands, top_hz=top_hz, sample_rate_hz=hz):
            width = min(length // 2, int(top_hz * length / hz)) // bands
            edges = [(1 + width * n) * hz / length for n in range(bands + 1)]
            of = f"envelope of {band(step.low_hz, step.high_hz)}"
            return tuple(_power(low, high, of) for low, high in pairwise(edges))
        case BandEnergies(bands_hz=bands_hz):
            return tuple(Row(band(*edges), 10.0, f"effective value at {band(*edges)}") for edges in bands_hz)
        case Stack(branches=branches):
            return tuple(row for steps in branches for row in _after(steps, rows, rate))
    return rows


def _parts(name: str, count: int, base: float = 0.0) -> tuple[Row, ...]:
    """The same number of each part of the window."""
    return tuple(Row(f"{name}, part {n + 1} of {count}" if count > 1 else name, base) for n in range(count))


def _power(low_hz: float, high_hz: float, of: str = "") -> Row:
    name = band(low_hz, high_hz)
    return Row(f"{name}, {of}" if of else name, 10.0, f"power at {name}" + (f" of the {of}" if of else ""))


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
