"""An evaluation as text for the terminal."""

from collections.abc import Mapping

import numpy as np

from tocsin.core.promise import rate_text
from tocsin_trainer.evaluation import Evaluation, FileFigures
from tocsin_trainer.markup import duration
from tocsin_trainer.terminal import aligned

HEADS = ("", "VUS-PR", "AP", "ROC-AUC", "F1", "FAR", "MAR", "events", "false/day", "delay, s")
KEYS = ("vus_pr", "average_precision", "roc_auc", "f1", "far", "mar")
ORACLE = "a limit that only the labels could tell"


def shown(evaluation: Evaluation) -> str:
    """The figures as a table, and what it cannot say in words."""
    manifest = evaluation.bundle.manifest
    lines = [f"{manifest.name}-{manifest.version}, threshold {evaluation.limit:.4g}"]
    if not evaluation.labelled:
        lines.append("no labels: only rates can be told, not what was found or missed (see --labels)")
        return "\n".join([*lines, _rates(evaluation.files), *promise_words(evaluation)])
    lines += [_figures(evaluation), ""]
    if evaluation.best_f1 is not None:
        shipped = evaluation.mean().get("f1")
        lines.append(f"oracle: best F1 {evaluation.best_f1:.3f} at {ORACLE}; at the one that ships {shipped:.3f}")
    lines.append(alarm_words(evaluation))
    for kind in evaluation.kinds:
        lines.append(
            f"{kind.kind}: {kind.found} of {kind.intervals} over the threshold, {kind.alarmed} raised an alarm"
        )
    return "\n".join([*lines, *promise_words(evaluation)])


def promise_words(evaluation: Evaluation) -> list[str]:
    """The measured rate of false alarms beside the promised one; nothing where no rate was promised.

    Without labels nobody knows which of them are false.
    """
    promise = evaluation.promise
    if promise is None:
        return []
    refused = f"; {rate_text(promise.asked)} was asked for and could not be promised" if promise.refused else ""
    if evaluation.labelled:
        return [f"false alarms: {promise.measured(evaluation.tally())}{refused}"]
    counted = promise.measured(evaluation.tally(), "running")
    return [f"alarms: {counted}{refused} (false only if the machine was well)"]


def alarm_words(evaluation: Evaluation) -> str:
    """What the operator would have seen, in a sentence."""
    total = {key: sum(file.alarms[key] for file in evaluation.labelled) for key in ("events", "found", "false_events")}
    days = sum(file.normal_days for file in evaluation.labelled)
    delays = [event.alarm_after_s for event in evaluation.events() if event.alarm_after_s is not None]
    after = f", after {duration(float(np.median(delays)))} (median)" if delays else ""
    alarms = sum(len(file.played.alarms) for file in evaluation.labelled)
    rate = f" ({total['false_events'] / days:.3g} a day of normal running)" if days else ""
    return (
        f"alarms: {alarms} raised, {total['false_events']:.0f} of them touch no label{rate}; "
        f"on in {total['found']:.0f} of {total['events']:.0f} events{after}"
    )


def _figures(evaluation: Evaluation) -> str:
    several = len(evaluation.labelled) > 1
    rows = [_row(file.played.title, file.figures) for file in evaluation.labelled]
    if several:
        worst = {key: value for key, (value, _) in evaluation.worst().items()}
        rows += [_row("mean", evaluation.mean(), plain=True), _row("worst", worst), _row("pooled", evaluation.pooled())]
    rows += [_row(name, figures, plain=several) for name, figures in evaluation.baselines().items()]
    return aligned(HEADS, rows)


def _row(name: str, figures: Mapping[str, float], plain: bool = False) -> tuple[object, ...]:
    """`plain`: means of counts say nothing, the recall does."""
    if plain or "events" not in figures:
        events = f"{figures['event_recall']:.0%}" if "event_recall" in figures else "–"
    else:
        events = f"{figures['found']:.0f} of {figures['events']:.0f}"
    last = figures.get("false_events_per_day"), figures.get("delay_s")
    return (name, *(figures.get(key) for key in KEYS), events, *last)


def _rates(files: tuple[FileFigures, ...]) -> str:
    heads = ("", "hours", "windows", "over the threshold", "alarms", "alarms/day", "ratio 50 %", "99 %", "largest")
    rows = [
        (
            file.played.title, file.rates["days"] * 24, len(file.played.score), f"{file.rates['over']:.2%}",
            len(file.played.alarms), file.rates.get("alarms_per_day"), *(file.ratios[q] for q in (0.5, 0.99, 1.0)),
        )
        for file in files
    ]  # fmt: skip
    return aligned(heads, rows)
