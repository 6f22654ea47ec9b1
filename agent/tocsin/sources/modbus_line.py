"""One Modbus connection and the thread that polls its slaves on a fixed schedule.

Rules: cycle k begins at begin + k · period, whatever the cycles before took; a cycle that is missed is counted and
left out. Within a cycle the quick slaves are asked first, the slow after them, and one that does not answer last and
only in the time that is left, so that it costs the others nothing; what a slave took last time is kept free for it.
Where a cycle is too short for all, a slave is not asked in less time than it needs: it is late, and first in the next
cycle. Three failures in a row open a slave's breaker: it is then tried at growing distances. Time-outs run on the
monotonic clock.
"""

import logging
import random
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tocsin.sources.registers import Request

log = logging.getLogger(__name__)

FAILURES = 3  # in a row, that open the breaker
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 4.0  # of an open breaker
SPARE = 0.05  # of the period, kept free before the next cycle
LONGEST_STOP_S = 2.0
LOOK_S = 0.1  # between two looks whether to give up
SHORTEST_S = 0.02  # a request with less time than this is not sent
FADE = 0.9  # of the longest answer lately, an answer
SLACK = 1.5  # times what it needs, a slave may take where the time is short


class NoAnswerError(Exception):
    """A slave did not answer, or refused; the text says which."""


class Connection(Protocol):
    """What the line needs of a client."""

    def open(self, within_s: float) -> None:
        """Connects, where it is not. Raises NoAnswerError."""

    def ask(self, slave: int, request: Request, until_s: float) -> list[int]:
        """Registers or bits, by that monotonic second. Raises NoAnswerError."""

    def abort(self) -> None:
        """Makes `ask` give up soon; from any thread."""

    def close(self) -> None:
        """Disconnects; never raises."""


@dataclass(slots=True)
class Slave:
    """One slave as the line sees it.

    Attributes:
        id: its address on the line.
        requests: that read its registers.
        timeout_s: longest wait for one answer.
        took_s: how long its last reading took; at first, half its share of the period.
        needs_s: the longest that an answer of it took lately; 0 before the first.
        skipped: cycles in a row that had no time for it.
        failures: in a row.
        retry_s: monotonic second before which an open breaker asks nothing.
        pause_s: between two tries of an open breaker.
    """

    id: int
    requests: list[Request]
    timeout_s: float
    took_s: float
    needs_s: float = 0.0
    skipped: int = 0
    failures: int = 0
    retry_s: float = 0.0
    pause_s: float = FIRST_PAUSE_S

    @property
    def broken(self) -> bool:
        """Its breaker is open."""
        return self.failures >= FAILURES


@dataclass(frozen=True, slots=True)
class Reading:
    """What a slave gave in a cycle.

    Attributes:
        cycle: number k.
        slave: its id.
        values: (column, value); None = it failed.
        reason: why it failed.
    """

    cycle: int
    slave: int
    values: list[tuple[int, float]] | None
    reason: str = ""


