"""The ring: segments of every stream, the oldest leaving first.

Rules: the monotonic clock is passed in and alone decides ages, so that a step of the wall clock throws nothing away.
What an earlier run left is older than anything of this one, and its age counts from the start: the wall clock may have
stood in 1970 when it was written. A segment is never appended to by a later run.
"""

import errno
import os
import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tocsin.errors import DataError
from tocsin.recorder.limits import RecorderLimits
from tocsin.recordings.segment import Header, SegmentWriter, cut_tail, find_segments, read_blocks, sync_folder
from tocsin.records import Channel, SampleBlock

FULL = (errno.ENOSPC, errno.EDQUOT)
_NAME = re.compile(r"(\d+)-")


@dataclass(frozen=True, slots=True)
class _Closed:
    """A segment that is full; `ended_s` on the monotonic clock."""

    path: Path
    size: int
    ended_s: float


@dataclass(slots=True)
class _Open:
    """The segment of a stream that is written now."""

    writer: SegmentWriter
    began_s: float
    dirty: bool = False


class Ring:
    """Segments under one folder; belongs to one thread.

    Args:
        folder: made when missing.
        limits: bounds.
        now_s: monotonic seconds.

    Attributes:
        evicted: segments that left since the start.

    Raises:
        OSError: the folder cannot be used.
    """

    def __init__(self, folder: Path, limits: RecorderLimits, now_s: float) -> None:
        self.folder, self._limits, self.evicted = folder, limits, 0
        folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, _Open] = {}
        self._number: dict[str, int] = {}
        self._closed = deque(self._left_behind(now_s))

    def _left_behind(self, now_s: float) -> list[_Closed]:
        """What earlier runs recorded, oldest first; cut tails are taken off."""
        found: list[tuple[float, _Closed]] = []
        for stream in sorted(path for path in self.folder.iterdir() if path.is_dir()):
            files = find_segments(stream)
            for file in files[-1:]:  # all before it were closed
                cut_tail(file)
            written_s = 0.0
            for file in (file for file in files if file.exists()):
                about = file.stat()
                written_s = max(written_s, about.st_mtime)  # never before the file that precedes it
                found.append((written_s, _Closed(file, about.st_size, now_s)))
                self._number[stream.name] = max(self._number.get(stream.name, 0), _number_of(file))
        return [closed for _, closed in sorted(found, key=lambda each: each[0])]

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(each.size for each in self._closed) + sum(each.writer.size for each in self._open.values())

    @property
    def segments(self) -> int:
        """How many there are."""
        return len(self._closed) + len(self._open)

    def append(self, stream: str, channels: tuple[Channel, ...], block: SampleBlock, now_s: float) -> None:
        """Writes samples; where there is no room, the oldest segments make it.

        Raises:
            OSError: it cannot be written at all.
        """
        self._rotate(stream, channels, now_s)
        self._keep_free(now_s)
        while True:
            try:
                if stream not in self._open:
                    self._begin(stream, channels, now_s)
                opened = self._open[stream]
                opened.writer.append(block)
                opened.dirty = True
                return
            except OSError as error:
                if error.errno not in FULL or not self._evict_oldest(now_s):
                    if stream in self._open:
                        self._end(stream, now_s)  # the next samples get a new one
                    raise

    def sync(self) -> None:
        """What was appended outlives a power cut from here on.

        Raises:
            OSError: the disk fails.
        """
        for opened in self._open.values():
            if opened.dirty:
                opened.writer.sync()
                opened.dirty = False

    def trim(self, now_s: float) -> None:
        """Keeps to the bounds of size and age."""
        while self._closed and (
            self.size > self._limits.ring_bytes or now_s - self._closed[0].ended_s > self._limits.age_s
        ):
            self._remove(self._closed.popleft())

    def since(self, stream: str, time_s: float) -> Iterator[SampleBlock]:
        """Samples of a stream from a time on, oldest first, as they lie on the disk."""
        chosen: list[Path] = []
        for path in reversed(find_segments(self.folder / stream)):
            chosen.append(path)
            try:
                first = next(read_blocks(path), None)
            except DataError:
                continue  # damaged: the others are as good
            if first is not None and len(first) and first.time_s[0] < time_s:
                break
        for path in reversed(chosen):
            try:
                for block in read_blocks(path):
                    late = block.time_s >= time_s
                    if late.any():
                        yield block.part(late)
            except DataError:
                continue

    def streams_of(self, asset: str) -> list[str]:
        """Streams that are recorded of an asset now."""
        return [stream for stream in self._open if stream == asset or stream.startswith(f"{asset}.")]

    def header(self, stream: str) -> Header:
        """Of the segment that is written now."""
        return self._open[stream].writer.header

    def close(self) -> None:
        """Syncs and lets go of all segments."""
        for opened in self._open.values():
            opened.writer.close()
        self._open.clear()

    def _begin(self, stream: str, channels: tuple[Channel, ...], now_s: float) -> None:
        folder = self.folder / stream
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            sync_folder(self.folder)
        number = self._number[stream] = self._number.get(stream, 0) + 1
        path = folder / f"{number:08}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.seg"
        self._open[stream] = _Open(SegmentWriter(path, Header(stream, channels, self._limits.precision)), now_s)

    def _rotate(self, stream: str, channels: tuple[Channel, ...], now_s: float) -> None:
        opened = self._open.get(stream)
        if opened is not None and (
            opened.writer.size >= self._limits.segment_bytes
            or now_s - opened.began_s >= self._limits.segment_s
            or opened.writer.header.channels != channels
        ):
            self._end(stream, now_s)

    def _end(self, stream: str, now_s: float) -> None:
        writer = self._open.pop(stream).writer
        self._closed.append(_Closed(writer.path, writer.size, now_s))
        writer.close()

    def _keep_free(self, now_s: float) -> None:
        while (free := free_bytes(self.folder)) < self._limits.free_bytes:
            if not self._evict_oldest(now_s):
                raise OSError(f"{free >> 20} MiB free on the disk, {self._limits.free_bytes >> 20} are left for alarms")

    def _evict_oldest(self, now_s: float) -> bool:
        """Removes the oldest segment, one that is written now as the last; False when there is none with samples."""
        filled = [stream for stream, opened in self._open.items() if opened.writer.rows]
        if not self._closed and filled:
            self._end(min(filled, key=lambda stream: self._open[stream].began_s), now_s)
        if not self._closed:
            return False
        self._remove(self._closed.popleft())
        return True

    def _remove(self, closed: _Closed) -> None:
        closed.path.unlink(missing_ok=True)
        self.evicted += 1


def _number_of(file: Path) -> int:
    match = _NAME.match(file.name)
    return int(match[1]) if match else 0


def free_bytes(folder: Path) -> int:
    """Free on the disk, for this user."""
    about = os.statvfs(folder)
    return about.f_bavail * about.f_frsize
