"""Random bytes into every parser of sources: none raises, none grows. `make fuzz` sends a million bytes to each."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tocsin.sources.can_bus import CanSettings, FrameDecoder
from tocsin.sources.frames import FrameParser, encode_frame
from tocsin.sources.iio import IioSettings, IioSource
from tocsin.sources.json_path import parse_path
from tocsin.sources.lines import JsonLineParser, LineParser
from tocsin.sources.mqtt import MqttSourceSettings, PayloadReader
from tocsin.sources.registers import FORMS, RegisterSettings, plan

BYTES = int(os.environ.get("FUZZ_BYTES", "100000"))
GOOD = {
    "csv": b"1.5,-2\n3e4;nan\n1_0,2\n,\n1,2,3\n",
    "json": b'{"a": 1, "b": null}\n{"a": [[[[1]]]], "b": 1e999}\n{"a": NaN}\n[1]\n' + b"[" * 1000 + b"\n",
    "frames": encode_frame(np.ones((5, 2)), 0) + encode_frame(np.ones((9, 2)), 5, 3) + b"\xa5\x5a\x01\x02\xff\xff",
}
PARSERS: dict[str, Callable[[], LineParser | FrameParser]] = {
    "csv": lambda: LineParser(2),
    "csv, axes unknown": lambda: LineParser(None),
    "json": lambda: JsonLineParser(("a", "b")),
    "frames": lambda: FrameParser(2),
    "frames, axes unknown": lambda: FrameParser(None),
}


def mutated(random: np.random.Generator, good: bytes) -> bytes:
    """Pieces of what is right with damage, and pure noise."""
    data = np.frombuffer(good * 4, np.uint8).copy()
    hits = random.integers(0, len(data), random.integers(0, 12))
    data[hits] = random.integers(0, 256, len(hits))
    start, stop = sorted(random.integers(0, len(data), 2))
    noise = random.integers(0, 256, random.integers(0, 200), np.uint8)
    return data[start:stop].tobytes() + (noise.tobytes() if random.random() < 0.3 else b"")


@pytest.mark.parametrize("name", PARSERS)
def test_whatever_comes_raises_nothing_and_takes_no_memory(name: str) -> None:
    random, parser, sent = np.random.default_rng(len(name)), PARSERS[name](), 0
    rows = 0
    while sent < BYTES:
        data = mutated(random, GOOD[name.partition(",")[0]])
        sent += len(data)
        found = parser.feed(data)
        for part in [piece.rows for piece in found] if isinstance(found, list) else [found]:
            assert part.dtype == np.float64 and part.shape[1] == (parser.channels or 0)
            rows += len(part)
        assert len(parser._rest) < 10_000
    assert rows > 0  # what is right among it is read


def test_any_registers_give_numbers_or_nan() -> None:
    random = np.random.default_rng(0)
    registers = [
        RegisterSettings.model_validate({"name": f"r{n}", "address": 4 * n, "type": kind, "order": order})
        for n, (kind, order) in enumerate((k, o) for k in FORMS for o in ("ABCD", "CDAB", "BADC", "DCBA"))
    ]
    requests = plan(list(enumerate(registers)), 125)
    for _ in range(max(1, BYTES // 2 // sum(one.count for one in requests))):
        for request in requests:
            values = dict(request.decode(random.integers(0, 65536, request.count).tolist()))
            assert len(values) == len(request.values)
            assert not any(np.isinf(list(values.values())))


def test_any_message_gives_finite_stamps_and_numbers_or_is_refused() -> None:
    random, sent, read, refused = np.random.default_rng(0), 0, 0, 0
    channels = [{"name": "a", "path": "s[0].v"}, {"name": "b", "path": "s[-1].v"}, {"name": "c", "topic": "plain"}]
    settings = {"type": "mqtt", "topic": "#", "time": "t", "rate_hz": 1, "channels": channels}
    reader = PayloadReader(MqttSourceSettings.model_validate(settings))
    good = json.dumps({"t": "2026-03-09T08:00:00Z", "s": [{"v": 2.5}, {"v": "-1e3"}]}).encode()
    while sent < BYTES:
        data = mutated(random, good)[: random.integers(1, 2 * len(good))] if random.random() < 0.3 else good
        data = bytearray(data)
        for at in random.integers(0, max(1, len(data)), random.integers(0, 3)):
            data[at : at + 1] = random.bytes(1)
        sent += len(data)
        try:
            time_s, found = reader.read(("x", "plain")[sent % 2], bytes(data))
        except ValueError:
            refused += 1
            continue
        assert time_s is None or 1e9 < time_s < 5e9
        assert all(0 <= channel < 3 and not math.isinf(value) for channel, value in found)
        read += 1
    assert read > 100 and refused > 100


def test_any_path_is_read_or_refused() -> None:
    random, alphabet, sent, read = np.random.default_rng(0), 'ab0[]."$- \\', 0, 0
    while sent < BYTES:
        text = "".join(alphabet[i] for i in random.integers(0, len(alphabet), 8))
        sent += len(text)
        try:
            read += bool(parse_path(text))
        except ValueError as error:
            assert "expected" in str(error)
    assert read > 0


def test_any_frame_of_a_can_bus_gives_numbers_or_is_refused() -> None:
    random, sent, read, refused = np.random.default_rng(0), 0, 0, 0
    signals = ["Pump.Pressure", "Flow", "Temperature", "Bearing.Speed", "Level"]
    channels = [{"name": f"c{n}", "signal": signal} for n, signal in enumerate(signals)]
    dbc = Path(__file__).parents[1] / "data/plant.dbc"
    decoder = FrameDecoder(CanSettings.model_validate({"type": "can", "dbc": dbc, "rate_hz": 1, "channels": channels}))
    frames = [(0x100, False), (0x101, False), (0x18FEF1FE, True), (0x123, False)]
    while sent < BYTES:
        frame, extended = frames[random.integers(0, 4)]
        data = random.bytes(random.integers(0, 10))
        sent += 4 + len(data)
        try:
            found = decoder.decode(frame, extended, data)
        except ValueError:
            refused += 1
            continue
        assert all(0 <= channel < 5 and isinstance(value, float) for channel, value in found)
        read += len(found)
    assert read > 100 and refused > 100


def test_any_scans_of_an_iio_buffer_give_numbers(device: Any) -> None:
    random, sent, rows = np.random.default_rng(0), 0, 0
    axes = [{"name": axis, "element": f"in_accel_{axis}"} for axis in "xyz"]
    given = {"type": "iio", "device": "adxl355", "rate_hz": 1000, "channels": axes}
    source = IioSource(IioSettings.model_validate({**given, "sysfs": device.sysfs, "dev": device.dev}))
    source.open()
    device.start()
    while sent < BYTES:
        data = random.bytes(random.integers(1, 2000))
        sent += len(data)
        device.send(data)
        while len(block := source.read(0.0)):  # a block ends where the stamps go back: there are many
            assert np.isfinite(block.values).all() and np.isfinite(block.time_s).all()
            rows += len(block)
    source.close()
    assert rows > 0
