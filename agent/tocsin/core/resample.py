"""Samples → rows on a fixed grid.

```
samples   x   x  x    x        x x          NaN NaN … NaN      x
rows      x   x  x    x   x̄    x          | (gap, windows restart) x
                          └ held             └ held up to `max_gap_s`, then dropped
```
A sample within half a grid step of its place is the next row, so a clock that runs slightly fast or slow is
followed. A missing row, and a channel without a value, hold the last value for at most `max_gap_s`; past that
nothing is invented: the rows are left out and the next one says `after_gap`. Each row depends on the samples up to
it alone, and on no block boundary.
"""

import numpy as np

from tocsin.records import Bools, Floats, Ints, Rows, SampleBlock


class Resampler:
    """Puts a stream of sample blocks on a grid of `sample_rate_hz`.

    Args:
        sample_rate_hz: rows a second.
        channels: C.
        max_gap_s: longest stretch, in seconds, over which the last value is held.

    Attributes:
        repeated: samples dropped because their row was taken already.
        backwards: times at which the clock went back by half a row or more.
        gaps: stretches left out because they were longer than `max_gap_s`.
        held: rows in which some channel repeats an older value.
    """

    def __init__(self, sample_rate_hz: float, channels: int, max_gap_s: float) -> None:
        self.rate = sample_rate_hz
        self.limit_rows = max(0, round(max_gap_s * sample_rate_hz))
        self.repeated = self.backwards = self.gaps = self.held = 0
        self._seen = 0
        self._last_time: float | None = None
        self._last = np.full(channels, np.nan)
        self._age = np.zeros(channels, np.int64)
        self._broken = True
        self._before = (np.nan, -1)

    def push(self, block: SampleBlock) -> list[Rows]:
        """Rows that the block completes, one `Rows` for each unbroken stretch."""
        if block.step_s and self._last_time is not None:  # the clock was set: the stream goes on in the new one
            self._last_time += block.step_s
        kept, step, restart = self._steps(block.time_s)
        sample = (self._seen + kept).astype(np.int64)
        self._seen += len(block)
        out: list[Rows] = []
        for start, stop in _stretches(restart):
            if restart[start]:
                self._restart()
            part = kept[start:stop]
            out += self._fill(block.time_s[part], block.values[part], sample[start:stop], step[start:stop])
        return out

    def _steps(self, time_s: Floats) -> tuple[Ints, Ints, Bools]:
        """Samples kept (their index in the block), rows since the one before, and where a new stretch starts."""
        n = len(time_s)
        keep, restart, step = np.ones(n, np.bool_), np.zeros(n, np.bool_), np.ones(n, np.int64)
        before = np.concatenate(([np.nan if self._last_time is None else self._last_time], time_s[:-1]))[:n]
        irregular = np.flatnonzero(~(np.abs((time_s - before) * self.rate - 1.0) < 0.5)).tolist()
        done = 0
        for first in irregular:
            if first < done:
                continue
            last, i = before[first], first
            while i < n and -0.5 < (rows := (time_s[i] - last) * self.rate) <= 0.5:
                keep[i] = False  # its row is taken
                i += 1
            if i < n:
                restart[i] = not -0.5 < rows <= self.limit_rows + 1.5
                step[i] = 1 if restart[i] else round(rows)
                self.backwards += int(rows <= -0.5)
                self.gaps += int(rows > self.limit_rows + 1.5)
            done = i + 1
        self.repeated += int(n - np.count_nonzero(keep))
        kept = np.flatnonzero(keep)
        if len(kept):
            self._last_time = float(time_s[kept[-1]])
        return kept, step[kept], restart[kept]

    def _restart(self) -> None:
        self._last[:] = np.nan
        self._age[:] = 0
        self._broken = True

    def _fill(self, time_s: Floats, values: Floats, sample: Ints, step: Ints) -> list[Rows]:
        """Rows of one stretch, held values in, split where a channel was silent for too long."""
        at = np.cumsum(step) - 1  # row of each sample; rows between are missing
        rows = int(at[-1]) + 1
        newest = np.searchsorted(at, np.arange(rows), side="right") - 1  # −1: before the stretch's first sample
        full = np.full((rows, values.shape[1]), np.nan)
        full[at] = np.where(np.isfinite(values), values, np.nan)

        index = np.where(np.isnan(full), -1, np.arange(rows)[:, None])
        held_from = np.maximum.accumulate(index, axis=0)
        age = np.where(held_from >= 0, np.arange(rows)[:, None] - held_from, self._age + 1 + np.arange(rows)[:, None])
        filled = np.where(held_from >= 0, np.take_along_axis(full, np.maximum(held_from, 0), axis=0), self._last)
        usable: Bools = np.all((age <= self.limit_rows) & ~np.isnan(filled), axis=1)
        self.held += int(np.count_nonzero(usable & (age > 0).any(axis=1)))

        previous_time, previous_sample = self._before
        stamp = np.where(newest >= 0, time_s[np.maximum(newest, 0)], previous_time)
        origin = np.where(newest >= 0, sample[np.maximum(newest, 0)], previous_sample)
        self._last, self._age = filled[-1].copy(), age[-1].copy()
        self._before = (float(time_s[-1]), int(sample[-1]))

        self.gaps += int(np.count_nonzero(np.diff(np.concatenate(([not self._broken], usable)).astype(np.int8)) < 0))
        out = []
        edges = np.flatnonzero(np.diff(np.concatenate(([False], usable, [False])).astype(np.int8)))
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            out.append(Rows(stamp[start:stop], filled[start:stop], origin[start:stop], self._broken or start > 0))
            self._broken = False
        self._broken |= not usable[-1]
        return out


def _stretches(restart: Bools) -> list[tuple[int, int]]:
    """[start, stop) of each run that no restart interrupts."""
    starts = sorted({0, *np.flatnonzero(restart).tolist()})
    return list(zip(starts, [*starts[1:], len(restart)], strict=True)) if len(restart) else []
