"""A table's rows, a block at a time.

Rules: a block is read the fast way, and cell by cell only where that fails, to say where; every complaint names file,
line and column and what to do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from tocsin.errors import DataError
from tocsin.recordings.cells import MISSING, to_number, to_times
from tocsin.recordings.clock import CoarseClock, Evened, coarse_clock
from tocsin.recordings.table import AnyTable, Table, TableBlock
from tocsin.recordings.text import Translated, next_lines, not_empty, opened, split_fields
from tocsin.records import Floats, SampleBlock

LARGEST = 1e15  # its square still fits float32, and no sensor says more
BLOCK_LINES = 16_384


def read_text(table: Table, block_lines: int = BLOCK_LINES) -> Iterator[TableBlock]:
    """The file's rows, a block at a time; times are evened where the first block shows a coarse clock.

    Raises:
        DataError: text where a number should be, a row with more or fewer fields, a number no sensor can give.
    """
    done = 0
    clock: CoarseClock | None = None
    evened: Evened | None = None
    with opened(table.path) as handle, Translated(table.path):
        header, first = table.header_lines, 1
        while chunk := next_lines(table.path, handle, first, block_lines):
            numbers, lines = not_empty(chunk, first)
            first += len(chunk)
            before, header = header, max(0, header - len(lines))
            if lines[before:]:
                part = _parse(table, numbers[before:], lines[before:], done)
                if not done and table.rate_hz is None:
                    clock = coarse_clock(part.block.time_s)
                    evened = None if clock is None else Evened(clock)
                if evened is not None:
                    block = replace(part.block, time_s=evened(part.block.time_s))
                    part = replace(part, block=block, clock=clock)
                yield part
                done += len(lines[before:])
    if not done:
        raise DataError(f"{table.path}: no rows after the header line: expected rows of numbers")


def check_rate(table: AnyTable, time_s: Floats, sample_rate_hz: float) -> None:
    """Compares the file's own rate with the one that its rows are to be put on.

    Args:
        table: names the file.
        time_s: (n,) of its first rows.
        sample_rate_hz: of the grid.

    Raises:
        DataError: the median step is not within a tenth of the grid's.
    """
    steps = np.diff(time_s)
    steps = steps[steps > 0]
    if len(steps) < 16:
        return
    found = 1 / float(np.median(steps))
    if not 0.9 <= found / sample_rate_hz <= 1.1:
        raise DataError(
            f"{table.path}: has {found:.4g} rows a second, expected {sample_rate_hz:.4g}: windows would be stretched; "
            "record at that rate, or train with recordings of this one"
        )


def _parse(table: Table, numbers: Sequence[int], lines: list[str], first: int) -> TableBlock:
    """One chunk; the fast way first, cell by cell only where that fails, to say where."""
    wanted = [*table.value_columns, *([] if table.label_column is None else [table.label_column])]
    fields: list[list[str]] | None = None
    numeric: Floats | None = None
    quoted = table.separator == " " or '"' in "".join(lines)
    if not quoted and {line.count(table.separator) for line in lines} == {table.width - 1}:
        numeric = _fast(table, lines, wanted)
    if numeric is None:
        if quoted:
            fields = split_fields(table.path, numbers, lines, table.separator)
        else:
            fields = [line.rstrip("\r\n").split(table.separator) for line in lines]
        _check_width(table, numbers, fields)
        numeric = _cells(table, numbers, fields, wanted)
    values = numeric[:, : len(table.value_columns)]
    _check_size(table, numbers, values)
    time_s = (first + np.arange(len(lines))) / (table.rate_hz or 1.0)
    if (place := table.time_column) is None:
        stamps = [repr(t) for t in time_s.tolist()]
    else:
        if fields is None:
            stamps = [line.split(table.separator, place + 1)[place].strip() for line in lines]
        else:
            stamps = [row[place].strip() for row in fields]
        if table.rate_hz is None:
            time_s = _times(table, numbers, stamps)
    label = None if table.label_column is None else np.nan_to_num(numeric[:, -1]) > 0
    return TableBlock(SampleBlock(time_s, values), stamps, numbers, label)


def _fast(table: Table, lines: list[str], wanted: list[int]) -> Floats | None:
    """(n, len(wanted)) by numpy's parser, or None when some cell is not a plain number."""
    text = [line.replace(",", ".") for line in lines] if table.decimal_comma else lines
    try:
        return np.loadtxt(text, delimiter=table.separator, usecols=wanted, comments=None, ndmin=2, dtype=np.float64)
    except ValueError:
        return None


def _cells(table: Table, numbers: Sequence[int], fields: list[list[str]], wanted: list[int]) -> Floats:
    out = np.empty((len(fields), len(wanted)))
    for i, row in enumerate(fields):
        for j, column in enumerate(wanted):
            cell = row[column].strip()
            try:
                out[i, j] = to_number(cell, table.decimal_comma)
            except ValueError:
                if cell.lower() not in MISSING:
                    place = f"{table.path}: line {numbers[i]}, column {_column_name(table, column)}"
                    raise DataError(
                        f"{place}: expected a number, got {cell[:40]!r}: "
                        "mend the cell, or leave the column out with --columns"
                    ) from None
                out[i, j] = np.nan
    return out


def _check_width(table: Table, numbers: Sequence[int], fields: list[list[str]]) -> None:
    for number, row in zip(numbers, fields, strict=True):
        if len(row) != table.width:
            raise DataError(
                f"{table.path}: line {number} has {len(row)} fields, expected {table.width}: "
                f"is the row cut off, or is {table.separator!r} not the separator (--separator)?"
            )


def _check_size(table: Table, numbers: Sequence[int], values: Floats) -> None:
    with np.errstate(invalid="ignore"):
        wild = np.abs(values) > LARGEST
    if wild.any():
        i, c = np.argwhere(wild)[0].tolist()
        raise DataError(
            f"{table.path}: line {numbers[i]}, column {table.channels[c].name!r}: {values[i, c]:g} is no measurement "
            f"(beyond ±{LARGEST:g}): correct it or leave the cell empty"
        )


def _times(table: Table, numbers: Sequence[int], stamps: list[str]) -> Floats:
    """Epoch seconds of the stamps."""
    try:
        if table.time_kind == "epoch":
            times = np.asarray([to_number(stamp, table.decimal_comma) for stamp in stamps]) * table.time_scale
        else:
            times = to_times(stamps, table.time_kind)
        if np.isfinite(times).all():
            return times
    except (ValueError, OverflowError):
        pass
    for number, stamp in zip(numbers, stamps, strict=True):
        try:
            good = np.isfinite(
                to_number(stamp, table.decimal_comma)
                if table.time_kind == "epoch"
                else to_times([stamp], table.time_kind)[0]
            )
        except (ValueError, OverflowError):
            good = False
        if not good:
            raise DataError(
                f"{table.path}: line {number}, time column: expected a time as in the first row, got {stamp[:40]!r}"
            )
    raise DataError(f"{table.path}: lines {numbers[0]} to {numbers[-1]}: the time column cannot be read")


def _column_name(table: Table, column: int) -> str:
    if column in table.value_columns:
        return repr(table.channels[table.value_columns.index(column)].name)
    return str(column + 1)
