"""Modbus: values as another client reads them, few requests, and no slave that stalls the others."""

import os
import select
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.errors import SourceError
from tocsin.records import SampleBlock
from tocsin.sources.modbus import ModbusSettings
from tocsin.sources.modbus_line import Line, NoAnswerError, Slave
from tocsin.sources.registers import FORMS, RegisterSettings, Request, plan

pytest.importorskip("pymodbus")

ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
TYPES = tuple(kind for kind in FORMS if kind != "bool")
Make = Callable[..., Any]


def make(tcp_port: int, slaves: list[dict[str, Any]], **more: Any) -> Any:
    given = {"type": "modbus", "host": "127.0.0.1", "tcp_port": tcp_port, "rate_hz": 20, "slaves": slaves} | more
    return ModbusSettings.model_validate(given).make(())


def read_rows(source: Any, rows: int, within_s: float = 5.0) -> SampleBlock:
    blocks, end = [], time.monotonic() + within_s
    while sum(map(len, blocks)) < rows and time.monotonic() < end:
        blocks.append(source.read(0.2))
    assert sum(map(len, blocks)) >= rows
    return SampleBlock(np.concatenate([b.time_s for b in blocks]), np.concatenate([b.values for b in blocks]))


def memory() -> Any:
    """The same 200 words in all four tables, made so that every type has a finite value."""
    from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext

    words = [(7919 * n + 12345) % 0x7F00 for n in range(200)]
    block, bits = ModbusSequentialDataBlock(1, words), ModbusSequentialDataBlock(1, [n % 3 == 0 for n in range(200)])
    return ModbusServerContext(ModbusDeviceContext(di=bits, co=bits, hr=block, ir=block), single=True)


def every_type_and_order() -> list[dict[str, Any]]:
    combinations = [(kind, order) for kind in TYPES for order in ORDERS]
    return [
        {"name": f"{kind}_{order}".lower(), "address": 3 * n, "type": kind, "order": order, "function": 3 + n % 2}
        for n, (kind, order) in enumerate(combinations)
    ]


def as_pymodbus_reads(client: Any, one: dict[str, Any]) -> float:
    """Through its own conversions: it knows the order of words, bytes are swapped before."""
    kind = getattr(client.DATATYPE, one["type"].upper())
    read = client.read_holding_registers if one["function"] == 3 else client.read_input_registers
    words = read(one["address"], count=kind.value[1]).registers
    if one["order"] in ("BADC", "DCBA"):
        words = [word >> 8 | (word & 0xFF) << 8 for word in words]
    order = "little" if one["order"] in ("CDAB", "DCBA") else "big"
    return float(client.convert_from_registers(words, kind, word_order=order))


def test_every_type_in_every_order_is_what_pymodbus_reads(pymodbus_server: Make) -> None:
    from pymodbus.client import ModbusTcpClient

    registers = every_type_and_order()
    with pymodbus_server(memory()) as port:
        client = ModbusTcpClient("127.0.0.1", port=port)
        expected = [as_pymodbus_reads(client, one) for one in registers]
        client.close()
        source = make(port, [{"id": 1, "registers": registers}])
        source.open()
        block = read_rows(source, 2)
        source.close()
    assert len(expected) == 32 and len(set(expected)) > 16
    np.testing.assert_array_equal(block.values[0], expected)


def test_bits_and_scaled_values_come_in_engineering_units(pymodbus_server: Make) -> None:
    registers = [
        {"name": "coil", "address": 3, "type": "bool", "function": 1},
        {"name": "input", "address": 4, "type": "bool", "function": 2},
        {"name": "bit", "address": 0, "type": "bool", "bit": 3},
        {"name": "pressure", "unit": "bar", "address": 0, "scale": 0.1, "offset": -40},
    ]
    with pymodbus_server(memory()) as port:
        source = make(port, [{"id": 1, "registers": registers}])
        source.open()
        block = read_rows(source, 1)
        source.close()
    assert source.channels[3].unit == "bar"
    np.testing.assert_allclose(block.values[0], [1, 0, 12345 >> 3 & 1, 1234.5 - 40])


@contextmanager
def pty_pair() -> Iterator[tuple[str, str]]:
    """Two serial ports that are connected with each other."""
    (a, near), (b, far) = os.openpty(), os.openpty()
    tty.setraw(near), tty.setraw(far)
    stop = threading.Event()

    def pump() -> None:
        while not stop.is_set():
            for end in select.select([a, b], [], [], 0.05)[0]:
                os.write(b if end == a else a, os.read(end, 4096))

    thread = threading.Thread(target=pump)
    thread.start()
    yield os.ttyname(near), os.ttyname(far)
    stop.set()
    thread.join()
    for end in (a, b, near, far):
        os.close(end)


