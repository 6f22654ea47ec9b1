"""A second model on the same samples: how it fares beside the one that decides.

```
 block ─┬─► the line that decides ─► transitions, scores, alarms
        └─► the line beside it    ─► figures, and nothing else
```
Rules: what happens to the line beside never reaches the one that decides. When the two change places, they do so
between two blocks: both have had every sample, so that no window is missed and none scored twice, and the alarm's state
goes on.
"""

import time
from collections import deque

import numpy as np

from tocsin.core.bundle import Bundle
from tocsin.pipeline import AssetLine, Scored
from tocsin.records import Change, SampleBlock
from tocsin.update.trial import Fared

REMEMBERED = 5000  # windows of which quantiles are told


class Figures:
    """How one model fares; belongs to one thread, but for `fared`."""

    def __init__(self) -> None:
        self.windows = self.not_finite = self.over_limit = self.in_alarm = self.raised = 0
        self._ratio: deque[float] = deque(maxlen=REMEMBERED)
        self._ms: deque[float] = deque(maxlen=REMEMBERED)

    def take(self, parts: list[Scored], took_s: float) -> None:
        """What a line made of a block, and how long it took."""
        windows = sum(len(part.windows) for part in parts)
        for part in parts:
            ratio = part.scores.ratio
            finite = np.isfinite(ratio)
            self.windows += len(ratio)
            self.not_finite += int(np.count_nonzero(~finite))
            self.over_limit += int(np.count_nonzero(ratio >= 1))
            self.in_alarm += int(np.count_nonzero(part.anomaly))
            self.raised += sum(change.change is Change.RAISED for change in part.transitions)
            self._ratio.extend(ratio[finite].tolist())
        if windows:
            self._ms.append(1e3 * took_s / windows)

    def fared(self) -> Fared:
        """For a verdict."""
        ratio, ms = np.array(self._ratio.copy()), np.array(self._ms.copy())
        quantiles = [float(q) for q in np.quantile(ratio, (0.5, 0.9, 0.99, 1.0, 0.0))] if len(ratio) else [None] * 5
        times = [float(q) for q in np.quantile(ms, (0.5, 0.99))] if len(ms) else [None] * 2
        names = ("ratio_p50", "ratio_p90", "ratio_p99", "ratio_max", "ratio_min", "ms_p50", "ms_p99")
        counts = {name: getattr(self, name) for name in ("windows", "not_finite", "over_limit", "in_alarm", "raised")}
        return Fared.model_validate({**counts, **dict(zip(names, [*quantiles, *times], strict=True))})


class Beside:
    """The line beside, and the figures of both; belongs to the asset's thread, but for what is read of it.

    Args:
        bundle: of the line beside.
        line: beside.

    Attributes:
        own: figures of the line beside.
        other: figures of the line that decides, over the same time.
        same: blocks after which both said the same, and all of them.
        failed: why the line beside cannot go on; it is fed no more.
    """

    def __init__(self, bundle: Bundle, line: AssetLine) -> None:
        self.bundle, self.line = bundle, line
        self.own, self.other = Figures(), Figures()
        self.same = self.blocks = 0
        self.failed: str | None = None

    def feed(self, block: SampleBlock, group: int, deciding: AssetLine, parts: list[Scored], took_s: float) -> None:
        """The block that the other line just had.

        Args:
            block: the samples.
            group: of them.
            deciding: the line that decides.
            parts: what it made of them.
            took_s: how long that took.
        """
        if self.failed is not None:
            return
        begin_s = time.perf_counter()
        try:
            own = self.line.feed(block, group)
            self.line.watch.told()
        except Exception as error:  # noqa: BLE001 - whatever it is, the line that decides goes on
            self.failed = f"{type(error).__name__}: {error}"
            return
        if self.own.windows or own:  # from its first window on
            self.own.take(own, time.perf_counter() - begin_s)
            self.other.take(parts, took_s)
            self.blocks += 1
            self.same += self.line.alarm_on == deciding.alarm_on

    @property
    def agreement(self) -> float | None:
        """Part of the blocks after which both said the same."""
        return self.same / self.blocks if self.blocks else None
