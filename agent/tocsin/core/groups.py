"""Rate groups: channels that are sampled together, and how several groups become the columns of one grid.

```
process    1 Hz   temperature ─────────────────────── hold ─► temperature
                  load ──────────────────────────── hold ───► load
vibration  4 kHz  vibration_x ─ frame of 4096 rows ─ moments ► vibration_x_rms, vibration_x_crest, …
                                                 ─ bands ───► vibration_x_band_1, …
```
Rules: one group, the base, sets the grid: a joined row at each `every`-th of its rows. A group is shown either by its
channels, each aligned by `hold`, `interpolate` or `mean`, or by features of its last `frame` rows, with frozen
constants. Columns of one channel lie side by side, so that what a model says of them folds back onto the channel. One
group without features is the common case: its columns are its channels.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self, cast

import numpy as np

from tocsin.core.preprocess import Filter, LevelUnrest, Moments, Preprocessor, Stack, Standardise, Step
from tocsin.core.preprocess.pipeline import rows_after
from tocsin.errors import BundleError
from tocsin.records import Channel, Contribution, Floats, Ints

Align = Literal["hold", "interpolate", "mean"]
ALIGNMENTS: tuple[Align, ...] = ("hold", "interpolate", "mean")
HOLD: Align = "hold"
GROUP_NAME = r"[a-z][a-z0-9_-]{0,62}"  # in options, settings and the names of recordings
MAX_GROUPS = 16
MAX_COLUMNS = 1024
MAX_FRAME = 1 << 20  # rows
MAX_FRAME_VALUES = 1 << 22  # all channels together
MAX_EVERY = 1 << 20
MAX_HELD = 1 << 24  # values that one group may have to keep, or to repeat over a gap
WAIT_S = 2.0  # for a group that lags behind the others
FAR = 4.0  # decades: an expected level further off than that is no forecast, but a model far from what it knows
LARGEST = 300.0  # decades that a float holds


@dataclass(frozen=True)
class Group:
    """Channels that are sampled together.

    Attributes:
        name: unique in the bundle; empty where there is one group.
        channels: in the order of the columns of its blocks.
        sample_rate_hz: of its own rows.
        max_gap_s: longest stretch over which a missing sample repeats the one before, at most `max_age_s`.
        max_age_s: oldest value that a joined row may show; past that there is a gap.
        align: how each channel comes onto the grid, where there are no features.
        frame: rows that the features look at.
        features: steps from (K, frame, C) to (K, F, C); () = the channels themselves.
    """

    name: str
    channels: tuple[Channel, ...]
    sample_rate_hz: float
    max_gap_s: float
    max_age_s: float
    align: tuple[Align, ...]
    frame: int = 1
    features: tuple[Step, ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """(F,) what the features are called; empty without them."""
        return feature_names(self.features, self.frame) if self.features else ()

    @property
    def each(self) -> int:
        """Columns a channel."""
        return len(self.names) or 1

    @property
    def columns(self) -> tuple[Channel, ...]:
        """What a model sees of the group: its channels, or each channel's features, which have no unit."""
        if not self.features:
            return self.channels
        return tuple(Channel(f"{channel.name}_{name}") for channel in self.channels for name in self.names)

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        channels: list[dict[str, Any]] = [{"name": c.name, "unit": c.unit} for c in self.channels]
        form: dict[str, Any] = {
            "name": self.name,
            "channels": channels,
            "sample_rate_hz": self.sample_rate_hz,
            "max_gap_s": self.max_gap_s,
            "max_age_s": self.max_age_s,
        }
        if self.features:
            return form | {"frame": self.frame, "features": Preprocessor(self.features).to_json()}
        for channel, align in zip(channels, self.align, strict=True):
            channel["align"] = align
        return form

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form.

        Raises:
            BundleError: a value outside of what can be.
        """
        channels = tuple(Channel(str(c["name"]), str(c.get("unit", ""))) for c in form["channels"])
        gap_s = float(form["max_gap_s"])
        group = cls(
            name=str(form.get("name", "")),
            channels=channels,
            sample_rate_hz=float(form["sample_rate_hz"]),
            max_gap_s=gap_s,
            max_age_s=float(form.get("max_age_s", gap_s)),
            align=tuple(cast(Align, str(c.get("align", "hold"))) for c in form["channels"]),
            frame=int(form.get("frame", 1)),
            features=Preprocessor.from_json(form["features"]).steps if "features" in form else (),
        )
        wrong = group._first_wrong()
        if wrong:
            raise BundleError(f"manifest.json is damaged: group {group.name[:40]!r}: {wrong}")
        return group

    def _first_wrong(self) -> str | None:
        """The first value outside of what can be, as a sentence."""
        if not self.channels:
            return "it needs at least one channel"
        held = self.max_age_s * self.sample_rate_hz * len(self.channels)
        if not (0 < self.sample_rate_hz < np.inf and 0 <= self.max_gap_s <= self.max_age_s and held <= MAX_HELD):
            return (
                f"sample rate {self.sample_rate_hz}, longest gap {self.max_gap_s} s, oldest value {self.max_age_s} s: "
                f"{held:.3g} values that may be held, at most {MAX_HELD}"
            )
        unknown = [align for align in self.align if align not in ALIGNMENTS]
        if unknown:
            return f"alignment {unknown[0]!r}, this agent knows {', '.join(ALIGNMENTS)}: update it"
        if not 1 <= self.frame <= MAX_FRAME or self.frame * len(self.channels) > MAX_FRAME_VALUES:
            return f"a frame of {self.frame} rows of {len(self.channels)} channels"
        try:
            good = all(step.takes(len(self.channels)) for step in self.features)
            shown = rows_after(self.features, self.frame) if self.features else 1
        except (ValueError, ArithmeticError) as error:
            return str(error)
        return None if good and shown <= MAX_COLUMNS else f"features that are not for {len(self.channels)} channels"


@dataclass(frozen=True)
class RateGroups:
    """All groups of an asset, and the grid that they are joined on.

    Attributes:
        groups: one or more; their columns stand in this order.
        base: index of the group that sets the grid.
        every: rows of the base from one joined row to the next.
        wait_s: how long a row waits for a group that lags behind.
    """

    groups: tuple[Group, ...]
    base: int = 0
    every: int = 1
    wait_s: float = WAIT_S

    @property
    def alone(self) -> bool:
        """One group, shown by its channels: nothing has to be joined."""
        return len(self.groups) == 1 and not self.groups[0].features and self.every == 1

    @property
    def sample_rate_hz(self) -> float:
        """Joined rows a second."""
        return self.groups[self.base].sample_rate_hz / self.every

    @property
    def max_gap_s(self) -> float:
        """Longest stretch over which the base holds values."""
        return self.groups[self.base].max_gap_s

    @cached_property
    def channels(self) -> tuple[Channel, ...]:
        """(C,) of all groups, as sensors give them and as alarms name them."""
        return tuple(channel for group in self.groups for channel in group.channels)

    @cached_property
    def columns(self) -> tuple[Channel, ...]:
        """(D,) of the joined rows, as models see them."""
        return tuple(column for group in self.groups for column in group.columns)

    @cached_property
    def _starts(self) -> Ints:
        """(C,) first column of each channel."""
        widths = [group.each for group in self.groups for _ in group.channels]
        return np.cumsum([0, *widths[:-1]])

    @cached_property
    def _bare(self) -> bool:
        """Each column is a channel."""
        return not any(group.features for group in self.groups)

    def fold(self, split: Floats) -> Floats:
        """(K, D) parts of scores → (K, C): those of a channel's columns together."""
        if self._bare:
            return split
        folded: Floats = np.add.reduceat(split, self._starts, axis=1)
        return folded

    def told(self, contributions: Iterable[Contribution]) -> tuple[Contribution, ...]:
        """Columns' parts in an alarm → the channels', largest share first.

        A channel of which features are shown tells its effective value or its mean, where one of them is that; else
        it has no value.
        """
        if self._bare:
            return tuple(contributions)
        by_name = {each.channel: each for each in contributions}
        out = []
        for group in self.groups:
            for channel in group.channels:
                if not group.features:
                    out.append(by_name[channel.name])
                    continue
                own = [by_name[f"{channel.name}_{name}"] for name in group.names]
                shown = _level(group.names, own)
                out.append(replace(shown, channel=channel.name, share=sum(each.share for each in own)))
        return tuple(sorted(out, key=lambda each: -each.share))

    def to_json(self) -> dict[str, Any]:
        """The manifest's keys `groups` and, where there is something to join, `join`."""
        if self.alone:
            (group,) = self.groups
            form = {"channels": [{"name": c.name, "unit": c.unit} for c in group.channels]}
            return {"groups": [form | {"sample_rate_hz": group.sample_rate_hz, "max_gap_s": group.max_gap_s}]}
        join = {"group": self.groups[self.base].name, "every": self.every, "wait_s": self.wait_s}
        return {"groups": [group.to_json() for group in self.groups], "join": join}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """From the manifest.

        Raises:
            BundleError: a value outside of what can be.
        """
        forms = raw["groups"]
        if not 1 <= len(forms) <= MAX_GROUPS:
            raise BundleError(f"manifest.json is damaged: {len(forms)} groups, expected 1 to {MAX_GROUPS}")
        groups = tuple(Group.from_json(form) for form in forms)
        if "join" not in raw:
            if len(groups) > 1 or groups[0].features:
                raise BundleError("manifest.json is damaged: several groups, or features, and no `join`")
            return cls(groups)
        names, join = [group.name for group in groups], raw["join"]
        made = cls(groups, names.index(str(join["group"])), int(join["every"]), float(join["wait_s"]))
        wrong = made._first_wrong()
        if wrong:
            raise BundleError(f"manifest.json is damaged: {wrong}")
        return made

    def _first_wrong(self) -> str | None:
        """The first value outside of what can be, as a sentence; sizes before anything of that size is made."""
        count = sum(len(group.channels) * group.each for group in self.groups)
        if count > MAX_COLUMNS:
            each = ", ".join(f"{group.name[:40]} {len(group.channels)} × {group.each}" for group in self.groups)
            return f"{count} columns ({each}), at most {MAX_COLUMNS}"
        if not (1 <= self.every <= MAX_EVERY and 0 <= self.wait_s < np.inf):
            return f"a joined row every {self.every} rows, wait {self.wait_s} s"
        for group in self.groups:
            rows = group.sample_rate_hz / self.sample_rate_hz
            if "mean" in group.align and not group.features and rows * len(group.channels) > MAX_FRAME_VALUES:
                return f"group {group.name[:40]!r}: means over {rows:.3g} rows of {len(group.channels)} channels"
        names = [group.name for group in self.groups]
        columns, channels = ([each.name for each in listed] for listed in (self.columns, self.channels))
        for what, listed in (("group", names), ("channel", channels), ("column", columns)):
            twice = [name for name, times in Counter(listed).items() if times > 1]
            if twice:
                return f"{what} {twice[0][:40]!r} is given twice"
        return None


