"""A bundle against recordings: what it found, missed and rang for, per file, mean and worst.

Rules: windows, scores and alarms are the agent's own code; no point adjustment; a figure that the data do not define is
absent, never 0; what only the labels could tell (the best F1) stands apart as an oracle.

| group      | decided by                                                    | needs labels |
|------------|---------------------------------------------------------------|--------------|
| `figures`  | each row's score against the shipped threshold                | yes          |
| `alarms`   | the alarm as the operator sees it: on-delay and hysteresis in | yes          |
| `rates`    | windows, whatever they are                                    | no           |
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tocsin.alarms.detector import AlarmRule
from tocsin.core.bundle import Bundle
from tocsin.core.promise import Promise, Tally
from tocsin.records import Bools
from tocsin_trainer import metrics
from tocsin_trainer.evaluate import bare_scores, baselines, figures, play
from tocsin_trainer.figure_names import HIGHER, LOWER
from tocsin_trainer.labels import Interval
from tocsin_trainer.mistakes import LabelledEvent, NormalPeak, false_alarms, labelled_events, normal_peaks
from tocsin_trainer.recorded import Recorded, grid_of
from tocsin_trainer.results import Played

COUNTS = ("events", "found", "missed", "false_events")
QUANTILES = (0.5, 0.9, 0.99, 0.999, 1.0)
DAY_S = 86400.0


@dataclass(frozen=True)
class FileFigures:
    """One recording.

    Attributes:
        played: as the device would have seen it.
        figures: rows against labels at the shipped threshold, and rankings; empty without labels.
        alarms: `metrics.event_figures` of the alarm's state; empty without labels.
        rates: `days`, `alarms`, `alarms_per_day`, `over` (part of the windows at the limit or above).
        ratios: quantile → score / limit of the windows.
        baselines: figures of what is always on, and of random scores; empty without labels.
        best_f1: an oracle; None without labels.
        normal_days: days of running that no label calls anomalous.
    """

    played: Played
    figures: dict[str, float]
    alarms: dict[str, float]
    rates: dict[str, float]
    ratios: dict[float, float]
    baselines: dict[str, dict[str, float]]
    best_f1: float | None
    normal_days: float


@dataclass(frozen=True)
class Kind:
    """One kind of labelled interval: how many there are, had a row over the limit, and raised an alarm."""

    kind: str
    intervals: int
    found: int
    alarmed: int


@dataclass(frozen=True)
class Evaluation:
    """All files together.

    Attributes:
        bundle: that was evaluated.
        files: one each.
        kinds: where the labels name kinds.
        warnings: what was mended, and what has no labels.
    """

    bundle: Bundle
    files: tuple[FileFigures, ...]
    kinds: tuple[Kind, ...]
    warnings: tuple[str, ...]

    @property
    def labelled(self) -> tuple[FileFigures, ...]:
        """The files with labels."""
        return tuple(file for file in self.files if file.played.row_label is not None)

    def mean(self) -> dict[str, float]:
        """Each figure's mean over the files that define it."""
        return mean([file.figures for file in self.files])

    def worst(self) -> dict[str, tuple[float, str]]:
        """Each figure's worst value, and the file's name."""
        found = {}
        for key in (*HIGHER, *LOWER):
            values = [(file.figures[key], file.played.title) for file in self.files if key in file.figures]
            if values:
                found[key] = (min if key in HIGHER else max)(values, key=lambda each: each[0])
        return found

    def pooled(self) -> dict[str, float]:
        """Rows and events of all files counted together."""
        labels = [file.played.row_label for file in self.labelled if file.played.row_label is not None]
        if not labels:
            return {}
        over = [over_limit(file.played, self.limit) for file in self.labelled]
        out = metrics.point_figures(np.concatenate(labels), np.concatenate(over))
        out |= {key: sum(file.figures[key] for file in self.labelled) for key in COUNTS}
        if out["events"]:
            out["event_recall"] = out["found"] / out["events"]
        days = sum(file.normal_days for file in self.labelled)
        return out | ({"false_events_per_day": out["false_events"] / days} if days else {})

    def baselines(self) -> dict[str, dict[str, float]]:
        """Mean figures of what is always on, and of random scores."""
        names = [name for file in self.files for name in file.baselines]
        return {name: mean([file.baselines.get(name, {}) for file in self.files]) for name in dict.fromkeys(names)}

    def events(self) -> tuple[LabelledEvent, ...]:
        """The labelled events of all files, found or missed."""
        channels = self.bundle.manifest.columns
        return tuple(e for file in self.labelled for e in labelled_events(file.played, channels, self.limit))

    def false_alarms(self, most: int) -> tuple[NormalPeak, ...]:
        """The windows of normal running that score highest, of all labelled files, highest first."""
        manifest = self.bundle.manifest
        span_s = manifest.length / manifest.sample_rate_hz
        peaks = [normal_peaks(file.played, manifest.columns, self.limit, span_s, most) for file in self.labelled]
        return tuple(sorted((peak for each in peaks for peak in each), key=lambda peak: -peak.ratio)[:most])

    def tally(self) -> Tally:
        """Alarms that touch no label, and hours of running that is not labelled, with no alarm on."""
        alarms = sum(false_alarms(file.played)[0] for file in self.files)
        quiet = sum(int(np.count_nonzero(_quiet(file.played))) for file in self.files)
        manifest = self.bundle.manifest
        return Tally(alarms, quiet * manifest.hop / manifest.sample_rate_hz / 3600)

    @property
    def promise(self) -> Promise | None:
        """Of false alarms, where the limit was set for a rate of them."""
        return self.bundle.manifest.threshold.promise

    @property
    def limit(self) -> float:
        """The shipped threshold."""
        return self.bundle.manifest.threshold.value

    @property
    def best_f1(self) -> float | None:
        """Mean over the files of the oracle."""
        found = [file.best_f1 for file in self.files if file.best_f1 is not None]
        return float(np.mean(found)) if found else None


