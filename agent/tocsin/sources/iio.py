"""Sensors that the Linux kernel drives: industrial I/O, through sysfs and `/dev/iio:deviceN`.

```
buffer  scan_elements/*_en, *_type, *_index → buffer/enable → blocks of scans from /dev      accelerometers, ADCs
poll    in_*_raw (or in_*_input) read `rate_hz` times a second                               temperatures, pressures
```
Values are (raw + offset) · scale as sysfs gives them, which is IIO's unit (m/s², rad/s, but mV, milli-°C, kPa), times
`scale` plus `offset` of the settings. Rules: a buffer is switched off at `close`. Samples carry the kernel's time stamp
where the device has one, else the time of arrival. A device that is named by its driver's name is found again under
another number after it was plugged in anew.
"""

import contextlib
import math
import os
import re
import select
import time
from collections import deque
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from tocsin.errors import SourceError
from tocsin.records import Channel, Floats, SampleBlock
from tocsin.settings import ChannelSettings, Seconds
from tocsin.sources import Source, SourceCounts, SourceSettings
from tocsin.sources.clock import SMALLEST_STEP_S, ArrivalClock, StampClock
from tocsin.sources.scan import ElementType, ScanLayout

_READ_BYTES = 1 << 18
_WAKE_S = 0.05  # between two reads of a fast device
_ATTRIBUTE_BYTES = 4096
_SHARED = re.compile(r"(in_[a-z]+)\d*(?:_[a-z].*)?$|(in_[a-z]+)\d+-([a-z]+)\d+$")
_TIMESTAMP = "in_timestamp"


class IioChannelSettings(ChannelSettings):
    """A channel of the device."""

    element: str = Field(pattern=r"^in_[A-Za-z0-9_-]+$", description="as in sysfs: in_accel_x, in_voltage0, in_temp")
    scale: float = Field(1.0, description="multiplies IIO's value, which is in mV, milli-°C, m/s², …; not 0")
    offset: float = Field(0.0, description="added after that")


class IioSettings(SourceSettings):
    """A sensor that the Linux kernel drives (industrial I/O)."""

    type: Literal["iio"]
    device: str = Field(min_length=1, description="iio:device0, or the name that the driver gives it: adxl345")
    mode: Literal["buffer", "poll"] = Field("buffer", description="poll: for slow sensors, and those without a buffer")
    rate_hz: float = Field(gt=0, le=1e6, description="samples a second; set in the device where that can be")
    trigger: str | None = Field(None, description="name of the trigger that samples, for devices that need one")
    buffer: Seconds = Field(1.0, gt=0, le=60, description="seconds of samples that the kernel keeps for us")
    channels: tuple[IioChannelSettings, ...] = Field(min_length=1)
    sysfs: Path = Field(Path("/sys/bus/iio/devices"), description="where the kernel shows its devices")
    dev: Path = Field(Path("/dev"), description="where their device files are")

    def given(self) -> tuple[Channel, ...]:
        """As written."""
        return tuple(channel.channel() for channel in self.channels)

    def make(self, wanted: tuple[Channel, ...]) -> Source:
        """The device."""
        return IioSource(self)


