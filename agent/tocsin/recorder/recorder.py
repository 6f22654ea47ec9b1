"""The recorder's thread: takes samples from every line, writes them, and syncs.

Rules: `put` and `snapshot` never wait for the disk. What waits in memory is bounded; what is over the bound, or cannot
be written, is dropped and counted. One recorder a folder.
"""

import fcntl
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import numpy as np

from tocsin.errors import DataError, TocsinError
from tocsin.recorder.limits import RecorderLimits
from tocsin.recorder.ring import Ring
from tocsin.recorder.snapshots import Snapshots
from tocsin.records import Channel, SampleBlock

log = logging.getLogger(__name__)

FLUSH_S = 0.5
WAITING_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class RecorderStatistics:
    """How a recorder fares.

    Attributes:
        rows: samples written since the start.
        dropped: samples that could not be written.
        ring_bytes: on disk now; with `segments`.
        evicted: segments that left the ring since the start.
        snapshot_bytes: on disk now; with `snapshots`.
        snapshots_evicted: that left since the start.
        last_error: the newest that stands, each until its stream is written again; None while all is well.
    """

    rows: int
    dropped: int
    ring_bytes: int
    segments: int
    evicted: int
    snapshot_bytes: int
    snapshots: int
    snapshots_evicted: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class _Samples:
    """Blocks that follow one another, to be one frame."""

    stream: str
    channels: tuple[Channel, ...]
    blocks: list[SampleBlock]


@dataclass(frozen=True, slots=True)
class _Alarm:
    asset: str
    snapshot: str
    time_s: float


class Recorder:
    """Writes streams of samples into a folder.

    Args:
        folder: made when missing.
        limits: bounds.

    Raises:
        TocsinError: the folder cannot be used, or another recorder uses it.
    """

    def __init__(self, folder: Path, limits: RecorderLimits) -> None:
        self.folder, self._limits = folder, limits
        self._claim = _claim(folder)
        try:
            self._ring = Ring(folder / "ring", limits, time.monotonic())
            self._snapshots = Snapshots(folder / "snapshots", limits)
        except (OSError, DataError) as error:
            self._claim.close()
            raise TocsinError(f"recordings in {folder} cannot be used: {error}") from error
        self._lock = threading.Lock()
        self._waiting: deque[_Samples | _Alarm] = deque()
        self._waiting_bytes = 0
        self._refused: dict[str, str] = {}  # why `put` refused samples of a stream since the last flush
        self._open_ids: dict[str, tuple[str, float]] = {}  # of each asset: its snapshot and the newest alarm's time
        self._ids = self._snapshots.names  # all that were ever given: the disk is not asked under the lock
        self._rows = self._dropped = 0
        self._errors: dict[str, str] = {}  # of each stream, the newest last; of the disk as a whole under ""
        self._statistics = self._look()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()

    def stop(self) -> None:
        """Writes all that waits and ends the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._claim.close()

    def put(self, stream: str, channels: tuple[Channel, ...], block: SampleBlock) -> None:
        """Samples to be recorded; from any thread.

        Args:
            stream: the asset's id, or `<asset>.<group>`.
            channels: columns of the block.
            block: its arrays must not change any more.
        """
        size = block.time_s.nbytes + block.values.nbytes
        with self._lock:
            refused = _misfit(channels, block)
            if refused is None and self._waiting_bytes + size > WAITING_BYTES:
                refused = f"{WAITING_BYTES >> 20} MiB wait to be written: is the disk too slow?"
            if refused is not None:
                self._dropped += len(block)
                self._refused[stream] = f"{stream}: {refused}"
                return
            self._waiting.append(_Samples(stream, channels, [block]))
            self._waiting_bytes += size

    def snapshot(self, asset: str, time_s: float) -> str:
        """Keeps what is around an alarm; from any thread.

        Args:
            asset: its id.
            time_s: epoch seconds of the alarm, by the samples' clock.

        Returns:
            Id of the snapshot: alarms that come close together share one.
        """
        with self._lock:
            known = self._open_ids.get(asset)
            if known is not None and abs(time_s - known[1]) <= self._limits.after_s:
                snapshot, newest_s = known[0], max(time_s, known[1])
            else:
                snapshot, newest_s = self._new_id(asset, time_s), time_s
            self._open_ids[asset] = snapshot, newest_s
            self._waiting.append(_Alarm(asset, snapshot, time_s))
        return snapshot

    def _new_id(self, asset: str, time_s: float) -> str:
        stamp = datetime.fromtimestamp(min(max(time_s, 0.0), 2e11), UTC).strftime("%Y%m%dT%H%M%S")
        name, n = f"{stamp}-{asset}", 1
        while name in self._ids:
            n += 1
            name = f"{stamp}-{asset}-{n}"
        self._ids.add(name)
        return name

    @property
    def statistics(self) -> RecorderStatistics:
        """How it fares; from any thread."""
        return self._statistics

    def _run(self) -> None:
        while not self._stopping.wait(FLUSH_S):
            self._flush()
        self._flush()
        for part in (self._snapshots, self._ring):
            try:
                part.close()
            except OSError as error:
                self._note("", error)

    def _flush(self) -> None:
        """Writes what waits, keeps to the bounds, syncs."""
        with self._lock:
            items, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
            refused, self._refused = self._refused, {}
        now_s = time.monotonic()
        for item in _joined(items):
            if isinstance(item, _Alarm):
                self._begin_snapshot(item, now_s)
            else:
                self._record(item, now_s)
        try:
            self._ring.trim(now_s)
            self._snapshots.trim(now_s)
            self._ring.sync()
            self._snapshots.sync()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the thread goes on
            self._note("", error)
        else:
            self._errors.pop("", None)
        for stream, why in refused.items():
            self._note(stream, ValueError(why))
        self._statistics = self._look()

    def _record(self, samples: _Samples, now_s: float) -> None:
        stream, rows = samples.stream, sum(map(len, samples.blocks))
        try:
            block = _one(samples.blocks)
            self._ring.append(stream, samples.channels, block, now_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the thread goes on
            self._note(stream, error)
            with self._lock:
                self._dropped += rows
            return
        self._rows += rows
        self._errors.pop(stream, None)
        try:
            self._snapshots.feed(stream.partition(".")[0], self._ring.header(stream), block, now_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the thread goes on
            self._note(stream, error)

    def _begin_snapshot(self, alarm: _Alarm, now_s: float) -> None:
        try:
            headers = [self._ring.header(stream) for stream in self._ring.streams_of(alarm.asset)]
            self._snapshots.begin(alarm.snapshot, alarm.asset, alarm.time_s, now_s, headers, self._ring.since)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the thread goes on
            self._note(alarm.asset, error)

    def _note(self, stream: str, error: Exception) -> None:
        said = f"recordings in {self.folder}: {getattr(error, 'strerror', None) or error}"
        if said != self._errors.pop(stream, None):
            unexpected = None if isinstance(error, OSError | ValueError) else error
            log.error("%s; alarms go on", said, exc_info=unexpected)
        self._errors[stream] = said

    def _look(self) -> RecorderStatistics:
        ring, snapshots = self._ring, self._snapshots
        return RecorderStatistics(
            rows=self._rows,
            dropped=self._dropped,
            ring_bytes=ring.size,
            segments=ring.segments,
            evicted=ring.evicted,
            snapshot_bytes=snapshots.size,
            snapshots=snapshots.count,
            snapshots_evicted=snapshots.evicted,
            last_error=next(reversed(self._errors.values()), None),
        )


def _misfit(channels: tuple[Channel, ...], block: SampleBlock) -> str | None:
    """What is wrong with a block's shape, as a driver may have made it."""
    shape = len(block), len(channels)
    if block.values.shape != shape:
        return f"values of shape {block.values.shape} for {len(channels)} channels"
    if block.bad is not None and block.bad.shape != shape:
        return f"`bad` of shape {block.bad.shape} for values of shape {shape}"
    return None


