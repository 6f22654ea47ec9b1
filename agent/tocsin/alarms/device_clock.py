"""The device's own clock was set: told once a device, although every asset's samples show it.

```
wall − monotonic   ────────╮                        a source that stamps on arrival shows the same step, some of them
                           ╰────────────────        late: with its next sample
clock              ────────▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔────     one alarm; the `<asset>-clock` of those that follow are left out
```
Rules: both clocks are passed in. A step that this does not show was of the clock of the other side, and is its asset's.
"""

import math

from tocsin.alarms.quality import CLOCK_BACK_S
from tocsin.records import Change, Transition

ALARM = "clock"  # those of assets have the asset's id before it
STANDS_S = 60.0


class DeviceClock:
    """Watches the clock of one device; belongs to one lock.

    Args:
        device: its id, which stands for the asset.
        active: the alarm is on already (a restart).
    """

    def __init__(self, device: str, active: bool = False) -> None:
        self.device, self.active = device, active
        self._offset_s = math.nan
        self._set_s = -math.inf  # monotonic
        self._since_s = math.nan

    def look(self, wall_s: float, monotonic_s: float) -> tuple[Transition, ...]:
        """What begins or ends now; often enough, so that slow corrections are no step."""
        offset_s = wall_s - monotonic_s
        if math.isnan(self._since_s):
            self._since_s = monotonic_s
        was_set = abs(offset_s - self._offset_s) > CLOCK_BACK_S
        self._offset_s = offset_s
        if was_set:
            self.active, self._set_s = True, monotonic_s
            return (self._transition(Change.RAISED, wall_s),)
        if self.active and monotonic_s - max(self._set_s, self._since_s) >= STANDS_S:
            self.active = False
            return (self._transition(Change.CLEARED, wall_s),)
        return ()

    def explains(self, monotonic_s: float) -> bool:
        """A source that says now that its clock was set speaks of the device's."""
        return monotonic_s - self._set_s < STANDS_S

    def _transition(self, change: Change, wall_s: float) -> Transition:
        return Transition(
            asset=self.device,
            alarm=ALARM,
            change=change,
            time_s=wall_s,
            cause="clock",
            score=None,
            threshold=None,
            ratio=None,
            window_start_s=wall_s,
            window_end_s=wall_s,
            window_rows=0,
        )
