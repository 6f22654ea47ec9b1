"""What holds of every source."""

import gc
import importlib.util
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tocsin.cli.doctor_machine import port_of
from tocsin.errors import SourceError
from tocsin.records import Channel, SampleBlock
from tocsin.sources import Source, make_source
from tocsin.sources.clock import ArrivalClock
from tocsin.sources.frames import encode_frame
from tocsin.sources.modbus import ModbusSettings
from tocsin.sources.replay import ReplaySettings
from tocsin.sources.serial_port import SerialSettings, SerialSource
from tocsin.sources.synthetic import SyntheticSettings, SyntheticSource

ROOT = Path(__file__).parents[2]
CHANNELS = (Channel("pressure", "bar"), Channel("flow", "l/min"))
NAMES = ["pressure [bar]", "flow [l/min]"]
SENT = np.round(np.random.default_rng(0).normal(5, 2, (50, 2)), 3)


def lines(values: np.ndarray) -> bytes:
    return b"".join(b"%.3f,%.3f\r\n" % tuple(row) for row in values)


def a_serial(wire: Any, form: str = "csv") -> Source:
    settings = SerialSettings(type="serial", port=str(wire.port), format=form, channels=NAMES, rate_hz=1000)
    return make_source(settings, CHANNELS)


FORMS = {  # of a serial line: what a node sends for rows that begin with this number
    "csv": lambda rows, _: lines(rows),
    "json": lambda rows, _: b"".join(b'{"pressure": %.3f, "flow": %.3f}\n' % tuple(row) for row in rows),
    "binary": lambda rows, first: encode_frame(rows, first, 3),
}
OWN = ["replay", "replay_in_real_time", "synthetic", "synthetic_in_real_time", *FORMS, "modbus"]
WITH_PEERS = ["opcua", pytest.param("mqtt", marks=pytest.mark.broker), "can", "iio"]  # fixtures `…_source`


@pytest.fixture(params=[*OWN, *WITH_PEERS])
def source(request: pytest.FixtureRequest, tmp_path: Path, wire: Any, plc: Callable[..., Any]) -> Iterator[Source]:
    """A source that has something to give soon; not opened."""
    fast = not request.param.endswith("time")
    if request.param in ("opcua", "mqtt", "can", "iio"):
        yield request.getfixturevalue(f"{request.param}_source")
    elif request.param == "modbus":
        registers = [{"name": c.name, "unit": c.unit, "address": n} for n, c in enumerate(CHANNELS)]
        slaves = [{"id": 1, "registers": registers}]
        given = {"type": "modbus", "host": "127.0.0.1", "tcp_port": plc().port, "rate_hz": 100, "slaves": slaves}
        made = make_source(ModbusSettings.model_validate(given), CHANNELS)
        yield made
        made.close()
    elif request.param in FORMS:
        made, stop = a_serial(wire, request.param), threading.Event()
        sending = threading.Thread(target=send_again_and_again, args=(wire, stop, FORMS[request.param]))
        sending.start()
        yield made
        stop.set()
        sending.join()
        made.close()
    elif request.param.startswith("synthetic"):
        made_up = {"type": "synthetic", "channels": NAMES, "rate_hz": 100, "duration_s": 5, "speed": 0 if fast else 10}
        yield make_source(SyntheticSettings.model_validate(made_up), CHANNELS)
    else:
        table = tmp_path / "data.csv"
        rows = (f"{1_773_043_200 + n},{p:.3f},{f:.3f}\n" for n, (p, f) in enumerate(SENT))
        table.write_text("time,pressure [bar],flow [l/min]\n" + "".join(rows))
        yield make_source(ReplaySettings(type="replay", files=[table], speed=0 if fast else 200), CHANNELS)


def send_again_and_again(wire: Any, stop: threading.Event, form: Callable[[np.ndarray, int], bytes]) -> None:
    """A node that was talking before the port was opened; nobody may be listening."""
    assert wire.far is not None
    os.set_blocking(wire.far, False)
    for n, row in enumerate(itertools.cycle(SENT)):
        if stop.wait(0.002):
            return
        with suppress(BlockingIOError):
            os.write(wire.far, form(row[None], n))


def read_until(source: Source, rows: int) -> SampleBlock:
    """At least so many samples, or all that the source has."""
    blocks: list[SampleBlock] = []
    for _ in range(400):
        blocks.append(source.read(0.05))
        if source.ended or sum(map(len, blocks)) >= rows:
            break
    return SampleBlock(np.concatenate([b.time_s for b in blocks]), np.concatenate([b.values for b in blocks]))


