"""Values that come one channel at a time → rows of all channels at a steady rate.

```
pressure   4.1            4.2                4.3            each with the time it was measured
flow          30                      bad
rows       |      |      |      |      |      |      |      `rate_hz` a second
pressure      4.1    4.1    4.2    4.2    4.2    4.3        the newest value up to the row's end, held
flow           30     30     30     30    NaN    NaN        for `hold_s` at most; what is called bad is no value
```
Rules: rows follow the clock that stamps the values, not the clock of arrival; between values it runs on with the
monotonic one. A row closes half a period after its place and `wait_s` later, so that all channels have reported. Its
stamp is the time of its newest value where that lies near the row's place (a fifth of a period), else the nearest such
time, so that two rows are never far from a period apart; places follow the values slowly, so that a stream at about
`rate_hz` gives one row a value and keeps its own stamps. A value older than the last row counts from the next row on.
When two stamps of a channel in a row run ahead, or go back, by the same, their clock was set: rows go on without a gap,
and the block says by how much; one alone is late, or wild, and counts from when it came. Where another channel kept to
the clock between the two, the channel has a clock of its own, and its stamps are brought to that of the others. Where
values come only when they change, rows go on while nothing comes; elsewhere they stop, and what was held up fills its
rows when it comes. No row comes while no channel has a value that is young enough.
"""

import numpy as np

from tocsin.records import Bools, Floats, SampleBlock
from tocsin.sources.clock import SMALLEST_STEP_S
from tocsin.sources.source import SourceCounts

LATEST_S = 4_102_444_800.0  # 2100: what is after it is no stamp of a sample
_LONGEST_S = 10.0  # without values to catch up on: rows in between are not made up
_NEAR = 0.2  # of a period: a row keeps the time of its newest value
_FOLLOW = 0.1  # of the distance between a row's values and its place, by which the next place moves
_MOST_ROWS = 65536  # a call: what is more comes with the next