class IioSource:
    """One IIO device.

    Args:
        settings: of the source.
    """

    def __init__(self, settings: IioSettings) -> None:
        self.channels, self.ended, self.counts = settings.given(), False, SourceCounts()
        self._settings = settings
        self._reader: _Buffer | _Poll | None = None
        self._make: type[_Buffer | _Poll] = _Buffer if settings.mode == "buffer" else _Poll

    def open(self) -> None:
        """Finds the device and starts it."""
        self.close()
        folder = find_device(self._settings.sysfs, self._settings.device)
        try:
            self._reader = self._make(folder, self._settings, self.counts)
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{folder.name}: {error}: is it free, and may this user write to {folder} (udev rule, group iio)?"
            ) from error

    def read(self, timeout_s: float) -> SampleBlock:
        """The scans that have arrived."""
        if self._reader is None:
            raise SourceError(f"{self._settings.device} is not open")
        try:
            return self._reader.read(timeout_s)
        except (OSError, ValueError) as error:
            raise SourceError(f"{self._settings.device} was lost: {error}") from error

    def close(self) -> None:
        """Switches the buffer off."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class _Buffer:
    """The device's buffer, switched on."""

    def __init__(self, folder: Path, settings: IioSettings, counts: SourceCounts) -> None:
        self._folder, self._rest, self._counts = folder, b"", counts
        self._arrival, self._stamps = ArrivalClock(settings.rate_hz), StampClock()
        self._later: deque[SampleBlock] = deque()  # what follows a step back of the kernel's clock
        scan = folder / "scan_elements"
        wanted = [channel.element for channel in settings.channels]
        missing = [element for element in wanted if not (scan / f"{element}_en").exists()]
        if missing:
            raise ValueError(f"no buffered channel {missing[0]}: it has {', '.join(_buffered(scan)) or 'none'}")
        _write(folder / "buffer/enable", "0")
        self._fd: int | None = None
        stamped = (scan / f"{_TIMESTAMP}_en").exists()
        enabled = {*wanted, *([_TIMESTAMP] if stamped else [])}
        for element in _buffered(scan):
            _write(scan / f"{element}_en", "1" if element in enabled else "0")
        order = sorted(enabled, key=lambda element: int(_read(scan / f"{element}_index")))
        self._layout = ScanLayout(tuple(ElementType.parse(_read(scan / f"{element}_type")) for element in order))
        self._columns = tuple(order.index(element) for element in wanted)
        self._stamp = order.index(_TIMESTAMP) if stamped else None
        self._scale, self._offset = _calibration(folder, settings)
        _set_rate(folder, wanted, settings.rate_hz)
        if stamped and (clock := folder / "current_timestamp_clock").exists():
            _write(clock, "realtime")
        if settings.trigger is not None:
            _write(folder / "trigger/current_trigger", settings.trigger)
        _write(folder / "buffer/length", str(max(2, round(settings.buffer * settings.rate_hz))))
        if (watermark := folder / "buffer/watermark").exists():  # else the kernel wakes us for every scan
            _write(watermark, str(max(1, round(min(_WAKE_S, settings.buffer / 2) * settings.rate_hz))))
        self._fd = os.open(settings.dev / folder.name, os.O_RDONLY | os.O_NONBLOCK)
        try:
            _write(folder / "buffer/enable", "1")
        except OSError:
            self.close()
            raise

    def read(self, timeout_s: float) -> SampleBlock:
        assert self._fd is not None
        if self._later:
            return self._later.popleft()
        data = b""
        if select.select([self._fd], [], [], timeout_s)[0]:
            with contextlib.suppress(BlockingIOError):
                data = os.read(self._fd, _READ_BYTES)
                if not data:
                    raise OSError("the device file ended")
        scans, self._rest = self._layout.split(self._rest + data)
        values = self._layout.table(scans, self._columns, self._scale, self._offset)
        if self._stamp is None:
            time_s, step_s = self._arrival.stamp(len(scans))
            self._counts.clock_steps += step_s != 0.0
            return SampleBlock(time_s, values, time.monotonic(), step_s)
        return self._stamped(1e-9 * self._layout.column(scans, self._stamp).astype(np.float64), values)

    def _stamped(self, time_s: Floats, values: Floats) -> SampleBlock:
        """Up to where the kernel's clock was set back, if it was; the rest comes with the next reads."""
        cuts = [0, *(np.flatnonzero(np.diff(time_s) < -SMALLEST_STEP_S) + 1).tolist(), len(time_s)]
        for start, stop in pairwise(cuts):
            unset = self._stamps.unset
            followed, step_s = self._stamps.follow(time_s[start:stop])
            self._counts.clock_steps += step_s != 0.0
            if self._stamps.unset > unset:
                self._counts.reasons["clock not set"] += self._stamps.unset - unset
            self._later.append(SampleBlock(followed, values[start:stop], time.monotonic(), step_s))
        return self._later.popleft()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            _write(self._folder / "buffer/enable", "0")
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class _Poll:
    """One read of every channel, `rate_hz` times a second."""

    def __init__(self, folder: Path, settings: IioSettings, counts: SourceCounts) -> None:
        self._counts, self._elements = counts, [channel.element for channel in settings.channels]
        self._files = [_value_file(folder, element) for element in self._elements]
        processed = np.array([file.name.endswith("_input") for file in self._files])
        scale, offset = _calibration(folder, settings)
        own = np.array([channel.scale for channel in settings.channels])
        self._scale = np.where(processed, own, scale)
        self._offset = np.where(processed, [channel.offset / channel.scale for channel in settings.channels], offset)
        self._clock, self._period_s = ArrivalClock(settings.rate_hz), 1.0 / settings.rate_hz
        self._due_s = time.monotonic()

    def read(self, timeout_s: float) -> SampleBlock:
        wait_s = self._due_s - time.monotonic()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
        now = time.monotonic()
        if now < self._due_s:
            return SampleBlock(np.empty(0), np.empty((0, len(self._files))), now)
        self._counts.late += int((now - self._due_s) / self._period_s)
        self._due_s = max(self._due_s + self._period_s, now)
        raw = np.array(
            [[self._value(element, file) for element, file in zip(self._elements, self._files, strict=True)]]
        )
        bad = np.isnan(raw)
        if bad.all():
            raise OSError("no channel can be read")
        time_s, step_s = self._clock.stamp(1)
        self._counts.clock_steps += step_s != 0.0
        return SampleBlock(time_s, (raw + self._offset) * self._scale, now, step_s, bad if bad.any() else None)

    def _value(self, element: str, file: Path) -> float:
        try:
            return float(_read(file))
        except (OSError, ValueError):  # one channel's: the others go on
            self._counts.count_bad(f"{element} cannot be read")
            return math.nan

    def close(self) -> None:
        pass


