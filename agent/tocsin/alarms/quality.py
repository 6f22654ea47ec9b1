"""Is it the machine, or the sensor? Samples are looked at before they are scored.

```
                 ┌ missing, status, stuck, range, rate, spikes, saturated   each channel ┐
SampleBlock ─────┤                                                                      ├─ on/off-delay ─► Transition
                 └ sample-rate, clock                                       the source   ┘
                   status, stuck, range, rate, spikes ─► doubted samples ─► windows whose model alarm is held back
```
| check       | what                                         | class  | held back |
|-------------|----------------------------------------------|--------|-----------|
| missing     | a channel gives no value for ten seconds     | comms  | –: no row is made of it |
| status      | the source itself calls values bad           | comms  | yes       |
| stuck       | a channel keeps exactly one value            | sensor | yes       |
| range       | a value outside of what the sensor can give  | sensor | yes       |
| rate        | a change faster than the user's limit        | sensor | yes       |
| spikes      | a sample far from both its neighbours        | sensor | yes       |
| saturated   | the signal is cut off at one value           | sensor | no: a machine that shakes too hard does that |
| sample-rate | samples come 10 % too fast or too slowly     | comms  | no        |
| clock       | time goes back, or the clock was set         | comms  | no: windows start anew |

Rules: pure; samples are counted from the first of the stream, delays are counted in samples; what is found at a sample
depends on it and those before alone, so that blocks may be cut anywhere. One condition a check and asset, which names
its channels: a cable that carries a hundred of them makes one alarm.
"""

import math
from collections.abc import Container, Mapping
from itertools import groupby
from operator import itemgetter

import numpy as np

from tocsin.alarms.delay import Delay
from tocsin.alarms.limits import ChannelLimits, ChannelOverride, all_limits
from tocsin.alarms.normal import Normal, RateMeter, Runs
from tocsin.alarms.saturation import Rail
from tocsin.records import Bools, Change, Channel, Contribution, Floats, Ints, SampleBlock, Transition

CAUSES = {
    "missing": "data_gap",
    "status": "bad_status",
    "stuck": "stuck",
    "range": "range",
    "rate": "rate",
    "spikes": "spikes",
    "saturated": "saturated",
    "sample-rate": "sample_rate",
    "clock": "clock",
}
OF_SOURCE = ("sample-rate", "clock")  # not of one channel
CHECKS = ("stale", *CAUSES, "held-back")  # with those that look at no single sample
MISSING_S, OFF_S, OFF_ROWS = 10.0, 5.0, 10
OFTEN, OFTEN_S, OFTEN_ROWS = 3, 60.0, 100  # events within the longer of the two
CALM_STEPS = 4  # as small as in normal running, before a lone spike
RATE_ERROR = 0.1
CLOCK_BACK_S = 1.0  # a smaller step is the work of a time server
MOST_SPANS = 4096  # of doubted samples that are remembered, a channel

# first and last doubted sample, by number or time; the number of the last; when what is doubted began, unseen as yet
_Span = tuple[float, float, int, float]
_Change = tuple[int, str, int, Change]  # sample, check, column


