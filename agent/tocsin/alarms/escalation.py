"""Severity by ratio and duration: an alarm that grows, or stands, matters more; one that shrinks matters less again.

```
ratio      ▁▁▂▂▄▄▄▇▇▇▇▇▇▇▇▅▅▅▂▂▂▂
severity   ─────major────critical─────major      a step holds when the ratio has been over its own for its time, and is
                                                 left when it has been below as long
```
Rules: pure; times are those of windows. Of the steps that hold, the most severe counts. Without steps nothing changes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tocsin.alarms.alarm import Severity
from tocsin.records import Change, Floats, Transition

_ORDER = tuple(Severity)


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        to: severity while it holds.
        ratio: score / limit that is reached or more, …
        for_s: … for so many seconds.
    """

    to: Severity
    ratio: float = 1.0
    for_s: float = 0.0


class Escalation:
    """Follows the windows of one asset.

    Args:
        steps: in any order.
        base: severity where none of them holds.
    """

    def __init__(self, steps: tuple[Step, ...], base: Severity) -> None:
        self._steps, self._base = steps, base
        self._holds = [False] * len(steps)
        self._since_s: list[float | None] = [None] * len(steps)  # the ratio has been on the other side
        self.severity = base

    def take(
        self, time_s: Floats, ratio: Floats, transitions: tuple[Transition, ...], asset: str, alarm: str
    ) -> Iterator[Transition]:
        """Transitions with the severity of their time, and the steps between them.

        Args:
            time_s: (K,) end of each window, epoch seconds.
            ratio: (K,) score / limit; one that is not finite changes nothing.
            transitions: of these windows.
            asset: id.
            alarm: id of the condition that they are of.
        """
        if not self._steps:
            yield from transitions
            return
        left = list(transitions)
        for at, value in zip(time_s.tolist(), ratio.tolist(), strict=True):
            before, self.severity = self.severity, self._look(at, value)
            own = [each for each in left if each.time_s <= at]
            left = left[len(own) :]
            for each in own:
                yield replace(each, severity=self.severity)
            if self.severity is not before and not any(each.change is Change.RAISED for each in own):
                stepped = Change.STEPPED
                yield Transition(asset, alarm, stepped, at, "model", None, None, value, at, at, 0, (), self.severity)
        yield from (replace(each, severity=self.severity) for each in left)

    def _look(self, at: float, ratio: float) -> Severity:
        if math.isnan(ratio):
            return self.severity
        for n, step in enumerate(self._steps):
            if (ratio >= step.ratio) == self._holds[n]:
                self._since_s[n] = None
                continue
            since_s = self._since_s[n]
            if since_s is None or at < since_s:
                since_s = self._since_s[n] = at
            if at - since_s >= step.for_s:
                self._holds[n], self._since_s[n] = not self._holds[n], None
        held = [step.to for n, step in enumerate(self._steps) if self._holds[n]]
        return max((self._base, *held), key=_ORDER.index)
