"""Tables of recorded samples: CSV files, plain or gzipped, read in blocks.

How a file is written is found by looking at its first lines: separator, header, units (`flow [l/min]`), time column,
form of the time, decimal comma. Whatever is found can be overridden. Rules: a file is read once, front to back, a
block at a time, so that its length does not matter; every complaint names file, line and column and what to do.
"""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import IO

import numpy as np

from tocsin.errors import DataError
from tocsin.records import Channel, Floats, SampleBlock

SEPARATORS = (",", ";", "\t", "|", " ")
TIME_NAMES = {"time", "timestamp", "datetime", "date_time", "date", "ts", "t", "time_s", "epoch", "utc"}
LABEL_NAMES = {"label", "labels", "anomaly", "is_anomaly", "anomalous", "changepoint", "ground_truth"}
MISSING = {"", "nan", "na", "n/a", "null", "none", "-", "?"}
LARGEST = 1e15  # its square still fits float32, and no sensor says more
SNIFF_LINES = 60
BLOCK_LINES = 16_384
BLOCK_SIZE = 1 << 24  # characters
MAX_LINE = 1 << 20  # characters; no table has longer rows, but a damaged file may be one endless line
PLAIN_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)?$")
EPOCH_UNITS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))  # above this, epoch in ns, µs, ms


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
class TableBlock:
    """Some rows of a file.

    Attributes:
        block: their samples.
        stamps: (n,) the time as the file writes it; the number of seconds where it has none.
        lines: (n,) line numbers, from 1.
        label: (n,) true where the label column says anomalous; None without one.
    """

    block: SampleBlock
    stamps: list[str]
    lines: list[int]
    label: np.ndarray[tuple[int], np.dtype[np.bool_]] | None


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


def open_table(path: Path, options: TableOptions, channels: tuple[Channel, ...] | None = None) -> Table:
    """Looks at the first lines and finds out how the file is written.

    Args:
        path: a CSV file, plain or `.gz`.
        options: what the user said.
        channels: of a bundle, when the file is to be scored: exactly these columns are read, in this order.

    Raises:
        DataError: empty, not a table, or without a column that is needed.
    """
    with _open(path) as handle, _Translated(path):
        kept = [(number, line) for number, line in islice(_lines(path, handle), SNIFF_LINES) if line.strip()]
    numbers, head = [number for number, _ in kept], [line for _, line in kept]
    if not head:
        raise DataError(f"{path}: the file is empty: expected a header line and rows of numbers")
    if "\x00" in "".join(head[:5]):
        raise DataError(f"{path}: this is not a text file: expected a CSV table in UTF-8")
    with _Translated(path):
        separator = options.separator or _find_separator(path, head)
        rows = _split(path, numbers, head, separator)
    decimal_comma = separator != "," and any(
        re.fullmatch(r"\s*[-+]?\d+,\d+\s*", cell) for row in rows[1:6] for cell in row
    )
    has_header = not all(_is_number(cell, decimal_comma) or _is_time(cell) for cell in rows[0] if cell.strip())
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


def read_table(table: Table, block_lines: int = BLOCK_LINES) -> Iterator[TableBlock]:
    """The file's rows, a block at a time.

    Raises:
        DataError: text where a number should be, a row with more or fewer fields, a number no sensor can give.
    """
    done = 0
    with _open(table.path) as handle, _Translated(table.path):
        numbered = _lines(table.path, handle)
        header = table.header_lines
        while chunk := _block(numbered, block_lines):
            kept = [(number, line) for number, line in chunk if line.strip()]
            kept, header = kept[header:], max(0, header - len(kept))
            if kept:
                yield _parse(table, [number for number, _ in kept], [line for _, line in kept], done)
                done += len(kept)
    if not done:
        raise DataError(f"{table.path}: no rows after the header line: expected rows of numbers")


def check_rate(table: Table, time_s: Floats, sample_rate_hz: float) -> None:
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


