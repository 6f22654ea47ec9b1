"""Values over MQTT, from a real mosquitto."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import ValidationError

from tocsin.delivery.connection import Received
from tocsin.errors import SourceError
from tocsin.records import SampleBlock
from tocsin.sources.mqtt import MqttSource, MqttSourceSettings, PayloadReader

CHANNELS = [
    {"name": "pressure", "unit": "bar", "path": "sensors[0].value", "scale": 2.0},
    {"name": "flow", "unit": "l/min", "topic": "plant/+/flow", "offset": 1.0},
]


def the_settings(port: int = 1883, **others: Any) -> MqttSourceSettings:
    broker = {"host": "127.0.0.1", "port": port, **others.pop("broker", {})}
    known = {"type": "mqtt", "topic": "plant/pump/#", "rate_hz": 20, "channels": CHANNELS}
    return MqttSourceSettings.model_validate({**known, "broker": broker, **others})


@pytest.fixture
def publish(broker: Any) -> Iterator[Callable[..., None]]:
    """Sends a message through the broker, and waits until that has it; the broker runs."""
    broker.start()
    made: list[paho.Client] = []

    def send(topic: str, payload: Any, retain: bool = False) -> None:
        if not made or not made[0].is_connected():
            made[:] = [paho.Client(CallbackAPIVersion.VERSION2, "peer")]
            made[0].connect("127.0.0.1", broker.port)
            made[0].loop_start()
        content = payload if isinstance(payload, bytes | str) else json.dumps(payload)
        made[0].publish(topic, content, 1, retain).wait_for_publish(5)

    yield send
    for client in made:
        client.disconnect()
        client.loop_stop()


def read_rows(source: MqttSource, rows: int, timeout_s: float = 5.0) -> SampleBlock:
    blocks, end = [], time.monotonic() + timeout_s
    while sum(map(len, blocks)) < rows and time.monotonic() < end:
        blocks.append(source.read(0.05))
    return SampleBlock(np.concatenate([b.time_s for b in blocks]), np.concatenate([b.values for b in blocks]))


def opened(settings: MqttSourceSettings) -> MqttSource:
    source = MqttSource(settings)
    source.open()
    return source


@pytest.mark.broker
def test_stamps_of_the_payload_are_those_of_the_rows(broker, publish, until):
    only = [{"name": "pressure", "path": "v", "topic": "plant/pump/state"}]
    source = opened(the_settings(broker.port, time="t", rate_hz=1, channels=[*only, CHANNELS[1]]))
    base = 1_780_000_000.25  # another clock than ours
    for n in range(10):
        publish("plant/pump/state", {"t": base + n, "v": n})
    block = read_rows(source, 9)
    source.close()
    np.testing.assert_allclose(block.time_s[:9], base + np.arange(9), atol=1e-6)
    assert block.values[:9, 0].tolist() == list(range(9))
    assert np.isnan(block.values[:, 1]).all()


@pytest.mark.broker
def test_messages_without_a_stamp_are_stamped_on_arrival(broker, publish, until):
    source = opened(the_settings(broker.port))
    publish("plant/a/flow", "41")
    publish("plant/pump/x", {"sensors": [{"value": "3.5"}]})
    block = read_rows(source, 1)
    source.close()
    assert block.values[-1].tolist() == [7.0, 42.0]
    assert abs(block.time_s[-1] - time.time()) < 2


@pytest.mark.broker
def test_a_message_that_cannot_be_read_is_counted_and_the_next_is_read(broker, publish, until):
    source = opened(the_settings(broker.port, largest=1000))
    for payload in (b"", b"\xff\x00", b"{}", b'{"sensors": {}}', b'{"sensors":[{"value":"x"}]}', b"[" * 900):
        publish("plant/pump/x", payload)
    publish("plant/pump/flow", "1" * 3000)
    publish("plant/pump/x", {"sensors": [{"value": 1}]})
    until(lambda: source.read(0.05).values[:, 0].tolist()[-1:] == [2.0])
    source.close()
    assert source.counts.bad >= 6 and source.counts.reasons["no number"] == 1
    assert source.counts.reasons["no channel in it"] == 2


@pytest.mark.broker
def test_a_message_that_is_too_large_is_refused_by_the_broker_and_by_the_source(broker, publish, until):
    for protocol in ("5", "3.1.1"):
        settings = the_settings(broker.port, largest=64, broker={"protocol": protocol})
        source = opened(settings)
        publish("plant/a/flow", "1" + " " * 4000)
        publish("plant/a/flow", "1" + " " * 100)
        publish("plant/a/flow", "1")
        until(lambda one=source: one.read(0.05).values[:, 1].tolist()[-1:] == [2.0])
        source.close()
        assert source.counts.reasons["too large"] == (1 if protocol == "5" else 2)


@pytest.mark.broker
def test_a_retained_message_counts_only_where_its_age_is_known(broker, publish, until):
    publish("plant/pump/flow", "5", retain=True)
    fresh = opened(the_settings(broker.port))
    assert len(read_rows(fresh, 1, 0.3)) == 0
    fresh.close()
    taken = opened(the_settings(broker.port, retained=True, on_change=True))
    assert read_rows(taken, 1).values[0, 1] == 6.0
    taken.close()


@pytest.mark.broker
def test_a_lost_broker_is_told_and_comes_back(broker, publish, until):
    source = opened(the_settings(broker.port))
    broker.kill()
    with pytest.raises(SourceError, match="the connection ended"):
        for _ in range(100):
            source.read(0.05)
    source.close()
    with pytest.raises(SourceError, match="is the broker running"):
        source.open()
    broker.start()
    begin = time.monotonic()
    again = opened(the_settings(broker.port))
    publish("plant/pump/flow", "1")
    assert len(read_rows(again, 1)) >= 1
    assert time.monotonic() - begin < 5
    again.close()


@pytest.mark.broker
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_refused_subscription_is_told(broker, tmp_path, protocol):
    (plugin,) = Path("/usr/lib").rglob("mosquitto_dynamic_security.so")
    access = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    (tmp_path / "access.json").write_text(json.dumps({"defaultACLAccess": access}))
    broker.extra = [f"plugin {plugin}", f"plugin_opt_config_file {tmp_path}/access.json"]
    broker.start()
    with pytest.raises(SourceError, match=r"refuses a subscription to plant/pump/#, plant/\+/flow: .*may this user"):
        MqttSource(the_settings(broker.port, broker={"protocol": protocol})).open()


@pytest.mark.broker
def test_a_password_is_read_from_its_file_and_a_wrong_one_is_told(broker, tmp_path):
    subprocess.run(["mosquitto_passwd", "-c", "-b", tmp_path / "users", "reader", "right"], check=True)
    (tmp_path / "users").chmod(0o644)
    broker.extra = ["allow_anonymous false", f"password_file {tmp_path}/users"]
    broker.start()
    secret = tmp_path / "secret"
    access = {"username": "reader", "password_file": str(secret)}
    secret.write_text("right\n")
    source = MqttSource(the_settings(broker.port, broker=access))
    source.open()
    source.close()
    secret.write_text("wrong\n")
    with pytest.raises(SourceError, match=r"refused: .*check user, password"):
        MqttSource(the_settings(broker.port, broker=access)).open()


def test_a_read_before_open_is_a_source_error():
    with pytest.raises(SourceError, match="not connected"):
        MqttSource(the_settings()).read(0.01)


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        (1_780_000_000, 1_780_000_000.0),
        (1_780_000_000.5, 1_780_000_000.5),
        (1_780_000_000_250, 1_780_000_000.25),
        (1_780_000_000_250_000, 1_780_000_000.25),
        (1_780_000_000_250_000_000, 1_780_000_000.25),
        ("1780000000", 1_780_000_000.0),
        ("2026-05-28T20:26:40Z", 1_780_000_000.0),
        ("2026-05-28T22:26:40.250+02:00", 1_780_000_000.25),
        (12.5, None),  # a clock that was never set
        ("1970-01-01T00:00:12Z", None),
    ],
)
def test_stamps_are_seconds_milliseconds_or_rfc_3339(stamp: object, seconds: float | None):
    reader = PayloadReader(the_settings(time="t", channels=[{"name": "p", "path": "v"}]))
    found = reader.read("plant/pump/x", json.dumps({"t": stamp, "v": 1}).encode())
    assert found == (seconds if seconds is None else pytest.approx(seconds, abs=1e-6), [(0, 1.0)])


@pytest.mark.parametrize("stamp", ["yesterday", "2026-05-28T20:26:40", -5, [], {}, True, 1e300, "9999-12-31T00:00:00Z"])
def test_a_stamp_that_is_none_is_refused(stamp: object):
    reader = PayloadReader(the_settings(time="t", channels=[{"name": "p", "path": "v"}]))
    if stamp is True:
        assert reader.read("plant/pump/x", json.dumps({"t": stamp, "v": 1}).encode())[0] is None
        return
    with pytest.raises(ValueError, match=r"^time stamp$"):
        reader.read("plant/pump/x", json.dumps({"t": stamp, "v": 1}).encode())


def test_a_topic_of_no_channel_is_left_alone():
    assert PayloadReader(the_settings()).read("other/x", b"?") == (None, [])


@pytest.mark.parametrize("topic", ["", "a/#/b", "a#", "a+/b", "##"])
def test_what_is_no_topic_filter_is_refused(topic: str):
    with pytest.raises(ValidationError, match="topic"):
        the_settings(topic=topic)


def test_a_path_that_is_none_is_refused_with_its_column():
    with pytest.raises(ValidationError, match="column 2: expected"):
        the_settings(time="t[")


def test_what_waits_is_bounded_in_bytes_and_what_is_too_large_is_refused_at_once():
    source = MqttSource(the_settings(largest=65_536))
    for _ in range(200):
        source._put(Received("plant/a/flow", b"1" + b" " * 65_000, 0, False))
    source._put(Received("plant/a/flow", b"1" * 70_000, 0, False))
    waiting = [source._events.get_nowait() for _ in range(source._events.qsize())]
    assert len(waiting) > 60 and sum(len(event.payload) for event in waiting) <= 4 << 20
    assert source._refused == {"too large": 1, "too many at once": 200 - len(waiting)}


def test_a_channel_without_a_topic_is_refused():
    with pytest.raises(ValidationError, match="channel 'pressure' has no topic"):
        the_settings(topic=None)
    assert PayloadReader(the_settings(topic=None, channels=CHANNELS[1:])).filters == ["plant/+/flow"]
