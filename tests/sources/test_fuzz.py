"""Random bytes into every parser of sources: none raises, none grows. `make fuzz` sends a million bytes to each."""

import os
from collections.abc import Callable

import numpy as np
import pytest

from tocsin.sources.frames import FrameParser, encode_frame
from tocsin.sources.lines import JsonLineParser, LineParser
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
