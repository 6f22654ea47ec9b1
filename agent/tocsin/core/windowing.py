"""Rows → sliding windows of `length` rows, one every `hop` rows."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tocsin.records import Floats, Ints, Rows, Windows


class SlidingWindow:
    """Keeps the last rows and gives each window once, when its last row arrives.

    Windows never straddle a gap: after one, the first window ends `length` rows later.

    Args:
        length: T, rows a window.
        hop: rows from one window to the next.
        channels: C.
    """

    def __init__(self, length: int, hop: int, channels: int) -> None:
        self.length, self.hop = length, hop
        self._values: Floats = np.empty((0, channels))
        self._time_s: Floats = np.empty(0)
        self._sample: Ints = np.empty(0, np.int64)
        self._start = self._stop = 0  # rows in use
        self._next = 0  # first row of the next window, from `_start`

    def push(self, rows: Rows) -> Windows:
        """Windows that the rows complete, K ≥ 0; valid until the next push."""
        if rows.after_gap:
            self._start = self._stop = self._next = 0
        self._append(rows)
        ready = max(0, (self._stop - self._start - self._next - self.length) // self.hop + 1)
        first = self._start + self._next
        if ready:
            span = slice(first, first + (ready - 1) * self.hop + self.length)
            values = sliding_window_view(self._values[span], self.length, axis=0)[:: self.hop].transpose(0, 2, 1)
            ends = slice(first + self.length - 1, span.stop, self.hop)
            out = Windows(
                values,
                self._time_s[first : span.stop - self.length + 1 : self.hop].copy(),
                self._time_s[ends].copy(),
                self._sample[ends].copy(),
                self._sample[first : span.stop - self.length + 1 : self.hop].copy(),
            )
        else:
            none, no_time = self._sample[:0], self._time_s[:0]
            out = Windows(self._values[:0, None].repeat(self.length, 1), no_time, no_time, none, none)
        self._next += ready * self.hop
        drop = min(self._next, self._stop - self._start)
        self._start += drop
        self._next -= drop
        return out

    def _append(self, rows: Rows) -> None:
        n = len(rows)
        if self._stop + n > len(self._time_s):
            used = slice(self._start, self._stop)
            size = max(4 * self.length, 2 * (self._stop - self._start + n))
            for name in ("_values", "_time_s", "_sample"):
                old = getattr(self, name)
                new = np.empty((size, *old.shape[1:]), old.dtype) if size > len(old) else old
                kept = old[used].copy()
                new[: len(kept)] = kept
                setattr(self, name, new)
            self._start, self._stop = 0, self._stop - self._start
        end = self._stop + n
        self._values[self._stop : end] = rows.values
        self._time_s[self._stop : end] = rows.time_s
        self._sample[self._stop : end] = rows.sample
        self._stop = end
