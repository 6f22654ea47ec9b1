"""A sensor at the end of its range: the highest value seen comes again and again, and hardly anything just below it.

```
            ▔▔▔  ▔▔▔   ▔▔▔   ▔▔▔     rail: beyond normal running, exactly equal
           ╱   ╲╱   ╲ ╱   ╲ ╱   ╲
```
The crest of a swing gathers samples near the top too, but as many just below it as at it.
"""

import math

import numpy as np

from tocsin.records import Bools, Floats

NEAR = 0.02  # of the span of normal running
FEWEST, RATIO = 10, 3  # samples at the rail; times as many as near it


class Rail:
    """Looks for the rail beyond one end of one channel's normal running.

    Args:
        seen: highest value of normal running.
        span: of normal running, above 0.
        limit: values beyond this are no values.
    """

    def __init__(self, seen: float, span: float, limit: float) -> None:
        self._seen, self._near, self._limit = seen, NEAR * span, limit
        self._top, self._at, self._below = -math.inf, 0, 0

    def push(self, values: Floats) -> Bools | None:
        """(n,) samples that lie at the rail; None where none does. Values that are not finite are passed over."""
        outside = np.flatnonzero((values > self._seen) & (values <= self._limit))
        if not len(outside):
            return None
        struck = np.zeros(len(values), np.bool_)
        x = values[outside]
        tops = np.maximum.accumulate(np.concatenate(([self._top], x)))
        higher = x > tops[:-1]
        records = np.flatnonzero(higher).tolist()
        for start, stop in zip([0, *records], [*records, len(x)], strict=True):
            if start == stop:
                continue
            if higher[start]:
                self._top, self._at, self._below = float(x[start]), 0, 0
            part = x[start:stop]
            at, below = part == self._top, (part < self._top) & (part >= self._top - self._near)
            count_at, count_below = self._at + np.cumsum(at), self._below + np.cumsum(below)
            struck[outside[start:stop]] = at & (count_at >= FEWEST) & (count_at > RATIO * count_below)
            self._at, self._below = int(count_at[-1]), int(count_below[-1])
        return struck if struck.any() else None
