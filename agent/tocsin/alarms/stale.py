"""Does the source give samples at all? The one check that has to speak while nothing comes.

```
samples   x x x x · · · · · · · · · · x x x x x
stale     ────────────────▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔────
                  patience            off-delay
```
Rules: time is passed in. While nothing comes, the arrival clock decides; a recording has none, so there a silence is
told when it is over, with the times at which it was. A clock that was set makes no silence.
"""

import math
from collections.abc import Container

from tocsin.alarms.quality import condition
from tocsin.records import Change, SampleBlock, Transition

PATIENCE_S, PATIENCE_ROWS = 10.0, 10
OFF_S = 5.0


class Staleness:
    """Watches one source.

    Args:
        asset: its id.
        rate_hz: nominal samples a second; None = not known.
        live: samples arrive as they are measured; False for a recording.
        active: ids of conditions that are on already (a restart).
        patience_s: of silence; None = the longer of 10 s and 10 samples.
    """

    def __init__(
        self,
        asset: str,
        rate_hz: float | None,
        live: bool,
        active: Container[str] = (),
        patience_s: float | None = None,
    ) -> None:
        self.asset, self.live = asset, live
        self.alarm = condition(asset, "stale")
        self.patience_s = patience_s or max(PATIENCE_S, PATIENCE_ROWS / (rate_hz or math.inf))
        self.active = self.alarm in active
        self._good_from_s = math.nan
        self._last_s = math.nan
        self._arrived_s: float | None = None

    def wait(self, now_s: float, wall_s: float) -> tuple[Transition, ...]:
        """Nothing has come until now.

        Args:
            now_s: monotonic.
            wall_s: epoch seconds.
        """
        if self._arrived_s is None:
            self._arrived_s = now_s
        silent_s = now_s - self._arrived_s
        if not self.live or self.active or silent_s < self.patience_s:
            return ()
        self.active, self._good_from_s = True, math.nan
        return (self._transition(Change.RAISED, wall_s),)

    def take(self, block: SampleBlock) -> tuple[Transition, ...]:
        """Samples have come."""
        if not len(block):
            return ()
        out: list[Transition] = []
        self._last_s += block.step_s
        self._good_from_s += block.step_s
        for time_s in block.time_s.tolist() if self._looks_closer(block) else block.time_s[-1:].tolist():
            silent = time_s - self._last_s > self.patience_s
            if silent and not self.active:
                self.active = True
                out.append(self._transition(Change.RAISED, self._last_s + self.patience_s))
            if silent or math.isnan(self._good_from_s) or time_s < self._last_s:
                self._good_from_s = time_s
            if self.active and time_s - self._good_from_s >= OFF_S:
                self.active = False
                out.append(self._transition(Change.CLEARED, time_s))
            self._last_s = time_s
        self._arrived_s = block.arrived_s
        return tuple(out)

    def _looks_closer(self, block: SampleBlock) -> bool:
        """Something may begin or end within the block."""
        return (
            self.active
            or not self._last_s <= block.time_s[0]
            or float(block.time_s[-1]) - self._last_s > self.patience_s
        )

    def _transition(self, change: Change, time_s: float) -> Transition:
        return Transition(
            asset=self.asset,
            alarm=self.alarm,
            change=change,
            time_s=time_s,
            cause="data_gap",
            score=None,
            threshold=None,
            ratio=None,
            window_start_s=time_s if math.isnan(self._last_s) else self._last_s,
            window_end_s=time_s,
            window_rows=0,
        )
