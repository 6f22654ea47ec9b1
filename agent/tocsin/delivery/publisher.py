"""The thread that takes messages from the outbox to the broker.

```
 desk ──wake──┐
 lines ─score─┼─► one queue ─► this thread ─► Drain (what, when) ─► Connection ─► broker
 paho ─events─┘                     └─ cmd/+ ─► Requests ─► desk ─► reply, on the queue
```
Rules: an unreachable broker is never fatal and is logged once a change, not once a try. Alarms wait in the outbox;
scores (QoS 0) are dropped, and counted, while there is no connection. At every connect: `status`, `info`, the newest
retained states, then what waits. The broker keeps requests while there is no connection, for `commands_kept`; it
forgets one when what became of it is on the disk.
"""

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from pydantic import ValidationError

from tocsin.config import MqttSettings
from tocsin.delivery.connection import (
    Access,
    Acknowledged,
    Closed,
    Connection,
    Event,
    Protocol,
    Received,
    Subscribed,
    Will,
)
from tocsin.delivery.drain import Drain
from tocsin.delivery.home_assistant import BIRTH, birth_topic, discovery, discovery_topic
from tocsin.delivery.outbox import Outbox
from tocsin.delivery.requests import Requests
from tocsin.delivery.wire import (
    ACK_EVENTS,
    EVERY_DEVICE,
    OFFLINE,
    ONLINE,
    SET,
    STOPPED,
    Envelope,
    EventAck,
    Health,
    Info,
    MqttInfo,
    Score,
    Topics,
    Wire,
    command_of,
    epoch_s,
    group_commands,
    score_topic,
    stamp,
)
from tocsin.errors import BrokerError

log = logging.getLogger(__name__)

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
STOP_TIMEOUT_S = 5.0
LAST_ANSWER_S = 1.0  # for the answer to `stopped`, however little of the time to stop is left
_WAITING_SCORES = 1000
_SLOWEST_S = 1.0  # longest wait between looks at the clock


class _Wake:
    """New messages in the outbox, or time to stop."""


@dataclass(frozen=True, slots=True)
class _Reply:
    """What became of a request."""

    request: Received
    payload: bytes
    connection: Connection | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """How delivery fares; counted since the start of the process.

    Attributes:
        connected: a session is open.
        protocol: spoken on it, or on the last one; None before the first.
        sent: messages handed to the network, scores included.
        acknowledged: messages of the outbox that the broker took.
        held: `topic: reason` of what the broker does not take at present.
        refused: messages that no broker would ever take, given up.
        dropped: messages dropped because the outbox was full, since its file was made.
        scores_dropped: scores dropped without a connection, or too many at once.
        settled: nothing more can be sent at present: all is taken, or of topics that are held.
        outbox_depth: messages that the broker has not taken yet.
        outbox_oldest_s: age of the oldest, seconds.
        connects: sessions opened.
        last_error: why there is no session; empty while there is one.
    """

    connected: bool
    protocol: Protocol | None
    sent: int
    acknowledged: int
    held: tuple[str, ...]
    refused: int
    dropped: int
    scores_dropped: int
    settled: bool
    outbox_depth: int
    outbox_oldest_s: float
    connects: int
    last_error: str