def _parse(table: Table, numbers: list[int], lines: list[str], first: int) -> TableBlock:
    """One chunk; the fast way first, cell by cell only where that fails, to say where."""
    wanted = [*table.value_columns, *([] if table.label_column is None else [table.label_column])]
    fields: list[list[str]] | None = None
    quoted = any('"' in line for line in lines)
    if quoted or table.separator == " ":
        fields = _split(table.path, numbers, lines, table.separator)
        numeric = None
    else:
        numeric = _fast(table, lines, wanted)
    if fields is None and (
        numeric is None
        or table.time_column is not None
        or any(line.count(table.separator) >= table.width for line in lines)  # the fast way overlooks them
    ):
        fields = [line.rstrip("\r\n").split(table.separator) for line in lines]
    if fields is not None:
        _check_width(table, numbers, fields)
    if numeric is None and fields is not None:
        numeric = _cells(table, numbers, fields, wanted)
    assert numeric is not None
    values = numeric[:, : len(table.value_columns)]
    _check_size(table, numbers, values)
    if table.time_column is None or fields is None:
        time_s = (first + np.arange(len(lines))) / (table.rate_hz or 1.0)
        stamps = [repr(t) for t in time_s.tolist()]
    else:
        stamps = [row[table.time_column].strip() for row in fields]
        if table.rate_hz is not None:
            time_s = (first + np.arange(len(lines))) / table.rate_hz
        else:
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


def _cells(table: Table, numbers: list[int], fields: list[list[str]], wanted: list[int]) -> Floats:
    out = np.empty((len(fields), len(wanted)))
    for i, row in enumerate(fields):
        for j, column in enumerate(wanted):
            cell = row[column].strip()
            try:
                out[i, j] = _number(cell, table.decimal_comma)
            except ValueError:
                if cell.lower() not in MISSING:
                    place = f"{table.path}: line {numbers[i]}, column {_column_name(table, column)}"
                    raise DataError(
                        f"{place}: expected a number, got {cell[:40]!r}: "
                        "mend the cell, or leave the column out with --columns"
                    ) from None
                out[i, j] = np.nan
    return out


def _check_width(table: Table, numbers: list[int], fields: list[list[str]]) -> None:
    for number, row in zip(numbers, fields, strict=True):
        if len(row) != table.width:
            raise DataError(
                f"{table.path}: line {number} has {len(row)} fields, expected {table.width}: "
                f"is the row cut off, or is {table.separator!r} not the separator (--separator)?"
            )


def _check_size(table: Table, numbers: list[int], values: Floats) -> None:
    with np.errstate(invalid="ignore"):
        wild = np.abs(values) > LARGEST
    if wild.any():
        i, c = np.argwhere(wild)[0].tolist()
        raise DataError(
            f"{table.path}: line {numbers[i]}, column {table.channels[c].name!r}: {values[i, c]:g} is no measurement "
            f"(beyond ±{LARGEST:g}): correct it or leave the cell empty"
        )


def _times(table: Table, numbers: list[int], stamps: list[str]) -> Floats:
    """Epoch seconds of the stamps."""
    try:
        if table.time_kind == "epoch":
            times = np.asarray([_number(stamp, table.decimal_comma) for stamp in stamps]) * table.time_scale
        else:
            times = _datetimes(stamps, table.time_kind)
        if np.isfinite(times).all():
            return times
    except (ValueError, OverflowError):
        pass
    for number, stamp in zip(numbers, stamps, strict=True):
        try:
            good = np.isfinite(
                _number(stamp, table.decimal_comma)
                if table.time_kind == "epoch"
                else _datetimes([stamp], table.time_kind)[0]
            )
        except (ValueError, OverflowError):
            good = False
        if not good:
            raise DataError(
                f"{table.path}: line {number}, time column: expected a time as in the first row, got {stamp[:40]!r}"
            )
    raise DataError(f"{table.path}: lines {numbers[0]} to {numbers[-1]}: the time column cannot be read")


