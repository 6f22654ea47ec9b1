from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tocsin.core.windowing import SlidingWindow
from tocsin.records import Rows


def rows(start, stop, after_gap=False):
    index = np.arange(start, stop)
    return Rows(index.astype(float), np.column_stack([index, -index]).astype(float), index, after_gap)


def test_windows_follow_each_other_by_the_hop():
    window = SlidingWindow(4, 3, 2)
    found = window.push(rows(0, 10))
    assert found.values[:, :, 0].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert found.start_s.tolist() == [0, 3, 6]
    assert found.end_s.tolist() == [3, 6, 9]
    assert found.sample.tolist() == [3, 6, 9]


def test_too_few_rows_give_no_window_of_the_right_shape():
    found = SlidingWindow(4, 1, 2).push(rows(0, 3))
    assert found.values.shape == (0, 4, 2)
    assert len(found) == 0


def test_no_window_straddles_a_gap():
    window = SlidingWindow(4, 1, 2)
    window.push(rows(0, 3))
    assert len(window.push(rows(50, 53, after_gap=True))) == 0
    assert window.push(rows(53, 54)).values[0, :, 0].tolist() == [50, 51, 52, 53]


def test_a_hop_longer_than_the_window_skips_rows():
    window = SlidingWindow(2, 5, 2)
    found = [window.push(rows(i, i + 1)).values[:, :, 0].tolist() for i in range(12)]
    assert [w for part in found for w in part] == [[0, 1], [5, 6], [10, 11]]


@given(st.integers(1, 9), st.integers(1, 12), st.lists(st.integers(0, 120), max_size=8))
def test_windows_do_not_depend_on_how_the_rows_are_cut(length, hop, cuts):
    window = SlidingWindow(length, hop, 2)
    edges = [0, *sorted(cuts), 120]
    found = []
    for a, b in pairwise(edges):
        part = window.push(rows(a, b))
        found += list(
            zip(part.start_s.tolist(), part.end_s.tolist(), part.values[:, :, 0].copy().tolist(), strict=True)
        )
    expected = [(s, s + length - 1, list(range(s, s + length))) for s in range(0, 120 - length + 1, hop)]
    assert found == expected
