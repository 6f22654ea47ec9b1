"""Times of samples: jitter, gaps, and clocks that are set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.core.resample import Resampler
from tocsin.records import SampleBlock
from tocsin.sources.clock import EPOCH_S, ArrivalClock, StampClock

BEGIN_S = 1_790_000_000.0


class Time:
    """A wall clock and a monotonic one."""

    def __init__(self, wall_s: float = BEGIN_S) -> None:
        self.now_s, self.offset_s = 100.0, wall_s - 100.0

    def wall(self) -> float:
        return self.now_s + self.offset_s

    def monotonic(self) -> float:
        return self.now_s


def rows_of(blocks: list[tuple[np.ndarray, float]], rate_hz: float) -> Resampler:
    """The stamps through the resampler: what it held, dropped, or called a gap."""
    resampler = Resampler(rate_hz, 1, 0.0)
    resampler.rows = 0  # type: ignore[attr-defined]
    for times, step_s in blocks:
        for rows in resampler.push(SampleBlock(times, np.zeros((len(times), 1)), 0.0, step_s)):
            resampler.rows += len(rows)  # type: ignore[attr-defined]
    return resampler


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([100.0, 1000.0, 25_600.0]), st.floats(0.98, 1.02))
def test_blocks_that_jitter_give_an_even_grid_although_the_board_runs_fast_or_slow(
    seed: int, rate_hz: float, drift: float
) -> None:
    time, random = Time(), np.random.default_rng(seed)
    clock = ArrivalClock(rate_hz, time.wall, time.monotonic)
    blocks, sent, begin_s = [], 0, time.now_s
    for _ in range(200):
        time.now_s += 0.02 + random.choice([0.0, 0.03], p=[0.9, 0.1]) * random.random()
        due = int((time.now_s - begin_s) * rate_hz * drift)
        blocks.append(clock.stamp(due - sent))
        sent = due
    found = rows_of(blocks, rate_hz)
    assert (found.gaps, found.repeated, found.backwards, found.rows) == (0, 0, 0, sent)
    assert abs(blocks[-1][0][-1] - time.wall()) < 0.2


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 400 * 86400.0, -BEGIN_S + 5.0])
def test_a_step_of_the_clock_loses_and_doubles_no_row(step_s: float) -> None:
    time = Time()
    clock = ArrivalClock(100.0, time.wall, time.monotonic)
    blocks = []
    for n in range(100):
        time.now_s += 0.1
        time.offset_s += step_s if n == 50 else 0.0
        blocks.append(clock.stamp(10))
    found = rows_of(blocks, 100.0)
    assert clock.steps == 1 and [step for _, step in blocks if step] == [pytest.approx(step_s)]
    assert (found.gaps, found.repeated, found.backwards, found.rows) == (0, 0, 0, 1000)
    assert blocks[-1][0][-1] == pytest.approx(time.wall(), abs=0.05)


def test_a_device_that_begins_in_1970_goes_on_when_its_clock_is_set() -> None:
    time = Time(12.0)
    clock = ArrivalClock(10.0, time.wall, time.monotonic)
    first, _ = clock.stamp(1)
    time.now_s, time.offset_s = time.now_s + 0.1, BEGIN_S
    second, step_s = clock.stamp(1)
    assert first[0] < 100 and second[0] > BEGIN_S
    assert second[0] - step_s - first[0] == pytest.approx(0.1, abs=1e-3)


def test_steps_under_a_second_are_not_followed() -> None:
    time = Time()
    clock = ArrivalClock(10.0, time.wall, time.monotonic)
    before, _ = clock.stamp(1)
    time.now_s, time.offset_s = time.now_s + 0.1, time.offset_s - 0.9
    after, step_s = clock.stamp(1)
    assert (step_s, after[0] - before[0]) == (0.0, pytest.approx(0.1))


def test_a_pause_is_a_gap_of_its_length() -> None:
    time = Time()
    clock = ArrivalClock(10.0, time.wall, time.monotonic)
    before, _ = clock.stamp(1)
    time.now_s += 30
    after, step_s = clock.stamp(1)
    assert (step_s, after[0] - before[0]) == (0.0, pytest.approx(30))


def test_samples_lost_by_their_number_are_a_gap_of_their_length() -> None:
    time = Time()
    clock = ArrivalClock(1000.0, time.wall, time.monotonic)
    before, _ = clock.stamp(10)
    time.now_s += 0.035
    after, _ = clock.stamp(10, lost=25)
    assert after[0] - before[-1] == pytest.approx(0.026, abs=0.002)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.5, 2.0), st.integers(0, 2**32 - 1))
def test_stamps_ascend_and_stay_near_the_clock_whatever_the_real_rate(factor: float, seed: int) -> None:
    time, random = Time(), np.random.default_rng(seed)
    clock = ArrivalClock(100.0, time.wall, time.monotonic)
    stamps = []
    for _ in range(300):
        time.now_s += (count := int(random.integers(1, 10))) / (100.0 * factor)
        stamps.append(clock.stamp(count)[0])
        assert -0.2 < stamps[-1][-1] - time.wall() < 1.1
    assert (np.diff(np.concatenate(stamps)) > 0).all()


def followed(arrivals_and_stamps: list[tuple[float, float]]) -> tuple[StampClock, list[float]]:
    time = Time()
    clock = StampClock(time.wall, time.monotonic)
    steps = []
    for arrived_s, stamp_s in arrivals_and_stamps:
        time.now_s = 100.0 + arrived_s
        steps.append(clock.follow(np.array([BEGIN_S + stamp_s]))[1])
    return clock, steps


def test_stamps_of_the_other_side_that_are_held_up_are_no_step() -> None:
    late = [(0.0, 0.0), (1.0, 1.0), (60.0, 2.0), (60.1, 3.0), (60.2, 30.0), (61.0, 61.0)]
    assert followed(late)[1] == [0.0] * 6


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_a_step_of_the_other_sides_clock_is_told_once(step_s: float) -> None:
    clock, steps = followed([(0, 0), (1, 1), (2, 2 + step_s), (3, 3 + step_s)])
    assert steps == [0.0, 0.0, pytest.approx(step_s), 0.0] and clock.steps == 1


def test_a_stamp_of_a_clock_that_was_never_set_gets_the_time_of_arrival() -> None:
    time = Time()
    clock = StampClock(time.wall, time.monotonic)
    stamps, _ = clock.follow(np.array([12.0, np.nan, EPOCH_S + 1]))
    assert stamps.tolist() == [BEGIN_S, BEGIN_S, EPOCH_S + 1] and clock.unset == 2


def test_stamps_of_a_clock_that_was_never_set_keep_their_distance() -> None:
    time, blocks = Time(), []
    clock = StampClock(time.wall, time.monotonic)
    for n in range(20):
        time.now_s = 100.0 + n * 0.05 + 0.01 * (n % 3)  # blocks arrive with jitter
        blocks.append(clock.follow(12.0 + np.arange(50 * n, 50 * (n + 1)) / 1000))
    found = rows_of(blocks, 1000.0)
    assert (found.gaps, found.repeated, found.backwards, found.rows) == (0, 0, 0, 1000)
    assert clock.unset == 1000 and abs(blocks[-1][0][-1] - time.wall()) < 0.1


@pytest.mark.parametrize("rate_hz", [0.1, 0.5, 2.0])
def test_slow_samples_keep_the_time_at_which_they_arrived(rate_hz: float) -> None:
    time, jitter = Time(), np.random.default_rng(0).uniform(-0.3, 0.3, 50)
    clock = ArrivalClock(rate_hz, time.wall, time.monotonic)
    for n in range(50):
        time.now_s = 100.0 + n / rate_hz + jitter[n] * min(1, 0.1 / rate_hz)
        (stamp,), _ = clock.stamp(1)
        assert abs(stamp - time.wall()) < (0.05 if rate_hz < 1 else 0.2)
