"""Signals of a CAN bus, on python-can's virtual bus."""

import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import can
import numpy as np
import pytest

from tocsin.errors import SourceError
from tocsin.records import Channel, SampleBlock
from tocsin.sources.can_bus import CanSettings, CanSource, FrameDecoder

DBC = Path(__file__).parents[1] / "data/plant.dbc"
PUMP, BEARING, EXTENDED = 0x100, 0x101, 0x18FEF1FE
CHANNELS = [
    {"name": "pressure", "signal": "Pump.Pressure"},
    {"name": "flow", "signal": "Flow", "scale": 60.0, "unit": "l/h"},
    {"name": "running", "signal": "Running"},
    {"name": "temperature", "signal": "Temperature"},
    {"name": "speed", "signal": "Bearing.Speed"},
    {"name": "level", "signal": "Level", "offset": 1.0},
]


def the_settings(bus: str = "plant", **others: Any) -> CanSettings:
    known = {"type": "can", "interface": "virtual", "channel": bus, "dbc": str(DBC), "rate_hz": 50}
    return CanSettings.model_validate({**known, "channels": CHANNELS, **others})


def pump(pressure: float, flow: float = 0.0, running: int = 1) -> bytes:
    return struct.pack("<HhB3x", round(pressure / 0.01), round((flow + 5) / 0.1), running)


