"""Sessions of an edge node before a real broker: a primary host that comes and goes, outages, births asked for.

A test that is named after a clause has its id from Eclipse Sparkplug 3.0.0, as in test_sparkplug.py.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.delivery.sparkplug_session import PrimaryHost, Sessions
from tocsin.records import Change

from ..conftest import Mosquitto
from .conftest import DEVICE, a_transition
from .sparkplug_host import GROUP, HOST, Host, Until, properties
from .sparkplug_plant import Plant

HostAt = Callable[..., Host]
ACL = Path(__file__).parents[2] / "firmware_config/broker/acl"


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.close()


@pytest.fixture
def host_at() -> Iterator[HostAt]:
    made: list[Host] = []

    def connect(port: int, name: str = "host", username: str | None = None) -> Host:
        made.append(Host(port, name, username))
        return made[-1]

    yield connect
    for host in made:
        host.close()


def bdseqs(host: Host, kind: str = "NBIRTH") -> list[int]:
    return [said.metric("bdSeq").long_value for said in host.of(kind)]


def ratios(host: Host, historical: bool = False) -> list[float]:
    told = [metric for name, metric in host.changes("pump-1") if name == "Score/Ratio"]
    return [metric.double_value for metric in told if metric.is_historical == historical]


def settled(plant: Plant, host: Host, until: Until) -> None:
    """All that was said before this is heard, whatever becomes of it."""
    heard = len(host.of("DDATA", "fan"))
    plant.score(1000.0 + heard, "fan")
    until(lambda: len(host.of("DDATA", "fan")) > heard)


@pytest.mark.broker
def test_tck_id_message_flow_edge_node_birth_publish_phid_wait(
    broker: Mosquitto, plant: Plant, host_at: HostAt, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """…-wait-id, -wait-online; operational-behavior-edge-node-birth-sequence-wait: no birth but of this host online."""
    broker.start()
    host = host_at(broker.port)
    host.state(True, 10, host="another")
    node = plant.start(broker.port, host=HOST)
    until(lambda: node.statistics.sessions == 1)
    for payload in (b"ONLINE", b'{"online": "true", "timestamp": 11}', b'{"online": true}', b"[" * 999, b" " * 2000):
        host.raw_state(payload)
    host.state(False, 11)
    until(lambda: caplog.text.count("STATE of the primary host cannot be read") == 5)
    assert host.said == [] and not node.statistics.born
    host.state(True, 12)
    until(lambda: len(host.of("DBIRTH", "fan")) == 1)
    assert node.statistics.born and bdseqs(host) == [0]


@pytest.mark.broker
def test_tck_id_message_flow_edge_node_birth_publish_phid_wait_timestamp(
    broker: Mosquitto, plant: Plant, host_at: HostAt, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """An online that is older than what was said before counts for nothing; the first counts, however old."""
    broker.start()
    host = host_at(broker.port)
    host.state(False, 100)
    node = plant.start(broker.port, host=HOST)
    until(lambda: node.statistics.sessions == 1)
    host.state(True, 99)
    until(lambda: "older than the last" in caplog.text)
    assert host.said == []
    host.state(True, 100)
    until(lambda: len(host.of("NBIRTH")) == 1)


@pytest.mark.broker
def test_tck_id_message_flow_edge_node_birth_publish_phid_offline(
    broker: Mosquitto, plant: Plant, host_at: HostAt, until: Until
) -> None:
    """operational-behavior-edge-node-termination-host-offline, -reconnect: its death, DISCONNECT, and all anew."""
    broker.extra = ["log_type all"]
    broker.start()
    host = host_at(broker.port)
    host.state(True, 10)
    node = plant.start(broker.port, host=HOST)
    until(lambda: len(host.of("DBIRTH", "fan")) == 1)
    host.state(False, 10)
    until(lambda: node.statistics.sessions == 2)
    assert bdseqs(host, "NDEATH")[0] == 0 and bdseqs(host) == [0]
    log = (broker.folder / "log").read_text()
    assert log.index(f"NDEATH/{DEVICE}', ") < log.index("Received DISCONNECT from tocsin-sparkplug-edge-1")
    host.state(True, 20)
    until(lambda: len(host.of("DBIRTH", "fan")) == 2)
    assert bdseqs(host) == [0, 1]


@pytest.mark.broker
def test_a_host_that_blinks_gets_all_births_anew_before_any_data(
    broker: Mosquitto, plant: Plant, host_at: HostAt, until: Until
) -> None:
    broker.start()
    host = host_at(broker.port)
    host.state(True, 10)
    plant.start(broker.port, host=HOST)
    until(lambda: len(host.of("DBIRTH", "fan")) == 1)
    for n in (1, 2):
        host.blink(10 + n, last=True)
        until(lambda n=n: len(host.of("DBIRTH", "fan")) == 1 + n)
        settled(plant, host, until)
    assert bdseqs(host) == [0, 1, 2]
    kinds = [said.kind for said in host.said if said.kind != "NDEATH"]
    assert kinds == ["NBIRTH", "DBIRTH", "DBIRTH", *["NBIRTH", "DBIRTH", "DBIRTH", "DDATA"] * 2]


@pytest.mark.broker
def test_a_host_that_is_gone_as_soon_as_it_came_is_not_told(
    broker: Mosquitto, plant: Plant, host_at: HostAt, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    broker.start()
    host = host_at(broker.port)
    node = plant.start(broker.port, host=HOST)
    until(lambda: node.statistics.sessions == 1)
    host.blink(10, last=False)

    def heard(n: int) -> bool:
        host.raw_state(b"?", retain=False)  # again: the node may just be between two sessions
        return caplog.text.count("cannot be read") >= n

    for n in (1, 2):
        until(lambda n=n: heard(n))
    assert not node.statistics.born and len(host.of("NBIRTH")) <= len(host.of("NDEATH"))


@pytest.mark.broker
def test_a_host_that_was_online_has_to_say_so_again_in_a_new_session(
    broker: Mosquitto, plant: Plant, host_at: HostAt, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    broker.start()
    host = host_at(broker.port)
    host.state(True, 10)
    node = plant.start(broker.port, host=HOST)
    until(lambda: len(host.of("DBIRTH", "fan")) == 1)
    host.raw_state(b"OFFLINE")
    host.drive_out(broker.port)
    until(lambda: node.statistics.sessions == 2 and caplog.text.count("cannot be read") == 2)
    assert bdseqs(host) == [0] and not node.statistics.born
    host.state(True, 10)
    until(lambda: bdseqs(host) == [0, 1])


@pytest.mark.broker
def test_tck_id_operational_behavior_edge_node_termination_host_offline_timestamp(
    broker: Mosquitto, plant: Plant, host_at: HostAt, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    broker.start()
    host = host_at(broker.port)
    host.state(True, 10)
    node = plant.start(broker.port, host=HOST)
    until(lambda: len(host.of("DBIRTH", "fan")) == 1)
    host.state(False, 9)
    until(lambda: "older than the last" in caplog.text)
    settled(plant, host, until)
    assert node.statistics.sessions == 1 and host.of("NDEATH") == []


@pytest.mark.broker
def test_what_changed_while_the_host_was_offline_is_told_as_historical_after_the_births(
    broker: Mosquitto, plant: Plant, host_at: HostAt, until: Until
) -> None:
    broker.start()
    host = host_at(broker.port)
    node = plant.start(broker.port, host=HOST)
    until(lambda: node.statistics.sessions == 1)
    for n, ratio in enumerate((0.5, 2.0, 0.7)):
        plant.score(ratio, time_s=1_700_000_000.25 + n, quality=0 if ratio == 2.0 else 192)
    plant.desk.queue.put(a_transition(alarm="pump-1-anomaly"))
    until(lambda: "pump-1-anomaly" in plant.desk.standing_alarms())
    host.state(True, 10)
    until(lambda: len(ratios(host, historical=True)) == 2)
    birth = host.of("DBIRTH", "pump-1")[0]
    assert birth.metric("Score/Ratio").double_value == 0.7 and not birth.metric("Score/Ratio").is_historical
    assert birth.metric("Alarm/pump-1-anomaly/Active").boolean_value is True
    held = [metric for name, metric in host.changes("pump-1") if name == "Score/Ratio"]
    assert [(one.double_value, one.timestamp, one.is_historical) for one in held] == [
        (0.5, 1_700_000_000_250, True),
        (2.0, 1_700_000_001_250, True),
    ]
    assert [properties(one)["Quality"].int_value for one in held] == [192, 0]
    plant.score(3.0)
    until(lambda: ratios(host) == [3.0])


@pytest.mark.broker
def test_a_broker_that_is_away_holds_nobody_up_and_misses_nothing_when_it_is_back(
    broker: Mosquitto, plant: Plant, host_at: HostAt, until: Until
) -> None:
    broker.start()
    host = host_at(broker.port)
    node = plant.start(broker.port)
    until(lambda: len(host.of("DBIRTH", "fan")) == 1)
    host.close()
    broker.kill()
    until(lambda: node.statistics.last_error != "")
    for n in range(500):
        plant.score(float(n), time_s=1_700_000_000.0 + n)
    plant.desk.queue.put(a_transition(alarm="fan-anomaly", asset="fan"))
    plant.desk.queue.put(a_transition(Change.CLEARED, "fan-anomaly", asset="fan"))
    until(lambda: plant.desk.statistics.cleared == 1)
    assert not node.statistics.born
    broker.start()
    back = host_at(broker.port, "back")
    until(lambda: len(ratios(back, historical=True)) == 499, 60)
    assert ratios(back, historical=True) == [float(n) for n in range(499)]
    assert back.of("DBIRTH", "pump-1")[0].metric("Score/Ratio").double_value == 499.0
    until(lambda: "Alarm/fan-anomaly/Active" in dict(back.changes("fan")))
    active = [metric for name, metric in back.changes("fan") if name == "Alarm/fan-anomaly/Active"]
    assert [(one.boolean_value, one.is_historical) for one in active] == [(True, True)]
    assert back.of("DBIRTH", "fan")[0].metric("Alarm/fan-anomaly/Active").boolean_value is False
    assert node.statistics.dropped == 0


@pytest.mark.broker
def test_tck_id_topics_ddata_payload(broker: Mosquitto, plant: Plant, host_at: HostAt, until: Until) -> None:
    """operational-behavior-data-publish-dbirth-change: what changed by more than the deadband since it was told."""
    broker.start()
    host = host_at(broker.port)
    plant.start(broker.port, deadband=0.1)
    until(lambda: len(host.of("DBIRTH", "fan")) == 1)
    for ratio in (1.0, 1.05, 0.95, 1.09, 1.15, 1.1):
        plant.score(ratio)
    settled(plant, host, until)
    assert ratios(host) == [1.0, 1.15]
    plant.score(1.15, quality=0)
    settled(plant, host, until)
    assert ratios(host) == [1.0, 1.15, 1.15]


@pytest.mark.broker
def test_only_a_command_of_now_that_says_true_is_answered_with_births(
    broker: Mosquitto, plant: Plant, host_at: HostAt, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    broker.start()
    host = host_at(broker.port)
    host.rebirth(retain=True)
    plant.start(broker.port)
    until(lambda: len(host.of("DBIRTH", "fan")) == 1)
    host.rebirth(value=False)
    host.command(b"\x12\xff")
    until(lambda: "a command cannot be read" in caplog.text)
    settled(plant, host, until)
    assert len(host.of("NBIRTH")) == 1
    host.rebirth()
    until(lambda: len(host.of("DBIRTH", "fan")) == 2)
    assert bdseqs(host) == [0, 0] and host.of("NDEATH") == []


@pytest.mark.broker
def test_the_alarm_of_a_silent_source_is_told_by_the_node_while_its_asset_is_dead(
    broker: Mosquitto, plant: Plant, host_at: HostAt, until: Until
) -> None:
    broker.start()
    host = host_at(broker.port)
    plant.states["pump-1"] = "silent"
    plant.start(broker.port)
    until(lambda: len(host.of("DBIRTH", "fan")) == 1)
    assert host.of("DBIRTH", "pump-1") == []
    plant.desk.queue.put(a_transition(alarm="pump-1-stale", cause="data_gap"))
    until(lambda: "Alarm/pump-1-stale/Active" in dict(host.changes()))
    assert dict(host.changes())["Alarm/pump-1-stale/Active"].boolean_value is True
    plant.states["pump-1"] = "ok"
    until(lambda: len(host.of("DBIRTH", "pump-1")) == 1)
    assert host.of("DBIRTH", "pump-1")[0].seq == host.of("NDATA")[-1].seq + 1


@pytest.mark.broker
def test_tck_id_payloads_ndeath_will_message_publisher_disconnect_mqtt311(
    broker: Mosquitto, plant: Plant, host_at: HostAt, until: Until
) -> None:
    broker.extra = ["log_type all"]
    broker.start()
    host = host_at(broker.port)
    plant.start(broker.port, protocol="3.1.1")
    until(lambda: len(host.of("DBIRTH", "fan")) == 1)
    plant.stop()
    until(lambda: bdseqs(host, "NDEATH") == [0])
    log = (broker.folder / "log").read_text()
    said, left = log.index(f"'spBv1.0/{GROUP}/NDEATH/{DEVICE}'"), log.index("Received DISCONNECT from tocsin")
    assert "as tocsin-sparkplug-edge-1 (p2, c1" in log and said < left


@pytest.mark.broker
def test_the_access_rules_that_come_along_let_node_and_host_speak(
    broker: Mosquitto, plant: Plant, host_at: HostAt, until: Until
) -> None:
    broker.acl = ACL.read_text()
    broker.start()
    host, intruder = host_at(broker.port, username=HOST), host_at(broker.port, "intruder", "edge-2")
    intruder.state(True, 99)
    host.state(True, 10)
    plant.start(broker.port, host=HOST, username=DEVICE)
    until(lambda: len(host.of("DBIRTH", "fan")) == 1)
    intruder.rebirth()
    intruder.state(False, 99)
    settled(plant, host, until)
    assert len(host.of("NBIRTH")) == 1 and host.of("NDEATH") == []
    host.rebirth()
    until(lambda: len(host.of("DBIRTH", "fan")) == 2)
    host.drive_out(broker.port, DEVICE)
    until(lambda: bdseqs(host, "NDEATH") == [0])


@pytest.mark.broker
def test_a_subscription_that_the_broker_refuses_is_told(
    broker: Mosquitto, plant: Plant, tmp_path: Path, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    (plugin,) = Path("/usr/lib").rglob("mosquitto_dynamic_security.so")
    access = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    (tmp_path / "access.json").write_text(json.dumps({"defaultACLAccess": access}))
    broker.extra = [f"plugin {plugin}", f"plugin_opt_config_file {tmp_path}/access.json"]
    broker.start()
    node = plant.start(broker.port)
    until(lambda: "the broker refuses a subscription (NCMD, STATE)" in caplog.text)
    assert node.statistics.born


def test_a_broker_that_never_heard_a_number_costs_none(plant: Plant, unused_port: int, until: Until) -> None:
    node = plant.start(unused_port)
    until(lambda: node._attempt >= 5)
    plant.stop()
    assert (plant.folder / "sparkplug.bdseq").read_text() == "1\n" and node.statistics.sessions == 0


def test_numbers_of_sessions_go_on_over_restarts_and_from_255_to_0(tmp_path: Path) -> None:
    path = tmp_path / "bdseq"
    assert [Sessions(path).take() for _ in range(258)] == [*range(256), 0, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_number_that_is_given_back_is_taken_again_and_is_on_the_disk_all_the_time(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path / "bdseq")
    assert sessions.take() == 0
    sessions.give_back()
    written = (tmp_path / "bdseq").stat().st_mtime_ns
    assert sessions.take() == 0 and sessions.take() == 1
    assert (tmp_path / "bdseq").stat().st_mtime_ns >= written
    assert Sessions(tmp_path / "bdseq").take() == 2


@pytest.mark.parametrize("damage", [b"", b"x", b"\xff", b"9" * 5000])
def test_a_damaged_number_is_told_and_costs_no_session(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bdseq").write_bytes(damage)
    number = Sessions(tmp_path / "bdseq").take()
    assert 0 <= number < 256
    assert ("cannot be read" in caplog.text) == (number == 0)


def test_a_disk_that_takes_nothing_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sessions = Sessions(tmp_path / "gone/bdseq")
    assert [sessions.take() for _ in range(3)] == [0, 1, 2]
    assert caplog.text.count("cannot be written") == 1


states = st.dictionaries(
    st.sampled_from(["online", "timestamp"]), st.booleans() | st.integers() | st.floats() | st.none()
)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=50) | states.map(lambda said: json.dumps(said).encode()), max_size=5))
def test_whatever_a_host_says_it_is_online_only_by_a_true_and_a_time(payloads: list[bytes]) -> None:
    host = PrimaryHost()
    for payload in payloads:
        before = host.online
        host.take(payload)
        if host.online and not before:
            said: Any = json.loads(payload)
            assert said["online"] is True and said["timestamp"] >= 0
