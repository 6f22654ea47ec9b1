"""`tocsin status`, as a user runs it, against an agent's publisher and desk over a real broker."""

import json
import subprocess
import sys

import pytest

from tocsin.records import Change

from .conftest import DEVICE

pytestmark = pytest.mark.broker


def status(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tocsin.cli.main", "status", "--host", "127.0.0.1", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_a_device_is_shown_with_its_alarms_and_the_exit_code_says_how_it_fares(
    broker, publish, desk_of, transition, until
) -> None:
    broker.start()
    to = ("--port", broker.port)
    nobody = status(*to)
    assert (nobody.returncode, nobody.stdout) == (0, "") and "knows no device" in nobody.stderr
    publisher = publish(broker.port)
    until(lambda: publisher.statistics.connected and publisher.statistics.settled)
    well = status(*to)
    assert well.returncode == 0, well.stderr
    assert well.stdout.startswith(f"{DEVICE} ") and "online, tocsin 0, ok" in well.stdout
    desk = desk_of(wake=publisher.wake)
    desk.start()
    desk.queue.put(transition())
    until(lambda: publisher.statistics.acknowledged >= 1)  # the event waits for a listener
    alarm = status(*to, "--device", DEVICE)
    assert alarm.returncode == 8 and "major unacked: pump-1 behaves unlike its normal running" in alarm.stdout
    form = json.loads(status(*to, "--json").stdout)
    assert form[DEVICE]["alarms"]["pump-1-model"]["active"] and form[DEVICE]["status"] == "online"
    desk.queue.put(transition(Change.CLEARED))
    desk.stop()
    until(lambda: publisher.statistics.acknowledged >= 2)
    assert "pump-1-model" not in status(*to).stdout
    publisher.stop()
    away = status(*to)
    assert away.returncode == 1 and "stopped" in away.stdout
    unknown = status(*to, "--device", "edge-9")
    assert unknown.returncode == 6 and "knows no device 'edge-9'" in unknown.stderr
