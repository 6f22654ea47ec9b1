"""YAML → settings, with the place of every mistake.

Precedence: `TOCSIN__MQTT__HOST`-like variables, then `conf.d/*.yaml` beside the file, then the file, then defaults.
`${NAME}` and `${NAME:-default}` in values are replaced from the environment. Anchors and aliases are not taken: a few
lines of them can stand for more than memory holds.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml.composer import ComposerError

from tocsin.config import AgentSettings
from tocsin.errors import ConfigError

Key = str | int
MAX_BYTES = 1 << 20
MAX_DEPTH = 20
ENV_PREFIX = "TOCSIN__"


S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True)
class _Document:
    """A YAML mapping, and where each key stands: `file:line:column`."""

    value: dict[str, Any]
    places: dict[tuple[Key, ...], str]


class _Loader(yaml.SafeLoader):
    """Plain YAML without anchors and aliases."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if event.anchor is not None:  # of a node that has a name, and of an alias
            said = "anchors and aliases (&name, *name) are not taken: write the values out"
            raise ComposerError(problem=said, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def load_settings(path: Path, environment: Mapping[str, str] = os.environ) -> AgentSettings:
    """Reads and checks the agent's settings.

    Raises:
        ConfigError: names file, line, column and key, and what is expected there.
    """
    document = _read(path, environment)
    for extra in sorted((path.parent / "conf.d").glob("*.yaml")):
        document = _merge(document, _read(extra, environment))
    return _validate(_merge(document, _from_environment(environment)), path, AgentSettings)


def read_settings(path: Path, kind: type[S], environment: Mapping[str, str] = os.environ) -> S:
    """Reads one file into settings of any kind; `${NAME}` is replaced, nothing else comes from the environment.

    Raises:
        ConfigError: as `load_settings`.
    """
    return _validate(_read(path, environment), path, kind)


def _validate(document: _Document, path: Path, kind: type[S]) -> S:
    try:
        return kind.model_validate(document.value, context={"base": path.parent.absolute()})
    except ValidationError as error:
        raise ConfigError(_explain(error.errors(include_url=False), document, path, kind)) from None


def _read(path: Path, environment: Mapping[str, str]) -> _Document:
    try:
        with path.open("rb") as handle:
            content = handle.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{path}: larger than a configuration may be ({MAX_BYTES >> 20} MiB)")
        text = content.decode("utf-8-sig")
    except OSError as error:
        hint = "; `tocsin config sample` prints one to start from" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}{hint}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}") from error
    places: dict[tuple[Key, ...], str] = {}
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            raise ConfigError(f"{path}: the file is empty; `tocsin config sample` prints one to start from")
        value = _build(node, (), places, path, environment)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        said = "" if isinstance(error, ComposerError) else "not valid YAML: "
        raise ConfigError(f"{place}: {said}{getattr(error, 'problem', None) or 'nested too deep'}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}:1:1: expected keys and values such as `version: 1`, got a {type(value).__name__}")
    return _Document(value, places)


def _build(
    node: yaml.Node, at: tuple[Key, ...], places: dict[tuple[Key, ...], str], path: Path, environment: Mapping[str, str]
) -> Any:
    """The node's value; notes the place of every key on the way."""
    place = f"{path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
    places.setdefault(at, place)
    if len(at) > MAX_DEPTH:
        raise ConfigError(f"{place}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            where = f"{path}:{key_node.start_mark.line + 1}:{key_node.start_mark.column + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{where}: expected a word for a key, as in `host: localhost`")
            if key in mapping:
                raise ConfigError(f"{where}: {_dotted((*at, key))} is given twice")
            places[*at, key] = where
            mapping[key] = _build(value_node, (*at, key), places, path, environment)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*at, i), places, path, environment) for i, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    if "${" in node.value:
        expanded = _expand(node.value, place, environment)
        return _value(expanded, place) if node.style is None else expanded
    return _value(yaml.serialize(node), place)


