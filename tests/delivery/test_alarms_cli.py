"""`tocsin alarms`, as a user runs it, against an agent's publisher and desk over a real broker."""

import json
import subprocess
import sys
import threading

import pytest

from tocsin.alarm_desk import AlarmDesk
from tocsin.alarms.lifecycle import Handling
from tocsin.alarms.plan import Condition, Plan
from tocsin.delivery.requests import Requests
from tocsin.records import Change

from .conftest import CONTEXTS, DEVICE

ALARM = "pump-1-model"


def alarms(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tocsin.cli.main", "alarms", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture
def device(broker, publish, outbox, transition, until):
    """An alarm stands at a device that is connected; gives the options that lead to it."""
    broker.start()
    wake = threading.Event()
    plan = Plan({ALARM: Condition("pump-1", "model", Handling(auto_ack=False))})
    desk = AlarmDesk(outbox, DEVICE, CONTEXTS, wake.set, plan=plan)
    desk.start()
    desk.queue.put(transition(Change.RAISED, ALARM))
    publisher = publish(broker.port, requests=Requests(DEVICE, ("ack", "shelve"), 60, desk.order))
    until(lambda: publisher.statistics.connected and wake.is_set())
    publisher.wake()
    until(lambda: publisher.statistics.settled)
    yield ("--host", "127.0.0.1", "--port", broker.port, "--device", DEVICE)
    desk.stop()


@pytest.mark.broker
def test_alarms_are_listed_and_acknowledged(device) -> None:
    listed = alarms("list", *device)
    assert listed.returncode == 0 and "unacked" in listed.stdout and ALARM in listed.stdout
    done = alarms("ack", ALARM, *device, "--by", "ann", "--comment", "on my way")
    assert (done.returncode, done.stdout) == (0, f"{ALARM} is acked\n"), done.stderr
    (body,) = json.loads(alarms("list", *device, "--json").stdout)["alarms"]
    assert (body["state"], body["acked_by"], body["comment"]) == ("acked", "ann", "on my way")


@pytest.mark.broker
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ack", "pump-9-model"), "unknown_alarm: no alarm 'pump-9-model': there are pump-1-model"),
        (("shelve", ALARM, "--for", "30d"), "too_long: shelve needs a time, at most 24 h"),
        (("suppress", ALARM), "not_allowed: suppress is not allowed here: `mqtt.commands` allows ack, shelve"),
    ],
)
def test_what_the_device_refuses_ends_with_1_and_says_why(device, words, says) -> None:
    done = alarms(*words, *device)
    assert done.returncode == 1 and says in done.stderr and done.stdout == ""


@pytest.mark.broker
def test_a_device_that_does_not_answer_is_told_as_such_with_exit_code_6(broker) -> None:
    broker.start()
    done = alarms("ack", ALARM, "--host", "127.0.0.1", "--port", broker.port, "--device", "nobody", "--timeout", "0.5")
    assert done.returncode == 6 and "no reply within 0.5 s: is the device connected" in done.stderr
    assert alarms("list", "--host", "127.0.0.1", "--port", broker.port).stderr == "no alarms\n"


def test_without_a_device_it_asks_for_one() -> None:
    done = alarms("ack", ALARM)
    assert done.returncode == 2 and "which device? give --device, or --config" in done.stderr
