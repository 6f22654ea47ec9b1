"""Faults of clocks and of sensors, under a whole agent: its process, a broker, and real other ends.

`make chaos` runs more rounds than `make test`: as many as `CHAOS_ROUNDS` says.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tocsin.cli.main import main
from tocsin.core.bundle import load_bundle
from tocsin.pipeline import AssetLine
from tocsin.records import SampleBlock

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.broker

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
DATA = Path(__file__).parents[1] / "data"
LINES = (DATA / "normal.csv").read_text().splitlines()[1:]  # whole periods: it may be repeated without a jump
RATE_HZ, POLLS_HZ, WINDOW = 20.0, 2.5, 8
RECONNECT_S = 5.0
# An agent whose wall clock is off by what a file says.
AGENT = """
import sys, time
real, offset = time.time, sys.argv.pop(1)
def wall():
    with open(offset) as file:
        return real() + float(file.read())
time.time = wall
from tocsin.cli.main import main
main()
"""


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Path]:
    """A model of the lines, sent at so many a second."""
    made: dict[float, Path] = {}

    def make(rate_hz: float) -> Path:
        if rate_hz not in made:
            folder = tmp_path_factory.mktemp("chaos")
            rows = "".join(f"{n / rate_hz:.4f},{line.split(',', 1)[1]}\n" for n, line in enumerate(LINES))
            (folder / "normal.csv").write_text("time,pressure [bar],flow [l/min]\n" + rows)
            more = ("--families", "t2", "--window", str(WINDOW), "--hop", "1", "--version", "1", "--quiet")
            with pytest.raises(SystemExit) as ended:
                main(["train", "--data", str(folder / "normal.csv"), "--out", str(folder), "--asset", "m", *more])
            assert ended.value.code == 0
            made[rate_hz] = folder / "m-1.tocsin"
        return made[rate_hz]

    return make


class Node:
    """A sensor node that sends a line each 50 ms while it is on; the one being sent may be replaced.

    Attributes:
        sent: lines.
        line: sent again and again instead of the recorded ones; None = those.
    """

    def __init__(self, wire: Any) -> None:
        self.wire, self.sent, self.line = wire, 0, None
        self.on = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def text(self) -> bytes:
        self.sent += 1
        return (self.line or LINES[self.sent % len(LINES)].split(",", 1)[1]).encode() + b"\n"

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._end.wait(max(0.0, due_s - time.monotonic())):
            if self.on.is_set():
                self.wire.send(self.text())
            due_s = max(due_s + 1 / RATE_HZ, time.monotonic() - 0.5)

    def burst(self, lines: int) -> None:
        """As many lines as were kept back, at once."""
        self.wire.send(b"".join(self.text() for _ in range(lines)))

    def stop(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def node(wire: Any) -> Iterator[Node]:
    made = Node(wire)
    yield made
    made.stop()


@contextmanager
def agent(folder: Path, port: int, assets: list[dict[str, Any]], offset: Path | None = None) -> Iterator[None]:
    """The agent's own process, until it is told to stop; it must end well."""
    config = folder / "tocsin.yaml"
    document = {"version": 1, "device": "edge-1", "state_dir": "state", "mqtt": {"host": "127.0.0.1", "port": port}}
    config.write_text(yaml.safe_dump({**document, "assets": assets}))
    begin = ["-c", AGENT, str(offset)] if offset else ["-m", "tocsin.cli.main"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *begin, "run", "-c", str(config)], stderr=log, stdout=log)
    try:
        yield
        assert process.poll() is None, (folder / "log").read_text()
        process.terminate()
        assert process.wait(20) == 0, (folder / "log").read_text()
    finally:
        process.kill()
        process.wait()


def raised(consumer: Any) -> list[tuple[str, str]]:
    """(alarm, class) of each alarm so far."""
    events = [json.loads(message.payload) for message in consumer.on("event/alarm")]
    return [(event["after"]["alarm"], event["after"]["class"]) for event in events if event["type"] == "new"]


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_clock_that_is_set_loses_and_doubles_no_window_and_is_no_fault_of_the_machine(
    bundle_of: Callable[[float], Path],
    node: Node,
    broker: Any,
    consume: Callable[..., Any],
    until: Callable[..., None],
    tmp_path: Path,
) -> None:
    broker.start()
    consumer, offset = consume(broker.port), tmp_path / "offset"
    now_s = time.time()
    clocks_s = [0.0, 3600.0, 0.0, -3600.0, 400 * 86400.0, 0.0] * ROUNDS

    def set_clock(offset_s: float) -> None:
        (tmp_path / "new").write_text(repr(offset_s))
        (tmp_path / "new").replace(offset)

    set_clock(1000.0 - now_s)  # 1970, as a board without a battery starts
    channels = ["pressure [bar]", "flow [l/min]"]
    source = {"type": "serial", "port": str(node.wire.port), "rate_hz": RATE_HZ, "channels": channels}
    with agent(tmp_path, broker.port, [{"id": "m", "bundle": str(bundle_of(RATE_HZ)), "source": source}], offset):
        until(lambda: b"online" in [message.payload for message in consumer.on("status")], 30.0)
        time.sleep(1.0)  # the port is open
        node.on.set()
        for n, offset_s in enumerate(clocks_s):
            until(lambda n=n: len(consumer.on("score/m")) >= 16 * (n + 1), 30.0)
            set_clock(offset_s)
        until(lambda: len(consumer.on("score/m")) >= 16 * (len(clocks_s) + 1), 30.0)
        node.on.clear()
        time.sleep(1.0)  # what was sent is scored
    until(lambda: [message.payload for message in consumer.on("status")][-1] == b"stopped")
    scores = [json.loads(message.payload) for message in consumer.on("score/m")]
    samples = node.sent - 1  # the first line may have begun before the port was open: it is left out
    assert [score["seq"] for score in scores] == list(range(1, samples - WINDOW + 2))
    steps_s = np.diff([at(score["time"]) for score in scores])
    jumps_s = steps_s[np.abs(steps_s) > 100]
    set_s = np.diff([1000.0 - now_s, *clocks_s])
    np.testing.assert_allclose(jumps_s, set_s[set_s != 0], atol=1.0)
    assert set(raised(consumer)) == {("clock", "comms")}
    assert [message.payload for message in consumer.on("status")] == [b"online", b"stopped"]