class HeldRows:
    """Collects values, gives rows.

    Args:
        channels: C.
        rate_hz: rows a second.
        counts: of the source: `late` and `clock_steps` are counted here.
        hold_s: how long, after it arrived, a value stands for its channel.
        wait_s: how much later than the fastest a value may arrive.
        on_change: values come only when they change.
    """

    def __init__(
        self,
        channels: int,
        rate_hz: float,
        counts: SourceCounts,
        hold_s: float = np.inf,
        wait_s: float = 0.0,
        on_change: bool = False,
    ) -> None:
        self._period, self._hold, self._wait, self._counts = 1.0 / rate_hz, hold_s, wait_s, counts
        self._on_change = on_change
        self._smallest_step = max(SMALLEST_STEP_S, 2.5 * self._period)
        self._value, self._of, self._came = (np.full(channels, fill) for fill in (np.nan, -np.inf, -np.inf))
        self._newest = [-np.inf] * channels  # stamp of the newest value that came
        self._odd = [np.nan] * channels  # stamp − arrival of the last value, where it did not go with the clock
        self._own = np.zeros(channels)  # by how much a channel's own clock is ahead of that of the rows
        self._since = np.full(channels, -np.inf)  # arrival of the first of a channel's odd stamps
        self._heard = np.full(channels, -np.inf)  # arrival of its last stamp
        self._kept = np.zeros(channels, np.bool_)  # a stamp went with the clock since then
        self._pending: list[tuple[float, int, float, float]] = []
        self._clock = _Clock()
        self._place: float | None = None
        self._edge, self._step_s = -np.inf, 0.0

    def put(self, time_s: float, channel: int, value: float, arrived_s: float) -> None:
        """One value.

        Args:
            time_s: epoch seconds at which it was measured; finite.
            channel: 0 … C − 1.
            value: NaN: called bad.
            arrived_s: monotonic seconds.
        """
        ahead, most = self._clock.ahead_s, self._clock.most_s
        stamp_s, time_s = time_s, time_s - float(self._own[channel])
        self._heard[channel] = arrived_s
        if ahead is not None and most is not None:
            forward = time_s - arrived_s - most > self._smallest_step
            if abs(time_s - arrived_s - self._odd[channel]) <= SMALLEST_STEP_S:
                self._counts.late -= 1  # the one before was not late: the clock was set
                self._set(channel, time_s - arrived_s - ahead)
                time_s = stamp_s - float(self._own[channel])
            elif forward or time_s < self._newest[channel] - SMALLEST_STEP_S:
                self._odd[channel], self._since[channel] = time_s - arrived_s, arrived_s
                self._kept[channel] = False
                self._counts.late += 1
                self._pending.append((arrived_s + ahead, channel, value, arrived_s))
                return
        self._odd[channel], self._kept[:] = np.nan, True
        self._clock.shows(time_s, arrived_s)
        self._newest[channel] = max(time_s, self._newest[channel])
        self._pending.append((time_s, channel, value, arrived_s))

    def _set(self, channel: int, step_s: float) -> None:
        """The clock of a channel was set, or is not that of the others."""
        if abs(step_s) <= SMALLEST_STEP_S:
            return  # another channel told it before
        if not self._kept[channel]:
            self._follow(step_s)
            return
        self._own[channel] += step_s
        common_s = float(self._own[channel])
        same = np.abs(self._own - common_s) <= SMALLEST_STEP_S
        if same[self._heard >= self._since[channel]].all():
            self._own[same] = 0.0  # all that were heard since went the same way: it was one clock
            self._follow(common_s)

    def clock_shows(self, time_s: float, arrived_s: float) -> None:
        """The clock that stamps the values was read, without a value: epoch seconds, monotonic seconds."""
        self._clock.says(time_s, arrived_s)

    def _follow(self, step_s: float) -> None:
        """The clock was set: all that is known is moved to where it is now."""
        self._pending = [(time_s + step_s, *rest) for time_s, *rest in self._pending]  # type: ignore[misc]
        self._newest = [time_s + step_s for time_s in self._newest]
        self._of += step_s
        self._edge += step_s
        self._clock = _Clock()
        if self._place is not None:
            self._place += step_s
            self._step_s += step_s
            self._counts.clock_steps += 1

    def forget(self) -> None:
        """The link was lost: no channel has a value; the next row is one of values to come."""
        self._value[:], self._of[:], self._came[:] = np.nan, -np.inf, -np.inf
        self._newest, self._odd = [-np.inf] * len(self._value), [np.nan] * len(self._value)
        self._pending.clear()
        self._own[:], self._since[:], self._heard[:], self._kept[:] = 0.0, -np.inf, -np.inf, False
        self._clock, self._place = _Clock(), None

    def block(self, now_s: float) -> SampleBlock:
        """The rows that are complete.

        Args:
            now_s: monotonic seconds.
        """
        times: list[float] = []
        rows: list[Floats] = []
        bad: list[Bools] = []
        ahead = self._clock.ahead_s or 0.0
        until = self._until(now_s)
        if until is not None:
            self._pending.sort(key=lambda event: event[0])
            place = self._find_place(until)
            while (edge := place + self._period / 2) <= until and len(rows) < _MOST_ROWS:
                time_s = self._close_row(place, edge)
                young = np.isfinite(self._came) & (self._came >= edge - ahead - self._hold)
                if young.any():
                    times.append(time_s)
                    rows.append(np.where(young, self._value, np.nan))
                    bad.append(young & np.isnan(self._value))
                place = self._find_place(until)
        if not rows:
            return SampleBlock(np.empty(0), np.empty((0, len(self._value))), now_s)
        step_s, self._step_s = self._step_s, 0.0
        called_bad = np.asarray(bad)
        return SampleBlock(np.asarray(times), np.asarray(rows), now_s, step_s, called_bad if called_bad.any() else None)

    def _until(self, now_s: float) -> float | None:
        """The time up to which all has come that will; None: no clock, or no value, was seen yet."""
        ahead = self._clock.ahead_s
        if ahead is None:
            return None
        until = now_s + ahead - self._wait
        if not self._on_change:
            until = min(until, max(self._newest) + self._period)
        return until if np.isfinite(until) else None

    def _find_place(self, until: float) -> float:
        """Of the next row: where the last one left it, but for the first row and a long silence."""
        place = self._place
        if place is not None and abs(until - place) <= _LONGEST_S + self._period:
            return place
        if place is not None and until > place:
            coming = next((event[0] for event in self._pending if event[0] > self._edge), until)
            return place if coming - place <= _LONGEST_S else self._begin(coming, until)  # values to catch up on?
        first: dict[int, float] = {}
        for time_s, channel, *_ in self._pending:
            if time_s > until - _LONGEST_S:
                first.setdefault(channel, time_s)
        return self._begin(max(first.values(), default=until), until)  # no row before every channel has its first

    def _begin(self, place: float, until: float) -> float:
        """Rows begin at the place, or after the last row that was given."""
        edge = place - self._period / 2
        self._edge = self._edge if edge < self._edge <= until else edge
        self._place = self._edge + self._period / 2
        return self._place

    def _close_row(self, place: float, edge: float) -> float:
        """Takes in the values up to the row's end and moves on; the row's time."""
        of_row, taken = [], 0
        for time_s, channel, value, arrived_s in self._pending:
            if time_s > edge:
                break
            taken += 1
            if time_s > self._edge:
                of_row.append(time_s)
            elif np.isfinite(self._of[channel]):  # a channel's first value may be an old one
                self._counts.late += 1
            if time_s >= self._of[channel]:
                self._value[channel], self._of[channel], self._came[channel] = value, time_s, arrived_s
        del self._pending[:taken]
        self._edge = edge
        self._place = place + self._period
        if not of_row:
            return place
        self._place += _FOLLOW * (sum(of_row) / len(of_row) - place)
        return min(max(of_row[-1], place - _NEAR * self._period), place + _NEAR * self._period)


class _Clock:
    """How far the clock that stamps is ahead of the monotonic one: by the value that took the least time to arrive.

    The largest of the last `SPAN_S` or two counts, so that a clock that runs slow is followed. What the other side says
    its clock shows counts as long as all values are older than `_LONGEST_S`: they have not changed for so long.
    """

    SPAN_S = 10.0

    def __init__(self) -> None:
        self._since = self._said_at = -np.inf
        self._before = self._now = self._said = -np.inf

    def shows(self, time_s: float, arrived_s: float) -> None:
        """A value came with this stamp."""
        if arrived_s - self._since > self.SPAN_S:
            self._before, self._now, self._since = self._now, -np.inf, arrived_s
        if arrived_s - self._said_at > 2 * self.SPAN_S:
            self._said = -np.inf
        self._now = max(self._now, time_s - arrived_s)

    def says(self, time_s: float, arrived_s: float) -> None:
        """The other side told the time."""
        self._said, self._said_at = time_s - arrived_s, arrived_s

    @property
    def ahead_s(self) -> float | None:
        """Seconds; None: not known yet."""
        ahead = max(self._before, self._now)
        ahead = self._said if ahead < self._said - _LONGEST_S else ahead
        return ahead if np.isfinite(ahead) else None

    @property
    def most_s(self) -> float | None:
        """Seconds by which it may be ahead: a stamp beyond is of a clock that was set."""
        most = max(self._before, self._now, self._said)
        return most if np.isfinite(most) else None
