"""What would spoil a model, found while a file is read: blocks come in, the first complaint stops the run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tocsin.errors import DataError
from tocsin.recordings import TableBlock
from tocsin.records import Bools, Channel, Floats

MAX_GAP_ROWS = 5
MIN_ROWS = 64
MEND = "or let --repair"


class Damage:
    """Looks through one file, a block at a time; what it remembers does not grow with the file.

    Args:
        path: of the file.
        channels: C of them, as the blocks have them.
    """

    def __init__(self, path: Path, channels: tuple[Channel, ...]) -> None:
        self.path, self.channels = path, channels
        self._rows = 0
        self._last: tuple[float, str] | None = None
        self._disorder = ""
        self._lowest, self._highest = np.full((2, len(channels)), np.nan)
        self._open = [(0, 0)] * len(channels)  # the run of missing values that is going on: its first line, its rows
        self._longest = [(0, 0)] * len(channels)

    def look(self, part: TableBlock) -> None:
        """The next block."""
        if not self._disorder:
            self._disorder = self._times(part)
        values = part.block.values
        self._lowest = np.fmin(self._lowest, np.fmin.reduce(values))
        self._highest = np.fmax(self._highest, np.fmax.reduce(values))
        missing = np.isnan(values)
        some: Bools = np.any(missing, axis=0)
        for c, (_, rows) in enumerate(self._open):
            if some[c] or rows:
                self._missing(c, missing[:, c], part.lines)
        self._rows += len(part.block)

    def stop_at_times(self) -> None:
        """Raises DataError where times went back or came twice, once there are rows enough to speak of."""
        if self._disorder and self._rows >= MIN_ROWS:
            raise DataError(self._disorder)

    def stop(self) -> None:
        """Raises DataError for the first thing that is wrong with all of the file."""
        if self._rows < MIN_ROWS:
            plural = "s" * (self._rows != 1)
            raise DataError(f"{self.path}: only {self._rows} row{plural}: a model needs {MIN_ROWS} at the very least")
        self.stop_at_times()
        for channel, low, high, (line, rows) in zip(
            self.channels, self._lowest.tolist(), self._highest.tolist(), self._longest, strict=True
        ):
            if rows == self._rows:
                raise DataError(
                    f"{self.path}: channel {channel.name!r} has no number at all: leave it out with --columns"
                )
            if rows > MAX_GAP_ROWS:
                raise DataError(
                    f"{self.path}: line {line}: channel {channel.name!r} has no value in {rows} rows in a row "
                    f"(up to {MAX_GAP_ROWS} are filled): cut the file there, leave the channel out with --columns, "
                    f"{MEND} train around it"
                )
            if low == high:
                raise DataError(
                    f"{self.path}: channel {channel.name!r} is constant ({low:g} in all rows): is the sensor "
                    f"alive? Leave it out with --columns, {MEND} keep it (any change of it will count)"
                )

    def constant(self) -> tuple[Channel, ...]:
        """The channels that never change."""
        still = ~(self._lowest < self._highest)
        return tuple(channel for channel, flag in zip(self.channels, still, strict=True) if flag)

    def _times(self, part: TableBlock) -> str:
        """The complaint about the first time that does not go on, or nothing."""
        time_s: Floats = part.block.time_s
        stamps, lines = part.stamps, part.lines
        if self._last is not None:
            time_s = np.concatenate(([self._last[0]], time_s))
            stamps, lines = [self._last[1], *stamps], [0, *lines]
        self._last = float(time_s[-1]), stamps[-1]
        stuck = np.flatnonzero(np.diff(time_s) <= 0)
        if not len(stuck):
            return ""
        i = int(stuck[0]) + 1
        if time_s[i] < time_s[i - 1]:
            return (
                f"{self.path}: line {lines[i]}: time goes back from {stamps[i - 1]} to {stamps[i]}: sort or cut the "
                f"file there, {MEND} start a new stretch there"
            )
        return (
            f"{self.path}: line {lines[i]}: the time {stamps[i]} comes twice: remove the repeated rows, give --rate "
            f"if the stamps are too coarse, {MEND} keep the first of them"
        )

    def _missing(self, c: int, flags: Bools, lines: Sequence[int]) -> None:
        """Follows the runs of missing values of one channel."""
        edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
        runs = [(lines[start], stop - start) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
        if flags[0] and self._open[c][1]:
            runs[0] = self._open[c][0], self._open[c][1] + runs[0][1]
        self._longest[c] = max([self._longest[c], *runs], key=lambda run: run[1])
        self._open[c] = runs[-1] if flags[-1] else (0, 0)
