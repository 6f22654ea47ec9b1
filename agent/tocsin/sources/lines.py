"""Bytes of a stream of lines → rows of numbers: comma-separated, or JSON.

The first line is left out, as it may have begun before we listened. A line that does not parse is counted and skipped,
so that the stream recovers by itself after garbage. Where the number of axes is not given, it is that of the first
three lines in a row that have the same.
"""

import json
import math

import numpy as np

from tocsin.records import Floats

LONGEST_LINE = 1024
SEPARATORS = str.maketrans(";\t,", "   ")
ALIKE = 3  # lines in a row with as many numbers, before they count as axes


class LineParser:
    """Lines of numbers, separated by comma, semicolon, tab or space → rows.

    Args:
        channels: numbers a line; None = found out.

    Attributes:
        channels: as given, or found out.
        bad_lines: lines that were skipped.
    """

    def __init__(self, channels: int | None) -> None:
        self.channels = channels
        self.bad_lines = 0
        self._rest = b""
        self._synced = False
        self._alike = (0, 0)  # numbers in the last line, and lines in a row with as many

    def feed(self, data: bytes) -> Floats:
        """(n, C) the rows that these bytes complete; (0, 0) before the axes are known."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[: LONGEST_LINE + 1]  # what is longer is no sample, however it ends
        rows = []
        for line in lines:
            row = self._row(line) if len(line) <= LONGEST_LINE else None
            if not self._synced:
                self._synced = True
            elif row is not None and self._fits(row):
                rows.append(row)
            elif row is None and (line.strip() or len(line) > LONGEST_LINE):
                self.bad_lines += 1
        return np.asarray(rows, np.float64).reshape(len(rows), self.channels or 0)

    def _row(self, line: bytes) -> list[float] | None:
        """The numbers of a line, or None where it is no sample."""
        if b"_" in line:  # Python would read 1_0 as ten
            return None
        try:
            row = [float(cell) for cell in line.decode("ascii").translate(SEPARATORS).split()]
        except ValueError:
            return None
        return row if row and len(row) == (self.channels or len(row)) else None

    def _fits(self, row: list[float]) -> bool:
        if self.channels is None:
            length, lines = self._alike
            self._alike = (len(row), lines + 1 if length == len(row) else 1)
            if self._alike[1] >= ALIKE:
                self.channels = len(row)
        return self.channels == len(row)


class JsonLineParser(LineParser):
    """Lines that are JSON objects, `{"pressure": 4.1, "flow": 33}` → rows; a key that is missing gives NaN.

    Args:
        keys: of the channels, in order.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__(len(keys))
        self._keys = keys

    def _row(self, line: bytes) -> list[float] | None:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or not any(key in found for key in self._keys):
            return None
        row = [_number(found.get(key)) for key in self._keys]
        return None if None in row else row  # type: ignore[return-value] # narrowed by the test


def _number(value: object) -> float | None:
    """A JSON number or truth value; NaN for null; None for anything else."""
    if value is None:
        return math.nan
    if not isinstance(value, bool | int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