def _value(text: str, place: str, else_text: bool = False) -> Any:
    """What one value of YAML stands for. A mistake is told without it: it may be a password."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (it is a SafeLoader)
    except yaml.YAMLError as error:
        if else_text:
            return text
        raise ConfigError(f"{place}: not valid YAML: {getattr(error, 'problem', None) or 'no value'}") from None
    except (ValueError, LookupError, AttributeError, ArithmeticError, RecursionError):
        raise ConfigError(f"{place}: looks like a number, a date or a list, but is none: put it in quotes") from None


def _expand(text: str, place: str, environment: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if name in environment:
            return environment[name]
        if default is None:
            raise ConfigError(f"{place}: the environment has no {name}: set it, or write ${{{name}:-default}}")
        return default

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}", one, text)


def _from_environment(environment: Mapping[str, str]) -> _Document:
    value: dict[str, Any] = {}
    places: dict[tuple[Key, ...], str] = {}
    for name in sorted(environment):
        keys = tuple(name.removeprefix(ENV_PREFIX).lower().split("__"))
        if not name.startswith(ENV_PREFIX) or not all(keys):
            continue
        place = f"environment variable {name}"
        inner = value
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{place}: {key} is no mapping: another variable gives it a single value")
        inner[keys[-1]] = _value(environment[name], place, else_text=True)
        places[keys] = place
    return _Document(value, places)


def _merge(under: _Document, over: _Document) -> _Document:
    """`over` wins; mappings are merged key by key, lists are replaced."""

    def both(a: Any, b: Any) -> Any:
        if isinstance(a, dict) and isinstance(b, dict):
            return {**a, **{key: both(a[key], item) if key in a else item for key, item in b.items()}}
        return b

    return _Document(both(under.value, over.value), {**under.places, **over.places})


def _explain(errors: list[ErrorDetails], document: _Document, path: Path, kind: type[BaseModel]) -> str:
    """The first mistake as one line; how many more there are."""
    deepest = [
        e
        for e in errors
        if not any(len(o["loc"]) > len(e["loc"]) and o["loc"][: len(e["loc"])] == e["loc"] for o in errors)
    ]
    errors = sorted(
        deepest, key=lambda error: error["type"] != "extra_forbidden"
    )  # a misspelt key explains a missing one
    first = errors[0]
    keys = _keys(first["loc"], document.value)
    place = next((document.places[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in document.places), str(path))
    known = _known_keys(keys[:-1], document.value, kind)
    match first["type"]:
        case "extra_forbidden":
            close = get_close_matches(str(keys[-1]), known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
            text = f"{_dotted(keys)} is not a key: {hint}"
        case "missing":
            text = f"{_dotted(keys)} is missing"
        case "union_tag_not_found":
            kinds = _known_keys(keys, document.value, kind)
            text = f"{_dotted((*keys, _tag(first)))} is missing: expected one of {', '.join(kinds)}"
        case "union_tag_invalid":
            expected, tag = first["ctx"]["expected_tags"], first["ctx"]["tag"]
            text = f"{_dotted((*keys, _tag(first)))}: expected one of {expected}, got {tag!r}"
        case _:
            said = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
            shown = repr(first["input"])[:60] if isinstance(first["input"], str | int | float | bool | None) else ""
            text = f"{_dotted(keys)}: {said[:1].lower()}{said[1:]}" if keys else said
            text += f", got {shown}" if shown and keys else ""
    more = len(errors) - 1
    return f"{place}: {text}" + (f" (and {more} more mistake{'s' * (more > 1)})" if more else "")


def _tag(error: ErrorDetails) -> str:
    """The key that says which kind of a union it is: pydantic gives it in quotes."""
    return str(error["ctx"]["discriminator"]).strip("'")


def _keys(location: tuple[Key, ...], value: Any) -> tuple[Key, ...]:
    """The location without the names of union members that pydantic puts in between."""
    keys: list[Key] = []
    for n, key in enumerate(location):
        inside = (isinstance(value, dict) and key in value) or (
            isinstance(value, list) and isinstance(key, int) and key < len(value)
        )
        if inside:
            value = value[key]
        elif n < len(location) - 1:
            continue
        keys.append(key)
    return tuple(keys)


def _known_keys(keys: tuple[Key, ...], value: Any, kind: type[BaseModel]) -> list[str]:
    """Keys that may stand at this place, from the JSON Schema."""
    schema = kind.model_json_schema()
    node: dict[str, Any] = schema
    for key in (*keys, None):
        node = _follow(node, schema, value)
        if key is None:
            break
        named = node.get("additionalProperties")  # of a mapping whose keys are names
        other = named if isinstance(named, dict) else {}
        node = node.get("items", {}) if isinstance(key, int) else node.get("properties", {}).get(key, other)
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int):
            value = value[key]
    return list(node.get("properties", {}))


def _follow(node: dict[str, Any], schema: dict[str, Any], value: Any) -> dict[str, Any]:
    """Through references and unions to the object that the value means."""
    while True:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        elif "discriminator" in node:
            tag = value.get(node["discriminator"]["propertyName"]) if isinstance(value, dict) else None
            mapping = node["discriminator"]["mapping"]
            node = {"$ref": mapping[tag]} if tag in mapping else {"properties": mapping}  # which kinds there are
        elif "anyOf" in node:
            options = [option for option in node["anyOf"] if option.get("type", "array") == "array"]
            node = next(iter(options), {})
        else:
            return node


def _dotted(keys: tuple[Key, ...]) -> str:
    out = ""
    for key in keys:
        out += f"[{key}]" if isinstance(key, int) else f".{key}" if out else key
    return out or "the file"


SAMPLE = """\
## Tocsin's agent. `##` explains, `#` shows a default, the rest must be set.
## Check it with: tocsin config check -c tocsin.yaml
version: 1

## This box in topics: lower-case letters, digits, hyphens. The host's name when left out.
# device: pump-house-1

## Outbox and alarm states live here.
# state_dir: /var/lib/tocsin
# language: en                 # of what operators read: en or zh

