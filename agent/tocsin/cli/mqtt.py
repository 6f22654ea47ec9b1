"""`tocsin mqtt`: listen to what the agents publish."""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

import click

from tocsin.config import MqttSettings
from tocsin.config_file import load_settings
from tocsin.delivery.connection import Access, Closed, Connection, Event, Received, Subscribed
from tocsin.errors import BrokerError

_NAMED_CHANNELS = 3
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 8.0  # before the next attempt, when the broker has gone


@click.group()
def mqtt() -> None:
    """Listen to what the agents publish."""


def BROKER(command: Callable[..., None]) -> Callable[..., None]:
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
    if isinstance(payload, dict) and "severity" in payload:
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
