"""The contract that every source keeps, and what it counts."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from tocsin.records import Channel, SampleBlock


@dataclass(slots=True)
class SourceCounts:
    """What a source counts, from its making on, across `close` and `open`; it writes, any thread reads.

    Attributes:
        bad: what came and could not be read: lines, frames, answers, values of a bad quality.
        lost: samples that are known to be missing, by their sequence numbers.
        late: readings that came later than their time.
        clock_steps: times at which a clock was set and the stamps went along.
        reasons: how often, by a short name of what was wrong (`crc`, `BadNoCommunication`, `slave 7: no answer`).
    """

    bad: int = 0
    lost: int = 0
    late: int = 0
    clock_steps: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    MOST_REASONS = 32

    def count_bad(self, reason: str, n: int = 1) -> None:
        """N bad ones of a reason; from the 33rd reason on, as `other`: the names may come from outside."""
        if not n:
            return
        self.bad += n
        self.reasons[reason if reason in self.reasons or len(self.reasons) < self.MOST_REASONS else "other"] += n


class Source(Protocol):
    """Gives samples in engineering units.

    Life: `open`, `read` again and again, `close` (any number of times). After a SourceError it is closed, and may be
    opened anew. One thread calls it; `counts` may be read from any.

    Attributes:
        channels: columns of every block; known once opened.
        ended: nothing will come any more (a recording that was played to its end, or broke off with a SourceError).
        counts: what went wrong.
    """

    channels: tuple[Channel, ...]
    ended: bool
    counts: SourceCounts

    def open(self) -> None:
        """Connects; at most about `timeout_s` of the settings.

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
