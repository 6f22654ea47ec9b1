"""Ratios → raise and clear, with on-delay, hysteresis and off-delay.

```
ratio   1.0 ─────────╭─╮──╭──╮───────────────      raised: ≥ on_n of the last on_m windows at 1.0 or more
        0.8 ────────╭╯ ╰──╯  ╰─╮─────────────      cleared: off_delay windows in a row below clear_ratio
                                ▔▔▔▔▔
```
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tocsin.errors import BundleError
from tocsin.records import Bools, Change, Floats

REMEMBERED = 64  # windows that can be taken back


@dataclass(frozen=True)
class AlarmRule:
    """When a score becomes an alarm.

    Attributes:
        on_n: windows over the limit, …
        on_m: … of this many, that raise it.
        off_delay: windows in a row below `clear_ratio` that clear it.
        clear_ratio: part of the limit, 0 to 1 (hysteresis).
    """

    on_n: int = 3
    on_m: int = 5
    off_delay: int = 5
    clear_ratio: float = 0.8

    def __post_init__(self) -> None:
        if not (1 <= self.on_n <= self.on_m and self.off_delay >= 1 and 0 < self.clear_ratio <= 1):
            raise ValueError(
                f"expected 1 ≤ on_n ≤ on_m, off_delay ≥ 1 and 0 < clear_ratio ≤ 1, got {self.on_n} of {self.on_m}, "
                f"{self.off_delay}, {self.clear_ratio}"
            )

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {"on_n": self.on_n, "on_m": self.on_m, "off_delay": self.off_delay, "clear_ratio": self.clear_ratio}

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form; unknown keys are left alone.

        Raises:
            BundleError: values that cannot be.
        """
        default = cls()
        try:
            return cls(
                int(form.get("on_n", default.on_n)),
                int(form.get("on_m", default.on_m)),
                int(form.get("off_delay", default.off_delay)),
                float(form.get("clear_ratio", default.clear_ratio)),
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise BundleError(f"the manifest's alarm settings are damaged: {error}") from error


class AlarmDetector:
    """Decides, window by window, whether the condition is on."""

    def __init__(self, rule: AlarmRule, active: bool = False) -> None:
        self.rule = rule
        self.active = active
        self._over: deque[bool] = deque(maxlen=rule.on_m)
        self._quiet = 0
        self._before: deque[tuple[tuple[bool, ...], int]] = deque(maxlen=REMEMBERED)  # each window: `_over`, `_quiet`

    def reset(self) -> None:
        """Forgets the windows before a gap; the condition stays as it is."""
        self._over.clear()
        self._quiet = 0
        self._before.clear()

    def take_back(self, windows: int) -> None:
        """Forgets the newest windows, all where they are more than are remembered; the condition stays as it is."""
        if windows > len(self._before):
            self.reset()
        for _ in range(min(windows, len(self._before))):
            over, self._quiet = self._before.pop()
            self._over = deque(over, maxlen=self.rule.on_m)

    def update(self, ratio: Floats) -> tuple[Bools, list[tuple[int, Change]]]:
        """Goes through the next windows.

        Args:
            ratio: (K,) score / threshold; a value that is not finite leaves the state as it is.

        Returns:
            (K,) whether the condition is on after each window, and (index, change) of each change.
        """
        state = np.empty(len(ratio), np.bool_)
        changes: list[tuple[int, Change]] = []
        for k, value in enumerate(ratio.tolist()):
            self._before.append((tuple(self._over), self._quiet))
            change = self._step(value) if np.isfinite(value) else None
            if change is not None:
                changes.append((k, change))
            state[k] = self.active
        return state, changes

    def _step(self, ratio: float) -> Change | None:
        self._over.append(ratio >= 1.0)
        self._quiet = self._quiet + 1 if ratio < self.rule.clear_ratio else 0
        if not self.active and sum(self._over) >= self.rule.on_n:
            self.active = True
            return Change.RAISED
        if self.active and self._quiet >= self.rule.off_delay:
            self.active = False
            self._over.clear()
            return Change.CLEARED
        return None
