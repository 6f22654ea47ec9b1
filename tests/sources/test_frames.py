"""The framed binary protocol: what is sent comes out, damage costs its frame, losses are counted."""

import re
import shutil
import struct
import subprocess
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.sources.frames import MOST_BYTES, FrameParser, encode_frame

ROWS = np.random.default_rng(0).integers(-30_000, 30_000, (640, 3)).astype(np.float64)
FRAMES = [encode_frame(ROWS[n : n + 64], n) for n in range(0, 640, 64)]


def fed(pieces: list[bytes], channels: int | None = 3) -> tuple[np.ndarray, FrameParser]:
    parser = FrameParser(channels)
    found = [piece.rows for data in pieces for piece in parser.feed(data)]
    return np.concatenate([np.empty((0, 3)), *found]), parser


@settings(deadline=None)
@given(st.lists(st.integers(0, 4000), max_size=30))
def test_what_was_sent_comes_out_however_the_bytes_are_cut(cuts: list[int]) -> None:
    data = b"".join(FRAMES)
    edges = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    rows, parser = fed([data[a:b] for a, b in pairwise(edges)])
    np.testing.assert_array_equal(rows, ROWS)
    assert (parser.bad_frames, parser.lost) == (0, 0)


@pytest.mark.parametrize(("kind", "value"), [(1, -32768.0), (2, -2147483648.0), (3, 0.15625)])
def test_every_type_of_value(kind: int, value: float) -> None:
    parser = FrameParser(None)
    (piece,) = parser.feed(encode_frame(np.full((2, 5), value), 0, kind))
    assert piece.rows.tolist() == [[value] * 5] * 2 and parser.channels == 5


def test_the_frame_of_the_page_is_read() -> None:
    head = struct.pack("<BBHI", 1, 2, 2, 7)
    body = head + struct.pack("<H4h", zlib.crc32(head) % 65536, 10, -10, 20, -20)
    (piece,) = FrameParser(2).feed(b"\xa5\x5a" + body + struct.pack("<I", zlib.crc32(body)))
    assert piece.rows.tolist() == [[10, -10], [20, -20]]
    assert zlib.crc32(b"123456789") == 0xCBF43926


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(FRAMES[0]) - 1), st.integers(1, 255), st.integers(1, 8))
def test_a_damaged_byte_costs_its_frame_and_no_other(at: int, flip: int, which: int) -> None:
    frames = [bytearray(frame) for frame in FRAMES]
    frames[which][at] ^= flip
    rows, parser = fed([b"".join(frames)])
    np.testing.assert_array_equal(rows, np.delete(ROWS, np.s_[64 * which : 64 * which + 64], axis=0))
    assert parser.lost == 64 and parser.bad_frames >= 1


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(1, 9))
def test_after_garbage_it_finds_the_next_frame(garbage: bytes, which: int) -> None:
    data = b"".join(FRAMES[:which]) + garbage + b"".join(FRAMES[which:])
    rows, parser = fed([data])
    np.testing.assert_array_equal(rows, ROWS)
    assert parser.lost == 0


def test_a_frame_that_began_before_we_listened_is_no_mistake() -> None:
    rows, parser = fed([FRAMES[0][100:] + FRAMES[1]])
    assert len(rows) == 64 and parser.bad_frames == 0


def test_lost_samples_are_counted_across_the_end_of_the_sequence_and_a_restart_is_none() -> None:
    parser = FrameParser(3)
    pieces = [
        piece
        for start in (2**32 - 64, 0, 128, 0)  # the end, then 64 lost, then the board began anew
        for piece in parser.feed(encode_frame(ROWS[:64], start))
    ]
    assert [piece.lost for piece in pieces] == [0, 0, 64, 0]
    assert (parser.lost, parser.restarts) == (64, 1)


def test_a_stream_without_a_frame_takes_no_memory() -> None:
    parser = FrameParser(3)
    header = encode_frame(ROWS[:1], 0)[:4] + b"\x55\x05" + bytes(4)
    header += struct.pack("<H", zlib.crc32(header[2:]) % 65536)  # a whole header, and never its values
    for _ in range(100):
        parser.feed(header + bytes(1000))
    assert len(parser._rest) <= MOST_BYTES + 16


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_c_code_of_the_page_writes_frames_that_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/configure/serial.md").read_text("utf-8")
    (code,) = re.findall(r"^```c\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "node.c").write_text(
        "#include <stdint.h>\n#include <stdio.h>\n#include <string.h>\n"
        "static void serial_write(const uint8_t *p, size_t n) { fwrite(p, 1, n, stdout); }\n"
        + code
        + "int main(void) { int16_t a[6] = {1, -2, 3, -4, 5, -6};\n"
        "send_frame(a, 3, 2); send_frame(a, 2, 2); return 0; }\n"
    )
    subprocess.run(["cc", "-o", tmp_path / "node", tmp_path / "node.c"], check=True)
    sent = subprocess.run([tmp_path / "node"], check=True, capture_output=True).stdout
    parser = FrameParser(2)
    (piece,) = parser.feed(sent)
    assert piece.rows.tolist() == [[1, -2], [3, -4], [5, -6], [1, -2], [3, -4]]
    assert (parser.bad_frames, parser.lost) == (0, 0)