def one_group(channels: tuple[Channel, ...], sample_rate_hz: float, max_gap_s: float) -> RateGroups:
    """All channels in one group: nothing has to be joined."""
    return RateGroups((Group("", channels, sample_rate_hz, max_gap_s, max_gap_s, (HOLD,) * len(channels)),))


def feature_names(steps: Iterable[Step], length: int) -> tuple[str, ...]:
    """(F,) names of the numbers that steps make of `length` rows.

    >>> feature_names([Moments(np.ones(1))], 64)
    ('rms', 'crest', 'kurtosis', 'skewness')

    Raises:
        ValueError: the rows are too few for a step.
    """
    names = tuple(f"row_{n + 1}" for n in range(length))
    for step in steps:
        length = step.rows(length)
        match step:
            case Moments():
                names = ("rms", "crest", "kurtosis", "skewness")
            case LevelUnrest(segments=1):
                names = ("level", "unrest")
            case Stack(branches=branches):
                names = tuple(name for branch in branches for name in feature_names(branch, len(names)))
            case Filter() | Standardise():
                pass
            case _ if len(names) != length or names[0].startswith("row_"):
                names = tuple(f"{SHORT.get(step.name, step.name)}_{n + 1}" for n in range(length))
    return names


SHORT = {"band_energies": "band", "log_mel": "mel", "log_spectrum": "spectrum", "envelope_spectrum": "envelope"}


def _level(names: tuple[str, ...], own: list[Contribution]) -> Contribution:
    """What a channel's features say of it in its own unit."""
    for name, each in zip(names, own, strict=True):
        if name == "level":
            return each
        if name == "rms":  # a decadic logarithm
            far = each.seen is None or each.expected is None or not abs(each.expected - each.seen) <= FAR
            return replace(each, seen=_power(each.seen), expected=None if far else _power(each.expected))
    return replace(own[0], seen=None, expected=None)


def _power(level: float | None) -> float | None:
    """10 to the power of a level; none of what no float holds."""
    return float(10.0**level) if level is not None and abs(level) <= LARGEST else None
