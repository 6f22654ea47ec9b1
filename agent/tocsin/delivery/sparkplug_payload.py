"""Payloads of Sparkplug B: metrics ⇄ protobuf, as much of it as this agent says and hears.

```
Payload   1 timestamp   2 metrics …   3 seq
Metric    1 name   2 alias   3 timestamp   4 datatype   5 is_historical   7 is_null   9 properties   10 … 15 value
```
Rules: fields are written in the order of their numbers, as protobuf's own encoders do, so that the bytes are theirs.
What is read is small, from anybody, and never trusted. Source of the numbers: `sparkplug_b.proto` of the
specification, version 3.0.0, chapter 6; of the form: https://protobuf.dev/programming-guides/encoding.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

Value = bool | int | float | str | None
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_LONGEST_VARINT = 10  # bytes of 64 bits
_UINT32, _UINT64 = 2**32 - 1, 2**64 - 1


class DataType(IntEnum):
    """Of a metric or a property."""

    INT32 = 3
    INT64 = 4
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12


_FIRST = {  # where `oneof value` begins: int_value, long_value, float_value, double_value, boolean_value, string_value
    kind: n for n, kind in enumerate(DataType)
}
_OF_METRIC, _OF_PROPERTY = 10, 3


@dataclass(frozen=True, slots=True)
class Property:
    """What is said of a metric beside its value."""

    kind: DataType
    value: Value


@dataclass(frozen=True, slots=True)
class Metric:
    """One value.

    Attributes:
        kind: of the value.
        value: None: there is none.
        timestamp_ms: since 1970, of the sample or the change.
        name: where there is no alias yet.
        alias: number that stands for the name.
        with_kind: the kind is told, too; in births.
        historical: from before; what is shown as current stays as it is.
        properties: by name.
    """

    kind: DataType
    value: Value
    timestamp_ms: int
    name: str | None = None
    alias: int | None = None
    with_kind: bool = False
    historical: bool = False
    properties: tuple[tuple[str, Property], ...] = ()


def encode(timestamp_ms: int, metrics: tuple[Metric, ...] = (), seq: int | None = None) -> bytes:
    """A payload.

    Args:
        timestamp_ms: since 1970, of sending.
        metrics: in the order of their times.
        seq: 0 to 255; None in a death of the node.

    >>> encode(1, (Metric(DataType.BOOLEAN, True, 2, name="On"),), 3).hex(" ")
    '08 01 12 08 0a 02 4f 6e 18 02 70 01 18 03'
    """
    body = _whole(1, timestamp_ms) + b"".join(_block(2, _metric(metric)) for metric in metrics)
    return body if seq is None else body + _whole(3, seq)


def asked(payload: bytes) -> dict[str, bool]:
    """The switches that a command sets: its boolean metrics by name; others are left out.

    Raises:
        ValueError: it is no payload.

    >>> asked(encode(1, (Metric(DataType.BOOLEAN, True, 2, name="On"),)))
    {'On': True}
    """
    found: dict[str, bool] = {}
    for number, metric in _fields(payload):
        if number == 2:
            if not isinstance(metric, bytes):
                raise ValueError("expected a metric, got a number")
            fields = dict(_fields(metric))
            name, value = fields.get(1), fields.get(_OF_METRIC + _FIRST[DataType.BOOLEAN])
            if isinstance(name, bytes) and isinstance(value, int):
                found[name.decode("utf-8")] = value != 0
    return found


def _metric(metric: Metric) -> bytes:
    parts = []
    if metric.name is not None:
        parts.append(_text(1, metric.name))
    if metric.alias is not None:
        parts.append(_whole(2, metric.alias))
    parts.append(_whole(3, metric.timestamp_ms))
    if metric.with_kind:
        parts.append(_whole(4, metric.kind))
    if metric.historical:
        parts.append(_whole(5, 1))
    if metric.value is None:
        parts.append(_whole(7, 1))
    if metric.properties:
        names = (_text(1, name) for name, _ in metric.properties)
        values = (_block(2, _property(one)) for _, one in metric.properties)
        parts.append(_block(9, b"".join((*names, *values))))
    parts.append(_value(_OF_METRIC, metric.kind, metric.value))
    return b"".join(parts)


def _property(one: Property) -> bytes:
    null = _whole(2, 1) if one.value is None else b""
    return _whole(1, one.kind) + null + _value(_OF_PROPERTY, one.kind, one.value)


def _value(first: int, kind: DataType, value: Value) -> bytes:
    """The member of `oneof value` that goes with the kind; nothing where there is no value."""
    if value is None:
        return b""
    number = first + _FIRST[kind]
    if kind is DataType.STRING:
        return _text(number, str(value))
    if kind is DataType.DOUBLE:
        return _key(number, _FIXED64) + struct.pack("<d", float(value))
    if kind is DataType.FLOAT:
        return _key(number, _FIXED32) + _single(float(value))
    return _whole(number, int(value) & (_UINT64 if kind is DataType.INT64 else _UINT32))  # two's complement


def _single(value: float) -> bytes:
    """As float; infinite where it is too large for that, as protobuf has it."""
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", math.copysign(math.inf, value))


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _whole(number: int, value: int) -> bytes:
    return _key(number, _VARINT) + _varint(value)


def _text(number: int, value: str) -> bytes:
    return _block(number, value.encode("utf-8", "replace"))


def _block(number: int, body: bytes) -> bytes:
    return _key(number, _BYTES) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of every field: a whole number, or bytes as they stand.

    Raises:
        ValueError: it is no message of protobuf.
    """
    at = 0
    while at < len(body):
        key, at = _read_varint(body, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, at = _read_varint(body, at)
            yield number, value
            continue
        if wire_type == _BYTES:
            length, at = _read_varint(body, at)
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise ValueError(f"expected a field of protobuf at byte {at}, got wire type {wire_type}")
        if length > len(body) - at:
            raise ValueError(f"expected {length} bytes at byte {at}, got {len(body) - at}: it was cut off")
        yield number, body[at : at + length]
        at += length


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    """A whole number, and where the next begins."""
    value = 0
    for n, byte in enumerate(body[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            return value, at + n + 1
    raise ValueError(f"expected a whole number at byte {at}: it does not end")
