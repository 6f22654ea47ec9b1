"""Values that others publish over MQTT: a topic filter and a path in the JSON payload for each channel.

Rules: a message that cannot be read is counted and left out; one that is larger than `largest` is refused, by the
broker already where it speaks MQTT 5. A message that the broker had retained is of unknown age: it counts only where
the payload has a time stamp. Stamps are epoch seconds, milliseconds, microseconds or nanoseconds, told apart by their
size, or RFC 3339; without one, and where it is before 2020 (a clock that was never set), the time of arrival counts.
Values that come in several messages become rows as `tocsin.sources.held` says.
"""

import math
import os
import threading
import time
from collections import Counter
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from tocsin.config import BrokerSettings
from tocsin.errors import BrokerError, ConfigError, SourceError
from tocsin.records import Channel, SampleBlock
from tocsin.settings import ChannelSettings, Seconds
from tocsin.sources import Source, SourceCounts, SourceSettings
from tocsin.sources.clock import EPOCH_S
from tocsin.sources.held import LATEST_S, HeldRows
from tocsin.sources.json_path import Steps, number_at, parse_path, read_payload, value_at

if TYPE_CHECKING:
    from tocsin.delivery.connection import Connection, Event, Received

_MOST_WAITING, _MOST_BYTES = 10_000, 4 << 20  # messages, payloads, between the network and the asset's thread
_MOST_TOPICS = 4096  # whose channels are remembered
_TICKS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3), (0.0, 1.0))  # from this number on, a tick is so many seconds


def _path(value: str) -> str:
    parse_path(value)
    return value


