"""The other ends: a serial wire, Modbus servers."""

import asyncio
import os
import socketserver
import struct
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest


class Wire:
    """The two ends of a serial line: `port` is a device file, what is written to `far` comes out there."""

    def __init__(self, link: Path) -> None:
        self.port = link
        self.far: int | None = None
        self.plug()

    def plug(self) -> None:
        self.far, near = os.openpty()
        tty.setraw(near)
        self.port.unlink(missing_ok=True)
        self.port.symlink_to(os.ttyname(near))
        self._near: int | None = near

    def send(self, data: bytes) -> None:
        assert self.far is not None
        while data:
            data = data[os.write(self.far, data) :]

    def unplug(self) -> None:
        for end in (self.far, self._near):
            if end is not None:
                os.close(end)
        self.far = self._near = None


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    wire = Wire(tmp_path / "ttyTEST")
    yield wire
    wire.unplug()


class Plc(socketserver.ThreadingTCPServer):
    """A Modbus TCP device with many units: register n of unit u holds 100·u + n; some units are slow or dead.

    Attributes:
        delay_s: unit → seconds before its answer; infinite = it never answers.
        polled: unit → monotonic seconds of its requests.
    """

    allow_reuse_address = daemon_threads = True

    def __init__(self, port: int = 0, delay_s: dict[int, float] | None = None) -> None:
        super().__init__(("127.0.0.1", port), _Unit)
        self.delay_s, self.polled = delay_s or {}, {}
        self.garbage = b""
        self.open: list[Any] = []
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in self.open:
            with suppress(OSError):
                connection.shutdown(2)


class _Unit(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.server.open.append(self.request)
        with suppress(OSError, struct.error):
            while header := self.request.recv(12, 0x100):  # MSG_WAITALL
                tid, _, _, unit, function, address, count = struct.unpack(">HHHBBHH", header)
                self.server.polled.setdefault(unit, []).append(time.monotonic())
                delay_s = self.server.delay_s.get(unit, 0.0)
                if delay_s == float("inf"):
                    continue
                time.sleep(delay_s)
                if self.server.garbage:
                    self.request.sendall(self.server.garbage)
                    continue
                registers = [(100 * unit + address + n) % 65536 for n in range(count)]
                body = struct.pack(f">BBB{count}H", unit, function, 2 * count, *registers)
                self.request.sendall(struct.pack(">HHH", tid, 0, len(body)) + body)


@pytest.fixture
def plc() -> Iterator[Callable[..., Plc]]:
    made: list[Plc] = []

    def make(*args: Any, **named: Any) -> Plc:
        made.append(Plc(*args, **named))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def pymodbus_server() -> Callable[..., AbstractContextManager[int]]:
    """pymodbus' own server in a thread: `with pymodbus_server(context, serial_port) as tcp_port`."""
    return _pymodbus_server


@contextmanager
def _pymodbus_server(context: Any, port: str | None = None) -> Iterator[int]:
    from pymodbus import FramerType
    from pymodbus.server import ModbusSerialServer, ModbusTcpServer

    loop, ready, found = asyncio.new_event_loop(), threading.Event(), [0]
    servers: list[Any] = []

    async def serve() -> None:
        if port is None:
            server = ModbusTcpServer(context, address=("127.0.0.1", 0))
        else:
            server = ModbusSerialServer(context, port=port, framer=FramerType.RTU, baudrate=115200)
        servers.append(server)
        await server.serve_forever(background=True)
        if port is None:
            found[0] = server.transport.sockets[0].getsockname()[1]
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    yield found[0]
    asyncio.run_coroutine_threadsafe(servers[0].shutdown(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()
