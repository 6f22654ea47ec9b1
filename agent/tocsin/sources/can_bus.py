"""Signals of a CAN bus by their names in a DBC file: python-can reads frames, cantools decodes them.

Rules: frames without a wanted signal are ignored, by the kernel where that is SocketCAN. A multiplexed signal has a
value when its frame carries it. Values are in the DBC's unit, times `scale` plus `offset` of the settings. A frame that
is shorter than the DBC says is counted and left out. Bus-off and a lost interface are a SourceError. Signals that come
at their own pace become rows as `tocsin.sources.held` says.
"""

import contextlib
import time
from typing import Any, Literal

from pydantic import Field

from tocsin.errors import SourceError
from tocsin.records import Channel, SampleBlock
from tocsin.settings import ChannelSettings, FilePath, Seconds
from tocsin.sources import Source, SourceCounts, SourceSettings
from tocsin.sources.clock import EPOCH_S
from tocsin.sources.held import HeldRows

_MOST_FRAMES = 4096  # of one read
_BUS_OFF = 0x40  # CAN_ERR_BUSOFF of linux/can/error.h, in the id of an error frame


class CanChannelSettings(ChannelSettings):
    """A channel: one signal."""

    signal: str = Field(min_length=1, description="its name in the DBC file; Message.Signal where several have it")
    scale: float = Field(1.0, description="multiplies the DBC's physical value")
    offset: float = Field(0.0, description="added after that")


class CanSettings(SourceSettings):
    """Signals of a CAN bus, named in a DBC file."""

    type: Literal["can"]
    interface: str = Field("socketcan", description="of python-can: socketcan, slcan, pcan, kvaser, virtual, …")
    channel: str = Field("can0", description="network interface or port of the adapter")
    bitrate: int | None = Field(None, gt=0, description="for adapters that set it; SocketCAN's is set with `ip link`")
    fd: bool = Field(False, description="CAN FD")
    dbc: FilePath = Field(description="DBC file (or ARXML, KCD, SYM) with the bus' messages")
    rate_hz: float = Field(gt=0, le=10_000, description="rows a second")
    hold: Seconds = Field(1.0, gt=0, description="how long a signal's last value stands when no frame brings it")
    on_change: bool = Field(False, description="frames come only when something changes: rows go on in between")
    channels: tuple[CanChannelSettings, ...] = Field(min_length=1)

    def given(self) -> tuple[Channel, ...]:
        """As written."""
        return tuple(channel.channel() for channel in self.channels)

    def make(self, wanted: tuple[Channel, ...]) -> Source:
        """The bus."""
        return CanSource(self)


class FrameDecoder:
    """Frames → values of channels.

    Args:
        settings: of the source.

    Attributes:
        channels: with the DBC's unit where the settings name none.

    Raises:
        SourceError: the DBC file, or a signal in it, is not there.
    """

    def __init__(self, settings: CanSettings) -> None:
        database = _load(settings)
        self._by_id: dict[tuple[int, bool], tuple[Any, dict[str, list[int]]]] = {}
        self._scales = [(channel.scale, channel.offset) for channel in settings.channels]
        channels = []
        for index, channel in enumerate(settings.channels):
            message, unit = _find(database.messages, channel.signal, str(settings.dbc))
            key = (message.frame_id, message.is_extended_frame)
            wanted = self._by_id.setdefault(key, (message, {}))[1]
            wanted.setdefault(channel.signal.rpartition(".")[2], []).append(index)
            own = channel.scale == 1.0 and channel.offset == 0.0
            channels.append(Channel(channel.name, channel.unit or (unit if own else "")))
        self.channels = tuple(channels)

    @property
    def filters(self) -> list[dict[str, Any]]:
        """Of python-can: the frames that are wanted."""
        return [
            {"can_id": frame, "can_mask": 0x1FFFFFFF if extended else 0x7FF, "extended": extended}
            for frame, extended in self._by_id
        ]

    def decode(self, frame_id: int, extended: bool, data: bytes) -> list[tuple[int, float]]:
        """(channel, value) of each wanted signal in the frame; empty for frames that are not wanted.

        Raises:
            ValueError: the frame is not as the DBC says.
        """
        message, wanted = self._by_id.get((frame_id, extended), (None, {}))
        if message is None:
            return []
        from cantools.database.errors import Error  # noqa: PLC0415 - loaded by now

        try:
            found = message.decode(data, decode_choices=False)
        except (Error, ValueError, KeyError, OverflowError) as error:
            raise ValueError(f"{message.name}: {type(error).__name__}") from error
        if not isinstance(found, dict):
            raise ValueError(f"{message.name}: a container")
        out = []
        for signal, indices in wanted.items():
            value = found.get(signal)
            if isinstance(value, int | float):
                for index in indices:
                    scale, offset = self._scales[index]
                    out.append((index, float(value) * scale + offset))
        return out


