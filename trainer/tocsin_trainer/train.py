"""One training run, from recordings to a bundle: `train` is the list of its steps.

```
load → window, split → each family: inputs(train) → fit → convert → gate
     → candidates, an ensemble among them → calibrate → evaluate(test) → choose → bundle → report
```
Rules: statistics come from train only, thresholds from calibration only, figures from test only; every score is the
converted model's, computed by the agent's own code.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tocsin.core.bundle import Bundle
from tocsin.core.interpreter import TfliteModel
from tocsin.core.preprocess import Preprocessor
from tocsin.core.scoring import Member, Scorer
from tocsin.core.threshold import Threshold, k_table
from tocsin.errors import DataError, GateError, TocsinError
from tocsin.records import Floats, Floats32, Scores
from tocsin_trainer import dataset as ds
from tocsin_trainer import inputs
from tocsin_trainer.convert import LADDER, Converted, Converter
from tocsin_trainer.evaluate import bare_scores, baselines, combined, figures, play
from tocsin_trainer.export import Grid, MemberModel, export, golden_vectors
from tocsin_trainer.fit import fit
from tocsin_trainer.gate import gate, roc_auc
from tocsin_trainer.inject import inject, widen
from tocsin_trainer.models import FAMILIES
from tocsin_trainer.options import TrainOptions
from tocsin_trainer.report import metrics_json, write_report
from tocsin_trainer.results import Candidate, Choice, Fitted, Gate, Played, TrainingResult
from tocsin_trainer.trackers import Tracker, Untracked

MAX_TRAIN_WINDOWS = 8_000
MAX_GATE_WINDOWS = 2_000
OVERLAP = 32  # training windows start at least this part of a window apart: nearer ones are the same again
VALIDATION = 0.15  # last part of the training windows: when to stop
WORTH_IT = 0.8  # of the float file's size, that a dynamic one has to stay below
LITTLE_DISTORTION = 0.1  # no more headroom is tried from here on
NETWORK_MARGIN = 0.1  # of separation, by which a network has to beat the best linear model
CLOSE = 0.005  # separations this near count as equal: the cheaper model ships


@dataclass(frozen=True)
class Trained:
    """What a run leaves behind."""

    result: TrainingResult
    bundle: Bundle
    report: Path
    metrics: Path


@dataclass(frozen=True)
class _Parts:
    """(N, T, C) windows that models are made and judged with, engineering units; of calibration some are enough."""

    fit: Floats
    validation: Floats
    calibration: Floats
    injected: Floats
    wide: Floats


@dataclass(frozen=True)
class _Fit:
    """One family, fitted: its model, what it is shown, and the windows it was fitted on."""

    model: Fitted
    preprocessor: Preprocessor
    shown: Floats32


@dataclass(frozen=True)
class _Built:
    """One family: fitted, and converted to the first rung that decides as the float model does."""

    fitted: Fitted
    preprocessor: Preprocessor
    exact: Converted
    rung: Converted
    gate: Gate
    typical: float  # score in normal running
    typical_exact: float

    def member(self, *, exact: bool = False, normalised: bool = False) -> Member:
        """The model as the agent runs it; `exact` for the float one."""
        form = self.exact if exact else self.rung
        typical = (self.typical_exact if exact else self.typical) if normalised else 1.0
        model = TfliteModel(form.content, form.batch_content)
        return Member(model, self.preprocessor, FAMILIES[self.fitted.family].kind, typical)


Progress = Callable[[str, int, int, str], None]
"""Called with stage, done, of how many, and a few words."""


def train(
    options: TrainOptions,
    progress: Progress = lambda *_: None,
    recordings: ds.Dataset | None = None,
    tracker: Tracker = Untracked(),  # noqa: B008 - holds nothing
) -> Trained:
    """Trains, converts, calibrates and judges the families, and ships one, or an ensemble of two.

    Args:
        options: what the user asked for.
        progress: told how far it is.
        recordings: `options.data`, where they are loaded already.
        tracker: keeps the course of each fit.

    Raises:
        DataError: the recordings are damaged or too short.
        GateError: no candidate passes.
    """
    begin = time.perf_counter()
    created = datetime.now(UTC)
    progress("load", 0, 1, "")
    loaded = recordings or ds.load(options.data, options.table, repair=options.repair)
    data = ds.without_labels(loaded)  # all of it is normal running
    length, hop, choices = ds.choose_window(data, options.window, options.hop)
    split = ds.split(data, length, hop)
    labelled = _load_test(options, data)
    grid, smoothed = _grid(data, length, hop)
    parts = _windows(split, grid, options)

    with Converter() as converter:  # it loads tensorflow while the families are fitted
        fitted: list[_Fit] = []
        skipped: list[str] = []
        for n, family in enumerate(options.families):
            progress("fit", n, len(options.families), family)
            try:
                fitted.append(_fit(family, parts, grid, options, progress, tracker))
            except DataError as error:  # t2 holds only so many numbers a window
                if len(options.families) == 1:
                    raise
                skipped.append(f"{family} is left out: {error}")
        built = []
        for n, each in enumerate(fitted):
            progress("convert", n, len(fitted), each.model.family)
            built.append(_convert(each, converter, parts, grid, options))
    progress("judge", 0, 1, "")
    groups = [(each,) for each in built] + _ensembles(built, parts)
    judge = _Judge(parts, grid, options, split, labelled)
    candidates = [judge.candidate(group) for group in groups]
    chosen, why = _choose(tuple(candidates), whatever=options.precision == "int8")
    members = groups[candidates.index(chosen)]

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
        choices=(*data.choices, *choices, smoothed, Choice("model", chosen.family, why)),
        warnings=(*data.warnings, *skipped),
        candidates=tuple(replace(candidate, chosen=candidate is chosen) for candidate in candidates),
        k_table=tuple(k_table(chosen.converted_scores)),
        baselines=baselines(chosen.played[-1], options.seed) if labelled else {},
        seconds=time.perf_counter() - begin,
    )
    progress("export", 0, 1, "")
    options.out.mkdir(parents=True, exist_ok=True)
    golden = golden_vectors(_scorer(members, grid, chosen.threshold), parts.fit[:MAX_GATE_WINDOWS], parts.injected)
    models = tuple(
        MemberModel(each.fitted.family, each.rung, each.member(normalised=len(members) > 1)) for each in members
    )
    bundle = export(options.out, result, grid, models, golden, options.rule, options.data)
    result = replace(result, extra={"next_command": f"tocsin replay --bundle {bundle.path} --input NEW.csv"})
    report, metrics = options.out / "report.html", options.out / "metrics.json"
    write_report(result, report)
    document = {**metrics_json(result), "bundle": bundle.path.name, "sha256": bundle.digest, "report": report.name}
    metrics.write_text(json.dumps(document, indent=1) + "\n")
    return Trained(result, bundle, report, metrics)


def _load_test(options: TrainOptions, data: ds.Dataset) -> ds.Dataset | None:
    if not options.test:
        return None
    return ds.load(options.test, options.table, data.channels, data.sample_rate_hz, repair=True)


def _grid(data: ds.Dataset, length: int, hop: int) -> tuple[Grid, Choice]:
    """How samples become scores; the smoothing is half a window where windows overlap and the signal is slow."""
    if inputs.is_vibration(data.sample_rate_hz) or hop >= length:
        span, why = 1, "windows of vibration, or in step with a cycle, each stand for themselves"
    else:
        span, why = max(1, length // 2 // hop), "half a window: slow processes wander, and so do their scores"
    grid = Grid(data.channels, data.sample_rate_hz, data.max_gap_s, length, hop, span)
    return grid, Choice("smoothing", f"{span} windows" if span > 1 else "none", why)


def _windows(split: ds.Split, grid: Grid, options: TrainOptions) -> _Parts:
    """Windows in engineering units. A hop of a window or more means that windows keep step with a cycle."""
    rows = sum(map(len, split.train))
    in_step = grid.hop >= grid.length
    stride = grid.hop if in_step else max(1, rows // MAX_TRAIN_WINDOWS, grid.length // OVERLAP)
    made = ds.windows(split.train, grid.length, stride)
    held_back = max(1, round(len(made) * VALIDATION))
    overlap = 0 if in_step else min(grid.length // stride, len(made) // 4)
    hop = _calibration_hop(grid)
    calibration = ds.some_windows(split.calibration, grid.length, hop, MAX_GATE_WINDOWS, options.seed)
    plain = inputs.fit_preprocessor((), made)
    normal = inputs.prepared(plain, calibration)
    injected = plain.inverse(inject(normal, options.seed)[0])
    wide = plain.inverse(widen(normal, options.seed))
    assert injected is not None and wide is not None  # standardising can be undone
    return _Parts(made[: max(1, len(made) - held_back - overlap)], made[-held_back:], calibration, injected, wide)


def _calibration_hop(grid: Grid) -> int:
    """Scores that stand for themselves may be taken more densely than the device takes them: more of them tell more."""
    dense = grid.smoothing == 1 and grid.hop < grid.length
    return min(grid.hop, max(1, grid.length // 16)) if dense else grid.hop


def _fit(family: str, parts: _Parts, grid: Grid, options: TrainOptions, progress: Progress, tracker: Tracker) -> _Fit:
    def report(epoch: int, epochs: int, loss: float, validation: float) -> None:
        progress("epoch", epoch, epochs, f"{family}: loss {loss:.4f}, held back {validation:.4f}")

    solved = not FAMILIES[family].epochs  # closed form: nothing is held back
    made = np.concatenate([parts.fit, parts.validation]) if solved else parts.fit
    steps = inputs.feature_steps(family, made, grid.sample_rate_hz, grid.hop >= grid.length)
    preprocessor = inputs.fit_preprocessor(steps, made)
    shown = inputs.prepared(preprocessor, made)
    held_back = inputs.prepared(preprocessor, parts.validation)
    how = options.fitting.without_time() if steps else options.fitting
    fitted = fit(family, shown, held_back, options.seed, options.epochs, report, how=how, tracker=tracker)
    return _Fit(fitted, preprocessor, shown)


def _convert(each: _Fit, converter: Converter, parts: _Parts, grid: Grid, options: TrainOptions) -> _Built:
    """Down the ladder to the int8 rung that keeps the decisions and distorts least; below int8 only where none does."""
    fitted, preprocessor = each.model, each.preprocessor
    converter.add(fitted, each.shown)
    exact = converter.convert(fitted, "float32")
    float_normal, float_injected, float_wide = _bare_scores(fitted, exact, preprocessor, parts, grid)
    limit_float = options.threshold.limit(float_normal).value
    passed: list[tuple[Converted, Gate, Floats]] = []
    refused: list[tuple[Converted, Gate, Floats]] = []
    crashed = ""
    for precision, headroom in LADDER:
        if precision != "int8" and (passed or (refused and options.precision == "int8")):
            break
        try:
            rung = converter.convert(fitted, precision, headroom)
        except TocsinError as error:  # the converter may crash on one rung and make the next
            crashed = str(error)
            continue
        if rung.precision == "dynamic" and len(rung.content) > WORTH_IT * len(exact.content):
            continue  # weights too small to be worth it, and older runtimes cannot run it
        normal, injected, wide = _bare_scores(fitted, rung, preprocessor, parts, grid)
        limit = options.threshold.limit(normal).value
        found = gate(float_normal, normal, float_injected, injected, limit_float, limit, float_wide, wide)
        if found.passed:
            passed.append((rung, found, normal))
            if found.distortion <= LITTLE_DISTORTION:
                break
        else:
            refused.append((rung, found, normal))
    if passed:
        rung, found, normal = min(passed, key=lambda each: each[1].distortion)
        if rung.precision != "int8":
            tried = [gated for form, gated, _ in refused if form.precision == "int8"]
            why = max(tried, key=lambda gated: gated.agreement).reason if tried else crashed
            found = replace(found, reason=f"int8 is not used: {why}")
    elif not refused:
        raise TocsinError(crashed)
    else:  # int8 was asked for, come what may
        rung, found, normal = max(refused, key=lambda each: each[1].agreement)
    rung = converter.with_batch(fitted, rung)
    return _Built(fitted, preprocessor, exact, rung, found, _typical(normal), _typical(float_normal))


def _typical(scores: Floats) -> float:
    return max(float(np.mean(scores)), float(np.finfo(np.float32).tiny))


def _bare_scores(
    fitted: Fitted, form: Converted, preprocessor: Preprocessor, parts: _Parts, grid: Grid
) -> tuple[Floats, Floats, Floats]:
    """Scores of normal, of injected and of wide windows, each for itself."""
    member = Member(TfliteModel(form.content), preprocessor, FAMILIES[fitted.family].kind)
    scorer = Scorer((member,), np.ones(len(grid.channels)), Threshold(1.0))
    return tuple(scorer.score(windows).value for windows in (parts.calibration, parts.injected, parts.wide))  # type: ignore[return-value]


def _ensembles(built: list[_Built], parts: _Parts) -> list[tuple[_Built, ...]]:
    """The best linear model together with the best network, where there are both."""
    linear = [each for each in built if not FAMILIES[each.fitted.family].epochs and each.gate.passed]
    networks = [each for each in built if FAMILIES[each.fitted.family].epochs and each.gate.passed]
    if not (linear and networks):
        return []
    return [tuple(max(group, key=lambda each: each.gate.auc_converted) for group in (linear, networks))]


def _scorer(members: tuple[_Built, ...], grid: Grid, threshold: Threshold, *, exact: bool = False) -> Scorer:
    made = tuple(each.member(exact=exact, normalised=len(members) > 1) for each in members)
    return Scorer(made, np.ones(len(grid.channels)), threshold)


class _Judge:
    """Scores every part of the recordings once a model, float and converted, and puts candidates together from them."""

    def __init__(
        self, parts: _Parts, grid: Grid, options: TrainOptions, split: ds.Split, labelled: ds.Dataset | None
    ) -> None:
        self._parts, self._grid, self._options = parts, grid, options
        self._dense = replace(grid, hop=_calibration_hop(grid))
        self._shown = {"calibration": split.calibration, "test": split.test}
        if labelled is not None:
            self._shown["labelled test"] = labelled.stretches
        self._known: dict[tuple[str, bool, str, int], tuple[Scores, ...]] = {}

    def candidate(self, members: tuple[_Built, ...]) -> Candidate:
        """Limit, gate and figures of one model, or of some together."""
        normal, limit = self._calibrated(members)
        float_normal, limit_float = self._calibrated(members, exact=True)
        scorer, exact = _scorer(members, self._grid, limit), _scorer(members, self._grid, limit_float, exact=True)
        parts, rule = self._parts, self._options.threshold
        bare, injected = scorer.score(parts.calibration).value, scorer.score(parts.injected).value
        found = members[0].gate
        if len(members) > 1:
            bare_exact, injected_exact = exact.score(parts.calibration).value, exact.score(parts.injected).value
            limits = rule.limit(bare_exact).value, rule.limit(bare).value
            found = gate(bare_exact, bare, injected_exact, injected, *limits)
        played = tuple(self._play(title, members, limit) for title in self._shown)
        last = list(self._shown)[-1]
        return Candidate(
            family="+".join(each.fitted.family for each in members),
            precision="+".join(sorted({each.rung.precision for each in members})),
            headroom=max(each.rung.headroom for each in members),
            bytes=sum(len(each.rung.content) for each in members),
            float_bytes=sum(len(each.exact.content) for each in members),
            latency_us=_latency_us(scorer, parts.calibration[:1]),
            parameters=sum(int(each.fitted.model.count_params()) for each in members),
            train_loss=members[-1].fitted.train_loss,
            validation_loss=members[-1].fitted.validation_loss,
            gate=found,
            threshold=limit,
            threshold_float=limit_float,
            separation=roc_auc(bare, injected),
            figures=figures(played[-1], limit.value),
            figures_float=figures(self._play(last, members, limit_float, exact=True), limit_float.value),
            played=played,
            float_scores=float_normal,
            converted_scores=normal,
            seconds=sum(each.fitted.seconds for each in members),
        )

    def _calibrated(self, members: tuple[_Built, ...], *, exact: bool = False) -> tuple[Floats, Threshold]:
        """Smoothed scores of the calibration part, and the limit that they give."""
        bare = self._bare("calibration", members, self._dense, exact=exact)
        rough = self._options.threshold.limit(np.concatenate([scores.value for scores in bare]))
        scores = play("", bare, self._shown["calibration"], self._dense, self._options.rule, rough).score
        return scores, self._options.threshold.limit(scores)

    def _play(self, title: str, members: tuple[_Built, ...], limit: Threshold, *, exact: bool = False) -> Played:
        bare = self._bare(title, members, self._grid, exact=exact)
        return play(title, bare, self._shown[title], self._grid, self._options.rule, limit)

    def _bare(self, title: str, members: tuple[_Built, ...], grid: Grid, *, exact: bool) -> tuple[Scores, ...]:
        found = []
        for each in members:
            key = (each.fitted.family, exact, title, grid.hop)
            if key not in self._known:
                scorer = _scorer((each,), grid, Threshold(1.0), exact=exact)
                self._known[key] = bare_scores(scorer, self._shown[title], grid)
            found.append(self._known[key])
        if len(found) == 1:
            return found[0]
        return combined(tuple(found), tuple(each.typical_exact if exact else each.typical for each in members))


def _latency_us(scorer: Scorer, window: Floats) -> float:
    """Median time of one window from engineering units to score, on this machine."""
    times = []
    for _ in range(101):
        begin = time.perf_counter_ns()
        scorer.score(window)
        times.append((time.perf_counter_ns() - begin) / 1e3)
    return statistics.median(times)


def _choose(candidates: tuple[Candidate, ...], *, whatever: bool) -> tuple[Candidate, str]:
    """The one that tells injected anomalies from normal windows best; among equals the fastest on the device.

    What holds a network must win clearly over what is linear: injected anomalies flatter networks, and where machines
    wander, the linear ones wander least.
    """
    passed = [candidate for candidate in candidates if candidate.gate.passed]
    if not passed and whatever:
        passed = list(candidates)
    if not passed:
        reasons = "; ".join(f"{c.family}: {c.gate.reason}" for c in candidates)
        raise GateError(f"no candidate decides alike before and after conversion: {reasons}")
    if len(candidates) == 1:
        return passed[0], "the only family asked for"
    linear = [c for c in passed if not any(FAMILIES[family].epochs for family in c.family.split("+"))]
    best = max(passed, key=lambda candidate: candidate.separation)
    if linear:
        chosen = max(linear, key=lambda candidate: candidate.separation)
        if best.separation < chosen.separation + NETWORK_MARGIN:
            why = f"the linear one that tells injected anomalies from normal windows best ({chosen.separation:.4f})"
            if best is not chosen:
                why += (
                    f"; {best.family} ({best.separation:.4f}) is not {NETWORK_MARGIN:g} better, as a network has to be"
                )
            return chosen, why
    close = [candidate for candidate in passed if candidate.separation >= best.separation - CLOSE]
    chosen = min(close, key=lambda candidate: candidate.latency_us)
    why = f"it tells injected anomalies from normal windows with ROC-AUC {chosen.separation:.4f}"
    if chosen is not best:
        why += f", within {CLOSE} of the best ({best.separation:.4f}), and is the fastest of those"
    return chosen, why
