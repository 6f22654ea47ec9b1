"""A training run as numbers: metrics.json, and a short table for the terminal.

Rules: `Document` is the form of the file and its JSON Schema is made from it; a number that is not finite, or was not
measured, is null; keys are only ever added.
"""

import math
from dataclasses import asdict
from typing import Any, NotRequired

import numpy as np
from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from tocsin_trainer.mistakes import LabelledEvent, NormalPeak, all_events, worst_errors
from tocsin_trainer.reasons import cost_figures, further, why_not
from tocsin_trainer.results import Candidate, DataQuality, TrainingResult
from tocsin_trainer.verdict import verdict

Number = float | None
Figures = dict[str, Number]
_CLOSED = with_config(ConfigDict(extra="forbid"))


@_CLOSED
class ChannelName(TypedDict):
    """A column."""

    name: str
    unit: str


@_CLOSED
class WindowForm(TypedDict):
    """In rows."""

    length: int
    hop: int


@_CLOSED
class ChoiceForm(TypedDict):
    """What was chosen without the user."""

    what: str
    value: str
    why: str


@_CLOSED
class FindingForm(TypedDict):
    """What ails a channel or the recording; `grade` B to D."""

    kind: str
    grade: str
    words: str


@_CLOSED
class GradeForm(TypedDict):
    """A channel's quality; `figures` by kind of finding."""

    name: str
    grade: str
    findings: list[FindingForm]
    figures: Figures


@_CLOSED
class QualityForm(TypedDict):
    """Of the recordings of normal running."""

    channels: list[GradeForm]
    rows: int
    stretches: int
    jitter: Number
    findings: list[FindingForm]
    sentence: str


@_CLOSED
class CheckForm(TypedDict):
    """`good` false: somebody should look; null: nothing was measured."""

    good: bool | None
    words: str


@_CLOSED
class VerdictForm(TypedDict):
    """What the run comes to."""

    headline: str
    checks: list[CheckForm]


@_CLOSED
class ThresholdForm(TypedDict):
    """A limit on the score."""

    method: str
    value: Number
    parameters: dict[str, Any]


@_CLOSED
class GateForm(TypedDict):
    """Converted against float."""

    correlation: Number
    agreement: Number
    auc_float: Number
    auc_converted: Number
    passed: bool
    reason: str
    distortion: Number


@_CLOSED
class CandidateForm(TypedDict):
    """One model that stood for choice; `further` holds what has no key of its own."""

    family: str
    precision: str
    headroom: Number
    bytes: int
    float_bytes: int
    latency_us: Number
    parameters: int
    gate: GateForm
    threshold: ThresholdForm
    threshold_float: ThresholdForm
    separation: Number
    stability: Number
    agreement: Number | None
    worth: Number
    combination: str
    fitted_on: str
    figures: Figures
    figures_float: Figures
    train_loss: list[Number]
    validation_loss: list[Number]
    seconds: Number
    chosen: bool
    why_not: str
    further: dict[str, Any]


@_CLOSED
class LeftOutForm(TypedDict):
    """A family that such data do not suit, and that was not fitted."""

    family: str
    why: str


@_CLOSED
class EventForm(TypedDict):
    """A labelled event; seconds; null where there was no alarm (`found` is false) or no score at the limit."""

    part: str
    start_s: float
    end_s: float
    found: bool
    alarm_after_s: Number
    over_after_s: Number
    ratio: Number
    channels: dict[str, float]


@_CLOSED
class ErrorForm(TypedDict):
    """A missed or late event, or the largest scores of normal running, gravest first."""

    kind: str
    part: str
    at_s: float
    ratio: Number
    channels: dict[str, float]


@_CLOSED
class CostForm(TypedDict):
    """On the training machine; `rss_mb` is an estimate for the whole agent."""

    bytes: int
    window_us: Number
    windows_per_s: Number
    core_share: Number
    rss_mb: Number


