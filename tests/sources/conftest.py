"""The other ends: a serial wire, Modbus and OPC UA servers, an accelerometer; and sources that have one."""

import asyncio
import itertools
import json
import math
import os
import socket
import socketserver
import struct
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import can
import paho.mqtt.client as paho
import pytest
from asyncua import Server, ua
from paho.mqtt.enums import CallbackAPIVersion

from tocsin.sources import Source, settings_class


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


STATIC = {
    "text": "7 bar", "array": [1.0, 2.0], "nothing": None, "nan": math.nan, "infinite": math.inf,
    "moment": datetime(2026, 1, 1, tzinfo=UTC), "true": True, "integer": -7,
    "large": ua.Variant(2**63, ua.VariantType.UInt64),
}  # fmt: skip


class Loop:
    """An asyncio loop in a thread of its own, for servers."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def end(self) -> None:
        self.run(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class OpcUaServer:
    """A server with two variables, that can be stopped and started again."""

    def __init__(self, loop: Loop, port: int) -> None:
        self._loop, self.url = loop, f"opc.tcp://127.0.0.1:{port}/plant/"
        self.server: Server | None = None
        self.policies, self.users, self.certificates = [ua.SecurityPolicyType.NoSecurity], None, None

    def another(self) -> "OpcUaServer":
        """A second one, not started."""
        return OpcUaServer(self._loop, free_port())

    def run(self, work: Any) -> Any:
        """The outcome of a coroutine, in the servers' loop."""
        return self._loop.run(work)

    async def _start(self) -> None:
        server = Server(user_manager=self.users)
        await server.init()
        server.set_endpoint(self.url)
        server.set_security_policy(self.policies)
        if self.certificates is not None:
            await server.set_application_uri("urn:tocsin:test")
            await server.load_certificate(str(self.certificates / "server.der"))
            await server.load_private_key(str(self.certificates / "server.pem"))
        space = await server.register_namespace("http://plant/")
        objects = server.nodes.objects
        self._nodes = {n: await objects.add_variable(ua.NodeId(n, space), n, 1.0) for n in ("pressure", "flow")}
        for name, value in STATIC.items():
            await objects.add_variable(ua.NodeId(name, space), name, value)
        await server.start()
        self._made = self.server = server

    async def _start_again(self) -> None:
        await self._made.start()
        self.server = self._made

    def start(self) -> "OpcUaServer":
        self._loop.run(self._start())
        return self

    def start_again(self) -> None:
        self._loop.run(self._start_again())

    def stop(self) -> None:
        if self.server is not None:
            self._loop.run(self.server.stop())
            self.server = None

    def write(self, node: str, value: Any, at_s: float | None = None, status: int = ua.StatusCodes.Good) -> None:
        stamp = datetime.now(UTC) if at_s is None else datetime.fromtimestamp(at_s, UTC)
        told = ua.DataValue(ua.Variant(value), ua.StatusCode(status), stamp, datetime.now(UTC))
        self._loop.run(self.server.write_attribute_value(self._nodes[node].nodeid, told))


@pytest.fixture(scope="session")
def opcua_server() -> Iterator[OpcUaServer]:
    """One without security, for all tests that leave it running: it takes seconds to start."""
    loop = Loop()
    server = OpcUaServer(loop, free_port()).start()
    yield server
    server.stop()
    loop.end()


class IioDevice:
    """What the kernel shows of an accelerometer; its device file is a named pipe."""

    def __init__(self, folder: Path, number: int = 0, name: str = "adxl355") -> None:
        self.sysfs, self.dev = folder / "sys", folder / "dev"
        self.folder = self.sysfs / f"iio:device{number}"
        self.file = self.dev / f"iio:device{number}"
        self.dev.mkdir(exist_ok=True)
        os.mkfifo(self.file)
        self.write("name", name)
        for index, axis in enumerate("xyz"):
            self.write(f"scan_elements/in_accel_{axis}_index", index)
            self.write(f"scan_elements/in_accel_{axis}_type", "le:s12/16>>4")
            self.write(f"scan_elements/in_accel_{axis}_en", 0)
            self.write(f"in_accel_{axis}_raw", 10 * index)
        self.write("scan_elements/in_temp_en", 1)
        self.write("scan_elements/in_temp_index", 3)
        self.write("scan_elements/in_temp_type", "be:u16/16>>0")
        self.write("scan_elements/in_timestamp_en", 0)
        self.write("scan_elements/in_timestamp_index", 4)
        self.write("scan_elements/in_timestamp_type", "le:s64/64>>0")
        self.write("in_accel_scale", 0.0383)
        self.write("in_accel_z_offset", -3)
        self.write("in_accel_sampling_frequency", 100)
        self.write("in_temp_input", 21500)
        self.write("current_timestamp_clock", "monotonic")
        self.write("buffer/enable", 0)
        self.write("buffer/length", 2)
        self.write("buffer/watermark", 1)
        self._far: int | None = None

    def write(self, name: str, value: object) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(f"{value}\n")

    def read(self, name: str) -> str:
        return (self.folder / name).read_text().strip()

    def start(self) -> None:
        """Opens the pipe for writing; the source has it open."""
        self._far = os.open(self.file, os.O_WRONLY)

    def send(self, scans: Any) -> None:
        assert self._far is not None
        data = memoryview(scans if isinstance(scans, bytes) else scans.tobytes())
        while data:
            data = data[os.write(self._far, data) :]

    def unplug(self) -> None:
        if self._far is not None:
            os.close(self._far)
            self._far = None


