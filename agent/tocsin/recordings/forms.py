"""Any form of recording → the same blocks: text tables, segments, folders of segments."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from tocsin.errors import DataError
from tocsin.recordings.read import BLOCK_LINES, read_text
from tocsin.recordings.segment import SUFFIX, Header, find_segments, read_blocks, read_header, read_headers
from tocsin.recordings.sniff import open_text
from tocsin.recordings.table import AnyTable, SegmentTable, TableBlock, TableOptions
from tocsin.records import Channel, Floats


def open_table(path: Path, options: TableOptions, channels: tuple[Channel, ...] | None = None) -> AnyTable:
    """Finds out how a recording is written.

    Args:
        path: a CSV file, plain or `.gz`; a segment, `.seg`; or a folder of the segments of one stream.
        options: what the user said; of a segment only `columns` and `rate_hz` can be said.
        channels: of a bundle, when the recording is to be scored: exactly these are read, in this order.

    Raises:
        DataError: empty, not a recording, or without a channel that is needed.
    """
    if path.is_dir() or path.suffix == SUFFIX:
        return _open_segments(path, options, channels)
    return open_text(path, options, channels)


def read_table(table: AnyTable, block_lines: int = BLOCK_LINES) -> Iterator[TableBlock]:
    """The recording's rows, a block at a time.

    Raises:
        DataError: it is damaged; says where.
    """
    return _read_segments(table) if isinstance(table, SegmentTable) else read_text(table, block_lines)


def iso_stamps(time_s: Floats) -> list[str]:
    """Epoch seconds as ISO 8601 in UTC, to the microsecond.

    >>> iso_stamps(np.array([1773043200.25]))
    ['2026-03-09T08:00:00.250000Z']
    """
    micros = np.round(time_s * 1e6).astype(np.int64).astype("datetime64[us]")
    texts: list[str] = np.datetime_as_string(micros, timezone="UTC").tolist()
    return texts


def _open_segments(path: Path, options: TableOptions, channels: tuple[Channel, ...] | None) -> SegmentTable:
    files = find_segments(path) if path.is_dir() else [path]
    if not files:
        below = sorted({str(file.parent) for file in path.rglob(f"*{SUFFIX}")})[:3]
        hint = (
            f"name one stream's folder, such as {', '.join(below)}"
            if below
            else "expected a CSV file, or the folder of a recorded stream"
        )
        raise DataError(f"{path}: no {SUFFIX} file in this folder: {hint}")
    headers = read_headers(files) if len(files) > 1 else {files[0]: read_header(files[0])}
    if not headers:
        raise DataError(f"{path}: no segment in it has a whole header: nothing can be read")
    first_file, first = next(iter(headers.items()))
    wanted = channels if channels is not None else first.channels
    if channels is None and options.columns is not None:
        wanted = tuple(first.channels[_place(first_file, first, Channel(name))] for name in options.columns)
    picked = [tuple(_place(file, header, channel) for channel in wanted) for file, header in headers.items()]
    narrow = all(header.precision == "float32" for header in headers.values())
    return SegmentTable(
        path, tuple(headers), tuple(picked), wanted, options.rate_hz, "float32" if narrow else "float64"
    )


def _place(file: Path, header: Header, wanted: Channel) -> int:
    """Column of a channel in one segment."""
    for place, found in enumerate(header.channels):
        if found.name == wanted.name:
            if found.unit and wanted.unit and found.unit != wanted.unit:
                raise DataError(
                    f"{file}: channel {wanted.name!r} is in {found.unit}, expected {wanted.unit}: convert it, train "
                    "again, or give the segments of each unit by themselves"
                )
            return place
    raise DataError(
        f"{file}: channel {wanted.name!r} is missing: the segment has {', '.join(c.name for c in header.channels)}"
    )


def _read_segments(table: SegmentTable) -> Iterator[TableBlock]:
    done = 0
    for file, picked in zip(table.files, table.picked, strict=True):
        for block in read_blocks(file):
            rows = range(done + 1, done + len(block) + 1)
            time_s = block.time_s if table.rate_hz is None else np.arange(done, done + len(block)) / table.rate_hz
            step_s = block.step_s if table.rate_hz is None else 0.0
            taken = replace(block.columns(picked), time_s=time_s, step_s=step_s)
            yield TableBlock(taken, iso_stamps(time_s), rows, None)
            done += len(block)
    if not done:
        raise DataError(f"{table.path}: no samples in it")
