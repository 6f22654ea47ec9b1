"""Twelve Modbus slaves, of which one is dead and one answers slowly: do the ten others keep their period?

    python benchmarks/modbus_slaves.py [--seconds 300] [--period 0.5] [--slow 0.15] [--shared]

A process of its own plays the device and notes when each slave is asked; this one polls as the agent does. The table
has each slave's deviations from its period in percent: the mean, and how large 50, 95 and 100 of a hundred are. A
bare timer of the same period runs beside it, which tells what of that is the machine's. Exit code 1 when one of the
ten is off by more than a tenth on average, or in more than one of twenty cycles beyond what the timer is.
"""

import argparse
import multiprocessing
import queue
import socketserver
import struct
import sys
import threading
import time
from multiprocessing.queues import Queue

import numpy as np

from tocsin.records import Floats
from tocsin.sources.modbus import ModbusSettings

DEAD, SLOW, SLAVES = 4, 9, range(1, 13)
SETTLE = 3  # cycles that find out who is slow
ALLOWED = 0.1


class Device(socketserver.ThreadingTCPServer):
    """Answers for all slaves; the dead one never, the slow one late."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, slow_s: float, told: "Queue[tuple[int, float]]") -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.slow_s, self.told = slow_s, told


class Connection(socketserver.BaseRequestHandler):
    """One client's."""

    server: Device

    def handle(self) -> None:
        """Answers until it goes."""
        while len(header := self.request.recv(12, 0x100)) == 12:  # MSG_WAITALL
            tid, _, _, unit, function, _, count = struct.unpack(">HHHBBHH", header)
            self.server.told.put((unit, time.monotonic()))
            if unit == DEAD:
                continue
            if unit == SLOW:
                time.sleep(self.server.slow_s)
            body = struct.pack(f">BBB{count}H", unit, function, 2 * count, *[unit] * count)
            self.request.sendall(struct.pack(">HHH", tid, 0, len(body)) + body)


def play(slow_s: float, told: "Queue[tuple[int, float]]", ports: "Queue[int]") -> None:
    """The device's process."""
    device = Device(slow_s, told)
    ports.put(device.server_address[1])
    device.serve_forever(0.05)


def timer(period_s: float, ends: threading.Event) -> Floats:
    """Times at which a bare timer comes back."""
    begin_s, out = time.monotonic(), []
    while not ends.wait(max(0.0, begin_s + len(out) * period_s - time.monotonic())):
        out.append(time.monotonic())
    return np.array(out)


def measure(seconds: float, period_s: float, slow_s: float, shared: bool) -> tuple[dict[int, Floats], Floats, int]:
    """Polls; gives when each slave was asked, when a bare timer came back, and how many rows were read."""
    context = multiprocessing.get_context("fork")
    told: Queue[tuple[int, float]] = context.Queue()
    ports: Queue[int] = context.Queue()
    device = context.Process(target=play, args=(slow_s, told, ports), daemon=True)
    device.start()
    slaves = [{"id": n, "registers": [{"name": f"s{n}", "address": 5}]} for n in SLAVES]
    given = {"type": "modbus", "host": "127.0.0.1", "tcp_port": ports.get(timeout=10), "rate_hz": 1 / period_s}
    source = ModbusSettings.model_validate(given | {"slaves": slaves, "share_connection": shared}).make(())
    ends, bare = threading.Event(), []
    beside = threading.Thread(target=lambda: bare.append(timer(period_s, ends)))
    beside.start()
    source.open()
    rows, end_s = 0, time.monotonic() + seconds
    while time.monotonic() < end_s:
        rows += len(source.read(0.5))
    source.close()
    ends.set()
    beside.join()
    polled: dict[int, list[float]] = {unit: [] for unit in SLAVES}
    while True:
        try:
            unit, at_s = told.get(timeout=0.5)
        except queue.Empty:
            break
        polled[unit].append(at_s)
    device.terminate()
    return {unit: np.array(times) for unit, times in polled.items()}, bare[0], rows


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--period", type=float, default=0.5, help="seconds from poll to poll")
    parser.add_argument("--slow", type=float, default=0.15, help="seconds before the slow slave answers")
    parser.add_argument("--shared", action="store_true", help="one connection for all, as of a gateway")
    given = parser.parse_args()
    polled, bare, rows = measure(given.seconds, given.period, given.slow, given.shared)
    print(
        f"{rows} rows in {given.seconds:g} s, period {given.period:g} s, {'one' if given.shared else 'own'} connection"
    )
    print(f"{'slave':>12} {'polls':>6} {'mean %':>8} {'50 %':>7} {'95 %':>7} {'100 %':>7}")
    machine = show("timer", bare, given.period)
    good = True
    for unit, times in polled.items():
        kind = {DEAD: " dead", SLOW: " slow"}.get(unit, "")
        found = show(f"{unit}{kind}", times, given.period)
        if not kind:
            good &= abs(found[0]) <= ALLOWED and found[1] <= ALLOWED + machine[1]
    print("the ten others keep their period" if good else "the ten others do NOT keep their period")
    return 0 if good else 1


def show(name: str, times: Floats, period_s: float) -> tuple[float, float]:
    """One row; gives the mean deviation and the one of 95 in 100, as parts of the period."""
    off = np.diff(times[SETTLE:]) / period_s - 1
    if not len(off):
        print(f"{name:>12} {len(times):>6}")
        return np.inf, np.inf
    half, most, worst = np.quantile(np.abs(off), (0.5, 0.95, 1.0)).tolist()
    print(
        f"{name:>12} {len(times):>6} {100 * off.mean():>8.2f} {100 * half:>7.2f} {100 * most:>7.2f} {100 * worst:>7.2f}"
    )
    return float(off.mean()), most


if __name__ == "__main__":
    sys.exit(main())
