"""One asset's line: the order of its stages, readable top to bottom.

```
SampleBlock ─ resample ─► Rows ─ window ─► Windows ─ score, smooth ─► Scores ─ detect ─► Scored
```
"""

from dataclasses import dataclass

import numpy as np

from tocsin.alarms.detector import AlarmDetector, AlarmRule
from tocsin.core.bundle import Bundle
from tocsin.core.modes import UNKNOWN
from tocsin.core.resample import Resampler
from tocsin.core.scoring import Smoother, limits_of
from tocsin.core.windowing import SlidingWindow
from tocsin.errors import DataError
from tocsin.records import Bools, Change, Channel, SampleBlock, Scores, Transition, Windows


@dataclass(frozen=True, slots=True)
class Scored:
    """What a line says of K windows.

    Attributes:
        windows: their times; the `values` are overwritten by what follows.
        scores: of each window.
        anomaly: (K,) whether the alarm condition is on, after N-of-M and hysteresis.
        transitions: conditions that began or ended.
    """

    windows: Windows
    scores: Scores
    anomaly: Bools
    transitions: tuple[Transition, ...]


class AssetLine:
    """From samples to alarm decisions, for one asset; belongs to one thread.

    Args:
        asset: its id.
        bundle: the model.
        channels: columns of the blocks to come; must hold the bundle's, in any order.
        rule: when a score becomes an alarm; None = as the bundle says.
        active: the alarm condition is on already (a restart).

    Attributes:
        alarm: id of the condition.
        not_finite: windows without a finite score, left out of the decision.
        unknown_mode: windows of an operating mode that the bundle does not know; the largest limit is theirs.

    Raises:
        DataError: a channel of the bundle is missing.
    """

    def __init__(
        self,
        asset: str,
        bundle: Bundle,
        channels: tuple[Channel, ...],
        rule: AlarmRule | None = None,
        active: bool = False,
    ) -> None:
        manifest = bundle.manifest
        names = [channel.name for channel in channels]
        missing = [channel.name for channel in manifest.channels if channel.name not in names]
        if missing:
            raise DataError(
                f"asset {asset}: the source has no channel {missing[0]!r}: the bundle needs "
                f"{', '.join(c.name for c in manifest.channels)}, the source gives {', '.join(names)}"
            )
        for channel in manifest.channels:
            given = channels[names.index(channel.name)].unit
            if given and channel.unit and given != channel.unit:
                raise DataError(
                    f"asset {asset}: channel {channel.name!r} comes in {given}, the bundle was trained on "
                    f"{channel.unit}: scale it at the source, or train again"
                )
        self.asset, self.alarm = asset, alarm_id(asset)
        self.channels = manifest.channels
        self.not_finite = self.unknown_mode = 0
        self._pick = [names.index(channel.name) for channel in manifest.channels]
        self.resampler = Resampler(manifest.sample_rate_hz, len(self._pick), manifest.max_gap_s)
        self._window = SlidingWindow(manifest.length, manifest.hop, len(self._pick))
        self._scorer = bundle.scorer()
        self._smoother = Smoother(manifest.smoothing, manifest.threshold)
        self._detector = AlarmDetector(rule or AlarmRule.from_json(manifest.alarm), active)

    def feed(self, block: SampleBlock) -> list[Scored]:
        """What the block's samples complete."""
        picked = SampleBlock(block.time_s, block.values[:, self._pick], block.arrived_s)
        out = []
        for rows in self.resampler.push(picked):
            if rows.after_gap:
                self._smoother.reset()
                self._detector.reset()
            windows = self._window.push(rows)
            if not len(windows):
                continue
            scores = self._smoother.update(self._scorer.score(windows.values))
            self.not_finite += int(np.count_nonzero(~np.isfinite(scores.value)))
            if scores.mode is not None:
                self.unknown_mode += int(np.count_nonzero(scores.mode == UNKNOWN))
            anomaly, changes = self._detector.update(scores.ratio)
            transitions = tuple(self._transition(windows, scores, k, change) for k, change in changes)
            out.append(Scored(windows, scores, anomaly, transitions))
        return out

    def _transition(self, windows: Windows, scores: Scores, k: int, change: Change) -> Transition:
        return Transition(
            asset=self.asset,
            alarm=self.alarm,
            change=change,
            time_s=float(windows.end_s[k]),
            cause="model",
            score=float(scores.value[k]),
            threshold=float(limits_of(self._scorer.threshold, scores)[k]),
            ratio=float(scores.ratio[k]),
            window_start_s=float(windows.start_s[k]),
            window_end_s=float(windows.end_s[k]),
            window_rows=windows.values.shape[1],
            contributions=self._scorer.explain(windows.values[k], self.channels),
        )


def alarm_id(asset: str) -> str:
    """Id of the condition that an asset's model watches."""
    return f"{asset}-anomaly"