def _datetimes(stamps: list[str], kind: str) -> Floats:
    if kind == "dmy":
        stamps = [f"{s[6:10]}-{s[3:5]}-{s[0:2]}{s[10:]}" for s in stamps]
    if any("/" in s for s in stamps[:1]):
        stamps = [s.replace("/", "-") for s in stamps]
    if all(s[-1:] in "Zz" for s in stamps):
        stamps = [s[:-1] for s in stamps]
    if all(map(PLAIN_ISO.match, stamps)):  # numpy alone would also take "", "NaT", "now" and "20260309" for times
        return np.asarray(stamps, "datetime64[us]").astype(np.int64) / 1e6
    parsed = (datetime.fromisoformat(s) for s in stamps)
    return np.asarray([(p if p.tzinfo else p.replace(tzinfo=UTC)).timestamp() for p in parsed])


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
    if all(_is_number(line.strip(), False) for line in head[1:]):
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
        if all(_is_time(row[i]) for row in body[:5] if i < len(row)):
            return i
    if (
        not has_header and options.rate_hz is None and len(names) > 1
    ):  # a first column of numbers that only grow, evenly
        try:
            first = np.asarray([_number(row[0], decimal_comma) for row in body])
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
    numbers: list[int],
) -> tuple[str, float]:
    if column is None:
        return "rows", 1.0
    cells = [row[column].strip() for row in body if column < len(row)]
    given = [cell for cell in cells if cell.lower() not in MISSING]  # `_times` tells where one is missing
    if given and all(_is_number(cell, decimal_comma) for cell in given):
        middle = float(np.median([_number(cell, decimal_comma) for cell in given]))
        return "epoch", next((scale for limit, scale in EPOCH_UNITS if middle > limit), 1.0)
    first, line = (cells[0] if cells else ""), numbers[0]
    for kind in ("iso", "dmy"):
        try:
            _datetimes([first], kind)
        except (ValueError, OverflowError):
            continue
        return kind, 1.0
    if given and first and _is_number(first, decimal_comma):  # numbers, but for one
        line, first = next((n, c) for n, c in zip(numbers, cells, strict=False) if not _is_number(c, decimal_comma))
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


def _column_name(table: Table, column: int) -> str:
    if column in table.value_columns:
        return repr(table.channels[table.value_columns.index(column)].name)
    return str(column + 1)


def _number(cell: str, decimal_comma: bool) -> float:
    if "_" in cell:
        raise ValueError("Python reads 1_0 as 10; a table means something else")
    return float(cell.replace(",", ".") if decimal_comma else cell)


def _is_number(cell: str, decimal_comma: bool) -> bool:
    if cell.strip().lower() in MISSING:
        return True
    try:
        _number(cell, decimal_comma)
    except ValueError:
        return False
    return True


def _is_time(cell: str) -> bool:
    return re.match(r"\s*(\d{4}[-/]\d{1,2}[-/]\d{1,2}|\d{1,2}\.\d{1,2}\.\d{4})([ T]|\s*$)", cell) is not None


def _lines(path: Path, handle: IO[str]) -> Iterator[tuple[int, str]]:
    """The lines with their numbers, from 1; none is read past what a line may be."""
    for number in count(1):
        line = handle.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            raise DataError(f"{path}: line {number} is longer than {MAX_LINE} characters: expected rows of numbers")
        if not line:
            return
        yield number, line


def _block(lines: Iterator[tuple[int, str]], most: int) -> list[tuple[int, str]]:
    """The next lines, at most so many, and less where they are long."""
    block: list[tuple[int, str]] = []
    size = 0
    for number, line in islice(lines, most):
        block.append((number, line))
        size += len(line)
        if size > BLOCK_SIZE:
            break
    return block


def _split(path: Path, numbers: list[int], lines: list[str], separator: str) -> list[list[str]]:
    """The fields of each line, quoted or not."""
    rows: list[list[str]] = []
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    for number, row in zip(numbers, reader, strict=False):
        rows.append(row)
        if reader.line_num != len(rows) or any("\n" in cell or "\r" in cell for cell in row):
            raise DataError(
                f"{path}: line {number}: a quoted cell goes on in the next line: write each row in one line"
            )
    return rows


def _open(path: Path) -> IO[str]:
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
        return path.open(encoding="utf-8-sig", errors="replace", newline="")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


class _Translated:
    """Turns what reading a file can raise into a DataError that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError | EOFError | zlib.error | csv.Error):
            raise DataError(f"{self.path}: cannot be read to its end: {error}") from error
