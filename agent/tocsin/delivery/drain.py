"""What to send next, and what an answer means: the outbox as a publisher sees it.

```
 outbox ──due()──► in flight ──0x00──► lingering ──5 s──► deleted
                      │  ▲                                (events: kept for a day, to be asked for)
                0x10, 0x87, 0x97, …: its topic is held, and one message tries again after a back-off
```
Rules: a topic's messages keep their order. An acknowledged message lingers for a while before it is deleted, for a
PUBACK is no delivery: a broker that is killed forgets what it took last, so a broken connection sends it again. With
delivery from end to end an event stays until a consumer says that it has stored it.
No I/O but the outbox; monotonic time is passed in.
"""

import math
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile

from tocsin.delivery.outbox import Outbox, Row

WINDOW = 40
LINGER_S = 5.0  # longer than a consumer needs to come back, so that a killed broker costs nothing
FIRST_HOLD_S, LONGEST_HOLD_S = 1.0, 60.0
NOBODY_LISTENS = 0x10
NEVER = frozenset({0x90, 0x99})  # topic name or payload invalid: no later try can succeed
EVENTS = "event/"
_PAGE = 100
_RESERVED = 3  # of the broker's window, for status, info and health


@dataclass(frozen=True, slots=True)
class Hold:
    """A topic that the broker does not take at present.

    Attributes:
        topic: tail under the device.
        seq: its first message that was not taken.
        reason: the broker's, as text.
        delay_s: back-off before the next try.
        until_s: monotonic time of the next try.
    """

    topic: str
    seq: int
    reason: str
    delay_s: float
    until_s: float


