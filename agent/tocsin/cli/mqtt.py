"""`tocsin mqtt`: listen to what the agents publish, publish, and clean up."""

import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

import click

from tocsin.config import TOPIC_ID, MqttSettings
from tocsin.config_file import load_settings
from tocsin.delivery.connection import Access, Acknowledged, Closed, Connection, Event, Received, Subscribed
from tocsin.delivery.home_assistant import discovery_topic
from tocsin.delivery.wire import ONLINE
from tocsin.errors import BrokerError

_NAMED_CHANNELS = 3
_QUIET_S, _ANSWER_S = 1.0, 10.0
_FAILED = 0x80  # reason codes from here on
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 8.0  # before the next attempt, when the broker has gone


@click.group()
def mqtt() -> None:
    """Listen to what the agents publish, publish, and clean up."""


def BROKER(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name a broker: `path`, `host`, `port`."""
    for option in (
        click.option("--port", type=click.IntRange(1, 65535), help="Its port.  [default: 1883, with TLS 8883]"),
        click.option("--host", help="Name or address of the broker.  [default: localhost]"),
        click.option("-c", "--config", "path", type=click.Path(path_type=Path, dir_okay=False),
                     help="Take broker and prefix from here."),
    ):  # fmt: skip
        command = option(command)
    return command


def broker_settings(path: Path | None, host: str | None, port: int | None) -> tuple[MqttSettings, str | None]:
    """What the options name: the broker, and the device of the file.

    Raises:
        ConfigError: the file is not as it should be.
    """
    given = None if path is None else load_settings(path)
    settings = MqttSettings() if given is None else given.mqtt
    changes = {key: value for key, value in {"host": host, "port": port}.items() if value is not None}
    return settings.model_copy(update=changes), None if given is None else given.device


@mqtt.command()
@BROKER
@click.option("-t", "--topic", "topics", multiple=True, help="Filter, may be given again.  [default: <prefix>/#]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines: topic, payload, retain, qos.")
@click.option("-n", "--count", type=click.IntRange(1), help="Stop after that many messages.")
def sub(
    path: Path | None, host: str | None, port: int | None, topics: tuple[str, ...], as_json: bool, count: int | None
) -> None:
    """Print messages as they come, alarms as one line each.

    When the broker goes, it connects again as soon as it is back; retained messages then come again.

    \b
    Examples:
      tocsin mqtt sub -c /etc/tocsin/tocsin.yaml
      tocsin mqtt sub --host broker.local -t 'tocsin/+/event/alarm' --json
    """
    settings, _ = broker_settings(path, host, port)
    show = _as_json if as_json else readable
    filters = list(topics) or [f"{settings.prefix}/#"]
    signal.signal(signal.SIGTERM, _finish)
    signal.signal(signal.SIGINT, _interrupt)  # also where a shell started us with it ignored
    _listen(Access.read(settings), filters, count, lambda message: click.echo(show(message)))


@mqtt.command()
@click.argument("topic")
@click.argument("payload", default="-")
@click.option("-r", "--retain", is_flag=True, help="The broker keeps it as current state.")
@BROKER
def pub(path: Path | None, host: str | None, port: int | None, topic: str, payload: str, retain: bool) -> None:
    """Publish PAYLOAD on TOPIC, QoS 1; without PAYLOAD, or with -, what comes on standard input.

    It ends with 0 when the broker has taken it.

    \b
    Examples:
      tocsin mqtt pub tocsin/edge-1/cmd/ack pump-1-anomaly --host broker.local
      tocsin mqtt pub tocsin/edge-1/cmd/shelve -c tocsin.yaml < request.json
    """
    if not topic or set(topic) & set("+#\0"):
        raise click.UsageError(f"topic: expected one without + and #, got {topic!r}")
    body = sys.stdin.buffer.read() if payload == "-" else payload.encode()
    settings, _ = broker_settings(path, host, port)
    with opened(settings) as (connection, events, where):
        _publish(connection, events, where, topic, body, retain)


@mqtt.command()
@BROKER
@click.option("-d", "--device", help="Whose messages.  [default: that of --config]")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be taken back.")
@click.option(
    "--force", is_flag=True, help="Also while the device is online; it says them again when it connects anew."
)
def clean(
    path: Path | None, host: str | None, port: int | None, device: str | None, dry_run: bool, force: bool
) -> None:
    """Take back what the broker keeps of a device that is gone for good.

    That is all that is retained under <prefix>/<device>/, and what it told Home Assistant.

    \b
    Examples:
      tocsin mqtt clean --device edge-1 -c tocsin.yaml --dry-run
      tocsin mqtt clean --device edge-1 --host broker.local
    """
    settings, own = broker_settings(path, host, port)
    of = device or own
    if of is None or not re.fullmatch(TOPIC_ID, of):
        raise click.UsageError(f"which device? give --device with its id, or --config with its file; got {of!r}")
    found: dict[str, bytes] = {}
    with opened(settings) as (connection, events, where):
        filters = [f"{settings.prefix}/{of}/#", discovery_topic(settings.discovery_prefix, of)]
        connection.subscribe(filters)
        for event in until_quiet(events, where):
            if isinstance(event, Subscribed) and event.refused:
                raise BrokerError(f"{where} refuses {filters}: {event.refused[0]}: may this user read there?")
            if isinstance(event, Received) and event.retain and event.payload:
                found[event.topic] = event.payload
        if found.get(f"{settings.prefix}/{of}/status") == ONLINE.encode() and not (force or dry_run):
            raise BrokerError(f"{of} is online and would say it all again: stop it first, or give --force")
        for topic in sorted(found):
            click.echo(topic)
            if not dry_run:
                _publish(connection, events, where, topic, b"", retain=True)
    if not found:
        click.echo(f"the broker keeps nothing of {of}", err=True)


@contextmanager
def opened(settings: MqttSettings) -> Iterator[tuple[Connection, "SimpleQueue[Event]", str]]:
    """A connection, what happens on it, and where it leads."""
    access, events = Access.read(settings), SimpleQueue[Event]()
    connection = access.connect(f"tocsin-cli-{os.urandom(6).hex()}", events.put)
    try:
        yield connection, events, f"{access.host}:{access.port}"
    finally:
        connection.close()


def until_quiet(events: "SimpleQueue[Event]", where: str) -> Iterator[Event]:
    """What comes, until nothing has come for a second.

    Raises:
        BrokerError: the connection ended.
    """
    while True:
        try:
            event = events.get(timeout=_QUIET_S)
        except Empty:
            return
        if isinstance(event, Closed):
            raise BrokerError(f"{where}: the connection ended: {event.reason}")
        yield event


def _publish(
    connection: Connection, events: "SimpleQueue[Event]", where: str, topic: str, payload: bytes, retain: bool
) -> None:
    """Until the broker has taken it.

    Raises:
        BrokerError: it does not, or does not answer.
    """
    mid = connection.publish(topic, payload, 1, retain)
    end_s = time.monotonic() + _ANSWER_S
    while (left_s := end_s - time.monotonic()) > 0:
        try:
            event = events.get(timeout=left_s)
        except Empty:
            break
        if isinstance(event, Closed):
            raise BrokerError(f"{where}: the connection ended: {event.reason}")
        if isinstance(event, Acknowledged) and event.mid == mid:
            if event.code >= _FAILED:
                raise BrokerError(f"{where} refuses {topic}: {event.reason}: may this user write there?")
            return
    raise BrokerError(f"{where}: no answer within {_ANSWER_S:g} s")


def _finish(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _listen(access: Access, filters: list[str], count: int | None, show: Callable[[Received], None]) -> None:
    """Shows what comes, until `count` messages did; connects again when the broker goes.

    Raises:
        BrokerError: it cannot be reached at the start, refuses this client or all of the filters.
    """
    where, shown, delay_s, last_error = f"{access.host}:{access.port}", 0, 0.0, ""
    while count is None or shown < count:
        events: SimpleQueue[Event] = SimpleQueue()
        try:
            connection = access.connect(f"tocsin-sub-{os.urandom(6).hex()}", events.put)
        except BrokerError as error:
            if not delay_s:
                raise
            if str(error) != last_error:
                click.echo(f"{error}; trying again", err=True)
            last_error = str(error)
            delay_s = _wait(delay_s)
            continue
        try:
            for message in _messages(connection, events, filters, where):
                show(message)
                shown += 1
                if shown == count:
                    return
        finally:
            connection.close()
        delay_s, last_error = _wait(_FIRST_DELAY_S), ""


def _wait(delay_s: float) -> float:
    """Sleeps; the next delay."""
    time.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients, hides nothing
    return min(2 * delay_s, _LONGEST_DELAY_S)


def _messages(
    connection: Connection, events: "SimpleQueue[Event]", filters: list[str], where: str
) -> Iterator[Received]:
    """The messages of a connection, until it ends."""
    connection.subscribe(filters)
    while not isinstance(event := events.get(), Closed):
        if isinstance(event, Received):
            yield event
        if isinstance(event, Subscribed):
            if len(event.refused) == len(filters):
                raise BrokerError(
                    f"{where} refuses {', '.join(filters)}: {event.refused[0]}: may this user read there?"
                )
            click.echo(f"listening to {', '.join(filters)} at {where}; stop with Ctrl-C", err=True)
            for reason in event.refused:
                click.echo(f"{where} refuses one of them: {reason}", err=True)
    click.echo(f"{where}: the connection ended: {event.reason}; trying again", err=True)


def readable(message: Received) -> str:
    """One line for a person: an alarm as a sentence, anything else as it is.

    >>> readable(Received("tocsin/edge-1/status", b"online", 1, True))
    'tocsin/edge-1/status online'
    """
    payload = decoded(message.payload)
    if isinstance(payload, dict) and isinstance(payload.get("after"), dict):
        return _alarm_line(payload["after"], str(payload.get("type", "")), bool(payload.get("replayed")))
    if isinstance(payload, dict) and isinstance(payload.get("alarms"), list) and "count" in payload:
        return _flood_lines(payload)
    if isinstance(payload, dict) and "severity" in payload and "state" in payload:
        return _alarm_line(payload, str(payload.get("state", "")), bool(payload.get("replayed")))
    text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
    return f"{message.topic} {text or '(gone)'}"


def _alarm_line(alarm: dict[str, Any], what: str, replayed: bool) -> str:
    parts = [part for part in alarm.get("contributions") or [] if isinstance(part, dict)][:_NAMED_CHANNELS]
    channels = ", ".join(f"{part.get('channel')} {_percent(part.get('share'))}" for part in parts)
    words = [
        *(str(alarm.get(key, "?")) for key in ("time", "severity", "asset")),
        what.upper(),
        str(alarm.get("text", "")),
        *([] if alarm.get("ratio") is None else [f"ratio {alarm['ratio']}"]),
    ]
    tail = f" [{channels}]" if channels else ""
    return " ".join(words) + tail + (" (replayed)" if replayed else "")


def _flood_lines(flood: dict[str, Any]) -> str:
    """How many, and each of them on a line of its own, at its end the sentence alone."""
    what = "FLOOD" if flood.get("type") == "begin" else "FLOOD OVER"
    lines = [f"{flood.get('time', '?')} {what} {flood.get('text', '')}"]
    if flood.get("type") == "begin":
        alarms = [alarm for alarm in flood["alarms"] if isinstance(alarm, dict)]
        lines += [" ".join(["  ", *(str(one.get(key, "?")) for key in ("time", "severity", "text"))]) for one in alarms]
    return "\n".join(lines)


def _percent(share: Any) -> str:
    return f"{share:.0%}" if isinstance(share, int | float) else "?"


def _as_json(message: Received) -> str:
    form = {
        "topic": message.topic,
        "payload": decoded(message.payload),
        "retain": message.retain,
        "qos": message.qos,
    }
    return json.dumps(form, ensure_ascii=False)


def decoded(payload: bytes) -> Any:
    """JSON where it is JSON, else text."""
    text = payload.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