TopicFilter = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^(#|([^+#/]+|\+)?(/([^+#/]*|\+))*(/#)?)$")]
JsonPath = Annotated[str, AfterValidator(_path)]


class MqttChannelSettings(ChannelSettings):
    """A channel: where its value stands."""

    topic: TopicFilter | None = Field(None, description="topic filter, when it is not the source's")
    path: JsonPath = Field("", description="in the JSON payload: sensors[0].value; empty: the payload is the number")
    scale: float = Field(1.0, description="multiplies the value")
    offset: float = Field(0.0, description="added after that")


class MqttSourceSettings(SourceSettings):
    """Values that others publish over MQTT."""

    type: Literal["mqtt"]
    broker: BrokerSettings = Field(BrokerSettings(), description="where they are published")
    topic: TopicFilter | None = Field(None, description="topic filter of channels without one; + and # are wildcards")
    time: JsonPath | None = Field(None, description="path of the time stamp; arrival when left out")
    rate_hz: float = Field(gt=0, le=1000, description="rows a second")
    hold: Seconds = Field(10.0, gt=0, description="how long a channel's last value stands when no message brings it")
    on_change: bool = Field(False, description="values are published only when they change: rows go on in between")
    wait: Seconds = Field(0.0, ge=0, description="how much later than others a message of the same time may come")
    retained: bool = Field(False, description="take retained messages without a time stamp as if they came now")
    largest: int = Field(65536, ge=64, le=1 << 24, description="bytes of a payload")
    channels: tuple[MqttChannelSettings, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _every_channel_has_a_topic(self) -> "MqttSourceSettings":
        for channel in self.channels:
            if self.topic is None and channel.topic is None:
                raise ValueError(
                    f"channel {channel.name!r} has no topic: give it one, or the source, such as plant/+/#"
                )
        return self

    def given(self) -> tuple[Channel, ...]:
        """As written."""
        return tuple(channel.channel() for channel in self.channels)

    def make(self, wanted: tuple[Channel, ...]) -> Source:
        """The subscriptions."""
        return MqttSource(self)


class PayloadReader:
    """Messages → values of channels.

    Args:
        settings: of the source.
    """

    def __init__(self, settings: MqttSourceSettings) -> None:
        self._channels = [
            (channel.topic or settings.topic or "", parse_path(channel.path), channel.scale, channel.offset)
            for channel in settings.channels
        ]
        self._time: Steps | None = None if settings.time is None else parse_path(settings.time)
        self._of_topic: dict[str, list[int]] = {}

    @property
    def filters(self) -> list[str]:
        """To subscribe to, each once."""
        return list(dict.fromkeys(topic for topic, *_ in self._channels))

    def read(self, topic: str, payload: bytes) -> tuple[float | None, list[tuple[int, float]]]:
        """The stamp, None without one, and (channel, value) of each channel in the message; NaN: bad.

        Raises:
            ValueError: it cannot be read; says in a word what is wrong.
        """
        wanted = self._wanted(topic)
        if not wanted:
            return None, []
        plain = payload.decode("utf-8", "replace")
        document: Any = None
        if self._time is not None or any(self._channels[index][1] for index in wanted):
            try:
                document = read_payload(payload)
            except ValueError:
                if all(self._channels[index][1] for index in wanted):
                    raise
        time_s = None if self._time is None else _seconds(value_at(document, self._time))
        found = []
        for index in wanted:
            _, path, scale, offset = self._channels[index]
            value = number_at(document, path) if path or document is not None else number_at(plain, ())
            if value is not None:
                found.append((index, value * scale + offset))
        if not found:
            raise ValueError("no channel in it")
        return time_s, found

    def _wanted(self, topic: str) -> list[int]:
        if topic not in self._of_topic:
            from paho.mqtt.client import topic_matches_sub  # noqa: PLC0415 - loaded by now

            if len(self._of_topic) >= _MOST_TOPICS:
                self._of_topic.clear()
            channels = enumerate(self._channels)
            self._of_topic[topic] = [index for index, one in channels if topic_matches_sub(one[0], topic)]
        return self._of_topic[topic]


def _seconds(found: Any) -> float | None:
    """Epoch seconds of a stamp; None where there is none, or its clock was never set.

    >>> _seconds(1767225600000) == _seconds("2026-01-01T01:00:00+01:00") == 1767225600.0
    True

    Raises:
        ValueError: something else stands there.
    """
    if found is None:
        return None
    number = number_at(found, ())
    if number is not None and number >= 0:
        seconds = next(number * tick for least, tick in _TICKS if number >= least)
    else:
        try:
            moment = datetime.fromisoformat(found)
            if moment.tzinfo is None:
                raise ValueError
            seconds = moment.timestamp()
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError("time stamp") from error
    if seconds > LATEST_S:
        raise ValueError("time stamp")
    return seconds if seconds >= EPOCH_S else None


class MqttSource:
    """Subscriptions at a broker.

    Args:
        settings: of the source.
    """

    def __init__(self, settings: MqttSourceSettings) -> None:
        self.channels, self.ended, self.counts = settings.given(), False, SourceCounts()
        self._settings = settings
        self._reader = PayloadReader(settings)
        self._rows = HeldRows(
            len(self.channels), settings.rate_hz, self.counts, settings.hold, settings.wait, settings.on_change
        )
        self._connection: Connection | None = None
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._where = f"MQTT broker {settings.broker.host}"
        self._waiting_bytes, self._refused = 0, Counter[str]()  # of both threads, under the lock
        self._lock = threading.Lock()

    def open(self) -> None:
        """Connects and subscribes."""
        from tocsin.delivery.connection import Access, Subscribed  # noqa: PLC0415 - brings the MQTT library

        self.close()
        self._events, self._waiting_bytes = SimpleQueue(), 0
        self._rows.forget()
        try:
            self._connection = Access.read(self._settings.broker).connect(
                f"tocsin-source-{os.urandom(6).hex()}", self._put, largest=self._settings.largest + 1024
            )
        except (BrokerError, ConfigError) as error:
            raise SourceError(f"MQTT source: {error}") from error
        self._connection.subscribe(self._reader.filters)
        try:
            while not isinstance(event := self._events.get(timeout=self._settings.timeout_s), Subscribed):
                self._take(event)
            if event.refused:
                raise SourceError(
                    f"{self._where} refuses a subscription to {', '.join(self._reader.filters)}: "
                    f"{event.refused[0]}: may this user read there?"
                )
        except Empty as error:
            self.close()
            raise SourceError(
                f"{self._where}: no answer to a subscription within {self._settings.timeout_s:g} s"
            ) from error
        except SourceError:
            self.close()
            raise

    def _put(self, event: "Event") -> None:
        """Of the network thread."""
        from tocsin.delivery.connection import Received  # noqa: PLC0415 - loaded by now

        if isinstance(event, Received):
            size = len(event.payload)
            with self._lock:
                if size > self._settings.largest:
                    self._refused["too large"] += 1
                    return
                full = self._waiting_bytes + size > max(_MOST_BYTES, self._settings.largest)
                if full or self._events.qsize() >= _MOST_WAITING:
                    self._refused["too many at once"] += 1
                    return
                self._waiting_bytes += size
        self._events.put(event)

    def read(self, timeout_s: float) -> SampleBlock:
        """The rows that are complete, by the messages that have arrived."""
        if self._connection is None:
            raise SourceError(f"{self._where} is not connected")
        try:
            self._take(self._events.get(timeout=min(timeout_s, 1.0 / self._settings.rate_hz)))
            for _ in range(_MOST_WAITING):
                self._take(self._events.get_nowait())
        except Empty:
            pass
        with self._lock:
            refused, self._refused = self._refused, Counter()
        for reason, n in refused.items():
            self.counts.count_bad(reason, n)
        return self._rows.block(time.monotonic())

    def _take(self, event: "Event") -> None:
        from tocsin.delivery.connection import Closed, Received  # noqa: PLC0415 - loaded by now

        if isinstance(event, Closed):
            raise SourceError(f"{self._where}: the connection ended: {event.reason}")
        if isinstance(event, Received):
            self._take_message(event)

    def _take_message(self, message: "Received") -> None:
        with self._lock:
            self._waiting_bytes -= len(message.payload)
        try:
            time_s, found = self._reader.read(message.topic, message.payload)
        except ValueError as error:
            self.counts.count_bad(str(error))
            return
        if message.retain and time_s is None and not self._settings.retained:
            return
        arrived_s = time.monotonic()
        for channel, value in found:
            if math.isnan(value):
                self.counts.count_bad("no number")
            self._rows.put(time.time() if time_s is None else time_s, channel, value, arrived_s)

    def close(self) -> None:
        """Disconnects."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
