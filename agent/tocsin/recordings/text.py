"""Files → lines → fields.

Rules: no more is read at once than a block may hold, however long the file or a line is; what the file system, gzip or
the csv module says of a file becomes a `DataError` that names it.
"""

import csv
import gzip
import zlib
from collections.abc import Sequence
from functools import partial
from itertools import compress, islice
from pathlib import Path
from typing import IO

from tocsin.errors import DataError

BLOCK_SIZE = 1 << 24  # characters
MAX_LINE = 1 << 20  # characters; no table has longer rows, but a damaged file may be one endless line


def next_lines(path: Path, handle: IO[str], first: int, most: int) -> list[str]:
    """The next lines, at most so many, and less where they are long; none is read past what a line may be.

    Args:
        path: named in the complaint.
        handle: of the file.
        first: number of the next line, from 1.
        most: lines.

    Raises:
        DataError: a line is too long.
    """
    block: list[str] = []
    size = 0
    for line in islice(iter(partial(handle.readline, MAX_LINE + 1), ""), most):
        block.append(line)
        size += len(line)
        if len(line) > MAX_LINE:
            number = first + len(block) - 1
            raise DataError(f"{path}: line {number} is longer than {MAX_LINE} characters: expected rows of numbers")
        if size > BLOCK_SIZE:
            break
    return block


def not_empty(lines: list[str], first: int) -> tuple[Sequence[int], list[str]]:
    """Lines that hold something, with their numbers; the first of all is `first`."""
    numbers = range(first, first + len(lines))
    if all(map(str.strip, lines)):
        return numbers, lines
    kept = [line.strip() != "" for line in lines]
    return list(compress(numbers, kept)), list(compress(lines, kept))


def split_fields(path: Path, numbers: Sequence[int], lines: list[str], separator: str) -> list[list[str]]:
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
