"""Modbus TCP and RTU: registers of one or several slaves, polled on a fixed schedule.

Rules: every poll gives one row; its time is that of the schedule. A value of a slave that does not answer is NaN and
marked bad; one that has not come yet is NaN alone. A slave with an address of its own on a TCP host has a connection
and a thread of its own, unless `share_connection` is set; all slaves of a serial line share one. No slave keeps the
others from their period (`tocsin.sources.modbus_line`). With no slave left that answers, the link counts as lost.
"""

import logging
import threading
import time
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from tocsin.errors import SourceError
from tocsin.records import Bools, Channel, Floats, SampleBlock
from tocsin.settings import Seconds, Settings
from tocsin.sources import Source, SourceCounts, SourceSettings
from tocsin.sources.clock import ArrivalClock
from tocsin.sources.modbus_line import Line, NoAnswerError, PymodbusConnection, Reading, Slave
from tocsin.sources.port_holder import port_holders
from tocsin.sources.registers import RegisterSettings, channels_of, plan

log = logging.getLogger(__name__)


class SlaveSettings(Settings):
    """One slave (server, unit) and what is read from it."""

    id: int = Field(1, ge=0, le=255, description="its address on the line")
    registers: Annotated[tuple[RegisterSettings, ...], Field(min_length=1)]
    timeout_s: Seconds | None = Field(None, gt=0, description="longest wait for its answer; the source's when left out")


class ModbusSettings(SourceSettings):
    """Registers of Modbus slaves, over TCP (`host`) or a serial line (`port`)."""

    type: Literal["modbus"]
    host: str | None = Field(None, description="name or address, for TCP")
    tcp_port: int = Field(502, ge=1, le=65535, description="of the host")
    port: str | None = Field(None, description="/dev/serial/by-id/…, for RTU")
    baud: int = Field(19200, gt=0, description="bits a second, for RTU")
    parity: Literal["N", "E", "O"] = Field("N", description="none, even or odd, for RTU")
    stop_bits: Literal[1, 2] = Field(1, description="for RTU")
    rate_hz: float = Field(gt=0, le=1000, description="polls a second; 0.1 is one in ten seconds")
    timeout_s: Seconds = Field(1.0, gt=0, description="longest wait for one answer")
    slaves: Annotated[tuple[SlaveSettings, ...], Field(min_length=1)]
    share_connection: bool = Field(
        False, description="one TCP connection for all slaves, for a gateway that takes no more"
    )
    largest_gap: int = Field(16, ge=0, le=125, description="unused registers that are read along to save a request")

    @model_validator(mode="after")
    def _one_way_and_each_slave_once(self) -> "ModbusSettings":
        if (self.host is None) == (self.port is None):
            raise ValueError("expected host (TCP) or port (RTU), one of the two")
        ids = [slave.id for slave in self.slaves]
        if len(set(ids)) < len(ids):
            raise ValueError("slaves: an id is given twice: put all its registers under one")
        return self

    def given(self) -> tuple[Channel, ...]:
        """One a register, in their order."""
        return channels_of(register for slave in self.slaves for register in slave.registers)

    def make(self, wanted: tuple[Channel, ...]) -> Source:
        """The poller."""
        return ModbusSource(self)

    @property
    def address(self) -> str:
        """For messages."""
        return f"{self.host}:{self.tcp_port}" if self.port is None else self.port


