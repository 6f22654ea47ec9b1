"""Bytes of a Linux industrial I/O buffer ↔ numbers: the elements of a scan, as `scan_elements/*_type` describe them.

```
le:s12/16>>4    little endian, signed, 12 bits of a 16-bit word, 4 bits of padding below them
scan            one word a channel in the order of the index, each aligned to its own size; then the time stamp;
                the whole is as long as a multiple of its largest word
```
Rules: a block of scans is decoded by numpy, never sample by sample. Half a scan at the end of what was read waits for
the next read. See the Linux kernel's Documentation/iio/iio_devbuf.rst.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tocsin.records import Floats, Ints

_TYPE = re.compile(r"(?P<endian>[lb])e:(?P<sign>[su])(?P<bits>\d+)/(?P<storage>\d+)(X(?P<repeat>\d+))?>>(?P<shift>\d+)")
_STORAGE = (8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class ElementType:
    """How one element is stored.

    Attributes:
        little: endian; else big.
        signed: two's complement.
        bits: that mean something.
        storage: bits of the word: 8, 16, 32 or 64.
        shift: bits of padding below those that mean something.
    """

    little: bool
    signed: bool
    bits: int
    storage: int
    shift: int

    @classmethod
    def parse(cls, text: str) -> "ElementType":
        """Reads the content of a `_type` file.

        >>> ElementType.parse("le:s12/16>>4").bits
        12

        Raises:
            ValueError: says what was expected.
        """
        match = _TYPE.fullmatch(text.strip())
        if match is None or len(text) > 64:
            raise ValueError(f"element type {text[:64]!r}: expected one such as le:s12/16>>4")
        bits, storage, shift = int(match["bits"]), int(match["storage"]), int(match["shift"])
        if match["repeat"] not in (None, "1"):
            raise ValueError(f"element type {text.strip()}: several numbers in one element are not supported")
        if storage not in _STORAGE or not 0 < bits <= storage - shift:
            raise ValueError(
                f"element type {text.strip()}: expected a word of 8, 16, 32 or 64 bits that holds value and padding"
            )
        return cls(match["endian"] == "l", match["sign"] == "s", bits, storage, shift)

    @property
    def word(self) -> np.dtype[np.generic]:
        """Of numpy, for the stored word."""
        return np.dtype(f"{'<' if self.little else '>'}{'i' if self.signed else 'u'}{self.storage // 8}")

    def values(self, words: NDArray[np.generic]) -> Ints | NDArray[np.uint64]:
        """(n,) what the words mean: padding removed, sign extended."""
        wide = words.astype(np.int64 if self.signed else np.uint64)
        above = wide.itemsize * 8 - self.bits - self.shift
        kind = wide.dtype.type
        return (wide << kind(above)) >> kind(above + self.shift)  # the shift back brings the sign with it


class ScanLayout:
    """Where the elements of a scan are.

    Args:
        elements: of the channels that are enabled, in the order of their index.

    Attributes:
        dtype: of one scan: fields 0, 1, … in that order.
    """

    def __init__(self, elements: tuple[ElementType, ...]) -> None:
        self.elements = elements
        offsets, end = [], 0
        for element in elements:
            size = element.storage // 8
            offsets.append(-(-end // size) * size)
            end = offsets[-1] + size
        largest = max(element.storage // 8 for element in elements)
        self.dtype = np.dtype(
            {
                "names": [str(i) for i in range(len(elements))],
                "formats": [element.word for element in elements],
                "offsets": offsets,
                "itemsize": -(-end // largest) * largest,
            }
        )

    def split(self, data: bytes) -> tuple[NDArray[np.void], bytes]:
        """(n,) whole scans, and the bytes of the one that is not complete."""
        whole = len(data) - len(data) % self.dtype.itemsize
        return np.frombuffer(data[:whole], self.dtype), data[whole:]

    def column(self, scans: NDArray[np.void], element: int) -> Ints | NDArray[np.uint64]:
        """(n,) raw numbers of one element."""
        return self.elements[element].values(scans[str(element)])

    def table(self, scans: NDArray[np.void], elements: tuple[int, ...], scale: Floats, offset: Floats) -> Floats:
        """(n, C) (raw + offset) · scale of these elements."""
        values = np.empty((len(scans), len(elements)))
        for k, element in enumerate(elements):
            values[:, k] = self.column(scans, element)
        return (values + offset) * scale
