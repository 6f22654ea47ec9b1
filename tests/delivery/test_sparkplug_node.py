"""An edge node without a broker: whatever happens in whatever order, a host knows in the end what there is."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.delivery.sparkplug_metrics import NODE, RATIO, Definition
from tocsin.delivery.sparkplug_node import EdgeNode, Message, Reading
from tocsin.delivery.sparkplug_payload import DataType

from .sparkplug_proto import Payload

TEXT = "Model/Version"
METRICS = {
    (NODE, "Health/Status"): Definition(DataType.STRING),
    ("pump", RATIO): Definition(DataType.DOUBLE, deadband=0.5),
    ("pump", TEXT): Definition(DataType.STRING),
    ("fan", RATIO): Definition(DataType.DOUBLE),
}


@dataclass
class Model:
    """What a host that goes by the specification knows; fails where a message is not by it."""

    seq: int | None = None
    alive: set[str] = field(default_factory=set)
    names: dict[int, tuple[str, str]] = field(default_factory=dict)
    now: dict[tuple[str, str], Any] = field(default_factory=dict)
    told: set[tuple[tuple[str, str], int]] = field(default_factory=set)  # (metric, time)

    def hear(self, messages: list[Message]) -> None:
        for message in messages:
            _, _, kind, _, *whose = message.topic.split("/")
            self._hear(kind, whose[0] if whose else NODE, Payload.FromString(message.payload))

    def _hear(self, kind: str, whose: str, payload: Any) -> None:
        assert payload.seq == (0 if kind == "NBIRTH" else (self.seq + 1) % 256)
        self.seq = payload.seq
        if kind == "NBIRTH":
            self.alive.clear()
        if kind in ("NBIRTH", "DBIRTH"):
            self.alive.add(whose)
            self.names |= {one.alias: (whose, one.name) for one in payload.metrics if one.HasField("alias")}
        assert whose in self.alive
        if kind == "DDEATH":
            self.alive.remove(whose)
        for one in payload.metrics:
            if one.HasField("alias"):
                name = self.names[one.alias]
                self.told.add((name, one.timestamp))
                if not one.is_historical:
                    self.now[name] = None if one.is_null else getattr(one, one.WhichOneof("value"))


values = st.tuples(
    st.sampled_from(list(METRICS)), st.sampled_from([None, 0.0, 0.25, 1.0, 2.0]), st.sampled_from([0, 192])
)
deaths = st.frozensets(st.sampled_from(["pump", "fan"]))
steps = st.lists(values | deaths | st.sampled_from(["births", "silence", "data"]), max_size=60)


@settings(deadline=None)
@given(steps)
def test_a_host_knows_every_value_in_the_end_and_every_change_was_told(some: list[Any]) -> None:
    node, host = EdgeNode("g", "edge-1", METRICS), Model()
    last: dict[tuple[str, str], Any] = {}
    changes: set[tuple[tuple[str, str], int]] = set()
    for now_ms, step in enumerate([*some, frozenset(), "births", "data"], 1):
        if isinstance(step, tuple):
            name, number, quality = step
            definition = METRICS[name]
            value = str(number) if definition.kind is DataType.STRING and number is not None else number
            before = last.get(name)
            near = before is not None and None not in (value, before[0]) and definition.deadband > 0
            same = abs(value - before[0]) <= definition.deadband if near else before is not None and value == before[0]
            if not same or before[1] != quality:
                last[name] = (value, quality)
                changes.add((name, now_ms))
            node.put(name, Reading(value, now_ms, quality))
        elif isinstance(step, frozenset):
            host.hear(node.lives(step, now_ms))
        elif step == "births":
            host.hear(node.births(7, now_ms))
        elif step == "data" and node.born:
            host.hear(node.data(now_ms))
        elif step == "silence":
            node.silence()
    assert {name: value for name, value in host.now.items() if value is not None} == {
        name: value for name, (value, _) in last.items() if value is not None
    }
    assert changes <= host.told
    assert host.alive == {NODE, "pump", "fan"} and set(host.now) == set(METRICS)


def test_over_the_bound_the_oldest_changes_are_left_out_and_counted_and_scores_drive_out_nothing_else() -> None:
    node, host = EdgeNode("g", "edge-1", METRICS, held=18), Model()  # 3 of each kind, for the node and two assets
    node.put(("pump", TEXT), Reading("1.0", 0))
    node.put(("pump", TEXT), Reading("1.1", 1))
    for n in range(2, 12):
        node.put(("pump", RATIO), Reading(float(n), n))
    node.put(("pump", TEXT), Reading("1.2", 12))
    host.hear(node.births(0, 20))
    host.hear(node.data(21))
    assert {time for name, time in host.told if name == ("pump", RATIO)} == {9, 10, 11}
    assert {time for name, time in host.told if name == ("pump", TEXT)} == {0, 1, 12}
    assert node.dropped == 7


def test_a_long_history_is_told_in_parts() -> None:
    node = EdgeNode("g", "edge-1", METRICS)
    for n in range(500):
        node.put(("fan", RATIO), Reading(float(n), n))
    node.births(0, 600)
    sizes = [len(Payload.FromString(message.payload).metrics) for message in node.data(601)]
    assert sizes == [200, 200, 99]  # the last is told by the birth
    assert node.data(602) == []


@pytest.mark.parametrize("name", [("pump", "no such metric"), ("nobody", RATIO)])
def test_a_metric_that_no_birth_has_is_left_out(name: tuple[str, str]) -> None:
    node = EdgeNode("g", "edge-1", METRICS)
    node.births(0, 1)
    node.put(name, Reading(1.0, 1))
    assert node.data(2) == []