class ModbusSource:
    """Polls the slaves and puts what they give into rows."""

    def __init__(self, settings: ModbusSettings) -> None:
        self.channels, self.ended, self.counts = settings.given(), False, SourceCounts()
        self._settings, self._period_s = settings, 1 / settings.rate_hz
        self._clock = ArrivalClock(settings.rate_hz)
        self._changed = threading.Condition()
        self._lines: list[Line] = []
        self._columns: dict[int, list[int]] = {}
        self._rows: dict[int, Floats] = {}  # cycles of which something has come
        self._failing: dict[int, str] = {}  # slave → why
        self._next = 0  # cycle of the next row
        self._begin_s = self._late_before = 0.0
        column = 0
        for slave in settings.slaves:
            self._columns[slave.id] = list(range(column, column + len(slave.registers)))
            column += len(slave.registers)

    def open(self) -> None:
        """Connects and begins to poll."""
        try:
            import pymodbus.client  # noqa: F401, PLC0415 - only where Modbus is used
        except ImportError as error:
            raise SourceError("Modbus needs pymodbus: pip install '.[modbus]'") from error
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # what it says at every time-out, health counts
        self.close()
        first = self._connection()
        try:
            first.open(self._settings.timeout_s)
        except NoAnswerError as error:
            first.close()
            holders = port_holders(self._settings.port) if self._settings.port is not None else []
            hint = f"{', '.join(holders)} holds it" if holders else "is it switched on, and are address and port right?"
            raise SourceError(f"modbus {self._settings.address}: {error}: {hint}") from error
        self._rows, self._failing, self._next = {}, {}, 0
        self._begin_s = time.monotonic()
        slaves = [self._slave(slave) for slave in self._settings.slaves]
        shared = self._settings.port is not None or self._settings.share_connection
        groups = [slaves] if shared else [[slave] for slave in slaves]
        self._lines = [
            Line(first if n == 0 else self._connection(), group, self._begin_s, self._period_s, self._take)
            for n, group in enumerate(groups)
        ]
        for line in self._lines:
            line.start()

    def _slave(self, settings: SlaveSettings) -> Slave:
        columns = zip(self._columns[settings.id], settings.registers, strict=True)
        requests = plan(list(columns), self._settings.largest_gap)
        timeout_s = settings.timeout_s or self._settings.timeout_s
        return Slave(settings.id, requests, timeout_s, took_s=self._period_s / 2 / len(self._settings.slaves))

    def _connection(self) -> PymodbusConnection:
        from pymodbus.client import ModbusSerialClient, ModbusTcpClient  # noqa: PLC0415

        given = self._settings
        common: dict[str, Any] = {"timeout": given.timeout_s, "retries": 0}
        if given.host is not None:
            return PymodbusConnection(partial(ModbusTcpClient, given.host, port=given.tcp_port, **common))
        common |= {"baudrate": given.baud, "parity": given.parity, "stopbits": given.stop_bits}
        assert given.port is not None
        silence_s = max(1.75e-3, 3.5 * 11 / given.baud)
        return PymodbusConnection(partial(ModbusSerialClient, given.port, **common), silence_s)

    def _take(self, reading: Reading) -> None:
        """From a line's thread: one slave's answer, or its failure."""
        with self._changed:
            known = self._failing.get(reading.slave)
            if reading.values is None:
                self._failing[reading.slave] = reading.reason
                self.counts.count_bad(f"slave {reading.slave}: {reading.reason}")
                if known is None:
                    log.warning("modbus %s: slave %d: %s", self._settings.address, reading.slave, reading.reason)
            else:
                if self._failing.pop(reading.slave, None) is not None:
                    log.info("modbus %s: slave %d answers", self._settings.address, reading.slave)
                row = self._rows.setdefault(max(reading.cycle, self._next), np.full(len(self.channels), np.nan))
                for column, value in reading.values:
                    row[column] = value
            self._changed.notify_all()

    def read(self, timeout_s: float) -> SampleBlock:
        """The rows that are complete, or whose cycle is over."""
        if not self._lines:
            raise SourceError(f"modbus {self._settings.address} is not open")
        end_s = time.monotonic() + timeout_s
        with self._changed:
            while not (ready := self._ready()):
                self._check()
                now = time.monotonic()
                if now >= end_s:
                    break
                due = self._begin_s + (self._next + 1) * self._period_s
                self._changed.wait(max(1e-3, min(end_s - now, due - now, 0.05)))
            self._check()
            return self._block(ready)

    def _ready(self) -> int:
        """Rows that can be given out: every line is through with the cycle, or the next one has begun."""
        done = min(line.done for line in self._lines) + 1
        over = int((time.monotonic() - self._begin_s) / self._period_s)
        return max(0, max(done, over) - self._next)

    def _block(self, ready: int) -> SampleBlock:
        cycles = [cycle for cycle in range(self._next, self._next + ready) if cycle in self._rows]
        if not cycles:
            self._next += ready
            return SampleBlock(np.empty(0), np.empty((0, len(self.channels))), time.monotonic())
        values = np.stack([self._rows.pop(cycle) for cycle in cycles])
        bad: Bools = np.zeros(values.shape, np.bool_)
        for slave in self._failing:
            bad[:, self._columns[slave]] = np.isnan(values[:, self._columns[slave]])
        times, steps = [], 0.0
        for cycle in cycles:
            measured_s = self._begin_s + cycle * self._period_s
            stamps, step_s = self._clock.stamp(1, cycle - self._next, measured_s)
            times.append(stamps)
            steps += step_s
            self._next = cycle + 1
        self.counts.late = int(self._late_before) + sum(line.late for line in self._lines)
        if steps:
            self.counts.clock_steps += 1
            log.warning("modbus %s: the clock was set by %+.1f s", self._settings.address, steps)
        return SampleBlock(np.concatenate(times), values, time.monotonic(), steps, bad if bad.any() else None)

    def _check(self) -> None:
        """Raises SourceError when no slave answers any more."""
        if all(slave.broken for line in self._lines for slave in line.slaves):
            why = ", ".join(f"slave {slave}: {reason}" for slave, reason in sorted(self._failing.items())[:4])
            raise SourceError(
                f"modbus {self._settings.address}: no slave answers ({why}): are they on, and is the line quick enough "
                "for rate_hz?"
            )

    def close(self) -> None:
        """Ends the threads and the connections."""
        lines, self._lines = self._lines, []
        for line in lines:
            line.stopping.set()
        for line in lines:
            line.stop()
        self._late_before = self.counts.late
