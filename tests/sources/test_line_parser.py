"""Bytes of a serial line → rows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin.sources.lines import LONGEST_LINE, LineParser

piece = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"1,2\n", b"3.5;-4e2\r\n", b"\n", b"1\t2\n", b"nan,inf\n", b"1,2,3\n", b"x" * 1500, b"5 6\n", b" " * 1100]
    ),
)


def parsed(pieces: list[bytes]) -> tuple[list[list[str]], int]:
    parser = LineParser(2)
    parser.feed(b"\n")
    rows = [row for piece in pieces for row in parser.feed(piece).tolist()]
    return [[repr(value) for value in row] for row in rows], parser.bad_lines


@given(st.lists(piece, max_size=20), st.lists(st.integers(0, 3000), max_size=10))
def test_what_is_read_does_not_depend_on_how_the_bytes_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    cut_up = [data[start:stop] for start, stop in pairwise(edges)]
    assert parsed(cut_up) == parsed([data])


@pytest.mark.parametrize("cut", [1, 1023, 1024, 1025, 1300, 1503, 1504])
def test_a_line_that_is_too_long_is_one_mistake_however_it_comes(cut: int) -> None:
    data = b"1,2\n1" + b" " * 1500 + b",2\n3,4\n"
    assert parsed([data[: cut + 4], data[cut + 4 :]]) == ([["1.0", "2.0"], ["3.0", "4.0"]], 1)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_whatever_comes_gives_rows_of_the_right_width(pieces: list[bytes]) -> None:
    parser = LineParser(3)
    for piece in pieces:
        assert parser.feed(piece).shape[1:] == (3,)


@pytest.mark.parametrize(
    "line", [b"1.5,-2", b"1.5;-2", b"1.5\t-2", b"1.5 -2", b" 1.5 , -2 ", b"1.5,-2\r", b"+1.5e0,-2"]
)
def test_the_separators_that_sketches_print_are_understood(line: bytes) -> None:
    np.testing.assert_array_equal(LineParser(2).feed(b"\n" + line + b"\n"), [[1.5, -2.0]])


def test_the_half_line_at_the_start_is_no_mistake() -> None:
    parser = LineParser(2)
    parser.feed(b"5\n1,2\n")
    assert parser.bad_lines == 0


def test_the_first_line_is_left_out_as_its_beginning_may_be_torn_off() -> None:
    assert LineParser(2).feed(b"2.5,3.1\n12.6,3.2\n").tolist() == [[12.6, 3.2]]


@pytest.mark.parametrize("line", [b"1,2,3", b"1", b"1,x", b"1,2_0", b"\xff\xfe,1", "１,２".encode(), b"hello"])
def test_a_line_that_is_no_sample_is_counted_and_the_next_is_read(line: bytes) -> None:
    parser = LineParser(2)
    rows = parser.feed(b"\n1,2\n" + line + b"\n3,4\n")
    assert (rows.tolist(), parser.bad_lines) == ([[1, 2], [3, 4]], 1)


def test_a_stream_without_line_ends_takes_no_memory() -> None:
    parser = LineParser(2)
    for _ in range(100):
        parser.feed(b"1" * 1000)
    assert len(parser._rest) <= LONGEST_LINE + 1
    assert parser.feed(b"\n1,2\n").tolist() == [[1, 2]]
