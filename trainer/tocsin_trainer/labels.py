"""Labels in a file of their own: intervals of time in which something was wrong.

```
start,end,kind,file              kind and file may be left out
2026-03-09 08:02:30,2026-03-09 08:03:29,leak,faults.csv
```
Rules: both ends belong to the interval; times are written as ISO 8601 or as an epoch; an interval that names a `file`
holds for that one only.
"""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tocsin.errors import DataError
from tocsin.records import Bools, Floats
from tocsin_trainer.recorded import Recorded, clock, instant

MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Interval:
    """A time in which something was wrong.

    Attributes:
        start_s: first instant, in the clock of the recordings.
        end_s: last instant.
        kind: what was wrong, or empty.
        file: name of the only file it holds for, or empty.
    """

    start_s: float
    end_s: float
    kind: str = ""
    file: str = ""

    def rows(self, time_s: Floats) -> Bools:
        """(m,) which rows lie in it."""
        inside: Bools = (time_s >= self.start_s) & (time_s <= self.end_s)
        return inside


def read_labels(path: Path) -> tuple[Interval, ...]:
    """The file's intervals.

    Raises:
        DataError: no table with `start` and `end`, or a line that is no interval.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: larger than a file of labels may be ({MAX_BYTES >> 20} MiB)")
        lines = path.read_text("utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    head = lines[0] if lines else ""
    separator = max(",;\t", key=head.count)
    names = [name.strip().lower() for name in head.split(separator)]
    if not {"start", "end"} <= set(names):
        raise DataError(f"{path}: expected a header line with the columns start,end[,kind][,file], got {head[:80]!r}")
    found = []
    for number, row in enumerate(csv.reader(lines[1:], delimiter=separator, skipinitialspace=True), start=2):
        if any(cell.strip() for cell in row):
            cells = dict(zip(names, (cell.strip() for cell in row), strict=False))
            found.append(_interval(f"{path}: line {number}", cells))
    if not found:
        raise DataError(f"{path}: no intervals after the header line: expected one a line, as start,end[,kind][,file]")
    return tuple(found)


def _interval(place: str, cells: dict[str, str]) -> Interval:
    try:
        start, end = instant(cells.get("start", "")), instant(cells.get("end", ""))
    except ValueError as error:
        raise DataError(f"{place}: {error}") from error
    if end < start:
        raise DataError(f"{place}: the interval ends ({cells['end']}) before it starts ({cells['start']})")
    return Interval(start, end, cells.get("kind", ""), cells.get("file", ""))


def labelled(recordings: tuple[Recorded, ...], intervals: tuple[Interval, ...]) -> tuple[Recorded, ...]:
    """The recordings with the intervals as their labels, instead of a label column where there is one.

    Raises:
        DataError: no interval touches any row, or one names a file that is not there.
    """
    names = {recorded.path.name for recorded in recordings}
    strange = next((interval.file for interval in intervals if interval.file and interval.file not in names), None)
    if strange is not None:
        raise DataError(f"labels: they name the file {strange!r}, the data are {', '.join(sorted(names))}")
    out = tuple(_with_labels(recorded, intervals) for recorded in recordings)
    if not any(stretch.label is not None and stretch.label.any() for each in out for stretch in each.stretches):
        spans = [recorded.span_s for recorded in recordings]
        raise DataError(
            f"labels: none of the {len(intervals)} intervals ({clock(min(i.start_s for i in intervals))} to "
            f"{clock(max(i.end_s for i in intervals))}) touches a row of the data ({clock(min(s[0] for s in spans))} "
            f"to {clock(max(s[1] for s in spans))}): expected times of the same clock, UTC where no zone is given"
        )
    return out


def untouched(recordings: tuple[Recorded, ...], intervals: tuple[Interval, ...]) -> int:
    """How many intervals touch no row."""
    touched: set[Interval] = set()
    for recorded in recordings:
        own = [interval for interval in intervals if interval.file in ("", recorded.path.name)]
        for stretch in recorded.stretches:
            time_s = stretch.rows.time_s
            touched |= {interval for interval in own if interval.rows(time_s).any()}
    return sum(interval not in touched for interval in intervals)


def _with_labels(recorded: Recorded, intervals: tuple[Interval, ...]) -> Recorded:
    own = [interval for interval in intervals if interval.file in ("", recorded.path.name)]
    stretches = []
    for stretch in recorded.stretches:
        label, time_s = np.zeros(len(stretch), np.bool_), stretch.rows.time_s
        for interval in own:
            label |= interval.rows(time_s)
        stretches.append(replace(stretch, label=label))
    return replace(recorded, stretches=tuple(stretches))
