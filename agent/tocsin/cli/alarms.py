"""`tocsin alarms`: what calls, and what people do about it, over the broker."""

import getpass
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import click

from tocsin.alarms.commands import ALL
from tocsin.cli.alarm_report import report
from tocsin.cli.mqtt import BROKER, broker_settings, decoded
from tocsin.delivery.connection import Access, Closed, Connection, Event, Received, Subscribed
from tocsin.errors import BrokerError, TocsinError

SETTLE_S = 1.0  # a broker sends all that it keeps right after a subscription
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
DEVICE = click.option("-d", "--device", help="The agent's device id.  [default: that of --config, else any for `list`]")
ALARM = click.argument("alarm")


class RefusedError(TocsinError):
    """The device did not do it."""


@click.group()
def alarms() -> None:
    """List alarms; acknowledge, shelve and suppress them, over the broker; report their figures.

    The agent must be connected, and its `mqtt.commands` allow what is asked.
    """


class Link:
    """A connection to the broker that asks and listens."""

    def __init__(self, connection: Connection, events: "SimpleQueue[Event]", where: str) -> None:
        self._connection, self._events, self._where = connection, events, where

    def subscribe(self, topics: list[str], timeout_s: float) -> None:
        """Until the broker has agreed.

        Raises:
            BrokerError: it does not.
        """
        self._connection.subscribe(topics)
        for event in self._until(timeout_s):
            if isinstance(event, Subscribed):
                if event.refused:
                    raise BrokerError(
                        f"{self._where} refuses {topics[0]}: {event.refused[0]}: may this user read there?"
                    )
                return
        raise BrokerError(f"{self._where}: no answer within {timeout_s:g} s")

    def messages(self, timeout_s: float) -> Iterator[Received]:
        """What comes until then."""
        for event in self._until(timeout_s):
            if isinstance(event, Received):
                yield event

    def publish(self, topic: str, payload: str) -> None:
        """QoS 1, not retained."""
        self._connection.publish(topic, payload, 1, False)

    def _until(self, timeout_s: float) -> Iterator[Event]:
        end_s = time.monotonic() + timeout_s
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                event = self._events.get(timeout=left_s)
            except Empty:
                return
            if isinstance(event, Closed):
                raise BrokerError(f"{self._where}: the connection ended: {event.reason}")
            yield event


@contextmanager
def _linked(access: Access) -> Iterator[Link]:
    events: SimpleQueue[Event] = SimpleQueue()
    connection = access.connect(f"tocsin-alarms-{os.urandom(6).hex()}", events.put)
    try:
        yield Link(connection, events, f"{access.host}:{access.port}")
    finally:
        connection.close()


@alarms.command(name="list")
@BROKER
@DEVICE
@JSON
def list_(path: Path | None, host: str | None, port: int | None, device: str | None, as_json: bool) -> None:
    """Every alarm that is not normal, the newest last.

    \b
    Examples:
      tocsin alarms list -c tocsin.yaml
      tocsin alarms list --host broker.local --device edge-1 --json
    """
    settings, own = broker_settings(path, host, port)
    of = device or own or "+"
    standing: dict[str, dict[str, Any]] = {}
    with _linked(Access.read(settings)) as link:
        link.subscribe([f"{settings.prefix}/{of}/alarm/+"], 10.0)
        for message in link.messages(SETTLE_S):
            body = decoded(message.payload)
            if isinstance(body, dict):
                standing[message.topic] = body | {"device": message.topic.split("/")[-3]}
            else:
                standing.pop(message.topic, None)  # it ended just now
    found = sorted(standing.values(), key=lambda body: str(body.get("time")))
    if as_json:
        click.echo(json.dumps({"alarms": found}, ensure_ascii=False, indent=1))
        return
    for body in found:
        words = (body.get(key) for key in ("time", "severity", "state", "device", "alarm"))
        click.echo("  ".join(f"{word or '?':<12}" for word in words) + f"  {body.get('text', '')}")
    if not found:
        click.echo("no alarms", err=True)