def evaluate(
    bundle: Bundle, recordings: tuple[Recorded, ...], intervals: tuple[Interval, ...] = (), seed: int = 0
) -> Evaluation:
    """Plays recordings through a bundle.

    Args:
        bundle: the model, its limit and its alarm rule.
        recordings: labelled or not.
        intervals: what their labels were made of, for figures by kind.
        seed: of the random scores that stand beside.
    """
    manifest = bundle.manifest
    grid, scorer = grid_of(manifest), bundle.scorer()
    rule = AlarmRule.from_json(manifest.alarm)
    files = []
    for recorded in recordings:
        bare = bare_scores(scorer, recorded.stretches, grid)
        played = play(recorded.path.name, bare, recorded.stretches, grid, rule, manifest.threshold)
        files.append(_file(played, manifest.threshold.value, seed))
    warnings = [warning for recorded in recordings for warning in recorded.warnings]
    if any(file.figures for file in files):
        warnings += [f"{f.played.title}: no labels, only rates" for f in files if f.played.row_label is None]
    return Evaluation(bundle, tuple(files), _kinds(files, intervals, manifest.threshold.value), tuple(warnings))


def _file(played: Played, limit: float, seed: int) -> FileFigures:
    time_s, label = played.row_time_s, played.row_label
    days = len(played) * played.step_s / DAY_S
    rates = {"days": days, "alarms": float(len(played.alarms)), "over": float(np.mean(played.score >= limit))}
    if days > 0:
        rates["alarms_per_day"] = len(played.alarms) / days
    quantiles = np.quantile(played.score / limit, QUANTILES).tolist()
    return FileFigures(
        played=played,
        figures=figures(played, limit),
        alarms=metrics.event_figures(label, alarm_on(played), time_s) if label is not None else {},
        rates=rates,
        ratios=dict(zip(QUANTILES, quantiles, strict=True)),
        baselines=baselines(played, seed),
        best_f1=None if label is None or played.row_score is None else metrics.best_f1(label, played.row_score),
        normal_days=0.0 if label is None else played.running_s / DAY_S,
    )


def over_limit(played: Played, limit: float) -> Bools:
    """(m,) rows whose latest window is at the limit or above; of a labelled recording."""
    assert played.row_score is not None
    over: Bools = played.row_score >= limit
    return over


