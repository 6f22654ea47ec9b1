"""One training run, from recordings to a bundle: `train` is the list of its steps.

```
load → window, split → each family: inputs → fit → convert → gate (short recordings: cross-fitted)
     → candidates, ensembles among them → calibrate → evaluate(test) → choose → bundle → report
```
Rules: statistics come from train only, but for closed forms of short recordings, which are fitted on all rows;
thresholds come from rows that the model was not fitted on, figures against labels from nothing but labelled recordings;
every score is the converted model's, computed by the agent's own code.
"""

import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tocsin.core.bundle import Bundle
from tocsin.core.promise import estimate_text, rate_text
from tocsin.core.scoring import Scorer
from tocsin.core.threshold import Threshold, k_table
from tocsin.errors import DataError
from tocsin_trainer import dataset as ds
from tocsin_trainer import inputs, rate_groups
from tocsin_trainer.build import MAX_GATE_WINDOWS, Built, Parts, Run, converted, fitted, parts
from tocsin_trainer.comparison import NOT_ASKED, compared
from tocsin_trainer.convert import Converter
from tocsin_trainer.crossfit import SHORT, crossfit, is_short
from tocsin_trainer.device_budget import DeviceBudget
from tocsin_trainer.evaluate import baselines
from tocsin_trainer.export import Grid, MemberModel, export, golden_vectors
from tocsin_trainer.judge import Judge, Normal
from tocsin_trainer.models import FAMILIES
from tocsin_trainer.modes import find_modes, modes_of_channel, window_figures
from tocsin_trainer.options import FAMILIES as DEFAULT
from tocsin_trainer.options import TrainOptions
from tocsin_trainer.quality import quality
from tocsin_trainer.ranking import choose, cost, networks
from tocsin_trainer.report import metrics_json, write_report
from tocsin_trainer.results import Candidate, Choice, Progress, TrainingResult
from tocsin_trainer.steps import channel_weights
from tocsin_trainer.trackers import Tracker, Untracked
from tocsin_trainer.twins import twins_agree

USUAL = {"weighted": "a geometric mean: who wanders little in normal running has more to say when it moves"}
STEADY_WINDOWS = 8  # of vibration, over which scores are smoothed


@dataclass(frozen=True)
class Trained:
    """What a run leaves behind."""

    result: TrainingResult
    bundle: Bundle
    report: Path
    metrics: Path


def train(
    options: TrainOptions,
    progress: Progress = lambda *_: None,
    recordings: ds.Dataset | None = None,
    tracker: Tracker = Untracked(),  # noqa: B008 - holds nothing
) -> Trained:
    """Trains, converts, calibrates and judges the families, and ships one, or some together.

    Args:
        options: what the user asked for.
        progress: told how far it is.
        recordings: `options.data`, where they are loaded already.
        tracker: follows the losses.

    Raises:
        DataError: the recordings are damaged or too short.
        GateError: no candidate passes.
    """
    begin = time.perf_counter()
    created = datetime.now(UTC)
    progress("load", 0, 1, "")
    loaded = recordings or rate_groups.load(options)
    data = ds.without_labels(loaded)  # all of it is normal running
    length, hop, choices = ds.choose_window(data, options.window, options.hop)
    split = ds.split(data, length, hop)
    labelled = rate_groups.load_test(options, data)
    grid, smoothed = _grid(data, length, hop, options)
    seen = parts(split, grid, options.seed)
    shown, cleaned = inputs.choose(seen.all_normal, data.sample_rate_hz, hop, data.channels, options.inputs)
    grid, told = _modes(data, split, grid, options)
    run = Run(grid, shown, options, progress, tracker)
    candidates, shipped, made, left_out = _candidates(data, split, labelled, seen, run)
    result = TrainingResult(
        asset=options.asset,
        version=options.version or created.strftime("%Y%m%d-%H%M%S"),
        created=created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        seed=options.seed,
        channels=data.channels,
        sample_rate_hz=data.sample_rate_hz,
        length=length,
        hop=hop,
        rows=split.rows(),
        choices=(*data.choices, *choices, *cleaned, told, smoothed, *made),
        warnings=(*data.warnings, *_left_out(left_out, options, run.inputs.kind)),
        candidates=candidates,
        k_table=tuple(k_table(shipped.candidate.converted_scores)),
        baselines=baselines(shipped.candidate.played[-1], options.seed) if labelled else {},
        quality=quality(loaded),
        left_out=left_out,
        seconds=time.perf_counter() - begin,
        extra=_promised(shipped.candidate.threshold) | {"command": options.command},
    )
    progress("export", 0, 1, "")
    options.out.mkdir(parents=True, exist_ok=True)
    golden = golden_vectors(shipped.scorer, seen.fit[:MAX_GATE_WINDOWS], seen.injected)
    join, no_join = rate_groups.golden_join(data)
    golden = replace(golden, join=join)
    result = replace(result, choices=(*result.choices, *no_join))
    models = tuple(
        MemberModel(each.family, each.rung, member)
        for each, member in zip(shipped.members, shipped.scorer.members, strict=True)
    )
    how = shipped.scorer.combination
    bundle = export(options.out, result, grid, models, golden, options.rule, options.files, how)
    others = "".join(f" --group {name}=NEW_{name}.csv" for name in options.groups)
    next_command = f"tocsin replay --bundle {bundle.path} --input NEW.csv{others}"
    result = replace(result, extra=result.extra | {"next_command": next_command})
    report, metrics = options.out / "report.html", options.out / "metrics.json"
    write_report(result, report)
    document = {**metrics_json(result), "bundle": bundle.path.name, "sha256": bundle.digest, "report": report.name}
    metrics.write_text(json.dumps(document, indent=1) + "\n")
    return Trained(result, bundle, report, metrics)


