"""What is published at an MQTT broker, and what an OPC UA server has.

Rules: nothing is written; it ends in time; what came and cannot be used is said.
"""

import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

from tocsin.cli.heard import FEW, TIMES, Heard, free_name, name_of, round_rate
from tocsin.config import BrokerSettings
from tocsin.errors import SourceError
from tocsin.sources.json_path import number_at, read_payload

MOST_NODES, MOST_DEPTH, MOST_TOPICS = 500, 8, 500


def hear_mqtt(broker: BrokerSettings, topic: str, seconds: float) -> Heard:
    """Subscribes and looks for numbers in what is published.

    Raises:
        BrokerError: it cannot be reached.
        ConfigError: its certificate or password cannot be read.
        SourceError: it refuses the topic, or nothing comes.
    """
    from tocsin.delivery.connection import Access, Closed, Event, Received, Subscribed  # noqa: PLC0415

    events: SimpleQueue[Event] = SimpleQueue()
    connection = Access.read(broker).connect(f"tocsin-init-{os.urandom(6).hex()}", events.put)
    topics = _Topics(topic)
    try:
        connection.subscribe([topic])
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                event = events.get(timeout=left_s)
            except Empty:
                break
            if isinstance(event, Closed):
                raise SourceError(f"MQTT broker {broker.host}: the connection ended: {event.reason}")
            if isinstance(event, Subscribed) and event.refused:
                raise SourceError(f"MQTT broker {broker.host} refuses {topic}: {event.refused[0]}")
            if isinstance(event, Received):
                topics.take(event.topic, event.payload, event.retain)
    finally:
        connection.close()
    return topics.heard(broker, seconds)


class _Topics:
    """Collects the numbers of payloads, by topic and path."""

    def __init__(self, asked: str) -> None:
        self._asked, self._messages = asked, 0
        self._paths: dict[tuple[str, str], None] = {}
        self._live: dict[str, list[float]] = {}
        self._time: str | None = None

    def take(self, topic: str, payload: bytes, retained: bool) -> None:
        self._messages += 1
        if topic not in self._live and len(self._live) >= MOST_TOPICS:
            return
        seen = self._live.setdefault(topic, [])
        if not retained:
            seen.append(time.monotonic())
        try:
            document = read_payload(payload)
        except ValueError:
            return
        for path, value in _leaves(document, ""):
            if path.lower() in TIMES:
                self._time = path
            elif _is_number(value):
                self._paths.setdefault((topic, path), None)

    def heard(self, broker: BrokerSettings, seconds: float) -> Heard:
        if not self._paths:
            came = f"{self._messages} messages came, none with a number in it" if self._messages else "nothing came"
            raise SourceError(f"MQTT broker {broker.host}: {self._asked}: {came} in {seconds:g} s: is it the topic?")
        topics = {topic for topic, _ in self._paths}
        keys = Counter(_last(path) or topic.rpartition("/")[2] for topic, path in self._paths)
        channels: list[dict[str, Any]] = []
        for topic, path in self._paths:
            key = _last(path) or topic.rpartition("/")[2]
            if keys[key] > 1:
                key = f"{topic.rpartition('/')[2]} {path}"
            where = {"topic": topic} if topics != {self._asked} else {}
            name = free_name(name_of(key), [each["name"] for each in channels])
            channels.append({"name": name, **where, **({"path": path} if path else {})})
        rates = [(len(at) - 1) / (at[-1] - at[0]) for at in self._live.values() if len(at) >= FEW and at[-1] > at[0]]
        settings: dict[str, Any] = {"broker": broker.model_dump(mode="json", exclude_unset=True), "topic": self._asked}
        if self._time is not None:
            settings["time"] = self._time
        rate_hz = round_rate(max(rates)) if rates else None
        often = f"{rate_hz:g} a second" if rate_hz else "too few to tell their rate"
        told = f"{len(channels)} numbers on {len(topics)} topic{'s' * (len(topics) > 1)}, {often}"
        return Heard(told, settings, len(channels), tuple(channels), rate_hz)


def _leaves(document: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Path and value of all that is no object or list."""
    if isinstance(document, dict):
        for key, value in document.items():
            plain = re.fullmatch(r"[^\s.\[\]\"$\\]+", key) is not None
            quoted = '["' + re.sub(r'(["\\])', r"\\\1", key) + '"]'
            step = (f".{key}" if path else key) if plain else quoted if path else f"${quoted}"
            yield from _leaves(value, path + step)
    elif isinstance(document, list):
        for n, value in enumerate(document[:64]):
            yield from _leaves(value, f"{path}[{n}]" if path else f"$[{n}]")
    else:
        yield path, document


def _is_number(value: Any) -> bool:
    found = number_at(value, ())
    return found is not None and found == found  # noqa: PLR0124 - not NaN


def _last(path: str) -> str:
    """The last key of a path, for a name; with its index in a list.

    >>> _last("sensors[0].value"), _last("axes[2]")
    ('value', 'axes[2]')
    """
    return path.rpartition(".")[2].removeprefix("$")


def browse_opcua(url: str, timeout_s: float) -> Heard:
    """Looks through a server without security for variables that hold a number.

    Raises:
        SourceError: the extra is missing, the server cannot be reached, or has none.
    """
    try:
        from asyncua import ua  # noqa: PLC0415 - an extra
        from asyncua.sync import Client  # noqa: PLC0415
    except ImportError as error:
        raise SourceError("OPC UA needs the extra `opcua`: pip install '.[opcua]'") from error
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    numbers = {getattr(ua.VariantType, name) for name in ("Boolean", "SByte", "Byte", "Float", "Double")}
    numbers |= {getattr(ua.VariantType, f"{sign}Int{bits}") for sign in ("", "U") for bits in (16, 32, 64)}
    found: list[dict[str, Any]] = []
    try:
        with Client(url, timeout=timeout_s) as client:
            layer, seen = [client.nodes.objects], 0
            for _ in range(MOST_DEPTH):
                below = [child for node in layer for child in node.get_children() if child.nodeid.NamespaceIndex]
                for node in below[: MOST_NODES - seen]:
                    if node.read_node_class() == ua.NodeClass.Variable:
                        kind = node.read_data_type_as_variant_type()
                        if kind in numbers:
                            name = name_of(node.read_browse_name().Name)
                            name = free_name(name, [each["name"] for each in found])
                            found.append({"name": name, "node": node.nodeid.to_string()})
                seen += len(below)
                layer = below
                if not below or seen >= MOST_NODES:
                    break
    except Exception as error:
        said = str(error) or type(error).__name__
        raise SourceError(f"OPC UA server {url}: {said}: is it running, and the address right?") from error
    if not found:
        raise SourceError(f"OPC UA server {url}: no variable below Objects holds a number: name the nodes in the file")
    told = f"{len(found)} variables with a number" + (f", of the first {MOST_NODES} nodes" * (seen >= MOST_NODES))
    return Heard(told, {"url": url}, len(found), tuple(found), None)
