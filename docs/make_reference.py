"""Writes the reference pages that are made from the code: `python docs/make_reference.py`.

With `--check` it writes nothing, and ends with 1 and the differences where a page is not what it would write.

```
click's commands            ─► reference/commands.md
tocsin.config               ─► configure/settings.md
tocsin.delivery.wire        ─► reference/messages.md, reference/schema/*.json, reference/asyncapi.json
tocsin.alarms.lifecycle     ─► reference/alarm-states.md
tocsin.monitoring.metrics   ─► reference/metrics.md
tocsin_trainer.metrics_file ─► reference/schema/metrics.json
```
"""

import difflib
import json
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
from pydantic.json_schema import models_json_schema

import tocsin
from tocsin.alarms.alarm import AlarmState
from tocsin.alarms.lifecycle import BACK, TABLE
from tocsin.cli.main import cli
from tocsin.config import AgentSettings
from tocsin.delivery.requests import AlarmRequest, Reply, ShelveRequest
from tocsin.delivery.wire import (
    OFFLINE,
    ONLINE,
    STOPPED,
    AlarmBody,
    AlarmEvent,
    AlarmMessage,
    AuditEvent,
    Data,
    DataMeta,
    EventAck,
    FloodEvent,
    Health,
    Info,
    JobState,
    Score,
    SettingState,
    UpdateState,
    Wire,
)
from tocsin.monitoring.metrics import GROUPS
from tocsin_trainer.metrics_file import schema

DOCS = Path(__file__).parent
WIDTH = 110
MADE = "<!-- made by docs/make_reference.py: change the code instead -->\n"


class Message(NamedTuple):
    """One kind of payload: its model, its topic under <prefix>/<device>/, how it is sent."""

    model: type[Wire]
    topic: str
    how: str
    qos: int = 1
    retained: bool = False
    to_device: bool = False


MESSAGES = {
    "alarm-event": Message(AlarmEvent, "event/alarm", "through the outbox; one at every change of an alarm"),
    "audit-event": Message(AuditEvent, "event/audit", "through the outbox; one for each command, shelf that ends, …"),
    "flood-event": Message(FloodEvent, "event/flood", "through the outbox; once when many alarms begin, once after"),
    "alarm": Message(
        AlarmMessage, "alarm/{alarm}", "through the outbox; empty when the alarm has ended", retained=True
    ),
    "score": Message(Score, "score/{asset}", "only while connected; one for each window", qos=0),
    "data": Message(Data, "data/{asset}", "only while connected; every `mqtt.data_interval`, where that is set", qos=0),
    "data-meta": Message(DataMeta, "data/{asset}/meta", "where `mqtt.data_interval` is set", retained=True),
    "info": Message(Info, "info", "at every connect", retained=True),
    "health": Message(Health, "health", "every `mqtt.health_interval_s`", retained=True),
    "update": Message(UpdateState, "update/{asset}", "of assets with a `product`", retained=True),
    "job": Message(JobState, "job/{job}", "at every state of an update", retained=True),
    "setting-state": Message(
        SettingState,
        "state/{setting}",
        "where `mqtt.settings` names it; set by its bare value on `set/<setting>`",
        retained=True,
    ),
    "request": Message(
        AlarmRequest, "cmd/{command}", "to the device: `ack`, `unshelve`, `suppress`, …", to_device=True
    ),
    "shelve-request": Message(ShelveRequest, "cmd/shelve", "to the device", to_device=True),
    "event-ack": Message(EventAck, "ack/events", "to the device, with `mqtt.delivery: end_to_end`", to_device=True),
    "reply": Message(Reply, "cmd/{command}/result", "also on the response topic of MQTT 5, with its correlation data"),
}
PARAMETERS = {  # of addresses
    "prefix": "`mqtt.prefix`, `tocsin` where nothing else is set; may have levels",
    "device": "its id",
    "alarm": "id of a condition, for instance `pump-1-anomaly`",
    "asset": "its id",
    "job": "id of an update",
    "setting": "detection or sensitivity",
    "command": "ack, unshelve, suppress, unsuppress, out_of_service, in_service or identify",
    "group": "one of `mqtt.groups`, or `all`",
}
MEANING = {  # what the schema leaves unsaid
    "mqtt.username": "name at the broker",
    "mqtt.health_interval_s": "between two messages on `health`",
    "mqtt.keepalive_s": "after so long a silence the connection counts as broken",
    "assets[].source.rate_hz": "samples a second",
    "assets[].alarm.clear_ratio": "part of the limit, 0 to 1",
    "assets[].source": "where its samples come from: `type:` and the keys of [that type](sources.md), below",
    "sparkplug.broker.username": "name at the broker",
    "sparkplug.broker.keepalive_s": "after so long a silence the connection counts as broken",
    "assets[].source.broker.username": "name at the broker",
    "assets[].source.broker.keepalive_s": "after so long a silence the connection counts as broken",
    "assets[].sources": "instead of `source`: one for each rate group of the bundle, by the group's name",
    "assets[].severity": "of this asset's alarms",
}
TITLES = {
    "mqtt": "The broker",
    "sparkplug": "Sparkplug B, off when left out",
    "alarms": "Alarms of the device",
    "recording": "Recording, off when left out",
    "update": "Models over the air, none when left out",
    "http": "HTTP, off when left out",
}
OPENED = {  # keys that only hold others
    "recording",
    "update",
    "http",
    "mqtt",
    "alarms",
    "mqtt.tls",
    "sparkplug",
    "sparkplug.broker",
    "sparkplug.broker.tls",
    "assets",
    "assets[].source",
    "assets[].alarm",
    "assets[].quality",
}
LISTS = {
    "assets[].quality.channels": "A channel's sensor, `quality.channels:` of an asset",
    "assets[].rules": "A rule, `rules:` of an asset",
}