def _promised(threshold: Threshold) -> dict[str, Any]:
    """The promise of false alarms, for card and report."""
    made = threshold.promise
    if made is None:
        return {}
    return {
        "promise": {
            "sentence": made.sentence(),
            "asked": rate_text(made.asked),
            "promised": None if made.refused else rate_text(made.asked),
            "interval": estimate_text(made.low, made.high),
            "needed_hours": made.needed_hours,
        }
    }


def _left_out(left_out: tuple[tuple[str, str], ...], options: TrainOptions, kind: str) -> list[str]:
    """A warning for each family that was asked for by name, or that nothing foresaw of such a signal."""
    foreseen = inputs.UNSUITED.get(kind, ()) if options.families == DEFAULT else ()
    return [f"{family} is left out: {why}" for family, why in left_out if family not in foreseen]


@dataclass(frozen=True)
class _Shipped:
    """What goes into the bundle."""

    members: tuple[Built, ...]
    candidate: Candidate
    scorer: Scorer


def _candidates(
    data: ds.Dataset,
    split: ds.Split,
    labelled: ds.Dataset | None,
    seen: Parts,
    run: Run,
) -> tuple[tuple[Candidate, ...], _Shipped, tuple[Choice, ...], tuple[tuple[str, str], ...]]:
    """All candidates, the one that ships, how it was chosen and made, and what was left out, and why."""
    judge = Judge(seen, run.grid, run.options, split, labelled)
    with Converter() as converter:  # it loads tensorflow while the families are fitted
        built, normal, left_out = _build(data, seen, converter, run)
        run.progress("judge", 0, 1, "")
        groups = _groups(built, normal, run)
        judged = [judge.candidate(group, _together(group, normal), combine) for group, combine in groups]
        budget = DeviceBudget(run.options.max_kib, run.options.max_ms)
        candidates = [replace(candidate, why_not=budget.over(cost(candidate))) for candidate, _ in judged]
        for k, (group, _) in enumerate(groups):
            if not {each.family for each in group} <= set(run.options.families):
                candidates[k] = replace(candidates[k], beside=True, why_not=NOT_ASKED)
        place, why = _chosen(candidates, built, data, seen, converter, run)
    candidates[place] = replace(candidates[place], chosen=True)
    against = compared(tuple(candidates))
    made = [Choice("model", candidates[place].title, why if against is None else f"{why}; {against.sentence()}")]
    members = groups[place][0]
    if len(members) > 1:
        how = candidates[place].combination
        made.append(Choice("combined by", how, "asked for" if _asked(run) else USUAL.get(how, "worth clearly more")))
    if any(each.family in normal for each in members):
        why = (
            "a short recording: what ships is fitted on all rows; its limit comes from models of the same kind, each "
            "fitted without the block of time that it scores"
        )
        made.append(Choice("fitted on", "all rows", why))
    return tuple(candidates), _Shipped(members, candidates[place], judged[place][1]), tuple(made), left_out


def _build(
    data: ds.Dataset, seen: Parts, converter: Converter, run: Run
) -> tuple[tuple[Built, ...], dict[str, Normal], tuple[tuple[str, str], ...]]:
    """Every family, fitted and then converted; normal running scored by those cross-fitted; what is left out, and why.

    Closed forms of a short recording are cross-fitted; all else is fitted on the training part.
    """
    short, options = is_short(data, run.grid), run.options
    models, normal, left_out = [], {}, []
    built: dict[str, Built] = {}
    families = (*options.families, *_beside(run))
    for n, family in enumerate(families):
        run.progress("fit", n, len(families), family)
        closed = not FAMILIES[family].epochs
        try:
            if closed and short and family in options.families:
                built[family], normal[family] = crossfit(family, data, seen, converter, run)
            else:
                windows = seen.all_normal if closed else seen.fit
                models.append(fitted(family, windows, seen.validation, run))
        except DataError as error:  # t2 holds only so many numbers a window
            if options.families == (family,):
                raise
            if family in options.families:
                left_out.append((family, str(error)))
    for n, (model, preprocessor, shown) in enumerate(models):
        run.progress("convert", n, len(models), model.family)
        built[model.family] = converted(model, preprocessor, shown, converter, seen, run)
    return tuple(built[family] for family in families if family in built), normal, tuple(left_out)


