"""One asset's line: the order of its stages, readable top to bottom.

```
SampleBlock ─ resample, join groups ─► Rows ─ window ─► Windows ─ score, smooth ─► Scores ─ detect ─► Scored
     └ quality                           └ rules          └ held back where channels are doubted
```
"""

import math
from collections.abc import Container
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tocsin.alarms.detector import AlarmDetector, AlarmRule
from tocsin.alarms.normal import Normal
from tocsin.alarms.watch import Joined, Prior, Sampled, Watch
from tocsin.core.bundle import Bundle
from tocsin.core.groups import Group
from tocsin.core.join import Joiner
from tocsin.core.manifest import Manifest
from tocsin.core.modes import UNKNOWN
from tocsin.core.resample import Resampler
from tocsin.core.scoring import Smoother, limits_of
from tocsin.core.windowing import SlidingWindow
from tocsin.errors import DataError
from tocsin.records import Bools, Change, Channel, Floats, Ints, Rows, SampleBlock, Scores, Transition, Windows


@dataclass(frozen=True, slots=True)
class Scored:
    """What a line says of K windows.

    Attributes:
        windows: their times; the `values` are overwritten by what follows.
        scores: of each window, split over the channels of all groups; not smoothed where it is held back.
        anomaly: (K,) whether the alarm condition is on, after N-of-M and hysteresis.
        held: (K,) the score rests on doubted channels, and changes nothing.
        transitions: the model's condition that began or ended.
    """

    windows: Windows
    scores: Scores
    anomaly: Bools
    held: Bools
    transitions: tuple[Transition, ...]


