"""The few types that flow through an asset's line, in the order in which a sample meets them.

Rules: all are frozen; arrays are never changed after they are made; times are epoch seconds, UTC, of the sample
(not of its arrival); K windows of T rows of C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Channel:
    """One measured quantity of an asset.

    Attributes:
        name: key in topics and payloads, `^[a-z][a-z0-9_]*$`.
        unit: unit of measure as the operator reads it (`bar`, `°C`), or empty.
    """

    name: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class SampleBlock:
    """What a source gives: some samples, in engineering units.

    Attributes:
        time_s: (n,) epoch seconds of each sample, ascending but for clock steps.
        values: (n, C) one column a channel; NaN where a channel has no value.
        arrived_s: monotonic seconds at which the block arrived.
        step_s: seconds by which the clock of the stamps was set just before the first sample; the samples themselves
            go on without a gap.
        bad: (n, C) where the source itself calls the value bad (a status code, an answer that failed), and it is NaN
            for that; None = nowhere. NaN alone says that there was nothing new.
    """

    time_s: Floats
    values: Floats
    arrived_s: float = 0.0
    step_s: float = 0.0
    bad: Bools | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.time_s)

    def part(self, kept: slice | Bools) -> "SampleBlock":
        """Some of the samples; the step of the clock goes with the first."""
        has_first = 0 in np.arange(len(self))[kept][:1]
        bad = None if self.bad is None else self.bad[kept]
        step_s = self.step_s if has_first else 0.0
        return replace(self, time_s=self.time_s[kept], values=self.values[kept], step_s=step_s, bad=bad)

    def columns(self, picked: Sequence[int]) -> "SampleBlock":
        """Some of the channels, or all in another order."""
        places = list(picked)
        bad = None if self.bad is None else self.bad[:, places]
        return replace(self, values=self.values[:, places], bad=bad)


@dataclass(frozen=True, slots=True)
class Rows:
    """Samples on the fixed grid, without a gap inside.

    Attributes:
        time_s: (m,) time of the newest real sample in each row.
        values: (m, C) finite.
        sample: (m,) index of that sample, counted from the first of the stream.
        after_gap: the row before the first is missing; windows start anew.
    """

    time_s: Floats
    values: Floats
    sample: Ints
    after_gap: bool

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.time_s)


@dataclass(frozen=True, slots=True)
class Windows:
    """Sliding windows; `values` is a view that the next push overwrites.

    Attributes:
        values: (K, T, C).
        start_s: (K,) time of each window's first row.
        end_s: (K,) time of each window's last row.
        sample: (K,) index of the last row's sample.
        first_sample: (K,) index of the first row's.
    """

    values: Floats
    start_s: Floats
    end_s: Floats
    sample: Ints
    first_sample: Ints

    def __len__(self) -> int:
        """Number of windows, K."""
        return len(self.end_s)


@dataclass(frozen=True, slots=True)
class Scores:
    """Anomaly scores, higher = more anomalous.

    Attributes:
        value: (K,) score.
        ratio: (K,) score / threshold: 1.0 is the limit, whatever the model.
        per_channel: (K, C) what each channel gives to the score; rows sum to `value`.
        mode: (K,) operating mode of each window, −1 where it is unknown; None where there is one only.
    """

    value: Floats
    ratio: Floats
    per_channel: Floats
    mode: Ints | None = None

    def __len__(self) -> int:
        """Number of windows, K."""
        return len(self.value)

    def share(self) -> Floats:
        """(K, C) each channel's part of its window's score, rows sum to 1 (0 where the score is 0).

        Of a score that is not finite, channels that are not finite themselves have equal parts.
        """
        part, total = self.per_channel, np.where(self.value > 0, self.value, 1.0)
        if not np.isfinite(total).all() or np.isnan(self.value).any():
            beyond = ~np.isfinite(part)
            most = np.maximum(np.where(beyond, 0.0, part).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
            part = np.where(beyond.any(axis=1, keepdims=True), beyond, part / most)
            total = np.maximum(part.sum(axis=1), np.finfo(np.float64).tiny)
        return part / total[:, None]


@dataclass(frozen=True, slots=True)
class Contribution:
    """One channel's part in an alarm.

    Attributes:
        channel: its name.
        share: part of the score, 0 to 1.
        seen: value in engineering units where seen and expected differ most; None where there is none.
        expected: the model's value there; None for members that do not reconstruct.
    """

    channel: str
    share: float
    seen: float | None
    expected: float | None


class Change(StrEnum):
    """What a detector says of a condition."""

    RAISED = "raised"
    CLEARED = "cleared"
    STEPPED = "stepped"  # it goes on, and matters more or less


@dataclass(frozen=True, slots=True)
class Transition:
    """A condition that began, ended or changed its severity, with its evidence.

    Attributes:
        asset: id of the asset.
        alarm: id of the condition, unique on the device.
        change: began or ended.
        time_s: epoch seconds of the window that decided it.
        cause: `model`, `rule`, `data_gap`, …
        score: that window's score, with `threshold` and `ratio`; None where nothing was scored.
        window_start_s: the window's first sample; with `window_end_s` and `window_rows`.
        contributions: channels, largest share first.
        severity: of the alarm at that time; None for that of the asset.
    """

    asset: str
    alarm: str
    change: Change
    time_s: float
    cause: str
    score: float | None
    threshold: float | None
    ratio: float | None
    window_start_s: float
    window_end_s: float
    window_rows: int
    contributions: tuple[Contribution, ...] = ()
    severity: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `tocsin doctor` looked at.

    Attributes:
        what: `python`, `runtime`, …
        found: in a few words, with versions.
        state: `ok`; `note`, something that can be done without is missing; `bad`, it has to be mended.
        mend: the command or deed that mends it; empty where nothing is amiss.
    """

    what: str
    found: str
    state: str = "ok"
    mend: str = ""