@dataclass(slots=True)
class Line:
    """Polls the slaves of one connection until stopped.

    Attributes:
        late: cycles that were left out because answers took too long, and slaves that a cycle had no time for; what a
            slave that fails costs is counted there.
        done: number of the newest cycle that was finished.
        short: a cycle had no time for a slave that answers.
    """

    connection: Connection
    slaves: list[Slave]
    begin_s: float
    period_s: float
    tell: Callable[[Reading], None]
    late: int = 0
    done: int = -1
    short: bool = False
    stopping: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    clock: Callable[[], float] = time.monotonic

    def start(self) -> None:
        """Begins to poll."""
        self.thread = threading.Thread(target=self._run, name="modbus", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Ends the thread and the connection."""
        self.stopping.set()
        self.connection.abort()
        if self.thread is not None:
            self.thread.join(LONGEST_STOP_S)

    def _run(self) -> None:
        try:
            self._poll_again_and_again()
        finally:
            self.connection.close()

    def _poll_again_and_again(self) -> None:
        cycle = 0
        while not self.stopping.wait(max(0.0, self.begin_s + cycle * self.period_s - self.clock())):
            try:
                self._poll(cycle)
            except Exception:  # a driver's; the other lines go on
                log.exception("modbus: a cycle failed")
            self.done = cycle
            due = int((self.clock() - self.begin_s) / self.period_s)
            if not any(slave.failures for slave in self.slaves):
                self.late += max(0, due - cycle)
            cycle = max(cycle, due) + 1

    def _poll(self, cycle: int) -> None:
        end_s = self.begin_s + (cycle + 1 - SPARE) * self.period_s
        todo = [slave for slave in self.slaves if not slave.broken or slave.retry_s <= self.clock()]
        todo.sort(key=lambda slave: (-slave.skipped, slave.broken, slave.took_s))
        try:
            if todo:
                self.connection.open(min(slave.timeout_s for slave in todo))
        except NoAnswerError as error:
            for slave in todo:
                self.tell(self._failed(cycle, slave, str(error)))
            return
        for n, slave in enumerate(todo):
            if self.stopping.is_set():
                return
            within_s = self._time_for(slave, todo[n + 1 :], end_s - self.clock())
            if within_s is None:
                self._skip(slave)
                continue
            slave.skipped = 0
            self.tell(self._read(cycle, slave, min(within_s, slave.timeout_s)))

    def _time_for(self, slave: Slave, later: list[Slave], free_s: float) -> float | None:
        """Seconds that a slave may take; None where the cycle has too few left."""
        if len(self.slaves) == 1:
            return slave.timeout_s  # nobody waits for it
        left_s = free_s - sum(other.took_s for other in later if not other.broken)
        needs_s = slave.needs_s or max(other.needs_s for other in self.slaves)
        if needs_s > (1 - SPARE) * self.period_s:
            needs_s = 0.0  # no cycle has that: what the others leave
        if needs_s > free_s or (slave.broken and not slave.skipped and left_s < SHORTEST_S):
            return None
        return max(left_s, SHORTEST_S, min(SLACK * needs_s, free_s))

    def _skip(self, slave: Slave) -> None:
        slave.skipped += 1
        if slave.broken:
            return
        self.late += 1
        if not self.short:
            log.warning(
                "modbus: %d slaves on one line take longer than %g s: they are read in turn, and count as late: "
                "set a lower rate_hz, or a higher baud rate",
                len(self.slaves),
                self.period_s,
            )
        self.short = True

    def _read(self, cycle: int, slave: Slave, within_s: float) -> Reading:
        begin_s = self.clock()
        values: list[tuple[int, float]] = []
        try:
            self.connection.open(within_s)
            for request in slave.requests:
                values += request.decode(self.connection.ask(slave.id, request, begin_s + within_s))
        except NoAnswerError as error:
            slave.took_s = self.clock() - begin_s
            return self._failed(cycle, slave, str(error))
        slave.took_s, slave.failures, slave.pause_s = self.clock() - begin_s, 0, FIRST_PAUSE_S
        slave.needs_s = max(slave.took_s, FADE * slave.needs_s)
        return Reading(cycle, slave.id, values)

    def _failed(self, cycle: int, slave: Slave, reason: str) -> Reading:
        slave.failures += 1
        if slave.broken:
            slave.retry_s = self.clock() + slave.pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            slave.pause_s = min(2 * slave.pause_s, LONGEST_PAUSE_S)
        return Reading(cycle, slave.id, None, reason)


class PymodbusConnection:
    """A connection through pymodbus' client, whose waiting is our own: its time-outs follow the wall clock.

    Args:
        make: gives a client that is not connected yet.
        silence_s: quiet time before a request, as RTU wants it; None = TCP, where a request without an answer ends
            the connection, lest the next one waits behind it in a gateway.
    """

    def __init__(self, make: Callable[[], Any], silence_s: float | None = None) -> None:
        self._make, self._silence_s = make, silence_s
        self._client: Any = None
        self._until_s = 0.0
        self._aborted = False

    def open(self, within_s: float) -> None:
        """Connects, where it is not.

        Raises:
            NoAnswerError: refused, or not there.
        """
        if self._client is not None:
            return
        client = self._make()
        client.comm_params.timeout_connect = within_s
        if not client.connect():
            raise NoAnswerError("no connection")
        client.recv = self._receive
        client.set_max_no_responses(1 << 30)  # whether to connect anew is decided here
        self._client = client

    def ask(self, slave: int, request: Request, until_s: float) -> list[int]:
        """Registers or bits.

        Raises:
            NoAnswerError: none in time, a damaged one, or an exception code.
        """
        from pymodbus import ModbusException  # noqa: PLC0415 - only where Modbus is used

        client, self._until_s = self._client, until_s
        if client is None:
            raise NoAnswerError("no connection")
        read = {
            1: client.read_coils,
            2: client.read_discrete_inputs,
            3: client.read_holding_registers,
            4: client.read_input_registers,
        }[request.function]
        time.sleep(self._silence_s or 0.0)
        try:
            answer = read(request.address, count=request.count, device_id=slave)
        except ModbusException as error:
            if self._silence_s is None:
                self.close()
            raise NoAnswerError("no answer" if "No response" in str(error) else "wrong answer") from error
        except Exception as error:  # pyserial and pymodbus let many kinds out when the other side goes away
            self.close()
            raise NoAnswerError("connection lost") from error
        if answer.isError():
            raise NoAnswerError(f"exception {answer.exception_code}")
        found = answer.bits if request.function in (1, 2) else answer.registers
        if len(found) < request.count or (request.function > 2 and len(found) > request.count):
            raise NoAnswerError("wrong answer")  # of another request, that came late
        return [int(value) for value in found]

    def _receive(self, _size: int | None) -> bytes:
        """What comes until the time is over; nothing when it is."""
        socket = self._client.socket
        if socket is None:
            raise ConnectionError("closed")
        while not select.select([socket], [], [], min(LOOK_S, max(0.0, self._until_s - time.monotonic())))[0]:
            if self._aborted or time.monotonic() >= self._until_s:
                return b""
        if hasattr(socket, "in_waiting"):
            data = bytes(socket.read(max(1, socket.in_waiting)))
        else:
            data = bytes(socket.recv(4096))
        if not data:
            raise ConnectionError("closed by the other side")
        return data

    def abort(self) -> None:
        """Makes `ask` give up soon; from any thread."""
        self._aborted = True

    def close(self) -> None:
        """Disconnects."""
        client, self._client = self._client, None
        if client is not None:
            try:
                client.close()
            except Exception:  # a driver's, while it is thrown away
                log.debug("modbus: cannot close", exc_info=True)
