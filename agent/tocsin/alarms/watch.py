"""Beside the model: what is looked at in samples and rows, and which windows the model should not be believed of.

```
SampleBlock ─ quality, a group ─┬─► transitions of sensors and their lines
                                └─► doubt ─┬──────────────► windows: is the model's alarm held back?
Rows ───────────────────────────── rules ──┴─► transitions of rules
```
A window is held back where the largest part of its score, or a third of it, is of doubted channels: what one bad
channel does to a model spreads over those that go with it. It is not where the part of the others alone is more than
what spreads. What is held back neither raises nor clears; it is counted, and told where it lasts and no sensor is in
alarm. The windows before, that showed the fault of a sensor which nobody doubted yet, are taken back.
"""

from collections import deque
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from tocsin.alarms.blind import Blindness
from tocsin.alarms.limits import ChannelOverride
from tocsin.alarms.normal import Normal
from tocsin.alarms.quality import CAUSES, Quality, condition
from tocsin.alarms.rules import Rule, RuleSet
from tocsin.errors import ConfigError
from tocsin.records import Bools, Change, Channel, Floats, Ints, Rows, SampleBlock, Scores, Transition, Windows

HELD_SHARE = 1 / 3
SPREAD = 100.0  # times the limit: a reconstruction is bounded, and so is what a wild channel does to that of the others
REMEMBERED = 64  # windows that may be taken back


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
        shared = (condition(asset, check) for check in CAUSES)
        self._on = {alarm: set(range(len(groups))) for alarm in shared if alarm in active}  # the groups in alarm
        self._blindness = Blindness(asset, rate_hz, active)
        self._names = names
        self._ends: deque[float] = deque(maxlen=REMEMBERED)  # of windows that were not held back
        self._told: list[Transition] = []

    def block(self, block: SampleBlock, group: int = 0) -> None:
        """The next samples of a group, before anything is made of them."""
        if self._quality:
            told = tuple(one for one in self._quality[group].check(block) if self._is_news(one, group))
            self._blindness.hear(told)
            self._told += told

    def _is_news(self, transition: Transition, group: int) -> bool:
        """Groups share their conditions: one is on while it is in any of them."""
        on = self._on.setdefault(transition.alarm, set())
        if transition.change is Change.RAISED:
            on.add(group)
            return True
        on.discard(group)
        return not on

    def rows(self, rows: Rows) -> None:
        """The next rows."""
        doubted = self._doubted(rows.time_s, rows.time_s, rows.sample, rows.sample, of_rules=True)
        if doubted is not None and self._joined is not None:
            doubted = doubted[:, self._joined.channel_of]
        self._told += self._rules.check(rows, doubted)

    def hold(self, windows: Windows, scores: Scores) -> tuple[Bools, Ints]:
        """(K,) windows whose score rests on doubted channels, and (K,) how many before each are to be taken back.

        Args:
            windows: the next ones.
            scores: of them, split over the channels of the groups; not smoothed.
        """
        held: Bools = np.zeros(len(windows), np.bool_)
        doubted = self._doubted(windows.start_s, windows.end_s, windows.first_sample, windows.sample)
        if doubted is not None:
            largest = np.take_along_axis(doubted, scores.per_channel.argmax(axis=1)[:, None], axis=1)[:, 0]
            share = (scores.share() * doubted).sum(axis=1)
            held = (largest | (share >= HELD_SHARE)) & ~(scores.ratio * (1 - share) >= SPREAD)
            self.held_back += int(np.count_nonzero(held & (scores.ratio >= 1)))
        back = self._taken_back(windows, held)
        if self._quality:
            doubts = () if doubted is None else tuple(np.array(self._names)[doubted[-1]].tolist())
            self._told += self._blindness.look(windows, held, doubts)
        for group, quality in zip(self._groups, self._quality, strict=False):
            earliest = windows.start_s[-1] - group.frame_s if self._joined else windows.first_sample[-1]
            quality.forget(float(earliest))
        return held, back

    def _taken_back(self, windows: Windows, held: Bools) -> Ints:
        """(K,) how many windows just before each showed what makes it held back, when nobody knew."""
        ends = windows.end_s if self._joined else windows.sample
        back = np.zeros(len(held), np.int64)
        edges = [0, *(np.flatnonzero(np.diff(held)) + 1).tolist(), len(held)]
        for start, stop in pairwise(edges):
            if not held[start]:
                self._ends.extend(ends[start:stop][-REMEMBERED:].tolist())
                continue
            preludes = [pair for quality in self._quality for pair in quality.preludes(float(ends[start]))]
            while self._ends and any(since <= self._ends[-1] < known for since, known in preludes):
                self._ends.pop()
                back[start] += 1
        return back

    def _doubted(self, start_s: Floats, end_s: Floats, first: Ints, last: Ints, of_rules: bool = False) -> Bools | None:
        """(K, C) doubted channels between two times, or two samples; None where there is none."""
        if not any(quality.has_doubts for quality in self._quality):
            return None
        parts = []
        for group, quality in zip(self._groups, self._quality, strict=True):
            begin, end = (start_s - group.frame_s, end_s) if self._joined else (first, last)
            parts.append(quality.doubted(begin, end, of_rules))
        together = np.concatenate(parts, axis=1)
        return together if together.any() else None

    def told(self) -> tuple[Transition, ...]:
        """What began and ended since the last call."""
        told, self._told = tuple(self._told), []
        return told

    def bad_channels(self) -> tuple[str, ...]:
        """Names of the channels with a condition that is on."""
        return tuple(name for quality in self._quality for name in quality.bad_channels())
