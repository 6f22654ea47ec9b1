"""The sources of an asset's rate groups, each read by a thread of its own.

```
source of main ──────── Feed ─ queue ─┐
source of vibration ─── Feed ─ queue ─┴─ Feeds.read ─► the asset's thread: one line
```
Rules: a source that is lost, slow or dead stalls no other; it is opened again after a wait that grows, with jitter, and
its group makes a gap meanwhile. A queue is bounded: what a line cannot take stays with the source. Of blocks that wait,
the one furthest behind in time is handed on first.
"""

import logging
import random
import threading
import time
from collections import deque
from dataclasses import replace
from typing import Literal

from tocsin.core.groups import Group
from tocsin.errors import SourceError, TocsinError
from tocsin.pipeline import columns_of
from tocsin.records import SampleBlock
from tocsin.sources import MeteredSource, SourceSettings, make_source

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 0.5
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 4.0  # a sensor that is plugged in again is read within five seconds
CALM_S = 60.0  # after so long without a failure the next wait is short again
MOST_BLOCKS = 16  # that wait for the line
SILENT_SAMPLES, SILENT_S = 10, 10.0  # without a sample for the longer of the two, a source is silent


class Feed:
    """Reads the source of one group until stopped, or until its recording ends.

    Args:
        asset: its id.
        group: of the bundle.
        settings: of the source.
        arrived: told of each block, and when nothing will come any more.

    Attributes:
        blocks: that wait, oldest first, with the group's channels in the bundle's order.
        reached: time of the newest sample that was handed on.
        source: with its meters.
        failing: it could not be opened or read, and no sample came since.
        errors: failures since the start.
        last_error: of them; None while it is well.
        last_sample_s: monotonic time of the newest sample.
        ended: nothing will come any more.
        broken_off: its recording ended in damage.
        refused: it could not be opened at the start, and must be there.
    """

    def __init__(self, asset: str, group: Group, settings: SourceSettings, arrived: threading.Condition) -> None:
        self.group, self.asset = group, asset
        self.source: MeteredSource = make_source(settings, group.channels, group.sample_rate_hz)
        self.blocks: deque[SampleBlock] = deque()
        self.reached = float("-inf")
        self.failing = self.ended = self.broken_off = self.refused = False
        self.errors = 0
        self.last_error: str | None = None
        self.last_sample_s: float | None = None
        self._begin_s = time.monotonic()
        self._startup, self._arrived = settings.startup, arrived
        self._jitter = random.Random(f"{asset}/{group.name}")  # noqa: S311 - jitter
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"source-{asset}-{group.name}", daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Lets the thread end; at once."""
        self._stopping.set()

    def stop(self) -> None:
        """Closes the source and ends the thread."""
        self.ask_to_stop()
        with self._arrived:
            self._arrived.notify_all()
        if self._thread.is_alive():
            self._thread.join(10 * READ_TIMEOUT_S)

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
        try:
            self._read_again_and_again()
        finally:
            with self._arrived:
                self.ended = True
                self._arrived.notify_all()

    def _read_again_and_again(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._stopping.is_set():
            begin = time.monotonic()
            try:
                self._read()
                break
            except TocsinError as error:
                self._note(str(error))
                if self.source.ended:
                    self.broken_off = True
                    break
                if isinstance(error, SourceError) and self._startup != "retry" and not self.source.opened:
                    self.refused = self._startup == "error"
                    log.error("%s: given up at the start, as startup: %s says", self._name, self._startup)
                    break
            except Exception as error:  # a driver's; the other groups go on
                log.exception("%s: its source failed", self._name)
                self._note(f"{type(error).__name__}: {error}")
            if time.monotonic() - begin > CALM_S:
                delay_s = FIRST_DELAY_S
            self._close()
            self._stopping.wait(delay_s * self._jitter.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        self._close()

    @property
    def _name(self) -> str:
        return f"{self.asset}, group {self.group.name}"

    def _read(self) -> None:
        """Reads until told to stop, the recording ends, or the link is lost."""
        source = self.source
        source.open()
        pick = columns_of(self.group, source.channels, self._name)
        while not self._stopping.is_set():
            block = source.read(READ_TIMEOUT_S)
            if len(block):
                if self.failing:
                    log.info("%s: samples flow", self._name)
                    self.failing, self.last_error = False, None
                self.last_sample_s = time.monotonic()
                self._hand_on(replace(block.columns(pick), arrived_s=self.last_sample_s))
            if source.ended:
                log.info("%s: the recording has ended", self._name)
                return

    def _hand_on(self, block: SampleBlock) -> None:
        with self._arrived:
            while len(self.blocks) >= MOST_BLOCKS and not self._stopping.is_set():
                self._arrived.wait(READ_TIMEOUT_S)
            self.blocks.append(block)
            self._arrived.notify_all()

    def _note(self, what: str) -> None:
        """Logs a failure once, counts it always."""
        if what != self.last_error:
            log.error("%s: %s", self._name, what)
        self.errors += 1
        self.last_error, self.failing = what, True

    def _close(self) -> None:
        try:
            self.source.close()
        except Exception:  # a driver's; the thread goes on
            log.exception("%s: its source cannot be closed", self._name)


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
