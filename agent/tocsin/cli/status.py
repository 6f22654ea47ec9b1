"""`tocsin status`: how the devices of a broker fare, on one screen."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from tocsin.cli.mqtt import BROKER, broker_settings, decoded, opened, until_quiet
from tocsin.delivery.connection import Received, Subscribed
from tocsin.delivery.wire import ONLINE
from tocsin.errors import BrokerError

NOT_WELL, IN_ALARM = 1, 8

Device = dict[str, Any]


@click.command()
@BROKER
@click.option("-d", "--device", help="One device only.  [default: all that the broker knows]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(path: Path | None, host: str | None, port: int | None, device: str | None, as_json: bool) -> int:
    """How the devices fare: online, well, their sources, and what is in alarm.

    It ends with 0 when all are online and well and nothing is in alarm, with 8 when something is in alarm, with 1 when
    a device is away or not well.

    \b
    Examples:
      tocsin status --host broker.local
      tocsin status -c tocsin.yaml --device edge-1 --json
    """
    settings, _ = broker_settings(path, host, port)
    of = device or "+"
    filters = [f"{settings.prefix}/{of}/{tail}" for tail in ("status", "info", "health", "alarm/+")]
    devices: dict[str, Device] = {}
    with opened(settings) as (connection, events, where):
        connection.subscribe(filters)
        for event in until_quiet(events, where):
            if isinstance(event, Subscribed) and event.refused:
                raise BrokerError(f"{where} refuses {filters[0]}: {event.refused[0]}: may this user read there?")
            if isinstance(event, Received):
                _note(devices, event.topic.removeprefix(f"{settings.prefix}/"), decoded(event.payload))
    if device is not None and device not in devices:
        raise BrokerError(f"{where} knows no device {device!r}: is its id right, and was it ever connected there?")
    if as_json:
        click.echo(json.dumps(devices, ensure_ascii=False, indent=1))
    else:
        for name in sorted(devices):
            click.echo("\n".join(_lines(name, devices[name])))
    if not devices:
        click.echo("the broker knows no device", err=True)
    well = all(one["status"] == ONLINE and one["health"].get("status", "ok") == "ok" for one in devices.values())
    on = any(alarm.get("active") for one in devices.values() for alarm in one["alarms"].values())
    return NOT_WELL if not well else IN_ALARM if on else 0


def _note(devices: dict[str, Device], topic: str, payload: Any) -> None:
    name, _, tail = topic.partition("/")
    one = devices.setdefault(name, {"status": "unknown", "info": {}, "health": {}, "alarms": {}})
    if tail.startswith("alarm/"):
        alarm = tail.removeprefix("alarm/")
        if isinstance(payload, dict):
            one["alarms"][alarm] = payload
        else:
            one["alarms"].pop(alarm, None)  # it ended just now
    elif tail == "status":
        one["status"] = str(payload)
    elif isinstance(payload, dict):
        one[tail] = payload


def _lines(name: str, one: Device) -> list[str]:
    info, health = one["info"], one["health"]
    agent, hw = info.get("agent") or {}, info.get("hw") or {}
    words = [f"{name:<20} {one['status']}"]
    words += [f"tocsin {agent['version']}"] if "version" in agent else []
    words += [hw["model"]] if hw.get("model") else []
    if health:
        words.append(f"{health.get('status', '?')}{_age(health.get('time'))}")
        words += [f"{health['outbox_depth']} messages wait"] if health.get("outbox_depth") else []
    lines = [", ".join(words)]
    for asset, source in sorted((health.get("sources") or {}).items()):
        rate = f", {source['rate_hz']:g} Hz" if source.get("rate_hz") else ""
        error = f": {source['last_error']}" if source.get("last_error") else ""
        lines.append(f"  {asset:<18} source {source.get('state', '?')}{rate}{error}")
    for alarm, body in sorted(one["alarms"].items()):
        lines.append(f"  {alarm:<18} {body.get('severity', '?')} {body.get('state', '?')}: {body.get('text', '')}")
    return lines


def _age(text: str | None) -> str:
    try:
        age_s = time.time() - datetime.fromisoformat(text or "").timestamp()
    except ValueError:
        return ""
    return f" {age_s:.0f} s ago" if 0 <= age_s < 7200 else f" at {text}"