def _quiet(played: Played) -> Bools:
    """(K,) windows of normal running with no alarm on."""
    off: Bools = ~played.anomaly
    return off if played.window_label is None else off & ~played.window_label


def alarm_on(played: Played) -> Bools:
    """(m,) rows at which the alarm was on."""
    on = np.zeros(len(played.row_time_s), np.bool_)
    for start, stop in played.alarms:
        on |= (played.row_time_s >= start) & (played.row_time_s <= stop)
    return on


def _kinds(files: list[FileFigures], intervals: tuple[Interval, ...], limit: float) -> tuple[Kind, ...]:
    """Intervals that touch a row, by kind; empty where none has a name."""
    counts: dict[str, list[int]] = {}
    for interval in intervals:
        own = [f.played for f in files if f.played.row_score is not None and interval.file in ("", f.played.title)]
        inside = [(played, interval.rows(played.row_time_s)) for played in own]
        inside = [(played, rows) for played, rows in inside if rows.any()]
        if inside:
            count = counts.setdefault(interval.kind or "not named", [0, 0, 0])
            count[0] += 1
            count[1] += any((over_limit(played, limit) & rows).any() for played, rows in inside)
            count[2] += any((alarm_on(played) & rows).any() for played, rows in inside)
    named = any(interval.kind for interval in intervals)
    return tuple(Kind(kind, *count) for kind, count in counts.items()) if named else ()


def mean(figures: list[dict[str, float]]) -> dict[str, float]:
    """Each key's mean over those that have it.

    >>> mean([{"f1": 1.0, "far": 0.5}, {"f1": 0.5}, {}])
    {'f1': 0.75, 'far': 0.5}
    """
    keys = dict.fromkeys(key for each in figures for key in each)
    return {key: float(np.mean([each[key] for each in figures if key in each])) for key in keys}


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """All figures as plain values; what is not defined is not there, and what is not finite is not either.

    Keys: bundle, threshold, files [{file, rows, windows, labelled_rows, figures, alarms, rates, ratio_quantiles,
    baselines, oracle}], mean, worst {figure: {value, file}}, pooled, baselines, oracle {best_f1}, kinds [{kind,
    intervals, found, alarmed}], false_alarms {episodes, hours, low_per_hour, high_per_hour, promise, broken}, warnings.
    """
    manifest = evaluation.bundle.manifest
    return {
        "bundle": f"{manifest.name}-{manifest.version}",
        "threshold": evaluation.limit,
        "labelled": bool(evaluation.labelled),
        "files": [
            {
                "file": file.played.title,
                "rows": len(file.played),
                "windows": len(file.played.score),
                "labelled_rows": None if file.played.row_label is None else int(file.played.row_label.sum()),
                "figures": file.figures,
                "alarms": file.alarms,
                "rates": file.rates,
                "ratio_quantiles": {f"{q:g}": value for q, value in file.ratios.items()},
                "baselines": file.baselines,
                "oracle": {} if file.best_f1 is None else {"best_f1": file.best_f1},
            }
            for file in evaluation.files
        ],
        "mean": evaluation.mean(),
        "worst": {key: {"value": value, "file": file} for key, (value, file) in evaluation.worst().items()},
        "pooled": evaluation.pooled(),
        "baselines": evaluation.baselines(),
        "oracle": {} if evaluation.best_f1 is None else {"best_f1": evaluation.best_f1},
        "kinds": [vars(kind) for kind in evaluation.kinds],
        "false_alarms": _false_alarms(evaluation),
        "warnings": list(evaluation.warnings),
    }


def _false_alarms(evaluation: Evaluation) -> dict[str, Any]:
    """What was counted in normal running, and what is promised."""
    tally, promise = evaluation.tally(), evaluation.promise
    out: dict[str, Any] = {"episodes": tally.episodes, "hours": tally.hours}
    if tally.hours:
        out |= dict(zip(("low_per_hour", "high_per_hour"), tally.between(), strict=True))
    if promise is not None:
        out |= {"promise": promise.to_json(), "broken": promise.broken_by(tally.episodes, tally.hours)}
    return out
