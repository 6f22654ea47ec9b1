"""The end of a condition is believed when it lasts: what flaps around its limit is one alarm.

```
condition  ▁▁▔▔▔▔▁▁▔▔▔▁▁▁▔▔▔▔▁▁▁▁▁▁▁▁▁▁▁▁▁
alarm      ▁▁▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▁▁▁▁      over when its condition has been off for the hold-off
```
Rules: pure; times are those of samples. An end is told with the time at which the condition ended. A condition that
comes again before that is told as a raise: the alarm counts it. A mode of the plant is no alarm, and ends at once.
"""

from collections.abc import Iterator

from tocsin.records import Change, Transition

HOLD_OFF_S = 60.0


class HoldOff:
    """Keeps back the ends of one asset's conditions.

    Args:
        seconds: that a condition has to be off; 0: every end is believed.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: dict[str, Transition] = {}

    def take(self, transition: Transition) -> Iterator[Transition]:
        """What is to be told of a transition, now that it came."""
        if transition.change is Change.STEPPED or transition.cause == "mode":
            yield transition
            return
        end = self._ends.pop(transition.alarm, None)
        if end is not None and self._has_lasted(end, transition.time_s):
            yield end
        if transition.change is Change.CLEARED and self._seconds > 0:
            self._ends[transition.alarm] = transition
        else:
            yield transition

    def advance(self, time_s: float) -> Iterator[Transition]:
        """The ends that are believed at a time, epoch seconds; a clock that went back keeps none any longer."""
        for alarm, end in list(self._ends.items()):
            if self._has_lasted(end, time_s):
                del self._ends[alarm]
                yield end

    def finish(self) -> Iterator[Transition]:
        """The ends that wait, when nothing will come any more."""
        yield from self._ends.values()
        self._ends.clear()

    def _has_lasted(self, end: Transition, time_s: float) -> bool:
        return not 0 <= time_s - end.time_s < self._seconds
