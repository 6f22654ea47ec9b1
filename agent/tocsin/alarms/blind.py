"""Has nothing been said of the machine for long, without a word why?

```
windows     · · h h · h h h h h h h h h h h h · ·     h held back
held-back   ──────────────────────────▔▔▔▔▔▔▔▔───
                        longer than patience
```
Rules: a sensor that is in alarm tells by itself why the model is held back; this speaks where none is. Time is counted
in samples; it is told at the window at which it is so, wherever blocks are cut.
"""

from collections import deque
from collections.abc import Container

from tocsin.alarms.quality import CAUSES, OF_SOURCE, OFTEN_ROWS, OFTEN_S, condition
from tocsin.records import Bools, Change, Contribution, Transition, Windows


class Blindness:
    """Watches one asset's windows.

    Args:
        asset: its id.
        rate_hz: rows a second.
        active: ids of conditions that are on already (a restart).
    """

    def __init__(self, asset: str, rate_hz: float, active: Container[str] = ()) -> None:
        self.asset, self.alarm = asset, condition(asset, "held-back")
        self.active = self.alarm in active
        self._sensors = {condition(asset, check) for check in CAUSES if check not in OF_SOURCE}
        self._others = {alarm for alarm in self._sensors if alarm in active}
        self._news: deque[Transition] = deque()
        self._patience = max(OFTEN_ROWS, OFTEN_S * rate_hz)  # the checks of sensors take that long
        self._since: int | None = None  # sample at which the first of the windows held in a row ended

    def hear(self, transitions: tuple[Transition, ...]) -> None:
        """What quality has told; it counts from its time on."""
        self._news.extend(transition for transition in transitions if transition.alarm in self._sensors)

    def _is_told(self, until_s: float) -> bool:
        """A sensor is in alarm at this time."""
        while self._news and self._news[0].time_s <= until_s:
            one = self._news.popleft()
            (self._others.add if one.change is Change.RAISED else self._others.discard)(one.alarm)
        return bool(self._others)

    def look(self, windows: Windows, held: Bools, names: tuple[str, ...]) -> tuple[Transition, ...]:
        """The next windows.

        Args:
            windows: K of them.
            held: (K,) whether they are held back.
            names: of the channels that are doubted now.
        """
        if not (held.any() or self.active):
            self._since = None
            self._is_told(float(windows.end_s[-1]))
            return ()
        out: list[Transition] = []
        patience = max(self._patience, windows.values.shape[1])
        for k, is_held in enumerate(held.tolist()):
            sample = int(windows.sample[k])
            told = self._is_told(float(windows.end_s[k]))
            if not is_held:
                self._since = None
            elif self._since is None or told:
                self._since = sample
            blind = self._since is not None and sample - self._since > patience
            if blind != self.active and (blind or not is_held or told):
                self.active = blind
                out.append(self._transition(windows, k, names if blind else ()))
        return tuple(out)

    def _transition(self, windows: Windows, k: int, names: tuple[str, ...]) -> Transition:
        return Transition(
            asset=self.asset,
            alarm=self.alarm,
            change=Change.RAISED if self.active else Change.CLEARED,
            time_s=float(windows.end_s[k]),
            cause="held_back",
            score=None,
            threshold=None,
            ratio=None,
            window_start_s=float(windows.start_s[k]),
            window_end_s=float(windows.end_s[k]),
            window_rows=windows.values.shape[1],
            contributions=tuple(Contribution(name, 1 / len(names), None, None) for name in names),
        )
