"""`tocsin mqtt sub`, as a user runs it."""

import json
import signal
import socket
import subprocess
import sys
import threading

import pytest

from tocsin.cli.mqtt import readable
from tocsin.delivery.connection import Received

SUB = [sys.executable, "-m", "tocsin.cli.main", "mqtt", "sub", "--host", "127.0.0.1", "--port"]


def listening(*args: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([*SUB, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.readline()
    assert said.startswith("listening to"), said + process.stderr.read()
    return process


@pytest.mark.broker
def test_an_alarm_is_one_line_for_a_person_and_one_object_for_a_program(broker, publish, desk_of, transition, until):
    broker.start()
    person = listening(str(broker.port), "-n", "1", "-t", "tocsin/+/event/alarm")
    program = listening(str(broker.port), "-n", "1", "-t", "tocsin/+/event/alarm", "--json")
    publisher = publish(broker.port)
    until(lambda: publisher.statistics.connected)
    desk = desk_of(wake=publisher.wake)
    desk.start()
    desk.queue.put(transition())
    desk.stop()
    line, _ = person.communicate(timeout=20)
    assert line.count("\n") == 1
    assert " major pump-1 NEW pump-1 behaves unlike its normal running: Pressure (54 %) 2.31 bar where 5.02" in line
    assert line.endswith("ratio 2.0 [pressure 54%, flow 46%]\n")
    form = json.loads(program.communicate(timeout=20)[0])
    assert form["topic"] == "tocsin/edge-1/event/alarm" and form["payload"]["type"] == "new" and not form["retain"]
    assert person.returncode == program.returncode == 0


def test_a_broker_that_is_not_there_is_said_in_one_line_with_exit_code_6(unused_port):
    done = subprocess.run([*SUB, str(unused_port)], check=False, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (6, "", 1)
    assert "Connection refused" in done.stderr


@pytest.mark.broker
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it_cleanly(broker, sent, code):
    broker.start()
    process = listening(str(broker.port))
    process.send_signal(sent)
    _, said = process.communicate(timeout=20)
    assert process.returncode == code and "Traceback" not in said


@pytest.mark.broker
def test_when_the_broker_comes_back_messages_go_on(broker, consume):
    broker.start()
    process = listening(str(broker.port), "-n", "2")
    consume(broker.port, name="a")._client.publish("tocsin/edge-1/x", "before", qos=1)
    assert process.stdout.readline() == "tocsin/edge-1/x before\n"
    broker.kill()
    assert "the connection ended" in process.stderr.readline()
    broker.start()
    while not (said := process.stderr.readline()).startswith("listening to"):
        assert "trying again" in said
    consume(broker.port, name="b")._client.publish("tocsin/edge-1/x", "after", qos=1)
    assert process.communicate(timeout=20)[0] == "tocsin/edge-1/x after\n"
    assert process.returncode == 0


def test_a_subscription_that_is_refused_is_said_with_exit_code_6():
    with socket.create_server(("127.0.0.1", 0)) as server:  # mosquitto refuses no subscription, others do

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x20\x03\x00\x00\x00")
                packet = connection.recv(4096)[2:4]
                connection.sendall(b"\x90\x04" + packet + b"\x00\x87")
                connection.recv(4096)

        threading.Thread(target=refuse, daemon=True).start()
        args = [*SUB, str(server.getsockname()[1]), "-t", "secret/x"]
        done = subprocess.run(args, check=False, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (6, "")
    assert "refuses secret/x: Not authorized: may this user read there?" in done.stderr


@pytest.mark.parametrize(
    "payload", [b"", b"online", b"\xff\xfe", b"[" * 100_000, b'{"after":{}}', b'{"severity":1,"contributions":[1]}']
)
def test_whatever_is_published_is_one_line(payload):
    assert "\n" not in readable(Received("tocsin/x", payload, 0, False))


def test_what_people_did_is_shown_as_it_is_and_a_flood_as_a_list():
    audit = {
        "time": "2025-03-09T14:05:59.250Z",
        "alarm": "p-anomaly",
        "action": "ack",
        "by": "ann",
        "severity": "major",
    }
    line = readable(Received("tocsin/edge-1/event/audit", json.dumps(audit).encode(), 1, False))
    assert line.startswith("tocsin/edge-1/event/audit {") and '"by": "ann"' in line
    alarms = [{"time": f"t{n}", "severity": "major", "text": f"press-{n} trips"} for n in range(2)]
    flood = {"type": "begin", "time": "t9", "text": "12 new alarms", "count": 12, "alarms": alarms}
    shown = readable(Received("tocsin/edge-1/event/flood", json.dumps(flood).encode(), 1, False)).splitlines()
    assert shown == ["t9 FLOOD 12 new alarms", "   t0 major press-0 trips", "   t1 major press-1 trips"]
    over = readable(Received("x/y/event/flood", json.dumps(flood | {"type": "end"}).encode(), 1, False))
    assert over == "t9 FLOOD OVER 12 new alarms"
