"""What normal running looked like, channel by channel: the limits of the quality checks come from it.

The trainer measures it with the classes below and writes it into the bundle; the device measures the same things in the
same way. Rules: statistics need one pass over blocks, and are the same however these are cut.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from tocsin.errors import BundleError
from tocsin.records import Bools, Contribution, Floats, Ints

RATE_ROWS, RATE_S = 64, 10.0  # the rate is measured over the longer of the two
RATE_GAP_ROWS, RATE_GAP_S = 10.0, 10.0  # a silence longer than both is told as one: it is a gap, no rate


@dataclass(frozen=True, slots=True)
class NormalChannel:
    """One channel's normal running.

    Attributes:
        name: of the channel.
        low: lowest value, engineering units.
        high: highest value.
        longest_run: most samples in a row of exactly one value.
        largest_step: largest difference of two samples in a row.
    """

    name: str
    low: float
    high: float
    longest_run: int
    largest_step: float

    def possible(self, seen: float, expected: float) -> float | None:
        """What a model expected, or the nearest value that the machine had; None where that says nothing of `seen`.

        A model that rebuilds a fault rebuilds it badly, and may say −1.5 mm/s of an effective value. The nearest value
        says nothing where it is what was seen, or lies on its other side.

        >>> speed = NormalChannel("speed", 0.0, 1480.0, 1, 9.0)
        >>> [speed.possible(seen, 2068.0) for seen in (700.0, 1480.0, 1500.0)]
        [1480.0, None, None]
        """
        nearest = min(max(expected, self.low), self.high)
        if nearest == expected or not math.isfinite(expected):
            return expected
        return nearest if (nearest - seen) * (expected - seen) > 0 else None


@dataclass(frozen=True, slots=True)
class Normal:
    """Normal running of an asset.

    Attributes:
        rows: how many were looked at.
        rates: slowest and fastest sample rate over ten seconds, as part of the nominal one.
        channels: what is known of them.
    """

    rows: int
    rates: tuple[float, float] = (1.0, 1.0)
    channels: tuple[NormalChannel, ...] = ()

    def of(self, name: str) -> NormalChannel | None:
        """What is known of a channel."""
        return next((channel for channel in self.channels if channel.name == name), None)

    def possible(self, contributions: tuple[Contribution, ...]) -> tuple[Contribution, ...]:
        """The same with no expected value outside of what normal running showed of the channel; shares stay.

        >>> speed = Normal(9, channels=(NormalChannel("speed", 0.0, 1480.0, 1, 9.0),))
        >>> speed.possible((Contribution("speed", 1.0, 700.0, 2068.0),))[0].expected
        1480.0
        """
        return tuple(self._possible(each) for each in contributions)

    def _possible(self, each: Contribution) -> Contribution:
        known = self.of(each.channel)
        if known is None or each.seen is None or each.expected is None:
            return each
        return replace(each, expected=known.possible(each.seen, each.expected))

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        channels = [{key: getattr(c, key) for key in NormalChannel.__slots__} for c in self.channels]
        return {"rows": self.rows, "rates": list(self.rates), "channels": channels}

    @classmethod
    def from_json(cls, form: dict[str, Any] | None) -> Self:
        """From the manifest's form; None, of an older bundle, knows nothing.

        Raises:
            BundleError: values that cannot be.
        """
        if form is None:
            return cls(0)
        try:
            slowest, fastest = (float(rate) for rate in form["rates"])
            channels = tuple(
                NormalChannel(
                    str(c["name"]), float(c["low"]), float(c["high"]), int(c["longest_run"]), float(c["largest_step"])
                )
                for c in form["channels"]
            )
            numbers = [slowest, fastest, *(n for c in channels for n in (c.low, c.high, c.largest_step))]
            if not all(map(math.isfinite, numbers)) or any(c.low > c.high or c.largest_step < 0 for c in channels):
                raise ValueError("a number that cannot be")
            return cls(int(form["rows"]), (slowest, fastest), channels)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise BundleError(f"the manifest's quality section is damaged: {error}: build the bundle again") from error


class Runs:
    """Counts, sample by sample, for how long each of C channels has kept exactly one value; NaN is passed over."""

    def __init__(self, channels: int) -> None:
        self._value = np.full(channels, np.nan)
        self._count = np.zeros(channels, np.int64)
        self._changed_at = np.zeros(channels, np.int64)
        self._jumped_at = np.zeros(channels, np.int64)

    def push(self, values: Floats, finite: Bools, jumps: Bools | None = None) -> tuple[Ints, Bools]:
        """The next samples.

        Args:
            values: (n, C).
            finite: (n, C) where there is a value.
            jumps: (n, C) samples that jump away from the one before; None = nowhere.

        Returns:
            (n, C) samples of the present value up to here, and whether it came by a jump.
        """
        filled, before = self._filled(values, finite)
        changed = filled != before  # NaN differs from itself: no run before the first value
        count = self._count + np.cumsum(finite, axis=0)
        at = self._latest(np.where(changed, count, 0), self._changed_at)
        if jumps is None:
            jumped: Bools = np.zeros(values.shape, np.bool_)
        else:
            jump_at = self._latest(np.where(changed & jumps, count, 0), self._jumped_at)
            jumped = (jump_at == at) & (jump_at > 0)
            self._jumped_at = jump_at[-1]
        self._value, self._count, self._changed_at = filled[-1], count[-1], at[-1]
        return count - at + 1, jumped

    def _filled(self, values: Floats, finite: Bools) -> tuple[Floats, Floats]:
        """(n, C) newest value at each sample, and at the one before."""
        whole = np.concatenate((self._value[None], values))
        if not finite.all():
            known = np.concatenate((np.ones((1, values.shape[1]), np.bool_), finite))
            index = np.maximum.accumulate(np.where(known, np.arange(len(whole))[:, None], 0), axis=0)
            whole = np.take_along_axis(whole, index, axis=0)
        return whole[1:], whole[:-1]

    @staticmethod
    def _latest(at: Ints, before: Ints) -> Ints:
        latest: Ints = np.maximum(np.maximum.accumulate(at, axis=0), before)
        return latest


class RateMeter:
    """Measures the rate of samples over stretches of ten seconds, sixty-four samples at the least.

    Args:
        rate_hz: nominal.
    """

    def __init__(self, rate_hz: float) -> None:
        self.rate_hz = rate_hz
        self.samples = max(RATE_ROWS, math.ceil(RATE_S * rate_hz))
        self._gap_rows = max(RATE_GAP_ROWS, RATE_GAP_S * rate_hz)
        self._begin_s = self._last_s = math.nan
        self._count = 0

    def shift(self, step_s: float) -> None:
        """The clock was set by so much; the samples go on."""
        self._begin_s += step_s
        self._last_s += step_s

    def push(self, time_s: Floats) -> list[tuple[int, float]]:
        """(index, rate as part of the nominal one) at each end of a stretch; a gap, or a time going back, breaks it."""
        step = np.diff(time_s, prepend=self._last_s) * self.rate_hz
        broken = np.flatnonzero(~((step >= 0) & (step <= self._gap_rows))).tolist()
        found: list[tuple[int, float]] = []
        start = 0
        for stop in [*broken, len(time_s)]:
            found += self._unbroken(time_s, start, stop)
            if stop < len(time_s):
                self._begin_s, self._count = float(time_s[stop]), 0
            start = stop + 1
        self._last_s = float(time_s[-1])
        return found

    def _unbroken(self, time_s: Floats, start: int, stop: int) -> list[tuple[int, float]]:
        found = []
        end = start + self.samples - self._count - 1
        while end < stop:
            passed_s = float(time_s[end]) - self._begin_s
            found.append((end, self.samples / passed_s / self.rate_hz if passed_s > 0 else math.inf))
            self._begin_s, self._count, start = float(time_s[end]), 0, end + 1
            end += self.samples
        self._count += max(0, stop - start)
        return found


class NormalCourse:
    """Measures normal running.

    Args:
        names: of the channels, in the order of the columns.
        rate_hz: nominal.
    """

    def __init__(self, names: tuple[str, ...], rate_hz: float) -> None:
        self._names, self._runs, self._meter = names, Runs(len(names)), RateMeter(rate_hz)
        self._rows, self._rate, self._rates = 0, 1.0, (1.0, 1.0)
        self._low, self._high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
        self._run, self._step = np.zeros(len(names), np.int64), np.zeros(len(names))
        self._last = np.full((1, len(names)), np.nan)

    def restart(self) -> None:
        """What follows is not next to what was before."""
        self._runs, self._last = Runs(len(self._names)), np.full((1, len(self._names)), np.nan)

    def push(self, time_s: Floats, values: Floats) -> None:
        """The next rows: (m,) epoch seconds and (m, C) values; a row of the time before it is a held one, left out."""
        values = np.asarray(values, np.float64)
        if not len(values):
            return
        self._rows += len(values)
        real = np.diff(time_s, prepend=np.nan) != 0
        for rate in (rate for _, rate in self._meter.push(time_s[real]) if math.isfinite(rate)):
            slowest, fastest = self._rates  # of two stretches in a row: one alone raises no alarm either
            self._rates = min(slowest, max(rate, self._rate)), max(fastest, min(rate, self._rate))
            self._rate = rate
        finite = np.isfinite(values)
        self._low = np.minimum(self._low, np.where(finite, values, np.inf).min(axis=0))
        self._high = np.maximum(self._high, np.where(finite, values, -np.inf).max(axis=0))
        run, _ = self._runs.push(values, finite)
        self._run = np.maximum(self._run, run.max(axis=0))
        step = np.abs(np.diff(np.concatenate((self._last, values)), axis=0))
        self._step = np.maximum(self._step, np.where(np.isfinite(step), step, 0.0).max(axis=0))
        self._last = values[-1:].copy()

    def normal(self) -> Normal:
        """Of all that was pushed."""
        columns = (self._names, self._low.tolist(), self._high.tolist(), self._run.tolist(), self._step.tolist())
        channels = tuple(NormalChannel(*each) for each in zip(*columns, strict=True) if math.isfinite(each[1]))
        return Normal(self._rows, self._rates, channels)
