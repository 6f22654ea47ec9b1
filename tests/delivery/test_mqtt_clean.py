"""`tocsin mqtt pub` and `clean`, as a user runs them, on a real broker."""

import subprocess
import sys

import pytest

from .conftest import DEVICE

pytestmark = pytest.mark.broker


def mqtt(*words: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tocsin.cli.main", "mqtt", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, input=text)


def test_what_is_published_arrives_whole_and_is_retained_when_asked(broker, consume, until) -> None:
    broker.start()
    to = ("--host", "127.0.0.1", "--port", broker.port)
    hears = consume(broker.port, topics="#")
    assert mqtt("pub", "a/b", "é 1", "--retain", *to).returncode == 0
    assert mqtt("pub", "a/c", *to, text='{"x": 1}').returncode == 0
    until(lambda: len(hears.messages) == 2)
    assert [(m.topic, m.payload.decode()) for m in hears.messages] == [("a/b", "é 1"), ("a/c", '{"x": 1}')]
    late = consume(broker.port, topics="a/#", name="late")
    until(lambda: [m.topic for m in late.messages] == ["a/b"])
    wrong = mqtt("pub", "a/#", "x", *to)
    assert wrong.returncode == 2 and "expected one without + and #" in wrong.stderr


def test_what_a_device_left_at_the_broker_is_taken_back_and_nothing_else(broker, consume, publish, until) -> None:
    broker.start()
    to = ("--host", "127.0.0.1", "--port", broker.port, "--device", DEVICE)
    assert mqtt("pub", "tocsin/edge-10/status", "online", "-r", *to[:-2]).returncode == 0
    publisher = publish(broker.port, home_assistant=True)
    until(lambda: publisher.statistics.connected and publisher.statistics.settled)
    online = mqtt("clean", *to)
    assert online.returncode == 6 and "is online and would say it all again" in online.stderr
    publisher.stop()
    kept = [
        f"homeassistant/device/tocsin-{DEVICE}/config",
        *(f"tocsin/{DEVICE}/{t}" for t in ("health", "info", "status")),
    ]
    assert mqtt("clean", "--dry-run", *to).stdout.splitlines() == kept
    assert mqtt("clean", *to).stdout.splitlines() == kept
    left = consume(broker.port, topics="#", name="late")
    until(lambda: left.messages)
    assert [m.topic for m in left.messages] == ["tocsin/edge-10/status"]
    again = mqtt("clean", *to)
    assert (again.returncode, again.stdout) == (0, "") and "keeps nothing of" in again.stderr
