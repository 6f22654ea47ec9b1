"""The framed binary protocol of sensor nodes: many samples a frame, with a check and a sequence number.

```
offset  size  field                                                      all numbers little-endian
0       2     sync       A5 5A
2       1     type       1 int16, 2 int32, 3 float32
3       1     channels   C, 1 to 64
4       2     samples    N, 1 or more; N·C·size at most 8192 bytes
6       4     sequence   number of the first sample since the node began; goes from 2³²−1 on to 0
10      2     header     low 16 bits of the CRC-32 of the 8 bytes from `type` to `sequence`
12      …     values     N rows of C values
…       4     check      CRC-32 (IEEE, as zlib.crc32) of everything from `type` up to here
```
The header has a check of its own, lest a damaged length makes the reader wait for bytes that never come. A frame
whose check fails is skipped byte by byte up to the next sync, so that one damaged frame costs itself and no other. A
jump in the sequence counts the samples that are missing; one back, or by more than `MOST_LOST`, is a node that began
anew.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from tocsin.records import Floats

SYNC = b"\xa5\x5a"
HEADER = struct.Struct("<2sBBHIH")
CHECKED = slice(2, 10)  # of the header
CHECK = struct.Struct("<I")
TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<i2"), 2: np.dtype("<i4"), 3: np.dtype("<f4")}
MOST_CHANNELS, MOST_BYTES = 64, 8192
MOST_LOST = 10_000_000


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples without a loss inside.

    Attributes:
        lost: samples that are missing before them.
        rows: (n, C) float64.
    """

    lost: int
    rows: Floats


def encode_frame(rows: Floats, sequence: int, kind: int = 1) -> bytes:
    """The frame of (N, C) values, as a node would send it; for tests and simulations."""
    fields = (SYNC, kind, rows.shape[1], len(rows), sequence % 2**32)
    check = zlib.crc32(HEADER.pack(*fields, 0)[CHECKED]) & 0xFFFF
    body = HEADER.pack(*fields, check) + rows.astype(TYPES[kind]).tobytes()
    return body + CHECK.pack(zlib.crc32(body[2:]))


class FrameParser:
    """Bytes → pieces of samples.

    Args:
        channels: C of every frame; None = as the first good frame has it.

    Attributes:
        channels: as given, or found.
        bad_frames: stretches of bytes that were no frame.
        lost: samples that are missing by the sequence.
        restarts: times at which the node began anew.
    """

    def __init__(self, channels: int | None) -> None:
        self.channels = channels
        self.bad_frames = self.lost = self.restarts = 0
        self._rest = b""
        self._expected: int | None = None
        self._skipping = True  # the first bytes may belong to a frame that began before we listened

    def feed(self, data: bytes) -> list[Piece]:
        """The samples that these bytes complete."""
        buffer, at = self._rest + data, 0
        pieces: list[tuple[int, list[Floats]]] = []
        while True:
            found = buffer.find(SYNC, at)
            if found != at and len(buffer) - at > 1:
                self._skip()
            if found < 0:
                at = max(at, len(buffer) - 1)  # half a sync may stand at the end
                break
            at = found
            if len(buffer) - at < HEADER.size:
                break
            _, kind, channels, samples, sequence, check = HEADER.unpack_from(buffer, at)
            length = self._length(kind, channels, samples)
            if length is None or zlib.crc32(buffer[at : at + HEADER.size][CHECKED]) & 0xFFFF != check:
                self._skip()
                at += 1
                continue
            end = at + HEADER.size + length
            if len(buffer) < end + CHECK.size:
                break
            if zlib.crc32(memoryview(buffer)[at + 2 : end]) != CHECK.unpack_from(buffer, end)[0]:
                self._skip()
                at += 1
                continue
            rows = np.frombuffer(buffer, TYPES[kind], samples * channels, at + HEADER.size).reshape(samples, channels)
            self.channels, self._skipping = channels, False
            lost = self._missing(sequence, samples)
            if lost or not pieces:
                pieces.append((lost, []))
            pieces[-1][1].append(rows.astype(np.float64))
            at = end + CHECK.size
        self._rest = buffer[at:]
        return [Piece(lost, parts[0] if len(parts) == 1 else np.concatenate(parts)) for lost, parts in pieces]

    def _length(self, kind: int, channels: int, samples: int) -> int | None:
        """Bytes of the values, or None where this is no header."""
        if kind not in TYPES or not 1 <= channels <= MOST_CHANNELS or channels != (self.channels or channels):
            return None
        length = samples * channels * TYPES[kind].itemsize
        return length if 0 < length <= MOST_BYTES else None

    def _skip(self) -> None:
        self.bad_frames += not self._skipping
        self._skipping = True

    def _missing(self, sequence: int, samples: int) -> int:
        lost = 0 if self._expected is None else (sequence - self._expected) % 2**32
        self._expected = (sequence + samples) % 2**32
        if lost > MOST_LOST:
            self.restarts += 1
            return 0
        self.lost += lost
        return lost