def test_samples_have_a_column_a_channel_and_times_that_ascend(source: Source) -> None:
    source.open()
    block = read_until(source, 50)
    source.close()
    assert source.channels == CHANNELS
    assert len(block) >= 50 and block.values.shape == (len(block), 2)
    assert (block.time_s.dtype, block.values.dtype) == (np.float64, np.float64)
    assert (np.diff(block.time_s) > 0).all()
    known = np.isfinite(block.values).all(axis=1)
    assert known[known.argmax() :].all() and known.sum() > 25  # before that, a channel may not have spoken yet


def test_to_close_twice_or_before_it_was_opened_is_fine(source: Source) -> None:
    source.close()
    source.open()
    source.read(0.01)
    source.close()
    source.close()


def test_nothing_is_left_of_it_after_the_second_close(source: Source, until: Callable[..., None]) -> None:
    for _ in range(2):  # the first time loads libraries, and lets the other side know us
        threads, files = set(threading.enumerate()), descriptors()
        source.open()
        read_until(source, 1)
        source.close()
        source.close()
        until(lambda t=threads: ours() <= t, 5.0)
    until(lambda: descriptors() <= files, 5.0)  # the other side closes its ends, too


def ours() -> set[threading.Thread]:
    """Threads, but for those that a server of the tests has for each connection."""
    return {one for one in threading.enumerate() if "process_request_thread" not in one.name}


def descriptors() -> int:
    gc.collect()  # paho's client is one of a cycle, and closes two of its descriptors when it is freed
    return len(list(Path("/proc/self/fd").iterdir()))


def test_it_goes_on_after_it_was_closed_and_opened_again(source: Source) -> None:
    source.open()
    before = read_until(source, 1)
    source.close()
    source.open()
    after = read_until(source, 1)
    source.close()
    assert len(before) and (len(after) or source.ended)
    assert (np.diff(np.concatenate((before.time_s, after.time_s))) > 0).all()


def test_a_time_out_gives_an_empty_block(wire: Any, tmp_path: Path) -> None:
    table = tmp_path / "slow.csv"
    table.write_text("time,pressure,flow\n0,1,2\n3000,1,2\n")
    for slow in (
        a_serial(wire),
        SyntheticSource(CHANNELS, rate_hz=0.01),
        make_source(ReplaySettings(type="replay", files=[table]), CHANNELS),
    ):
        slow.open()
        slow.read(0.01)  # the recording's first row is due at once
        block = slow.read(0.01)
        slow.close()
        assert (len(block), block.values.shape, slow.ended) == (0, (0, 2), False)


def test_a_serial_line_gives_what_was_sent(wire: Any) -> None:
    source = a_serial(wire)
    source.open()
    wire.send(b"torn\n" + lines(SENT[:10]))
    first = read_until(source, 10)
    wire.send(lines(SENT[10:])[:100])
    wire.send(lines(SENT[10:])[100:])
    block = read_until(source, 40)
    source.close()
    np.testing.assert_array_equal(np.concatenate((first.values, block.values)), SENT)


def test_a_lost_serial_line_is_told_and_comes_back(wire: Any) -> None:
    source = a_serial(wire)
    source.open()
    wire.send(b"\n" + lines(SENT[:3]))
    read_until(source, 3)
    wire.unplug()
    with pytest.raises(SourceError, match=r"ttyTEST was lost"):
        for _ in range(20):
            source.read(0.05)
    source.close()
    with pytest.raises(SourceError, match=r"ttyTEST cannot be opened: it is not there: is it plugged in"):
        source.open()
    wire.plug()
    source.open()
    wire.send(b"\n" + lines(SENT[3:6]))
    np.testing.assert_array_equal(read_until(source, 3).values, SENT[3:6])
    source.close()


