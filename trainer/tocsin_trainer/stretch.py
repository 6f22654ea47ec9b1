"""Rows without a gap, kept where they can be read again by place: in memory while they are few, else on disk.

```
one file    │ time_s sample v0 … v(C−1) │ time_s sample v0 … v(C−1) │ …        float64, one row after the other
```
Rules: rows are written once; they are read in pieces and never mapped, as the pages of a map would count as memory in
use; the file has no name, so that nothing is left behind however a run ends.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tocsin.errors import TocsinError
from tocsin.records import Bools, Floats, Ints, Rows

IN_MEMORY = 1 << 26  # bytes; beyond that rows go to disk
BLOCK = 1 << 23  # bytes that are read at once
ON_DISK = Path("/var/tmp")  # noqa: S108 - the file gets no name; where /tmp is kept in memory, this is not


class RowStore:
    """Takes rows in order, gives any piece of them.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        self._folder = _folder()
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(self._folder))  # noqa: SIM115 - lives as long as the rows
        self._width = channels + 2
        self._rows = 0
        self.block_rows = max(1, BLOCK // (8 * self._width))

    def __len__(self) -> int:
        """Number of rows."""
        return self._rows

    def append(self, rows: Rows) -> None:
        """Adds rows behind the last ones.

        Raises:
            TocsinError: the disk is full.
        """
        made = np.empty((len(rows), self._width))
        made[:, 0], made[:, 1], made[:, 2:] = rows.time_s, rows.sample, rows.values
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(made.data)
            self._file.flush()  # a full disk tells here
        except OSError as error:
            raise TocsinError(
                f"{self._folder}: no room for the recording's rows ({8 * self._width * self._rows / 1e9:.1f} GB are "
                f"written): {error.strerror or error}: make room, or name another folder with TMPDIR"
            ) from error
        self._rows += len(rows)

    def read(self, start: int, stop: int) -> Rows:
        """Rows [start, stop), without saying what is before them."""
        made = np.empty((max(0, stop - start), self._width))
        self._file.seek(8 * self._width * start)
        if self._file.readinto(made.data) != made.nbytes:
            raise EOFError(f"rows {start} to {stop} of {self._rows}")
        return Rows(made[:, 0], made[:, 2:], made[:, 1].astype(np.int64), True)


@dataclass(frozen=True)
class StoredRows:
    """Rows [start, stop) of a store. `time_s`, `values` and `sample` read all of them, as `Rows` has them."""

    store: RowStore
    start: int
    stop: int

    def __len__(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    def read(self, start: int, stop: int) -> Rows:
        """Rows [start, stop), counted from the first of these."""
        return self.store.read(self.start + start, self.start + min(stop, len(self)))

    def part(self, start: int, stop: int) -> "StoredRows":
        """Rows [start, stop), unread."""
        return StoredRows(self.store, self.start + start, self.start + min(stop, len(self)))

    def blocks(self) -> Iterator[Rows]:
        """All rows in order, some megabytes at a time."""
        for start in range(0, len(self), self.store.block_rows):
            rows = self.read(start, start + self.store.block_rows)
            yield Rows(rows.time_s, rows.values, rows.sample, start == 0)

    @property
    def time_s(self) -> Floats:
        """(m,) see `Rows`."""
        return np.concatenate([np.empty(0), *(rows.time_s.copy() for rows in self.blocks())])

    @property
    def values(self) -> Floats:
        """(m, C) see `Rows`."""
        return self.read(0, len(self)).values

    @property
    def sample(self) -> Ints:
        """(m,) see `Rows`."""
        return np.concatenate([np.empty(0, np.int64), *(rows.sample for rows in self.blocks())])


@dataclass(frozen=True, eq=False)
class Stretch:
    """Rows without a gap.

    Attributes:
        rows: on the grid; those of `load` are stored, perhaps on disk, and `rows.values` reads all of them.
        label: (m,) true where anomalous, or None.
        file: index of the file it came from.
    """

    rows: Rows | StoredRows
    label: Bools | None
    file: int

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def part(self, start: int, stop: int) -> "Stretch":
        """Rows [start, stop), unread where they are stored."""
        rows = self.rows.part(start, stop) if isinstance(self.rows, StoredRows) else self.read(start, stop)
        return Stretch(rows, None if self.label is None else self.label[start:stop], self.file)

    def read(self, start: int, stop: int) -> Rows:
        """Rows [start, stop), in memory."""
        if isinstance(self.rows, StoredRows):
            return self.rows.read(start, stop)
        rows, cut = self.rows, slice(start, stop)
        return Rows(rows.time_s[cut], rows.values[cut], rows.sample[cut], True)

    def time_at(self, rows: Ints) -> Floats:
        """(n,) times of these rows, ascending, without all of the others at once."""
        times, start = [np.empty(0)], 0
        for block in self.blocks():
            times.append(block.time_s[rows[(rows >= start) & (rows < start + len(block))] - start])
            start += len(block)
        return np.concatenate(times)

    def blocks(self) -> Iterator[Rows]:
        """All rows in order, some megabytes at a time; only the first is after a gap."""
        return self.rows.blocks() if isinstance(self.rows, StoredRows) else iter((self.read(0, len(self)),))


def joined_labels(sources: Iterable[tuple[Floats, Bools]], rows: Sequence[Floats], step_s: float) -> list[Bools] | None:
    """Labels of joined rows: those of all groups that have some, since the row before.

    Args:
        sources: (n,) times and labels of the samples of each group that has labels, in any order.
        rows: (m,) times of each stretch of joined rows.
        step_s: from row to row.

    Returns:
        (m,) of each stretch; None where no group has labels.
    """
    found: list[Bools] | None = None
    for time_s, label in sources:
        order = np.argsort(time_s, kind="stable")
        times, count = time_s[order], np.concatenate(([0], np.cumsum(label[order])))
        each = []
        for at in rows:
            newest = np.searchsorted(times, at, side="right")
            before = np.minimum(np.searchsorted(times, at - step_s, side="right"), np.maximum(newest - 1, 0))
            each.append(count[newest] > count[before])
        found = each if found is None else [a | b for a, b in zip(found, each, strict=True)]
    return found


def _folder() -> Path:
    """$TMPDIR, else /var/tmp, else what the system has."""
    asked = os.environ.get("TMPDIR")
    if not asked and ON_DISK.is_dir() and os.access(ON_DISK, os.W_OK):
        return ON_DISK
    return Path(tempfile.gettempdir())
