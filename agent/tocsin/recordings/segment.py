"""Segments: recorded samples on disk, safe against a power cut.

```
file     = MAGIC, frame, frame, …                          only ever appended to
frame    = length u32 | crc32 u32 | payload                little-endian; the sum is of length and payload
payload  = the first: JSON, see `Header`
           all others: step f8, n times f8, then C columns of n values, f4 or f8
```
`step` is by how many seconds the clock was set before the first sample. A value that its source called bad is a NaN of
its own, `BAD`: to who does not know it, it is missing like any other.

Rules: a file is read up to the first frame that is not whole; what lies behind it was never promised, and among others
a file without a whole header is left out with a warning. A frame that could not be written is taken back, so that the
next one follows the last whole one. No length in a file is trusted before the sum agrees, nor beyond `MAX_FRAME`.
"""

import json
import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tocsin.errors import DataError
from tocsin.records import Bools, Channel, SampleBlock

log = logging.getLogger(__name__)

MAGIC = b"TOCSEG1\n"
SUFFIX = ".seg"
MAX_FRAME = 1 << 24  # bytes of payload
MAX_CHANNELS = 4096
_HEAD, _STEP = struct.Struct("<II"), struct.Struct("<d")
BAD = {"float32": 0x7FC00001, "float64": 0x7FF8000000000001}

Precision = Literal["float32", "float64"]
_TYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float64": np.dtype("<f8")}


class _TornError(DataError):
    """There is no whole header."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says of its samples.

    Attributes:
        stream: asset, or asset and rate group.
        channels: of the columns.
        precision: of the values; times are float64.
        snapshot: id, where the segment is one, else empty.
    """

    stream: str
    channels: tuple[Channel, ...]
    precision: Precision = "float32"
    snapshot: str = ""

    def encode(self) -> bytes:
        """As the first payload."""
        channels = [{"name": channel.name, "unit": channel.unit} for channel in self.channels]
        document = {"stream": self.stream, "channels": channels, "precision": self.precision, "snapshot": self.snapshot}
        return json.dumps(document, ensure_ascii=False).encode()

    @classmethod
    def decode(cls, payload: bytes) -> "Header":
        """From the first payload.

        Raises:
            ValueError: it is no header.
        """
        try:
            document = json.loads(payload)
            channels = tuple(Channel(str(each["name"]), str(each["unit"])) for each in document["channels"])
            precision = document["precision"]
            header = cls(str(document["stream"]), channels, precision, str(document["snapshot"]))
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"no header of a segment: {error!r}") from error
        if not isinstance(precision, str) or precision not in _TYPES or not 0 < len(channels) <= MAX_CHANNELS:
            raise ValueError(f"no header of a segment: precision {precision!r}, {len(channels)} channels")
        return header


class SegmentWriter:
    """A new segment, open for appending.

    Args:
        path: must not exist; its folder must.
        header: of all its samples.

    Attributes:
        size: bytes up to the last whole frame.
        rows: samples in it.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.header, self.size, self.rows = path, header, 0, 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            self._write(MAGIC + _frame(header.encode()))
            self.sync()
            sync_folder(path.parent)
        except OSError:
            os.close(self._file)
            path.unlink(missing_ok=True)
            raise

    def append(self, block: SampleBlock) -> None:
        """Writes samples, as one frame or, where they are many, as several.

        Raises:
            OSError: disk full or failing; the frames before stand.
        """
        kind = _TYPES[self.header.precision]
        most = (MAX_FRAME - _STEP.size) // (8 + kind.itemsize * len(self.header.channels))
        for start in range(0, len(block), most):
            part = block.part(slice(start, start + most))
            columns = _columns(part, self.header.precision)
            self._write(_frame(_STEP.pack(part.step_s) + part.time_s.astype("<f8").tobytes() + columns.tobytes()))
            self.rows += len(part)

    def _write(self, data: bytes) -> None:
        try:
            done = 0
            while done < len(data):
                done += os.write(self._file, data[done:])
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(data)

    def sync(self) -> None:
        """What was appended outlives a power cut from here on."""
        os.fdatasync(self._file)

    def close(self) -> None:
        """Syncs and lets go of the file."""
        try:
            self.sync()
        finally:
            os.close(self._file)


def sync_folder(folder: Path) -> None:
    """Names made in the folder outlive a power cut from here on."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_header(path: Path) -> Header:
    """What the segment says of its samples.

    Raises:
        DataError: it is no segment, or cannot be read.
    """
    with _opened(path) as handle:
        return _header(path, handle)