class Drain:
    """Goes through the outbox; belongs to one thread.

    Args:
        outbox: left open.
        end_to_end: events are kept until they are confirmed.

    Attributes:
        acknowledged: messages that the broker took.
        refused: messages that no broker would ever take, given up.
    """

    def __init__(self, outbox: Outbox, end_to_end: bool = False) -> None:
        self._outbox, self._end_to_end = outbox, end_to_end
        self._unconfirmed: set[int] = set()  # seqs that the broker has, and the consumer perhaps not
        self._early: set[int] = set()  # confirmed before the broker acknowledged them
        self._in_flight: dict[int, Row] = {}
        self._lingering: dict[int, float] = {}  # seq → when it was acknowledged, oldest first
        self._holds: dict[str, Hold] = {}
        self._live_since: dict[str, float] = {}
        self._connected_s = 0.0
        self._cursor = 0
        self._window = WINDOW
        self.acknowledged = self.refused = 0

    @property
    def holds(self) -> tuple[Hold, ...]:
        """Topics that are held."""
        return tuple(self._holds.values())

    @property
    def waiting(self) -> int:
        """Messages that the broker has not taken yet."""
        return max(0, self._outbox.depth() - len(self._lingering))

    @property
    def settled(self) -> bool:
        """Nothing more can be sent at present: all is taken, or of topics that are held."""
        return not self._in_flight and not self._outbox.pending(1, self._cursor)

    def connected(self, now_s: float, window: int) -> None:
        """A connection begins; the broker takes at most `window` messages in flight on it."""
        self._outbox.say_again()
        self._connected_s, self._window = now_s, min(max(window - _RESERVED, 1), WINDOW)
        self._live_since.clear()
        self._holds.clear()
        self._cursor = 0

    def lost(self) -> None:
        """The connection broke: all that is in flight or lingers is to be sent again."""
        self._in_flight.clear()
        self._lingering.clear()
        self._unconfirmed.clear()
        self._early.clear()
        self._holds.clear()
        self._cursor = 0

    def confirmed(self, events: Iterable[tuple[int, int]]) -> None:
        """A consumer has stored events: (boot, seq) of each."""
        gone = set(self._outbox.confirm(events))
        self._unconfirmed -= gone
        self._early |= gone & {row.seq for row in self._in_flight.values()}

    def replay(self, since_s: float | None = None) -> None:
        """All that was not confirmed is to be sent again; from a time on, epoch seconds, also what was delivered."""
        if since_s is not None:
            self._outbox.redeliver(since_s)
        self._unconfirmed.clear()
        self._cursor = 0

    def due(self, now_s: float) -> Iterator[tuple[Row, bool]]:
        """Messages to send now, each with whether it waited; tell `sent` of each before the next is taken."""
        for hold in [hold for hold in self._holds.values() if hold.until_s <= now_s]:
            row = self._outbox.first(hold.topic, hold.seq)
            busy = any(flying.topic == hold.topic for flying in self._in_flight.values())
            if row is None:
                del self._holds[hold.topic]
            elif not busy and len(self._in_flight) < self._window:
                yield row, True
        while len(self._in_flight) < self._window:
            page = self._outbox.pending(_PAGE, self._cursor)
            if not page:
                return
            flying = {row.seq for row in self._in_flight.values()}
            for row in page:
                if len(self._in_flight) >= self._window:
                    return
                self._cursor = row.seq
                known = row.seq in self._lingering or row.seq in self._unconfirmed or row.seq in flying
                if row.topic not in self._holds and not known:
                    yield row, self._waited(row)

    def _waited(self, row: Row) -> bool:
        since = self._live_since.get(row.topic, self._connected_s)
        return row.boot != self._outbox.boot or row.monotonic_s < since

    def sent(self, row: Row, mid: int) -> None:
        """A message went out under that packet id."""
        self._in_flight[mid] = row

    def answered(self, mid: int, code: int, reason: str, now_s: float) -> None:
        """The broker's answer to a packet id: MQTT 5 reason code and its name."""
        row = self._in_flight.pop(mid, None)
        if row is None:
            return
        if code in NEVER:
            self.refused += 1
            self._outbox.delete([row.seq])
        elif code == 0 or (code == NOBODY_LISTENS and row.retain):
            self.acknowledged += 1
            if row.seq in self._early:
                self._early.discard(row.seq)
            elif self._end_to_end and row.topic.startswith(EVENTS):
                self._unconfirmed.add(row.seq)
            else:
                self._lingering[row.seq] = now_s
            if self._holds.pop(row.topic, None):
                self._live_since[row.topic] = now_s
                self._cursor = min(self._cursor, row.seq)
        else:
            self._hold(row, f"0x{code:02x} {reason}", now_s)

    def _hold(self, row: Row, reason: str, now_s: float) -> None:
        held = self._holds.get(row.topic)
        if held is None:
            delay_s = FIRST_HOLD_S
        elif now_s < held.until_s:  # one of those that were in flight together
            self._holds[row.topic] = replace(held, seq=min(held.seq, row.seq))
            return
        else:
            delay_s = min(held.delay_s * 2, LONGEST_HOLD_S)
        self._holds[row.topic] = Hold(row.topic, row.seq, reason, delay_s, now_s + delay_s)

    def next_s(self) -> float | None:
        """Monotonic time at which `due` or `sweep` has something to do of itself, without an answer or a message."""
        flying = {row.topic for row in self._in_flight.values()}
        room = len(self._in_flight) < self._window
        times = [hold.until_s for hold in self._holds.values() if room and hold.topic not in flying]
        if self._lingering:
            times.append(next(iter(self._lingering.values())) + LINGER_S)
        return min(times, default=None)

    def sweep(self, now_s: float) -> None:
        """Deletes what was acknowledged long enough ago, in one transaction.

        Raises:
            sqlite3.Error: the disk is full or failing; it is tried again after as long.
        """
        try:
            self._delete(now_s - LINGER_S)
        except sqlite3.Error:
            self._lingering = dict.fromkeys(self._lingering, now_s)
            raise

    def finish(self) -> None:
        """A clean end of the connection: all that was acknowledged is done with."""
        self._delete(math.inf)
        self.lost()

    def _delete(self, until_s: float) -> None:
        seqs = [seq for seq, _ in takewhile(lambda item: item[1] <= until_s, self._lingering.items())]
        if seqs:
            self._outbox.delivered(seqs)
        for seq in seqs:
            del self._lingering[seq]
