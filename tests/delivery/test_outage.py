"""A long outage, and a link that is dead and does not say so."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tocsin.delivery.outbox import Outbox, Priority

pytestmark = pytest.mark.broker

ALARMS = int(os.environ.get("CHAOS_ALARMS") or 3000)  # 86,400: a day, one a second
DAY_DRAINS_S = 600.0
GROWS_MB = 10.0


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.timeout(1200)
def test_what_waited_out_a_long_outage_is_delivered_whole_in_order_and_in_bounded_memory(
    broker: Any, publish: Callable[..., Any], outbox: Outbox, tmp_path: Path
) -> None:
    after = {"id": "0" * 26, "text": "pump-1 behaves unlike its normal running", "padding": "x" * 800}
    for begin in range(0, ALARMS, 500):
        with outbox.transaction():
            for n in range(begin, min(begin + 500, ALARMS)):
                body = json.dumps({"type": "new", "n": n, "after": after}).encode()
                outbox.put("event/alarm", body, priority=Priority.ALARM)
    broker.start()
    to = ("--host", "127.0.0.1", "--port", str(broker.port), "-t", "tocsin/+/event/alarm", "--json", "-n", str(ALARMS))
    command = [sys.executable, "-m", "tocsin.cli.main", "mqtt", "sub", *to]
    with (tmp_path / "came").open("w") as out:
        hears = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True)
        assert hears.stderr is not None and "listening" in hears.stderr.readline()
        before_mb = most_mb = resident_mb()
        begin_s = time.monotonic()
        publish(broker.port)
        while hears.poll() is None and time.monotonic() - begin_s < DAY_DRAINS_S:
            most_mb = max(most_mb, resident_mb())
            time.sleep(0.05)
        took_s = time.monotonic() - begin_s
        hears.kill()
    came = [json.loads(line)["payload"]["n"] for line in (tmp_path / "came").read_text().splitlines()]
    lost, twice = ALARMS - len(set(came)), len(came) - len(set(came))
    grew_mb = most_mb - before_mb
    print(f"{ALARMS} alarms waited: {lost} lost, {twice} twice, drained in {took_s:.1f} s, RSS + {grew_mb:.1f} MB")
    assert came == list(range(ALARMS))
    assert took_s < DAY_DRAINS_S and grew_mb < GROWS_MB


class Proxy:
    """Passes bytes on to a broker, until it is deaf: connections stay, and nothing comes or goes."""

    def __init__(self, port: int) -> None:
        self._to, self.deaf = port, threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._open = [self._server]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if not self.deaf.is_set():
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        for each in self._open:
            each.close()


@pytest.fixture
def proxy(broker: Any) -> Iterator[Proxy]:
    broker.start()
    made = Proxy(broker.port)
    yield made
    made.close()


def test_a_half_open_link_is_noticed_within_two_keepalives_and_costs_nothing(
    proxy: Proxy, broker: Any, consume: Callable[..., Any], publish: Callable[..., Any], outbox: Outbox, until: Any
) -> None:
    keepalive_s = 5
    consumer = consume(broker.port)
    publisher = publish(proxy.port, keepalive_s=keepalive_s)
    until(lambda: publisher.statistics.connected and publisher.statistics.settled)
    proxy.deaf.set()
    begin_s = time.monotonic()
    outbox.put("event/alarm", b'{"n": 1}', priority=Priority.ALARM)
    publisher.wake()
    until(lambda: not publisher.statistics.connected, 3 * keepalive_s)
    noticed_s = time.monotonic() - begin_s
    print(f"a dead link was noticed after {noticed_s:.1f} s, keepalive {keepalive_s} s")
    assert noticed_s <= 2 * keepalive_s + 1
    proxy.deaf.clear()
    until(lambda: len(consumer.on("event/alarm")) == 1, 30)