class Quality:
    """Looks at the samples of one group of channels; belongs to one thread.

    Args:
        asset: its id.
        channels: in the order of the columns.
        rate_hz: nominal samples a second.
        normal: normal running, as the bundle tells it.
        overrides: what the user says of channels, by name.
        active: ids of conditions that are on already (a restart).
        by_time: remember doubted samples by their times, instead of by their numbers: where windows are made of several
            groups. A clock that goes back then makes it forget.
    """

    def __init__(
        self,
        asset: str,
        channels: tuple[Channel, ...],
        rate_hz: float,
        normal: Normal,
        overrides: Mapping[str, ChannelOverride] | None = None,
        active: Container[str] = (),
        by_time: bool = False,
    ) -> None:
        self.asset, self.channels, self.rate_hz = asset, channels, rate_hz
        self._names = tuple(channel.name for channel in channels)
        overrides = dict(overrides or {})
        self.limits = all_limits(self._names, normal, overrides, rate_hz)
        columns = ("low", "high", "max_rate", "suspect_rows", "stuck_rows", "jump", "calm")
        self._limit = {name: np.array([getattr(limits, name) for limits in self.limits]) for name in columns}
        self._restless = np.array([limits.restless for limits in self.limits])
        self._watched = np.array([overrides.get(name, ChannelOverride()).watched for name in self._names])
        self._seen, self._rates = 0, normal.rates
        self._missing = np.zeros(len(channels), np.int64)
        self._missing_rows = max(OFF_ROWS, math.ceil(MISSING_S * rate_hz))
        self._runs, self._meter = Runs(len(channels)), RateMeter(rate_hz)
        self._last = np.full((CALM_STEPS + 2, len(channels)), np.nan)
        self._last_s = math.nan
        self._rails = [(c, _rails(limits)) for c, limits in enumerate(self.limits) if math.isfinite(limits.seen[0])]
        self._by_time = by_time
        self._spans: list[list[_Span]] = [[] for _ in channels]  # what the model should not rest on
        self._wrong: list[list[_Span]] = [[] for _ in channels]  # of that, what no rule should
        self._delays = {check: self._delay(check, active) for check in CAUSES}

    def _delay(self, check: str, active: Container[str]) -> Delay:
        rows = max(OFF_ROWS, math.ceil(OFF_S * self.rate_hz))
        often = max(OFTEN_ROWS, math.ceil(OFTEN_S * self.rate_hz))
        match check:
            case "missing" | "stuck":
                on, of, off = 1, 1, rows  # the delay is in the check
            case "status":
                on, of, off = OFTEN, often, rows
            case "sample-rate":
                on, of, off = 2, 2 * self._meter.samples, 2 * self._meter.samples
            case "clock" | "saturated":
                on, of, off = 1, 1, often
            case _:
                on, of, off = OFTEN, often, often
        delay = Delay(len(self.channels) + 1, on, of, off)  # the last one is the source as a whole
        if condition(self.asset, check) in active:
            delay.restore(len(self.channels))
        return delay

    def check(self, block: SampleBlock) -> tuple[Transition, ...]:
        """What the next samples begin and end."""
        if not len(block):
            return ()
        with np.errstate(over="ignore", invalid="ignore"):  # garbage is what is looked for
            found = self._events(block)
        changes: list[_Change] = [
            (sample, check, column, change)
            for check, delay in self._delays.items()
            for sample, column, change in delay.step(found.get(check), self._seen, len(block))
        ]
        transitions = self._transitions(sorted(changes), block)
        self._seen += len(block)
        return transitions

    def _events(self, block: SampleBlock) -> dict[str, Bools]:
        """(n, C) of each check that struck; (n, 1) of those of the source."""
        x, n = block.values, len(block)
        if self._by_time and (block.time_s[0] < self._last_s or (np.diff(block.time_s) < 0).any()):
            self._spans, self._wrong = [[] for _ in self._spans], [[] for _ in self._spans]
        self._last_s += block.step_s
        self._meter.shift(block.step_s)
        finite = np.isfinite(x)
        before = np.concatenate((self._last, x))
        jumps, lone = self._jumps(before)
        run, jumped = self._runs.push(x, finite, jumps)
        outside = finite & ((x < self._limit["low"]) | (x > self._limit["high"]))
        fast = np.abs(x - before[CALM_STEPS + 1 : -1]) > self._limit["max_rate"] * self._steps_s(block.time_s)[:, None]
        still = finite & (run >= self._limit["suspect_rows"])
        still |= finite & jumped & (run >= 2) & self._restless
        status = np.zeros_like(finite) if block.bad is None else block.bad & self._watched
        doubted = still | outside | fast | lone | status
        if doubted.any():
            reach = np.where(status | outside | fast, 1, np.where(still, run, 2))
            self._doubt(self._spans, doubted, reach, block.time_s)
            self._doubt(self._wrong, status | outside | lone, reach, block.time_s)
        stuck = finite & (run >= self._limit["stuck_rows"])
        found = {
            "status": status,
            "stuck": stuck,
            "range": outside,
            "rate": fast,
            "spikes": lone,
            "missing": self._absent(finite),
        }
        found["saturated"] = self._saturated(x, run)
        found["clock"] = (np.diff(block.time_s, prepend=self._last_s) < -CLOCK_BACK_S)[:, None]
        found["clock"][0] |= abs(block.step_s) > CLOCK_BACK_S
        found["sample-rate"] = np.zeros((n, 1), np.bool_)
        for index, rate in self._meter.push(block.time_s):
            slowest, fastest = self._rates
            found["sample-rate"][index] = not slowest * (1 - RATE_ERROR) <= rate <= fastest * (1 + RATE_ERROR)
        self._last, self._last_s = before[-len(self._last) :].copy(), float(block.time_s[-1])
        return {check: struck for check, struck in found.items() if struck.any()}

    def _steps_s(self, time_s: Floats) -> Floats:
        """(n,) seconds since the sample before; a nominal step at the least."""
        step = np.diff(time_s, prepend=self._last_s)
        return np.maximum(np.where(np.isfinite(step), step, np.inf), 1 / self.rate_hz)

    def _jumps(self, before: Floats) -> tuple[Bools, Bools]:
        """Steps larger than ever, out of calm running; where the signal is wild, nothing stands alone.

        Args:
            before: (CALM_STEPS + 2 + n, C) samples, with those before the block.

        Returns:
            (n, C) samples that jump away from the one before, and samples after which the one before has jumped away
            and is back: a lone spike.
        """
        n = len(before) - CALM_STEPS - 2
        step = np.abs(np.diff(before, axis=0))
        far, calm = step[CALM_STEPS:] > self._limit["jump"], step <= self._limit["calm"]
        jumps, lone = far[1:], far[1:] & far[:-1]
        if not far.any():
            return jumps, lone
        spike = before[CALM_STEPS + 1 : -1]
        lone &= np.abs(before[CALM_STEPS + 2 :] - before[CALM_STEPS:-2]) <= self._limit["calm"]
        lone &= (spike >= self._limit["low"]) & (spike <= self._limit["high"])  # else it is told as that
        for k in range(CALM_STEPS):
            lone &= calm[k : k + n]
            jumps &= calm[k + 1 : k + 1 + n]
        return jumps, lone

    def _absent(self, finite: Bools) -> Bools:
        """(n, C) where a channel has had no value for too long."""
        if finite.all():
            self._missing[:] = 0
            return np.zeros_like(finite)
        at = np.arange(1, len(finite) + 1)[:, None]
        there = np.maximum.accumulate(np.where(finite, at, -self._missing), axis=0)
        rows = at - there
        self._missing = rows[-1]
        absent: Bools = (rows >= self._missing_rows) & self._watched
        return absent

    def _saturated(self, x: Floats, run: Ints) -> Bools:
        struck = np.zeros(x.shape, np.bool_)
        for column, (top, bottom) in self._rails:
            limits = self.limits[column]
            values = x[:, column]
            if not ((values > limits.seen[1]) | (values < limits.seen[0])).any():
                continue
            values = np.where(run[:, column] < limits.suspect_rows, values, np.nan)  # stuck is another thing
            for rail, signed in ((top, values), (bottom, -values)):
                hit = rail.push(signed)
                if hit is not None:
                    struck[:, column] |= hit
        return struck

    def _doubt(self, remembered: list[list[_Span]], doubted: Bools, reach: Ints, time_s: Floats) -> None:
        """Remembers runs of doubted samples.

        Args:
            remembered: the runs of each column, added to.
            doubted: (n, C) samples.
            reach: (n, C) how many samples show what is doubted: this one, and those before.
            time_s: (n,) of the block.
        """
        step = 1 / self.rate_hz if self._by_time else 1.0
        keys = time_s if self._by_time else np.arange(self._seen, self._seen + len(doubted))
        back = np.flatnonzero(np.diff(keys) < 0)  # runs on both sides of a step back would overlap
        for column in np.flatnonzero(doubted.any(axis=0)).tolist():
            spans = remembered[column]
            edges = np.flatnonzero(np.diff(np.concatenate(([0], doubted[:, column].astype(np.int8), [0]))))
            for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
                last = self._seen + stop - 1
                if len(back) and start <= back[-1]:
                    continue
                if spans and spans[-1][2] == self._seen + start - 1:
                    spans[-1] = (spans[-1][0], float(keys[stop - 1]), last, spans[-1][3])
                else:
                    begin = float(keys[start])
                    shown = begin - (int(reach[start, column]) - 1) * step
                    spans.append((begin, float(keys[stop - 1]), last, shown))
            if len(spans) > MOST_SPANS:
                remembered[column] = spans[-MOST_SPANS // 2 :]

    @property
    def has_doubts(self) -> bool:
        """Some sample that a window may still show is doubted."""
        return any(self._spans)

    def doubted(self, first: Ints | Floats, last: Ints | Floats, of_rules: bool = False) -> Bools:
        """(K, C) channels that windows should not rest on.

        Args:
            first: (K,) number, or time, of each window's first sample.
            last: (K,) of its last: what came later is not known yet.
            of_rules: instead, those that no rule should rest on: a channel that stands still, or moves fast, it may.
        """
        out = np.zeros((len(first), len(self._spans)), np.bool_)
        for column, spans in enumerate(self._wrong if of_rules else self._spans):
            if spans:
                begin, end = np.array(spans)[:, :2].T
                latest = np.searchsorted(begin, last, side="right") - 1  # newest span that has begun
                out[:, column] = (latest >= 0) & (end[latest] >= first)
        return out

    def preludes(self, last: float) -> list[tuple[float, float]]:
        """From when the newest doubts at a sample showed, and from when they were known; as numbers, or times."""
        newest = (next((span for span in reversed(spans) if span[0] <= last), None) for spans in self._spans)
        return [(span[3], span[0]) for span in newest if span is not None and span[3] < span[0]]

    def forget(self, before: float) -> None:
        """No window reaches back so far any more."""
        for remembered in (self._spans, self._wrong):
            for column, spans in enumerate(remembered):
                if spans and spans[0][1] < before:
                    remembered[column] = [span for span in spans if span[1] >= before]

    def bad_channels(self) -> tuple[str, ...]:
        """Names of the channels with a condition that is on."""
        bad = np.any([self._delays[check].active[:-1] for check in CAUSES if check not in OF_SOURCE], axis=0)
        return tuple(name for name, is_bad in zip(self._names, bad.tolist(), strict=True) if is_bad)

    def _transitions(self, changes: list[_Change], block: SampleBlock) -> tuple[Transition, ...]:
        """Changes of channels → changes of the asset's conditions."""
        out = []
        on = {check: self._before(changes, check) for check in {check for _, check, _, _ in changes}}
        for (sample, check), group in groupby(changes, key=itemgetter(0, 1)):
            raised = False
            for _, _, column, change in group:
                raised |= change is Change.RAISED
                (on[check].add if change is Change.RAISED else on[check].discard)(column)
            if raised or not on[check]:
                change = Change.RAISED if raised else Change.CLEARED
                out.append(self._transition(check, change, sorted(on[check]), sample - self._seen, block))
        return tuple(out)

    def _before(self, changes: list[_Change], check: str) -> set[int]:
        """Channels on which a condition was on before these changes."""
        on = set(np.flatnonzero(self._delays[check].active).tolist())
        for _, other, column, change in reversed(changes):
            if other == check:
                (on.discard if change is Change.RAISED else on.add)(column)
        return on

    def _transition(self, check: str, change: Change, on: list[int], at: int, block: SampleBlock) -> Transition:
        time_s = float(block.time_s[at])
        named = [column for column in on if column < len(self.channels)] if check not in OF_SOURCE else []
        contributions = tuple(
            Contribution(self._names[c], 1 / len(named), _number(block.values[at, c]), None) for c in named
        )
        return Transition(
            asset=self.asset,
            alarm=condition(self.asset, check),
            change=change,
            time_s=time_s,
            cause=CAUSES[check],
            score=None,
            threshold=None,
            ratio=None,
            window_start_s=time_s,
            window_end_s=time_s,
            window_rows=1,
            contributions=contributions,
        )


def condition(asset: str, check: str) -> str:
    """Id of the alarm condition of a check."""
    return f"{asset}-{check}"


def cause_of(check: str) -> str:
    """Cause of the alarm of a check.

    >>> cause_of("stale"), cause_of("held-back"), cause_of("stuck")
    ('data_gap', 'held_back', 'stuck')
    """
    return CAUSES.get(check) or {"stale": "data_gap"}.get(check, check.replace("-", "_"))


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _rails(limits: ChannelLimits) -> tuple[Rail, Rail]:
    low, high = limits.seen
    return Rail(high, high - low, limits.high), Rail(-low, high - low, -limits.low)
