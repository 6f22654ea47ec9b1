"""The thread that tells Sparkplug B, on a connection of its own.

```
 desk ──alarms─┐
 lines ─scores─┼─► one queue ─► this thread ─► EdgeNode (what, to whom) ─► Connection ─► broker
 paho ─events──┘                     └─ NCMD: births again · STATE of the primary host: births, or leaves
```
Rules: the JSON tree is delivered by others, and never waits for this. A broker, or a primary host, that is away is
never fatal; what changes meanwhile is held in memory, bounded, and told as historical. Every session has its number
(bdSeq), which its will and its births carry. Source: Eclipse Sparkplug 3.0.0, chapter 5.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from queue import Empty, SimpleQueue

from tocsin.alarms.alarm import Alarm
from tocsin.alarms.plan import Condition
from tocsin.config import BrokerSettings, SparkplugSettings
from tocsin.delivery.connection import Access, Acknowledged, Closed, Connection, Event, Received, Subscribed, Will
from tocsin.delivery.sparkplug_metrics import RATIO, Values, definitions, homes, lost, of_alarms, of_health, of_info
from tocsin.delivery.sparkplug_node import NAMESPACE, REBIRTH, EdgeNode, Message, Reading
from tocsin.delivery.sparkplug_payload import asked
from tocsin.delivery.sparkplug_session import PrimaryHost, Sessions
from tocsin.delivery.wire import Health, Info, Score
from tocsin.errors import BrokerError

log = logging.getLogger(__name__)

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
LOOK_S = 5.0  # between looks at health
LAST_ANSWER_S = 1.0  # for the answer to the death that is said
STOP_TIMEOUT_S = 5.0
NUMBER_FILE = "sparkplug.bdseq"
_WAITING = 10_000  # scores on the queue
_LARGEST_COMMAND = 65_536  # bytes


class _Stop:
    """Time to stop."""


@dataclass(frozen=True, slots=True)
class _Alarms:
    """Alarms that stand at a time."""

    standing: Mapping[str, Alarm]
    time_s: float


@dataclass(frozen=True, slots=True)
class _Heard:
    """What happened on a connection; an older one may have a last word."""

    attempt: int
    event: Event


@dataclass(frozen=True, slots=True)
class Statistics:
    """How it fares; counted since the start of the process.

    Attributes:
        born: a session is open, and its births are told.
        sessions: connections opened.
        dropped: changes and scores that were left out for want of room.
        last_error: why there is no session; empty while there is one.
    """

    born: bool
    sessions: int
    dropped: int
    last_error: str


class Sparkplug:
    """An edge node; each asset is a device of it.

    Args:
        settings: of Sparkplug.
        broker: where `settings` name none.
        device: id; the client id is `tocsin-sparkplug-<device>`.
        folder: where the number of the next session is kept.
        info: the birth document.
        assets: ids.
        conditions: all that may be in alarm, by id of the alarm.
        standing: alarms that are on the disk at the start.
        health: called every `look_s`, from this thread.
        look_s: between looks at it.

    Raises:
        ConfigError: a certificate or the password file is missing.
    """

    def __init__(
        self,
        settings: SparkplugSettings,
        broker: BrokerSettings,
        device: str,
        folder: Path,
        info: Info,
        assets: tuple[str, ...],
        conditions: Mapping[str, Condition],
        standing: Mapping[str, Alarm],
        health: Callable[[], Health],
        look_s: float = LOOK_S,
    ) -> None:
        self._access, self._client_id = Access.read(settings.broker or broker), f"tocsin-sparkplug-{device}"
        self._health, self._look_s, self._sessions = health, look_s, Sessions(folder / NUMBER_FILE)
        self._homes = homes(conditions, assets)
        self._node = EdgeNode(settings.group, device, definitions(assets, self._homes, settings.deadband))
        now_ms = _ms(time.time())
        for name, value in (of_info(info) | of_alarms(standing, self._homes)).items():
            self._node.begin(name, Reading(value, now_ms))
        self._host_id, self._host = settings.host, PrimaryHost()
        self._inbox: SimpleQueue[_Heard | _Stop | _Alarms | Info | tuple[str, Score]] = SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sparkplug", daemon=True)
        self._connection: Connection | None = None
        self._number = self._attempt = self._opened = self._scores_dropped = 0
        self._last_error = ""
        self._next_look_s = 0.0

    def start(self) -> None:
        """Begins to connect; returns at once."""
        self._thread.start()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Tells what waits, then its death, and disconnects; a broker that does not answer is left after the time."""
        self._stopping.set()
        self._inbox.put(_Stop())
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def publish_score(self, asset: str, payload: Score) -> None:
        """Takes a score; from any thread."""
        if self._inbox.qsize() >= _WAITING:
            self._scores_dropped += 1
        else:
            self._inbox.put((asset, payload))

    def tell_alarms(self, standing: Mapping[str, Alarm]) -> None:
        """Takes all alarms that stand, at each change of one; from any thread."""
        self._inbox.put(_Alarms(standing, time.time()))

    def announce(self, info: Info) -> None:
        """Takes another birth document; from any thread."""
        self._inbox.put(info)

    @property
    def statistics(self) -> Statistics:
        """How it fares just now; from any thread."""
        return Statistics(self._node.born, self._opened, self._node.dropped + self._scores_dropped, self._last_error)

    def _run(self) -> None:
        delay_s = 0.0
        while not self._stopping.is_set():
            began_s = time.monotonic()
            try:
                self._wait(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads devices, hides nothing
                began_s = time.monotonic()
                self._connect()
                reason = self._serve()
            except BrokerError as error:
                reason = str(error)
            except Exception:  # the thread outlives what nobody foresaw
                log.exception("sparkplug failed; it begins again")
                reason = "an error in the agent, see its log"
            self._leave()
            if reason and reason != self._last_error:
                log.warning("sparkplug: not connected: %s; changes are held", reason)
            self._last_error = reason or self._last_error
            lasted = time.monotonic() - began_s > LONGEST_DELAY_S  # else two of one name would drive each other out
            delay_s = FIRST_DELAY_S if lasted else min(max(delay_s * 2, FIRST_DELAY_S), LONGEST_DELAY_S)

    def _connect(self) -> None:
        self._number = self._sessions.take()
        death = self._node.death(self._number, _ms(time.time()))
        will = Will(death.topic, death.payload, retain=False)
        self._attempt = attempt = self._attempt + 1
        try:
            connection = self._access.connect(
                self._client_id,
                lambda event: self._inbox.put(_Heard(attempt, event)),
                will,
                largest=_LARGEST_COMMAND,
            )
        except BrokerError as error:
            if isinstance(error.__cause__, OSError):  # no connection, so that no broker heard the number
                self._sessions.give_back()
            raise
        self._connection, self._last_error = connection, ""
        self._opened += 1
        log.info("sparkplug: connected to %s:%d", self._access.host, self._access.port)
        self._host.forget()
        state = [] if self._host_id is None else [self._state_topic()]
        connection.subscribe([self._node.topic("NCMD"), *state])
        if self._host_id is None:
            self._bear()
        else:
            log.info("sparkplug: waits for the primary host %s", self._host_id)

    def _state_topic(self) -> str:
        return f"{NAMESPACE}/STATE/{self._host_id}"

    def _bear(self) -> None:
        """Says what there is: the node and every asset that is alive."""
        self._look(time.monotonic())
        self._send(self._node.births(self._number, _ms(time.time())))

    def _serve(self) -> str:
        """Until the session ends or it is time to stop; gives why it ended, empty at a stop."""
        while True:
            self._look(time.monotonic())
            self._send_data()
            stopping = self._stopping.is_set()  # what came before is on the queue, and told
            reason = self._take(0.0 if stopping else max(self._next_look_s - time.monotonic(), 0.0))
            if stopping and not reason:
                self._send_data()
            if stopping or reason:
                return reason

    def _send_data(self) -> None:
        if self._node.born:
            self._send(self._node.data(_ms(time.time())))

    def _wait(self, seconds: float) -> None:
        """Between two sessions."""
        until_s = time.monotonic() + seconds
        while not self._stopping.is_set() and (left_s := until_s - time.monotonic()) > 0:
            self._look(time.monotonic())
            self._take(min(left_s, self._look_s))

    def _look(self, now_s: float) -> None:
        """Takes the health of node and assets, where it is time."""
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + self._look_s
        try:
            health = self._health()
        except Exception:  # alarms go on, whatever ails a figure
            log.exception("sparkplug: no health figures")
            return
        self._put(of_health(health), time.time())
        self._send(self._node.lives(lost(health), _ms(time.time())))

    def _take(self, wait_s: float) -> str:
        """Waits for the first item, then takes all that are there; why the session ends, empty where it goes on."""
        births = False
        try:
            item = self._inbox.get(timeout=wait_s) if wait_s else self._inbox.get_nowait()
            while True:
                if isinstance(item, _Heard):
                    event = item.event if item.attempt == self._attempt else None
                    if isinstance(event, Closed):
                        return event.reason
                    if isinstance(event, Subscribed) and event.refused:
                        log.warning("sparkplug: the broker refuses a subscription (NCMD, STATE): %s", event.refused[0])
                    if isinstance(event, Received):
                        births |= self._asks_for_births(event)
                        if self._node.born and not self._is_listened_to():
                            return f"the primary host {self._host_id} is offline"
                else:
                    self._note(item)
                item = self._inbox.get_nowait()
        except Empty:
            if births and self._is_listened_to():
                self._bear()
            return ""

    def _is_listened_to(self) -> bool:
        return self._host_id is None or self._host.online

    def _note(self, item: _Heard | _Stop | _Alarms | Info | tuple[str, Score]) -> None:
        """Takes a value."""
        if isinstance(item, _Alarms):
            self._put(of_alarms(item.standing, self._homes), item.time_s)
        elif isinstance(item, Info):
            self._put(of_info(item), time.time())
        elif isinstance(item, tuple):
            asset, score = item
            time_ms = _ms(datetime.fromisoformat(score.time).timestamp())
            self._node.put((asset, RATIO), Reading(score.ratio, time_ms, score.quality))

    def _asks_for_births(self, message: Received) -> bool:
        """Whether a command asks for births, or the primary host is there at last."""
        if self._host_id is not None and message.topic == self._state_topic():
            self._host.take(message.payload)
            return self._host.online and not self._node.born
        try:
            if len(message.payload) > _LARGEST_COMMAND:
                raise ValueError(f"expected {_LARGEST_COMMAND} bytes at most, got {len(message.payload)}")
            wanted = asked(message.payload).get(REBIRTH, False)
        except ValueError as error:
            log.warning("sparkplug: a command cannot be read: %s", error)
            return False
        return wanted and self._node.born and not message.retain

    def _put(self, values: Values, time_s: float) -> None:
        for name, value in values.items():
            self._node.put(name, Reading(value, _ms(time_s)))

    def _send(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if self._connection is not None:
                self._connection.publish(message.topic, message.payload, 0, False)

    def _leave(self) -> None:
        """Ends the session, with the node's death where it was born."""
        connection, self._connection = self._connection, None
        self._attempt += 1  # what else this connection said is about nothing
        if connection is not None:
            if self._node.born:
                death = self._node.death(self._number, _ms(time.time()))
                self._await_answer(connection.publish(death.topic, death.payload, 1, False))
            connection.close(with_will=True)
        self._node.silence()

    def _await_answer(self, mid: int | None) -> None:
        """Until the broker has the last message: Mosquitto gives up a client that closes before it could answer it."""
        end_s = time.monotonic() + LAST_ANSWER_S
        while mid is not None and (left_s := end_s - time.monotonic()) > 0:
            try:
                item = self._inbox.get(timeout=left_s)
            except Empty:
                return
            event = item.event if isinstance(item, _Heard) else None
            if isinstance(event, Closed) or (isinstance(event, Acknowledged) and event.mid == mid):
                return
            self._note(item)


def _ms(time_s: float) -> int:
    """Since 1970; a clock before that counts as then."""
    return max(0, round(time_s * 1000))