mqtt:
  host: localhost
  # port: 1883                 # 8883 with tls
  # prefix: tocsin             # first levels of every topic
  # username: pump-house-1
  # password_file: /etc/tocsin/mqtt-password
  # tls:                       # for any broker that is not on this machine
  #   ca_file: /etc/tocsin/ca.pem
  #   cert_file: /etc/tocsin/device.pem
  #   key_file: /etc/tocsin/device.key
  # protocol: auto             # auto, 5 or 3.1.1
  # keepalive_s: 15
  # delivery: puback           # end_to_end: events are kept until `tocsin inbox`, or another, has stored them
  # outbox_max_mb: 256         # of what waits on the disk; over it the least important goes, oldest first
  # scores: true               # publish every scored window, QoS 0
  # data_interval: 1s          # publish the newest sample of each channel so often; not at all when left out
  # health_interval_s: 60s
  # commands: [ack, shelve, unshelve, identify]   # that may be asked over MQTT; [] for none
  # commands_per_min: 60
  # settings: []               # detection, sensitivity: may be changed on set/<setting>
  # commands_kept: 24h         # the broker keeps requests so long for a device that is away; 0: not
  # home_assistant: false      # true: makes a device of this agent in Home Assistant
  # discovery_prefix: homeassistant
  # groups: [press-shop]       # asked together, by _group/press-shop/cmd/<command>; `all` anyway

# sparkplug:                   # Sparkplug B 3.0, on a connection of its own; off when left out
#   group: press-shop
#   host: scada                # id of the primary host: nothing is told until it is online; at once when left out
#   deadband: 0.01             # a ratio that changed by no more is not told anew
#   broker:                    # that of mqtt when left out
#     host: localhost

# alarms:
#   shelve_limit: 24h          # longest time that an alarm can be shelved

# update:                      # signed models over the air
#   repository: https://updates.example/repository   # or a folder, such as /media/usb/repository
#   trusted_root: root.json    # of tocsin fleet init
#   ca_file: ca.pem            # of the server, where it is not one of the system's
#   shadow_windows: 200        # scored beside the current model first …
#   trial_windows: 200         # … and as the current one before it stays
#   patience: 1h               # for each of the two
#   keep_free_mb: 50           # left on the disk by downloads
# recording:                   # keep samples on this disk, and what was around each alarm
#   max_mb: 1024               # the oldest leave first
#   max_age_s: 7d
#   before_s: 60s              # of a snapshot around an alarm
#   after_s: 60s

# http:                        # figures of this agent: /metrics for Prometheus, /healthz, /readyz
#   listen: 127.0.0.1          # any other address opens them to the network
#   port: 9464

assets:
  - id: pump-1
    bundle: pump-1.tocsin      # from `tocsin train`; a relative path starts at this file
    # product: pump            # kind of machine whose updates it takes, with `update:` above
    source:
      type: serial             # or can, iio, modbus, mqtt, opcua, replay, synthetic
      port: /dev/serial/by-id/usb-sensor-node
      rate_hz: 10              # lines a second; measured when left out
      # baud: 115200
      channels: ["pressure [bar]", "flow [l/min]", "current [A]"]
    ## Instead of source, for a bundle of several rate groups, one for each by its name:
    ## sources:
    ##   main: {type: serial, port: /dev/serial/by-id/usb-sensor-node, rate_hz: 1, channels: [temperature, load]}
    ##   vibration: {type: serial, port: /dev/serial/by-id/usb-accelerometer, rate_hz: 4000, channels: [vibration_x]}
    # severity: major          # warning, minor, major or critical
    # advice: Check the suction strainer, then call 4711.
    # alarm:                   # what is left out is as the bundle says
    #   on_n: 3                # raised by 3 …
    #   on_m: 5                # … of 5 windows over the limit
    #   off_delay: 5           # cleared by 5 in a row …
    #   clear_ratio: 0.8       # … below 0.8 of it
    #   hold_off: 60s          # over when its condition has been off for so long; 0: at once
    #   steps:                 # severity by ratio and duration; left when it was below for as long
    #     - {to: critical, ratio: 3, for: 10min}
    #   auto_ack: true         # over when its condition is; false: when it is acknowledged too
    #   latching: false        # stays until it is acknowledged after its condition's end
    #   re_alarm_after: 8h     # acknowledged and still on: it calls again; never when left out
    #   suppressed_by: [pump-1-stale]   # ids of alarms that suppress those of this asset
    # quality:                 # sensors and their lines; limits come from normal running
    #   enabled: true
    #   severity: minor
    #   stale_after: 10s       # without a sample
    #   channels:
    #     - name: pressure
    #       min: 0             # the sensor gives no less …
    #       max: 16            # … and no more
    #       max_rate: 50       # it changes no faster, bar a second
    #       stuck_after: 10min # or never
    #       watch: true        # false: nothing but the model looks at it
    # rules:                   # conditions with alarms of their own
    #   - id: dry-running
    #     when: pressure > 4 and mean(flow, 10s) < 1
    #     clear_when: flow > 2 # the contrary of when, when left out
    #     for: 10s
    #     severity: critical   # none: no alarm but a mode of the plant, for suppressed_by
    #     latching: true       # its alarm stays until it is acknowledged
    #     advice: Stop the pump, look at the suction side.
"""