def test_lines_that_are_lost_are_no_fault_of_the_machine(bundle_of: Callable[[float], Path]) -> None:
    """However many in a row: few are filled, more are a gap; what is filled must not look like a fault."""
    bundle = load_bundle(bundle_of(RATE_HZ))
    rows = np.array([[float(value) for value in line.split(",")[1:]] for line in LINES[:200]])
    times = 1.78e9 + np.arange(len(rows)) / RATE_HZ
    raised = set()
    for lost in range(2 * WINDOW):
        for at in range(100, 140, 3):
            there = np.ones(len(rows), np.bool_)
            there[at : at + lost] = False
            line = AssetLine("m", bundle, bundle.manifest.channels)
            for part in np.array_split(np.flatnonzero(there), 40):
                found = line.feed(SampleBlock(times[part], rows[part]))
                raised |= {lost for scored in found if any(change.cause == "model" for change in scored.transitions)}
    assert raised == set()


@pytest.mark.alone
def test_a_sensor_that_fails_is_read_again_and_keeps_no_other_from_its_period(
    bundle_of: Callable[[float], Path],
    node: Node,
    plc: Callable[..., Any],
    broker: Any,
    consume: Callable[..., Any],
    until: Callable[..., None],
    tmp_path: Path,
) -> None:
    broker.start()
    consumer, device = consume(broker.port), plc(delay_s={4: float("inf"), 9: 0.15})
    names = {1: "pressure [bar]", 2: "flow [l/min]"}
    registers = [{"name": names.get(n, f"s{n}").split()[0], "address": 5} for n in range(1, 13)]
    slaves = [{"id": n, "registers": [register]} for n, register in enumerate(registers, 1)]
    poll = {"type": "modbus", "host": "127.0.0.1", "tcp_port": device.port, "rate_hz": POLLS_HZ, "slaves": slaves}
    assets = [
        {
            "id": "m",
            "bundle": str(bundle_of(RATE_HZ)),
            "source": {"type": "serial", "port": str(node.wire.port), "rate_hz": RATE_HZ},
        },
        {"id": "bus", "bundle": str(bundle_of(POLLS_HZ)), "source": poll, "quality": {"enabled": False}},
    ]

    def scores() -> int:
        return len(consumer.on("score/m"))

    random = np.random.default_rng(0)
    with agent(tmp_path, broker.port, assets):
        node.on.set()
        until(lambda: scores() > 20 and len(consumer.on("score/bus")) > 5, 40.0)
        first = len(device.polled[1])
        for _ in range(ROUNDS):
            node.on.clear()
            node.wire.unplug()
            time.sleep(random.uniform(1.0, 4.0))
            node.wire.plug()
            before, plugged_s = scores(), time.monotonic()
            node.on.set()
            until(lambda before=before: scores() > before, 20.0)
            assert time.monotonic() - plugged_s < RECONNECT_S + WINDOW / RATE_HZ

            node.wire.send(random.integers(0, 256, 20_000, np.uint8).tobytes())
            before = scores()
            until(lambda before=before: scores() > before + 2 * WINDOW, 10.0)

            node.on.clear()
            time.sleep(3.0)
            node.burst(round(3.0 * RATE_HZ))
            node.on.set()
            before, stuck = scores(), raised(consumer).count(("m-stuck", "sensor"))
            until(lambda before=before: scores() > before + 40, 10.0)

            node.line = "5.031,20.412"
            until(lambda stuck=stuck: raised(consumer).count(("m-stuck", "sensor")) > stuck, 15.0)
            node.line = None
            before = scores()
            until(lambda before=before: scores() > before + 8 * RATE_HZ, 20.0)  # it has ended, and may come again
        polled = {unit: device.polled[unit][first:] for unit in set(range(1, 13)) - {4, 9}}
    assert {alarm for alarm in raised(consumer) if alarm[0].startswith("m-") and alarm[1] == "process"} == set()
    for unit, times in polled.items():
        off = np.abs(np.diff(times) * POLLS_HZ - 1)
        assert np.mean(np.diff(times)) * POLLS_HZ == pytest.approx(1, rel=0.1)
        assert np.median(off) < 0.1, (unit, off)
