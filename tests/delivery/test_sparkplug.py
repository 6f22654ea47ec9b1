"""An edge node before a real broker, clause by clause of Eclipse Sparkplug 3.0.0.

A test that is named after a clause has its id (`tck-id-…`, with underscores) from the specification,
https://github.com/eclipse-sparkplug/sparkplug/tree/master/specification; several clauses that say one thing share a
test, and stand in its first line. Most look at one recording: two sessions of a node with two assets.
"""

import re
import time
from dataclasses import dataclass

import pytest

from ..conftest import Mosquitto, wait_until
from .conftest import DEVICE, a_transition
from .sparkplug_host import GROUP, Host, Said, properties
from .sparkplug_plant import ASSETS, Plant

pytestmark = pytest.mark.broker
BIRTHS = ("NBIRTH", "DBIRTH")
GOOD, INT32, INT64, BOOLEAN, STRING = 192, 3, 4, 11, 12


@dataclass(frozen=True)
class Recorded:
    """All that a host heard, and the broker's log."""

    said: list[Said]
    log: str

    def of(self, *kinds: str) -> list[Said]:
        found = [said for said in self.said if said.kind in kinds]
        assert found, kinds
        return found

    def sessions(self) -> list[list[Said]]:
        """Split at every birth of the node; the deaths of nodes, which have no seq, left out."""
        parts: list[list[Said]] = []
        for said in self.said:
            if said.kind == "NBIRTH":
                parts.append([])
            if said.kind != "NDEATH":
                parts[-1].append(said)
        return parts


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Scores, an alarm, a silent asset, births asked for; a clean end; a second session that breaks; a third."""
    folder = tmp_path_factory.mktemp("sparkplug")
    (folder / "broker").mkdir()
    broker = Mosquitto(folder / "broker")
    broker.extra = ["log_type all"]
    broker.start()
    host, plant = Host(broker.port), Plant(folder)
    try:
        plant.start(broker.port)
        wait_until(lambda: len(host.of("DBIRTH", "fan")) == 1)
        for n in range(300):
            before = len(host.said)
            plant.score(1.0 + n % 2)
            wait_until(lambda before=before: len(host.said) > before)
        plant.desk.queue.put(a_transition(alarm="pump-1-anomaly"))
        wait_until(lambda: "Alarm/pump-1-anomaly/Active" in dict(host.changes("pump-1")))
        plant.temperature_c = 60.0
        wait_until(lambda: "Health/CPU Temperature" in dict(host.changes()))
        plant.states["pump-1"] = "failing"
        wait_until(lambda: len(host.of("DDEATH", "pump-1")) == 1)
        plant.states["pump-1"] = "ok"
        wait_until(lambda: len(host.of("DBIRTH", "pump-1")) == 2)
        host.rebirth()
        wait_until(lambda: len(host.of("NBIRTH")) == 2 and len(host.of("DBIRTH", "fan")) == 2)
        plant.stop()
        wait_until(lambda: len(host.of("NDEATH")) >= 1)
        plant.start(broker.port)
        wait_until(lambda: len(host.of("DBIRTH", "fan")) == 3)
        host.drive_out(broker.port)
        wait_until(lambda: len(host.of("NBIRTH")) == 4 and len(host.of("DBIRTH", "fan")) == 4)
        return Recorded(list(host.said), (broker.folder / "log").read_text())
    finally:
        plant.close()
        host.close()
        broker.kill()


def in_order(said: list[Said], first: int = 0) -> bool:
    """Each seq is one more than the last, from `first` on, and 0 after 255."""
    return [one.seq for one in said] == [(first + n) % 256 for n in range(len(said))]


def test_tck_id_topic_structure(recorded: Recorded) -> None:
    """topic-structure-namespace-a, -valid-group-id, -valid-edge-node-id, -valid-device-id, device-id-associated."""
    of_node = re.compile(rf"spBv1\.0/{GROUP}/(NBIRTH|NDATA|NDEATH)/{DEVICE}")
    of_asset = re.compile(rf"spBv1\.0/{GROUP}/(DBIRTH|DDATA|DDEATH)/{DEVICE}/({'|'.join(ASSETS)})")
    kinds = {said.kind for said in recorded.said if of_node.fullmatch(said.topic) or of_asset.fullmatch(said.topic)}
    assert kinds == {"NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH"}
    assert all(of_node.fullmatch(said.topic) or of_asset.fullmatch(said.topic) for said in recorded.said)


@pytest.mark.parametrize("kind", ["NBIRTH", "DBIRTH", "NDATA", "DDATA", "DDEATH"])
def test_tck_id_topics_mqtt(recorded: Recorded, kind: str) -> None:
    """topics-nbirth-mqtt and its like; payloads-nbirth-qos, -retain and theirs: as the broker was handed it."""
    flags = re.findall(
        rf"Received PUBLISH from tocsin\S+ \(d0, (q\d), (r\d), m\d+, 'spBv1.0/{GROUP}/{kind}/", recorded.log
    )
    assert len(flags) == len(recorded.of(kind)) and set(flags) == {("q0", "r0")}


def test_tck_id_message_flow_edge_node_birth_publish_will_message(recorded: Recorded) -> None:
    """…-will-message, -topic, -qos, -will-retained; payloads-ndeath-will-message-qos, -retain."""
    wills = re.findall(r"as tocsin-sparkplug-edge-1 \(p5, c1, .*\n\S+ Will message specified .*\n", recorded.log)
    found = re.findall(
        rf"Will message specified \(\d+ bytes\) (.*)\.\n\S+ \t(spBv1.0/{GROUP}/NDEATH/{DEVICE})\n", recorded.log
    )
    assert len(wills) == len(found) == 3  # sessions
    assert set(found) == {("(r0, q1)", f"spBv1.0/{GROUP}/NDEATH/{DEVICE}")}


def test_tck_id_principles_persistence_clean_session(recorded: Recorded) -> None:
    """…-clean-session-50: clean start, and nothing is kept after."""
    assert (
        len(re.findall(r"New client connected from \S+ as tocsin-sparkplug-edge-1 \(p5, c1, k15\)", recorded.log)) == 3
    )


def test_tck_id_message_flow_edge_node_ncmd_subscribe(recorded: Recorded) -> None:
    topics = re.findall(r"Received SUBSCRIBE from tocsin\S+\n\S+ \t(.*)\n", recorded.log)
    assert topics == [f"spBv1.0/{GROUP}/NCMD/{DEVICE} (QoS 1)"] * 3
    assert "(m0, rc135)" not in recorded.log


def test_tck_id_topics_nbirth_seq_num(recorded: Recorded) -> None:
    assert [said.seq for said in recorded.of("NBIRTH")] == [0, 0, 0, 0]


def test_tck_id_payloads_sequence_num_incrementing(recorded: Recorded) -> None:
    """…-always-included; payloads-dbirth-seq-inc, -ddata-, -ndata-, -ddeath-seq-inc: over 255 and on from 0."""
    sessions = recorded.sessions()
    assert len(sessions[0]) > 256 and [said.seq for said in sessions[0]].count(0) == 2
    assert all(in_order(session) for session in sessions)


def test_tck_id_topics_ndeath_seq(recorded: Recorded) -> None:
    """payloads-ndeath-seq; topics-ndeath-payload: nothing but bdSeq."""
    for said in recorded.of("NDEATH"):
        assert said.seq is None
        assert [(one.name, one.datatype) for one in said.payload.metrics] == [("bdSeq", INT64)]


def test_tck_id_topics_nbirth_bdseq_matching(recorded: Recorded) -> None:
    """…-bdseq-included; payloads-ndeath-bdseq; message-flow-…-nbirth-payload-bdSeq: of type INT64."""
    born = [said.metric("bdSeq") for said in recorded.of("NBIRTH")]
    assert {one.datatype for one in born} == {INT64}
    assert [one.long_value for one in born] == [0, 0, 1, 2]  # the second was asked for, in the first session
    dead = [said.metric("bdSeq").long_value for said in recorded.of("NDEATH")]
    assert dead == [0, 0, 1]  # said and, with MQTT 5, as the will; then as the will alone


def test_tck_id_topics_nbirth_bdseq_increment(recorded: Recorded) -> None:
    """message-flow-…-will-message-payload-bdSeq: from 0, one more at each CONNECT, over a restart too."""
    of_sessions = [said.metric("bdSeq").long_value for said in recorded.of("NBIRTH")]
    assert sorted(set(of_sessions)) == list(range(recorded.log.count("as tocsin-sparkplug-edge-1 (p5")))


def test_tck_id_topics_nbirth_rebirth_metric(recorded: Recorded) -> None:
    """payloads-nbirth-rebirth-req; operational-behavior-data-commands-rebirth-name, -datatype, -value, -aliases."""
    for said in recorded.of("NBIRTH"):
        metric = said.metric("Node Control/Rebirth")
        assert (metric.datatype, metric.HasField("boolean_value"), metric.boolean_value) == (BOOLEAN, True, False)
        assert not metric.HasField("alias")


@pytest.mark.parametrize("kind", ["NBIRTH", "DBIRTH", "NDATA", "DDATA", "DDEATH"])
def test_tck_id_payloads_timestamp_in_UTC(recorded: Recorded, kind: str) -> None:
    """topics-nbirth-timestamp, payloads-nbirth-timestamp and their like: of sending, ms since 1970."""
    now_ms = time.time() * 1000
    for said in recorded.of(kind):
        assert said.payload.HasField("timestamp") and now_ms - 600_000 < said.payload.timestamp <= now_ms


def test_tck_id_payloads_name_birth_data_requirement(recorded: Recorded) -> None:
    """…: every metric has a timestamp; payloads-metric-timestamp-in-UTC."""
    metrics = [one for said in recorded.of("NBIRTH", "DBIRTH", "NDATA", "DDATA") for one in said.payload.metrics]
    assert all(one.HasField("timestamp") and one.timestamp > 1.6e12 for one in metrics)


def test_tck_id_payloads_metric_datatype_req(recorded: Recorded) -> None:
    """topics-nbirth-metrics, topics-dbirth-metrics: name, datatype and a value or null, one of them."""
    for said in recorded.of(*BIRTHS):
        for one in said.payload.metrics:
            assert one.name and one.datatype in range(1, 15)
            assert one.is_null == (one.WhichOneof("value") is None), one.name


def test_tck_id_payloads_metric_datatype_not_req(recorded: Recorded) -> None:
    assert not any(one.HasField("datatype") for said in recorded.of("NDATA", "DDATA") for one in said.payload.metrics)


def test_tck_id_payloads_alias_uniqueness(recorded: Recorded) -> None:
    """payloads-alias-birth-requirement: across the node and its assets."""
    for session in recorded.sessions():
        births = {said.topic: said for said in session if said.kind in BIRTHS}
        aliases = [one.alias for said in births.values() for one in said.payload.metrics if one.HasField("alias")]
        whole = sum(len(said.payload.metrics) for said in births.values())
        assert len(set(aliases)) == len(aliases) == whole - 2  # but bdSeq and the one that must have none


def test_tck_id_payloads_alias_data_cmd_requirement(recorded: Recorded) -> None:
    metrics = [one for said in recorded.of("NDATA", "DDATA") for one in said.payload.metrics]
    assert all(one.HasField("alias") and not one.HasField("name") for one in metrics)


def test_tck_id_topics_nbirth_metric_reqs(recorded: Recorded) -> None:
    """topics-dbirth-metric-reqs; operational-behavior-data-publish-nbirth, -dbirth: all that is told, births had."""
    for session in recorded.sessions():
        known: dict[str, set[int]] = {}
        for said in session:
            if said.kind in BIRTHS:
                known[said.whose] = {one.alias for one in said.payload.metrics}
            assert {one.alias for one in said.payload.metrics} <= known[said.whose]


def test_tck_id_case_sensitivity_metric_names(recorded: Recorded) -> None:
    for said in recorded.of(*BIRTHS):
        names = [one.name.lower() for one in said.payload.metrics]
        assert len(set(names)) == len(names)


def test_tck_id_payloads_dbirth_order(recorded: Recorded) -> None:
    """payloads-ddata-order, -ndata-order; message-flow-device-birth-publish-nbirth-wait."""
    for session in recorded.sessions():
        assert [(said.kind, said.whose) for said in session[:3]] == [("NBIRTH", ""), *(("DBIRTH", a) for a in ASSETS)]


def test_tck_id_operational_behavior_data_publish_dbirth_order(recorded: Recorded) -> None:
    """…-nbirth-order: metrics in the order of their times."""
    for said in recorded.said:
        times = [one.timestamp for one in said.payload.metrics if not one.is_historical]
        assert times == sorted(times)


def test_tck_id_payloads_propertyset_quality_value_type(recorded: Recorded) -> None:
    """…-quality-value-value, -keys-array-size; payloads-metric-propertyvalue-type-req."""
    metrics = [one for said in recorded.of("DBIRTH", "DDATA") for one in said.payload.metrics]
    for one in metrics:
        quality = properties(one)["Quality"]
        assert (quality.type, quality.int_value) == (INT32, GOOD)
    units = {one.name: properties(one).get("engUnit") for one in recorded.of("NBIRTH")[0].payload.metrics}
    assert (units["Health/CPU Temperature"].type, units["Health/CPU Temperature"].string_value) == (STRING, "°C")


def test_tck_id_operational_behavior_device_ddeath(recorded: Recorded) -> None:
    """payloads-ddeath-seq-number: of an asset whose source fails; what it said is told before, its birth after."""
    about = [said for said in recorded.sessions()[0] if said.whose == "pump-1"]
    place = [said.kind for said in about].index("DDEATH")
    assert [said.kind for said in about[place - 1 : place + 2]] == ["DDATA", "DDEATH", "DBIRTH"]
    assert list(about[place].payload.metrics) == []
    assert about[place + 1].metric("Alarm/pump-1-anomaly/Active").boolean_value is True


def test_tck_id_operational_behavior_data_commands_rebirth_action(recorded: Recorded) -> None:
    """…-action-1, -2, -3: no data until all births are out, with the bdSeq of before."""
    asked_for = recorded.sessions()[1]
    assert [said.kind for said in asked_for] == ["NBIRTH", "DBIRTH", "DBIRTH"]
    assert asked_for[0].metric("bdSeq").long_value == 0


def test_tck_id_operational_behavior_edge_node_intentional_disconnect_ndeath(recorded: Recorded) -> None:
    """payloads-ndeath-will-message-publisher, -disconnect-mqtt50: said, then DISCONNECT with the will."""
    lines = [line.split(": ", 1)[1] for line in recorded.log.splitlines()]
    end = lines.index("Received DISCONNECT from tocsin-sparkplug-edge-1")
    before = [line for line in lines[:end] if line.startswith("Received PUBLISH from tocsin")]
    assert f"q1, r0, m{before[-1].split(', m')[1].split(',')[0]}, 'spBv1.0/{GROUP}/NDEATH/{DEVICE}'" in before[-1]
    after = [line for line in lines[end:] if line.startswith("Sending PUBLISH to host")]
    assert f"NDEATH/{DEVICE}" in after[0]


def test_what_was_said_of_an_asset_is_what_is_known_of_it(recorded: Recorded) -> None:
    first, last = recorded.of("DBIRTH")[0], [said for said in recorded.of("DBIRTH") if said.whose == "pump-1"][-1]
    assert first.metric("Score/Ratio").is_null and not first.metric("Score/Ratio").HasField("double_value")
    assert [first.metric(f"Model/{name}").string_value for name in ("Name", "Version")] == ["pump", "1.0.0"]
    assert first.metric("Properties/Channels").string_value == "pressure, flow"
    assert first.metric("Alarm/pump-1-anomaly/Active").boolean_value is False
    assert first.metric("Alarm/pump-1-anomaly/Severity").is_null
    assert last.metric("Alarm/pump-1-anomaly/Severity").string_value == "major"
    assert "Pressure (54 %)" in last.metric("Alarm/pump-1-anomaly/Text").string_value
    node = recorded.of("NBIRTH")[0]
    assert node.metric("Properties/Hardware Model").string_value == "Raspberry Pi 5"
    assert node.metric("Health/Status").string_value == "ok"
