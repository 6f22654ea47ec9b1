"""The limit at which normal running raises so many alarms an hour, and how sure that is.

```
score courses ─ detector at a base level ─► episodes ─ peak of each ─► rate at the base × tail × split ─► limit
                                                     └ blocks resampled, the same again; quarters compared ─► interval
```
Rules: an episode is what `AlarmDetector` raises: what is counted here is what a person would be called for. An
episode's peak is the highest limit at which its on-delay still holds; neighbouring windows are thereby one event.
Beyond what the recording shows, the generalised Pareto tail of the peaks speaks (`tocsin.core.tail`). The interval
comes from a block bootstrap with random weights (Rubin, The Bayesian Bootstrap, Ann. Statist. 9, 1981): blocks are
longer than the scores remember, then longer still, and the widest spread counts. Use differs from the recording as the
recording's quarters differ from each other: nobody has seen the drift to come.

A recording that happens to look calm gives a narrow interval, and of many recordings those are the ones with something
to promise. So whether a promise is made is decided more carefully than the interval: the drift is taken as large as a
calm-looking recording may hide, the upper limit of its variance at 95 %; and the recording has to hold two weeks, as
every machine has days, nights and weekends, some of the asked alarms, and many times what its scores remember.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tocsin.alarms.detector import AlarmDetector, AlarmRule
from tocsin.core.promise import Promise
from tocsin.core.tail import SHAPE_MEAN, SHAPE_SD, fit_tail
from tocsin.records import Change, Floats, Ints

REPLICATES = 300
NINE_IN_TEN = 2.0  # deviations on each side: over the normal law's 1.645, as deviation and tail are estimated too
FEW = 6.0  # independent scores, at which the interval is twice as wide: then the deviation itself is a guess
FEW_QUARTERS = 1.4  # Student's t against the normal law, where four quarters say how far things wander
BASE = (25, 100)  # episodes over the base level: at least, where there are so many, and enough
MEMORY = 5.0  # autocorrelation times that a block has at least
BLOCKS = (8, 64)  # fewest and most
LEVELS = 128  # pieces in which the scores' level is followed
SHARP = 4.0  # a promise holds to this factor: the upper rate is at most so much above the asked one
MEMORIES = 50.0  # autocorrelation times that a recording has at least: with fewer its interval is a guess itself
DAYS = 14.0  # that a recording has at least: two weeks, each with its days, nights and weekend
SHOWN = 3.0  # asked alarms in the time of the recording, at least: beyond lies the tail alone
SPLIT = 10  # episodes at the level at which it is seen into how many a higher limit splits one
AS_LARGE_AS = {4: 8.53, 8: 3.23, 16: 2.07, 32: 1.61}  # pieces → (n − 1) / χ² of probability 0.05 with n − 1 degrees
REACH = 100.0  # times the recording's length: rarer than once in that is not extrapolated
TINY = 1e-12


@dataclass(frozen=True)
class Episodes:
    """What the detector raises at one level, in all courses.

    Attributes:
        course: (n,) index of each episode's course.
        start: (n,) the window that raised it.
        peak: (n,) the highest limit at which it would still be raised, ≥ the level.
    """

    course: Ints
    start: Ints
    peak: Floats

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.start)


@dataclass(frozen=True)
class Budget:
    """A limit and its promise.

    Attributes:
        limit: on the scores that were given.
        promise: what it promises.
        parameters: how it was found, for the manifest.
    """

    limit: float
    promise: Promise
    parameters: dict[str, float]


def budget(courses: tuple[Floats, ...], hop_s: float, per_hour: float, rule: AlarmRule, seed: int = 0) -> Budget:
    """The limit for so many false alarms an hour.

    Args:
        courses: (K,) smoothed scores > 0 of each unbroken stretch of normal running, which no model was fitted on.
        hop_s: from one window to the next.
        per_hour: episodes that are allowed.
        rule: the detector's.
        seed: of the bootstrap.
    """
    levels = tuple(on_level(course, rule) for course in courses)
    hours = sum(map(len, courses)) * hop_s / 3600.0
    base, found = _base(courses, levels, rule, per_hour * hours)
    asked = max(per_hour, 1.0 / (REACH * hours))
    logs = np.log(found.peak / base)
    law = fit_tail(logs)
    shape, scale = float(law.shape[0]), float(law.scale[0])
    course = _level_course(courses)
    heights = np.linspace(0.0, float(law.quantile(TINY)[0]), 100)
    hazards = 1.0 / np.maximum(scale + shape * heights, 0.01)
    drifts = np.array([_drift(course, hazard) for hazard in hazards.tolist()])
    split = _split(courses, levels, rule, base, logs, heights)
    # A recording sees the usual more often than the rare: the mean of a skew rate lies above what it shows.
    rates = len(found) / hours * law.survival(heights[:, None])[:, 0] * np.exp(drifts / 2 + split)
    falling = np.minimum.accumulate(np.log(np.maximum(rates, TINY)))
    above = float(np.interp(-np.log(asked), -falling, heights))
    limit, expected = base * float(np.exp(above)), min(float(rates[0]), asked)
    drift, hazard, parts = (float(np.interp(above, heights, each)) for each in (drifts, hazards, split))
    middle, deviation = _spread(courses, found, logs, above, hours, seed)
    middle += drift / 2 + parts
    independent = sum(map(len, courses)) / memory(_logs(courses))
    reach = NINE_IN_TEN * (1.0 + FEW / independent)
    most = 3600.0 / (hop_s * (rule.on_n + rule.off_delay))  # no detector raises more
    wide = reach * float(np.hypot(deviation, FEW_QUARTERS * np.sqrt(drift)))
    low, high = min(expected, float(np.exp(middle - wide))), max(expected, min(most, float(np.exp(middle + wide))))
    hidden = reach * float(np.hypot(deviation, np.sqrt(_hidden(course, hazard))))
    worst = max(np.log(high), middle + hidden) - np.log(per_hour)
    # The interval's logarithm shrinks as the root of the hours.
    needed = max(
        hours * (worst / np.log(SHARP)) ** 2 if worst > np.log(SHARP) else 0.0,
        hours * MEMORIES / independent,
        24.0 * DAYS,
        SHOWN / per_hour,
    )
    kept = needed <= hours
    seen = len(episodes(courses, limit, rule, levels))
    promise = Promise(per_hour, expected, low, high, hours, seen, max(hours, needed), refused=not kept)
    return Budget(limit, promise, {"base": base, "episodes": float(len(found)), "shape": shape, "scale": scale})


def on_level(course: Floats, rule: AlarmRule) -> Floats:
    """(K,) the highest limit at which the on-delay holds: the on_n-th largest of the last on_m scores."""
    known = np.where(np.isfinite(course), course, -np.inf)
    padded = np.concatenate((np.full(rule.on_m - 1, -np.inf), known))
    at = rule.on_m - rule.on_n
    level: Floats = np.partition(sliding_window_view(padded, rule.on_m), at, axis=1)[:, at]
    return level


def episodes(courses: tuple[Floats, ...], limit: float, rule: AlarmRule, levels: tuple[Floats, ...]) -> Episodes:
    """What the detector raises at a limit.

    Windows at which it has been at rest for so long that they change nothing are left out.

    Args:
        courses: (K,) scores of each stretch.
        limit: score at which the ratio is 1.
        rule: the detector's.
        levels: `on_level` of each course.
    """
    number: list[int] = []
    start: list[int] = []
    peak: list[float] = []
    reach = max(rule.on_m, rule.off_delay)
    for n, (course, level) in enumerate(zip(courses, levels, strict=True)):
        near = np.flatnonzero(course >= rule.clear_ratio * limit)
        awake = np.zeros(len(course) + reach + 1, np.int64)
        np.add.at(awake, near, 1)
        np.add.at(awake, near + reach + 1, -1)
        kept = np.flatnonzero(np.cumsum(awake)[: len(course)] > 0)
        _, changes = AlarmDetector(rule).update(course[kept] / limit)
        raised = [int(kept[k]) for k, change in changes if change is Change.RAISED]
        cleared = [int(kept[k]) for k, change in changes if change is Change.CLEARED]
        for first, last in zip(raised, [*cleared, len(course) - 1], strict=False):
            number.append(n)
            start.append(first)
            peak.append(max(limit, float(level[first : last + 1].max())))
    return Episodes(np.array(number, np.int64), np.array(start, np.int64), np.array(peak, np.float64))


def memory(courses: tuple[Floats, ...]) -> float:
    """Integrated autocorrelation time, windows: so many values tell as much of the mean as one that stands alone.

    Summed over pairs of lags while those are positive (Geyer, Practical Markov Chain Monte Carlo, 1992).

    Args:
        courses: (K,) finite, of one process.
    """
    mean = np.concatenate(courses).mean()
    lags = max(2, max(map(len, courses)) // 2)
    total, count = np.zeros(lags), np.zeros(lags)
    for course in courses:
        size = 1 << (2 * len(course) + 1).bit_length()
        power = np.abs(np.fft.rfft(course - mean, size)) ** 2
        some = min(lags, len(course))
        total[:some] += np.fft.irfft(power, size)[:some]
        count[:some] += np.arange(len(course), len(course) - some, -1)
    alike = total / np.maximum(count, 1) / max(total[0] / max(count[0], 1), TINY)
    pairs = alike[: lags // 2 * 2].reshape(-1, 2).sum(axis=1)
    stop = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs)
    return float(max(1.0, 2.0 * pairs[:stop].sum() - 1.0))


def _logs(courses: tuple[Floats, ...]) -> tuple[Floats, ...]:
    return tuple(np.log(np.maximum(course[np.isfinite(course)], TINY)) for course in courses)


def _base(
    courses: tuple[Floats, ...], levels: tuple[Floats, ...], rule: AlarmRule, wanted: float
) -> tuple[float, Episodes]:
    """The highest level with enough episodes over it; where there are never so many, the one with the most."""
    values = np.sort(np.concatenate(levels))[::-1]
    values = values[np.isfinite(values) & (values > 0)]
    enough = max(BASE[0], min(BASE[1], len(values) / memory(_logs(courses)) / 10), 2.0 * wanted)
    base, most = float(values[0]), episodes(courses, float(values[0]), rule, levels)
    for rank in np.unique(np.geomspace(2, len(values), 50).astype(int)) - 1:
        level = float(values[rank])
        found = episodes(courses, level, rule, levels)
        if len(found) > len(most):
            base, most = level, found
        if len(found) >= enough or len(found) < 0.7 * len(most):  # further down they flow together
            break
    return base, most


def _split(
    courses: tuple[Floats, ...], levels: tuple[Floats, ...], rule: AlarmRule, base: float, logs: Floats, heights: Floats
) -> Floats:
    """(n,) the logarithm of how many episodes a limit at such a height makes of one that is seen at the base.

    The detector lets go of a long episode's valleys the earlier the higher its limit is. Counted at the height that
    some of the peaks reach, in proportion below it, and the same above.
    """
    some = float(np.sort(logs)[-min(SPLIT, len(logs))])
    count = len(episodes(courses, base * float(np.exp(some)), rule, levels))
    parts = float(np.log(max(1.0, count / max(1, int(np.count_nonzero(logs >= some))))))
    out: Floats = parts * np.minimum(heights / max(some, TINY), 1.0)
    return out


def _spread(
    courses: tuple[Floats, ...], found: Episodes, logs: Floats, above: float, hours: float, seed: int
) -> tuple[float, float]:
    """Middle and standard deviation of the log rate at the limit, without drift."""
    windows = sum(map(len, courses))
    fewest, most = BLOCKS
    block = max(windows / most, min(MEMORY * memory(_logs(courses)), windows / fewest))
    counts = [fewest]
    while counts[0] * 2 * block <= windows:
        counts.insert(0, counts[0] * 2)
    rng = np.random.default_rng(seed)
    middles, deviations = zip(*(_resampled(courses, found, logs, above, hours, n, rng) for n in counts), strict=True)
    return middles[0], max(deviations)


def _resampled(
    courses: tuple[Floats, ...], found: Episodes, logs: Floats, above: float, hours: float, blocks: int,
    rng: np.random.Generator,
) -> tuple[float, float]:  # fmt: skip
    """Median and standard deviation of the log rate when so many blocks of the recording weigh at random."""
    offsets = np.concatenate(([0], np.cumsum([len(course) for course in courses])))
    block = ((offsets[found.course] + found.start) * blocks) // offsets[-1]
    weight = rng.exponential(size=(REPLICATES, blocks))
    weight /= weight.mean(axis=1, keepdims=True)
    each = weight[:, block]
    law = fit_tail(logs, each, rng.normal(SHAPE_MEAN, SHAPE_SD, REPLICATES))
    rate = np.log(np.maximum(each.sum(axis=1) / hours * law.survival(above), TINY))
    low, middle, high = np.quantile(rate, (0.16, 0.5, 0.84))
    few = 1.0 + 1.5 / (blocks - 1)  # Student's t against the normal law
    return float(middle), few * float(high - low) / 2


def _level_course(courses: tuple[Floats, ...]) -> Floats:
    """(n,) the mean log score of equal pieces, in order, about their mean."""
    logs = np.concatenate(_logs(courses))
    level = np.array([piece.mean() for piece in np.array_split(logs, min(LEVELS, len(logs)))])
    centred: Floats = level - level.mean()
    return centred


def _drift(level: Floats, hazard: float) -> float:
    """Variance of the log rate from one time to another, because the scores' level wanders.

    Args:
        level: see `_level_course`.
        hazard: by how much the log rate falls when the log limit rises by 1.
    """
    coarse, fine = (_between(level, hazard, n) for n in (4, 16))
    # From a quarter, where sixteenths are independent, to 1 for a drift so slow that the recording hides half of it.
    slow = min(1.0, max(0.25, coarse / max(fine, TINY)))
    return float(np.log1p(max(coarse * slow * (1.0 + slow), fine / 16)))


def _hidden(level: Floats, hazard: float) -> float:
    """The largest variance of the mean rate that the recording does not rule out; as `_drift`.

    Of pieces that tell nothing of each other, at each of some lengths: where they do, longer ones show it.
    """
    counts = {n: factor for n, factor in AS_LARGE_AS.items() if n <= len(level)}
    return max((factor * _between(level, hazard, n) / n for n, factor in counts.items()), default=0.0)


def _between(level: Floats, hazard: float, pieces: int) -> float:
    """Variance of the mean rates of so many pieces, about a mean of 1."""
    rate = np.exp(np.minimum(hazard * level, 20.0))
    rate /= rate.mean()
    return float(np.var([piece.mean() for piece in np.array_split(rate, pieces)], ddof=1))
