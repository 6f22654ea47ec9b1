"""A source with its meters: what came, how fast, and how often it had to be opened anew."""

import logging
import time
from dataclasses import replace

import numpy as np

from tocsin.records import Channel, SampleBlock
from tocsin.sources.source import Source, SourceCounts

log = logging.getLogger(__name__)

LEAST_S, LEAST_SAMPLES = 10.0, 20  # for a rate
ANEW_S = 60.0  # the rate is measured over stretches of this length
GAP_S, GAP_SAMPLES = 2.0, 5  # a hole of both ends a stretch
OFF = 0.1  # part by which a rate may differ from the stated one


class RateMeter:
    """Samples a second, by their stamps, over the last minute without a gap.

    Attributes:
        rate_hz: None before there is enough to tell.
    """

    def __init__(self) -> None:
        self.rate_hz: float | None = None
        self._first_s = self._last_s = np.nan
        self._count = 0

    def took(self, block: SampleBlock) -> None:
        """Counts a block that is not empty."""
        times = block.time_s
        hole_s = float(np.diff(times, prepend=self._last_s).max())  # NaN in the first block
        limit_s = max(GAP_S, GAP_SAMPLES / self.rate_hz if self.rate_hz else GAP_S)
        if not hole_s <= limit_s or block.step_s or not times[0] > self._last_s:
            self._first_s, self._count = float(times[-1]), 0
        else:
            self._count += len(times)
        self._last_s = float(times[-1])
        span_s = self._last_s - self._first_s
        if span_s >= LEAST_S and self._count >= LEAST_SAMPLES:
            self.rate_hz = self._count / span_s
        if span_s >= ANEW_S and self._count >= LEAST_SAMPLES:
            self._first_s, self._count = self._last_s, 0


class MeteredSource:
    """Hands on to a source, and counts.

    Args:
        source: what gives the samples.
        name: for the log.
        stated_hz: its rate by the settings or the bundle; None = it has no steady one.

    Attributes:
        samples: since the start.
        opened: how often.
        stated_hz: as given.
        off_rate: the measured rate differs clearly from the stated one.
    """

    def __init__(self, source: Source, name: str, stated_hz: float | None) -> None:
        self.samples = self.opened = 0
        self.stated_hz, self.off_rate = stated_hz, False
        self._source, self._name, self._meter = source, name, RateMeter()

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Columns of every block."""
        return self._source.channels

    @property
    def ended(self) -> bool:
        """Nothing will come any more."""
        return self._source.ended

    @property
    def counts(self) -> SourceCounts:
        """What went wrong."""
        return self._source.counts

    @property
    def reconnects(self) -> int:
        """How often it was opened anew."""
        return max(0, self.opened - 1)

    @property
    def rate_hz(self) -> float | None:
        """As measured over the last minute; None before there is enough to tell."""
        return self._meter.rate_hz

    def open(self) -> None:
        """Connects.

        Raises:
            SourceError: not there, or refused.
        """
        self._source.open()
        self.opened += 1
        self._meter = RateMeter()

    def read(self, timeout_s: float) -> SampleBlock:
        """What has arrived.

        Raises:
            SourceError: the link is lost.
        """
        block = self._source.read(timeout_s)
        if len(block):
            if not block.arrived_s:  # a source of somebody's may leave it out
                block = replace(block, arrived_s=time.monotonic())
            self.samples += len(block)
            self._meter.took(block)
            self._compare()
        return block

    def _compare(self) -> None:
        rate_hz, stated_hz = self.rate_hz, self.stated_hz
        if rate_hz is None or stated_hz is None:
            return
        off = abs(rate_hz / stated_hz - 1) > OFF
        if off and not self.off_rate:
            log.warning(
                "%s: %.4g samples a second come, %.4g are stated: set rate_hz to what comes, or mend the sender",
                self._name,
                rate_hz,
                stated_hz,
            )
        self.off_rate = off

    def close(self) -> None:
        """Lets go of everything; never raises."""
        self._source.close()
