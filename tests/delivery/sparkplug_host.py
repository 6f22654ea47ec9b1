"""A host application of Sparkplug: hears all that is said under spBv1.0, says STATE and NCMD."""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from .conftest import DEVICE
from .sparkplug_proto import Payload

GROUP, HOST = "press shop", "scada"
Until = Callable[..., None]


@dataclass(frozen=True)
class Said:
    """One message of the node, decoded by protobuf."""

    topic: str
    qos: int
    retain: bool
    payload: Any

    @property
    def kind(self) -> str:
        return self.topic.split("/")[2]

    @property
    def whose(self) -> str:
        return "/".join(self.topic.split("/")[4:])

    @property
    def seq(self) -> int | None:
        return self.payload.seq if self.payload.HasField("seq") else None

    def metric(self, name: str) -> Any:
        """The only one of that name."""
        (found,) = [metric for metric in self.payload.metrics if metric.name == name]
        return found


def properties(metric: Any) -> dict[str, Any]:
    """Of a metric, by name."""
    return dict(zip(metric.properties.keys, metric.properties.values, strict=True))


class Host:
    """Connected from its making to `close`."""

    def __init__(self, port: int, name: str = "host", username: str | None = None) -> None:
        self.said: list[Said] = []
        self.names: dict[int, str] = {}  # alias → name, of the births heard
        ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, name)
        self._client.username_pw_set(username)
        self._client.on_connect = lambda client, *_: client.subscribe("spBv1.0/#", 1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = self._heard
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert ready.wait(10)

    def _heard(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        if re.fullmatch(r"spBv1\.0/[^/]+/[ND](BIRTH|DEATH|DATA)/.*", message.topic):
            payload = Payload.FromString(message.payload)
            self.names |= {one.alias: one.name for one in payload.metrics if one.HasField("name")}
            self.said.append(Said(message.topic, message.qos, message.retain, payload))

    def of(self, kind: str, whose: str = "") -> list[Said]:
        """All of a kind, in their order."""
        return [said for said in list(self.said) if (said.kind, said.whose) == (kind, whose)]

    def changes(self, whose: str = "") -> list[Any]:
        """Metrics of NDATA or DDATA, in their order; each with its name again."""
        metrics = [metric for said in self.of("DDATA" if whose else "NDATA", whose) for metric in said.payload.metrics]
        return [(self.names[metric.alias], metric) for metric in metrics]

    def state(self, online: Any, timestamp: Any, host: str = HOST, retain: bool = True) -> None:
        """As the specification has it: JSON, retained, QoS 1."""
        self.raw_state(json.dumps({"online": online, "timestamp": timestamp}).encode(), host, retain)

    def blink(self, time_ms: int, last: bool) -> None:
        """Offline and online, or online and offline, in one breath."""
        for online in (not last, last):
            self._client.publish(f"spBv1.0/STATE/{HOST}", json.dumps({"online": online, "timestamp": time_ms}), 1, True)

    def raw_state(self, payload: bytes, host: str = HOST, retain: bool = True) -> None:
        self._client.publish(f"spBv1.0/STATE/{host}", payload, 1, retain).wait_for_publish(5)

    def command(self, payload: bytes, retain: bool = False) -> None:
        self._client.publish(f"spBv1.0/{GROUP}/NCMD/{DEVICE}", payload, 0, retain)

    def rebirth(self, value: bool = True, retain: bool = False) -> None:
        payload = Payload(timestamp=1)
        payload.metrics.add(name="Node Control/Rebirth", timestamp=1, datatype=11, boolean_value=value)
        self.command(payload.SerializeToString(), retain)

    def drive_out(self, port: int, username: str | None = None) -> None:
        """Ends the node's connection without its word, so that the broker says its will."""
        intruder = paho.Client(CallbackAPIVersion.VERSION2, f"tocsin-sparkplug-{DEVICE}")
        intruder.username_pw_set(username)
        inside = threading.Event()
        intruder.on_connect = lambda *_: inside.set()
        intruder.connect("127.0.0.1", port)
        intruder.loop_start()
        assert inside.wait(10)
        intruder.disconnect()
        intruder.loop_stop()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
