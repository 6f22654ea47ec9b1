"""Sum, least and largest of the last N values, at a constant cost a value.

```
      ├── chunk before ──┤├── this chunk ─
              ╰─ suffix ─╯╰─ prefix ─╯         the last N values are a suffix and a prefix
```
Chunks of N begin anew (van Herk, 1992; Gil and Werman, 1993), so that a wild value is forgotten with its chunk, and
the sums are the same to the last bit however the stream is cut.
"""

from typing import Literal

import numpy as np

from tocsin.records import Floats

OPERATIONS: dict[str, np.ufunc] = {"sum": np.add, "min": np.minimum, "max": np.maximum}


class Rolling:
    """Over the last `length` values of a stream.

    Args:
        operation: what is made of them.
        length: N, at least 1.
    """

    def __init__(self, operation: Literal["sum", "min", "max"], length: int) -> None:
        self._join, self._length = OPERATIONS[operation], length
        self.reset()

    def reset(self) -> None:
        """The stream begins anew."""
        self._suffix = np.full(self._length, np.nan)  # [k]: of the values k … N−1 of the chunk before
        self._chunk: list[Floats] = []
        self._count, self._prefix = 0, np.empty(0)

    def push(self, values: Floats) -> Floats:
        """(n,) at each of the next values; NaN before there are N."""
        out = np.empty(len(values))
        start = 0
        while start < len(values):
            stop = min(len(values), start + self._length - self._count)
            part = values[start:stop]
            prefix = self._join.accumulate(np.concatenate((self._prefix, part)))[len(self._prefix) :]
            self._chunk.append(part.copy())
            self._count, self._prefix = self._count + len(part), prefix[-1:]
            at = np.arange(self._count - len(part) + 1, self._count + 1)
            whole = at == self._length
            out[start:stop] = np.where(whole, prefix, self._join(self._suffix[np.where(whole, 0, at)], prefix))
            if self._count == self._length:
                chunk = np.concatenate(self._chunk)
                self._suffix = self._join.accumulate(chunk[::-1])[::-1]
                self._chunk, self._count, self._prefix = [], 0, np.empty(0)
            start = stop
        return out


class Delayed:
    """A stream as it was `length` values ago."""

    def __init__(self, length: int) -> None:
        self._length = length
        self.reset()

    def reset(self) -> None:
        """The stream begins anew."""
        self._held = np.full(self._length, np.nan)

    def push(self, values: Floats) -> Floats:
        """(n,) the values so long ago; NaN where there was none."""
        whole = np.concatenate((self._held, values))
        self._held = whole[len(values) :].copy()
        return whole[: len(values)]
