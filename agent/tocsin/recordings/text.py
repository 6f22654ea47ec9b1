"""Files → lines → fields.

Rules: no more is read at once than a block may hold, however long the file or a line is; what the file system, gzip or
the csv module says of a file becomes a `DataError` that names it.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import IO

from tocsin.errors import DataError

BLOCK_SIZE = 1 << 24  # characters
MAX_LINE = 1 << 20  # characters; no table has longer rows, but a damaged file may be one endless line


def numbered_lines(path: Path, handle: IO[str]) -> Iterator[tuple[int, str]]:
    """The lines with their numbers, from 1; none is read past what a line may be."""
    for number in count(1):
        line = handle.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            raise DataError(f"{path}: line {number} is longer than {MAX_LINE} characters: expected rows of numbers")
        if not line:
            return
        yield number, line


def next_lines(lines: Iterator[tuple[int, str]], most: int) -> list[tuple[int, str]]:
    """The next lines, at most so many, and less where they are long."""
    block: list[tuple[int, str]] = []
    size = 0
    for number, line in islice(lines, most):
        block.append((number, line))
        size += len(line)
        if size > BLOCK_SIZE:
            break
    return block


def split_fields(path: Path, numbers: list[int], lines: list[str], separator: str) -> list[list[str]]:
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


def opened(path: Path) -> IO[str]:
    """The file as text, unzipped where its name ends in `.gz`.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
        return path.open(encoding="utf-8-sig", errors="replace", newline="")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


class Translated:
    """Turns what reading a file can raise into a DataError that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError | EOFError | zlib.error | csv.Error):
            raise DataError(f"{self.path}: cannot be read to its end: {error}") from error
