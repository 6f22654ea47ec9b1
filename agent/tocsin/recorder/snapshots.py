"""Snapshots: what was recorded before and after an alarm, kept out of the ring's eviction.

Rules: an alarm whose id is that of the open snapshot lengthens it; the oldest snapshot goes when all together are over
their bound, and one that reaches the bound by itself ends. What must stay free on the disk stays free. A snapshot is
written as the samples come: a power cut leaves what there was.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tocsin.recorder.limits import RecorderLimits
from tocsin.recorder.ring import free_bytes
from tocsin.recordings.segment import Header, SegmentWriter, sync_folder
from tocsin.records import SampleBlock

SLACK_S = 30.0  # of the monotonic clock, that a source may be behind or silent for


@dataclass(slots=True)
class _Open:
    """A snapshot that still grows; times by the samples' clock, `deadline_s` by the monotonic one."""

    folder: Path
    until_s: float
    deadline_s: float
    writers: dict[str, SegmentWriter] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    full: bool = False


class Snapshots:
    """Snapshots under one folder; belongs to one thread.

    Args:
        folder: made when missing.
        limits: bounds.

    Attributes:
        evicted: snapshots that left since the start.

    Raises:
        OSError: the folder cannot be used.
    """

    def __init__(self, folder: Path, limits: RecorderLimits) -> None:
        self.folder, self._limits, self.evicted = folder, limits, 0
        folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, _Open] = {}
        self._sizes = {path.name: _size(path) for path in sorted(folder.iterdir()) if path.is_dir()}

    @property
    def size(self) -> int:
        """Bytes of all snapshots."""
        return sum(self._sizes.values())

    @property
    def names(self) -> set[str]:
        """Ids of those that are on the disk."""
        return set(self._sizes)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._sizes)

    def begin(
        self,
        snapshot: str,
        asset: str,
        time_s: float,
        now_s: float,
        headers: list[Header],
        since: Callable[[str, float], Iterator[SampleBlock]],
    ) -> None:
        """Copies what was before, and stays open for what comes; or lengthens the one that is open.

        Args:
            snapshot: id, unique unless that of the open one.
            asset: its id.
            time_s: of the alarm, by the samples' clock.
            now_s: monotonic.
            headers: of the asset's streams.
            since: gives the samples of a stream from a time on.

        Raises:
            OSError: it cannot be written.
        """
        after_s = self._limits.after_s
        opened = self._open.get(asset)
        if opened is not None and opened.folder.name == snapshot:
            opened.until_s = max(opened.until_s, time_s + after_s)
            opened.deadline_s = now_s + after_s + SLACK_S
            opened.over.clear()
            return
        folder = self.folder / snapshot
        if folder.exists():
            return  # complete: the samples came faster than the alarm
        self._end(asset)
        folder.mkdir()
        sync_folder(self.folder)
        self._open[asset] = opened = _Open(folder, time_s + after_s, now_s + after_s + SLACK_S)
        self._sizes[snapshot] = 0
        try:
            for header in headers:
                for block in since(header.stream, time_s - self._limits.before_s):
                    self._write(opened, header, block)
            self.sync()
        except OSError:
            self._end(asset)
            raise

    def feed(self, asset: str, header: Header, block: SampleBlock, now_s: float) -> None:
        """Samples that have just been recorded.

        Raises:
            OSError: they cannot be written; the snapshot ends there.
        """
        opened = self._open.get(asset)
        if opened is None:
            return
        try:
            self._write(opened, header, block)
        except OSError:
            self._end(asset)
            raise

    def _write(self, opened: _Open, header: Header, block: SampleBlock) -> None:
        inside = block.time_s <= opened.until_s
        if inside.any():
            size = self._sizes[opened.folder.name] + block.time_s.nbytes + block.values.nbytes
            opened.full = opened.full or size > self._limits.snapshot_bytes
            if opened.full:
                return
            if (free := free_bytes(self.folder)) < self._limits.free_bytes:
                raise OSError(f"{free >> 20} MiB free on the disk: a snapshot ends, the rest is left for alarms")
            if header.stream not in opened.writers:
                named = Header(header.stream, header.channels, header.precision, opened.folder.name)
                opened.writers[header.stream] = SegmentWriter(opened.folder / f"{header.stream}.seg", named)
            if opened.writers[header.stream].header.channels == header.channels:
                opened.writers[header.stream].append(block.part(inside))
            self._sizes[opened.folder.name] = sum(writer.size for writer in opened.writers.values())
        if not np.all(inside):
            opened.over.add(header.stream)

    def trim(self, now_s: float) -> None:
        """Ends what is complete or late, and keeps to the bound."""
        for asset, opened in list(self._open.items()):
            complete = opened.writers and opened.over >= set(opened.writers)
            if complete or opened.full or now_s > opened.deadline_s:
                self._end(asset)
        growing = {opened.folder.name for opened in self._open.values()}
        while self.size > self._limits.snapshot_bytes:
            oldest = next((name for name in self._sizes if name not in growing), None)
            if oldest is None:
                return
            shutil.rmtree(self.folder / oldest, ignore_errors=True)
            del self._sizes[oldest]
            self.evicted += 1

    def sync(self) -> None:
        """What was written outlives a power cut from here on."""
        for opened in self._open.values():
            for writer in opened.writers.values():
                writer.sync()

    def close(self) -> None:
        """Ends all that are open."""
        for asset in list(self._open):
            self._end(asset)

    def _end(self, asset: str) -> None:
        opened = self._open.pop(asset, None)
        if opened is not None:
            for writer in opened.writers.values():
                writer.close()


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
