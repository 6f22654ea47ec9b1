"""Sparkplug's payload, byte for byte beside protobuf's own encoder; and what is read of a stranger's."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.delivery.sparkplug_payload import DataType, Metric, Property, Value, asked, encode

from .sparkplug_proto import Payload

U64 = st.integers(0, 2**64 - 1)
VALUES: dict[DataType, st.SearchStrategy[Value]] = {
    DataType.INT32: st.integers(-(2**31), 2**31 - 1),
    DataType.INT64: st.integers(-(2**63), 2**63 - 1),
    DataType.FLOAT: st.floats(width=32),
    DataType.DOUBLE: st.floats(),
    DataType.BOOLEAN: st.booleans(),
    DataType.STRING: st.text(max_size=200),
}
FIELDS = {
    DataType.INT32: "int_value", DataType.INT64: "long_value", DataType.FLOAT: "float_value",
    DataType.DOUBLE: "double_value", DataType.BOOLEAN: "boolean_value", DataType.STRING: "string_value",
}  # fmt: skip


@st.composite
def tagged(draw: st.DrawFn) -> tuple[DataType, Value]:
    kind = draw(st.sampled_from(DataType))
    return kind, draw(st.none() | VALUES[kind])


properties = st.lists(
    st.tuples(st.text(max_size=20), tagged().map(lambda both: Property(*both))), max_size=4
).map(tuple)  # fmt: skip
metrics = st.builds(
    lambda both, **others: Metric(*both, **others),
    tagged(),
    timestamp_ms=U64,
    name=st.none() | st.text(max_size=40),
    alias=st.none() | U64,
    with_kind=st.booleans(),
    historical=st.booleans(),
    properties=properties,
)


def fill(target, kind: DataType, value: Value) -> None:
    if value is None:
        target.is_null = True
    elif kind in (DataType.INT32, DataType.INT64):
        assert isinstance(value, int)
        setattr(target, FIELDS[kind], value % 2 ** (32 if kind is DataType.INT32 else 64))
    else:
        setattr(target, FIELDS[kind], value)


def by_protobuf(timestamp_ms: int, given_metrics: tuple[Metric, ...], seq: int | None) -> bytes:
    payload = Payload(timestamp=timestamp_ms)
    if seq is not None:
        payload.seq = seq
    for metric in given_metrics:
        made = payload.metrics.add(timestamp=metric.timestamp_ms)
        if metric.name is not None:
            made.name = metric.name
        if metric.alias is not None:
            made.alias = metric.alias
        if metric.with_kind:
            made.datatype = metric.kind
        if metric.historical:
            made.is_historical = True
        for name, one in metric.properties:
            made.properties.keys.append(name)
            fill(made.properties.values.add(type=one.kind), one.kind, one.value)
        fill(made, metric.kind, metric.value)
    return bytes(payload.SerializeToString(deterministic=True))


@settings(deadline=None)
@given(U64, st.lists(metrics, max_size=5).map(tuple), st.none() | st.integers(0, 255))
def test_every_payload_has_the_bytes_of_protobufs_own_encoder(
    timestamp_ms: int, some: tuple[Metric, ...], seq: int | None
) -> None:
    assert encode(timestamp_ms, some, seq) == by_protobuf(timestamp_ms, some, seq)


def test_a_value_that_float_cannot_hold_is_infinite_and_no_error() -> None:
    payload = Payload.FromString(encode(1, (Metric(DataType.FLOAT, 1e300, 1),)))
    assert payload.metrics[0].float_value == math.inf


def test_text_that_is_no_unicode_is_told_with_marks_in_its_place() -> None:
    payload = Payload.FromString(encode(1, (Metric(DataType.STRING, "a\ud800b", 1),)))
    assert payload.metrics[0].string_value == "a?b"


@settings(deadline=None)
@given(st.lists(metrics, max_size=5).map(tuple))
def test_a_command_has_the_boolean_metrics_that_protobuf_reads(some: tuple[Metric, ...]) -> None:
    body = encode(1, some)
    expected = {
        one.name: one.boolean_value
        for one in Payload.FromString(body).metrics
        if one.HasField("name") and one.HasField("boolean_value")
    }
    assert asked(body) == expected


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_command_or_an_error_that_says_so(body: bytes) -> None:
    try:
        found = asked(body)
    except ValueError:
        return
    assert all(isinstance(name, str) for name in found)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"\x12\x05\x0a", "expected 5 bytes at byte 2, got 1"),
        (b"\x0b", "wire type 3"),
        (b"\x08" + b"\xff" * 11, "does not end"),
        (b"\x10\x01", "expected a metric"),
    ],
)
def test_what_is_wrong_with_a_command_is_said(body: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        asked(body)
