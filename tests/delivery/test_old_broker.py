"""A broker that speaks MQTT 3.1.1 only, as the one that the demo brings along; and brokers that are none."""

import asyncio
import socket
import threading

import pytest

from tocsin.config import BrokerSettings, MqttSettings, TlsSettings
from tocsin.delivery.connection import Access
from tocsin.errors import BrokerError, ConfigError

amqtt_broker = pytest.importorskip("amqtt.broker")


@pytest.fixture
def old_broker(unused_port):
    """amqtt, in a thread with its own event loop."""
    up, loop = threading.Event(), asyncio.new_event_loop()
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{unused_port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }

    async def serve() -> amqtt_broker.Broker:
        broker = amqtt_broker.Broker(config)
        await broker.start()
        up.set()
        return broker

    made = []
    thread = threading.Thread(target=lambda: (made.append(loop.run_until_complete(serve())), loop.run_forever()))
    thread.start()
    assert up.wait(10)
    yield unused_port
    asyncio.run_coroutine_threadsafe(made[0].shutdown(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def test_a_broker_without_mqtt_5_gets_3_1_1_and_info_says_so(old_broker, consume, publish, desk_of, transition, until):
    consumer = consume(old_broker)
    publisher = publish(old_broker)
    desk = desk_of(wake=publisher.wake)
    desk.start()
    desk.queue.put(transition())
    desk.stop()
    until(lambda: len(consumer.on("event/alarm")) == 1 and len(consumer.on("info")) == 1)
    assert publisher.statistics.protocol == "3.1.1"
    assert b'"protocol":"3.1.1"' in consumer.on("info")[0].payload
    until(lambda: publisher.statistics.outbox_depth == 0)
    publisher.stop()
    until(lambda: [message.payload for message in consumer.on("status")] == [b"online", b"stopped"])


def test_no_fall_back_where_mqtt_5_is_demanded(old_broker, publish, until):
    publisher = publish(old_broker, protocol="5")
    until(lambda: "MQTT 5" in publisher.statistics.last_error)
    assert not publisher.statistics.connected


def test_a_broker_that_is_not_there_is_a_broker_error(unused_port):
    access = Access.read(MqttSettings(host="127.0.0.1", port=unused_port))
    with pytest.raises(BrokerError, match=r"no.such.host.invalid:1883: .*no name server knows it"):
        Access.read(BrokerSettings(host="no.such.host.invalid")).connect("x", lambda _: None)
    with pytest.raises(BrokerError, match=f"127.0.0.1:{unused_port}: Connection refused"):
        access.connect("nobody", print)


def test_a_listener_that_hangs_up_is_a_broker_error(unused_port):
    with socket.create_server(("127.0.0.1", unused_port)) as server:

        def hang_up() -> None:
            for _ in range(2):  # both protocols are tried
                server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(BrokerError, match=r"no connection with MQTT 3\.1\.1"):
            Access.read(MqttSettings(host="127.0.0.1", port=unused_port)).connect("nobody", print)
        thread.join()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tls": {"ca_file": "/nowhere/ca.pem"}}, "mqtt.tls.ca_file: /nowhere/ca.pem is no file"),
        ({"tls": {"cert_file": __file__}}, "belong together"),
        ({"tls": {"ca_file": __file__}}, "expected PEM"),
        ({"tls": {"cert_file": __file__, "key_file": __file__}}, "expected PEM"),
        ({"password_file": "/nowhere/password"}, "mqtt.password_file: /nowhere/password"),
    ],
)
def test_files_that_are_missing_or_wrong_are_found_before_connecting(settings, said):
    with pytest.raises(ConfigError, match=said):
        Access.read(MqttSettings.model_validate(settings))


def test_the_password_is_the_first_line_and_tls_verifies_the_hosts_name(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("s3cret\nnote\n")
    access = Access.read(MqttSettings(username="edge-1", password_file=secret, tls=TlsSettings()))
    assert (access.password, access.port) == ("s3cret", 8883)
    assert access.tls is not None and access.tls.check_hostname
