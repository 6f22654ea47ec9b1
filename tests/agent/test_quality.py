"""A sensor that fails is told from a machine that does, whatever the blocks in which its samples come."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.alarms.limits import ChannelOverride
from tocsin.alarms.normal import Normal, NormalCourse
from tocsin.alarms.quality import Quality
from tocsin.records import Bools, Change, Channel, Floats, SampleBlock, Transition
from tocsin.sources.clock import ArrivalClock
from tocsin.sources.metered import RateMeter

START_S = 1_773_043_200.0
CHANNELS = (Channel("pressure", "bar"), Channel("flow", "l/min"), Channel("valve"))
NAMES = tuple(channel.name for channel in CHANNELS)


def running(rows: int, seed: int = 0, rate_hz: float = 1.0) -> SampleBlock:
    """A machine: two noisy channels, and a valve that stays where it is for long."""
    rng, at = np.random.default_rng(seed), np.arange(rows)
    phase = 2 * np.pi * at / 24
    values = np.stack((5 + 0.4 * np.sin(phase), 21 + 2 * np.cos(phase), (at // 60) % 2), axis=1)
    values[:, :2] += rng.normal(0, (0.05, 0.2), (rows, 2))
    return SampleBlock(START_S + at / rate_hz, values.round(4))


def normal_of(block: SampleBlock, rate_hz: float = 1.0) -> Normal:
    course = NormalCourse(NAMES, rate_hz)
    course.push(block.time_s, block.values)
    return course.normal()


NORMAL = normal_of(running(2000))


def looked_at(
    block: SampleBlock,
    cuts: list[int] | None = None,
    rate_hz: float = 1.0,
    normal: Normal = NORMAL,
    **overrides: ChannelOverride,
) -> tuple[list[Transition], Bools]:
    """Transitions, and the (windows, C) doubt about windows of 32 samples, when blocks end at the cuts."""
    quality = Quality("pump-1", CHANNELS, rate_hz, normal, overrides)
    transitions, doubts = [], []
    edges = [0, *sorted({cut % len(block) for cut in cuts or []} - {0}), len(block)]
    for start, stop in pairwise(edges):
        transitions += quality.check(SampleBlock(block.time_s[start:stop], block.values[start:stop]))
        last = np.arange(max(start, 31), stop)
        doubt = quality.doubted(last - 31, last)
        doubts.append(doubt)
    return transitions, np.concatenate(doubts)


def told(transitions: list[Transition]) -> list[tuple[str, str]]:
    return [(t.alarm.removeprefix("pump-1-"), t.change.value) for t in transitions]


def changed(block: SampleBlock, column: int, begin: int, values: Floats | float, rows: int = 10_000) -> SampleBlock:
    out = block.values.copy()
    out[begin : begin + rows, column] = values
    return SampleBlock(block.time_s, out)


def faulty(seed: int, rows: int = 600) -> SampleBlock:
    """Every kind of fault, at random."""
    rng = np.random.default_rng(seed)
    block = running(rows, seed)
    values, time_s = block.values.copy(), block.time_s.copy()
    for fault in rng.integers(0, 8, 4).tolist():
        begin, column, length = int(rng.integers(rows)), int(rng.integers(2)), int(rng.integers(2, 150))
        part = (slice(begin, begin + length), column)
        match fault:
            case 0:
                values[part] = values[begin, column]
            case 1:
                values[part] = np.nan
            case 2:
                values[part] = np.where(rng.random(len(values[part])) < 0.3, 1e9, values[part])
            case 3:
                values[part] = np.where(rng.random(len(values[part])) < 0.2, values[part] + 20, values[part])
            case 4:
                swing = values[part] - values[:, column].mean()
                values[part] = np.minimum(values[part] + 2 * swing, values[:, column].max() * 1.15)
            case 5:
                time_s[begin:] -= rng.choice([0.4, 2.0, 3600.0])
            case 6:
                time_s[begin:] += np.arange(rows - begin) * rng.choice([0.0, 0.3, -0.3])
            case _:
                time_s[begin:] += rng.choice([3.0, 100.0])
    return SampleBlock(time_s, values)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 600), max_size=12))
def test_what_is_found_does_not_depend_on_how_the_stream_is_cut(seed: int, cuts: list[int]) -> None:
    block = faulty(seed)
    overrides = {"flow": ChannelOverride(low=0.0, high=40.0, max_rate=15.0)}
    whole, doubted = looked_at(block, **overrides)
    parts, doubted_in_parts = looked_at(block, cuts, **overrides)
    assert parts == whole
    np.testing.assert_array_equal(doubted_in_parts, doubted)


def test_nor_when_samples_come_one_by_one() -> None:
    for seed in range(5):
        whole, doubted = looked_at(faulty(seed))
        single, doubted_singly = looked_at(faulty(seed), list(range(600)))
        assert single == whole
        np.testing.assert_array_equal(doubted_singly, doubted)


def test_the_streams_of_these_tests_have_every_kind_of_fault() -> None:
    flow = ChannelOverride(low=0.0, high=40.0, max_rate=15.0)
    found = {alarm for seed in range(60) for alarm, _ in told(looked_at(faulty(seed), flow=flow)[0])}
    assert found == {"missing", "stuck", "range", "rate", "spikes", "saturated", "sample-rate", "clock"}


def test_normal_running_raises_nothing_and_is_not_doubted() -> None:
    for seed in range(1, 6):
        transitions, doubted = looked_at(running(2000, seed))
        assert transitions == [] and not doubted.any()


def test_a_stuck_sensor_is_doubted_within_samples_told_within_seconds_and_forgiven_when_it_moves() -> None:
    block = running(400, 1)
    transitions, doubted = looked_at(changed(block, 0, 100, block.values[100, 0], 60))
    assert told(transitions) == [("stuck", "raised"), ("stuck", "cleared")]
    raised, cleared = transitions
    assert (raised.cause, raised.contributions[0].channel) == ("stuck", "pressure")
    assert raised.time_s <= START_S + 100 + 11 and START_S + 160 <= cleared.time_s <= START_S + 172
    assert not doubted[: 102 - 31].any() and doubted[105 - 31 : 160, 0].all() and not doubted[:, 1:].any()


def test_an_unplugged_sensor_that_reads_zero_is_doubted_at_its_second_sample() -> None:
    _, doubted = looked_at(changed(running(200, 1), 1, 100, 0.0))
    assert not doubted[: 101 - 31].any() and doubted[101 - 31 :, 1].all()


def test_a_channel_that_stands_still_for_long_in_normal_running_may_do_so() -> None:
    transitions, doubted = looked_at(changed(running(1500, 1), 2, 100, 1.0, 40))
    assert transitions == [] and not doubted.any()


def test_a_machine_fault_beyond_all_that_was_trained_is_no_fault_of_a_sensor() -> None:
    block = running(600, 1)
    for factor in (0.3, 2.0, 8.0, 40.0):
        faults = block.values[200:500, 0] * factor + np.random.default_rng(2).normal(0, 0.2, 300)
        transitions, doubted = looked_at(changed(block, 0, 200, faults, 300))
        assert transitions == [], factor
        assert not doubted.any()


def test_a_value_that_no_machine_gives_is_a_wire_or_a_wrong_byte() -> None:
    block = running(400, 1)
    for garbage in (1e30, 65535.0, -32768.0):
        transitions, doubted = looked_at(changed(block, 0, 100, garbage, 5))
        assert told(transitions) == [("range", "raised"), ("range", "cleared")]
        assert doubted[100 - 31 : 105, 0].all()


def test_limits_that_the_user_gives_need_no_training() -> None:
    block = changed(running(400, 1), 1, 100, -1.0 - np.random.default_rng(0).random(50), 50)
    transitions, doubted = looked_at(block, normal=Normal(0), flow=ChannelOverride(low=0.0))
    assert told(transitions) == [("range", "raised"), ("range", "cleared")]
    assert doubted[:, 1].any()
    assert looked_at(block, normal=Normal(0))[0] == []


def test_a_channel_that_is_off_is_not_looked_at() -> None:
    block = changed(running(400, 1), 0, 100, np.nan)
    assert told(looked_at(block)[0]) == [("missing", "raised")]
    assert looked_at(block, pressure=ChannelOverride(watched=False))[0] == []


def test_stuck_after_is_the_users_to_say() -> None:
    block = changed(running(800, 1), 2, 100, 1.0, 400)
    (raised, _) = looked_at(block, valve=ChannelOverride(stuck_after_s=200.0))[0]
    assert raised.time_s == START_S + 60 + 200 - 1  # it opened at 60
    still = changed(block, 0, 100, 5.0)
    assert (
        looked_at(still, pressure=ChannelOverride(stuck_after_s=float("inf")), valve=ChannelOverride(watched=False))[0]
        == []
    )


def test_lone_spikes_are_told_when_there_are_several_and_each_is_doubted() -> None:
    block = running(400, 1)
    values = block.values.copy()
    values[[100, 120, 150], 0] += (9.0, -9.0, 12.0)
    transitions, doubted = looked_at(SampleBlock(block.time_s, values))
    assert told(transitions) == [("spikes", "raised"), ("spikes", "cleared")]
    assert transitions[0].time_s == START_S + 151  # known when it has come back
    assert doubted[101 - 31, 0] and not doubted[100 - 31, 0]


def test_a_signal_that_is_cut_off_is_told_but_its_machine_still_may_alarm() -> None:
    rate_hz, rows = 2000.0, 40_000
    rng = np.random.default_rng(0)
    tone = np.sin(2 * np.pi * 37 * np.arange(rows) / rate_hz)[:, None]
    quiet = SampleBlock(START_S + np.arange(rows) / rate_hz, tone * (1, 1, 1) + rng.normal(0, 0.1, (rows, 3)))
    normal = normal_of(quiet, rate_hz)
    shaking = (quiet.values * 4).round(3)
    assert looked_at(SampleBlock(quiet.time_s, shaking), rate_hz=rate_hz, normal=normal)[0] == []
    clipped = SampleBlock(quiet.time_s, np.clip(shaking, -2.5, 2.5))
    transitions, doubted = looked_at(clipped, rate_hz=rate_hz, normal=normal)
    assert {t.cause for t in transitions} == {"saturated"} and not doubted.any()


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_samples_that_come_too_fast_or_too_slowly_are_told(factor: float) -> None:
    block = running(600, 1)
    time_s = START_S + (block.time_s - START_S) * factor
    assert told(looked_at(SampleBlock(time_s, block.values))[0]) == [("sample-rate", "raised")]


def test_a_clock_that_goes_back_is_told_and_a_little_step_is_not() -> None:
    block = running(600, 1)
    for step_s, expected in ((3600.0, [("clock", "raised"), ("clock", "cleared")]), (0.6, [])):
        time_s = block.time_s - np.where(np.arange(600) >= 300, step_s, 0)
        assert told(looked_at(SampleBlock(time_s, block.values))[0]) == expected


def test_a_cable_that_carries_several_sensors_makes_one_alarm_that_names_them() -> None:
    values = running(400, 1).values.copy()
    values[100:300, :2] = np.nan
    transitions, _ = looked_at(SampleBlock(running(400, 1).time_s, values))
    assert told(transitions) == [("missing", "raised"), ("missing", "cleared")]
    assert [part.channel for part in transitions[0].contributions] == ["pressure", "flow"]


def test_a_condition_that_was_on_before_a_restart_is_cleared_by_good_samples() -> None:
    quality = Quality("pump-1", CHANNELS, 1.0, NORMAL, active={"pump-1-stuck"})
    transitions = quality.check(running(100, 1))
    assert [(t.alarm, t.change) for t in transitions] == [("pump-1-stuck", Change.CLEARED)]


def test_normal_running_is_measured_alike_however_it_is_cut() -> None:
    block = running(2000)
    course = NormalCourse(NAMES, 1.0)
    for start in range(0, 2000, 7):
        course.push(block.time_s[start : start + 7], block.values[start : start + 7])
    assert course.normal() == NORMAL
    assert Normal.from_json(NORMAL.to_json()) == NORMAL
    valve = NORMAL.of("valve")
    assert valve is not None and (valve.low, valve.high, valve.longest_run) == (0.0, 1.0, 60)


@pytest.mark.parametrize("real", [0.1, 0.5, 0.85, 0.95, 1.0, 1.05, 1.15, 2.0])
@pytest.mark.parametrize("rows", [1, 7])
def test_a_rate_that_health_calls_off_is_a_comms_alarm_too(real: float, rows: int) -> None:
    now, stated_hz = [0.0], 10.0
    clock = ArrivalClock(stated_hz, wall=lambda: START_S + now[0], monotonic=lambda: now[0])
    meter, quality = RateMeter(), Quality("pump-1", CHANNELS, stated_hz, Normal(0))
    alarms, values = [], running(6000).values
    for n in range(0, 6000 - rows, rows):
        now[0] += rows / (stated_hz * real)
        time_s, step_s = clock.stamp(rows)
        block = SampleBlock(time_s, values[n : n + rows], now[0], step_s)
        meter.took(block)
        alarms += told(list(quality.check(block)))
        if now[0] > 300:
            break
    assert meter.rate_hz is None or meter.rate_hz == pytest.approx(stated_hz * real, rel=0.03)
    assert alarms == ([] if abs(real - 1) < 0.1 else [("sample-rate", "raised")])


def test_a_hole_now_and_then_is_no_rate_and_holes_as_in_normal_running_are_normal() -> None:
    at, holes = np.arange(2000), np.zeros(2000)
    holes[[700, 1500]] = 8.0
    seldom = SampleBlock(START_S + at / 10 + np.cumsum(holes), running(2000).values)
    assert not told(list(Quality("pump-1", CHANNELS, 10.0, Normal(0)).check(seldom)))
    often = SampleBlock(START_S + at / 10 + 2.0 * (at // 100), running(2000).values)
    assert ("sample-rate", "raised") in told(list(Quality("pump-1", CHANNELS, 10.0, Normal(0)).check(often)))
    assert normal_of(seldom, 10.0).rates == pytest.approx((1.0, 1.0), abs=0.01)
    normal = normal_of(often, 10.0)
    assert "sample-rate" not in dict(told(list(Quality("pump-1", CHANNELS, 10.0, normal).check(often))))