@pytest.fixture
def device(tmp_path: Path) -> Iterator[IioDevice]:
    device = IioDevice(tmp_path)
    yield device
    device.unplug()


@contextmanager
def again_and_again(send: Callable[[int], None], pause_s: float = 0.005) -> Iterator[None]:
    """Sends from a thread, whether somebody listens or not."""
    stop = threading.Event()

    def run() -> None:
        for n in itertools.count():
            if stop.wait(pause_s):
                return
            with suppress(OSError):
                send(n)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def made(**settings: Any) -> Source:
    return settings_class(settings["type"]).model_validate(settings).make(())


@pytest.fixture
def opcua_source(opcua_server: OpcUaServer) -> Iterator[Source]:
    nodes = [{"name": "pressure", "unit": "bar", "node": "ns=2;s=pressure"},
             {"name": "flow", "unit": "l/min", "node": "ns=2;s=flow"}]  # fmt: skip
    for node in ("pressure", "flow"):
        opcua_server.write(node, 1.0)
    source = made(type="opcua", url=opcua_server.url, rate_hz=100, publishing=0.05, channels=nodes)
    with again_and_again(lambda n: opcua_server.write("pressure", float(n)), 0.02):
        yield source
    source.close()


@pytest.fixture
def mqtt_source(broker: Any) -> Iterator[Source]:
    broker.start()
    peer = paho.Client(CallbackAPIVersion.VERSION2, "peer")
    peer.connect("127.0.0.1", broker.port)
    peer.loop_start()
    paths = [{"name": "pressure", "unit": "bar", "path": "p"}, {"name": "flow", "unit": "l/min", "path": "f[0]"}]
    access = {"host": "127.0.0.1", "port": broker.port}
    source = made(type="mqtt", broker=access, topic="plant/+", rate_hz=100, channels=paths)
    with again_and_again(lambda n: peer.publish("plant/pump", json.dumps({"p": n, "f": [2 * n]}))):
        yield source
    source.close()
    peer.disconnect()
    peer.loop_stop()


@pytest.fixture
def can_source(request: pytest.FixtureRequest) -> Iterator[Source]:
    signals = [{"name": "pressure", "signal": "Pump.Pressure"}, {"name": "flow", "signal": "Flow"}]
    dbc = Path(__file__).parents[1] / "data/plant.dbc"
    bus = {"interface": "virtual", "channel": request.node.name}
    source = made(type="can", dbc=dbc, rate_hz=100, channels=signals, **bus)
    with (
        can.Bus(**bus) as peer,
        again_and_again(
            lambda n: peer.send(can.Message(time.time(), 0x100, False, data=struct.pack("<Hh4x", n % 1000, n % 500)))
        ),
    ):
        yield source
    source.close()


@pytest.fixture
def iio_source(device: IioDevice) -> Iterator[Source]:
    axes = [{"name": "pressure", "unit": "bar", "element": "in_accel_x"},
            {"name": "flow", "unit": "l/min", "element": "in_accel_y"}]  # fmt: skip
    paths = {"sysfs": device.sysfs, "dev": device.dev}
    source = made(type="iio", device="adxl355", rate_hz=200, channels=axes, **paths)

    ends: list[int] = []

    def send(n: int) -> None:
        if not ends:
            ends.append(os.open(device.file, os.O_WRONLY | os.O_NONBLOCK))  # fails while nobody reads
        try:
            os.write(ends[0], struct.pack("<hhxxxxq", n % 2000, -(n % 2000), time.time_ns()))
        except BrokenPipeError:
            os.close(ends.pop())

    with again_and_again(send):
        yield source
    source.close()
    for far in ends:
        os.close(far)
