"""Recordings → one file of a form that other programs read: CSV, or Parquet where pyarrow is installed.

Rules: `time` is ISO 8601 in UTC in CSV, and a timestamp in Parquet; a missing value is empty. A number in CSV has the
digits that bring it back in the precision it was recorded in. The file appears under its name only when it is whole.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from tocsin.errors import TocsinError
from tocsin.recordings.forms import iso_stamps
from tocsin.recordings.segment import Precision
from tocsin.records import Channel, Floats, SampleBlock


def between(blocks: Iterable[SampleBlock], start_s: float, end_s: float) -> Iterator[SampleBlock]:
    """The samples from `start_s` to `end_s`, both included."""
    for block in blocks:
        inside = (block.time_s >= start_s) & (block.time_s <= end_s)
        if inside.any():
            yield block.part(inside)


def export(
    path: Path, channels: tuple[Channel, ...], blocks: Iterable[SampleBlock], precision: Precision = "float64"
) -> int:
    """Writes samples; gives how many.

    Args:
        path: `.csv` or `.parquet`.
        channels: columns of the blocks.
        blocks: in order.
        precision: of the values.

    Raises:
        TocsinError: another ending, no pyarrow, or it cannot be written.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise TocsinError(f"{path}: expected a name that ends in .csv or .parquet")
    part = path.with_name(path.name + ".part")
    try:
        rows = _csv(part, channels, blocks, precision) if path.suffix == ".csv" else _parquet(part, channels, blocks)
        part.replace(path)
    except OSError as error:
        raise TocsinError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return rows


def _names(channels: tuple[Channel, ...]) -> list[str]:
    return ["time", *(f"{c.name} [{c.unit}]" if c.unit else c.name for c in channels)]


def _csv(path: Path, channels: tuple[Channel, ...], blocks: Iterable[SampleBlock], precision: Precision) -> int:
    rows = 0
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerow(_names(channels))
        for block in blocks:
            columns = (_numbers(column, precision) for column in block.values.T)
            handle.writelines(",".join(cells) + "\n" for cells in zip(iso_stamps(block.time_s), *columns, strict=True))
            rows += len(block)
    return rows


def _numbers(column: Floats, precision: Precision) -> list[str]:
    """The shortest text of each that reads back the same; empty where it is missing."""
    if precision == "float32":
        with np.errstate(over="ignore"):
            texts = column.astype(np.float32).astype("U16").tolist()
    else:
        texts = list(map(repr, column.tolist()))
    return ["" if text == "nan" else text for text in texts]


def _parquet(path: Path, channels: tuple[Channel, ...], blocks: Iterable[SampleBlock]) -> int:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise TocsinError("Parquet needs pyarrow: pip install '.[parquet]', or name a .csv file instead") from error
    times = pa.timestamp("us", tz="UTC")
    schema = pa.schema([("time", times), *((channel.name, pa.float64()) for channel in channels)])
    units = {channel.name: channel.unit for channel in channels}
    schema = schema.with_metadata({f"unit.{name}": unit for name, unit in units.items()})
    rows = 0
    with pq.ParquetWriter(path, schema) as writer:
        for block in blocks:
            micros = np.round(block.time_s * 1e6).astype(np.int64)
            columns = [
                pa.array(micros, times),
                *(pa.array(column, from_pandas=True) for column in block.values.T.copy()),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            rows += len(block)
    return rows