def pages() -> dict[str, str]:
    """Every page by its path under docs/."""
    made = {
        "reference/commands.md": commands(),
        "configure/settings.md": settings(),
        "reference/messages.md": messages(),
        "reference/alarm-states.md": alarm_states(),
        "reference/metrics.md": metrics(),
    }
    for name, message in MESSAGES.items():
        made[f"reference/schema/{name}.json"] = _json(message.model.model_json_schema(by_alias=True))
    made["reference/asyncapi.json"] = _json(asyncapi())
    made["reference/schema/metrics.json"] = _json(schema())
    return made


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def commands() -> str:
    """What `--help` says of every command."""
    parts = [f"{MADE}# Commands\n\nWhat `--help` says. Exit codes stand [in the reference](index.md#exit-codes).\n"]
    for path, command in _walk(cli, ("tocsin",)):
        parts.append(f"## {' '.join(path)}\n\n```text\n{help_text(path, command)}\n```\n")
    return "\n".join(parts)


def help_text(path: tuple[str, ...], command: click.Command) -> str:
    """One command's help, at a fixed width."""
    context: click.Context | None = None
    for name in path[:-1]:
        context = click.Context(cli, context, info_name=name)
    own = click.Context(command, context, info_name=path[-1], terminal_width=WIDTH, max_content_width=WIDTH,
                        help_option_names=cli.context_settings["help_option_names"])  # fmt: skip
    return "\n".join(line.rstrip() for line in command.get_help(own).splitlines())


def _walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _walk(inner, (*path, name))


def settings() -> str:
    """Every key of the agent's YAML with its default."""
    whole = AgentSettings.model_json_schema()
    sections: dict[str, list[str]] = {}
    for title, key, form, required in _keys(whole, whole, "", "The agent"):
        shown, default = key.removeprefix("assets[].source."), _default(key, form, required)
        meaning = MEANING.get(key) or form.get("description", "")
        sections.setdefault(title, []).append(f"| `{shown}` | {_kind(form, whole)} | {default} | {_cell(meaning)} |")
    text = f"{MADE}# Settings\n\nAll keys of the agent's YAML. What has no default must be given.\n"
    for title, rows in sections.items():
        text += f"\n## {title}\n\n| key | is | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    return text


