"""A made-up machine: seeded sines with noise, and a fault when the settings say so. For trying things out."""

import time
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from tocsin.records import Channel, SampleBlock
from tocsin.settings import Channels, Seconds
from tocsin.sources import Source, SourceCounts, SourceSettings


class SyntheticSettings(SourceSettings):
    """A made-up machine, for trying things out."""

    type: Literal["synthetic"]
    channels: Channels = Field(description="`pressure [bar]`, or `{name: pressure, unit: bar}`")
    rate_hz: float = Field(10.0, gt=0)
    seed: int = Field(0, description="of the noise; the same seed gives the same samples")
    speed: float = Field(1.0, ge=0, description="seconds of samples in a second; 0 = as fast as possible")
    start_s: float | None = Field(None, description="epoch seconds of the first sample; now when left out")
    duration_s: Seconds | None = Field(None, description="end after this")
    fault_at_s: Seconds | None = Field(None, description="from this time on, `fault_channel` is off")
    fault_channel: str | None = Field(None, description="name of the channel that goes wrong")
    fault_size: float = Field(3.0, description="in amplitudes of its swing")

    @model_validator(mode="after")
    def _fault_channel_exists(self) -> "SyntheticSettings":
        if self.fault_at_s is not None and self.fault_channel not in {c.name for c in self.channels}:
            raise ValueError(f"fault_channel: expected one of {', '.join(c.name for c in self.channels)}")
        return self

    def given(self) -> tuple[Channel, ...]:
        """As written."""
        return tuple(channel.channel() for channel in self.channels)

    def make(self, wanted: tuple[Channel, ...]) -> Source:
        """The machine."""
        own = self.model_dump(exclude={"channels", *SourceSettings.model_fields} - {"rate_hz"})
        return SyntheticSource(self.given(), **own)


class SyntheticSource:
    """Channels c1 … cN that swing together; from `fault_at_s` on, `fault_channel` is off by `fault_size` swings.

    Args:
        channels: names and units.
        rate_hz: samples a second.
        seed: of the noise.
        speed: seconds of samples in a second of wall time; 0 = no waiting.
        start_s: epoch seconds of the first sample; None = now.
        duration_s: end after this; None = never.
        fault_at_s: seconds after the start; None = no fault.
        fault_channel: name of the channel that goes wrong.
        fault_size: in amplitudes of the swing.
    """

    PERIOD_S = 60.0
    CHUNK_S = 0.2

    def __init__(
        self,
        channels: tuple[Channel, ...],
        rate_hz: float = 10.0,
        seed: int = 0,
        speed: float = 1.0,
        start_s: float | None = None,
        duration_s: float | None = None,
        fault_at_s: float | None = None,
        fault_channel: str | None = None,
        fault_size: float = 3.0,
    ) -> None:
        self.channels, self.ended, self.counts = channels, False, SourceCounts()
        self._rate, self._speed, self._duration = rate_hz, speed, duration_s
        self._fault = (np.inf if fault_at_s is None else fault_at_s, fault_channel, fault_size)
        self._noise = np.random.default_rng(seed)
        self._phase = np.linspace(0, np.pi, len(channels), endpoint=False)
        self._start, self._done, self._opened = start_s, 0, 0.0

    def open(self) -> None:
        """Starts the clock; a second time it goes on where it was."""
        if not self._opened:
            self._opened = time.monotonic()
            self._start = time.time() if self._start is None else self._start

    def read(self, timeout_s: float) -> SampleBlock:
        """The samples since the last call."""
        chunk = max(1, round(self.CHUNK_S * self._rate * max(1.0, self._speed)))
        ready = self._done + chunk
        if self._speed:
            due = self._opened + ready / self._rate / self._speed
            time.sleep(min(max(0.0, due - time.monotonic()), timeout_s))
            ready = min(ready, int((time.monotonic() - self._opened) * self._speed * self._rate))
        if self._duration is not None and ready >= self._duration * self._rate:
            ready, self.ended = round(self._duration * self._rate), True
        at = np.arange(self._done, max(ready, self._done)) / self._rate
        self._done += len(at)
        return SampleBlock((self._start or 0.0) + at, self._values(at), time.monotonic())

    def _values(
        self, at: np.ndarray[tuple[int], np.dtype[np.float64]]
    ) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        swing = np.sin(2 * np.pi * at[:, None] / self.PERIOD_S + self._phase)
        values = swing + 0.05 * self._noise.standard_normal(swing.shape)
        begin, name, size = self._fault
        for c, channel in enumerate(self.channels):
            if channel.name == name:
                values[at >= begin, c] += size
        return values

    def close(self) -> None:
        """Nothing to let go of."""