def test_rtu_over_a_serial_line_gives_what_the_server_holds(pymodbus_server: Make) -> None:
    registers = [{"name": f"r{n}", "address": 10 * n} for n in range(5)]
    with pty_pair() as (ours, theirs), pymodbus_server(memory(), theirs):
        settings = {"type": "modbus", "port": ours, "baud": 115200, "rate_hz": 10}
        source = ModbusSettings.model_validate(settings | {"slaves": [{"id": 1, "registers": registers}]}).make(())
        source.open()
        block = read_rows(source, 5)
        source.close()
    np.testing.assert_array_equal(block.values, [[(7919 * 10 * n + 12345) % 0x7F00 for n in range(5)]] * len(block))
    np.testing.assert_allclose(np.diff(block.time_s), 0.1, atol=1e-6)


def twelve() -> list[dict[str, Any]]:
    return [{"id": n, "registers": [{"name": f"s{n}", "address": 5}]} for n in range(1, 13)]


class SimulatedTime(threading.Event):
    """The clock of a line, which goes on while it waits and while it is answered; set when it is over."""

    def __init__(self, until_s: float) -> None:
        super().__init__()
        self.now_s, self._until_s = 0.0, until_s

    def wait(self, timeout: float | None = None) -> bool:
        self.now_s += timeout or 0.0
        return self.now_s >= self._until_s


class SimulatedLine:
    """Units of which some are slow or dead, on one connection, in simulated time."""

    def __init__(self, clock: SimulatedTime, delay_s: dict[int, float]) -> None:
        self._clock, self._delay_s = clock, delay_s
        self.polled: dict[int, list[float]] = {}

    def open(self, within_s: float) -> None: ...

    def ask(self, slave: int, request: Request, until_s: float) -> list[int]:
        self.polled.setdefault(slave, []).append(self._clock.now_s)
        answered_s = self._clock.now_s + self._delay_s.get(slave, 0.003)
        self._clock.now_s = min(answered_s, until_s)
        if answered_s > until_s:
            raise NoAnswerError("no answer")
        return [0] * request.count

    def abort(self) -> None: ...

    def close(self) -> None: ...


def test_on_one_line_a_dead_and_a_slow_slave_keep_no_other_from_its_period_for_five_minutes() -> None:
    clock = SimulatedTime(300.0)
    connection = SimulatedLine(clock, {4: float("inf"), 9: 0.15})
    period_s = 0.4
    request = plan([(0, RegisterSettings.model_validate({"name": "a", "address": 5}))], 16)
    slaves = [Slave(n, request, 3.0, took_s=period_s / 24) for n in range(1, 13)]
    line = Line(connection, slaves, 0.0, period_s, lambda _: None, stopping=clock, clock=lambda: clock.now_s)
    line.start()
    assert line.thread is not None
    line.thread.join(10)
    for unit in set(range(1, 13)) - {4, 9}:
        polled = np.array(connection.polled[unit])
        assert len(polled) == 750
        np.testing.assert_allclose(np.diff(polled[2:]), period_s, rtol=0.1)  # the first cycles find out who is slow
    assert len(connection.polled[9]) > 0.99 * 750
    assert 50 < len(connection.polled[4]) < 200
    assert line.late == 0


@pytest.mark.parametrize(("slaves", "answer_s"), [(4, 0.025), (6, 0.025), (12, 0.015), (12, 0.03), (3, 0.06)])
def test_slaves_that_share_a_line_which_is_too_slow_are_late_in_turn_and_none_is_called_dead(
    slaves: int, answer_s: float
) -> None:
    clock, period_s, told = SimulatedTime(60.0), 0.1, []
    connection = SimulatedLine(clock, dict.fromkeys(range(1, slaves + 1), answer_s))
    request = plan([(0, RegisterSettings.model_validate({"name": "a", "address": 5}))], 16)
    each = [Slave(n, request, 1.0, took_s=period_s / 2 / slaves) for n in range(1, slaves + 1)]
    line = Line(connection, each, 0.0, period_s, told.append, stopping=clock, clock=lambda: clock.now_s)
    line.start()
    assert line.thread is not None
    line.thread.join(10)
    assert [reading for reading in told[slaves:] if reading.values is None] == []  # at first, nobody knows how slow
    polled = np.array([len(connection.polled[unit]) for unit in range(1, slaves + 1)])
    most = 60.0 / max(period_s, slaves * answer_s)
    assert polled.min() > 0.45 * most and polled.max() <= 2.1 * polled.min()
    assert line.late > 100


