"""Where samples come from: one protocol a file, all behind `Source`.

A source is registered here by name → module and class, and imported only when an asset uses it.
"""

import importlib
from typing import Protocol

from tocsin.records import Channel, SampleBlock


class Source(Protocol):
    """Gives samples in engineering units.

    Life: `open`, `read` again and again, `close` (any number of times). After a SourceError it may be opened anew.

    Attributes:
        channels: columns of every block; known once opened.
        ended: nothing will come any more (a recording that was played to its end).
    """

    channels: tuple[Channel, ...]
    ended: bool

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


SOURCES = {
    "replay": ("tocsin.sources.replay", "ReplaySource"),
    "synthetic": ("tocsin.sources.synthetic", "SyntheticSource"),
    "serial": ("tocsin.sources.serial_lines", "SerialSource"),
}


def source_class(kind: str) -> type[Source]:
    """The class behind a source's name in the configuration."""
    module, name = SOURCES[kind]
    found: type[Source] = getattr(importlib.import_module(module), name)
    return found