class Publisher:
    """Delivers the outbox.

    Args:
        settings: of the broker.
        device: id; the client id is `tocsin-<device>`.
        outbox: to drain.
        info: the birth document; its `mqtt` is filled in here.
        health: called every `health_interval_s`; its outbox figures are filled in here.
        requests: takes what comes on `cmd/+`; None: nothing is subscribed.
        settings_set: takes what comes on `set/+`: tail, payload, whether it was retained; None: nothing is subscribed.

    Raises:
        ConfigError: a certificate or the password file is missing.
    """

    def __init__(
        self,
        settings: MqttSettings,
        device: str,
        outbox: Outbox,
        info: Info,
        health: Callable[[], Health],
        requests: Requests | None = None,
        settings_set: Callable[[str, bytes, bool], None] | None = None,
    ) -> None:
        self._settings_set = settings_set
        self._access = Access.read(settings)
        self._topics, self._client_id = Topics(settings.prefix, device), f"tocsin-{device}"
        self._health_interval_s, self._scores = settings.health_interval_s, settings.scores
        self._outbox, self._info, self._health = outbox, info, health
        self._discovery_prefix = settings.discovery_prefix if settings.home_assistant else None
        self._end_to_end = settings.delivery == "end_to_end"
        self._delivery = settings.delivery
        self._drain = Drain(outbox, self._end_to_end)
        self._requests = requests if requests is not None and requests.allowed else None
        self._session_s = int(settings.commands_kept) if self._requests is not None else 0
        groups = (group_commands(settings.prefix, group) for group in (*settings.groups, EVERY_DEVICE))
        self._commands = [self._topics.under("cmd/+"), *groups]
        self._inbox: SimpleQueue[Event | _Wake | _Reply | Info | tuple[str, Wire]] = SimpleQueue()
        self._stopping = threading.Event()
        self._stop_by_s = 0.0
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._connection: Connection | None = None
        self._protocol: Protocol | None = None
        self._sent = self._scores_dropped = self._connects = 0
        self._last_error = ""
        self._unswept = False
        self._next_health_s = 0.0

    def start(self) -> None:
        """Begins to connect; returns at once."""
        self._thread.start()

    def wake(self) -> None:
        """Tells that the outbox has something new; from any thread."""
        self._inbox.put(_Wake())

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Sends what can be sent within the time, says `stopped`, disconnects; the rest stays in the outbox."""
        self._stop_by_s = time.monotonic() + timeout_s
        self._stopping.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s + LONGEST_DELAY_S)

    def announce(self, info: Info) -> None:
        """Says another birth document, now or at the next connect; from any thread."""
        self._info = info
        self._inbox.put(info)

    def publish_score(self, asset: str, payload: Score) -> None:
        """Sends a score now or never; from any thread."""
        if self._scores:
            self._scores_dropped += not self.publish_now(score_topic(asset), payload)

    def publish_now(self, topic: str, payload: Wire) -> bool:
        """Sends a message, QoS 0, or drops it; from any thread.

        Args:
            topic: tail under the device.
            payload: of it.

        Returns:
            It is on its way.
        """
        if self._connection is None or self._inbox.qsize() >= _WAITING_SCORES:
            return False
        self._inbox.put((topic, payload))
        return True

    @property
    def alive(self) -> bool:
        """Its thread runs; from any thread."""
        return self._thread.is_alive()

    @property
    def statistics(self) -> Statistics:
        """How delivery fares just now; from any thread."""
        return Statistics(
            connected=self._connection is not None,
            protocol=self._protocol,
            sent=self._sent,
            acknowledged=self._drain.acknowledged,
            held=tuple(f"{hold.topic}: {hold.reason}" for hold in self._drain.holds),
            refused=self._drain.refused,
            dropped=self._outbox.dropped,
            scores_dropped=self._scores_dropped,
            settled=self._drain.settled,
            outbox_depth=self._drain.waiting,
            outbox_oldest_s=self._outbox.oldest_age() if self._drain.waiting else 0.0,
            connects=self._connects,
            last_error=self._last_error,
        )

    def _run(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._stopping.is_set():
            try:
                self._connect()
                delay_s = FIRST_DELAY_S
                reason = self._serve()
            except BrokerError as error:
                reason = str(error)
            except sqlite3.Error as error:
                reason = f"the outbox cannot be used: {error}"
            except Exception:  # the thread outlives what nobody foresaw
                log.exception("delivery failed; it begins again")
                reason = "an error in the agent, see its log"
            self._disconnect(clean=not reason)
            if reason and reason != self._last_error:
                log.warning("not connected: %s; messages wait in the outbox", reason)
            self._last_error = reason or self._last_error
            self._stopping.wait(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads devices, hides nothing
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)

    def _connect(self) -> None:
        will = Will(self._topics.under("status"), OFFLINE)
        connection = self._access.connect(self._client_id, self._inbox.put, will, session_s=self._session_s)
        self._connection, self._protocol = connection, connection.protocol
        self._connects += 1
        self._drain.connected(time.monotonic(), connection.window)
        log.info("connected to %s:%d with MQTT %s", self._access.host, self._access.port, connection.protocol)
        self._last_error = ""
        self._say("status", ONLINE)
        self._say_info(connection)
        connection.subscribe([self._topics.under(ACK_EVENTS)])
        if self._discovery_prefix is not None:
            connection.subscribe([birth_topic(self._discovery_prefix)])
        if self._settings_set is not None:
            connection.subscribe([self._topics.under(f"{SET}+")])
        if self._requests is not None:
            connection.subscribe(self._commands)
        self._next_health_s = 0.0

    def _say_info(self, connection: Connection) -> None:
        mqtt = MqttInfo(protocol=connection.protocol, delivery=self._delivery)
        self._say("info", self._info.model_copy(update={"mqtt": mqtt}).encode())
        if self._discovery_prefix is not None:
            body = discovery(self._info, self._topics, self._scores)
            connection.publish(discovery_topic(self._discovery_prefix, self._info.device), body, 1, True)

    def _serve(self) -> str:
        """Until the connection ends or it is time to stop; gives why it ended, empty at a clean stop."""
        while True:
            now_s = time.monotonic()
            self._send_due(now_s)
            self._sweep(now_s)
            if now_s >= self._next_health_s:
                self._send_health()
                self._next_health_s = now_s + self._health_interval_s
            if self._stopping.is_set() and (self._drain.settled or now_s >= self._stop_by_s):
                return ""
            closed = self._take(self._wait_s(now_s))
            if closed is not None:
                return closed.reason

    def _sweep(self, now_s: float) -> None:
        """What was delivered is forgotten; on a disk that is full or failing later, and the session goes on."""
        try:
            self._drain.sweep(now_s)
        except sqlite3.Error as error:
            if not self._unswept:
                log.warning(
                    "what was delivered cannot be taken off the disk (%s); it is sent again after a restart", error
                )
            self._unswept = True
        else:
            self._unswept = False

    def _wait_s(self, now_s: float) -> float:
        due_s = self._drain.next_s()
        until_s = min(self._next_health_s, now_s + _SLOWEST_S, now_s + _SLOWEST_S if due_s is None else due_s)
        return max(until_s - now_s, 0.0)

    def _take(self, wait_s: float) -> Closed | None:
        """Waits for the first item, then takes all that are there."""
        try:
            item = self._inbox.get(timeout=wait_s) if wait_s else self._inbox.get_nowait()
            while True:
                if isinstance(item, Closed):
                    return item
                if isinstance(item, Acknowledged):
                    self._drain.answered(item.mid, item.code, item.reason, time.monotonic())
                elif isinstance(item, Info) and self._connection is not None:
                    self._say_info(self._connection)
                elif isinstance(item, Received):
                    self._take_safely(item)
                elif isinstance(item, _Reply):
                    self._answer(item)
                elif isinstance(item, Subscribed) and item.refused:
                    log.warning("the broker refuses a subscription (commands, Home Assistant): %s", item.refused[0])
                elif isinstance(item, tuple):
                    self._say(item[0], item[1].encode(), qos=0, retain=False)
                item = self._inbox.get_nowait()
        except Empty:
            return None

    def _take_safely(self, message: Received) -> None:
        """A message that cannot be taken is forgotten: the broker would bring it again at every connect."""
        try:
            self._take_message(message)
        except sqlite3.Error:
            raise
        except Exception:
            log.exception("%s: a message that cannot be taken is left out", message.topic)
            if self._session_s and self._connection is not None:
                self._connection.acknowledge(message)

    def _take_message(self, message: Received) -> None:
        """A request; or a consumer has stored events; or Home Assistant has started, and forgot what it was told."""
        connection, prefix = self._connection, self._discovery_prefix
        if connection is None:
            return
        if message.topic == self._topics.under(ACK_EVENTS):
            self._confirm(message)
        elif self._settings_set is not None and message.topic.startswith(self._topics.under(SET)):
            self._settings_set(message.topic.removeprefix(self._topics.under("")), message.payload, message.retain)
        elif prefix is not None and message.topic == birth_topic(prefix):
            if message.payload == BIRTH.encode() and not message.retain:
                self._say_info(connection)
        else:
            self._take_request(message)
            return
        if self._session_s:
            connection.acknowledge(message)

    def _confirm(self, message: Received) -> None:
        try:
            said = EventAck.model_validate_json(message.payload)
            since_s = None if said.replay_since is None else epoch_s(said.replay_since)
        except ValueError as error:
            wrong = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else error
            log.warning("%s: %s: nothing is taken as stored", message.topic, wrong)
            return
        if message.retain:
            return
        if self._end_to_end:
            self._drain.confirmed(said.events)
        if said.replay or since_s is not None:
            self._drain.replay(since_s)

    def _take_request(self, request: Received) -> None:
        connection = self._connection
        if self._requests is not None:
            self._requests.take(
                command_of(request.topic),
                request.payload,
                request.retain,
                time.monotonic(),
                lambda payload: self._inbox.put(_Reply(request, payload, connection)),
            )

    def _answer(self, reply: _Reply) -> None:
        """On the command's own topic, and where MQTT 5 asked for it: nowhere among the topics of this device."""
        request, connection = reply.request, self._connection
        if connection is None:
            return
        self._say(f"cmd/{command_of(request.topic)}/result", reply.payload, retain=False)
        to, own = request.response_topic, self._topics.under("")
        if to and not to.startswith((own, "$")) and not set(to) & set("+#\0"):
            connection.publish(to, reply.payload, 1, False, correlation=request.correlation)
        if self._session_s and reply.connection is connection:
            connection.acknowledge(request)

    def _send_due(self, now_s: float) -> None:
        for row, waited in self._drain.due(now_s):
            envelope = Envelope(boot=row.boot, seq=row.seq, replayed=waited)
            mid = self._say(row.topic, stamp(row.payload, envelope), row.qos, row.retain)
            if mid is None:
                return  # the connection is going; `Closed` comes
            self._drain.sent(row, mid)

    def _send_health(self) -> None:
        statistics = self.statistics
        figures = {
            "outbox_depth": statistics.outbox_depth,
            "outbox_oldest_s": round(statistics.outbox_oldest_s, 3),
            "dropped_total": statistics.dropped,
        }
        try:
            health = self._health()
        except Exception:  # alarms go on, whatever ails a figure
            log.exception("no health figures")
            return
        self._say("health", health.model_copy(update=figures).encode())

    def _say(self, tail: str, payload: bytes | str, qos: int = 1, retain: bool = True) -> int | None:
        if self._connection is None:
            return None
        mid = self._connection.publish(self._topics.under(tail), payload, qos, retain)
        self._sent += mid is not None
        return mid

    def _disconnect(self, clean: bool) -> None:
        connection = self._connection
        if connection is not None:
            if clean:
                self._await_answer(self._say("status", STOPPED))
            self._connection = None
            connection.close()
        if clean:
            self._drain.finish()
        else:
            self._drain.lost()
        self._empty_inbox()

    def _await_answer(self, mid: int | None) -> None:
        """Until the broker has the last message: Mosquitto gives up a client that closes before it could answer it.

        What that client sent after is then lost, and its will published.
        """
        end_s = max(self._stop_by_s, time.monotonic() + LAST_ANSWER_S)
        while mid is not None and (left_s := end_s - time.monotonic()) > 0:
            try:
                item = self._inbox.get(timeout=left_s)
            except Empty:
                return
            if isinstance(item, Closed):
                return
            if isinstance(item, Acknowledged):
                self._drain.answered(item.mid, item.code, item.reason, time.monotonic())
                if item.mid == mid:
                    return

    def _empty_inbox(self) -> None:
        """What is left belongs to the session that ended: its answers, and scores nobody waits for."""
        try:
            while True:
                self._scores_dropped += isinstance(self._inbox.get_nowait(), tuple)
        except Empty:
            return
