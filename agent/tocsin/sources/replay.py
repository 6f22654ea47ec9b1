"""Recorded files, played in real time, faster, or as fast as they can be read."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from tocsin.errors import DataError, SourceError
from tocsin.recordings import TableOptions, open_table, read_table
from tocsin.records import Channel, SampleBlock
from tocsin.settings import FilePath
from tocsin.sources import Source, SourceCounts, SourceSettings

PIECE_S = 0.1  # samples are handed over in pieces of about this much wall time


class ReplaySettings(SourceSettings):
    """Recorded files, played."""

    steady: ClassVar[bool] = False  # the files say when

    type: Literal["replay"]
    files: tuple[FilePath, ...] = Field(min_length=1, description="CSV tables, played one after the other")
    speed: float = Field(1.0, ge=0, description="recorded seconds in a second; 0 = as fast as possible")
    time: str | None = Field(None, description="name of the time column, when it is not found")
    separator: str | None = Field(None, description="between fields, when it is not found")
    rate_hz: float | None = Field(None, gt=0, description="rows a second, for files without a time column")

    def make(self, wanted: tuple[Channel, ...]) -> Source:
        """Plays the wanted columns."""
        options = TableOptions(time=self.time, separator=self.separator, rate_hz=self.rate_hz)
        return ReplaySource(self.files, options, self.speed, wanted or None)


class ReplaySource:
    """Plays tables one after the other; the samples keep the times that the files give.

    Args:
        files: CSV tables.
        options: how they are written, where that cannot be found out.
        speed: recorded seconds in a second of wall time; 0 = no waiting.
        channels: of the bundle: exactly these columns are read; None = all.
    """

    def __init__(
        self, files: tuple[Path, ...], options: TableOptions, speed: float, channels: tuple[Channel, ...] | None = None
    ) -> None:
        self._files, self._options, self._speed, self._wanted = files, options, speed, channels
        self.channels: tuple[Channel, ...] = channels or ()
        self.ended = self._opened = False
        self.counts = SourceCounts()  # stays at nought: a line that cannot be read ends the recording
        self._blocks: Iterator[SampleBlock] = iter(())
        self._rest: SampleBlock | None = None
        self._started: tuple[float, float] | None = None

    def open(self) -> None:
        """Looks at the files; playing goes on from where it stopped."""
        if self._opened:
            return
        try:
            tables = [open_table(path, self._options, self._wanted) for path in self._files]
        except DataError as error:
            raise SourceError(str(error)) from error
        self.channels = tables[0].channels
        self._blocks = (part.block for table in tables for part in read_table(table))
        self._opened = True

    def read(self, timeout_s: float) -> SampleBlock:
        """The samples whose time has come."""
        try:
            waiting = self._rest if self._rest is not None else next(self._blocks, None)
        except DataError as error:
            self.ended = True
            raise SourceError(str(error)) from error
        if waiting is None:
            self.ended = True
            return SampleBlock(np.empty(0), np.empty((0, len(self.channels))), time.monotonic())
        if not self._speed:
            self._rest = None
            return replace(waiting, arrived_s=time.monotonic())
        return self._paced(waiting, timeout_s)

    def _paced(self, waiting: SampleBlock, timeout_s: float) -> SampleBlock:
        now = time.monotonic()
        first = float(waiting.time_s[0])
        if self._started is None or not 0 <= first - self._played(now) < 3600 * self._speed:
            self._started = (now, first)  # the first sample, or a jump in the recording: play on from here
        due = self._started[0] + (first - self._started[1]) / self._speed
        if due > now:
            time.sleep(min(due - now, timeout_s))
        until = self._played(time.monotonic())
        late = np.flatnonzero((waiting.time_s > until + PIECE_S * self._speed) | (waiting.time_s < first))
        cut = int(late[0]) if len(late) else len(waiting)
        if first > until:
            cut = 0
        self._rest = waiting.part(slice(cut, None)) if cut < len(waiting) else None
        return replace(waiting.part(slice(cut)), arrived_s=time.monotonic())

    def _played(self, now: float) -> float:
        assert self._started is not None
        return self._started[1] + (now - self._started[0]) * self._speed

    def close(self) -> None:
        """Nothing to let go of: files are read in pieces."""