def test_a_dead_slave_is_found_on_a_line_that_is_too_slow_and_read_again_when_it_is_back() -> None:
    clock, told = SimulatedTime(60.0), []
    connection = SimulatedLine(clock, {**dict.fromkeys(range(1, 7), 0.025), 3: float("inf")})
    request = plan([(0, RegisterSettings.model_validate({"name": "a", "address": 5}))], 16)
    slaves = [Slave(n, request, 1.0, took_s=0.1 / 12) for n in range(1, 7)]
    tell = lambda reading: told.append((clock.now_s, reading))  # noqa: E731
    line = Line(connection, slaves, 0.0, 0.1, tell, stopping=clock, clock=lambda: clock.now_s)

    class Mended(dict[int, float]):
        def get(self, unit: int, default: float = 0.0) -> float:
            return 0.025 if unit == 3 and clock.now_s > 30 else super().get(unit, default)

    connection._delay_s = Mended(connection._delay_s)
    line.start()
    assert line.thread is not None
    line.thread.join(10)
    dead = [at_s for at_s, reading in told if reading.slave == 3 and reading.values is None]
    back = [at_s for at_s, reading in told if reading.slave == 3 and reading.values is not None]
    assert slaves[2].failures == 0 and dead[2] < 5 and 30 < back[0] < 36
    assert {reading.slave for at_s, reading in told if at_s > 1 and reading.values is None} == {3}


def test_cycles_that_a_dead_slave_costs_count_as_its_failures_and_those_of_a_slow_one_as_late() -> None:
    late = {}
    for name, delay_s in (("dead", float("inf")), ("slow", 1.0)):
        clock = SimulatedTime(60.0)
        request = plan([(0, RegisterSettings.model_validate({"name": "a", "address": 5}))], 16)
        slaves = [Slave(1, request, 3.0, took_s=0.1)]
        connection = SimulatedLine(clock, {1: delay_s})
        line = Line(connection, slaves, 0.0, 0.4, lambda _: None, stopping=clock, clock=lambda clock=clock: clock.now_s)
        line.start()
        assert line.thread is not None
        line.thread.join(10)
        late[name] = line.late
    assert late["dead"] == 0 and late["slow"] == pytest.approx(100, abs=5)  # of 150 cycles, one in three is read


def periods(polled: list[float], period_s: float) -> Any:
    """Deviations of the periods, as parts of it; the first cycles, which find out who is slow, are left out."""
    return np.abs(np.diff(polled[2:]) / period_s - 1)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.alone
def test_a_dead_and_a_slow_slave_do_not_keep_ten_others_from_their_period(plc: Make, shared: bool) -> None:
    period_s = 0.4
    device, control = plc(delay_s={4: float("inf"), 9: 0.15}), plc()
    source, beside = (
        make(port, twelve(), rate_hz=1 / period_s, timeout_s=3, share_connection=shared)
        for port in (device.port, control.port)
    )
    source.open(), beside.open()  # both have the same load of the machine to bear
    block = read_rows(source, 20, 20.0)
    source.close(), beside.close()
    good_units = sorted(set(range(1, 13)) - {4, 9})
    healthy = np.concatenate([periods(control.polled[unit], period_s) for unit in good_units])
    for unit in good_units:
        off = periods(device.polled[unit], period_s)
        assert len(off) >= 12
        assert np.median(off) < 0.1 + np.quantile(healthy, 0.9), (unit, off)
        assert np.diff(device.polled[unit][2:]).mean() == pytest.approx(period_s, rel=0.1)
    values = block.values[2:16]
    good = [n - 1 for n in range(1, 13) if n not in (4, 9)]
    np.testing.assert_array_equal(values[:, good], np.tile([100 * (n + 1) + 5 for n in good], (14, 1)))
    assert np.isnan(values[:, 3]).all() and np.isfinite(values[:, 8]).any()
    np.testing.assert_allclose(np.diff(block.time_s), period_s, atol=0.01)
    assert source.counts.reasons["slave 4: no answer"] >= 2


def test_a_value_of_a_slave_that_does_not_answer_is_marked_bad(plc: Make) -> None:
    device = plc(delay_s={2: float("inf")})
    slaves = [{"id": n, "timeout_s": 0.05, "registers": [{"name": f"s{n}", "address": 0}]} for n in (1, 2)]
    source = make(device.port, slaves)
    source.open()
    read_rows(source, 10)
    block = source.read(1.0)
    source.close()
    assert block.bad is not None
    assert (block.bad[-1].tolist(), np.isnan(block.values[-1]).tolist()) == ([False, True], [False, True])


