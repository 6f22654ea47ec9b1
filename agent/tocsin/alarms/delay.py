"""On-delay and off-delay of what happens to samples, channel by channel.

```
events    · x · · x x · · · · · · · · · ·      raised: `on` events within `of` samples
state     ────────▔▔▔▔▔▔▔▔▔▔▔▔▔──────────      cleared: `off` samples without one
```
Samples are counted from the first of the stream, so that clock steps change nothing and blocks may be cut anywhere.
"""

import numpy as np

from tocsin.records import Bools, Change, Ints


class Delay:
    """One kind of event, for C channels.

    Args:
        channels: C.
        on: events that raise it, …
        of: … within so many samples.
        off: samples without an event that clear it.

    Attributes:
        active: (C,) where it is raised.
    """

    def __init__(self, channels: int, on: int, of: int, off: int) -> None:
        self.on, self.of, self.off = on, max(on, of), max(1, off)
        self.active: Bools = np.zeros(channels, np.bool_)
        self._recent: list[Ints] = [np.empty(0, np.int64)] * channels
        self._last = np.zeros(channels, np.int64)

    def restore(self, channel: int) -> None:
        """Raised before the stream began."""
        self.active[channel] = True

    def step(self, events: Bools | None, first: int, samples: int) -> list[tuple[int, int, Change]]:
        """Goes through the next samples.

        Args:
            events: (n, c ≤ C) of the first c channels, or None where nothing happened.
            first: number of the first of them.
            samples: n.

        Returns:
            (sample, channel, change), in the order of samples.
        """
        struck = np.zeros_like(self.active)
        if events is not None:
            struck[: events.shape[1]] = events.any(axis=0)
        changes: list[tuple[int, int, Change]] = []
        for channel in np.flatnonzero(struck | self.active).tolist():
            at = np.empty(0, np.int64)
            if events is not None and channel < events.shape[1]:
                at = np.flatnonzero(events[:, channel]) + first
            changes += self._channel(channel, at, first + samples)
        return sorted(changes)

    def _channel(self, channel: int, at: Ints, end: int) -> list[tuple[int, int, Change]]:
        """Changes of one channel; `at` are its events, `end` the first sample that is not known yet."""
        known = np.concatenate((self._recent[channel], at))
        fresh = len(known) - len(at)
        close = np.zeros(len(known), np.bool_)
        close[self.on - 1 :] = known[self.on - 1 :] - known[: len(known) - self.on + 1] < self.of
        close = close[fresh:]
        changes: list[tuple[int, int, Change]] = []
        silent = np.diff(at, prepend=self._last[channel], append=end) > self.off  # before each event, and at the end
        start = 0
        for stop in [*np.flatnonzero(silent[:-1]).tolist(), len(at)]:
            raised = np.flatnonzero(close[start:stop])
            if len(raised) and not self.active[channel]:
                self.active[channel] = True
                changes.append((int(at[start + raised[0]]), channel, Change.RAISED))
            if self.active[channel] and silent[stop]:
                self.active[channel] = False
                before = int(at[stop - 1]) if stop else int(self._last[channel])
                changes.append((before + self.off, channel, Change.CLEARED))
            start = stop
        if len(at):
            self._last[channel] = at[-1]
        self._recent[channel] = known[max(0, len(known) - self.on + 1) :] if self.on > 1 else known[:0]
        return changes
