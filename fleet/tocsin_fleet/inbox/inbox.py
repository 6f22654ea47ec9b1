"""The loop: broker ─► database ─► acknowledgement to the device ─► people.

```
 event/# ──► parse ──► Store.add ──► ack/events to each device ──► the broker may forget it
                                └──► shown; forwarded by a thread of its own
```
Rules: nothing is acknowledged before it is on the disk. When a device says `online`, it is asked for all that was not
acknowledged. A database that cannot be written is waited for; the broker keeps the messages meanwhile.
"""

import json
import logging
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from queue import Empty, SimpleQueue

from tocsin.delivery.connection import Access, Closed, Connection, Event, Received, Subscribed
from tocsin.delivery.wire import ACK_EVENTS, ONLINE, EventAck, Topics, rfc3339
from tocsin.errors import BrokerError
from tocsin_fleet.inbox.store import Store, Stored, StoreError

log = logging.getLogger(__name__)

SESSION_S = 7 * 86_400  # the broker keeps events so long for an inbox that is away
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
_BATCH = 200
_LOOK_S = 0.5
_CALLS = {("alarm", "new"), ("flood", "begin")}  # people are told of


def parse(topic: str, prefix: str, payload: bytes) -> Stored | None:
    """An event as it is kept; None for what is no event of an agent.

    Args:
        topic: `<prefix>/<device>/event/<kind>`.
        prefix: first levels.
        payload: JSON with an envelope.
    """
    device, _, kind = topic.removeprefix(f"{prefix}/").partition("/event/")
    try:
        body = json.loads(payload)
        boot, seq = body["boot"], body["seq"]
        told = body.get("after") or body
        fields = {key: told.get(key) for key in ("alarm", "asset", "severity", "text")}
        found = str(body.get("type", ""))
        when = str(told["time"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not (isinstance(boot, int) and isinstance(seq, int) and 0 <= boot < 2**63 and 0 <= seq < 2**63):
        return None
    texts = {key: None if value is None else str(value)[:1000] for key, value in fields.items()}
    silent = (kind, found) not in _CALLS
    text = payload.decode("utf-8", "replace").replace("\0", "")  # PostgreSQL's texts have no NUL
    return Stored(device[:64], boot, seq, kind[:64], found[:16], when[:32], **texts, body=text, forwarded=silent)


class Inbox:
    """Receives the events of all devices.

    Args:
        access: to the broker.
        prefix: first levels of every topic.
        name: of this inbox: each has a session of its own at the broker.
        store: where events are kept.
        show: called with each event that is new, after it is kept.
        forwards: somebody is told of alarms; else none of them waits to be told.
        since_s: epoch seconds; each device is asked once for what it delivered since then; None: for nothing.
    """

    def __init__(
        self,
        access: Access,
        prefix: str,
        name: str,
        store: Store,
        show: Callable[[Stored], object],
        forwards: bool = False,
        since_s: float | None = None,
    ) -> None:
        self._since, self._asked = None if since_s is None else rfc3339(since_s), set[str]()
        self._access, self._prefix, self._name, self._store, self._show = access, prefix, name, store, show
        self._forwards = forwards
        self._stopping = threading.Event()
        self.stored = self.repeated = self.unreadable = 0

    def stop(self) -> None:
        """Lets `run` end; from any thread, or a signal."""
        self._stopping.set()

    def run(self) -> None:
        """Until stopped; comes back to a broker that goes, and waits for a database that cannot be written.

        Raises:
            BrokerError: the broker cannot be reached at the start, or refuses this user.
        """
        delay_s, first = FIRST_DELAY_S, True
        while not self._stopping.is_set():
            try:
                self._serve()
                delay_s = FIRST_DELAY_S
            except (BrokerError, StoreError) as error:
                if first and isinstance(error, BrokerError):
                    raise
                log.warning("%s; trying again", error)
            first = False
            self._stopping.wait(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients, hides nothing
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def _serve(self) -> None:
        """One connection."""
        events: SimpleQueue[Event] = SimpleQueue()
        connection = self._access.connect(f"tocsin-inbox-{self._name}", events.put, session_s=SESSION_S)
        where = f"{self._access.host}:{self._access.port}"
        try:
            filters = [f"{self._prefix}/+/event/#", f"{self._prefix}/+/status"]
            connection.subscribe(filters)
            while not self._stopping.is_set():
                batch = _next(events)
                for item in batch:
                    if isinstance(item, Subscribed):
                        if item.refused:
                            raise BrokerError(f"{where} refuses {', '.join(filters)}: {item.refused[0]}")
                        log.info("receives %s at %s", ", ".join(filters), where)
                self._take(connection, [item for item in batch if isinstance(item, Received)])
                if any(isinstance(item, Closed) for item in batch):
                    log.warning("%s: the connection ended; trying again", where)
                    return
        finally:
            connection.close()

    def _take(self, connection: Connection, messages: list[Received]) -> None:
        keep: list[Stored] = []
        for message in messages:
            if message.topic.endswith("/status"):
                self._greet(connection, message)
                continue
            found = parse(message.topic, self._prefix, message.payload)
            if found is None:
                self.unreadable += 1
                log.warning("%s: not an event of an agent, left out", message.topic)
            else:
                keep.append(found if self._forwards else replace(found, forwarded=True))
        new = self._store.add(keep)
        self.stored += len(new)
        self.repeated += len(keep) - len(new)
        self._confirm(connection, keep)
        for message in messages:
            connection.acknowledge(message)
        for one in new:
            self._show(one)

    def _greet(self, connection: Connection, message: Received) -> None:
        if message.payload == ONLINE.encode():
            device = message.topic.removeprefix(f"{self._prefix}/").removesuffix("/status")
            since = None if device in self._asked else self._since
            self._asked.add(device)
            self._say(connection, device, EventAck(replay=True, replay_since=since))

    def _confirm(self, connection: Connection, kept: Iterable[Stored]) -> None:
        of: dict[str, list[tuple[int, int]]] = {}
        for one in kept:
            of.setdefault(one.device, []).append((one.boot, one.seq))
        for device, events in of.items():
            self._say(connection, device, EventAck(events=events))

    def _say(self, connection: Connection, device: str, ack: EventAck) -> None:
        connection.publish(Topics(self._prefix, device).under(ACK_EVENTS), ack.encode(), 1, False)


def _next(events: "SimpleQueue[Event]") -> list[Event]:
    """What came, at most a batch; empty after a while without anything."""
    batch: list[Event] = []
    try:
        while len(batch) < _BATCH:
            batch.append(events.get_nowait() if batch else events.get(timeout=_LOOK_S))
    except Empty:
        pass
    return batch


class Forwarder:
    """Tells people, from a thread of its own; what could not be told waits in the database.

    Args:
        store: where events are kept.
        send: title and text; whether it went out.
        together: so many waiting at once go out as one list.
    """

    def __init__(self, store: Store, send: Callable[[str, str], bool], together: int = 5) -> None:
        self._store, self._send, self._together = store, send, together
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)

    def start(self) -> None:
        """Begins with what waits from before."""
        self._thread.start()

    def wake(self) -> None:
        """Something new may wait."""
        self._wake.set()

    def stop(self) -> None:
        """Ends the thread; what waits stays."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(10)

    def _run(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                went_out = self._forward()
            except Exception:  # a service's library; the inbox goes on
                log.exception("people could not be told")
                went_out = False
            if went_out:
                delay_s = FIRST_DELAY_S
                self._wake.wait(LONGEST_DELAY_S)
            else:
                self._stopping.wait(delay_s)
                delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def _forward(self) -> bool:
        """Whether all that waited went out."""
        while waiting := self._store.to_forward():
            parts = [waiting] if len(waiting) > self._together else [[one] for one in waiting]
            for part in parts:
                if not self._send(*_told(part)):
                    log.warning("%d alarms could not be forwarded; trying again", len(waiting))
                    return False
                self._store.forwarded(part)
        return True


def _told(events: list[Stored]) -> tuple[str, str]:
    """Title and text."""
    first = events[0]
    if len(events) > 1:
        lines = (f"{one.time} {one.device} {one.severity or one.kind}: {one.text}" for one in events)
        return f"{len(events)} alarms", "\n".join(lines)
    what = first.severity or first.kind
    return f"{what} at {first.asset or first.device}", f"{first.text}\n{first.device}, {first.time}"
