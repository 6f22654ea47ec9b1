"""Recordings of the rate groups of one asset: a file a group, read side by side.

Rules: the file that is furthest behind in time is read next, so that what waits for another group stays small; a clock
that was set, and whose blocks say so, changes nothing. Files of one recording belong together by their place: the
second `--group vibration=…` goes with the second file of the main group.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from tocsin.core.groups import RateGroups
from tocsin.core.join import Joiner
from tocsin.errors import DataError
from tocsin.recordings.forms import open_table, read_table
from tocsin.recordings.read import check_rate
from tocsin.recordings.table import AnyTable, TableBlock, TableOptions

MAIN = "main"  # the group of --data and --input


def paired(main: tuple[Path, ...], groups: Mapping[str, tuple[Path, ...]]) -> tuple[dict[str, Path], ...]:
    """The files of each recording, by group.

    Args:
        main: files of the main group, one a recording.
        groups: files of the others, as many each.

    Raises:
        DataError: a group has more files, or fewer.
    """
    for name, files in groups.items():
        if len(files) != len(main):
            raise DataError(
                f"group {name}: {len(files)} file{'s' * (len(files) != 1)} for {len(main)} of the main group: give one "
                f"for each, in the same order (--group {name}=FILE)"
            )
    return tuple({MAIN: path, **{name: files[n] for name, files in groups.items()}} for n, path in enumerate(main))


def open_groups(files: Mapping[str, Path], groups: RateGroups, options: TableOptions) -> tuple[AnyTable, ...]:
    """The table of each group of a bundle, in the bundle's order.

    Args:
        files: by group; the only group of a bundle may have any name.
        groups: of the bundle.
        options: how the main file is written; the others are looked at for themselves.

    Raises:
        DataError: a group has no file, a file no group, or is not as the bundle needs it.
    """
    if len(groups.groups) == 1 and len(files) == 1:
        return (open_table(next(iter(files.values())), options, groups.groups[0].channels),)
    known = [group.name for group in groups.groups]
    strange = [name for name in files if name not in known]
    if strange:
        close = get_close_matches(strange[0], known, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise DataError(
            f"group {strange[0]!r} is not in the bundle: {hint}it has "
            + (f"the groups {', '.join(known)}" if len(known) > 1 else "one group only: leave --group out")
        )
    for group in groups.groups:
        if group.name not in files:
            what = f"{', '.join(channel.name for channel in group.channels)} at {group.sample_rate_hz:g} Hz"
            raise DataError(
                f"the bundle has a group {group.name!r} ({what}) and no recording of it is given: add "
                f"--group {group.name}=FILE"
            )
    return tuple(
        open_table(files[group.name], options if group.name == MAIN else TableOptions(), group.channels)
        for group in groups.groups
    )


def read_groups(tables: tuple[AnyTable, ...], groups: RateGroups) -> Iterator[tuple[int, TableBlock | None]]:
    """Blocks of all tables with the index of their group, the one furthest behind in time first.

    After a group's last block comes None, so that nobody waits for it while the others go on.

    Raises:
        DataError: as `read_table`; a file of another rate than its group's, or files that share no time.
    """
    readers = [read_table(table) for table in tables]
    waiting: list[TableBlock | None] = [next(reader, None) for reader in readers]
    starts = [float("-inf") if part is None else float(part.block.time_s[0]) for part in waiting]
    stops: list[float | None] = [None] * len(tables)
    ahead, told = [0.0] * len(tables), [False] * len(tables)
    for table, first, group in zip(tables, waiting, groups.groups, strict=True):
        if first is not None:
            check_rate(table, first.block.time_s, group.sample_rate_hz)
    reached = list(starts)
    while any(part is not None for part in waiting):
        n = min((n for n, part in enumerate(waiting) if part is not None), key=lambda n: reached[n])
        part = waiting[n]
        assert part is not None
        ahead[n] += part.block.step_s
        told[n] |= part.block.step_s != 0.0
        waiting[n], reached[n] = next(readers[n], None), float(part.block.time_s[-1]) - ahead[n]
        yield n, part
        if waiting[n] is None:
            stops[n] = reached[n]
            spans = zip((table.path for table in tables), starts, stops, strict=True)
            check_overlap([span for span, stepped in zip(spans, told, strict=True) if not stepped])
            yield n, None


def check_overlap(spans: Sequence[tuple[Path, float, float | None]]) -> None:
    """Compares the times of the files of one recording.

    Args:
        spans: of each file whose clock was not set, times of its first and its last row; None where that is not read
            yet.

    Raises:
        DataError: one ends before another begins.
    """
    latest = max((start for _, start, _ in spans), default=-np.inf)
    if latest <= min((stop for *_, stop in spans if stop is not None), default=np.inf):
        return
    said = "; ".join(
        f"{path.name} from {start:.3f}" + ("" if stop is None else f" to {stop:.3f}") for path, start, stop in spans
    )
    raise DataError(
        f"the groups share no time: {said} (epoch seconds, UTC): they have to be recorded at the same time, by clocks "
        "that agree; a file without a time column begins at 0"
    )


def mended(paths: list[Path], joiner: Joiner) -> list[str]:
    """What the grid made of damage, one sentence each.

    Args:
        paths: of each group's file.
        joiner: that read them.
    """
    said = []
    for path, group, resampler, silent in zip(
        paths, joiner.groups.groups, joiner.resamplers, joiner.silent.tolist(), strict=True
    ):
        for count, what in (
            (resampler.backwards, "times going back (windows start anew at each)"),
            (resampler.repeated, "rows with a time that was there before (the first is used)"),
            (resampler.gaps, f"gaps longer than {group.max_gap_s:g} s (windows start anew after each)"),
            (silent, f"rows of the grid left out: nothing younger than {group.max_age_s:g} s"),
        ):
            if count:
                said.append(f"{path.name}: {count} {what}")
    return said