def _asks(name: str, about: str, example: str, with_time: bool = False) -> Callable[..., None]:
    """One command that asks the device for something about an alarm."""

    def ask(
        alarm: str,
        path: Path | None,
        host: str | None,
        port: int | None,
        device: str | None,
        by: str,
        comment: str | None,
        timeout: float,
        as_json: bool,
        group: str | None,
        for_: str | None = None,
    ) -> None:
        settings, own = broker_settings(path, host, port)
        to = device or own
        if to is None and group is None:
            raise click.UsageError("which device? give --device, or --config with the agent's file; or --group")
        request = {"transaction": os.urandom(8).hex(), "alarm": alarm, "by": by, "comment": comment, "for": for_}
        form = {key: value for key, value in request.items() if value is not None}
        access, prefix = Access.read(settings), settings.prefix
        if group is None:
            replies = {str(to): _reply(access, f"{prefix}/{to}", name, form, timeout)}
        else:
            replies = _replies(access, prefix, group, name, form, timeout)
        refused = []
        for one, reply in replies.items():
            if as_json:
                click.echo(json.dumps({"device": one} | reply, ensure_ascii=False))
            error = reply.get("error")
            if isinstance(error, dict):
                refused.append(f"{one}: {error.get('code')}: {error.get('text')}")
            elif not as_json:
                _tell(reply["data"]["alarms"], "" if group is None else f"{one}: ")
        if refused:
            raise RefusedError("\n".join(refused))

    ask.__doc__ = f"{about}\n\n\\b\nExample:\n  tocsin alarms {example}\n"
    made = JSON(ask)
    made = click.option("--timeout", type=click.FloatRange(0.1, 600), default=10.0, show_default=True,
                        help="Seconds to wait for the device's reply.")(made)  # fmt: skip
    made = click.option("--comment", help="Goes with the alarm and into the audit.")(made)
    made = click.option("--by", default=_me, help="Who asks, for the audit.  [default: user@host]")(made)
    made = click.option("-g", "--group", help="Ask every device of this group, or of `all`.")(made)
    if with_time:
        made = click.option("--for", "for_", required=True, metavar="TIME", help="How long: 30min, 8h, …")(made)
    return alarms.command(name=name.replace("_", "-"))(ALARM(BROKER(DEVICE(made))))


def _me() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"[:64]


def _tell(states: dict[str, str], of: str) -> None:
    for one, state in states.items():
        click.echo(f"{of}{one} is {state}")
    if not states:
        click.echo(f"{of}no alarm waits for it")


def _reply(access: Access, device: str, name: str, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """What the device says to a request; an acknowledgement is of the occurrence that the broker shows now.

    Raises:
        BrokerError: nothing came in time.
    """
    with _linked(access) as link:
        shown = f"{device}/alarm/{request['alarm']}"
        if name == "ack" and request["alarm"] != ALL:
            link.subscribe([shown], timeout_s)
            seen = next((decoded(one.payload) for one in link.messages(SETTLE_S) if one.topic == shown), None)
            if isinstance(seen, dict) and isinstance(seen.get("id"), str):
                request = request | {"id": seen["id"]}
        for _, reply in _asked(link, f"{device}/cmd/{name}", f"{device}/cmd/{name}/result", request, timeout_s):
            return reply
    raise BrokerError(
        f"{device}/cmd/{name}: no reply within {timeout_s:g} s: is the device connected (tocsin mqtt sub -t "
        f"{device}/status), and does the broker let this user publish there? A device that is away does it when it is "
        "back, if `mqtt.commands_kept` says so; tocsin alarms list tells"
    )


def _replies(
    access: Access, prefix: str, group: str, name: str, request: dict[str, Any], timeout_s: float
) -> dict[str, dict[str, Any]]:
    """What each device of a group says within the time.

    Raises:
        BrokerError: none of them said anything.
    """
    with _linked(access) as link:
        results, topic = f"{prefix}/+/cmd/{name}/result", f"{prefix}/_group/{group}/cmd/{name}"
        came = {of.split("/")[-4]: reply for of, reply in _asked(link, topic, results, request, timeout_s)}
    if not came:
        raise BrokerError(
            f"{topic}: no reply within {timeout_s:g} s: is a device of that group (`mqtt.groups`) connected, and does "
            "the broker let this user publish there?"
        )
    return came


def _asked(
    link: Link, topic: str, results: str, request: dict[str, Any], timeout_s: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Publishes a request; topics and replies as they come, until the time is over."""
    link.subscribe([results], timeout_s)
    link.publish(topic, json.dumps(request))
    for message in link.messages(timeout_s):
        reply = decoded(message.payload)
        if isinstance(reply, dict) and reply.get("transaction") == request["transaction"]:
            yield message.topic, reply


_HERE = "pump-1-anomaly -c tocsin.yaml"
_asks("ack", "Acknowledge an alarm, or `all` that wait for it.", f"ack {_HERE} --comment 'on my way'")
_asks("shelve", "Keep an alarm from calling for a while.", f"shelve {_HERE} --for 8h", with_time=True)
_asks("unshelve", "Take an alarm off the shelf.", f"unshelve {_HERE}")
_asks("suppress", "Keep an alarm from calling until it is unsuppressed.", f"suppress {_HERE}")
_asks("unsuppress", "Let a suppressed alarm call again.", f"unsuppress {_HERE}")
_asks("out_of_service", "Take an alarm out of service, for maintenance.", f"out-of-service {_HERE}")
_asks("in_service", "Put an alarm back into service.", f"in-service {_HERE}")


alarms.add_command(report)