def read_headers(paths: Iterable[Path]) -> dict[Path, Header]:
    """What each segment says, in order; those without a whole header, as a power cut leaves them, are left out.

    Raises:
        DataError: one is of a newer version, or cannot be read.
    """
    found = {}
    for path in paths:
        try:
            found[path] = read_header(path)
        except _TornError as error:
            log.warning("%s: it is left out", error)
    return found


def read_blocks(path: Path) -> Iterator[SampleBlock]:
    """The samples, a frame at a time, values as float64; ends at the first frame that is not whole.

    Raises:
        DataError: it is no segment, or cannot be read.
    """
    with _opened(path) as handle:
        header = _header(path, handle)
        kind, channels = _TYPES[header.precision], len(header.channels)
        for payload in _frames(path, handle):
            rows, rest = divmod(len(payload) - _STEP.size, 8 + kind.itemsize * channels)
            if rest or rows < 0:
                raise DataError(f"{path}: a frame of {len(payload)} bytes does not hold {channels} channels")
            (step_s,) = _STEP.unpack_from(payload)
            time_s = np.frombuffer(payload, "<f8", rows, _STEP.size).astype(np.float64)
            columns = np.frombuffer(payload, kind, rows * channels, _STEP.size + 8 * rows).reshape(channels, rows)
            bad: Bools = columns.T.view(f"<u{kind.itemsize}") == BAD[header.precision]
            values = np.ascontiguousarray(columns.T, np.float64)
            yield SampleBlock(time_s, values, step_s=step_s, bad=bad if bad.any() else None)


def _columns(block: SampleBlock, precision: Precision) -> NDArray[Any]:
    """(C, n) values as they are written."""
    kind = _TYPES[precision]
    with np.errstate(over="ignore"):  # beyond float32 it is infinite
        columns = np.ascontiguousarray(block.values.T, kind)
    if not np.isfinite(columns).all():
        columns = columns.copy() if np.shares_memory(columns, block.values) else columns
        columns[np.isnan(columns)] = np.nan  # one kind of NaN, whatever the source made
        if block.bad is not None:
            columns.view(f"<u{kind.itemsize}")[block.bad.T & np.isnan(columns)] = BAD[precision]
    return columns


def whole_length(path: Path) -> int:
    """Bytes up to the last whole frame; 0 where not even the header is whole.

    Raises:
        DataError: it cannot be read.
    """
    with _opened(path) as handle:
        if handle.read(len(MAGIC)) != MAGIC:
            return 0
        return len(MAGIC) + sum(_HEAD.size + len(payload) for payload in _frames(path, handle))


def cut_tail(path: Path) -> int:
    """Takes away what a cut left behind the last whole frame, and the file with it when nothing is left; bytes taken.

    Raises:
        DataError: it cannot be read.
        OSError: it cannot be changed.
    """
    whole, size = whole_length(path), path.stat().st_size
    if whole <= len(MAGIC):
        path.unlink()
    elif whole < size:
        os.truncate(path, whole)
    else:
        return 0
    return size - whole


def find_segments(folder: Path) -> list[Path]:
    """The segments that lie in a folder, in the order of their names, which is that of recording."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file())


def _frame(payload: bytes) -> bytes:
    return _HEAD.pack(len(payload), _sum(payload)) + payload


def _sum(payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(len(payload).to_bytes(4, "little")))


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _header(path: Path, handle: IO[bytes]) -> Header:
    if handle.read(len(MAGIC)) != MAGIC:
        raise _TornError(f"{path}: this is no segment of a recording, or its header was cut off")
    payload = next(_frames(path, handle), None)
    if payload is None:
        raise _TornError(f"{path}: its header was cut off: nothing in it can be read")
    try:
        return Header.decode(payload)
    except ValueError as error:
        raise DataError(f"{path}: {error}: was it written by a newer version?") from error


def _frames(path: Path, handle: IO[bytes]) -> Iterator[bytes]:
    """Payloads, up to the first that is not whole."""
    while True:
        try:
            head = handle.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return
            length, expected = _HEAD.unpack(head)
            payload = handle.read(length) if length <= MAX_FRAME else b""
        except OSError as error:
            raise DataError(f"{path}: cannot be read to its end: {error.strerror or error}") from error
        if len(payload) != length or _sum(payload) != expected:
            return
        yield payload
