"""What each channel may do before its sensor is doubted: from normal running, and from what the user knows.

| limit      | from normal running                                  | the user's key |
|------------|------------------------------------------------------|----------------|
| range      | 100 times its largest magnitude: no machine goes     | `min`, `max`   |
|            | there, a torn wire or a wrong byte does              |                |
| stuck      | 5 times its longest run of one value, 5 s, 10 rows;  | `stuck_after`  |
|            | doubted sooner                                       |                |
| rate       | –                                                    | `max_rate`     |
| spikes     | 3 times its largest step, there and back             | –              |
| saturated  | beyond what was seen, at exactly one value           | –              |

A machine that fails leaves its normal range, and faster than ever before: those are no limits of a sensor.
"""

import math
from dataclasses import dataclass

from tocsin.alarms.normal import Normal, NormalChannel

FAR = 100.0
VIBRATION_HZ = 400.0  # from here on lone spikes are the signal
STUCK_ROWS, STUCK_S = 10, 5.0
SUSPECT_RUNS, STUCK_RUNS = 2, 5  # of the longest normal run: suspected, and told
SUSPECT_S = 0.05  # vibration that is clipped stands still for moments
JUDGED = 0.1  # of all rows: a channel that stood still for more of them may do so
RESTLESS = 10  # a longest run up to this: such a channel hardly ever stands still
FINE = 3
JUMP_STEPS = 3.0


@dataclass(frozen=True, slots=True)
class ChannelOverride:
    """What the user says of a channel; None = as normal running was.

    Attributes:
        watched: look at it at all.
        low: the sensor gives no less, engineering units.
        high: the sensor gives no more.
        max_rate: it changes no faster, units a second.
        stuck_after_s: standing still for so long is a fault; inf = never.
    """

    watched: bool = True
    low: float | None = None
    high: float | None = None
    max_rate: float | None = None
    stuck_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """What one channel may do; inf = anything.

    Attributes:
        low: physical, engineering units.
        high: physical.
        max_rate: units a second.
        suspect_rows: samples of one value from which it is doubted.
        stuck_rows: from which it is told.
        jump: a change by more than this and back at once is a spike; one after which a restless channel stands still is
            doubted at once.
        restless: it hardly ever stands still.
        calm: largest step of normal running.
        seen: lowest and highest value of normal running, where saturation is looked for beyond them.
    """

    low: float = -math.inf
    high: float = math.inf
    max_rate: float = math.inf
    suspect_rows: float = math.inf
    stuck_rows: float = math.inf
    jump: float = math.inf
    restless: bool = False
    calm: float = math.inf
    seen: tuple[float, float] = (-math.inf, math.inf)


def channel_limits(known: NormalChannel | None, rows: int, override: ChannelOverride, rate_hz: float) -> ChannelLimits:
    """The limits of one channel.

    Args:
        known: its normal running, or None.
        rows: of normal running.
        override: what the user says.
        rate_hz: samples a second.

    >>> pressure = NormalChannel("pressure", 4.0, 6.0, longest_run=1, largest_step=0.2)
    >>> limits = channel_limits(pressure, 1000, ChannelOverride(low=0.0), rate_hz=1.0)
    >>> limits.low, limits.high, limits.suspect_rows, limits.stuck_rows
    (0.0, 600.0, 3, 10)
    """
    if not override.watched:
        return ChannelLimits()
    found = ChannelLimits() if known is None else _from_normal(known, rows, rate_hz)
    stuck, suspect = found.stuck_rows, found.suspect_rows
    if override.stuck_after_s is not None:
        stuck = math.inf if math.isinf(override.stuck_after_s) else max(2, math.ceil(override.stuck_after_s * rate_hz))
        suspect = math.inf if math.isinf(stuck) else min(suspect, stuck)
    return ChannelLimits(
        low=found.low if override.low is None else override.low,
        high=found.high if override.high is None else override.high,
        max_rate=math.inf if override.max_rate is None else override.max_rate,
        suspect_rows=suspect,
        stuck_rows=stuck,
        jump=found.jump,
        restless=found.restless and not math.isinf(stuck),
        calm=found.calm,
        seen=found.seen,
    )


def _from_normal(known: NormalChannel, rows: int, rate_hz: float) -> ChannelLimits:
    run, span = known.longest_run, known.high - known.low
    far = FAR * max(span, abs(known.low), abs(known.high)) if span > 0 else math.inf
    still = run > JUDGED * rows
    jump = JUMP_STEPS * known.largest_step if span > 0 and rate_hz < VIBRATION_HZ else math.inf
    return ChannelLimits(
        low=-far,
        high=far,
        suspect_rows=math.inf if still else max(SUSPECT_RUNS * run + 1, math.ceil(SUSPECT_S * rate_hz)),
        stuck_rows=math.inf if still else max(STUCK_RUNS * run, STUCK_ROWS, math.ceil(STUCK_S * rate_hz)),
        jump=jump,
        restless=run <= RESTLESS,
        calm=known.largest_step,
        seen=(known.low, known.high) if run <= FINE and span > 0 else (-math.inf, math.inf),
    )


def all_limits(
    names: tuple[str, ...], normal: Normal, overrides: dict[str, ChannelOverride], rate_hz: float
) -> tuple[ChannelLimits, ...]:
    """Limits of the channels, in their order."""
    no = ChannelOverride()
    return tuple(channel_limits(normal.of(name), normal.rows, overrides.get(name, no), rate_hz) for name in names)
