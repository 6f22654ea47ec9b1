"""A serial port: lines of numbers, lines of JSON, or binary frames.

Rules: a line or frame that does not parse is counted and skipped. Samples are stamped on arrival
(`tocsin.sources.clock`). What is left out of the settings is found out while the port is opened: the number of axes,
and the rate, by listening for `LISTEN_S`.
"""

import errno
import logging
import os
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from tocsin.errors import SourceError
from tocsin.records import Channel, SampleBlock
from tocsin.settings import ScaledChannels
from tocsin.sources import Source, SourceCounts, SourceSettings
from tocsin.sources.clock import ArrivalClock
from tocsin.sources.frames import FrameParser, Piece
from tocsin.sources.lines import JsonLineParser, LineParser
from tocsin.sources.port_holder import port_holders

log = logging.getLogger(__name__)

MOST_AT_ONCE = 1 << 16
LISTEN_S, LEAST_SAMPLES = 2.0, 20  # to find out the rate
Format = Literal["csv", "json", "binary"]


class SerialSettings(SourceSettings):
    """Lines or frames of numbers over a serial port."""

    type: Literal["serial"]
    port: str = Field(description="/dev/serial/by-id/… is the same after every start")
    baud: int = Field(115200, gt=0, description="bits a second")
    format: Format = Field("csv", description="csv: numbers a line; json: an object a line; binary: frames")
    channels: ScaledChannels | None = Field(
        None,
        description="in the order of the numbers, for json by key: `pressure [bar]`, or "
        "`{name: …, unit: …, scale: 1, offset: 0}`; the bundle's when left out",
    )
    rate_hz: float | None = Field(None, gt=0, description="samples a second; measured when left out")

    def given(self) -> tuple[Channel, ...] | None:
        """As written."""
        return None if self.channels is None else tuple(channel.channel() for channel in self.channels)

    def make(self, wanted: tuple[Channel, ...]) -> Source:
        """The port."""
        return SerialSource(self, self.given(), wanted)


