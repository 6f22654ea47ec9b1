"""Home Assistant's device discovery: one retained message that makes a device of what the agent says anyway.

```
<discovery_prefix>/device/tocsin-<device>/config ─► an asset: in alarm, ratio, sensors; the agent: alarms, figures
```
Rules: made from the birth document alone; templates hold with every payload of their topic. Source of keys and
platforms: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload.
"""

import json
from typing import Any

from tocsin.delivery.wire import (
    EVENT_ALARM,
    HIGHEST,
    LOWEST,
    OFFLINE,
    ONLINE,
    SET,
    STATE,
    Info,
    Topics,
    alarm_topic,
    score_topic,
    update_topic,
)
from tocsin.pipeline import alarm_id

BIRTH = "online"  # on `<discovery_prefix>/status`, when Home Assistant has started
_EVENT = (
    "{% set a = value_json.after %}{{ {'event_type': value_json.type, 'alarm': a.alarm, 'asset': a.asset, "
    "'severity': a.severity, 'state': a.state, 'text': a.text, 'advice': a.advice} | to_json }}"
)


def discovery_topic(prefix: str, device: str) -> str:
    """Where the message of a device is retained.

    >>> discovery_topic("homeassistant", "edge-1")
    'homeassistant/device/tocsin-edge-1/config'
    """
    return f"{prefix}/device/tocsin-{device}/config"


def birth_topic(prefix: str) -> str:
    """Where Home Assistant says that it has started."""
    return f"{prefix}/status"


def discovery(info: Info, topics: Topics, scores: bool) -> bytes:
    """The message.

    Args:
        info: of the device.
        topics: of the device.
        scores: every window's score is published.
    """
    components: dict[str, dict[str, Any]] = {}
    for asset in info.assets:
        components |= _of_asset(asset.id, topics, scores)
        components |= _model_of(asset.id, topics) if asset.product else {}
    components |= _of_agent(topics, "ack" in info.commands)
    components |= {name: _of_setting(topics, name) for name in info.settings}
    for name, component in components.items():
        component["unique_id"] = f"{info.device}_{name}"
    hardware = {"model": info.hw.model, "serial_number": info.hw.serial, "hw_version": info.hw.arch}
    device = {
        "identifiers": [f"tocsin-{info.device}"],
        "name": info.device,
        "manufacturer": "Tocsin",
        "sw_version": info.agent.version,
    }
    return json.dumps(
        {
            "dev": device | {key: value for key, value in hardware.items() if value},
            "o": {"name": "tocsin", "sw_version": info.agent.version},
            "cmps": components,
            "availability_topic": topics.under("status"),
            "availability_template": f"{{{{ '{ONLINE}' if value == '{ONLINE}' else '{OFFLINE}' }}}}",
        },
        ensure_ascii=False,
    ).encode()


def _of_asset(asset: str, topics: Topics, scores: bool) -> dict[str, dict[str, Any]]:
    health = f"value_json.get('assets', {{}}).get('{asset}', {{}})"
    alarm = topics.under(alarm_topic(alarm_id(asset)))
    anomaly = {
        "p": "binary_sensor",
        "name": f"{asset} in alarm",
        "device_class": "problem",
        "state_topic": topics.under(score_topic(asset)) if scores else alarm,
        "value_template": "{{ 'ON' if value_json is defined and (value_json.anomaly | default(0)"
        " or value_json.active | default(false)) else 'OFF' }}",  # of an alarm that is gone: an empty payload
        "json_attributes_topic": alarm,
        "json_attributes_template": "{{ value if value_json is defined else '{}' }}",
    }
    sensors = {
        "p": "binary_sensor",
        "name": f"{asset} sensors",
        "device_class": "problem",
        "entity_category": "diagnostic",
        "state_topic": topics.under("health"),
        "value_template": f"{{{{ 'ON' if {health}.get('bad_channels') else 'OFF' }}}}",
    }
    ratio = {
        "p": "sensor",
        "name": f"{asset} score to limit",
        "state_class": "measurement",
        "suggested_display_precision": 2,
        "state_topic": topics.under(score_topic(asset)),
        "value_template": "{{ value_json.ratio }}",
    }
    return {f"{asset}_anomaly": anomaly, f"{asset}_sensors": sensors} | ({f"{asset}_ratio": ratio} if scores else {})


def _model_of(asset: str, topics: Topics) -> dict[str, dict[str, Any]]:
    """Which model it has, and which is on its way."""
    topic = topics.under(update_topic(asset))
    return {f"{asset}_model": {"p": "update", "name": f"{asset} model", "state_topic": topic}}


def _of_agent(topics: Topics, may_acknowledge: bool) -> dict[str, dict[str, Any]]:
    components: dict[str, dict[str, Any]] = {
        "alarms": {
            "p": "event",
            "name": "Alarms",
            "event_types": ["new", "update", "end"],
            "state_topic": topics.under(EVENT_ALARM),
            "value_template": _EVENT,
        },
        "status": _figure(topics, "Status", "status", icon="mdi:heart-pulse"),
        "outbox": _figure(topics, "Messages that wait", "outbox_depth", state_class="measurement"),
        "cpu_temperature": _figure(
            topics, "CPU temperature", "cpu_temp_c", device_class="temperature", unit_of_measurement="°C"
        ),
        "memory": _figure(topics, "Memory", "memory_mb", device_class="data_size", unit_of_measurement="MB"),
        "disk_free": _figure(topics, "Disk free", "disk_free_mb", device_class="data_size", unit_of_measurement="MB"),
    }
    if may_acknowledge:
        components["acknowledge_all"] = {
            "p": "button",
            "name": "Acknowledge all alarms",
            "command_topic": topics.under("cmd/ack"),
            "payload_press": json.dumps({"alarm": "all", "by": "home-assistant"}),
            "qos": 1,
        }
    return components


def _of_setting(topics: Topics, name: str) -> dict[str, Any]:
    """A switch or a number that is set on `set/<setting>`."""
    common = {
        "name": name.capitalize(),
        "entity_category": "config",
        "command_topic": topics.under(f"{SET}{name}"),
        "state_topic": topics.under(f"{STATE}{name}"),
        "value_template": "{{ value_json.value }}",
        "qos": 1,
    }
    if name == "detection":
        return {"p": "switch", **common}
    return {"p": "number", "min": LOWEST, "max": HIGHEST, "step": 0.05, "mode": "box", **common}


def _figure(topics: Topics, name: str, key: str, **others: str) -> dict[str, Any]:
    """A figure of `health`; null becomes `None`, which Home Assistant shows as unknown."""
    return {
        "p": "sensor",
        "name": name,
        "entity_category": "diagnostic",
        "state_topic": topics.under("health"),
        "value_template": f"{{{{ value_json.{key} }}}}",
        **others,
    }
