"""Which serial ports there are, and what comes in at one of them: lines of numbers, JSON lines or frames.

Rules: listening writes nothing; it ends in time; what came and cannot be used is said.
"""

import json
import re
import time
from collections import Counter
from pathlib import Path

from tocsin.cli.heard import FEW, TIMES, Heard, round_rate
from tocsin.errors import SourceError
from tocsin.sources.frames import FrameParser
from tocsin.sources.lines import LineParser
from tocsin.sources.serial_port import why_not

BAUDS = (115200, 9600, 57600, 230400, 921600, 38400, 19200, 460800)
ENOUGH = 4096  # bytes in which nothing was known: another speed
BY_ID = Path("/dev/serial/by-id")
ALIKE = 3  # JSON lines with the same keys


def serial_ports() -> list[tuple[str, str]]:
    """Path and description of every serial port, by-id names where there are any."""
    from serial.tools.list_ports import comports  # noqa: PLC0415

    names = {str(link.resolve()): str(link) for link in sorted(BY_ID.glob("*"))} if BY_ID.is_dir() else {}
    found = [(names.pop(port.device, port.device), port.description) for port in comports()]
    found += [(link, Path(link).name) for link in names.values()]
    return sorted(found, key=lambda each: (not each[0].startswith(str(BY_ID)), each[0]))


def hear_serial(port: str, baud: int | None, seconds: float) -> Heard:
    """Listens to a serial port, at the usual baud rates where none is given.

    Raises:
        SourceError: it cannot be opened, nothing comes, or nothing that is known.
    """
    import serial  # noqa: PLC0415

    came = 0
    for speed in (baud,) if baud else BAUDS:
        try:
            with serial.serial_for_url(port, speed, timeout=0.05, exclusive=True) as line:
                wire = _Wire()
                end_s = time.monotonic() + seconds
                while (now_s := time.monotonic()) < end_s:
                    wire.feed(line.read(max(1, line.in_waiting)), now_s)
                    if wire.came > ENOUGH and wire.form is None and baud is None:
                        break  # enough of the wrong speed
        except (serial.SerialException, OSError, ValueError, TypeError) as error:
            raise SourceError(f"serial port {port} cannot be opened: {why_not(port, error)}") from error
        if wire.form is not None:
            return wire.heard(port, speed)
        came += wire.came
        if not came:
            raise SourceError(f"serial port {port}: nothing came in {seconds:g} s: is the node on, and does it send?")
    raise SourceError(
        f"serial port {port}: {came} bytes came, but no lines of numbers, no JSON and no frames"
        f"{f' at {baud} baud' if baud else ''}: docs/configure/serial.md says what is read"
    )


class _Wire:
    """Tells the form of what comes over a serial line."""

    def __init__(self) -> None:
        self.came = 0
        self._lines, self._frames, self._rest = LineParser(None), FrameParser(None), b""
        self._keys: Counter[tuple[str, ...]] = Counter()
        self._first: dict[str, float] = {}
        self._newest: dict[str, float] = {}
        self._samples: Counter[str] = Counter()

    def feed(self, data: bytes, now_s: float) -> None:
        if not data:
            return
        self.came += len(data)
        counts = {
            "csv": len(self._lines.feed(data)),
            "binary": sum(len(piece.rows) for piece in self._frames.feed(data)),
            "json": self._objects(data),
        }
        for form, count in counts.items():
            if count:
                self._samples[form] += count if form in self._first else 0  # those of the first read: since when?
                self._first.setdefault(form, now_s)
                self._newest[form] = now_s

    def _objects(self, data: bytes) -> int:
        """Lines that are JSON objects with numbers in them."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest, found = rest[-1024:], 0
        for line in lines:
            try:
                document = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(document, dict):
                keys = (str(key) for key, value in document.items() if value is None or isinstance(value, int | float))
                self._keys[tuple(keys)] += 1
                found += 1
        return found

    @property
    def form(self) -> str | None:
        """Of the settings; None where nothing is known yet."""
        if self._keys and max(self._keys.values()) >= ALIKE:
            return "json"
        if self._frames.channels is not None:
            return "binary"
        return "csv" if self._lines.channels is not None else None

    def heard(self, port: str, baud: int) -> Heard:
        form = self.form
        assert form is not None
        span_s, samples = self._newest.get(form, 0.0) - self._first.get(form, 0.0), self._samples[form]
        rate_hz = round_rate(samples / span_s) if samples >= FEW and span_s > 0 else None
        settings = {"port": port, "baud": baud, "format": form}
        often = f"{rate_hz:g} a second" if rate_hz else "too few to tell their rate"
        if form == "json":
            keys = list(dict.fromkeys(key for each in self._keys for key in each))
            usable = [key for key in keys if re.fullmatch(r"[a-z][a-z0-9_]*", key)]
            usable = [key for key in usable if key not in TIMES]
            left = [key for key in keys if key not in usable]
            told = f"JSON lines with {', '.join(usable)}, {often}" + (f"; left out: {', '.join(left)}" if left else "")
            return Heard(told, settings, len(usable), tuple({"name": key} for key in usable), rate_hz)
        count = self._frames.channels if form == "binary" else self._lines.channels
        assert count is not None
        what = "frames of" if form == "binary" else "lines of"
        return Heard(f"{what} {count} number{'s' * (count > 1)}, {often}", settings, count, (), rate_hz)
