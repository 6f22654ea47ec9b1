"""More new alarms than anybody can read: one message that lists them, first alarm first.

```
new alarms   │ │││││││││││ │                        │        │
flood        ─────────▲────────────────────────────────▲───────
              begins: 10 in 10 min, told once it settles   ends: fewer than 5 in 10 min
```
Rules: pure; time is passed in. Limits are those of EEMUA 191 and ISA-18.2: a flood begins with ten new alarms in ten
minutes and ends below five. What begins together is counted by the time of samples, its end by the device's clock.
"""

from dataclasses import dataclass, replace

from tocsin.alarms.alarm import Alarm

BEGINS, ENDS, WITHIN_S = 10, 5, 600.0
SETTLED_S, LONGEST_S = 5.0, 30.0  # told when nothing new came for so long, and at the latest
KEPT = 1000  # alarms of one flood


@dataclass(frozen=True, slots=True)
class Flood:
    """A flood of alarms.

    Attributes:
        id: of its first alarm's occurrence.
        alarms: as they were when they began, in the order of their time; the first 1000.
        count: all of them.
        over: it has ended.
    """

    id: str
    alarms: tuple[Alarm, ...]
    count: int
    over: bool = False


class FloodWatch:
    """Counts new alarms of a device."""

    def __init__(self) -> None:
        self._came: list[tuple[float, Alarm]] = []  # device's clock, alarm
        self._flood: Flood | None = None
        self._told = False
        self._began_s = 0.0

    @property
    def waits_for_time(self) -> bool:
        """The clock alone will change something."""
        return self._flood is not None

    def new(self, alarm: Alarm, now_s: float) -> None:
        """An alarm that begins to call, at epoch seconds."""
        self._came = [each for each in self._came if 0 <= now_s - each[0] < WITHIN_S][1 - KEPT :]
        self._came.append((now_s, alarm))
        near = [one for _, one in self._came if abs(alarm.latest.time_s - one.latest.time_s) < WITHIN_S]
        if self._flood is not None:
            listed = _ordered((*self._flood.alarms, alarm))[:KEPT]
            self._flood = replace(self._flood, alarms=listed, count=self._flood.count + 1)
        elif len(near) >= BEGINS:
            listed = _ordered(tuple(near))
            self._flood, self._told, self._began_s = Flood(listed[0].id, listed, len(listed)), False, now_s

    def look(self, now_s: float) -> Flood | None:
        """The flood, when it is time to tell that it is there, or that it is over."""
        flood = self._flood
        if flood is None:
            return None
        since_s = [now_s - came_s for came_s, _ in self._came]
        if not self._told:
            settled = not since_s or not 0 <= since_s[-1] < SETTLED_S or not 0 <= now_s - self._began_s < LONGEST_S
            self._told = settled
            return flood if settled else None
        if sum(0 <= age_s < WITHIN_S for age_s in since_s) >= ENDS:
            return None
        self._flood = None
        return replace(flood, over=True)


def _ordered(alarms: tuple[Alarm, ...]) -> tuple[Alarm, ...]:
    return tuple(sorted(alarms, key=lambda alarm: alarm.latest.time_s))
