"""A recording as the agent would meet it: the bundle's channels, on its grid, cut at gaps.

Rules: nothing is refused that the agent would take; what it would mend is told in `warnings`; rows are read in pieces
and kept on disk, as in training, so that a recording may be larger than memory.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np

from tocsin.core.groups import RateGroups
from tocsin.core.join import Joiner
from tocsin.core.manifest import Manifest
from tocsin.errors import DataError
from tocsin.recordings import MAIN, TableOptions, mended, open_groups, read_groups
from tocsin.recordings.sniff import EPOCH_UNITS
from tocsin.records import Bools, Floats, Rows
from tocsin_trainer.export import Grid
from tocsin_trainer.stretch import RowStore, StoredRows, Stretch, joined_labels


@dataclass(frozen=True)
class Recorded:
    """One file.

    Attributes:
        path: of the file.
        stretches: its rows without gaps, in order, labelled where the file has a label column.
        warnings: what the grid mended.
    """

    path: Path
    stretches: tuple[Stretch, ...]
    warnings: tuple[str, ...]

    @property
    def span_s(self) -> tuple[float, float]:
        """Times of the first and the last row."""
        ends = [stretch.read(row, row + 1) for stretch in self.stretches for row in (0, len(stretch) - 1)]
        times = [float(end.time_s[0]) for end in ends]
        return min(times), max(times)


def grid_of(manifest: Manifest) -> Grid:
    """How the bundle's device turns samples into windows."""
    return Grid(
        manifest.columns,
        manifest.sample_rate_hz,
        manifest.max_gap_s,
        manifest.length,
        manifest.hop,
        manifest.smoothing,
        groups=manifest.groups,
    )


def read_recorded(
    path: Path, manifest: Manifest, options: TableOptions, others: Mapping[str, Path] | None = None
) -> Recorded:
    """Reads a recording and puts it on the bundle's grid.

    Args:
        path: of the main group's file.
        manifest: of the bundle.
        options: how that file is written.
        others: files of the other groups, by name.

    Raises:
        DataError: not a table, without a channel of the bundle, of another rate, or too short for one window.
    """
    groups = manifest.groups
    tables = open_groups({MAIN: path, **(others or {})}, groups, options)
    joiner = Joiner(groups, wait=False)
    kept = _Kept()
    labels: dict[int, list[tuple[Floats, Bools]]] = {}
    count = 0
    for n, part in read_groups(tables, groups):
        if part is None:
            kept.append(joiner.end(n))
            continue
        if n == groups.base:
            count += len(part.block)
        if part.label is not None:
            labels.setdefault(n, []).append((part.block.time_s, part.label))
        kept.append(joiner.push(n, part.block))
    kept.append(joiner.finish())
    whole = kept.stretches()
    if max(map(len, whole), default=0) < manifest.length:
        raise DataError(
            f"{path}: {count} rows, at most {max(map(len, whole), default=0)} of them without a gap: "
            f"expected {manifest.length} for one window of this bundle"
        )
    label = _labels(labels, whole, groups)
    made = tuple(Stretch(rows, None if label is None else label[n], 0) for n, rows in enumerate(whole))
    return Recorded(path, made, tuple(mended([table.path for table in tables], joiner)))


def _labels(
    labels: Mapping[int, list[tuple[Floats, Bools]]], whole: list[StoredRows], groups: RateGroups
) -> list[Bools] | None:
    """(m,) of each stretch: of the sample that each row shows, or of all groups' samples since the row before."""
    given = [
        (np.concatenate(times), np.concatenate(flags))
        for times, flags in (zip(*g, strict=True) for g in labels.values())
    ]
    if groups.alone:
        return [given[0][1][rows.sample] for rows in whole] if given else None
    return joined_labels(given, [rows.time_s for rows in whole], 1 / groups.sample_rate_hz)


class _Kept:
    """Rows put where they can be read again, and where each stretch of them begins."""

    def __init__(self) -> None:
        self._store: RowStore | None = None
        self._firsts: list[int] = []

    def append(self, parts: list[Rows]) -> None:
        """Rows that follow those before, or a gap."""
        for rows in parts:
            if self._store is None:
                self._store = RowStore(rows.values.shape[1])
            if rows.after_gap or not self._firsts:
                self._firsts.append(len(self._store))
            self._store.append(rows)

    def stretches(self) -> list[StoredRows]:
        """All of them, in order."""
        if self._store is None:
            return []
        return [StoredRows(self._store, *ends) for ends in pairwise([*self._firsts, len(self._store)])]


def instant(text: str) -> float:
    """Epoch seconds of a time as tables and people write it.

    ISO 8601 or DD.MM.YYYY, UTC where it does not say, or an epoch in s, ms, µs or ns. Small numbers, with or without
    an `s`, are taken as they are: seconds of a recording without a clock.

    >>> instant("1970-01-01 00:01"), instant("1970-01-01T01:00:01+01:00"), instant("1700000000000"), instant("12,5 s")
    (60.0, 1.0, 1700000000.0, 12.5)
    >>> instant("09.03.2026 08:00:00") == instant("2026-03-09T09:00:00+01:00") == instant("2026/03/09 08:00")
    True

    Raises:
        ValueError: it is neither.
    """
    text = text.strip().replace("/", "-")
    if re.fullmatch(r"-?[0-9]+([.,][0-9]*)? ?s?", text):
        text = text.rstrip(" s").replace(",", ".")
    if re.match(r"[0-9]{2}\.[0-9]{2}\.[0-9]{4}", text):
        text = f"{text[6:10]}-{text[3:5]}-{text[:2]}{text[10:]}"
    if re.fullmatch(r"-?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?", text, re.IGNORECASE):
        number = float(text)
        return number * next((scale for above, scale in EPOCH_UNITS if number > above), 1.0)
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"expected a time such as 2026-03-09T08:00:00 or 1773043200, got {text[:40]!r}") from None


def clock(time_s: float) -> str:
    """A time as people read it: UTC, or seconds where the recording has no clock.

    >>> clock(1773043200.5), clock(12.5), clock(1234567.25)
    ('2026-03-09 08:00:00.500', '12.5 s', '1234567.25 s')
    """
    if not 1e8 < time_s < 1e11:
        return f"{round(time_s, 3):.15g} s"
    at = datetime.fromtimestamp(round(time_s, 3), UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}" + (f".{at.microsecond // 1000:03d}" if at.microsecond else "")
