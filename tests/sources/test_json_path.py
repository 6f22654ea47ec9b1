"""Paths in JSON payloads, and payloads."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin.sources.json_path import number_at, parse_path, read_payload, value_at


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", ()),
        ("$", ()),
        ("a", ("a",)),
        ("$.a", ("a",)),
        ("a.b[0].c", ("a", "b", 0, "c")),
        ("[2][-1]", (2, -1)),
        ("$[2].x", (2, "x")),
        ('a["b.c [0]"].d', ("a", "b.c [0]", "d")),
        (r'["say \"x\" \\"]', ('say "x" \\',)),
        ("température.°C", ("température", "°C")),
        ("a-b.0", ("a-b", "0")),
    ],
)
def test_a_path_is_keys_and_indices(text: str, steps: tuple[str | int, ...]):
    assert parse_path(text) == steps


@pytest.mark.parametrize(
    ("text", "column"),
    [(".a", 1), ("a..b", 2), ("a.", 2), ("a[", 2), ("a[x]", 2), ("a[1", 2), ("a b", 2), ("a[1]b", 5), ("$a", 2),
     ('a["x]', 2), ("a[*]", 2), ("a[9999999999]", 2), ("$..a", 2)],
)  # fmt: skip
def test_what_is_no_path_is_refused_with_its_column(text: str, column: int):
    with pytest.raises(ValueError, match=rf"column {column}: expected .*as in sensors\[0\]\.value"):
        parse_path(text)


@pytest.mark.parametrize(
    ("payload", "value"),
    [("1", 1.0), ("-2.5e3", -2500.0), ("true", 1.0), ("false", 0.0), ('"3.5"', 3.5), ('" 7 "', 7.0)],
)
def test_numbers_are_read_however_they_are_written(payload: str, value: float):
    assert number_at(read_payload(payload.encode()), ()) == value


@pytest.mark.parametrize("payload", ['"1_0"', '"x"', '""', '"nan"', '"inf"', '"１"', "{}", "[1]", "1e999", "1" * 400])
def test_what_is_no_number_is_not_a_number(payload: str):
    assert math.isnan(number_at(read_payload(payload.encode()), ()))


@pytest.mark.parametrize("payload", [b"", b"{", b"NaN", b'{"a": Infinity}', b"\xff\xfe1", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_json_is_refused(payload: bytes):
    with pytest.raises(ValueError, match="not JSON"):
        read_payload(payload)


@pytest.mark.parametrize("path", ["b", "a[3]", "a[-4]", "a.x", "a[0].x", "[0]", "n"])
def test_nothing_stands_where_the_payload_has_nothing(path: str):
    assert number_at({"a": [1, 2, 3], "n": None}, parse_path(path)) is None


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def places(value: object, way: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], object]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(way, value), *(place for key, one in inner for place in places(one, (*way, key)))]


def written(way: tuple[str | int, ...]) -> str:
    quoted = (step if isinstance(step, int) else step.replace("\\", "\\\\").replace('"', '\\"') for step in way)
    return "".join(f"[{step}]" if isinstance(step, int) else f'["{step}"]' for step in quoted)


@given(json_value)
def test_every_place_of_a_document_has_a_path(document: object):
    read = read_payload(json.dumps(document).encode())
    for way, value in places(document):
        assert value_at(read, parse_path(written(way))) == value
