from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.core.resample import Resampler
from tocsin.records import Rows, SampleBlock

START = 1.7e9


def block(times, values):
    values = np.asarray(values, float)
    return SampleBlock(START + np.asarray(times, float), values if values.ndim == 2 else values[:, None])


def push(times, values, rate=1.0, max_gap_s=3.0):
    samples = block(times, values)
    resampler = Resampler(rate, samples.values.shape[1], max_gap_s)
    return resampler, resampler.push(samples)


def column(rows: Rows):
    return rows.values[:, 0].tolist()


def test_a_regular_stream_passes_unchanged():
    _, [rows] = push(range(5), range(5))
    assert column(rows) == [0, 1, 2, 3, 4]
    assert rows.sample.tolist() == [0, 1, 2, 3, 4]
    assert rows.after_gap


def test_jitter_below_half_a_step_is_followed():
    _, [rows] = push([0, 1.4, 2.0, 3.3, 4.0], range(5))
    assert column(rows) == [0, 1, 2, 3, 4]


def test_a_clock_that_runs_slow_loses_and_invents_nothing():
    times = np.arange(1000) * 1.01
    resampler, [rows] = push(times, range(1000))
    assert column(rows) == list(range(1000))
    assert resampler.held == 0


def test_a_missing_row_holds_the_last_value_and_says_whose_it_is():
    resampler, [rows] = push([0, 1, 4], [10, 11, 14])
    assert column(rows) == [10, 11, 11, 11, 14]
    assert rows.sample.tolist() == [0, 1, 1, 1, 2]
    assert rows.time_s.tolist() == [START, START + 1, START + 1, START + 1, START + 4]
    assert resampler.held == 2


def test_nothing_is_invented_across_a_gap_over_the_limit():
    resampler, [before, after] = push([0, 1, 6, 7], [0, 1, 6, 7])
    assert column(before) == [0, 1]
    assert column(after) == [6, 7]
    assert after.after_gap
    assert resampler.gaps == 1


def test_a_repeated_time_keeps_the_first_sample():
    resampler, [rows] = push([0, 1, 1, 2], [0, 1, 99, 2])
    assert column(rows) == [0, 1, 2]
    assert rows.sample.tolist() == [0, 1, 3]
    assert resampler.repeated == 1


def test_time_going_back_starts_anew():
    resampler, [before, after] = push([10, 11, 2, 3], [0, 1, 2, 3])
    assert column(before) == [0, 1]
    assert column(after) == [2, 3]
    assert after.after_gap
    assert resampler.backwards == 1


def test_a_silent_channel_holds_its_value_up_to_the_limit_and_then_breaks_the_stretch():
    values = np.column_stack([np.arange(8), [0, 1, np.nan, np.nan, np.nan, np.nan, 6, 7]])
    _, [before, after] = push(range(8), values)
    assert before.values[:, 1].tolist() == [0, 1, 1, 1, 1]
    assert after.values[:, 1].tolist() == [6, 7]


def test_infinite_values_count_as_missing():
    _, [rows] = push(range(3), [0, np.inf, 2])
    assert column(rows) == [0, 0, 2]


def test_the_stream_waits_for_a_channel_that_has_not_spoken_yet():
    _, [rows] = push(range(3), [[0, np.nan], [1, 5], [2, 6]])
    assert rows.values.tolist() == [[1, 5], [2, 6]]


def test_the_last_row_of_a_block_is_not_overwritten_by_the_next():
    resampler = Resampler(1.0, 1, 3.0)
    [rows] = resampler.push(block([0, 1], [0, 1]))
    resampler.push(block([100], [5]))
    assert column(rows) == [0, 1]


steps = st.sampled_from([1.0, 1.0, 1.0, 0.9, 1.3, 0.2, 0.0, 2.0, 3.4, 12.0, -5.0])
samples = st.lists(st.tuples(steps, st.one_of(st.just(np.nan), st.floats(-9, 9))), min_size=1, max_size=80)


@settings(deadline=None)
@given(samples, st.lists(st.integers(0, 80), max_size=6))
def test_rows_do_not_depend_on_how_the_stream_is_cut(stream, cuts):
    times = np.cumsum([step for step, _ in stream])
    values = np.array([[value, 1.0] for _, value in stream])

    def rows(at):
        resampler = Resampler(1.0, 2, 3.0)
        edges = [0, *sorted(at), len(times)]
        parts = [r for a, b in pairwise(edges) for r in resampler.push(block(times[a:b], values[a:b]))]
        joined = [
            np.concatenate([getattr(p, name) for p in parts]) if parts else np.empty(0)
            for name in ("time_s", "values", "sample")
        ]
        marks, done = [], 0
        for part in parts:
            marks += [done] if part.after_gap else []
            done += len(part)
        return joined, marks, (resampler.repeated, resampler.backwards, resampler.gaps, resampler.held)

    whole, whole_marks, whole_counts = rows([])
    cut, cut_marks, cut_counts = rows([min(c, len(times)) for c in cuts])
    assert all(np.array_equal(a, b) for a, b in zip(whole, cut, strict=True))
    assert (whole_marks, whole_counts) == (cut_marks, cut_counts)
    assert np.isfinite(whole[1]).all()