class CanSource:
    """One CAN bus.

    Args:
        settings: of the source.
    """

    def __init__(self, settings: CanSettings) -> None:
        self.channels, self.ended, self.counts = settings.given(), False, SourceCounts()
        self._settings = settings
        self._where = f"CAN {settings.interface} {settings.channel}"
        self._bus: Any = None
        self._decoder: FrameDecoder | None = None
        self._rows = HeldRows(
            len(self.channels), settings.rate_hz, self.counts, settings.hold, on_change=settings.on_change
        )

    def open(self) -> None:
        """Reads the DBC file and joins the bus."""
        self.close()
        try:
            import can  # noqa: PLC0415 - only where a CAN bus is used
            import cantools  # noqa: F401, PLC0415
        except ImportError as error:
            raise SourceError("CAN needs the extra `can`: pip install '.[can]'") from error
        if self._decoder is None:
            self._decoder = FrameDecoder(self._settings)
            self.channels = self._decoder.channels
        settings = self._settings
        more: dict[str, Any] = {} if settings.bitrate is None else {"bitrate": settings.bitrate}
        if settings.fd:
            more["fd"] = True
        if settings.interface == "socketcan":  # elsewhere python-can would drop error frames too
            more["can_filters"] = self._decoder.filters
        try:
            self._bus = can.Bus(settings.channel, settings.interface, ignore_config=True, **more)
        except (can.CanError, OSError, ValueError, TypeError, ImportError, NotImplementedError) as error:
            raise SourceError(
                f"{self._where} cannot be opened: {error}: is the adapter plugged in, and the interface up "
                f"(ip link set {settings.channel} up type can bitrate …)?"
            ) from error
        self._rows.forget()

    def read(self, timeout_s: float) -> SampleBlock:
        """The rows that are complete, by the frames that have arrived."""
        if self._bus is None:
            raise SourceError(f"{self._where} is not open")
        import can  # noqa: PLC0415 - loaded by now

        try:
            frame = self._bus.recv(min(timeout_s, 1.0 / self._settings.rate_hz))
            for _ in range(_MOST_FRAMES):
                if frame is None:
                    break
                self._take(frame)
                frame = self._bus.recv(0.0)
        except (can.CanError, OSError, ValueError) as error:
            raise SourceError(f"{self._where} was lost: {error}") from error
        return self._rows.block(time.monotonic())

    def _take(self, frame: Any) -> None:
        if frame.is_error_frame:
            if frame.arbitration_id & _BUS_OFF:
                raise SourceError(f"{self._where} is off: too many errors: look at wiring, termination and bit rate")
            self.counts.count_bad("error frame")
            return
        if frame.is_remote_frame or self._decoder is None:
            return
        try:
            found = self._decoder.decode(frame.arbitration_id, frame.is_extended_id, bytes(frame.data))
        except ValueError as error:
            self.counts.count_bad(str(error))
            return
        arrived_s = time.monotonic()
        time_s = frame.timestamp if frame.timestamp >= EPOCH_S else time.time()  # some adapters count from their start
        for channel, value in found:
            self._rows.put(time_s, channel, value, arrived_s)

    def close(self) -> None:
        """Leaves the bus."""
        if self._bus is not None:
            with contextlib.suppress(Exception):  # an adapter's driver, that may be gone
                self._bus.shutdown()
            self._bus = None


def _load(settings: CanSettings) -> Any:
    from cantools import database  # noqa: PLC0415 - only where a CAN bus is used
    from cantools.database.errors import Error  # noqa: PLC0415

    try:
        found = database.load_file(settings.dbc, prune_choices=False)
    except (OSError, Error, ValueError) as error:
        said = getattr(error, "e_dbc", None) or error
        raise SourceError(f"dbc: {settings.dbc}: {said}: expected a DBC file") from error
    return found


def _find(messages: list[Any], name: str, file: str) -> tuple[Any, str]:
    """The message that carries a signal, and the signal's unit."""
    of_message, _, signal = name.rpartition(".")
    found = [
        (message, one.unit or "")
        for message in messages
        if not of_message or message.name == of_message
        for one in message.signals
        if one.name == signal
    ]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{message.name}.{signal}" for message, _ in found)
        raise SourceError(f"{file}: several messages have a signal {name!r}: name one of {several}")
    known = [f"{message.name}.{one.name}" for message in messages for one in message.signals]
    some = ", ".join(known[:20]) + (" …" if len(known) > 20 else "")
    raise SourceError(f"{file}: no signal {name!r}: it has {some or 'none'}")