class AssetLine:
    """From samples to alarm decisions, for one asset; belongs to one thread.

    Args:
        asset: its id.
        bundle: the model.
        channels: columns of the blocks to come; must hold the bundle's, in any order. None = those of each group, in
            the bundle's order.
        rule: when a score becomes an alarm; None = as the bundle says.
        active: ids of conditions that are on already (a restart).
        live: give up on a group that lags behind the others; else wait until `finish`, as for recordings.
        prior: rules, and limits of channels.

    Attributes:
        alarm: id of the model's condition.
        watch: quality of the samples, and rules.
        sensitivity: above 1 the limit is lower by that factor, below 1 higher.
        not_finite: windows without a finite score, left out of the decision.
        unknown_mode: windows of an operating mode that the bundle does not know; the largest limit is theirs.

    Raises:
        DataError: a channel of the bundle is missing, or has another unit.
        ConfigError: a rule or limit that cannot be.
    """

    def __init__(
        self,
        asset: str,
        bundle: Bundle,
        channels: tuple[Channel, ...] | None,
        rule: AlarmRule | None = None,
        active: Container[str] = (),
        live: bool = False,
        prior: Prior = Prior(),  # noqa: B008 - frozen
    ) -> None:
        manifest = bundle.manifest
        self.asset, self.alarm = asset, alarm_id(asset)
        self.groups = manifest.groups
        self.not_finite = self.unknown_mode = 0
        self.sensitivity = 1.0
        self._pick = None if channels is None else columns_of(manifest.groups.groups[0], channels, f"asset {asset}")
        self.joiner = Joiner(manifest.groups, live)
        self._columns = manifest.columns
        self._window = SlidingWindow(manifest.length, manifest.hop, len(manifest.columns))
        self._scorer = bundle.scorer()
        self._normal = Normal.from_json(bundle.manifest.raw.get("quality"))
        self._smoother = Smoother(manifest.smoothing, manifest.threshold)
        rule = rule or AlarmRule.from_json(manifest.alarm)
        self._detector = AlarmDetector(rule, self.alarm in active)
        self._held_for = 0  # windows in a row
        self._forgets = max(rule.on_m, rule.off_delay) * math.ceil(manifest.length / manifest.hop)  # that share no row
        self.watch = watch_of(asset, manifest, prior, active)

    @property
    def resampler(self) -> Resampler:
        """Of the group that sets the grid."""
        return self.joiner.resamplers[self.groups.base]

    @property
    def alarm_on(self) -> bool:
        """The model's condition is on."""
        return self._detector.active

    def go_on_from(self, other: "AssetLine") -> None:
        """Takes the place of a line that had the same samples: the alarm's state is that one's."""
        self._detector.active = other.alarm_on

    def feed(self, block: SampleBlock, group: int = 0) -> list[Scored]:
        """What the samples of a group complete."""
        if self._pick is not None:
            block = block.columns(self._pick)
        self.watch.block(block, group)
        return self._scored(self.joiner.push(group, block))

    def end(self, group: int) -> list[Scored]:
        """What waits for a group of which nothing will come any more."""
        return self._scored(self.joiner.end(group))

    def finish(self) -> list[Scored]:
        """What still waits for a group, when nothing comes any more."""
        return self._scored(self.joiner.finish())

    def _scored(self, parts: list[Rows]) -> list[Scored]:
        out = []
        for rows in parts:
            if rows.after_gap:
                self._smoother.reset()
                self._detector.reset()
            self.watch.rows(rows)
            windows = self._window.push(rows)
            if not len(windows):
                continue
            bare = self._scorer.score(windows.values)
            bare = replace(bare, per_channel=self.groups.fold(bare.per_channel))
            held, back = self.watch.hold(windows, bare)
            self.not_finite += int(np.count_nonzero(~np.isfinite(bare.value)))
            if bare.mode is not None:
                self.unknown_mode += int(np.count_nonzero(bare.mode == UNKNOWN))
            scores, anomaly, changes = self._decide(bare, held, back)
            transitions = tuple(self._transition(windows, scores, k, change) for k, change in changes)
            out.append(Scored(windows, scores, anomaly, held, transitions))
        return out

    def _decide(self, bare: Scores, held: Bools, back: Ints) -> tuple[Scores, Bools, list[tuple[int, Change]]]:
        """Smoothed scores, whether the condition is on at each, and its changes.

        What is held back is told as it is and changes nothing. The windows that showed the fault of a sensor before
        anybody doubted it are taken back; those before them still count, where the hold is short.
        """
        if not held.any():
            self._held_for = 0
            scores = self._smoothed(bare)
            return scores, *self._detector.update(scores.ratio)
        parts: list[Scores] = []
        changes: list[tuple[int, Change]] = []
        anomaly = np.empty(len(held), np.bool_)
        edges = [0, *(np.flatnonzero(np.diff(held)) + 1).tolist(), len(held)]
        for start, stop in pairwise(edges):
            part = _part(bare, slice(start, stop))
            if held[start]:
                self._smoother.take_back(int(back[start]))
                self._detector.take_back(int(back[start]))
                self._held_for += stop - start
                if self._held_for >= self._forgets:  # as after a gap: what was before has no part in what comes
                    self._smoother.reset()
                    self._detector.reset()
                anomaly[start:stop] = self._detector.active
            else:
                self._held_for = 0
                part = self._smoothed(part)
                anomaly[start:stop], found = self._detector.update(part.ratio)
                changes += [(start + k, change) for k, change in found]
            parts.append(part)
        value, ratio, per_channel = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("value", "ratio", "per_channel")
        )
        return Scores(value, ratio, per_channel, bare.mode), anomaly, changes

    def _smoothed(self, scores: Scores) -> Scores:
        found = self._smoother.update(scores)
        return found if self.sensitivity == 1.0 else replace(found, ratio=found.ratio * self.sensitivity)

    def limits(self, scores: Scores) -> Floats:
        """(K,) the limit of each window's score."""
        return limits_of(self._scorer.threshold, scores) / self.sensitivity

    def _transition(self, windows: Windows, scores: Scores, k: int, change: Change) -> Transition:
        return Transition(
            asset=self.asset,
            alarm=self.alarm,
            change=change,
            time_s=float(windows.end_s[k]),
            cause="model",
            score=float(scores.value[k]),
            threshold=float(self.limits(scores)[k]),
            ratio=float(scores.ratio[k]),
            window_start_s=float(windows.start_s[k]),
            window_end_s=float(windows.end_s[k]),
            window_rows=windows.values.shape[1],
            contributions=self.groups.told(
                self._normal.possible(self._scorer.explain(windows.values[k], self._columns))
            ),
        )


def _part(scores: Scores, part: slice) -> Scores:
    mode = None if scores.mode is None else scores.mode[part]
    return Scores(scores.value[part], scores.ratio[part], scores.per_channel[part], mode)


def watch_of(asset: str, manifest: Manifest, prior: Prior, active: Container[str] = ()) -> Watch:
    """What looks at an asset's samples and rows beside the model.

    Raises:
        BundleError: the manifest's quality section is damaged.
        ConfigError: a rule or limit that cannot be.
    """
    groups = manifest.groups
    sampled = tuple(
        Sampled(
            channels=group.channels,
            rate_hz=group.sample_rate_hz,
            frame_s=group.frame / group.sample_rate_hz if group.features else 0.0,
            measured=not group.features and group.sample_rate_hz == groups.sample_rate_hz,
        )
        for group in groups.groups
    )
    each = [group.each for group in groups.groups for _ in group.channels]
    joined = None if groups.alone else Joined(groups.columns, np.repeat(np.arange(len(each)), each))
    normal = Normal.from_json(manifest.raw.get("quality"))
    return Watch(asset, sampled, joined, groups.sample_rate_hz, normal, prior, active)


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
