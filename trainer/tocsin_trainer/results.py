"""What a training run found, as values: `evaluate` and `train` make them, `report` and `metrics.json` show them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tocsin.alarms.normal import Normal
from tocsin.core.threshold import Threshold
from tocsin.records import Bools, Channel, Floats

Progress = Callable[[str, int, int, str], None]
"""Called with stage, done, of how many, and a few words."""


@dataclass(frozen=True)
class Choice:
    """One thing that was chosen without the user, and why.

    Attributes:
        what: `window`, `hop`, `sample rate`, …
        value: as shown, with its unit.
        why: one sentence.
    """

    what: str
    value: str
    why: str


@dataclass(frozen=True)
class Finding:
    """Something that ails a channel, or the recording.

    Attributes:
        kind: `constant`, `missing`, `stuck`, `saturated`, `coarse`, `spikes`, `drift`, `noise`, `duplicate`, `jitter`.
        grade: that it leads to, B to D.
        words: what was seen, and what it may mean.
    """

    kind: str
    grade: str
    words: str


@dataclass(frozen=True)
class ChannelGrade:
    """How good one channel of the recordings is, see `tocsin_trainer.quality`.

    Attributes:
        name: of the channel.
        grade: A (nothing found) to D (tells nothing): the worst of the findings'.
        findings: why it is not A.
        figures: what was measured, by the kinds of finding.
    """

    name: str
    grade: str
    findings: tuple[Finding, ...]
    figures: dict[str, float]


@dataclass(frozen=True)
class DataQuality:
    """How good the recordings are that a model is made from.

    Attributes:
        channels: a grade each, in the order of the columns.
        rows: looked at.
        stretches: unbroken ones.
        jitter: 90th percentile of how far steps of time are off, part of a step.
        findings: what ails the recording as a whole.
        sentence: what to do.
        normal: what the device takes the limits of its quality checks from.
    """

    channels: tuple[ChannelGrade, ...]
    rows: int
    stretches: int
    jitter: float
    findings: tuple[Finding, ...]
    sentence: str
    normal: Normal = Normal(0)


@dataclass(frozen=True)
class Played:
    """A recording as the device would have seen it.

    Attributes:
        title: `test`, `calibration`, a file's name, …
        row_time_s: (m,) of the rows: all of them with labels; else those that a picture needs, see `evaluate.course`.
        rows: (m, C) in engineering units.
        end_s: (K,) time of each window's last row.
        score: (K,).
        anomaly: (K,) after N-of-M and hysteresis.
        share: (K, C) channels' parts of the score.
        row_label: (m,) true where a label says anomalous, or None without labels.
        window_label: (K,) the label of each window's last row, or None.
        row_score: (m,) score of the latest window that ends at or before the row, the first one before that; or None
            without labels.
        alarms: (start_s, end_s) of each alarm.
        row_count: rows that were played, drawn or not; 0 = m.
        step_s: time from row to row; 0 = the median step of `row_time_s`.
    """

    title: str
    row_time_s: Floats
    rows: Floats
    end_s: Floats
    score: Floats
    anomaly: Bools
    share: Floats
    row_label: Bools | None = None
    window_label: Bools | None = None
    row_score: Floats | None = None
    alarms: tuple[tuple[float, float], ...] = ()
    row_count: int = 0
    step_s: float = 0.0

    def __len__(self) -> int:
        """Rows that were played."""
        return self.row_count or len(self.row_time_s)

    @property
    def running_s(self) -> float:
        """Seconds of running that no label calls anomalous, gaps left out."""
        normal = len(self) - (0 if self.row_label is None else int(np.count_nonzero(self.row_label)))
        step = self.step_s or (float(np.median(np.diff(self.row_time_s))) if len(self.row_time_s) > 1 else 0.0)
        return step * normal


@dataclass(frozen=True)
class Gate:
    """Whether the converted model decides as the float one does.

    Attributes:
        correlation: of the logarithms of the scores, on calibration windows and injected anomalies.
        agreement: part of decisions that are equal, 0 to 1.
        auc_float: ROC-AUC on injected anomalies, float model.
        auc_converted: the same, converted model.
        distortion: 90th percentile of |ln(converted / float)| of the ratios of windows far outside of normal running.
        passed: all within their limits.
        reason: why not, or why a rung below int8 was taken, or empty.
    """

    correlation: float
    agreement: float
    auc_float: float
    auc_converted: float
    passed: bool
    reason: str = ""
    distortion: float = 0.0


@dataclass(frozen=True)
class Candidate:
    """One family, trained, converted, limited and judged.

    Attributes:
        family: `pca`, `conv_ae`, `lstm_ae`, …
        precision: `int8`, `dynamic` or `float32`: the rung that passed.
        headroom: factor on the representative windows.
        bytes: size of the converted single-window file.
        float_bytes: size of the float32 file.
        latency_us: median time of one window through the converted file, on this machine.
        parameters: weights of the model.
        train_loss: (epochs,) mean square error; empty for a closed-form fit.
        validation_loss: (epochs,).
        gate: float against converted.
        threshold: on the converted model's calibration scores.
        threshold_float: the same rule on the float model's.
        separation: mean ROC-AUC on injected anomalies of the converted model.
        figures: on labelled test data, converted model; empty without labels.
        figures_float: the same for the float model.
        played: parts shown in the report.
        float_scores: (K,) float model, calibration windows.
        converted_scores: (K,) converted model, the same windows.
        seconds: that the fit took.
        chosen: it ships.
        why_not: why another one ships; empty: the report says what the numbers say.
        beside: fitted to compare with, see `tocsin_trainer.comparison`; it never ships.
        stability: of its scores over blocks of time, 0 to 1; None where the recording is too short to tell, see
            `tocsin_trainer.ranking`.
        agreement: with a model of another seed, 0 to 1; None where it was not measured.
        combination: of several members, one of `tocsin_trainer.options.COMBINE`; empty for a single one.
        fitted_on: which rows of normal running its weights come from, in words.
    """

    family: str
    precision: str
    headroom: float
    bytes: int
    float_bytes: int
    latency_us: float
    parameters: int
    train_loss: Floats
    validation_loss: Floats
    gate: Gate
    threshold: Threshold
    threshold_float: Threshold
    separation: float
    figures: dict[str, float]
    figures_float: dict[str, float]
    played: tuple[Played, ...]
    float_scores: Floats
    converted_scores: Floats
    seconds: float
    chosen: bool = False
    why_not: str = ""
    beside: bool = False
    stability: float | None = None
    agreement: float | None = None
    combination: str = ""
    fitted_on: str = ""

    @property
    def title(self) -> str:
        """Its families, and how they are combined: `t2+pca (weighted)`."""
        return f"{self.family} ({self.combination})" if self.combination else self.family

    @property
    def worth(self) -> float:
        """What ranks it, ½ to 1: what it tells apart beyond chance, less what wandering and luck take of that.

        A stability or an agreement that is not known counts 1.
        """
        known = [part for part in (self.stability, self.agreement) if part is not None]
        return 0.5 + (self.separation - 0.5) * math.prod(known)

    @property
    def closed_form(self) -> bool:
        """Whether all of its members are solved, not trained: there is no seed and no epoch."""
        return not len(self.train_loss)


@dataclass(frozen=True)
class TrainingResult:
    """All that a training run found.

    Attributes:
        asset: id.
        version: of the bundle.
        created: RFC 3339.
        seed: of everything random.
        channels: in the order of the columns.
        sample_rate_hz: of the grid.
        length: rows a window.
        hop: rows between windows.
        rows: of each part: train, calibration, test.
        choices: what was chosen, and why.
        warnings: what was found and mended in the data.
        candidates: all of them, chosen one marked.
        k_table: limits for several k, see `tocsin.core.threshold`.
        baselines: figures of always-on and random on the labelled test data; empty without labels.
        seconds: in all.
        extra: anything else worth a line. Keys with a place of their own in the report: `next_command`, `command` (that
            made this), `promise` (dict of `sentence`, `asked`, `promised`, `interval`, `needed_hours`), `data` (list of
            {file, sha256}).
        quality: of the recordings of normal running; None where they were not graded.
        left_out: (family, why) of those that such data do not suit: they were not fitted.
    """

    asset: str
    version: str
    created: str
    seed: int
    channels: tuple[Channel, ...]
    sample_rate_hz: float
    length: int
    hop: int
    rows: dict[str, int]
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    k_table: tuple[dict[str, float], ...]
    baselines: dict[str, dict[str, float]]
    seconds: float
    extra: dict[str, Any] = field(default_factory=dict)
    quality: DataQuality | None = None
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def chosen(self) -> Candidate:
        """The candidate that ships."""
        return next(candidate for candidate in self.candidates if candidate.chosen)


@dataclass(frozen=True)
class Fitted:
    """A float model with how its training went.

    Attributes:
        family: name in `tocsin_trainer.models.FAMILIES`.
        model: Keras model, (K, T, C) → (K, T, C), all float32.
        train_loss: (epochs,).
        validation_loss: (epochs,).
        seconds: that the fit took.
    """

    family: str
    model: Any
    train_loss: Floats
    validation_loss: Floats
    seconds: float
