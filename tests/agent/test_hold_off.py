"""An end is believed when it lasts."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tocsin.alarms.detector import AlarmDetector, AlarmRule
from tocsin.alarms.hold_off import HoldOff
from tocsin.records import Change, Transition


def at(time_s: float, change: Change, alarm: str = "p-anomaly") -> Transition:
    return Transition("p", alarm, change, time_s, "model", 1.0, 1.0, 1.0, time_s, time_s, 1)


def told(hold_off: HoldOff, transitions: Iterable[Transition]) -> list[tuple[float, Change]]:
    return [(one.time_s, one.change) for t in transitions for one in hold_off.take(t)]


def test_an_end_that_does_not_last_is_not_told() -> None:
    hold_off = HoldOff(60)
    flaps = [at(t, change) for n in range(10) for t, change in ((90 * n, Change.RAISED), (90 * n + 45, Change.CLEARED))]
    assert told(hold_off, flaps) == [(90.0 * n, Change.RAISED) for n in range(10)]
    assert list(hold_off.advance(900)) == []
    assert [(end.time_s, end.change) for end in hold_off.advance(915)] == [(855, Change.CLEARED)]
    assert list(hold_off.finish()) == []


def test_an_end_that_lasted_is_told_before_the_next_raise_even_when_nothing_came_between() -> None:
    hold_off = HoldOff(60)
    came = told(hold_off, [at(0, Change.RAISED), at(10, Change.CLEARED), at(70, Change.RAISED)])
    assert came == [(0, Change.RAISED), (10, Change.CLEARED), (70, Change.RAISED)]


def test_ends_of_other_conditions_wait_on_their_own() -> None:
    hold_off = HoldOff(60)
    told(hold_off, [at(0, Change.CLEARED), at(30, Change.CLEARED, "p-stuck")])
    assert [end.alarm for end in hold_off.advance(60)] == ["p-anomaly"]
    assert [end.alarm for end in hold_off.finish()] == ["p-stuck"]


def test_a_clock_that_goes_back_keeps_no_end_any_longer() -> None:
    hold_off = HoldOff(60)
    told(hold_off, [at(1000, Change.CLEARED)])
    assert len(list(hold_off.advance(500))) == 1


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=30, unique=True))
def test_without_a_hold_off_all_is_told_at_once(times: list[float]) -> None:
    changes = [at(t, (Change.RAISED, Change.CLEARED)[n % 2]) for n, t in enumerate(sorted(times))]
    assert told(HoldOff(0), changes) == [(t.time_s, t.change) for t in changes]


def test_a_noisy_score_around_the_limit_is_one_alarm_for_an_hour() -> None:
    noise = np.random.default_rng(7)
    ratio = 1 + 0.35 * np.repeat(noise.standard_normal(720), 5) + 0.05 * noise.standard_normal(3600)
    _, changes = AlarmDetector(AlarmRule()).update(ratio)
    assert len(changes) > 100, "the condition flaps"
    hold_off = HoldOff(60)
    raises = ends = 0
    on = False
    for k, change in changes:
        for one in [*hold_off.take(at(float(k), change)), *hold_off.advance(float(k))]:
            raises += one.change is Change.RAISED and not on
            ends += one.change is Change.CLEARED
            on = one.change is Change.RAISED
    assert (raises, ends) == (1, 0)


def test_a_mode_of_the_plant_ends_at_once() -> None:
    mode = [replace(at(t, change), cause="mode") for t, change in ((0, Change.RAISED), (10, Change.CLEARED))]
    assert told(HoldOff(60), mode) == [(0, Change.RAISED), (10, Change.CLEARED)]
