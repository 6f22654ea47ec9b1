"""When a sample was measured: the time rules that all sources share.

Rules: where the other side stamps, its stamps count (`StampClock`); else the arrival does (`ArrivalClock`). Between
two samples the monotonic clock is believed. When a wall clock is set, the stamps go along, and the block says by how
much (`SampleBlock.step_s`), so that the stream has no gap and none of it is doubled; steps below `SMALLEST_STEP_S`
are not followed. A stamp before `EPOCH_S`, as a clock gives that was never set, is no time.
"""

import time
from collections.abc import Callable

import numpy as np

from tocsin.records import Floats

SMALLEST_STEP_S = 1.0
EPOCH_S = 1_577_836_800.0  # 2020-01-01: a clock before it was never set
SLACK_S = 0.1  # a block so late is late, no gap: USB and the scheduler do that
AHEAD_S = 1.0  # the stamps may be ahead of the clock: a burst whose first half is read before the second
CATCH_UP_S, MOST = 1.0, 0.2  # a difference to the clock goes within about so long, spacing changed by this part at most

Clock = Callable[[], float]


class ArrivalClock:
    """Stamps for samples that carry none: evenly spaced at the stated rate, and held to the time of arrival.

    The spacing is smooth although blocks arrive with jitter: a block is appended to the one before, and the difference
    to the clock is taken out over many samples. A block that comes too late for that begins a new stretch, and leaves
    a gap.

    Args:
        rate_hz: samples a second as stated.
        wall: epoch seconds; with `monotonic` replaced in tests.

    Attributes:
        steps: how often the wall clock was set and the stamps went along.
    """

    def __init__(self, rate_hz: float, wall: Clock = time.time, monotonic: Clock = time.monotonic) -> None:
        self.steps = 0
        self._rate, self._wall, self._monotonic = rate_hz, wall, monotonic
        self._offset_s = wall() - monotonic()
        self._last_s = float("-inf")

    def stamp(self, n: int, lost: int = 0, arrived_s: float | None = None) -> tuple[Floats, float]:
        """Times of n samples of which the last has just arrived; they ascend from call to call, but for steps.

        Args:
            n: samples.
            lost: samples known to be missing before them.
            arrived_s: monotonic second at which the last was measured, where that is known; None = now.

        Returns:
            (n,) epoch seconds, and the seconds by which the clock was set before them.
        """
        if not n:
            return np.empty(0), 0.0
        monotonic_s = self._monotonic()
        step_s = self._wall() - monotonic_s - self._offset_s
        if abs(step_s) <= SMALLEST_STEP_S:
            step_s = 0.0
        else:
            self._offset_s += step_s
            self._last_s += step_s
            self.steps += 1
        now_s = self._offset_s + (monotonic_s if arrived_s is None else arrived_s)
        period = 1 / self._rate
        begin_s = self._last_s + lost * period
        length_s = n * period
        behind_s = now_s - (begin_s + length_s)
        if behind_s > max(SLACK_S, period / 2):  # a gap, or the first block
            begin_s = max(now_s - length_s, self._last_s)
        else:
            length_s *= 1 + float(np.clip(behind_s / max(CATCH_UP_S, length_s), -MOST, MOST))
            length_s = min(length_s, max(now_s + AHEAD_S - begin_s, 1e-3 * length_s))
        stamps = begin_s + np.arange(1, n + 1, dtype=np.float64) * (length_s / n)
        self._last_s = float(stamps[-1])
        return stamps, step_s


class StampClock:
    """Follows the stamps of the other side, and notices when its clock is set.

    A stream that is held up and then comes at once keeps its stamps, which are late; a hole in them is a gap. A clock
    was set where the stamps go back, or run ahead of any delay seen so far.

    Attributes:
        steps: how often the other side's clock was set.
        unset: samples whose stamp was no time: the last got the time of arrival, the others keep their distance.
    """

    def __init__(self, wall: Clock = time.time, monotonic: Clock = time.monotonic) -> None:
        self.steps = self.unset = 0
        self._unset_s = np.inf  # from a clock that was never set to ours
        self._wall, self._monotonic = wall, monotonic
        self._last: tuple[float, float] | None = None  # stamp and arrival of the newest sample
        self._lead_s = -np.inf  # the largest stamp − arrival so far: the shortest delay

    def follow(self, time_s: Floats) -> tuple[Floats, float]:
        """The stamps as they go on, and the seconds by which the clock was set before the first of them.

        Only a step before the first sample is noticed: cut a block where its stamps go back.
        """
        if not len(time_s):
            return time_s, 0.0
        arrived_s = self._monotonic()
        none = ~(np.isfinite(time_s) & (time_s >= EPOCH_S))
        if none.any():
            self.unset += int(np.count_nonzero(none))
            now_s, last_s = self._wall(), time_s[none & np.isfinite(time_s)][-1:]
            if len(last_s) and not abs(now_s - last_s[0] - self._unset_s) <= SMALLEST_STEP_S:
                self._unset_s = now_s - float(last_s[0])
            time_s = np.where(none, np.where(np.isfinite(time_s), time_s + self._unset_s, now_s), time_s)
        step_s, first_s = 0.0, float(time_s[0])
        if self._last is not None:
            stamp_s, before_s = self._last
            back = first_s - stamp_s < -SMALLEST_STEP_S
            ahead = first_s - arrived_s > self._lead_s + SMALLEST_STEP_S
            if back or ahead:
                step_s = first_s - stamp_s - (arrived_s - before_s)
                self.steps += 1
                self._lead_s = -np.inf
        self._last = (float(time_s[-1]), arrived_s)
        self._lead_s = max(self._lead_s, float(time_s[-1]) - arrived_s)
        return time_s, step_s
