"""Beside the model: what is looked at in samples and rows, and which windows the model should not be believed of.

```
SampleBlock ─ quality, a group ─┬─► transitions of sensors and their lines
                                └─► doubt ─┬──────────────► windows: is the model's alarm held back?
Rows ───────────────────────────── rules ──┴─► transitions of rules
```
A window is held back where the largest part of its score, or a third of it, is of doubted channels: what one bad
channel does to a model spreads over those that go with it. What is held back neither raises nor clears; it is counted.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

import numpy as np

from tocsin.alarms.limits import ChannelOverride
from tocsin.alarms.normal import Normal
from tocsin.alarms.quality import Quality
from tocsin.alarms.rules import Rule, RuleSet
from tocsin.errors import ConfigError
from tocsin.records import Bools, Channel, Floats, Ints, Rows, SampleBlock, Scores, Transition, Windows

HELD_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class Prior:
    """What the user knows before any training.

    Attributes:
        rules: that hold.
        overrides: limits of channels, by name.
        quality: look at the samples at all.
    """

    rules: tuple[Rule, ...] = ()
    overrides: Mapping[str, ChannelOverride] = field(default_factory=dict)
    quality: bool = True


@dataclass(frozen=True, slots=True)
class Sampled:
    """Channels that are sampled together.

    Attributes:
        channels: in the order of the columns of their blocks.
        rate_hz: nominal samples a second.
        frame_s: how far back a row looks at them.
        measured: what the bundle tells of normal running is of these samples as they come.
    """

    channels: tuple[Channel, ...]
    rate_hz: float
    frame_s: float = 0.0
    measured: bool = True


@dataclass(frozen=True, slots=True)
class Joined:
    """Rows that are made of several groups, or of features.

    Attributes:
        columns: of the rows.
        channel_of: (D,) index of the channel that each shows.
    """

    columns: tuple[Channel, ...]
    channel_of: Ints


class Watch:
    """Quality and rules of one asset; belongs to one thread.

    Args:
        asset: its id.
        groups: of channels; their channels, one after the other, are those of the scores.
        joined: what rows show; None = the channels of the one group.
        rate_hz: rows a second.
        normal: normal running, as the bundle tells it.
        prior: what the user knows.
        active: ids of conditions that are on already (a restart).

    Attributes:
        held_back: windows over the limit that raised nothing, since they rest on doubted channels.

    Raises:
        ConfigError: a rule that cannot be read, or a channel that there is not.
    """

    def __init__(
        self,
        asset: str,
        groups: tuple[Sampled, ...],
        joined: Joined | None,
        rate_hz: float,
        normal: Normal,
        prior: Prior,
        active: Container[str] = (),
    ) -> None:
        self.held_back = 0
        self._groups, self._joined = groups, joined
        names = [channel.name for group in groups for channel in group.channels]
        unknown = [name for name in prior.overrides if name not in names]
        if unknown:
            raise ConfigError(f"asset {asset}: quality: no channel {unknown[0]!r}, there are {', '.join(names)}")
        self._quality = tuple(
            Quality(
                asset,
                group.channels,
                group.rate_hz,
                normal if group.measured else Normal(0),
                prior.overrides,
                active,
                by_time=joined is not None,
            )
            for group in groups
            if prior.quality
        )
        columns = groups[0].channels if joined is None else joined.columns
        self._rules = RuleSet(asset, columns, rate_hz, prior.rules, active)
        self._told: list[Transition] = []

    def block(self, block: SampleBlock, group: int = 0) -> None:
        """The next samples of a group, before anything is made of them."""
        if self._quality:
            self._told += self._quality[group].check(block)

    def rows(self, rows: Rows) -> None:
        """The next rows."""
        doubted = self._doubted(rows.time_s, rows.time_s, rows.sample, rows.sample)
        if doubted is not None and self._joined is not None:
            doubted = doubted[:, self._joined.channel_of]
        self._told += self._rules.check(rows, doubted)

    def hold(self, windows: Windows, scores: Scores) -> Bools:
        """(K,) windows whose score rests on doubted channels.

        Args:
            windows: the next ones.
            scores: of them, split over the channels of the groups; not smoothed.
        """
        held: Bools = np.zeros(len(windows), np.bool_)
        doubted = self._doubted(windows.start_s, windows.end_s, windows.first_sample, windows.sample)
        if doubted is not None:
            largest = np.take_along_axis(doubted, scores.per_channel.argmax(axis=1)[:, None], axis=1)[:, 0]
            held = largest | ((scores.share() * doubted).sum(axis=1) >= HELD_SHARE)
            self.held_back += int(np.count_nonzero(held & (scores.ratio >= 1)))
        for group, quality in zip(self._groups, self._quality, strict=False):
            earliest = windows.start_s[-1] - group.frame_s if self._joined else windows.first_sample[-1]
            quality.forget(float(earliest))
        return held

    def _doubted(self, start_s: Floats, end_s: Floats, first: Ints, last: Ints) -> Bools | None:
        """(K, C) doubted channels between two times, or two samples; None where there is none."""
        if not any(quality.has_doubts for quality in self._quality):
            return None
        parts = []
        for group, quality in zip(self._groups, self._quality, strict=True):
            begin, end = (start_s - group.frame_s, end_s) if self._joined else (first, last)
            parts.append(quality.doubted(begin, end))
        together = np.concatenate(parts, axis=1)
        return together if together.any() else None

    def told(self) -> tuple[Transition, ...]:
        """What began and ended since the last call."""
        told, self._told = tuple(self._told), []
        return told

    def bad_channels(self) -> tuple[str, ...]:
        """Names of the channels with a condition that is on."""
        return tuple(name for quality in self._quality for name in quality.bad_channels())
