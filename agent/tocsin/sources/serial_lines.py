"""Lines of numbers over a serial port, one sample a line: `1.02,0.31,-9.80` and a line end.

This is what Edge Impulse's data forwarder and most Arduino sketches print. Separators: comma, semicolon, tab or
space. A line that does not parse is counted and skipped, so that the stream recovers by itself after garbage.
Samples are stamped on arrival, spread evenly at the rate the settings give. The stamps begin at the wall clock and go
on with the monotonic one, so that a small step of the wall clock tears no window; a large one is followed.
"""

import logging
import time

import numpy as np

from tocsin.errors import SourceError
from tocsin.records import Channel, Floats, SampleBlock

log = logging.getLogger(__name__)

LONGEST_LINE = 1024
LARGEST_STEP_S = 1.0  # of the wall clock, that the stamps do not follow
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


class SerialSource:
    """A serial port.

    Args:
        port: `/dev/serial/by-id/…`, `/dev/ttyUSB0`, or a pyserial URL.
        baud: bits a second.
        channels: one a number in the line, in order.
        rate_hz: lines a second.

    Attributes:
        clock_steps: steps of the wall clock that the stamps followed.
    """

    def __init__(self, port: str, baud: int, channels: tuple[Channel, ...], rate_hz: float) -> None:
        self.channels, self.ended = channels, False
        self._port, self._baud, self._rate = port, baud, rate_hz
        self._serial: "serial.Serial | None" = None  # type: ignore[name-defined] # noqa: F821, UP037
        self._parser = LineParser(len(channels))
        self._last_s = -np.inf
        self._wall_s = time.time() - time.monotonic()  # the wall clock when the monotonic one was 0
        self.clock_steps = 0

    @property
    def bad_lines(self) -> int:
        """Lines skipped since the start."""
        return self._parser.bad_lines

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
        bad = self._parser.bad_lines
        self._parser = LineParser(len(self.channels))
        self._parser.bad_lines = bad

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
        rows = self._parser.feed(data)
        return SampleBlock(self._stamp(len(rows)), rows, time.monotonic())

    def _stamp(self, n: int) -> Floats:
        """Times of n lines, the last one now; never before what was given out."""
        now = self._now()
        start = max(now - (n - 1) / self._rate, self._last_s + 0.75 / self._rate)
        if start - now > 1.0:  # the clock was set back
            start = now - (n - 1) / self._rate
        stamps = start + np.arange(n) / self._rate
        if n:
            self._last_s = float(stamps[-1])
        return stamps

    def _now(self) -> float:
        monotonic_s = time.monotonic()
        wall_s = time.time() - monotonic_s
        if abs(wall_s - self._wall_s) > LARGEST_STEP_S:
            log.warning("serial port %s: the clock was set by %+.1f s", self._port, wall_s - self._wall_s)
            self._wall_s = wall_s
            self.clock_steps += 1
        return self._wall_s + monotonic_s

    def close(self) -> None:
        """Lets go of the port."""
        if self._serial is not None:
            self._serial.close()
            self._serial = None
