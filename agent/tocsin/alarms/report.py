"""Figures of an alarm system after ISA-18.2 (clause 16) and EEMUA 191: is it one that people can work with?

Rules: pure; times are epoch seconds and passed in. An alarm counts when it begins to call: what is shelved, suppressed
or out of service does not.
"""

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

INTERVAL_S = 600.0  # in which alarms are counted
FLOOD = 10  # more in one interval
CHATTER, CHATTER_S = 3, 60.0  # so many within so long
STALE_S = 86_400.0
WORST = 10
MANAGEABLE = 2.0  # in ten minutes, on average; 1 is very likely acceptable
SEVERITIES = ("critical", "major", "minor", "warning")


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened to an occurrence of an alarm.

    Attributes:
        time_s: when.
        device: id.
        alarm: id of the condition.
        occurrence: id.
        severity: of the alarm, or empty.
        calls: it began to call, or calls again.
        acked: it was acknowledged.
        ended: it is over.
    """

    time_s: float
    device: str
    alarm: str
    occurrence: str
    severity: str
    calls: bool
    acked: bool
    ended: bool


@dataclass(frozen=True, slots=True)
class Bad:
    """One alarm's part.

    Attributes:
        alarm: `device/alarm`.
        count: how often it called.
        share: of all calls.
    """

    alarm: str
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What is reported.

    Attributes:
        since_s: begin of the period.
        until_s: its end.
        calls: alarms that began to call.
        per_interval: calls in each ten minutes.
        mean: of these.
        most: of these.
        flooded: share of intervals with more than ten.
        worst: the ten that called most.
        chattering: alarms that called three times within a minute, with the most calls in one minute.
        stale: alarms that stood for more than a day at the end of the period, with hours.
        standing: alarms that stood then.
        severities: calls by severity, most severe first.
        ack_mean_s: time to acknowledge, or None.
        ack_median_s: the same.
        acked: calls that were acknowledged.
    """

    since_s: float
    until_s: float
    calls: int
    per_interval: tuple[int, ...]
    mean: float
    most: int
    flooded: float
    worst: tuple[Bad, ...]
    chattering: tuple[tuple[str, int], ...]
    stale: tuple[tuple[str, float], ...]
    standing: int
    severities: dict[str, int]
    ack_mean_s: float | None
    ack_median_s: float | None
    acked: int

    @property
    def verdict(self) -> str:
        """In a few words, by EEMUA's limits for the load of one operator."""
        if self.flooded > 0.01 or self.mean > MANAGEABLE * 5:
            return "overloaded: alarms come faster than they can be read"
        if self.mean > MANAGEABLE:
            return "demanding: more than two alarms in ten minutes"
        return "manageable: at most two alarms in ten minutes on average"


def figures(marks: Iterable[Mark], since_s: float, until_s: float) -> Figures:
    """The figures of a period.

    Args:
        marks: in any order; those before the period tell what stood at its begin.
        since_s: begin of the period.
        until_s: its end, later.

    Raises:
        ValueError: it ends before it begins.
    """
    if not until_s > since_s:
        raise ValueError("expected a period that ends after its begin")
    known = sorted((mark for mark in marks if mark.time_s < until_s), key=lambda mark: mark.time_s)
    calls = [mark for mark in known if mark.calls and mark.time_s >= since_s]
    bins = [0] * max(1, -int(-(until_s - since_s) // INTERVAL_S))
    for mark in calls:
        bins[int((mark.time_s - since_s) // INTERVAL_S)] += 1
    by_alarm = Counter(_name(mark) for mark in calls)
    worst = tuple(Bad(name, count, count / len(calls)) for name, count in by_alarm.most_common(WORST))
    standing = _standing(known)
    took = _times_to_ack(known, since_s)
    named = Counter(mark.severity for mark in calls)
    order = (*SEVERITIES, *sorted(named.keys() - set(SEVERITIES)))
    return Figures(
        since_s=since_s,
        until_s=until_s,
        calls=len(calls),
        per_interval=tuple(bins),
        mean=len(calls) / ((until_s - since_s) / INTERVAL_S),
        most=max(bins),
        flooded=sum(count > FLOOD for count in bins) / len(bins),
        worst=worst,
        chattering=_chattering(calls),
        stale=tuple((name, (until_s - at) / 3600) for name, at in standing.items() if until_s - at > STALE_S),
        standing=len(standing),
        severities={name: named[name] for name in order if named[name] or name in SEVERITIES},
        ack_mean_s=statistics.fmean(took) if took else None,
        ack_median_s=statistics.median(took) if took else None,
        acked=len(took),
    )


def _name(mark: Mark) -> str:
    return f"{mark.device}/{mark.alarm}"


def _standing(marks: list[Mark]) -> dict[str, float]:
    """Alarms that stand after the last mark, by name: since when."""
    since: dict[str, float] = {}
    for mark in marks:
        if mark.ended:
            since.pop(_name(mark), None)
        elif mark.calls:
            since.setdefault(_name(mark), mark.time_s)
    return since


def _chattering(calls: list[Mark]) -> tuple[tuple[str, int], ...]:
    times: dict[str, list[float]] = {}
    for mark in calls:
        times.setdefault(_name(mark), []).append(mark.time_s)
    most = {name: max(sum(0 <= t - at < CHATTER_S for t in each) for at in each) for name, each in times.items()}
    found = [(name, count) for name, count in most.items() if count >= CHATTER]
    return tuple(sorted(found, key=lambda one: (-one[1], one[0])))


def _times_to_ack(marks: list[Mark], since_s: float) -> list[float]:
    """Seconds from each call in the period to its acknowledgement."""
    called: dict[tuple[str, str], float] = {}
    took = []
    for mark in marks:
        key = mark.device, mark.occurrence
        if mark.calls:
            called[key] = mark.time_s
        elif mark.acked and key in called and called[key] >= since_s:
            took.append(mark.time_s - called.pop(key))
    return took
