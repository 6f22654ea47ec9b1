"""How a file is written, found by looking at its first lines; whatever is found can be overridden."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tocsin.errors import DataError
from tocsin.recordings.cells import MISSING, is_number, is_time, to_number, to_times
from tocsin.recordings.table import Table, TableOptions, channel_key, split_unit
from tocsin.recordings.text import Translated, next_lines, not_empty, opened, split_fields
from tocsin.records import Channel

SEPARATORS = (",", ";", "\t", "|", " ")
TIME_NAMES = {"time", "timestamp", "datetime", "date_time", "date", "ts", "t", "time_s", "epoch", "utc"}
LABEL_NAMES = {"label", "labels", "anomaly", "is_anomaly", "anomalous", "changepoint", "ground_truth"}
SNIFF_LINES = 60
EPOCH_UNITS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))  # above this, epoch in ns, µs, ms


def open_text(path: Path, options: TableOptions, channels: tuple[Channel, ...] | None = None) -> Table:
    """Looks at the first lines and finds out how the file is written.

    Args:
        path: a CSV file, plain or `.gz`.
        options: what the user said.
        channels: of a bundle, when the file is to be scored: exactly these columns are read, in this order.

    Raises:
        DataError: empty, not a table, or without a column that is needed.
    """
    with opened(path) as handle, Translated(path):
        numbers, head = not_empty(next_lines(path, handle, 1, SNIFF_LINES), 1)
    if not head:
        raise DataError(f"{path}: the file is empty: expected a header line and rows of numbers")
    if "\x00" in "".join(head[:5]):
        raise DataError(f"{path}: this is not a text file: expected a CSV table in UTF-8")
    with Translated(path):
        separator = options.separator or _find_separator(path, head)
        rows = split_fields(path, numbers, head, separator)
    decimal_comma = separator != "," and any(
        re.fullmatch(r"\s*[-+]?\d+,\d+\s*", cell) for row in rows[1:6] for cell in row
    )
    has_header = not all(is_number(cell, decimal_comma) or is_time(cell) for cell in rows[0] if cell.strip())
    names = [split_unit(cell) for cell in rows[0]] if has_header else [(f"c{i + 1}", "") for i in range(len(rows[0]))]
    body = rows[1:] if has_header else rows
    if not body:
        raise DataError(f"{path}: no rows after the header line: expected rows of numbers")
    time_column = _find_time(path, names, body, options, decimal_comma, has_header)
    label_column = _find_label(path, names, options)
    kind, scale = _time_form(path, names, body, time_column, decimal_comma, numbers[has_header:])
    value_columns, found = _find_values(
        path, names, body, options, channels, (time_column, label_column), decimal_comma
    )
    if kind == "rows" and options.rate_hz is None:
        raise DataError(
            f"{path}: no time column among {_listed(names)}: name it with --time, or give --rate (rows a second)"
        )
    return Table(
        path, separator, decimal_comma, int(has_header), found, value_columns, time_column, kind, scale,
        options.rate_hz, label_column, len(names),
    )  # fmt: skip


def _find_separator(path: Path, head: list[str]) -> str:
    """The separator that cuts the lines into the most, equally many, fields."""
    best, most = "", 1
    for separator in SEPARATORS:
        widths = {len(row) for row in csv.reader(head[1:] or head, delimiter=separator, skipinitialspace=True)}
        if (
            len(widths) == 1
            and (width := widths.pop()) > most
            and len(next(csv.reader(head, delimiter=separator))) == width
        ):
            best, most = separator, width
    if best:
        return best
    if all(is_number(line.strip(), False) for line in head[1:]):
        return ","  # a single column of numbers
    for separator in SEPARATORS[:4]:  # rows of unequal width: the error will name the line
        if head[0].count(separator) and (len(head) < 2 or head[1].count(separator)):
            return separator
    raise DataError(
        f"{path}: no separator found (tried comma, semicolon, tab, bar, space): "
        "is it a CSV table? Name it with --separator"
    )


def _find_time(
    path: Path,
    names: list[tuple[str, str]],
    body: list[list[str]],
    options: TableOptions,
    decimal_comma: bool,
    has_header: bool,
) -> int | None:
    if options.time is not None:
        return _position(path, names, options.time, "--time")
    for i, (name, _) in enumerate(names):
        if channel_key(name) in TIME_NAMES or name.strip().lower() in TIME_NAMES:
            return i
    for i in range(len(names)):
        if all(is_time(row[i]) for row in body[:5] if i < len(row)):
            return i
    if (
        not has_header and options.rate_hz is None and len(names) > 1
    ):  # a first column of numbers that only grow, evenly
        try:
            first = np.asarray([to_number(row[0], decimal_comma) for row in body])
        except (ValueError, IndexError):
            return None
        steps = np.diff(first)
        if len(steps) > 2 and (steps > 0).all() and steps.max() < 1.5 * np.median(steps):
            return 0
    return None


def _find_label(path: Path, names: list[tuple[str, str]], options: TableOptions) -> int | None:
    if options.label is not None:
        return _position(path, names, options.label, "--label")
    return next((i for i, (name, _) in enumerate(names) if channel_key(name) in LABEL_NAMES), None)


def _time_form(
    path: Path,
    names: list[tuple[str, str]],
    body: list[list[str]],
    column: int | None,
    decimal_comma: bool,
    numbers: Sequence[int],
) -> tuple[str, float]:
    if column is None:
        return "rows", 1.0
    cells = [row[column].strip() for row in body if column < len(row)]
    given = [cell for cell in cells if cell.lower() not in MISSING]  # `_times` tells where one is missing
    if given and all(is_number(cell, decimal_comma) for cell in given):
        middle = float(np.median([to_number(cell, decimal_comma) for cell in given]))
        return "epoch", next((scale for limit, scale in EPOCH_UNITS if middle > limit), 1.0)
    first, line = (cells[0] if cells else ""), numbers[0]
    for kind in ("iso", "dmy"):
        try:
            to_times([first], kind)
        except (ValueError, OverflowError):
            continue
        return kind, 1.0
    if given and first and is_number(first, decimal_comma):  # numbers, but for one
        line, first = next((n, c) for n, c in zip(numbers, cells, strict=False) if not is_number(c, decimal_comma))
    raise DataError(
        f"{path}: line {line}, column {names[column][0]!r}: {first[:40]!r} is no time that can be read: expected "
        "ISO 8601 (2026-03-09 10:14:33), DD.MM.YYYY, or epoch seconds; or give --rate"
        + ("; is the separator right (--separator)?" if len(names) == 1 else "")
    )


def _find_values(
    path: Path,
    names: list[tuple[str, str]],
    body: list[list[str]],
    options: TableOptions,
    channels: tuple[Channel, ...] | None,
    taken: tuple[int | None, int | None],
    decimal_comma: bool,
) -> tuple[tuple[int, ...], tuple[Channel, ...]]:
    keys = _keys(names)
    if channels is not None:
        missing = [channel.name for channel in channels if channel.name not in keys]
        if missing:
            raise DataError(
                f"{path}: column {missing[0]!r} is missing: the bundle needs {', '.join(c.name for c in channels)}; "
                f"the file has {_listed(names)}"
            )
        places = tuple(keys.index(channel.name) for channel in channels)
        for place, channel in zip(places, channels, strict=True):
            unit = names[place][1]
            if unit and channel.unit and unit != channel.unit:
                raise DataError(
                    f"{path}: column {channel.name!r} is in {unit}, expected {channel.unit}: convert it, or train again"
                )
        return places, channels
    if options.columns is not None:
        picked = [_position(path, names, name, "--columns") for name in options.columns]
    else:
        labels = {i for i, (name, _) in enumerate(names) if channel_key(name) in LABEL_NAMES}
        picked = [i for i in range(len(names)) if i not in taken and i not in labels]
    if not picked:
        raise DataError(
            f"{path}: no value column beside the time among {_listed(names)}: is the separator right (--separator)?"
        )
    return tuple(picked), tuple(Channel(keys[i], names[i][1]) for i in picked)


def _keys(names: list[tuple[str, str]]) -> list[str]:
    """A key of its own for each column: a name that comes again gets `_2`."""
    keys: list[str] = []
    for name, _ in names:
        key = channel_key(name)
        while key in keys:
            key += "_2"
        keys.append(key)
    return keys


def _position(path: Path, names: list[tuple[str, str]], wanted: str, flag: str) -> int:
    for i, (name, _) in enumerate(names):
        if wanted in (name, channel_key(name)):
            return i
    raise DataError(f"{path}: column {wanted!r} ({flag}) is missing: the file has {_listed(names)}")


def _listed(names: list[tuple[str, str]]) -> str:
    shown = ", ".join(name for name, _ in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
