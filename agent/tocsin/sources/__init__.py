"""Where samples come from: one protocol a file, all behind `Source`.

A source's module is imported only when an asset uses it.
"""

from typing import Protocol

from tocsin.config import ReplaySettings, SerialSettings, SourceSettings, SyntheticSettings
from tocsin.recordings import TableOptions
from tocsin.records import Channel, SampleBlock


class Source(Protocol):
    """Gives samples in engineering units.

    Life: `open`, `read` again and again, `close` (any number of times). After a SourceError it may be opened anew.

    Attributes:
        channels: columns of every block; known once opened.
        ended: nothing will come any more (a recording that was played to its end, or broke off with a SourceError).
    """

    channels: tuple[Channel, ...]
    ended: bool

    @property
    def bad_lines(self) -> int:
        """What came and could not be read, since the start."""

    def open(self) -> None:
        """Connects.

        Raises:
            SourceError: not there, or refused.
        """

    def read(self, timeout_s: float) -> SampleBlock:
        """What has arrived; an empty block when nothing did within the time.

        Raises:
            SourceError: the link is lost.
        """

    def close(self) -> None:
        """Lets go of everything; never raises."""


def make_source(settings: SourceSettings, wanted: tuple[Channel, ...]) -> Source:
    """The source that the settings describe, not opened yet.

    Args:
        settings: of one asset's source.
        wanted: channels of the asset's bundle.
    """
    match settings:
        case ReplaySettings():
            from tocsin.sources.replay import ReplaySource  # noqa: PLC0415 - each source loads when an asset uses it

            options = TableOptions(time=settings.time, separator=settings.separator, rate_hz=settings.rate_hz)
            return ReplaySource(settings.files, options, settings.speed, wanted)
        case SyntheticSettings():
            from tocsin.sources.synthetic import SyntheticSource  # noqa: PLC0415

            given = settings.model_dump(exclude={"type", "channels"})
            return SyntheticSource(tuple(c.channel() for c in settings.channels), **given)
        case SerialSettings():
            from tocsin.sources.serial_lines import SerialSource  # noqa: PLC0415

            channels = tuple(c.channel() for c in settings.channels)
            return SerialSource(settings.port, settings.baud, channels, settings.rate_hz)
