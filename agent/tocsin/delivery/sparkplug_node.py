"""An edge node of Sparkplug B, without its connection: values in, messages out.

```
put ─► a change worth telling? ─┬─ told live ─► data()  NDATA, DDATA
                                └─ held ──────► data()  the same, is_historical, once the node or asset is born again
```
Rules: no I/O, no clock; belongs to one thread. Births tell of every metric, data only of those that changed by more
than their deadband. What changes while nobody may be told is held: the newest, scores apart from the rest, so that they
drive out no alarm. Source: Eclipse Sparkplug 3.0.0, https://sparkplug.eclipse.org/specification.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tocsin.delivery.sparkplug_metrics import GOOD, NODE, RATIO, Definition, Name
from tocsin.delivery.sparkplug_payload import DataType, Metric, Property, Value, encode

NAMESPACE = "spBv1.0"
REBIRTH = "Node Control/Rebirth"
CYCLE = 256  # seq and bdSeq are 0 to 255
HELD = 20_000
_A_MESSAGE = 200  # changes, at most


@dataclass(frozen=True, slots=True)
class Reading:
    """A metric's value at a time.

    Attributes:
        value: None: there is none.
        time_ms: since 1970, of the sample or the change.
        quality: 192 good, 0 bad, 500 stale.
    """

    value: Value
    time_ms: int
    quality: int = GOOD


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be published, QoS 0, not retained."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Change:
    name: str
    reading: Reading


class _Held:
    """Changes of the node or an asset that wait: so many scores, and as many others.

    Attributes:
        dropped: left out for want of room.
    """

    def __init__(self, room: int) -> None:
        self._scores: deque[_Change] = deque(maxlen=room)
        self._others: deque[_Change] = deque(maxlen=room)
        self.dropped = 0

    def put(self, change: _Change) -> None:
        """Holds one more; the oldest of its kind gives way."""
        kind = self._scores if change.name == RATIO else self._others
        self.dropped += len(kind) == kind.maxlen
        kind.append(change)

    def take(self) -> list[_Change]:
        """All, in the order of their times; none is held any more."""
        changes = sorted((*self._scores, *self._others), key=lambda change: change.reading.time_ms)
        self._scores.clear()
        self._others.clear()
        return changes


class EdgeNode:
    """What is known of the node and its devices, which are its assets, and what of that was told.

    Args:
        group: id.
        node: id.
        metrics: all that will ever be told of.
        held: bound on the changes that wait; node and assets have equal parts of it, half of each for scores.

    Attributes:
        assets: ids.
        born: the node may be told of; its assets, where they are alive.
    """

    def __init__(self, group: str, node: str, metrics: Mapping[Name, Definition], held: int = HELD) -> None:
        self._group, self._node, self._metrics = group, node, metrics
        self._aliases = {name: n for n, name in enumerate(metrics, 1)}
        self._readings: dict[Name, Reading] = {}
        self.assets = tuple(dict.fromkeys(whose for whose, _ in metrics if whose != NODE))
        self._dead: frozenset[str] = frozenset()
        self._fresh: dict[str, list[_Change]] = {whose: [] for whose in (NODE, *self.assets)}
        self._held = {whose: _Held(max(held // len(self._fresh) // 2, 1)) for whose in self._fresh}
        self._seq = 0
        self.born = False

    @property
    def dropped(self) -> int:
        """Changes that were held, and left out for want of room."""
        return sum(held.dropped for held in self._held.values())

    def topic(self, kind: str, whose: str = NODE) -> str:
        """Of a kind of message: NBIRTH, DDATA, …"""
        return "/".join((NAMESPACE, self._group, kind, self._node, *([whose] if whose else [])))

    def begin(self, name: Name, reading: Reading) -> None:
        """A value to begin with, which is no change."""
        self._readings[name] = reading

    def put(self, name: Name, reading: Reading) -> None:
        """A value; it is told where it is another one. A metric that is not known is left out."""
        definition, before = self._metrics.get(name), self._readings.get(name)
        if definition is None or (before is not None and not _is_news(before, reading, definition.deadband)):
            return
        self._readings[name] = reading
        whose, change = name[0], _Change(name[1], reading)
        if self._may_tell(whose):
            self._fresh[whose].append(change)
        else:
            self._held[whose].put(change)

    def death(self, session: int, now_ms: int) -> Message:
        """The node's: the will of a session, and what is said before leaving it."""
        return Message(self.topic("NDEATH"), encode(now_ms, (_session(session, now_ms),)))

    def births(self, session: int, now_ms: int) -> list[Message]:
        """The node's, and that of every asset that is alive; from now on data are told.

        Args:
            session: bdSeq of the will that the broker has.
            now_ms: since 1970.
        """
        self.silence()
        self.born, self._seq = True, 0
        own = (
            _session(session, now_ms),
            Metric(DataType.BOOLEAN, False, now_ms, name=REBIRTH, with_kind=True),
        )
        alive = [asset for asset in self.assets if asset not in self._dead]
        return [self._birth("NBIRTH", NODE, now_ms, own), *(self._birth("DBIRTH", asset, now_ms) for asset in alive)]

    def silence(self) -> None:
        """Nobody is told any more: what was not told yet is held."""
        self.born = False
        for whose, changes in self._fresh.items():
            for change in changes:
                self._held[whose].put(change)
            changes.clear()

    def lives(self, dead: frozenset[str], now_ms: int) -> list[Message]:
        """Which assets cannot be told of; deaths and births of those that changed."""
        before, self._dead = self._dead, dead
        messages = []
        for asset in self.assets if self.born else ():
            if asset in dead - before:
                messages += [*self._changes(asset, now_ms), self._say("DDEATH", asset, (), now_ms)]
            elif asset in before - dead:
                messages.append(self._birth("DBIRTH", asset, now_ms))
        return messages

    def data(self, now_ms: int) -> list[Message]:
        """All that changed: first what was held, then what is new."""
        return [m for whose in self._fresh if self._may_tell(whose) for m in self._changes(whose, now_ms)]

    def _changes(self, whose: str, now_ms: int) -> list[Message]:
        kind = "DDATA" if whose else "NDATA"
        messages = []
        for changes, historical in ((self._held[whose].take(), True), (self._fresh[whose], False)):
            for part in _parts(changes):
                told = (self._metric(whose, one.name, one.reading, historical=historical) for one in part)
                messages.append(self._say(kind, whose, told, now_ms))
        self._fresh[whose] = []
        return messages

    def _may_tell(self, whose: str) -> bool:
        return self.born and whose not in self._dead

    def _birth(self, kind: str, whose: str, now_ms: int, own: tuple[Metric, ...] = ()) -> Message:
        """Every metric as it is now; of what was held the rest is left to tell."""
        unknown = Reading(None, now_ms)
        names = [name for name in self._metrics if name[0] == whose]
        whole = (self._metric(whose, name[1], self._readings.get(name, unknown), birth=True) for name in names)
        for change in self._held[whose].take():
            if change.reading is not self._readings[whose, change.name]:
                self._held[whose].put(change)
        return self._say(kind, whose, (*own, *whole), now_ms)

    def _metric(self, whose: str, name: str, reading: Reading, birth: bool = False, historical: bool = False) -> Metric:
        definition = self._metrics[whose, name]
        quality = ("Quality", Property(DataType.INT32, reading.quality))
        unit = (("engUnit", Property(DataType.STRING, definition.unit)),) if birth and definition.unit else ()
        return Metric(
            definition.kind,
            reading.value,
            reading.time_ms,
            name=name if birth else None,
            alias=self._aliases[whose, name],
            with_kind=birth,
            historical=historical,
            properties=(quality, *unit),
        )

    def _say(self, kind: str, whose: str, metrics: Iterable[Metric], now_ms: int) -> Message:
        seq, self._seq = self._seq, (self._seq + 1) % CYCLE
        in_time = tuple(sorted(metrics, key=lambda metric: metric.timestamp_ms))
        return Message(self.topic(kind, whose), encode(now_ms, in_time, seq))


def _session(number: int, now_ms: int) -> Metric:
    return Metric(DataType.INT64, number, now_ms, name="bdSeq", with_kind=True)


def _parts(changes: list[_Change]) -> Iterator[list[_Change]]:
    """As many as a message takes, and again."""
    for n in range(0, len(changes), _A_MESSAGE):
        yield changes[n : n + _A_MESSAGE]


def _is_news(before: Reading, after: Reading, deadband: float) -> bool:
    """Whether a value is worth telling, after the last that was."""
    old, new = before.value, after.value
    if isinstance(old, float) and isinstance(new, float):
        return abs(new - old) > deadband or before.quality != after.quality
    return old != new or before.quality != after.quality