def _joined(items: "deque[_Samples | _Alarm]") -> "list[_Samples | _Alarm]":
    """Samples of one stream that follow one another become one frame, up to the next alarm or step of the clock."""
    out: list[_Samples | _Alarm] = []
    parts: dict[tuple[str, tuple[Channel, ...]], list[SampleBlock]] = {}

    def put_out() -> None:
        for (stream, channels), blocks in parts.items():
            out.append(_Samples(stream, channels, blocks))
        parts.clear()

    for item in items:
        if isinstance(item, _Samples):
            if item.blocks[0].step_s:
                put_out()
            parts.setdefault((item.stream, item.channels), []).extend(item.blocks)
        else:
            put_out()
            out.append(item)
    put_out()
    return out


def _one(blocks: list[SampleBlock]) -> SampleBlock:
    """Blocks, of which only the first may begin with a step of the clock, as one."""
    time_s = np.concatenate([block.time_s for block in blocks])
    values = np.concatenate([block.values for block in blocks])
    bad = None
    if any(block.bad is not None for block in blocks):
        bad = np.concatenate([np.zeros_like(b.values, np.bool_) if b.bad is None else b.bad for b in blocks])
    return SampleBlock(time_s, values, step_s=blocks[0].step_s, bad=bad)


def _claim(folder: Path) -> IO[str]:
    """Keeps every other recorder out of the folder until it is closed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / "recorder.lock").open("a+", encoding="ascii")
    except OSError as error:
        raise TocsinError(f"recordings in {folder} cannot be used: {error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise TocsinError(
            f"{folder} is being recorded to by another process: stop that, or give this one a folder of its own"
        ) from error
    return handle