def _keys(
    node: dict[str, Any], whole: dict[str, Any], under: str, title: str
) -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """(section, dotted key, schema, required) of every key below a node."""
    for name, form in node.get("properties", {}).items():
        key = f"{under}.{name}" if under else name
        if key == "assets":
            yield from _keys(_resolved(form["items"], whole), whole, "assets[]", "An asset, `assets:`")
        elif key == "assets[].source":
            yield title, key, {"type": "object", "default": None}, False
            for kind, reference in form["anyOf"][0]["discriminator"]["mapping"].items():  # the other one is null
                chosen = _resolved({"$ref": reference}, whole)
                yield from _keys(chosen, whole, key, f"A source of `type: {kind}`")
        elif key in OPENED:
            yield from _keys(_resolved(form, whole), whole, key, title if under else f"{TITLES[name]}, `{name}:`")
        elif key in ("assets[].source.broker", "assets[].source.broker.tls"):
            yield from _keys(_resolved(form, whole), whole, key, title)
        elif key.startswith("assets[].source.") and "$ref" in form.get("items", {}):  # a list of settings
            yield from _keys(_resolved(form["items"], whole), whole, f"{key}[]", title)
        elif key in LISTS:
            yield from _keys(_resolved(form["items"], whole), whole, f"{key}[]", LISTS[key])
        elif not (under == "assets[].source" and name == "type"):
            yield title, key, form, name in node.get("required", [])


def _resolved(form: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    for option in form.get("anyOf", []):
        if "$ref" in option:
            form = option
    return whole["$defs"][form["$ref"].rpartition("/")[2]] if "$ref" in form else form


def _kind(form: dict[str, Any], whole: dict[str, Any]) -> str:
    """The JSON Schema's type in a word or two."""
    if "$ref" in form:
        return "name and unit"
    if "anyOf" in form:
        kinds = [_kind(option, whole) for option in form["anyOf"] if option.get("type") != "null"]
        return "duration" if kinds == ["number", "text"] else " or ".join(dict.fromkeys(kinds))
    if form.get("type") == "array":
        return f"list of {_kind(form['items'], whole)}"
    return "path" if form.get("format") == "path" else _plain_kind(form)


def _plain_kind(form: dict[str, Any]) -> str:
    values = form.get("enum") or ([form["const"]] if "const" in form else [])
    if values:
        return " or ".join(f"`{value}`" for value in values)
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "null": "null",
        "object": "sources by name" if "additionalProperties" in form else "keys and values",
    }
    return words[str(form["type"])]


def _default(key: str, form: dict[str, Any], required: bool) -> str:
    if required:
        return ""
    value = form.get("default")
    if value is None:
        return "as the bundle says" if key.startswith("assets[].alarm") else "found" if "default" not in form else "–"
    return f"`{json.dumps(value)}`" if value != "" else "empty"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def metrics() -> str:
    """Every figure of `/metrics`."""
    text = f"""{MADE}# Metrics

What an agent with [`http:`](../operate/metrics.md) serves at `/metrics`. Counters begin at 0 with the process where
nothing else is said. A figure that is not known has no line. An asset's `source` is its own name, or `<asset>/<group>`.
"""
    for title, group in GROUPS.items():
        rows = (
            f"| `{one.name}` | {one.kind} | {', '.join(f'`{name}`' for name in one.labels)} | {_cell(one.meaning)} |"
            for one in group
        )
        text += f"\n## {title}\n\n| metric | is a | labels | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    return text


