"""What a source gives while it is watched: figures a channel, rate, jitter, and a sparkline.

Rules: memory does not grow with the time of watching; what is said of the source is what `health` would say.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tocsin.records import Channel, Floats, Ints, SampleBlock
from tocsin.sources import MeteredSource
from tocsin.sources.metered import OFF

BARS = "▁▂▃▄▅▆▇█"
SPARKS = 24
FEW = 20  # samples, too few to tell a rate


class Readings:
    """Counts the blocks of one source.

    Args:
        channels: columns of the blocks.
        seconds: that it will be watched.
        stated_hz: rate by the settings or the bundle, None where there is none.
    """

    def __init__(self, channels: tuple[Channel, ...], seconds: float, stated_hz: float | None) -> None:
        count = len(channels)
        self.channels, self.stated_hz, self.samples = channels, stated_hz, 0
        self._seconds, self._begin_s = seconds, time.monotonic()
        self._last, self._low, self._high = (np.full(count, fill) for fill in (np.nan, np.inf, -np.inf))
        self._sum, self._valid, self._bad = (np.zeros(count) for _ in range(3))
        self._sparks, self._in_spark = np.zeros((SPARKS, count)), np.zeros((SPARKS, count))
        self._first_s = self._last_s = math.nan
        self._intervals, self._longest_s, self._reached = 0, 0.0, 0.0
        self._lag = _Spread()

    def take(self, block: SampleBlock) -> None:
        """A block that is not empty."""
        values, valid = block.values, np.isfinite(block.values)
        self.samples += len(block)
        self._valid += valid.sum(axis=0)
        self._bad += 0 if block.bad is None else block.bad.sum(axis=0)
        self._sum += np.where(valid, values, 0.0).sum(axis=0)
        self._low = np.minimum(self._low, np.where(valid, values, np.inf).min(axis=0))
        self._high = np.maximum(self._high, np.where(valid, values, -np.inf).max(axis=0))
        newest = len(values) - 1 - np.argmax(valid[::-1], axis=0)
        columns = np.arange(values.shape[1])
        self._last = np.where(valid.any(axis=0), values[newest, columns], self._last)
        sparks = self._places(len(block))
        np.add.at(self._sparks, sparks, np.where(valid, values, 0.0))
        np.add.at(self._in_spark, sparks, valid)
        self._take_times(block)

    def _places(self, n: int) -> Ints:
        """(n,) the part of the time in which each sample came, spread from the block before to this one."""
        now = SPARKS * (time.monotonic() - self._begin_s) / self._seconds
        before, self._reached = self._reached, now
        return np.linspace(before, now, n, endpoint=False).astype(np.int64).clip(0, SPARKS - 1)

    def _take_times(self, block: SampleBlock) -> None:
        times = block.time_s - block.step_s if block.step_s else block.time_s
        gaps = np.diff(times, prepend=self._last_s)[int(math.isnan(self._last_s)) :]
        self._longest_s = max(self._longest_s, float(gaps.max(initial=0.0)))
        self._intervals += len(gaps)
        self._first_s = float(times[0]) if math.isnan(self._first_s) else self._first_s + block.step_s
        self._last_s = float(block.time_s[-1])
        self._lag.add(block.arrived_s - float(times[-1]))

    @property
    def rate_hz(self) -> float | None:
        """Samples a second by their stamps; None where too few came."""
        span_s = self._last_s - self._first_s
        return self._intervals / span_s if self.samples >= FEW and span_s > 0 else None

    @property
    def jitter_s(self) -> float | None:
        """Standard deviation of how much later than its stamp a block arrives."""
        return self._lag.deviation

    def channel(self, n: int) -> dict[str, Any]:
        """Figures of a channel; None where no value came."""
        none = not self._valid[n]
        return {
            "channel": self.channels[n].name,
            "unit": self.channels[n].unit,
            "last": None if none else float(self._last[n]),
            "min": None if none else float(self._low[n]),
            "mean": None if none else float(self._sum[n] / self._valid[n]),
            "max": None if none else float(self._high[n]),
            "missing": int(self.samples - self._valid[n]),
            "bad": int(self._bad[n]),
            "problem": self._problem(n),
        }

    def _problem(self, n: int) -> str:
        if not self._valid[n]:
            return "no value"
        if self.samples >= FEW and self._low[n] == self._high[n]:
            return "stands still"
        return ""

    def sparkline(self, n: int) -> str:
        """The course of a channel's means; blank where nothing came."""
        with np.errstate(invalid="ignore"):
            return sparkline(self._sparks[:, n] / self._in_spark[:, n])

    def report(self, source: MeteredSource) -> dict[str, Any]:
        """All of it, as `--json` prints it."""
        counts = source.counts
        return {
            "samples": self.samples,
            "rate_hz": self.rate_hz,
            "stated_hz": self.stated_hz,
            "jitter_s": self.jitter_s,
            "longest_gap_s": self._longest_s,
            "bad": counts.bad,
            "lost": counts.lost,
            "late": counts.late,
            "clock_steps": counts.clock_steps,
            "reasons": dict(counts.reasons),
            "channels": [self.channel(n) for n in range(len(self.channels))],
        }


def problems(report: dict[str, Any]) -> list[str]:
    """What has to be mended before a model can rely on the source; in sentences."""
    if not report["samples"]:
        return ["no sample came: does the other side send, and are address and settings right?"]
    found = []
    silent = [each["channel"] for each in report["channels"] if each["last"] is None]
    if silent:
        found.append(f"{', '.join(silent)}: no value came: is it wired, and its key, node or register right?")
    rate_hz, stated_hz = report["rate_hz"], report["stated_hz"]
    if rate_hz is not None and stated_hz is not None and abs(rate_hz / stated_hz - 1) > OFF:
        found.append(
            f"{rate_hz:.4g} samples a second come, {stated_hz:.4g} are stated: set rate_hz, or mend the sender"
        )
    return found


def notes(report: dict[str, Any]) -> list[str]:
    """What may be as it should; in sentences."""
    still = [each["channel"] for each in report["channels"] if each["problem"] == "stands still"]
    return [f"{', '.join(still)}: stands still: right for a machine that is off, or a setting"] if still else []


def sparkline(values: Floats) -> str:
    """A bar for each value, from the smallest to the largest; NaN is blank.

    >>> sparkline(np.array([0.0, 1.0, np.nan, 7.0]))
    '▁▂ █'
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return " " * len(values)
    low, span = float(finite.min()), float(np.ptp(finite)) or 1.0
    return "".join(
        BARS[min(len(BARS) - 1, int((value - low) / span * len(BARS)))] if math.isfinite(value) else " "
        for value in values.tolist()
    )


@dataclass
class _Spread:
    """Mean and deviation in one pass, by Welford, Technometrics 4(3), 1962."""

    n: int = 0
    mean: float = 0.0
    square: float = 0.0

    def add(self, value: float) -> None:
        self.n += 1
        step = value - self.mean
        self.mean += step / self.n
        self.square += step * (value - self.mean)

    @property
    def deviation(self) -> float | None:
        return math.sqrt(self.square / (self.n - 1)) if self.n > 1 else None
