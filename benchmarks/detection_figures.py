"""Labels and scores of every method → figures, and the tables of `detection.py`.

Rules: VUS-PR, average precision and ROC-AUC are means over models and seeds; F1, FAR, MAR and events are at the limit
that ships, pooled over test tables; nothing is adjusted to points. A suite is ranked by VUS-PR where rows are labelled,
by ROC-AUC where windows are.
"""

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from suites import Suite

from tocsin.core.promise import Promise, Tally, rate_text
from tocsin.records import Bools, Floats
from tocsin_trainer import metrics

ALLOWED = 0.02  # that the shipped choice may be below the best simple detector
RANKS = {"vus_pr": "VUS-PR", "average_precision": "AP", "roc_auc": "ROC"}
SHIPPED, FLOAT, ORACLE = "ships", "ships, as float", "best family by labels"
CONVERTED, EXACT = "{}, converted", "{}, float"


@dataclass(frozen=True)
class Series:
    """Labels and scores of one test table, a row or a window each.

    Attributes:
        label: (m,) true where anomalous.
        ratio: (m,) score over limit.
        period: rows, for VUS-PR; None where windows are labelled.
    """

    label: Bools
    ratio: Floats
    period: int | None


@dataclass(frozen=True)
class Found:
    """What one method made of one task.

    Attributes:
        task: its name.
        seed: of the training.
        method: as shown.
        ranks: `roc_auc`, `average_precision` and, by row, `vus_pr`.
        series: of each test table; empty where only the ranks are known.
        apart: the series keep the tables apart, so that events can be counted.
    """

    task: str
    seed: int
    method: str
    ranks: dict[str, float]
    series: tuple[Series, ...] = ()
    apart: bool = True


@dataclass
class Measured:
    """False alarms of what ships.

    Attributes:
        promise: of the limit; None where no rate was asked for.
        tally: counted in rows that no label touches.
    """

    promise: Promise | None
    tally: Tally = Tally()


@dataclass
class Outcome:
    """Of one training, or of the simple detectors on one task.

    Attributes:
        suite: its name.
        task: its name.
        seed: of the training.
        found: one a method.
        training: what was chosen and how it went; empty for simple detectors.
        measured: its false alarms; None for simple detectors.
        error: a traceback, or empty.
        seconds: in all.
    """

    suite: str
    task: str
    seed: int
    found: list[Found] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    measured: Measured | None = None
    error: str = ""
    seconds: float = 0.0


def headline(suite: Suite) -> str:
    """The figure that a suite is ranked by."""
    return "vus_pr" if suite.by_row else "roc_auc"


def rank(series: Iterable[Series]) -> dict[str, float]:
    """Figures that need no limit, over all tables of a task; empty where only one kind of label is there."""
    series = list(series)
    label, ratio = np.concatenate([s.label for s in series]), np.concatenate([s.ratio for s in series])
    period = series[0].period
    figures = metrics.rank_figures(label, ratio, 0 if period is None else period)
    if period is None:
        figures.pop("vus_pr", None)
    return figures


def figures(suite: Suite, found: list[Found]) -> dict[str, Any]:
    """One method on one suite: means of the ranks over tasks and seeds, the rest pooled."""
    row: dict[str, Any] = {"models": len(found)}
    key = headline(suite)
    for name in RANKS:
        if values := [f.ranks[name] for f in found if name in f.ranks]:
            row[name] = statistics.fmean(values)
    ranked = [f for f in found if key in f.ranks]
    seeds = {f.seed for f in ranked}
    if len(seeds) > 1:
        means = [statistics.fmean(f.ranks[key] for f in ranked if f.seed == seed) for seed in seeds]
        row["spread"] = max(means) - min(means)
    if len({f.task for f in ranked}) > 1:
        worst = min(ranked, key=lambda f: f.ranks[key])
        row |= {"worst": worst.ranks[key], "worst_task": worst.task}
    series = [s for f in found for s in f.series]
    if not series:
        return row
    label, over = np.concatenate([s.label for s in series]), np.concatenate([s.ratio >= 1 for s in series])
    row |= metrics.point_figures(label, over)
    if all(f.apart for f in found):  # a row that is nothing ends each table, and with it an event
        label = np.concatenate([np.append(s.label, False) for s in series])
        over = np.concatenate([np.append(s.ratio >= 1, False) for s in series])
        row |= metrics.event_figures(label, over, np.arange(len(label), dtype=np.float64))
    return row


def differences(found: list[Found], families: dict[tuple[str, int], str]) -> dict[str, float]:
    """|ΔROC| between the converted and the float model of one family a task and seed: mean and worst."""
    roc = {(f.task, f.seed, f.method): f.ranks["roc_auc"] for f in found if "roc_auc" in f.ranks}
    gaps = []
    for (task, seed), family in families.items():
        converted, exact = (roc.get((task, seed, form.format(family))) for form in (CONVERTED, EXACT))
        if converted is not None and exact is not None:
            gaps.append(abs(converted - exact))
    return {"roc_gap_mean": statistics.fmean(gaps), "roc_gap_worst": max(gaps)} if gaps else {}