def find_device(sysfs: Path, device: str) -> Path:
    """Folder of a device, by `iio:deviceN` or by name.

    Raises:
        SourceError: none, or several, of that name; says which there are.
    """
    names = {}
    for folder in sorted(sysfs.glob("iio:device*")):
        with contextlib.suppress(OSError):
            names[folder] = _read(folder / "name")
    found = [folder for folder, name in names.items() if device in (folder.name, name)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{folder.name} ({name})" for folder, name in names.items()) or "none"
    raise SourceError(
        f"iio: {len(found) or 'no'} devices {device!r}: there are {there}: name one of them, or look whether its "
        "driver is loaded"
    )


def _buffered(scan: Path) -> list[str]:
    return sorted(file.name.removesuffix("_en") for file in scan.glob("*_en"))


def _calibration(folder: Path, settings: IioSettings) -> tuple[Floats, Floats]:
    """(C,) scale and (C,) offset, so that (raw + offset) · scale is in the unit of the settings."""
    scales, offsets = [], []
    for channel in settings.channels:
        scale = _attribute(folder, channel.element, "scale", 1.0) * channel.scale
        if not scale:
            raise ValueError(f"{channel.element}: a scale of 0 gives no value")
        scales.append(scale)
        offsets.append(_attribute(folder, channel.element, "offset", 0.0) + channel.offset / scale)
    return np.array(scales), np.array(offsets)


def _attribute(folder: Path, element: str, what: str, default: float) -> float:
    """Of the channel, or what all channels of its type share."""
    for name in (element, _shared(element)):
        if (file := folder / f"{name}_{what}").exists():
            return float(_read(file))
    return default


def _shared(element: str) -> str:
    """`in_accel` of `in_accel_x`, `in_voltage` of `in_voltage0`, `in_voltage-voltage` of `in_voltage0-voltage1`."""
    match = _SHARED.match(element)
    if match is None:
        return element
    return match[1] or f"{match[2]}-{match[3]}"


def _value_file(folder: Path, element: str) -> Path:
    for ending in ("input", "raw"):
        if (file := folder / f"{element}_{ending}").exists():
            return file
    there = sorted({file.name.rpartition("_")[0] for file in folder.glob("in_*_raw")})
    raise ValueError(f"no channel {element}: it has {', '.join(there) or 'none'}")


def _set_rate(folder: Path, elements: list[str], rate_hz: float) -> None:
    """Where the device has a rate; it is the driver's to say that it cannot be; what is fixed may be right."""
    names = ["sampling_frequency", *(f"{_shared(element)}_sampling_frequency" for element in elements)]
    for name in dict.fromkeys(names):
        if (file := folder / name).exists():
            try:
                _write(file, f"{rate_hz:g}")
            except OSError as error:
                with contextlib.suppress(ValueError):
                    if math.isclose(float(fixed := _read(file)), rate_hz, rel_tol=1e-3):
                        continue
                    raise OSError(f"{error}: the device samples at {fixed} Hz: set rate_hz to that") from error
                raise


def _read(file: Path) -> str:
    with file.open(encoding="ascii", errors="replace") as handle:
        return handle.read(_ATTRIBUTE_BYTES).strip()


def _write(file: Path, value: str) -> None:
    try:
        with file.open("w", encoding="ascii") as handle:
            handle.write(value)
    except OSError as error:
        raise OSError(f"{file.name} = {value}: {error.strerror or error}") from error