def _beside(run: Run) -> tuple[str, ...]:
    """The linear panel, where only networks were asked for: to compare them with, on the same rows."""
    if any(not FAMILIES[family].epochs for family in run.options.families):
        return ()
    return inputs.panel(run.inputs.kind, len(run.grid.channels))


def _groups(built: tuple[Built, ...], normal: dict[str, Normal], run: Run) -> list[tuple[tuple[Built, ...], str]]:
    """Each family alone, the panel of linear ones, and where rows were held back the panel with the best network.

    With how members are combined; unless it was asked for, the panel stands for choice by each way that needs no label.
    """
    known, beside = inputs.panel(run.inputs.kind, len(run.grid.channels)), _beside(run)
    passed = [each for each in built if each.gate.passed]
    panel = tuple(each for each in passed if each.family in known)
    networks = [each for each in passed if not each.closed_form]
    ways = (run.options.combine,) if _asked(run) else ("weighted", "mean", "max")
    groups: list[tuple[tuple[Built, ...], str]] = [((each,), ways[0]) for each in built if each.family not in beside]
    if len(panel) > 1 or (panel and beside):
        groups += [(panel, way) for way in (ways if len(panel) > 1 and not beside else ways[:1])]
    if panel and networks and not normal and not beside:
        groups.append(((*panel, max(networks, key=lambda each: each.gate.auc_converted)), ways[0]))
    return groups


def _asked(run: Run) -> bool:
    """Whether the user said how members are combined."""
    return run.options.combine != "auto"


def _chosen(
    candidates: list[Candidate],
    built: tuple[Built, ...],
    data: ds.Dataset,
    seen: Parts,
    converter: Converter,
    run: Run,
) -> tuple[int, str]:
    """Place of the one that ships, and why; where that is a network, another seed has to agree: it is measured here."""
    panel = inputs.panel(run.inputs.kind, len(run.grid.channels))
    budget = DeviceBudget(run.options.max_kib, run.options.max_ms)
    windows, int8 = len(data) / run.grid.length, run.options.precision == "int8"
    known: dict[str, float] = {}
    while True:
        place, why = choose(candidates, panel, windows, budget, int8=int8)
        unknown = [family for family in networks(candidates[place]) if family not in known]
        if not unknown or sum(not candidate.beside for candidate in candidates) == 1:
            return place, why
        known |= {each.family: twins_agree(each, seen, converter, run) for each in built if each.family in unknown}
        for k, candidate in enumerate(candidates):
            found = [known.get(family) for family in networks(candidate)]
            if found and None not in found:
                candidates[k] = replace(candidate, agreement=min(value for value in found if value is not None))


def _together(members: tuple[Built, ...], normal: dict[str, Normal]) -> Normal | None:
    found = [normal[each.family] for each in members if each.family in normal]
    return found[0].beside(tuple(found[1:])) if found else None


def _grid(data: ds.Dataset, length: int, hop: int, options: TrainOptions) -> tuple[Grid, Choice]:
    """How samples become scores, and how these are smoothed."""
    kind = inputs.signal(data.sample_rate_hz, length, hop)
    if kind == "cycle":
        span, why = 1, "each cycle stands for itself"
    elif kind == "vibration":
        span, why = STEADY_WINDOWS, "a single window of vibration is a noisy thing; a fault stays"
    else:
        span, why = max(1, length // 4 // hop), "a quarter of a window: slow processes wander, and so do their scores"
    weights = tuple(channel_weights(options.channel_weights, data.channels, data.groups).tolist())
    if span == 1 and kind == "slow":
        why = "a quarter of a window is no more than a hop"
    rate_hz = data.sample_rate_hz
    gap_s = min(data.max_gap_s, max(1, length // 4) / rate_hz)  # what is made up must not decide on a window
    grid = Grid(data.channels, rate_hz, gap_s, length, hop, span, weights=weights, groups=data.groups)
    return grid, Choice("smoothing", f"{span} windows" if span > 1 else "none", why)


def _modes(data: ds.Dataset, split: ds.Split, grid: Grid, options: TrainOptions) -> tuple[Grid, Choice]:
    """The grid with what tells operating modes apart, where the machine has several."""
    if options.mode_column is None and is_short(data, grid):
        why = f"less than {SHORT} windows of normal running, end to end, are too few to tell modes apart"
        return grid, Choice("modes", "one", why)
    figures = window_figures(split.train, grid.length, grid.hop)
    if options.mode_column is not None:
        modes, choice = modes_of_channel(options.mode_column, grid.channels, figures)
        return replace(grid, modes=modes), choice
    found, choice = find_modes(figures, grid.length / grid.hop, options.seed)
    return replace(grid, modes=found), choice
