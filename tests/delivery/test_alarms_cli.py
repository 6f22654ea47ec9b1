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


@pytest.mark.broker
def test_a_group_is_asked_and_each_device_answers(device) -> None:
    done = alarms("ack", "all", *device[:-2], "--group", "all", "--timeout", "2")
    assert (done.returncode, done.stdout) == (0, f"{DEVICE}: {ALARM} is acked\n"), done.stderr
    nobody = alarms("ack", "all", *device[:-2], "--group", "no-such", "--timeout", "0.5")
    assert nobody.returncode == 6 and "is a device of that group" in nobody.stderr


@pytest.mark.broker
def test_what_is_asked_while_the_device_is_away_is_done_when_it_is_back_once(
    broker, publish, outbox, transition, until
) -> None:
    broker.start()
    plan = Plan({ALARM: Condition("pump-1", "model", Handling(auto_ack=False))})
    desk = AlarmDesk(outbox, DEVICE, CONTEXTS, lambda: None, plan=plan)
    desk.start()
    desk.queue.put(transition(Change.RAISED, ALARM))
    until(lambda: outbox.depth() == 2)
    requests = Requests(DEVICE, ("ack",), 60, desk.order)
    first = publish(broker.port, requests=requests)
    until(lambda: first.statistics.connected and first.statistics.settled)
    first.stop()
    to = ("--host", "127.0.0.1", "--port", broker.port, "--device", DEVICE, "--timeout", "0.5")
    away = [alarms("ack", ALARM, *to, "--by", by) for by in ("ann", "bob")]
    assert [done.returncode for done in away] == [6, 6] and "when it is back" in away[0].stderr
    assert desk.standing_alarms()[ALARM].acked_by is None
    second = publish(broker.port, requests=requests)
    until(lambda: desk.standing_alarms()[ALARM].acked_by is not None)
    until(lambda: second.statistics.settled and len(outbox.audit()) == 3)
    assert desk.standing_alarms()[ALARM].acked_by == "ann"
    audit = [json.loads(line) for line in outbox.audit()][1:]
    assert [(line["action"], line["by"], line["outcome"]) for line in audit] == [
        ("ack", "ann", "done"), ("ack", "bob", "unchanged"),
    ]  # fmt: skip
    second.stop()
    third = publish(broker.port, requests=requests)
    until(lambda: third.statistics.connected and third.statistics.settled)
    assert len(outbox.audit()) == 3, "the broker forgot what was done"
    desk.stop()


@pytest.mark.broker
def test_an_occurrence_that_is_over_leaves_the_next_one_unacknowledged(
    broker, publish, outbox, transition, until
) -> None:
    broker.start()
    plan = Plan({ALARM: Condition("pump-1", "model")})
    desk = AlarmDesk(outbox, DEVICE, CONTEXTS, lambda: None, plan=plan)
    desk.start()
    desk.queue.put(transition(Change.RAISED, ALARM))
    requests = Requests(DEVICE, ("ack",), 60, desk.order)
    until(lambda: outbox.depth() == 2)
    first = publish(broker.port, requests=requests)
    until(lambda: first.statistics.connected and first.statistics.settled)
    first.stop()
    to = ("--host", "127.0.0.1", "--port", broker.port, "--device", DEVICE, "--timeout", "0.5")
    assert alarms("ack", ALARM, *to).returncode == 6
    for change in (Change.CLEARED, Change.RAISED):
        desk.queue.put(transition(change, ALARM))
    until(lambda: len(outbox.audit()) == 3)
    publish(broker.port, requests=requests)
    until(lambda: len(outbox.audit()) == 4)
    assert json.loads(outbox.audit()[-1])["outcome"] == "refused"
    assert desk.standing_alarms()[ALARM].acked_by is None
    desk.stop()


def test_without_a_device_it_asks_for_one() -> None:
    done = alarms("ack", ALARM)
    assert done.returncode == 2 and "which device? give --device, or --config" in done.stderr
