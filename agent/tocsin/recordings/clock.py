"""Time stamps that are coarser than the sensor's own clock, made even again.

```
sampled at  0.0   1.05   2.1   …   18.9   19.95   21.0        the sensor: every 1.05 s
written     0     1      2     …   18     19      21          the logger: whole seconds
evened      0.0   1.05   2.1   …   18.9   19.95   21.0        nothing was lost at 20
```
A logger that writes whole seconds of a sensor that is not quite as quick leaves a second out now and then; of one that
is quicker, it writes one twice. No sample is missing there, and a row made up for it would be a value that the machine
never had. Rules: such a clock is told from lost or repeated samples by its odd steps, which come regularly: samples are
lost at random. What is lost in a rhythm looks the same, so who reads the times says what was made of them. An evened
time is never further off its stamp than the stamp's unit: where it would be, a sample is missing indeed, or the
recording paused.
"""

from dataclasses import dataclass

import numpy as np

from tocsin.records import Floats

UNITS_S = (1.0, 0.1, 0.01, 0.001)  # that stamps are written in
WHOLE = 1e-3  # of a unit: how far off a multiple of it what was read may be
SPAN = 3  # odd steps in a row, whose regularity is looked at
FEWEST = 4  # spans, to say that they are regular
REGULAR = 0.25  # variance of what a span brings, by its mean (Fano factor); it is 1 where samples are lost at random


@dataclass(frozen=True)
class CoarseClock:
    """How stamps are rounded.

    Attributes:
        period_s: from sample to sample.
        unit_s: of the stamps.
    """

    period_s: float
    unit_s: float


def coarse_clock(time_s: Floats) -> CoarseClock | None:
    """The sensor's clock, where stamps are too coarse to show it; None where they are good as they are.

    Args:
        time_s: (n,) stamps of a file's first samples.

    >>> coarse_clock(np.floor(1.05 * np.arange(401)))
    CoarseClock(period_s=1.05, unit_s=1.0)
    >>> coarse_clock(np.arange(400.0)) is None
    True
    """
    steps = np.diff(time_s)
    if not np.any(steps > 0):
        return None
    usual = float(np.median(steps[steps > 0]))
    units = time_s[:, None] / np.array(UNITS_S)
    whole = np.flatnonzero((np.abs(units - np.round(units)) < WHOLE).all(axis=0))
    if not len(whole) or 2 * UNITS_S[whole[0]] < usual * (1 - WHOLE):  # a unit more is still the next row
        return None
    unit = UNITS_S[whole[0]]
    odd = (steps - usual) / unit
    odd = odd[np.abs(odd) < 1.5]  # the others are pauses, or times that go back
    rate = abs(float(odd.mean()))
    if rate * len(odd) < FEWEST * SPAN:
        return None
    total = np.concatenate(([0.0], np.cumsum(odd)))
    rows = round(SPAN / rate)
    if float(np.var(total[rows:] - total[:-rows])) > REGULAR * SPAN:
        return None
    return CoarseClock(usual + unit * float(odd.mean()), unit)


class Evened:
    """Follows a coarse clock, block by block.

    Args:
        clock: of the file.
    """

    def __init__(self, clock: CoarseClock) -> None:
        self._clock = clock
        self._stamp = self._time = -np.inf

    def __call__(self, time_s: Floats) -> Floats:
        """(n,) the next stamps, evened; what goes back stays so."""
        period, unit = self._clock.period_s, self._clock.unit_s
        stamp, time, out = self._stamp, self._time, []
        for new in time_s.tolist():
            if new >= stamp:
                paused = new - time > 2 * period + unit
                time = new if paused else min(max(time + period, new - unit), new + unit)
            else:
                time = new
            stamp = new
            out.append(time)
        self._stamp, self._time = stamp, time
        return np.array(out)