HOLDER = """
import fcntl, os, sys, time
port = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
fcntl.flock(port, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_serial_port_that_another_program_holds_is_told_with_its_holder(wire: Any) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, wire.port], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(SourceError, match=rf"is held by .* \({holder.pid}\): end that; sudo fuser -v ") as told:
            a_serial(wire).open()
        assert "dialout" not in str(told.value)
        finding = port_of("port", str(wire.port), [])
        assert (finding.state, f"({holder.pid})" in finding.found) == ("note", True)
        holder.kill()
    assert port_of("port", str(wire.port), []).state == "ok"


def test_a_read_of_a_closed_serial_port_is_a_source_error(wire: Any) -> None:
    with pytest.raises(SourceError, match="not open"):
        a_serial(wire).read(0.01)


def test_what_did_not_happen_is_not_counted(source: Source) -> None:
    source.open()
    read_until(source, 10)
    source.close()
    assert all(source.counts.reasons.values()), source.counts.reasons


@pytest.mark.parametrize("form", FORMS)
def test_noise_on_a_serial_line_is_counted_and_raises_nothing(wire: Any, form: str) -> None:
    source = a_serial(wire, form)
    source.open()
    wire.send(b"\n" + FORMS[form](SENT[:1], 0))
    read_until(source, 1)
    noise = np.random.default_rng(1).integers(0, 256, 3000, np.uint8).tobytes()
    wire.send(noise + b"\n" + FORMS[form](SENT[1:4], 1))
    block = read_until(source, 3)
    source.close()
    np.testing.assert_allclose(block.values[-3:], SENT[1:4], rtol=1e-6)
    assert source.counts.bad > 0


def test_the_stamps_of_a_serial_line_do_not_follow_a_small_step_of_the_clock_and_follow_a_large_one(
    wire: Any,
) -> None:
    offset_s, stamps = 0.0, []
    clock = ArrivalClock(1000, wall=lambda: time.time() + offset_s)
    settings = SerialSettings(type="serial", port=str(wire.port), channels=NAMES, rate_hz=1000)
    source = SerialSource(settings, CHANNELS, CHANNELS, clock)
    source.open()
    wire.send(b"\n")
    for offset_s in (0.0, 0.9, -0.9, -3600.0, -3600.5):  # noqa: B007 - read by the clock
        wire.send(lines(SENT[:1]))
        stamps.append(read_until(source, 1).time_s[0])
    source.close()
    steps = np.diff(stamps)
    assert source.counts.clock_steps == 1
    assert (steps[[0, 1, 3]] > 0).all() and (steps[[0, 1, 3]] < 0.5).all()
    assert steps[2] == pytest.approx(-3600, abs=0.5)


@pytest.mark.parametrize("missing", ["none.csv", "folder"])
def test_a_recording_that_cannot_be_opened_is_a_source_error(tmp_path: Path, missing: str) -> None:
    (tmp_path / "folder").mkdir()
    source = make_source(ReplaySettings(type="replay", files=[tmp_path / missing]), CHANNELS)
    with pytest.raises(SourceError, match=missing):
        source.open()


def test_a_recording_that_appears_later_is_played(tmp_path: Path) -> None:
    source = make_source(ReplaySettings(type="replay", files=[tmp_path / "later.csv"], speed=0), CHANNELS)
    with pytest.raises(SourceError):
        source.open()
    source.close()
    (tmp_path / "later.csv").write_text("time,pressure,flow\n0,1,2\n1,1,2\n")
    source.open()
    assert len(read_until(source, 2)) == 2


def test_damage_in_the_middle_of_a_recording_is_a_source_error(tmp_path: Path) -> None:
    table = tmp_path / "data.csv"
    table.write_text("time,pressure,flow\n" + "".join(f"{n},1,2\n" for n in range(70)) + "70,1\n")
    source = make_source(ReplaySettings(type="replay", files=[table], speed=0), CHANNELS)
    source.open()
    with pytest.raises(SourceError, match="line 72 has 2 fields"):
        read_until(source, 1000)


def seconds_to_play(run: Callable[[], object]) -> float:
    begin = time.monotonic()
    run()
    return time.monotonic() - begin


@pytest.mark.alone
def test_a_recording_takes_its_length_divided_by_the_speed(tmp_path: Path) -> None:
    table = tmp_path / "data.csv"
    table.write_text("time,pressure,flow\n" + "".join(f"{n},{n},2\n" for n in range(101)))
    settings = ReplaySettings(type="replay", files=[table], speed=100)
    source = make_source(settings, CHANNELS)
    source.open()
    played: list[SampleBlock] = []
    assert 0.85 < seconds_to_play(lambda: played.append(read_until(source, 101))) < 1.5
    np.testing.assert_array_equal(played[0].values[:, 0], np.arange(101))
    whole = make_source(settings.model_copy(update={"speed": 0}), CHANNELS)
    whole.open()
    assert seconds_to_play(lambda: played.append(read_until(whole, 101))) < 0.5
    np.testing.assert_array_equal(played[1].time_s, played[0].time_s)


@pytest.mark.alone
def test_a_jump_in_a_recording_is_not_waited_for(tmp_path: Path) -> None:
    for name, stamps in (("back", [100, 101, 5, 6, 7]), ("on", [100, 101, 900_000_000, 900_000_001, 900_000_002])):
        table = tmp_path / f"{name}.csv"
        table.write_text("time,pressure,flow\n" + "".join(f"{t},1,2\n" for t in stamps))
        source = make_source(ReplaySettings(type="replay", files=[table], speed=20), CHANNELS)
        source.open()
        played: list[SampleBlock] = []
        assert seconds_to_play(lambda s=source, p=played: p.append(read_until(s, 5))) < 1.0
        assert played[0].time_s.tolist() == stamps


def test_several_recordings_are_played_one_after_the_other_then_it_has_ended(tmp_path: Path) -> None:
    for n in (1, 2):
        (tmp_path / f"{n}.csv").write_text("time,flow,pressure\n" + "".join(f"{100 * n + i},0,{n}\n" for i in range(5)))
    source = make_source(
        ReplaySettings(type="replay", files=[tmp_path / "1.csv", tmp_path / "2.csv"], speed=0), CHANNELS
    )
    source.open()
    block = read_until(source, 1000)
    assert block.values[:, 0].tolist() == [1] * 5 + [2] * 5 and source.ended
    assert len(source.read(0.01)) == 0


def test_a_made_up_machine_is_the_same_for_the_same_seed_and_goes_wrong_when_told() -> None:
    def values(seed: int, **fault: object) -> np.ndarray:
        source = SyntheticSource(CHANNELS, rate_hz=10, seed=seed, speed=0, start_s=0.0, duration_s=60, **fault)
        source.open()
        return read_until(source, 10_000).values

    one, two, other = values(1), values(1), values(2)
    np.testing.assert_array_equal(one, two)
    assert one.shape == (600, 2) and not np.array_equal(one, other)
    wrong = values(1, fault_at_s=30.0, fault_channel="flow", fault_size=3.0)
    np.testing.assert_array_equal(wrong[:300], one[:300])
    np.testing.assert_allclose(wrong[300:] - one[300:], [[0, 3]] * 300)


def listening(wire: Any, form: str, wanted: tuple[Channel, ...], rate_hz: float = 100.0) -> Any:
    """A port of which only the form is stated, with a node that sends at a rate; opened."""
    stop = threading.Event()

    def send() -> None:
        begin = time.monotonic()
        for n in itertools.count():
            if stop.wait(max(0.0, begin + n / rate_hz - time.monotonic())):
                return
            wire.send(FORMS[form](SENT[n % 50][None], n))

    source = SerialSettings(type="serial", port=str(wire.port), format=form).make(wanted)
    sending = threading.Thread(target=send)
    sending.start()
    try:
        source.open()
        source.read(0.5)
    finally:
        stop.set()
        sending.join()
        source.close()
    return source


@pytest.mark.parametrize("form", ["csv", "binary"])
def test_axes_and_rate_that_are_not_stated_are_found_out(wire: Any, form: str) -> None:
    source = listening(wire, form, CHANNELS)
    assert source.channels == CHANNELS
    assert source._clock._rate == pytest.approx(100, rel=0.05)


def test_without_a_bundle_the_axes_get_numbers(wire: Any) -> None:
    assert [channel.name for channel in listening(wire, "csv", ()).channels] == ["c1", "c2"]


def test_more_axes_than_the_bundle_has_channels_are_told(wire: Any) -> None:
    with pytest.raises(SourceError, match=r"2 numbers come, the bundle has 1 channels: name what comes"):
        listening(wire, "csv", CHANNELS[:1])


def test_a_port_where_nothing_comes_is_told(wire: Any) -> None:
    source = SerialSettings(type="serial", port=str(wire.port), rate_hz=10, timeout_s=0.1).make(CHANNELS)
    with pytest.raises(SourceError, match="is the baud rate right"):
        source.open()


def test_three_axes_at_25600_hz_lose_nothing() -> None:
    spec = importlib.util.spec_from_file_location("source_rate", ROOT / "benchmarks/source_rate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.measure(2.0, 25_600, 3)
    assert (found["samples"], found["lost"], found["bad"]) == (51_200, 0, 0)


def test_raw_counts_come_in_engineering_units(wire: Any) -> None:
    channels = [{"name": "pressure", "unit": "bar", "scale": 0.5, "offset": 10}, "flow [l/min]"]
    given = {"type": "serial", "port": str(wire.port), "channels": channels, "rate_hz": 1000}
    source = SerialSettings.model_validate(given).make(CHANNELS)
    source.open()
    wire.send(b"\n" + lines(SENT[:5]))
    block = read_until(source, 5)
    source.close()
    np.testing.assert_allclose(block.values, SENT[:5] * [0.5, 1] + [10, 0])
