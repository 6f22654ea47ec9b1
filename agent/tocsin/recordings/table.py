"""How a table is written, as values, and the names of its columns."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tocsin.recordings.clock import CoarseClock
from tocsin.recordings.segment import Precision
from tocsin.records import Bools, Channel, SampleBlock


@dataclass(frozen=True)
class TableOptions:
    """What the user says of the files; None = find out.

    Attributes:
        time: name of the time column.
        columns: names of the channels.
        separator: one character.
        rate_hz: rows a second, for files without a time column, or instead of it.
        label: name of the label column.
    """

    time: str | None = None
    columns: tuple[str, ...] | None = None
    separator: str | None = None
    rate_hz: float | None = None
    label: str | None = None


@dataclass(frozen=True)
class Table:
    """How one file is written.

    Attributes:
        path: the file.
        separator: between fields.
        decimal_comma: `1,5` is one and a half.
        header_lines: lines before the first row.
        channels: of the value columns, in the order they are read.
        value_columns: their positions.
        time_column: position, or None.
        time_kind: `epoch`, `iso`, `dmy`, or `rows` without a time column.
        time_scale: seconds a unit of an `epoch` column.
        rate_hz: for `rows`.
        label_column: position, or None.
        width: fields a row.
    """

    path: Path
    separator: str
    decimal_comma: bool
    header_lines: int
    channels: tuple[Channel, ...]
    value_columns: tuple[int, ...]
    time_column: int | None
    time_kind: str
    time_scale: float
    rate_hz: float | None
    label_column: int | None
    width: int


@dataclass(frozen=True)
class SegmentTable:
    """Segments of one stream, read one after the other.

    Attributes:
        path: the file or folder that was named.
        files: the segments, in order.
        picked: for each, the columns of the channels.
        channels: that are read.
        rate_hz: rows a second, when the times are not to be used.
        precision: of the values: the widest of all segments.
    """

    path: Path
    files: tuple[Path, ...]
    picked: tuple[tuple[int, ...], ...]
    channels: tuple[Channel, ...]
    rate_hz: float | None
    precision: Precision


AnyTable = Table | SegmentTable


@dataclass(frozen=True)
class TableBlock:
    """Some rows of a file.

    Attributes:
        block: their samples.
        stamps: (n,) the time as the file writes it; the number of seconds where it has none; ISO 8601 of segments.
        lines: (n,) line numbers, from 1; of segments, row numbers.
        label: (n,) true where the label column says anomalous; None without one.
        clock: the file's, where its stamps are too coarse and were evened.
    """

    block: SampleBlock
    stamps: list[str]
    lines: Sequence[int]
    label: Bools | None
    clock: CoarseClock | None = None


def channel_key(name: str) -> str:
    """A channel's key for topics and payloads, from a column's name.

    >>> channel_key("Volume Flow RateRMS")
    'volume_flow_raterms'
    >>> channel_key("2nd stage")
    'c2nd_stage'
    """
    key = re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")
    if key in ("", "time"):
        key = f"c_{key}" if key else "c"
    return key if key[0].isalpha() else f"c{key}"


def split_unit(name: str) -> tuple[str, str]:
    """Name and unit of a header field.

    >>> split_unit("Flow [l/min]")
    ('Flow', 'l/min')
    >>> split_unit("Temp (°C)")
    ('Temp', '°C')
    """
    match = re.fullmatch(r"\s*(.*?)\s*(?:\[([^\]]*)\]|\(([^)]*)\))\s*", name)
    if match and match[1]:
        return match[1], (match[2] if match[2] is not None else match[3]).strip()
    return name.strip(), ""