class SerialSource:
    """A serial port.

    Args:
        settings: port, speed and form.
        given: channels, in the order of the numbers; None = as wanted, if there are as many.
        wanted: channels of the bundle; empty = c1, c2, … where none are given.
        clock: stamps the samples; None = at the rate of the settings.
    """

    def __init__(
        self,
        settings: SerialSettings,
        given: tuple[Channel, ...] | None,
        wanted: tuple[Channel, ...],
        clock: ArrivalClock | None = None,
    ) -> None:
        self.channels = given or wanted
        self.ended, self.counts = False, SourceCounts()
        self._settings, self._given, self._wanted = settings, given, wanted
        if clock is None and settings.rate_hz is not None:
            clock = ArrivalClock(settings.rate_hz)
        self._clock = clock
        scaled = settings.channels or ()
        self._scale = np.array([channel.scale for channel in scaled]) if scaled else np.ones(1)
        self._offset = np.array([channel.offset for channel in scaled]) if scaled else np.zeros(1)
        self._port: Any = None
        self._parser: LineParser | FrameParser = self._new_parser()

    def _new_parser(self) -> LineParser | FrameParser:
        axes = None if self._given is None else len(self._given)
        if self._settings.format == "binary":
            return FrameParser(axes)
        return (
            JsonLineParser(tuple(c.name for c in self.channels))
            if self._settings.format == "json"
            else LineParser(axes)
        )

    def open(self) -> None:
        """Opens the port for us alone, and listens for what the settings leave open."""
        import serial  # noqa: PLC0415 - only where a serial port is used

        name = self._settings.port
        if self._settings.format == "json" and not self.channels:
            raise SourceError(f"serial port {name}: set channels: with JSON they are the keys to look for")
        self.close()
        try:
            self._port = serial.serial_for_url(name, self._settings.baud, timeout=0, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as error:
            raise SourceError(f"serial port {name} cannot be opened: {why_not(name, error)}") from error
        self._parser = self._new_parser()
        try:
            self._find_out()
        except SourceError:
            self.close()
            raise

    def _find_out(self) -> None:
        """Axes and rate, where they are not known."""
        axes_known = self._given is not None or self._settings.format == "json"
        if self._clock is not None and axes_known:
            return
        begin = time.monotonic()
        limit_s = max(self._settings.timeout_s, LISTEN_S)
        arrivals: list[tuple[float, int]] = []  # when, and how many samples there were by then
        while (now := time.monotonic()) - begin < limit_s:
            heard = sum(len(piece.rows) for piece in self._receive(0.1))
            if heard:
                arrivals.append((time.monotonic(), heard + (arrivals[-1][1] if arrivals else 0)))
            known = self._parser.channels is not None and arrivals
            if known and (self._clock is not None or (now - begin > LISTEN_S and arrivals[-1][1] >= LEAST_SAMPLES)):
                break
        self._name_axes(limit_s)
        if self._clock is None:
            self._clock = ArrivalClock(_rate(arrivals, self._settings.port, limit_s))

    def _name_axes(self, limit_s: float) -> None:
        axes, name = self._parser.channels, self._settings.port
        if axes is None:
            raise SourceError(
                f"serial port {name}: no {self._settings.format} sample came within {limit_s:g} s: "
                "is the baud rate right, and does the node send?"
            )
        if self._given is None and self._wanted and len(self._wanted) != axes:
            raise SourceError(
                f"serial port {name}: {axes} numbers come, the bundle has {len(self._wanted)} channels: "
                "name what comes under channels"
            )
        self.channels = self._given or self._wanted or tuple(Channel(f"c{n}") for n in range(1, axes + 1))

    def read(self, timeout_s: float) -> SampleBlock:
        """The samples that have arrived."""
        pieces = self._receive(timeout_s)
        assert self._clock is not None
        stamped = [self._clock.stamp(len(piece.rows), piece.lost) for piece in pieces]
        arrived_s = time.monotonic()
        if not stamped:
            return SampleBlock(np.empty(0), np.empty((0, len(self.channels))), arrived_s)
        step_s = sum(step for _, step in stamped)
        if step_s:
            log.warning("serial port %s: the clock was set by %+.1f s", self._settings.port, step_s)
            self.counts.clock_steps += 1
        if len(pieces) == 1:
            times, values = stamped[0][0], pieces[0].rows
        else:
            times = np.concatenate([stamps for stamps, _ in stamped])
            values = np.concatenate([piece.rows for piece in pieces])
        if self._settings.channels is not None:
            values = values * self._scale + self._offset
        return SampleBlock(times, values, arrived_s, step_s)

    def _receive(self, timeout_s: float) -> list[Piece]:
        """What the port gives within the time, parsed and counted."""
        port, name = self._port, self._settings.port
        if port is None:
            raise SourceError(f"serial port {name} is not open")
        try:
            port.timeout = timeout_s
            data = port.read(1)
            data += port.read(min(port.in_waiting, MOST_AT_ONCE))
        except (OSError, TypeError) as error:  # pyserial lets a TypeError out when the port goes away while reading
            raise SourceError(f"serial port {name} was lost: {error}") from error
        parser = self._parser
        if isinstance(parser, FrameParser):
            before = parser.bad_frames, parser.lost, parser.restarts
            pieces = parser.feed(data)
            self.counts.count_bad("frame", parser.bad_frames - before[0])
            self.counts.lost += parser.lost - before[1]
            if parser.restarts > before[2]:
                self.counts.reasons["node began anew"] += parser.restarts - before[2]
            return pieces
        bad = parser.bad_lines
        rows = parser.feed(data)
        self.counts.count_bad("line", parser.bad_lines - bad)
        return [Piece(0, rows)] if len(rows) else []

    def close(self) -> None:
        """Lets go of the port."""
        if self._port is not None:
            self._port.close()
            self._port = None


def _rate(arrivals: list[tuple[float, int]], port: str, listened_s: float) -> float:
    """Samples a second; a whole number where it is close to one.

    Raises:
        SourceError: too few to tell.
    """
    count = arrivals[-1][1] - arrivals[0][1] if arrivals else 0
    if count < LEAST_SAMPLES // 2:
        raise SourceError(f"serial port {port}: too few samples in {listened_s:g} s to measure the rate: set rate_hz")
    rate_hz = count / (arrivals[-1][0] - arrivals[0][0])
    whole = float(f"{rate_hz:.2g}")  # boards send at 50, 62.5 or 100, not at 99.3
    return whole if abs(rate_hz / whole - 1) < 0.03 else rate_hz


def why_not(port: str, error: Exception) -> str:
    """Why a port cannot be opened, and what to do."""
    if getattr(error, "errno", None) in (errno.EAGAIN, errno.EBUSY):
        holders = port_holders(port)
        who = f"it is held by {', '.join(holders)}: end that" if holders else "another program holds it"
        return f"{who}; sudo fuser -v {port} lists who does"
    number = getattr(error, "errno", None)
    if number == errno.ENOENT:
        return "it is not there: is it plugged in, and the name right?" + _others(port)
    if number in (errno.EACCES, errno.EPERM):
        return "this user may not use it: is it in group dialout? tocsin doctor tells"
    return f"{os.strerror(number) if number else error}: is it plugged in, and is this user in group dialout?"


def _others(port: str) -> str:
    """The ports that are there, for a message."""
    there = sorted(str(path) for path in Path("/dev/serial/by-id").glob("*"))
    return f"; there are {', '.join(there[:4])}" if there and port not in there else ""
