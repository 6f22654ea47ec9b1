"""The sources of an asset's rate groups, each read by a thread of its own.

```
source of main ──────── Feed ─ queue ─┐
source of vibration ─── Feed ─ queue ─┴─ Feeds.read ─► the asset's thread: one line
```
Rules: a source that is lost, slow or dead stalls no other; it is opened again after a wait that grows, with jitter, and
its group makes a gap meanwhile. A queue is bounded: what a line cannot take stays with the source. Of blocks that wait,
the one furthest behind in time is handed on first.
"""

import threading
import time
from collections import deque
from dataclasses import replace
from typing import Literal

from tocsin.core.groups import Group
from tocsin.pipeline import columns_of
from tocsin.records import SampleBlock
from tocsin.sources import SourceSettings, make_source
from tocsin.sources.reader import READ_TIMEOUT_S, SourceReader

MOST_BLOCKS = 16  # that wait for the line
SILENT_SAMPLES, SILENT_S = 10, 10.0  # without a sample for the longer of the two, a source is silent


class Feed(SourceReader):
    """Reads the source of one group, and keeps what comes until the line takes it.

    Args:
        asset: its id.
        group: of the bundle.
        settings: of the source.
        arrived: told of each block, and when nothing will come any more.

    Attributes:
        blocks: that wait, oldest first, with the group's channels in the bundle's order.
        reached: time of the newest sample that was handed on.
    """

    def __init__(self, asset: str, group: Group, settings: SourceSettings, arrived: threading.Condition) -> None:
        source = make_source(settings, group.channels, group.sample_rate_hz)
        super().__init__(f"{asset}, group {group.name}", source, settings.startup)
        self.group = group
        self.blocks: deque[SampleBlock] = deque()
        self.reached = float("-inf")
        self._begin_s = time.monotonic()
        self._arrived = arrived
        self._pick: list[int] = []

    def stop(self) -> None:
        """Closes the source and ends the thread."""
        self.ask_to_stop()
        with self._arrived:
            self._arrived.notify_all()
        super().stop()

    @property
    def silent(self) -> bool:
        """No sample for longer than it should take."""
        patience_s = max(SILENT_S, SILENT_SAMPLES / self.group.sample_rate_hz)
        since_s = self._begin_s if self.last_sample_s is None else self.last_sample_s
        return not self.ended and time.monotonic() - since_s > patience_s

    @property
    def state(self) -> Literal["ok", "off_rate", "silent", "failing", "ended"]:
        """As `health` tells it."""
        if self.failing:
            return "failing"
        if self.ended:
            return "ended"
        if self.silent:
            return "silent"
        return "off_rate" if self.source.off_rate else "ok"

    def _run(self) -> None:
        super()._run()
        with self._arrived:
            self._arrived.notify_all()

    def _opened(self) -> None:
        self._pick = columns_of(self.group, self.source.channels, self.name)

    def _take(self, block: SampleBlock) -> None:
        block = replace(block.columns(self._pick), arrived_s=time.monotonic())
        with self._arrived:
            while len(self.blocks) >= MOST_BLOCKS and not self._stopping.is_set():
                self._arrived.wait(READ_TIMEOUT_S)
            self.blocks.append(block)
            self._arrived.notify_all()


class Feeds:
    """All sources of one asset.

    Args:
        asset: its id.
        groups: of the bundle.
        settings: of each group's source, by the group's name.

    Attributes:
        each: one a group, in the bundle's order.
        live: the sources are machines, which may fall silent, and no recordings.
    """

    def __init__(self, asset: str, groups: tuple[Group, ...], settings: dict[str, SourceSettings]) -> None:
        self._arrived = threading.Condition()
        self.each = tuple(Feed(asset, group, settings[group.name], self._arrived) for group in groups)
        self.live = all(one.steady and getattr(one, "speed", 1.0) > 0 for one in settings.values())
        for feed in self.each:
            feed.start()

    def read(self, timeout_s: float) -> tuple[int, SampleBlock] | None:
        """A group's index and its next block; None when nothing came within the time."""
        with self._arrived:
            if not any(feed.blocks for feed in self.each):
                self._arrived.wait(timeout_s)
            ready = [n for n, feed in enumerate(self.each) if feed.blocks]
            if not ready:
                return None
            n = min(ready, key=lambda n: self.each[n].reached)
            block = self.each[n].blocks.popleft()
            self.each[n].reached = float(block.time_s[-1])
            self._arrived.notify_all()
            return n, block

    @property
    def ended(self) -> frozenset[int]:
        """The groups of which nothing will come any more."""
        with self._arrived:
            return frozenset(n for n, feed in enumerate(self.each) if feed.ended and not feed.blocks)

    def ask_to_stop(self) -> None:
        """Lets all threads end, together; at once."""
        for feed in self.each:
            feed.ask_to_stop()

    def stop(self) -> None:
        """Closes all sources."""
        self.ask_to_stop()
        for feed in self.each:
            feed.stop()
