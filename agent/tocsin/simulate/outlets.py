"""Where a running plant's samples go: one class a protocol, all behind `Outlet`.

Rules: `send` never waits for a reader; what nobody takes is dropped. A server listens on 127.0.0.1 unless it is told
otherwise. Each outlet's library is imported when it is opened.
"""

import asyncio
import json
import math
import os
import struct
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np

from tocsin.config import MqttSettings
from tocsin.delivery.connection import Access, Closed, Connection, Event, Received
from tocsin.errors import BrokerError, TocsinError
from tocsin.recordings.forms import iso_stamps
from tocsin.simulate.plant import CHANNELS, NAMES, Step

OPEN_TIMEOUT_S = 10.0
AGAIN_S = 1.0  # between two tries to reach a broker that went away


class Outlet(Protocol):
    """Takes the steps of a plant, from one thread.

    Attributes:
        told: where it is to be found, for a person.
    """

    told: str

    def send(self, step: Step) -> None:
        """Makes the newest values known."""

    def close(self) -> None:
        """Lets go of everything."""


class Mqtt:
    """Publishes a JSON object a step, and takes commands on `<topic>/fault`.

    Args:
        settings: of the broker.
        topic: of the samples.
        command: called with each command, from the network thread.

    Raises:
        BrokerError: unreachable, or it refuses.
    """

    def __init__(self, settings: MqttSettings, topic: str, command: Callable[[str], None]) -> None:
        self._access, self._topic, self._command = Access.read(settings), topic, command
        self._lost, self._stopping = threading.Event(), threading.Event()
        self._connection = self._connected()
        self._thread = threading.Thread(target=self._connect_again_and_again, name="mqtt", daemon=True)
        self._thread.start()
        where = f"{self._access.host}:{self._access.port}"
        self.told = f"mqtt     {where}, samples on {topic}, faults on {topic}/fault"

    def _connected(self) -> Connection:
        connection = self._access.connect(f"tocsin-plant-{os.urandom(4).hex()}", self._happened)
        connection.subscribe([f"{self._topic}/fault"])
        return connection

    def _happened(self, event: Event) -> None:
        """From the network thread."""
        if isinstance(event, Received):
            self._command(event.payload[:200].decode("utf-8", "replace"))
        if isinstance(event, Closed):
            self._lost.set()

    def _connect_again_and_again(self) -> None:
        while self._lost.wait() and not self._stopping.wait(AGAIN_S):
            self._lost.clear()
            self._connection.close()
            try:
                self._connection = self._connected()
            except BrokerError:
                self._lost.set()

    def send(self, step: Step) -> None:
        """One message; dropped while the broker is away."""
        values = {
            name: None if math.isnan(value) else float(f"{value:.6g}")
            for name, value in zip(NAMES, step.values.tolist(), strict=True)
        }
        document = {"time": _iso(step.time_s), **values}
        self._connection.publish(self._topic, json.dumps(document).encode(), 0, False)

    def close(self) -> None:
        """Says good-bye to the broker."""
        self._stopping.set()
        self._lost.set()
        self._thread.join(OPEN_TIMEOUT_S)
        self._connection.close()


class Modbus:
    """A Modbus TCP server: each channel a float32, two registers, big end first (ABCD), input and holding alike.

    Args:
        port: TCP.
        host: address to listen on.

    Raises:
        TocsinError: pymodbus is not installed, or the port is taken.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        try:
            from pymodbus.datastore import (  # noqa: PLC0415 - an extra
                ModbusDeviceContext,
                ModbusSequentialDataBlock,
                ModbusServerContext,
            )
            from pymodbus.server import ModbusTcpServer  # noqa: PLC0415
        except ImportError as error:
            raise TocsinError("a Modbus server needs pymodbus: pip install '.[modbus]'") from error
        self._block = ModbusSequentialDataBlock(1, [0] * (2 * len(CHANNELS)))  # pymodbus counts from 1 here
        context = ModbusServerContext(ModbusDeviceContext(ir=self._block, hr=self._block), single=True)
        self._loop = asyncio.new_event_loop()
        self._server: Any = None
        self._ready = threading.Event()
        self._failed = ""

        async def serve() -> None:
            try:
                self._server = ModbusTcpServer(context, address=(host, port))
                if not await self._server.listen():
                    raise OSError("the port is taken")
            except OSError as error:
                self._failed = str(error)
            self._ready.set()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(serve())
            if not self._failed:
                self._loop.run_forever()

        self._thread = threading.Thread(target=run, name="modbus", daemon=True)
        self._thread.start()
        if not self._ready.wait(OPEN_TIMEOUT_S) or self._failed:
            raise TocsinError(f"no Modbus server on {host}:{port}: {self._failed or 'no answer'}: choose another port")
        self.told = f"modbus   {host}:{port}, float32 ABCD from register 0, two a channel, function 3 or 4"

    def send(self, step: Step) -> None:
        """Writes the registers; a value that dropped out is NaN."""
        data = struct.pack(f">{len(CHANNELS)}f", *step.values.tolist())
        self._block.setValues(1, list(struct.unpack(f">{2 * len(CHANNELS)}H", data)))

    def close(self) -> None:
        """Stops listening."""
        asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(OPEN_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(OPEN_TIMEOUT_S)


class OpcUa:
    """An OPC UA server without security: a variable a channel, `ns=2;s=<channel>`, with the sample's time.

    Args:
        port: TCP.
        host: address to listen on.

    Raises:
        TocsinError: asyncua is not installed, or the port is taken.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        try:
            from asyncua import ua  # noqa: PLC0415 - an extra
            from asyncua.sync import Server  # noqa: PLC0415
        except ImportError as error:
            raise TocsinError("an OPC UA server needs asyncua: pip install '.[opcua]'") from error
        self._ua = ua
        self._server = Server()
        try:
            self._server.set_endpoint(f"opc.tcp://{host}:{port}/plant")
            self._server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
            space = self._server.register_namespace("urn:tocsin:plant")
            plant = self._server.nodes.objects.add_object(ua.NodeId("plant", space), "plant")
            self._variables = [
                plant.add_variable(ua.NodeId(channel.name, space), channel.name, 0.0) for channel in CHANNELS
            ]
            self._server.start()
        except OSError as error:
            self._server.tloop.stop()
            raise TocsinError(f"no OPC UA server on {host}:{port}: {error}: choose another port") from error
        self.told = f"opcua    opc.tcp://{host}:{port}/plant, nodes ns={space};s=<channel>, no security"

    def send(self, step: Step) -> None:
        """Writes the variables; a value that dropped out has the status BadNoCommunication."""
        ua, at = self._ua, datetime.fromtimestamp(step.time_s, UTC)
        for variable, value in zip(self._variables, step.values.tolist(), strict=True):
            status = ua.StatusCodes.BadNoCommunication if math.isnan(value) else ua.StatusCodes.Good
            held = ua.Variant(0.0 if math.isnan(value) else value, ua.VariantType.Double)
            variable.write_value(ua.DataValue(held, ua.StatusCode(status), at))

    def close(self) -> None:
        """Stops listening."""
        self._server.stop()


def _iso(time_s: float) -> str:
    return iso_stamps(np.array([time_s]))[0]
