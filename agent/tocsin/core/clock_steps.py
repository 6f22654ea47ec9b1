"""Clocks that are set while groups are joined.

```
group A   … 10:00:01  10:00:02 │ 11:00:03  11:00:04            the device's clock is set by an hour:
group B   … 10:00:01  10:00:02    10:00:03 │ 11:00:04          each group tells it with its next samples
joined        :01        :02        :03        :04             nothing happens
```
Rules: from its step on, a group's stamps are read as if the clock had not been set. Once every group has given samples
of after the step, either all have told it, and all is as before; or it was the clock of some alone, that is right now
or was right before: from there on all stamps are taken as they are.
"""

import numpy as np

from tocsin.records import Floats

SAME_S = 1.0  # steps that differ by less are one; and so long after it every group has told of it


class ClockSteps:
    """Steps of the clocks of G groups.

    Attributes:
        ahead_s: (G,) seconds by which each group's stamps are ahead of the time in which groups are joined.
    """

    def __init__(self, groups: int) -> None:
        self.ahead_s: Floats = np.zeros(groups)
        self._latest_s = -np.inf  # of the last step, in the time of joining
        self._open = False

    def step(self, group: int, step_s: float, first_s: float) -> None:
        """A group's clock was set.

        Args:
            group: its index.
            step_s: by how much.
            first_s: stamp of its first sample since.
        """
        self.ahead_s[group] += step_s
        self._latest_s, self._open = max(self._latest_s, first_s - float(self.ahead_s[group])), True

    def settle(self, newest_s: Floats) -> Floats | None:
        """(G,) seconds to be added to what is kept of each group, where stamps are to be taken as they are; else None.

        Args:
            newest_s: (G,) of the newest sample of each group, in the time of joining.
        """
        if not self._open or not (newest_s > self._latest_s + SAME_S).all():
            return None
        self._open, self._latest_s = False, -np.inf
        if np.ptp(self.ahead_s) <= SAME_S:
            self.ahead_s[:] = self.ahead_s[0]
            return None
        shift, self.ahead_s = self.ahead_s, np.zeros_like(self.ahead_s)
        return shift
