"""Values that come one channel at a time → rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin.sources.held import HeldRows
from tocsin.sources.source import SourceCounts

T0 = 1_773_043_200.0  # the stamps' clock when the monotonic one shows 0


class Bench:
    """Rows of two channels at 1 Hz; the test says what the clocks show."""

    def __init__(self, channels: int = 2, rate_hz: float = 1.0, **options: float) -> None:
        self.counts = SourceCounts()
        self.rows = HeldRows(channels, rate_hz, self.counts, **options)
        self.time_s, self.values, self.bad, self.steps = [], [], [], []

    def put(self, at_s: float, channel: int, value: float, late_s: float = 0.0, clock_s: float = T0) -> None:
        self.rows.put(clock_s + at_s, channel, value, at_s + late_s)

    def read(self, now_s: float) -> None:
        block = self.rows.block(now_s)
        self.time_s += block.time_s.tolist()
        self.values += block.values.tolist()
        self.bad += (np.zeros(block.values.shape, bool) if block.bad is None else block.bad).tolist()
        if block.step_s:
            self.steps.append((len(self.time_s) - len(block), block.step_s))


def test_a_steady_stream_gives_a_row_a_value_with_its_own_stamps():
    bench, jitter = Bench(1), np.random.default_rng(0).uniform(-0.15, 0.15, 300)
    sent = 5.0 + np.arange(300) * 1.0004 + jitter  # a clock that is a little slow
    for n, at_s in enumerate(sent):
        bench.put(at_s, 0, n)
        bench.read(at_s + 0.01)
    assert np.array(bench.values)[:, 0].tolist() == list(range(299))  # the last one's row is open
    assert np.mean(np.isclose(bench.time_s, T0 + sent[:299], atol=1e-6)) > 0.9
    assert np.abs(np.array(bench.time_s) - T0 - sent[:299]).max() < 0.2
    assert (np.abs(np.diff(bench.time_s) - 1) < 0.5).all()


def test_channels_with_different_stamps_share_a_row_and_are_held():
    bench = Bench()
    for n in range(10):
        bench.put(n, 0, n)
        if n % 3 == 0:
            bench.put(n + 0.3, 1, 100 + n)
        bench.read(n + 0.4)
    values = np.array(bench.values)
    assert values[:, 0].tolist() == list(range(9))
    assert values[:, 1].tolist() == [100, 100, 100, 103, 103, 103, 106, 106, 106]


def test_a_value_is_held_for_as_long_as_it_may_then_the_channel_has_none():
    bench = Bench(hold_s=2.2)
    bench.put(0.0, 1, 7.0)
    for n in range(6):
        bench.put(n, 0, n)
        bench.read(n + 0.1)
    assert [row[1] for row in bench.values[:2]] == [7.0, 7.0]
    assert np.isnan([row[1] for row in bench.values[2:]]).all()
    assert not np.array(bench.bad).any()  # there is none; nobody called it bad


def test_a_bad_value_is_none_and_said_to_be_bad_until_a_good_one_comes():
    bench = Bench(1)
    for n, value in enumerate([1.0, np.nan, np.nan, 4.0, 5.0]):
        bench.put(n, 0, value)
        bench.read(n + 0.1)
    assert [row[0] for row in bench.bad] == [False, True, True, False]
    np.testing.assert_array_equal(np.array(bench.values)[:, 0], [1, np.nan, np.nan, 4])


def test_without_news_rows_go_on_where_values_come_only_when_they_change():
    quiet, told = Bench(1), Bench(1, on_change=True)
    for bench in (quiet, told):
        bench.put(0, 0, 5.0)
        for now in range(1, 9):
            bench.read(float(now))
    assert quiet.values == [[5.0]]
    assert told.values == [[5.0]] * 8
    np.testing.assert_allclose(np.diff(told.time_s), 1.0)


def test_what_was_held_up_on_its_way_fills_its_rows_when_it_comes():
    bench = Bench(1)
    for n in range(5):
        bench.put(n, 0, n)
        bench.read(n + 0.1)
    for n in range(5, 40):
        bench.put(n, 0, n, late_s=40.0 - n)  # all at once
    bench.read(40.1)
    assert [row[0] for row in bench.values] == list(range(40))
    np.testing.assert_allclose(np.array(bench.time_s) - T0, np.arange(40), atol=1e-6)
    assert bench.counts.late == 0 and bench.steps == []


def test_a_value_that_is_older_than_the_last_row_counts_from_the_next_on():
    bench = Bench(on_change=True)
    bench.put(0, 0, 1.0)
    bench.put(0, 1, 1.0)
    bench.read(3.6)
    bench.put(1, 1, 2.0, late_s=2.7)
    bench.read(5.0)
    assert [row[1] for row in bench.values] == [1.0, 1.0, 1.0, 1.0, 2.0]
    assert bench.counts.late == 1


def test_a_first_value_may_be_old_where_the_clock_is_known():
    bench = Bench(1, on_change=True)
    bench.rows.clock_shows(T0 + 1000.0, 1000.0)
    bench.put(0, 0, 5.0, late_s=1000.0)  # it last changed long ago
    for now_s in (1000.0, 1001.0, 1002.0, 1003.0):
        bench.read(now_s)
    assert bench.values == [[5.0]] * 3 and bench.counts.late == 0
    assert abs(bench.time_s[0] - T0 - 1000) < 1e-6


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0, 400 * 86400.0, -2.9, 2.9])
def test_when_the_clock_is_set_rows_go_on_and_the_block_says_by_how_much(step_s: float):
    bench = Bench(1)
    for n in range(40):
        bench.put(n, 0, n, clock_s=T0 + (step_s if n >= 20 else 0))
        bench.read(n + 0.1)
    assert [row[0] for row in bench.values] == list(range(39))
    ((first, by_s),) = bench.steps
    assert first in (19, 20) and abs(by_s - step_s) < 1e-6 and bench.counts.clock_steps == 1
    gone = np.array(bench.time_s)
    gone[first:] -= by_s
    np.testing.assert_allclose(np.diff(gone), 1.0, atol=1e-6)


@pytest.mark.parametrize("ahead_s", [5.0, 86400.0])
def test_two_channels_whose_clocks_differ_share_rows_and_no_clock_is_said_to_be_set(ahead_s: float):
    bench = Bench()
    for n in range(60):
        bench.put(n, 0, n)
        bench.put(n + 0.1, 1, n, clock_s=T0 + ahead_s)
        bench.read(n + 0.5)
    assert (bench.counts.clock_steps, bench.steps) == (0, []) and bench.counts.late <= 2
    np.testing.assert_allclose(np.diff(bench.time_s), 1.0, atol=0.2)
    assert abs(bench.time_s[-1] - (T0 + 59)) < 2
    values = np.array(bench.values)[5:]
    assert np.abs(values[:, 0] - values[:, 1]).max() <= 1


@pytest.mark.parametrize("step_s", [5.0, -5.0])
def test_a_clock_that_is_set_is_followed_although_another_differs_from_it(step_s: float):
    bench = Bench()
    for n in range(60):
        set_s = step_s if n >= 30 else 0.0
        bench.put(n, 0, n, clock_s=T0 + set_s)
        bench.put(n + 0.1, 1, n, clock_s=T0 + 100.0 + set_s)
        bench.read(n + 0.5)
    assert bench.counts.clock_steps == 1 and bench.counts.late <= 4
    assert abs(bench.time_s[-1] - (T0 + 59 + step_s)) < 2


def test_a_clock_that_is_set_is_followed_although_a_value_of_before_comes_in_between():
    bench = Bench()
    for n in range(60):
        bench.put(n, 0, n, clock_s=T0 + (50.0 if n >= 30 else 0.0))
        bench.put(n + 0.1, 1, n, clock_s=T0 + (50.0 if n >= 31 else 0.0))
        bench.read(n + 0.5)
    assert bench.counts.clock_steps == 1 and bench.steps[0][1] == pytest.approx(50.0, abs=1)
    assert abs(bench.time_s[-1] - (T0 + 59 + 50.0)) < 2


def test_three_channels_with_clocks_of_their_own_settle_whatever_the_order_they_come_in():
    bench = Bench(3)
    for n in range(60):
        for place, channel in enumerate((0, 1) if n % 2 == 0 else (0, 2, 1)):
            bench.put(n + 0.1 * place, channel, n, clock_s=T0 + 3600.0 * channel)
        bench.read(n + 0.5)
    assert (bench.counts.clock_steps, bench.steps) == (0, []) and bench.counts.late <= 4
    np.testing.assert_allclose(np.diff(bench.time_s), 1.0, atol=0.3)


def test_a_clock_that_is_set_is_followed_although_a_third_channel_hardly_ever_reports():
    bench = Bench(3)
    bench.put(0, 2, 0)
    for n in range(60):
        bench.put(n + 0.1, 0, n, clock_s=T0 + (3600.0 if n >= 30 else 0.0))
        bench.put(n + 0.2, 1, n, clock_s=T0 + (3600.0 if n >= 31 else 0.0))
        bench.read(n + 0.5)
    assert bench.counts.clock_steps == 1 and bench.steps[0][1] == pytest.approx(3600.0, abs=1)
    bench.put(60, 2, 1, clock_s=T0 + 3600.0)  # its clock was set as well
    assert bench.counts.late <= 4 and abs(bench.time_s[-1] - (T0 + 59 + 3600.0)) < 2


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_step_that_several_channels_tell_counts_once(step_s: float):
    bench = Bench(3)
    for n in range(40):
        for channel in range(3):
            bench.put(n + 0.1 * channel, channel, n, clock_s=T0 + (step_s if n >= 20 else 0.0))
        bench.read(n + 0.5)
    assert bench.counts.clock_steps == 1 and [by_s for _, by_s in bench.steps] == [pytest.approx(step_s, abs=1)]


def test_stamps_that_are_always_behind_the_clock_of_the_other_side_are_kept():
    bench = Bench(1, on_change=True)
    bench.rows.clock_shows(T0, 0.0)
    for n in range(1, 60):
        bench.put(n, 0, n, late_s=1.8)
        bench.read(n + 1.9)
    assert [row[0] for row in bench.values] == list(range(1, 59))
    np.testing.assert_allclose(np.array(bench.time_s) - T0, np.arange(1, 59), atol=1e-6)
    assert bench.counts.late == bench.counts.clock_steps == 0


def test_a_long_silence_is_a_gap():
    bench = Bench(1)
    for n in [*range(5), *range(100, 105)]:
        bench.put(n, 0, n)
        bench.read(n + 0.1)
    assert [row[0] for row in bench.values] == [0, 1, 2, 3, 4, 100, 101, 102, 103]
    assert bench.steps == []


def test_after_a_lost_link_nothing_is_held_and_no_row_comes_twice():
    bench = Bench(1, on_change=True)
    bench.put(0, 0, 1.0)
    bench.read(3.6)
    bench.rows.forget()
    bench.read(4.6)
    bench.put(4.7, 0, 2.0)
    bench.read(8.0)
    assert [row[0] for row in bench.values] == [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    assert (np.diff(bench.time_s) > 0.5).all()


stamp = st.one_of(st.floats(-1e10, 1e10), st.floats(0, 60))


@given(st.lists(st.tuples(stamp, st.integers(0, 1), st.floats(), st.floats(0, 5)), max_size=60))
def test_whatever_stamps_come_rows_are_bounded_and_never_of_the_wrong_shape(
    events: list[tuple[float, int, float, float]],
):
    for on_change in (False, True):
        bench, now_s = Bench(hold_s=3.0, on_change=on_change), 0.0
        for at_s, channel, value, pause_s in events:
            now_s += pause_s
            bench.rows.put(T0 + at_s, channel, value, now_s)
            bench.read(now_s)
        assert all(len(row) == 2 for row in bench.values)
        assert len(bench.values) <= now_s + 13 * (len(events) + 1)


@pytest.mark.parametrize("stamp_s", [15.0, 2_327_000_000.0])
def test_one_late_or_wild_stamp_is_no_set_clock(stamp_s: float):
    bench = Bench(1)
    for n in range(30):
        bench.rows.put(T0 + (stamp_s if n == 20 else n), 0, n, n)
        bench.read(n + 0.1)
    assert bench.steps == [] and bench.counts.clock_steps == 0 and bench.counts.late == 1
    np.testing.assert_allclose(bench.time_s, T0 + np.arange(29), atol=0.3)