def messages() -> str:
    """Topics, and the keys of each payload."""
    text = f"""{MADE}# Topics and payloads

Everything stands under `<prefix>/<device>/`, the prefix being `tocsin` where the settings do not say otherwise.
Payloads are UTF-8 JSON, but for `status`. Times are RFC 3339, UTC, with milliseconds and `Z`. Numbers are finite: what
cannot be is `null`.

| topic | payload | sent |
|---|---|---|
| `status` | `online`, `stopped` or `offline`, plain text | QoS 1, retained; `offline` is the will |
"""
    for name, message in MESSAGES.items():
        retained = ", retained" if message.retained else ""
        text += (
            f"| `{_topic(message)}` | [{name}](#{name}), [JSON Schema](schema/{name}.json) "
            f"| QoS {message.qos}{retained}; {message.how} |\n"
        )
    text += """
The same for programs: [AsyncAPI 3](asyncapi.json). What goes to the device must not be retained; a group's devices hear
commands on `<prefix>/_group/<group>/cmd/<command>` too.

What went through the outbox carries `schema`, `boot`, `seq` and `replayed`. Delivery is at least once: drop what has
the same (`device`, `boot`, `seq`) as something before.
"""
    body = set(AlarmBody.model_json_schema(by_alias=True)["properties"])
    for name, message in MESSAGES.items():
        text += f"\n## {name}\n\n`<prefix>/<device>/{_topic(message)}`\n\n"
        of_alarm = issubclass(message.model, AlarmBody)
        if of_alarm:
            text += "The keys of [AlarmBody](#alarmbody), and these:\n\n"
        text += _table(message.model.model_json_schema(by_alias=True), body if of_alarm else set())
    parts: dict[str, dict[str, Any]] = {}
    for message in MESSAGES.values():
        forms = message.model.model_json_schema(by_alias=True).get("$defs", {})
        parts |= {name: form for name, form in forms.items() if "properties" in form}
    text += "\n## Parts\n"
    for name in sorted(parts):
        text += f"\n### {name}\n\n{_table(parts[name])}"
    return text


def _topic(message: Message) -> str:
    return re.sub(r"{(\w+)}", r"<\1>", message.topic)


def asyncapi() -> dict[str, Any]:
    """The whole API as an AsyncAPI 3.0 document, from the same models."""
    models = [(message.model, "validation") for message in MESSAGES.values()]
    forms, parts = models_json_schema(models, by_alias=True, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    addresses = {name: f"{{prefix}}/{{device}}/{message.topic}" for name, message in MESSAGES.items()}
    messages: dict[str, Any] = {
        name: {
            "title": message.model.__name__,
            "contentType": "application/json",
            "payload": forms[(message.model, "validation")],
        }
        for name, message in MESSAGES.items()
    }
    status = {"type": "string", "enum": [ONLINE, STOPPED, OFFLINE], "description": "offline is the will"}
    messages["status"] = {"title": "Status", "contentType": "text/plain", "payload": status}
    addresses["status"] = "{prefix}/{device}/status"
    channels = {name: _channel(address, name) for name, address in addresses.items()}
    channels["group-request"] = _channel("{prefix}/_group/{group}/cmd/{command}", "request", "shelve-request")
    operations = {name: _operation(name, message) for name, message in MESSAGES.items() if name != "reply"}
    operations["status"] = _operation("status", Message(Wire, "status", "at every connect and end", retained=True))
    operations["group-request"] = _operation("group-request", MESSAGES["request"])
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tocsin",
            "version": tocsin.__version__,
            "description": "What a device says and hears over MQTT. Made by docs/make_reference.py.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": parts["$defs"]},
    }


def _channel(address: str, *messages: str) -> dict[str, Any]:
    parameters = {name: {"description": PARAMETERS[name]} for name in re.findall(r"{(\w+)}", address)}
    return {
        "address": address,
        "parameters": parameters,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }


