"""Blocks of several rate groups → rows on one grid.

```
time                    ──────────────────────────────────────────────►
base, 1 Hz              ·              │              │              │        a joined row at each
vibration, 4 kHz        ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
                           └── frame ──┴─ frame ──────┴── frame ─────┘        its last rows up to then
temperature, 0.1 Hz     ─────·─────────────────────────·──────────            hold: the newest up to then
```
Rules: rows are joined by the times of samples, never by arrival. A row is made once every group has a sample of its
time or later, so that it does not matter how the streams are cut into blocks and which comes first; a group that lags
is waited for `wait_s` of arrival time, and what comes later than that is counted; the base may come in bursts, as long
as what the others gave meanwhile is not too much to keep; a group that has ended is waited for no longer. A row shows
nothing of a later time than its own. A group without a whole frame shows its last one, a silent group its last value,
for at most `max_age_s`; past that the row is left out and the next one says `after_gap`. When a clock goes back, a
group begins anew; one that was set, and whose blocks say so, changes nothing (`tocsin.core.clock_steps`).
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tocsin.core.clock_steps import ClockSteps
from tocsin.core.groups import Group, RateGroups
from tocsin.core.preprocess.pipeline import transformed
from tocsin.core.resample import Resampler
from tocsin.records import Bools, Floats, Ints, Rows, SampleBlock

PIECE = 1 << 18  # values of the frames that are prepared at once: 2 MiB
FEW_ROWS = 4096  # are kept as they came
KEPT = 1 << 24  # bytes of a group that are kept for a base which lags
MOST_GOLDEN, MOST_LOOKED_AT = 1 << 20, 1 << 26  # numbers that golden samples may become, and features may look at


class Joiner:
    """Puts the groups of an asset on their grids, and joins them.

    Args:
        groups: of the asset.
        wait: give up on a group that lags for longer than `groups.wait_s`, by the arrival of blocks; else wait until
            `finish`, as for recordings.
        kept: bytes of a group that are kept for a base which lags by more than `groups.wait_s`; all of them where
            there is no waiting.

    Attributes:
        resamplers: one a group.
        dropped: (G,) rows of each group that were let go before the base came.
        late: (G,) samples of each group that came after their row was made.
        silent: (G,) joined rows that were left out because this group had nothing young enough; from the first row
            that was made.
        left_out: such rows, of whichever group.
        gaps: stretches left out.
    """

    def __init__(self, groups: RateGroups, wait: bool = True, kept: int = KEPT) -> None:
        self.groups, self._kept = groups, kept
        self.resamplers = tuple(Resampler(g.sample_rate_hz, len(g.channels), g.max_gap_s) for g in groups.groups)
        self.late, self.silent, self.dropped = np.zeros((3, len(groups.groups)), np.int64)
        self._joined_gaps = self.left_out = 0
        self._begun = False
        self._wait_s = groups.wait_s if wait else np.inf
        self._lanes = tuple(_Lane(group, groups.sample_rate_hz) for group in groups.groups)
        self._ticks = _Ticks(groups.every)
        self._now, self._closed, self._whole = -np.inf, -np.inf, False
        self._steps = ClockSteps(len(groups.groups))

    @property
    def gaps(self) -> int:
        """Stretches left out, of the base alone where there is nothing to join."""
        return self.resamplers[0].gaps if self.groups.alone else self._joined_gaps

    def push(self, group: int, block: SampleBlock) -> list[Rows]:
        """Joined rows that a block of one group completes, one `Rows` for each unbroken stretch."""
        rows = self.resamplers[group].push(block)
        if self.groups.alone:
            return rows
        if block.step_s and len(block):
            self._steps.step(group, block.step_s, float(block.time_s[0]))
        return self.join(group, rows, float(block.time_s[-1]), block.arrived_s) if len(block) else []

    def join(self, group: int, rows: list[Rows], newest_s: float, arrived_s: float = 0.0) -> list[Rows]:
        """As `push`, for samples that are on the group's grid already.

        Args:
            group: index.
            rows: in order.
            newest_s: time of the newest sample of the group, which may have given no row.
            arrived_s: monotonic seconds of its arrival.
        """
        lane, ahead_s = self._lanes[group], float(self._steps.ahead_s[group])
        self._now = max(self._now, arrived_s)
        for part in rows:
            time_s = lane.add(replace(part, time_s=part.time_s - ahead_s) if ahead_s else part)
            if group == self.groups.base:
                self._ticks.add(part, time_s, arrived_s)
            else:
                self.late[group] += int(np.count_nonzero(time_s <= self._closed))
        lane.newest = newest_s - ahead_s
        return self._advance()

    def end(self, group: int) -> list[Rows]:
        """Joined rows that waited for a group of which nothing will come any more; it shows its last for its age."""
        self._lanes[group].ended = True
        return [] if self.groups.alone else self._advance()

    def _advance(self) -> list[Rows]:
        """Makes the rows that are ready, and lets go of what they alone needed."""
        out = self._close(self._ready())
        self._settle()
        self._forget()
        return out

    def _settle(self) -> None:
        """A clock that was set for some groups alone: from here on all stamps are taken as they are."""
        shift_s = self._steps.settle(np.array([np.inf if lane.ended else lane.newest for lane in self._lanes]))
        if shift_s is None:
            return
        for lane, by_s in zip(self._lanes, shift_s.tolist(), strict=True):
            lane.shift(by_s)
        self._ticks.time_s = self._ticks.time_s + shift_s[self.groups.base]
        self._closed = -np.inf

    def finish(self) -> list[Rows]:
        """Rows that still wait, when nothing comes any more."""
        return [] if self.groups.alone else self._close(len(self._ticks))

    def _ready(self) -> int:
        """How many of the waiting rows can be made."""
        others = (lane.newest for n, lane in enumerate(self._lanes) if n != self.groups.base and not lane.ended)
        newest = min(others, default=np.inf)
        ready = (self._ticks.time_s <= newest) | (self._now - self._ticks.arrived_s > self._wait_s)
        return len(ready) if ready.all() else int(ready.argmin())

    def _close(self, count: int) -> list[Rows]:
        """Makes the next so many rows."""
        if not count:
            return []
        ticks = self._ticks.take(count)
        made = [lane.columns(ticks.time_s) for lane in self._lanes]
        values = np.concatenate([part for part, _ in made], axis=1)
        valid: Bools = np.all([good for _, good in made], axis=0)
        first = 0 if self._begun else int(np.concatenate((valid, [True])).argmax())
        self._begun |= bool(valid.any())
        self.silent += np.array([np.count_nonzero(~good[first:]) for _, good in made])
        self.left_out += int(np.count_nonzero(~valid[first:]))
        before = np.concatenate(([self._whole], valid[:-1]))
        begins = valid & (ticks.after_gap | ~before)
        self._joined_gaps += int(np.count_nonzero(before & (~valid | begins)))
        self._whole, self._closed = bool(valid[-1]), float(ticks.time_s[-1])
        kept = np.flatnonzero(valid)
        out = []
        for part in np.split(kept, np.flatnonzero(begins[kept][1:]) + 1):
            if len(part):
                out.append(Rows(ticks.stamp_s[part], values[part], ticks.sample[part], bool(begins[part[0]])))
        return out

    def _forget(self) -> None:
        """Lets go of what no row to come can show."""
        base = self._lanes[self.groups.base]
        needed = float(self._ticks.time_s.min()) if len(self._ticks) else np.inf if base.ended else base.newest
        for n, lane in enumerate(self._lanes):
            lane.forget(needed)
            self.dropped[n] += lane.limit(self._kept, lane.newest - self._wait_s - 2 / self.groups.sample_rate_hz)


def joined(groups: RateGroups, samples: tuple[SampleBlock, ...]) -> Floats:
    """(m, D) the rows that recorded samples of each group are joined to, gaps left out."""
    joiner = Joiner(groups, wait=False)
    parts = [rows for n, block in enumerate(samples) for rows in joiner.push(n, block)] + joiner.finish()
    return np.concatenate([np.empty((0, len(groups.columns))), *(rows.values for rows in parts)])


def check_golden(groups: RateGroups, samples: tuple[SampleBlock, ...]) -> None:
    """Bounds what `joined` would make of samples, before anything of that size is made.

    Raises:
        ValueError: times that are no numbers, or so many rows, held ones among them, as no bundle needs.
    """
    rows = []
    for group, block in zip(groups.groups, samples, strict=True):
        if not np.isfinite(block.time_s).all():
            raise ValueError(f"group {group.name[:40]!r}: times of samples that are no finite numbers")
        steps = np.diff(block.time_s) * group.sample_rate_hz
        held = steps[(steps > 0) & (steps <= group.max_gap_s * group.sample_rate_hz + 2)]  # longer ones are gaps
        rows.append(len(block) + float(held.sum()))
    made = rows[groups.base] / groups.every
    each = [count * (1 + len(group.channels)) for count, group in zip(rows, groups.groups, strict=True)]
    numbers = sum(each) + made * len(groups.columns)
    looked_at = made * sum(group.frame * len(group.channels) for group in groups.groups if group.features)
    if numbers > MOST_GOLDEN or looked_at > MOST_LOOKED_AT:
        raise ValueError(
            f"samples that are joined from {numbers:.3g} numbers, with features of {looked_at:.3g}: expected at most "
            f"{MOST_GOLDEN} and {MOST_LOOKED_AT}"
        )


class _Ticks:
    """Rows of the base at which a joined row is to be made: one each `every` rows of an unbroken stretch."""

    def __init__(self, every: int) -> None:
        self._every, self._count = every, 0
        self._gap = True
        self.time_s: Floats = np.empty(0)
        self.stamp_s: Floats = np.empty(0)
        self.arrived_s: Floats = np.empty(0)
        self.sample: Ints = np.empty(0, np.int64)
        self.after_gap: Bools = np.empty(0, np.bool_)

    def __len__(self) -> int:
        return len(self.time_s)

    def add(self, rows: Rows, time_s: Floats, arrived_s: float) -> None:
        """Rows of the base, with their places in time."""
        if rows.after_gap:
            self._count, self._gap = 0, True
        chosen = slice(self._every - 1 - self._count % self._every, None, self._every)
        self._count += len(rows)
        count = len(time_s[chosen])
        gap = np.zeros(count, np.bool_)
        if count:
            gap[0], self._gap = self._gap, False
        self.time_s = np.concatenate((self.time_s, time_s[chosen]))
        self.stamp_s = np.concatenate((self.stamp_s, rows.time_s[chosen]))
        self.arrived_s = np.concatenate((self.arrived_s, np.full(count, arrived_s)))
        self.sample = np.concatenate((self.sample, rows.sample[chosen]))
        self.after_gap = np.concatenate((self.after_gap, gap))

    def take(self, count: int) -> "_Ticks":
        """The first so many, which are forgotten here."""
        taken = _Ticks(self._every)
        for name in ("time_s", "stamp_s", "arrived_s", "sample", "after_gap"):
            every = getattr(self, name)
            setattr(taken, name, every[:count])
            setattr(self, name, every[count:])
        return taken


class _Lane:
    """The last rows of one group, and what it shows at a time."""

    def __init__(self, group: Group, joined_rate_hz: float) -> None:
        self.group, self.newest, self.ended = group, -np.inf, False
        self._step = 1 / group.sample_rate_hz
        self._frame = group.frame if group.features else max(1, round(group.sample_rate_hz / joined_rate_hz))
        self._chunks: list[tuple[Floats, Floats, Ints]] = [
            (np.empty(0), np.empty((0, len(group.channels))), np.empty(0, np.int64))
        ]
        self._run, self._last = 0, (-1, -np.inf)  # rows since a gap; the newest sample's index, and its row's time

    def add(self, rows: Rows) -> Floats:
        """Takes rows; gives the place in time of each: a row that repeats a sample comes later than that."""
        m = len(rows)
        fresh = np.diff(rows.sample, prepend=rows.sample[0] - 1 if rows.after_gap else self._last[0]) != 0
        origin = np.maximum.accumulate(np.where(fresh, np.arange(m), -1))
        behind = np.arange(m) - origin
        time_s = np.where(
            origin >= 0,
            rows.time_s + np.where(origin >= 0, behind, 0) * self._step,
            self._last[1] + behind * self._step,
        )
        self._run = 0 if rows.after_gap else self._run
        run = np.arange(self._run + 1, self._run + m + 1)
        self._run, self._last = int(run[-1]), (int(rows.sample[-1]), float(time_s[-1]))
        if len(self._chunks[-1][0]) and time_s[0] <= self._chunks[-1][0][-1]:
            old_s, old, old_run = self._chunks[0]
            self._chunks = [(old_s[:0], old[:0], old_run[:0])]
        self._chunks.append((time_s, rows.values, run))
        return time_s

    def shift(self, by_s: float) -> None:
        """What is kept was measured so much later."""
        self._chunks = [(time_s + by_s, values, run) for time_s, values, run in self._chunks]
        self._last, self.newest = (self._last[0], self._last[1] + by_s), self.newest + by_s

    def _rows(self) -> tuple[Floats, Floats, Ints]:
        """All that is kept, as one."""
        if len(self._chunks) > 1:
            times, values, runs = zip(*self._chunks, strict=True)
            self._chunks = [(np.concatenate(times), np.concatenate(values), np.concatenate(runs))]
        return self._chunks[0]

    def forget(self, before_s: float) -> None:
        """Lets go of rows that are of no use from a time on."""
        if len(self._chunks) > 1 and sum(len(run) for _, _, run in self._chunks[1:]) < 4 * self._frame + FEW_ROWS:
            return  # they are laid together when they are looked at
        cut = self._first_of_use(before_s)
        if 2 * cut > len(self._rows()[0]):  # else moving the rest costs more than it saves
            self._drop(cut)

    def limit(self, most: int, sure_s: float) -> int:
        """Where more than so many bytes are kept, lets go of the older half, but of nothing of use from a time on.

        Returns:
            Rows that were let go.
        """
        if sum(time_s.nbytes + values.nbytes + run.nbytes for time_s, values, run in self._chunks) <= most:
            return 0
        count = len(self._rows()[0])
        cut = min(count // 2, self._first_of_use(sure_s))
        if 4 * cut <= count:
            return 0
        self._drop(cut)
        return cut

    def _first_of_use(self, from_s: float) -> int:
        """The first row that may be shown from a time on."""
        oldest = from_s - self.group.max_age_s - 2 * self._step
        return max(0, int(np.searchsorted(self._rows()[0], oldest)) - self._frame - 1)

    def _drop(self, cut: int) -> None:
        time_s, values, run = self._rows()
        self._chunks = [(time_s[cut:].copy(), values[cut:].copy(), run[cut:].copy())]

    def columns(self, at_s: Floats) -> tuple[Floats, Bools]:
        """(k, D) what the group shows at ascending times, and (k,) whether that is whole and young enough."""
        time_s, values, run = self._rows()
        count = len(self.group.columns)
        if not len(time_s):
            return np.zeros((len(at_s), count)), np.zeros(len(at_s), np.bool_)
        newest = np.searchsorted(time_s, at_s, side="right") - 1
        if self.group.features:
            end = self._whole_frames(newest, run)
            valid = self._young(at_s, time_s, end)
            out = np.zeros((len(at_s), count))
            out[valid] = self._features(values, end[valid])
            return out, valid
        valid = self._young(at_s, time_s, newest)
        out = values[np.maximum(newest, 0)].copy()
        for kind in set(self.group.align) - {"hold"}:
            own = np.flatnonzero([align == kind for align in self.group.align])
            if kind == "interpolate":
                out[:, own] = self._between(at_s, time_s, values[:, own], run, newest)
            elif self._frame > 1:
                end = self._whole_frames(newest, run)
                valid &= self._young(at_s, time_s, end)
                out[valid[:, None] & np.isin(np.arange(count), own)] = self._means(values[:, own], end[valid]).ravel()
        return out, valid

    def _young(self, at_s: Floats, time_s: Floats, place: Ints) -> Bools:
        """Whether there is a row at the place, neither too old nor of a later time."""
        age_s = at_s - time_s[np.maximum(place, 0)]
        young: Bools = (place >= 0) & (age_s >= 0) & (age_s <= self.group.max_age_s)
        return young

    def _whole_frames(self, newest: Ints, run: Ints) -> Ints:
        """Last row of the latest unbroken frame that ends at or before each place; −1 where there is none."""
        at = np.arange(len(run))
        whole = (run >= self._frame) & (at >= self._frame - 1)
        latest = np.maximum.accumulate(np.where(whole, at, -1))
        return np.where(newest >= 0, latest[np.maximum(newest, 0)], -1)

    def _frames(self, values: Floats, end: Ints) -> Iterator[Floats]:
        """(k, frame, C) in pieces that fit the processor's cache."""
        count = max(1, PIECE // (self._frame * values.shape[1]))
        for n in range(0, len(end), count):
            views = sliding_window_view(values, self._frame, axis=0)
            yield np.ascontiguousarray(views[end[n : n + count] - self._frame + 1].transpose(0, 2, 1))

    def _features(self, values: Floats, end: Ints) -> Floats:
        """(k, C · F) each channel's features side by side."""
        made = (transformed(self.group.features, piece) for piece in self._frames(values, end))
        shape = (-1, len(self.group.columns))
        return np.concatenate([np.empty((0, shape[1])), *(part.transpose(0, 2, 1).reshape(shape) for part in made)])

    def _means(self, values: Floats, end: Ints) -> Floats:
        """(k, C) means over the frames."""
        made = (piece.mean(axis=1) for piece in self._frames(values, end))
        return np.concatenate([np.empty((0, values.shape[1])), *made])

    def _between(self, at_s: Floats, time_s: Floats, values: Floats, run: Ints, newest: Ints) -> Floats:
        """(k, C) values one sampling step ago, on the line between the samples around: both are there already.

        No line is drawn over a gap: the first row after it is shown until there is a second one.
        """
        when = at_s - self._step
        low = np.clip(np.searchsorted(time_s, when, side="right") - 1, 0, None)
        high = np.minimum(low + 1, np.maximum(newest, 0))
        low = np.where(run[high] == 1, high, np.minimum(low, high))
        span = time_s[high] - time_s[low]
        part = np.clip((when - time_s[low]) / np.where(span > 0, span, 1.0), 0.0, 1.0)[:, None]
        between: Floats = values[low] + part * (values[high] - values[low])
        return between