@pytest.fixture
def send(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Puts frames on the bus that is named as the test."""
    peer = can.Bus(request.node.name, "virtual", preserve_timestamps=True)

    def put(frame_id: int, data: bytes, extended: bool = False, time_s: float | None = None, **others: Any) -> None:
        stamp = time.time() if time_s is None else time_s
        peer.send(can.Message(stamp, frame_id, extended, data=data, **others))

    yield put
    peer.shutdown()


def read_rows(source: CanSource, rows: int, timeout_s: float = 5.0) -> SampleBlock:
    blocks, end = [], time.monotonic() + timeout_s
    while sum(map(len, blocks)) < rows and time.monotonic() < end:
        blocks.append(source.read(0.05))
    return SampleBlock(np.concatenate([b.time_s for b in blocks]), np.concatenate([b.values for b in blocks]))


def test_signals_have_their_scale_sign_order_and_multiplexer():
    decoder = FrameDecoder(the_settings())
    assert decoder.channels == (
        Channel("pressure", "bar"), Channel("flow", "l/h"), Channel("running", ""), Channel("temperature", "degC"),
        Channel("speed", "1/min"), Channel("level", ""),
    )  # fmt: skip
    close = [(0, 4.21), (1, -180.0), (2, 1.0)]
    for (channel, value), (expected_channel, expected) in zip(
        decoder.decode(PUMP, False, pump(4.21, -3.0)), close, strict=True
    ):
        assert channel == expected_channel and value == pytest.approx(expected)
    assert decoder.decode(BEARING, False, b"\0\xff\x9c" + bytes(5)) == [(3, pytest.approx(-10.0))]  # big endian
    assert decoder.decode(BEARING, False, struct.pack("<Bi3x", 1, -1500)) == [(4, -1500.0)]
    assert decoder.decode(EXTENDED, True, struct.pack("<fHxx", 2.5, 7)) == [(5, 3.5)]
    assert decoder.decode(EXTENDED, False, bytes(8)) == decoder.decode(0x555, False, b"") == []


@pytest.mark.parametrize(
    ("frame", "data", "wrong"), [(PUMP, b"\1\2", "Pump: DecodeError"), (BEARING, b"\7" * 8, "Bearing: DecodeError")]
)
def test_a_frame_that_is_not_as_the_dbc_says_is_refused(frame: int, data: bytes, wrong: str):
    with pytest.raises(ValueError, match=f"^{wrong}$"):
        FrameDecoder(the_settings()).decode(frame, False, data)


@pytest.mark.parametrize(
    ("signal", "said"),
    [("Pressure", r"several .*Pump\.Pressure, Extended\.Pressure"), ("Volume", r"no signal 'Volume': it has Pump\.Pr"),
     ("Pump.Level", "no signal")],
)  # fmt: skip
def test_a_signal_that_is_not_there_or_not_the_only_one_is_told(signal: str, said: str):
    with pytest.raises(SourceError, match=said):
        FrameDecoder(the_settings(channels=[{"name": "x", "signal": signal}]))


def test_a_file_that_is_no_dbc_is_told(tmp_path):
    for content in (None, "no dbc", "\0\1"):
        if content is not None:
            (tmp_path / "x.dbc").write_text(content)
        with pytest.raises(SourceError, match=r"dbc: .*x\.dbc.*expected a DBC file"):
            CanSource(the_settings(dbc=str(tmp_path / "x.dbc"))).open()


def test_frames_become_rows_with_their_stamps(send, request):
    source = CanSource(the_settings(request.node.name, rate_hz=10))
    source.open()
    begin = 1_780_000_000.0  # the adapter's clock
    for n in range(30):
        send(0x7FF, b"")  # of others
        send(PUMP, pump(n), time_s=begin + n / 10)
    block = read_rows(source, 29)
    source.close()
    np.testing.assert_allclose(block.time_s[:29], begin + np.arange(29) / 10, atol=1e-6)
    np.testing.assert_allclose(block.values[:29, 0], np.arange(29), atol=1e-9)
    assert np.isnan(block.values[:, 3]).all()
    assert source.counts.bad == 0


def test_multiplexed_signals_are_held_until_their_turn_comes(send, request):
    source = CanSource(the_settings(request.node.name, rate_hz=10))
    source.open()
    for n in range(40):
        data = struct.pack(">Bh5x", 0, n) if n % 2 else struct.pack("<Bi3x", 1, n)
        send(BEARING, data, time_s=1_780_000_000 + n / 10)
    block = read_rows(source, 38)
    source.close()
    n = np.round(10 * (block.time_s - 1_780_000_000)).astype(int)
    assert n.tolist() == list(range(1, len(n) + 1)) and len(n) >= 38  # from the first row that both have
    np.testing.assert_allclose(block.values[:, 3], 0.1 * (n - 1 + n % 2))
    np.testing.assert_allclose(block.values[:, 4], n - n % 2)


def test_a_stamp_that_is_no_time_gives_way_to_the_arrival(send, request):
    source = CanSource(the_settings(request.node.name))
    source.open()
    for n in range(5):
        send(PUMP, pump(n), time_s=12.5 + n)
        block = read_rows(source, 1)
    source.close()
    assert abs(block.time_s[-1] - time.time()) < 2


def test_bad_frames_and_error_frames_are_counted_and_bus_off_is_told(send, request):
    source = CanSource(the_settings(request.node.name))
    source.open()
    send(PUMP, b"\1")
    send(0x4, bytes(8), is_error_frame=True)
    send(PUMP, b"", is_remote_frame=True)
    send(PUMP, pump(1.0))
    assert read_rows(source, 1).values[0, 0] == pytest.approx(1.0)
    assert dict(source.counts.reasons) == {"Pump: DecodeError": 1, "error frame": 1}
    send(0x40, bytes(8), is_error_frame=True)
    with pytest.raises(SourceError, match="is off: too many errors"):
        source.read(0.5)
    source.close()
    source.open()
    send(PUMP, pump(2.0))
    assert read_rows(source, 1).values[0, 0] == pytest.approx(2.0)
    source.close()


def test_a_lost_interface_is_told_and_comes_back(send, request):
    source = CanSource(the_settings(request.node.name))
    source.open()
    source._bus.shutdown()  # what the driver sees when the adapter is pulled
    with pytest.raises(SourceError, match="was lost"):
        source.read(0.1)
    source.open()
    send(PUMP, pump(3.0))
    assert len(read_rows(source, 1)) >= 1
    source.close()
    with pytest.raises(SourceError, match="not open"):
        source.read(0.1)


def test_an_interface_that_is_not_there_is_told():
    for interface, channel in (("socketcan", "can99"), ("nonsense", "can0")):
        with pytest.raises(SourceError, match="cannot be opened"):
            CanSource(the_settings(interface=interface, channel=channel)).open()


def test_without_the_extra_it_says_which_one_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "can", None)
    with pytest.raises(SourceError, match=r"pip install '\.\[can\]'"):
        CanSource(the_settings()).open()