def test_a_slave_that_comes_back_is_read_again(plc: Make) -> None:
    device = plc(delay_s={2: float("inf")})
    slaves = [{"id": n, "timeout_s": 0.05, "registers": [{"name": f"s{n}", "address": 0}]} for n in (1, 2)]
    source = make(device.port, slaves)
    source.open()
    read_rows(source, 10)
    device.delay_s.clear()
    began = time.monotonic()
    while not np.isfinite(source.read(0.5).values[:, 1]).any():
        assert time.monotonic() - began < 5
    source.close()


def test_a_lost_device_is_told_and_comes_back(plc: Make) -> None:
    device = plc()
    source = make(device.port, [{"id": 1, "registers": [{"name": "a", "address": 7}]}], timeout_s=0.2)
    source.open()
    read_rows(source, 3)
    device.stop()
    with pytest.raises(SourceError, match=r"no slave answers \(slave 1: "):
        for _ in range(100):
            source.read(0.1)
    source.close()
    with pytest.raises(SourceError, match="no connection: is it switched on"):
        source.open()
    plc(device.port)
    source.open()
    assert read_rows(source, 1).values[0, 0] == 107
    source.close()


def test_nonsense_from_a_device_is_an_error_of_the_source_and_counted(plc: Make) -> None:
    device = plc()
    source = make(device.port, [{"id": 1, "registers": [{"name": "a", "address": 7}]}], timeout_s=0.1)
    source.open()
    read_rows(source, 1)
    random = np.random.default_rng(0)
    for size in (3, 30, 300):
        device.garbage = random.integers(0, 256, size, np.uint8).tobytes()
        with pytest.raises(SourceError):
            for _ in range(100):
                source.read(0.1)
        source.close()
        source.open()
    assert source.counts.bad >= 9
    source.close()


def test_a_time_out_gives_an_empty_block_and_to_close_twice_is_fine(plc: Make) -> None:
    device = plc(delay_s={1: 0.3})
    source = make(device.port, [{"id": 1, "registers": [{"name": "a", "address": 7}]}], rate_hz=1)
    source.close()
    source.open()
    block = source.read(0.01)
    assert (len(block), block.values.shape) == (0, (0, 1))
    source.close()
    source.close()
    with pytest.raises(SourceError, match="not open"):
        source.read(0.01)


def test_exception_codes_are_told_by_number(pymodbus_server: Make) -> None:
    with pymodbus_server(memory()) as port:
        source = make(port, [{"id": 1, "registers": [{"name": "a", "address": 5000}]}])
        source.open()
        with pytest.raises(SourceError, match="exception 2"):
            for _ in range(50):
                source.read(0.1)
        source.close()


register = st.builds(
    lambda address, kind, function: RegisterSettings.model_validate(
        {"name": "a", "address": address, "type": kind if function > 2 else "bool", "function": function}
    ),
    st.integers(0, 400),
    st.sampled_from(list(FORMS)),
    st.integers(1, 4),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(register, min_size=1, max_size=60), st.integers(0, 30))
def test_requests_hold_every_register_once_keep_the_limit_and_are_as_few_as_the_gaps_allow(
    registers: list[RegisterSettings], gap: int
) -> None:
    requests = plan(list(enumerate(registers)), gap)
    assert sorted(column for one in requests for column, _ in one.values) == list(range(len(registers)))
    for one in requests:
        assert 1 <= one.count <= (2000 if one.function < 3 else 125)
        for _, register in one.values:
            assert one.address <= register.address and register.address + register.width <= one.address + one.count
    for before, after in pairwise(requests):
        if before.function == after.function:
            apart = after.address - (before.address + before.count)
            first = after.values[0][1]
            whole = first.address + first.width - before.address
            assert apart > gap or whole > (2000 if before.function < 3 else 125)


@pytest.mark.parametrize(
    ("register", "said"),
    [
        ({"address": 0, "function": 1, "type": "int16"}, "expected bool"),
        ({"address": 0, "bit": 3}, "only for type bool"),
        ({"address": 65535, "type": "float32"}, "ends past 65535"),
    ],
)
def test_a_register_that_cannot_be_is_refused(register: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RegisterSettings.model_validate({"name": "a"} | register)


def test_tcp_and_serial_at_once_or_a_name_twice_are_refused() -> None:
    a = {"name": "a", "address": 0}
    with pytest.raises(ValueError, match="one of the two"):
        make(1, [{"id": 1, "registers": [a]}], port="/dev/ttyUSB0")
    with pytest.raises(ValueError, match="'a' is given twice"):
        make(1, [{"id": 1, "registers": [a, a]}])
    with pytest.raises(ValueError, match="all its registers under one"):
        make(1, [{"id": 1, "registers": [a]}, {"id": 1, "registers": [a | {"name": "b"}]}])
