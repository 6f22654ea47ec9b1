"""One asset's line: the order of its stages, readable top to bottom.

```
SampleBlock ─ resample, join groups ─► Rows ─ window ─► Windows ─ score, smooth ─► Scores ─ detect ─► Scored
```
"""

from dataclasses import dataclass, replace

import numpy as np

from tocsin.alarms.detector import AlarmDetector, AlarmRule
from tocsin.core.bundle import Bundle
from tocsin.core.groups import Group
from tocsin.core.join import Joiner
from tocsin.core.modes import UNKNOWN
from tocsin.core.resample import Resampler
from tocsin.core.scoring import Smoother, limits_of
from tocsin.core.windowing import SlidingWindow
from tocsin.errors import DataError
from tocsin.records import Bools, Change, Channel, Rows, SampleBlock, Scores, Transition, Windows


@dataclass(frozen=True, slots=True)
class Scored:
    """What a line says of K windows.

    Attributes:
        windows: their times; the `values` are overwritten by what follows.
        scores: of each window, split over the channels of all groups.
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
        channels: columns of the blocks to come; must hold the bundle's, in any order. None = those of each group, in
            the bundle's order.
        rule: when a score becomes an alarm; None = as the bundle says.
        active: the alarm condition is on already (a restart).
        live: give up on a group that lags behind the others; else wait until `finish`, as for recordings.

    Attributes:
        alarm: id of the condition.
        not_finite: windows without a finite score, left out of the decision.
        unknown_mode: windows of an operating mode that the bundle does not know; the largest limit is theirs.

    Raises:
        DataError: a channel of the bundle is missing, or has another unit.
    """

    def __init__(
        self,
        asset: str,
        bundle: Bundle,
        channels: tuple[Channel, ...] | None,
        rule: AlarmRule | None = None,
        active: bool = False,
        live: bool = False,
    ) -> None:
        manifest = bundle.manifest
        self.asset, self.alarm = asset, alarm_id(asset)
        self.groups = manifest.groups
        self.not_finite = self.unknown_mode = 0
        self._pick = None if channels is None else columns_of(manifest.groups.groups[0], channels, f"asset {asset}")
        self.joiner = Joiner(manifest.groups, live)
        self._columns = manifest.columns
        self._window = SlidingWindow(manifest.length, manifest.hop, len(manifest.columns))
        self._scorer = bundle.scorer()
        self._smoother = Smoother(manifest.smoothing, manifest.threshold)
        self._detector = AlarmDetector(rule or AlarmRule.from_json(manifest.alarm), active)

    @property
    def resampler(self) -> Resampler:
        """Of the group that sets the grid."""
        return self.joiner.resamplers[self.groups.base]

    def feed(self, block: SampleBlock, group: int = 0) -> list[Scored]:
        """What the samples of a group complete."""
        if self._pick is not None:
            bad = None if block.bad is None else block.bad[:, self._pick]
            block = SampleBlock(block.time_s, block.values[:, self._pick], block.arrived_s, block.step_s, bad)
        return self._scored(self.joiner.push(group, block))

    def finish(self) -> list[Scored]:
        """What still waits for a group, when nothing comes any more."""
        return self._scored(self.joiner.finish())

    def _scored(self, parts: list[Rows]) -> list[Scored]:
        out = []
        for rows in parts:
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
            folded = replace(scores, per_channel=self.groups.fold(scores.per_channel))
            out.append(Scored(windows, folded, anomaly, transitions))
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
            contributions=self.groups.told(self._scorer.explain(windows.values[k], self._columns)),
        )


def alarm_id(asset: str) -> str:
    """Id of the condition that an asset's model watches."""
    return f"{asset}-anomaly"


def columns_of(group: Group, channels: tuple[Channel, ...], whose: str) -> list[int]:
    """Where a source has the channels of a group.

    Args:
        group: of the bundle.
        channels: of the source, in any order.
        whose: `asset pump-1`, for complaints.

    Raises:
        DataError: a channel of the bundle is missing, or has another unit.
    """
    names = [channel.name for channel in channels]
    missing = [channel.name for channel in group.channels if channel.name not in names]
    if missing:
        raise DataError(
            f"{whose}: the source has no channel {missing[0]!r}: the bundle needs "
            f"{', '.join(c.name for c in group.channels)}, the source gives {', '.join(names)}"
        )
    for channel in group.channels:
        given = channels[names.index(channel.name)].unit
        if given and channel.unit and given != channel.unit:
            raise DataError(
                f"{whose}: channel {channel.name!r} comes in {given}, the bundle was trained on "
                f"{channel.unit}: scale it at the source, or train again"
            )
    return [names.index(channel.name) for channel in group.channels]