def summed(suite: Suite, outcomes: list[Outcome], families: tuple[str, ...]) -> dict[str, Any]:
    """All of one suite, as in detection.json."""
    found = [f for outcome in outcomes for f in outcome.found]
    key = headline(suite)
    rows = {name: figures(suite, [f for f in found if f.method == name]) for name in {f.method for f in found}}
    trainings = [outcome for outcome in outcomes if outcome.training]
    chosen = {(o.task, o.seed): o.training["chosen"] for o in trainings}
    for name, used in ((SHIPPED, chosen), *((CONVERTED.format(f), dict.fromkeys(chosen, f)) for f in families)):
        if name in rows:
            rows[name] |= differences(found, used)
    ours = [SHIPPED, FLOAT, ORACLE, *(form.format(f) for f in families for form in (CONVERTED, EXACT))]
    of_ours = tuple(form.format("") for form in (CONVERTED, EXACT))  # ensembles among them
    ours = (*ours, *(name for name in rows if name not in ours and name.endswith(of_ours)))
    simple = sorted((name for name in rows if name not in ours), key=lambda name: -rows[name].get(key, 0.0))
    best = simple[0] if simple else None
    gap = rows[SHIPPED][key] - rows[best][key] if best and key in rows.get(SHIPPED, {}) else None
    return {
        "headline": key,
        "rows": {name: rows[name] for name in (*ours, *simple) if name in rows},
        "best_simple": best,
        "against_best": gap,
        "chosen": dict(Counter(chosen.values())),
        "precision": dict(Counter(o.training["candidates"][o.training["chosen"]]["precision"] for o in trainings)),
        "windows": dict(Counter(f"{o.training['window']}/{o.training['hop']}" for o in trainings)),
        "trainings": [
            {"task": o.task, "seed": o.seed, "seconds": o.seconds}
            | o.training
            | {"ranks": {f.method: f.ranks for f in o.found}}
            for o in trainings
        ],
        "promises": [_promised(o) for o in outcomes if o.measured is not None and o.measured.promise is not None],
        "errors": [{"task": o.task, "seed": o.seed, "error": o.error} for o in outcomes if o.error],
    }


def _promised(outcome: Outcome) -> dict[str, Any]:
    """Promised and measured false alarms of one training, all rates an hour."""
    measured = outcome.measured
    assert measured is not None and measured.promise is not None
    promise, tally = measured.promise, measured.tally
    low, high = tally.between()
    return {
        "task": outcome.task, "seed": outcome.seed, "asked": promise.asked, "refused": promise.refused,
        "low": promise.low, "high": promise.high, "recorded_hours": promise.hours, "episodes": tally.episodes,
        "hours": tally.hours, "measured_low": low, "measured_high": high if tally.hours else None,
        "broken": promise.broken_by(tally.episodes, tally.hours),
    }  # fmt: skip


def markdown(report: dict[str, dict[str, Any]]) -> str:
    """The tables of detection.md."""
    lines = _table("suite", "figure", "ships", "as float", "best family by labels", "best simple", "", "difference", "")
    for name, suite in report.items():
        rows, key, gap, best = suite["rows"], suite["headline"], suite["against_best"], suite["best_simple"]
        verdict = "–" if gap is None else f"{gap:+.3f}" + (" **below**" if gap < -ALLOWED else "")
        values = [_number(rows.get(method, {}).get(key)) for method in (SHIPPED, FLOAT, ORACLE, best)]
        failed = f"{len(suite['errors'])} failed" if suite["errors"] else ""
        lines.append(_line(name, RANKS[key], *values, str(best), verdict, failed))
    for name, suite in report.items():
        counted = {"ships": "chosen", "as": "precision", "window/hop": "windows"}
        said = "; ".join(f"{what} {_counts(suite[which])}" for what, which in counted.items() if suite[which])
        lines += ["", f"## {name}", "", said, ""]
        lines += _table(
            "method",
            *RANKS.values(),
            "seeds ±",
            "F1",
            "FAR",
            "MAR",
            "events",
            "false",
            "delay",
            "worst",
            "ΔROC to float",
        )
        lines += [_method(method, row) for method, row in suite["rows"].items()]
        lines += _promises(suite["promises"])
        for error in suite["errors"]:
            lines += ["", f"{error['task']}, seed {error['seed']}:", "", "```", error["error"].strip(), "```"]
    return "\n".join(lines) + "\n"


def _promises(promises: list[dict[str, Any]]) -> list[str]:
    """False alarms as promised and as counted, a line a training."""
    if not promises:
        return []
    lines = ["", *_table("false alarms", "asked", "promised", "counted", "in hours", "rate, nine times in ten", "kept")]
    for one in promises:
        between = f"{rate_text(one['low'])} to {rate_text(one['high'])}"
        kept = "no: broken" if one["broken"] else "–" if one["refused"] else "yes"
        counted = "–"
        if one["hours"]:
            counted = f"{rate_text(one['measured_low'])} to {rate_text(one['measured_high'])}"
        lines.append(
            _line(
                f"{one['task']}, seed {one['seed']}", rate_text(one["asked"]),
                f"refused; expect {between}" if one["refused"] else between,
                str(one["episodes"]), f"{one['hours']:.3g}", counted, kept,
            )
        )  # fmt: skip
    return lines


def _method(method: str, row: dict[str, Any]) -> str:
    cells = [_number(row.get(name)) for name in (*RANKS, "spread", "f1", "far", "mar")]
    cells.append(f"{row['found']}/{row['events']}" if "events" in row else "–")
    cells += [_number(row.get(name), "g") for name in ("false_events", "delay_rows")]
    cells.append(f"{row['worst']:.3f} {row['worst_task']}" if "worst" in row else "–")
    cells.append(f"{row['roc_gap_mean']:.3f}, worst {row['roc_gap_worst']:.3f}" if "roc_gap_mean" in row else "–")
    return _line(method, *cells)


def _table(*names: str) -> list[str]:
    return [_line(*names), _line(*("---" for _ in names))]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{name} ×{count}" for name, count in counted.items())


def _number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else f"{value:{form}}"