@_CLOSED
class Document(TypedDict):
    """metrics.json."""

    asset: str
    version: str
    created: str
    seed: int
    window: WindowForm
    sample_rate_hz: float
    channels: list[ChannelName]
    rows: dict[str, int]
    verdict: VerdictForm
    quality: QualityForm | None
    candidates: list[CandidateForm]
    left_out: list[LeftOutForm]
    chosen: str
    threshold: ThresholdForm
    k_table: list[Figures]
    promise: dict[str, Any] | None
    choices: list[ChoiceForm]
    warnings: list[str]
    baselines: dict[str, Figures]
    events: list[EventForm]
    worst: list[ErrorForm]
    cost: CostForm
    seconds: Number
    bundle: NotRequired[str]
    sha256: NotRequired[str]
    report: NotRequired[str]


def schema() -> dict[str, Any]:
    """JSON Schema of metrics.json."""
    return TypeAdapter(Document).json_schema()


def metrics_json(result: TrainingResult) -> dict[str, Any]:
    """The run's figures in the form of `Document`, ready for `json.dump(…, allow_nan=False)`."""
    promise = result.extra.get("promise")
    form = {
        "asset": result.asset,
        "version": result.version,
        "created": result.created,
        "seed": result.seed,
        "window": {"length": result.length, "hop": result.hop},
        "sample_rate_hz": result.sample_rate_hz,
        "channels": [{"name": channel.name, "unit": channel.unit} for channel in result.channels],
        "rows": result.rows,
        "verdict": asdict(verdict(result)),
        "quality": None if result.quality is None else _graded(result.quality),
        "candidates": [_candidate_json(candidate, result) for candidate in result.candidates],
        "left_out": [{"family": family, "why": why} for family, why in result.left_out],
        "chosen": result.chosen.family,
        "threshold": result.chosen.threshold.to_json(),
        "k_table": list(result.k_table),
        "promise": promise if isinstance(promise, dict) else None,
        "choices": [asdict(choice) for choice in result.choices],
        "warnings": result.warnings,
        "baselines": result.baselines,
        "events": [{**asdict(e), "found": e.found, "channels": dict(e.channels)} for e in all_events(result)],
        "worst": [_error_json(error) for error in worst_errors(result)],
        "cost": cost_figures(result),
        "seconds": result.seconds,
    }
    plain: dict[str, Any] = _plain(form)
    return plain


def _graded(quality: DataQuality) -> dict[str, Any]:
    """The grades; what normal running was stands in the bundle."""
    form = asdict(quality)
    del form["normal"]
    return form


def summary_table(result: TrainingResult) -> list[dict[str, Any]]:
    """One flat row a candidate, for the terminal: plain values, the same keys in every row, None where absent."""
    keys = [
        key
        for key in ("vus_pr", "f1", "far", "false_events_per_day")
        if any(key in c.figures for c in result.candidates)
    ]
    rows = [
        {
            "family": candidate.family,
            "precision": candidate.precision,
            "bytes": candidate.bytes,
            "latency_us": candidate.latency_us,
            "gate": "passed" if candidate.gate.passed else candidate.gate.reason or "failed",
            "threshold": candidate.threshold.value,
            "separation": candidate.separation,
            "stability": candidate.stability,
            "agreement": candidate.agreement,
            "worth": candidate.worth,
            "combination": candidate.combination,
            **{key: candidate.figures.get(key) for key in keys},
            "seconds": candidate.seconds,
            "chosen": candidate.chosen,
        }
        for candidate in result.candidates
    ]
    plain: list[dict[str, Any]] = _plain(rows)
    return plain


def _candidate_json(candidate: Candidate, result: TrainingResult) -> dict[str, Any]:
    keys = ("family", "precision", "headroom", "bytes", "float_bytes", "latency_us", "parameters", "separation",
            "stability", "agreement", "worth", "combination", "fitted_on", "figures", "figures_float", "train_loss",
            "validation_loss", "seconds", "chosen")  # fmt: skip
    return {key: getattr(candidate, key) for key in keys} | {
        "gate": asdict(candidate.gate),
        "threshold": candidate.threshold.to_json(),
        "threshold_float": candidate.threshold_float.to_json(),
        "why_not": "" if candidate.chosen else why_not(candidate, result),
        "further": further(candidate),
    }


def _error_json(error: LabelledEvent | NormalPeak) -> dict[str, Any]:
    return {
        "kind": error.kind,
        "part": error.part,
        "at_s": error.at_s,
        "ratio": error.ratio,
        "channels": dict(error.channels),
    }


def _plain(value: Any) -> Any:
    """The same in types that JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
