"""Lines of numbers over a serial port, one sample a line: `1.02,0.31,-9.80` and a line end.

This is what Edge Impulse's data forwarder and most Arduino sketches print. Separators: comma, semicolon, tab or
space. A line that does not parse is counted and skipped, so that the stream recovers by itself after garbage.
Samples are stamped on arrival (`tocsin.sources.clock`).
"""

import logging
import time
from typing import Literal

import numpy as np
from pydantic import Field

from tocsin.errors import SourceError
from tocsin.records import Channel, Floats, SampleBlock
from tocsin.settings import Channels
from tocsin.sources import Source, SourceCounts, SourceSettings
from tocsin.sources.clock import ArrivalClock

log = logging.getLogger(__name__)

LONGEST_LINE = 1024
SEPARATORS = str.maketrans(";\t,", "   ")


class LineParser:
    """Bytes → rows of numbers.

    Args:
        channels: numbers a line.

    Attributes:
        bad_lines: lines that were skipped.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.bad_lines = 0
        self._rest = b""
        self._synced = False

    def feed(self, data: bytes) -> Floats:
        """(n, C) the rows that these bytes complete."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[: LONGEST_LINE + 1]  # what is longer is no sample, however it ends
        rows = []
        for line in lines:
            row = self._row(line)
            if row is not None:
                rows.append(row)
            elif self._synced and (line.strip() or len(line) > LONGEST_LINE):
                self.bad_lines += 1
            self._synced = True  # the first line may have begun before we listened
        return np.asarray(rows, np.float64).reshape(-1, self.channels)

    def _row(self, line: bytes) -> list[float] | None:
        if len(line) > LONGEST_LINE or b"_" in line:  # Python would read 1_0 as ten
            return None
        try:
            cells = line.decode("ascii").translate(SEPARATORS).split()
            return [float(cell) for cell in cells] if len(cells) == self.channels else None
        except ValueError:
            return None


class SerialSettings(SourceSettings):
    """Lines of numbers over a serial port."""

    type: Literal["serial"]
    port: str = Field(description="/dev/serial/by-id/… is the same after every start")
    baud: int = Field(115200, gt=0, description="bits a second")
    channels: Channels = Field(description="in the order of the numbers: `pressure [bar]`, or `{name: …, unit: …}`")
    rate_hz: float = Field(gt=0, description="lines a second")

    def given(self) -> tuple[Channel, ...]:
        """As written."""
        return tuple(channel.channel() for channel in self.channels)

    def make(self, wanted: tuple[Channel, ...]) -> Source:
        """The port."""
        return SerialSource(self.port, self.baud, self.given(), ArrivalClock(self.rate_hz))


class SerialSource:
    """A serial port.

    Args:
        port: `/dev/serial/by-id/…`, `/dev/ttyUSB0`, or a pyserial URL.
        baud: bits a second.
        channels: one a number in the line, in order.
        clock: stamps the lines.
    """

    def __init__(self, port: str, baud: int, channels: tuple[Channel, ...], clock: ArrivalClock) -> None:
        self.channels, self.ended, self.counts = channels, False, SourceCounts()
        self._port, self._baud = port, baud
        self._serial: "serial.Serial | None" = None  # type: ignore[name-defined] # noqa: F821, UP037
        self._parser = LineParser(len(channels))
        self._clock = clock

    def open(self) -> None:
        """Opens the port for us alone."""
        import serial  # noqa: PLC0415 - only where a serial port is used

        try:
            self._serial = serial.serial_for_url(self._port, self._baud, timeout=0, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as error:
            raise SourceError(
                f"serial port {self._port} cannot be opened: {error}: "
                "is it plugged in, and is this user in group dialout?"
            ) from error
        self._parser = LineParser(len(self.channels))

    def read(self, timeout_s: float) -> SampleBlock:
        """The lines that have arrived."""
        port = self._serial
        if port is None:
            raise SourceError(f"serial port {self._port} is not open")
        try:
            port.timeout = timeout_s
            data = port.read(1)
            data += port.read(min(port.in_waiting, 1 << 16))
        except (OSError, TypeError) as error:  # pyserial lets a TypeError out when the port goes away while reading
            raise SourceError(f"serial port {self._port} was lost: {error}") from error
        bad = self._parser.bad_lines
        rows = self._parser.feed(data)
        self.counts.count_bad("line", self._parser.bad_lines - bad)
        stamps, step_s = self._clock.stamp(len(rows))
        if step_s:
            log.warning("serial port %s: the clock was set by %+.1f s", self._port, step_s)
            self.counts.clock_steps += 1
        return SampleBlock(stamps, rows, time.monotonic(), step_s)

    def close(self) -> None:
        """Lets go of the port."""
        if self._serial is not None:
            self._serial.close()
            self._serial = None