def _operation(name: str, message: Message) -> dict[str, Any]:
    """What the device does: it sends, or receives and, where it is a command, replies."""
    operation: dict[str, Any] = {
        "action": "receive" if message.to_device else "send",
        "summary": message.how,
        "channel": {"$ref": f"#/channels/{name}"},
        "bindings": {"mqtt": {"qos": message.qos, "retain": message.retained, "bindingVersion": "0.2.0"}},
    }
    if "request" in name:
        operation["reply"] = {"channel": {"$ref": "#/channels/reply"}}
    return operation


def alarm_states() -> str:
    """The table of states, as the agent goes by it."""
    text = f"""{MADE}# States of an alarm

A column is the state before, a row what happens, a cell the state after; an empty cell: nothing changes. States are
those of ANSI/ISA-18.2. How to work with alarms: [operate](../operate/alarms.md).

| | {" | ".join(f"`{state}`" for state in AlarmState)} |
|---|{"---|" * len(AlarmState)}
"""
    for event, row in TABLE.items():
        cells = ["" if row[state] is None else "*back*" if row[state] == BACK else str(row[state]) for state in row]
        text += f"| {event} | {' | '.join(cells)} |\n"
    return f"""{text}
*back*: to what still holds it back, out of service before suppressed before shelved; where nothing does, `unacked`
while its condition is on, else `latched` where it was, else `normal`.

| | besides |
|---|---|
| any, from `normal` | an occurrence begins: a new `id`, `event/alarm` of type `new` |
| any, to `normal` | it ends: `end`, and an empty `alarm/<alarm>` |
| raise | `count` + 1; where it was on `flaps` + 1, and no event; sentence, scores, channels: of the newest raise |
| clear | `cleared`; the condition is followed also while it is held back |
| ack | `acked_at`, `acked_by`; forgotten when it leaves `acked` for anything but `normal` |
| re_alarm | an acknowledged alarm has been on for `re_alarm_after` |
| step_up, step_down | by `alarm.steps`: `severity`, `ratio`; one that becomes more severe calls again |
| unshelve | by a command, or by the clock |
| suppressor on, off | an alarm of `suppressed_by` begins, ends |
| retire | its asset or rule was taken out of the configuration |
"""


def _table(schema: dict[str, Any], without: Collection[str] = ()) -> str:
    rows = [
        f"| `{key}` | {_wire_kind(form)} | {_cell(form.get('description', ''))} |"
        for key, form in schema["properties"].items()
        if key not in without
    ]
    return "| key | is | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _wire_kind(form: dict[str, Any]) -> str:
    if "$ref" in form:
        name = form["$ref"].rpartition("/")[2]
        return _plain_kind({"enum": VALUES[name]}) if name in VALUES else f"[{name}](#{name.lower()})"
    if "anyOf" in form:
        return " or ".join(_wire_kind(option) for option in form["anyOf"])
    if "prefixItems" in form:
        return f"list of {', '.join(_wire_kind(item) for item in form['prefixItems'])}"
    if form.get("type") == "array":
        return f"list of {_wire_kind(form['items'])}"
    if form.get("type") == "object":
        return f"object: name → {_wire_kind(form['additionalProperties'])}"
    return "time" if "pattern" in form else _plain_kind(form)


VALUES: dict[str, list[str]] = {  # enumerations of the alarms' payload
    name: form["enum"] for name, form in AlarmEvent.model_json_schema()["$defs"].items() if "enum" in form
}


def write() -> None:
    """Writes every page."""
    for name, text in pages().items():
        path = DOCS / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")


def differences() -> str:
    """Of the pages as they are to what they would be; empty where nothing differs."""
    parts = []
    for name, text in pages().items():
        there = (DOCS / name).read_text("utf-8") if (DOCS / name).exists() else ""
        parts += difflib.unified_diff(there.splitlines(), text.splitlines(), name, "made from the code", lineterm="")
    return "\n".join(parts)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(differences() or None)
    write()
