"""One training run, from recordings to a bundle: `train` is the list of its steps.

```
load → window, split → preprocessor(train) → fit → convert → calibrate → evaluate(test) → bundle → report
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
from tocsin.errors import GateError
from tocsin.records import Floats, Floats32
from tocsin_trainer import dataset as ds
from tocsin_trainer.convert import Converted, Converter
from tocsin_trainer.evaluate import baselines, figures, play
from tocsin_trainer.export import Grid, ModelFiles, export, golden_vectors
from tocsin_trainer.fit import fit
from tocsin_trainer.gate import gate, roc_auc
from tocsin_trainer.inject import inject
from tocsin_trainer.options import TrainOptions
from tocsin_trainer.report import metrics_json, write_report
from tocsin_trainer.results import Candidate, Choice, Fitted, Played, TrainingResult
from tocsin_trainer.scale import fit_preprocessor

MAX_TRAIN_WINDOWS = 8_000
MAX_GATE_WINDOWS = 2_000
VALIDATION = 0.15  # last part of the training windows: when to stop
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
    """The windows that models are made and judged with, all through the preprocessor."""

    fit: Floats32
    validation: Floats32
    calibration: Floats32
    injected: Floats32


Progress = Callable[[str, int, int, str], None]
"""Called with stage, done, of how many, and a few words."""


def train(options: TrainOptions, progress: Progress = lambda *_: None) -> Trained:
    """Trains, converts, calibrates and judges the families, and ships one.

    Raises:
        DataError: the recordings are damaged or too short.
        GateError: no candidate passes.
    """
    begin = time.perf_counter()
    created = datetime.now(UTC)
    progress("load", 0, 1, "")
    data = ds.without_labels(ds.load(options.data, options.table, repair=options.repair))  # all of it is normal running
    length, hop, choices = ds.choose_window(data, options.window, options.hop)
    split = ds.split(data, length, hop)
    labelled = _load_test(options, data)
    grid = Grid(data.channels, data.sample_rate_hz, data.max_gap_s, length, hop)
    preprocessor = fit_preprocessor(split.train)
    parts = _windows(split, preprocessor, grid, options)

    candidates, files = [], {}
    with Converter() as converter:
        for n, family in enumerate(options.families):
            progress("fit", n, len(options.families), family)
            fitted = _fit(family, parts, options, progress)
            converter.add(fitted, parts.fit)
            progress("convert", n, len(options.families), family)
            rung, candidate = _candidate(fitted, converter, preprocessor, parts, grid, options, split, labelled)
            candidates.append(candidate)
            files[family] = rung
    chosen, why = _choose(tuple(candidates))
    marked = tuple(replace(candidate, chosen=candidate is chosen) for candidate in candidates)

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
        choices=(*data.choices, *choices, Choice("model", chosen.family, why)),
        warnings=data.warnings,
        candidates=marked,
        k_table=tuple(k_table(chosen.converted_scores)),
        baselines=baselines(chosen.played[-1], options.seed) if labelled else {},
        seconds=time.perf_counter() - begin,
    )
    progress("export", 0, 1, "")
    options.out.mkdir(parents=True, exist_ok=True)
    model = files[chosen.family]
    scorer = _scorer(model, preprocessor, grid, chosen.threshold)
    golden = golden_vectors(
        scorer, preprocessor.inverse(parts.fit[:MAX_GATE_WINDOWS]), preprocessor.inverse(parts.injected)
    )
    bundle = export(
        options.out,
        result,
        grid,
        preprocessor,
        ModelFiles(model.content, model.batch_content),
        golden,
        options.rule,
        options.data,
    )
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


def _windows(split: ds.Split, preprocessor: Preprocessor, grid: Grid, options: TrainOptions) -> _Parts:
    """Windows as the models see them. A hop of a window or more means that windows keep step with a cycle."""
    rows = sum(map(len, split.train))
    in_step = grid.hop >= grid.length
    stride = grid.hop if in_step else max(1, rows // MAX_TRAIN_WINDOWS)
    raw = ds.windows(split.train, grid.length, stride)
    held_back = max(1, round(len(raw) * VALIDATION))
    prepared = preprocessor.transform(raw)
    calibration = preprocessor.transform(ds.windows(split.calibration, grid.length, grid.hop))
    some = np.random.default_rng(options.seed).permutation(len(calibration))[:MAX_GATE_WINDOWS]
    injected, _ = inject(calibration[np.sort(some)], options.seed)
    overlap = 0 if in_step else min(grid.length // stride, len(raw) // 4)
    return _Parts(prepared[: max(1, len(raw) - held_back - overlap)], prepared[-held_back:], calibration, injected)


def _fit(family: str, parts: _Parts, options: TrainOptions, progress: Progress) -> Fitted:
    def report(epoch: int, epochs: int, loss: float, validation: float) -> None:
        progress("epoch", epoch, epochs, f"{family}: loss {loss:.4f}, held back {validation:.4f}")

    extra = {} if options.epochs is None else {"epochs": options.epochs}
    return fit(family, parts.fit, parts.validation, options.seed, progress=report, **extra)


def _scorer(rung: Converted, preprocessor: Preprocessor, grid: Grid, threshold: Threshold) -> Scorer:
    model = TfliteModel(rung.content, rung.batch_content)
    return Scorer(preprocessor, (Member(model),), np.ones(len(grid.channels)), threshold)


def _candidate(
    fitted: Fitted,
    converter: Converter,
    preprocessor: Preprocessor,
    parts: _Parts,
    grid: Grid,
    options: TrainOptions,
    split: ds.Split,
    labelled: ds.Dataset | None,
) -> tuple[Converted, Candidate]:
    """The first rung of the ladder that decides as the float model does, with its threshold and figures."""
    exact = converter.convert(fitted, "float32")
    float_normal, float_injected = _gate_scores(exact, preprocessor, parts, grid)
    limit_float = options.threshold.limit(float_normal)
    for rung in converter.ladder(fitted):
        normal, injected = _gate_scores(rung, preprocessor, parts, grid)
        limit = options.threshold.limit(normal)
        found = gate(float_normal, normal, float_injected, injected, limit_float.value, limit.value)
        if found.passed:
            break
    rung = converter.with_batch(fitted, rung)
    scorer = _scorer(rung, preprocessor, grid, limit)
    scorer_float = _scorer(exact, preprocessor, grid, limit_float)
    played = _play(scorer, grid, options, split, labelled)
    played_float = _play(scorer_float, grid, options, split, labelled)[-1]
    return rung, Candidate(
        family=fitted.family,
        precision=rung.precision,
        headroom=rung.headroom,
        bytes=len(rung.content),
        float_bytes=len(exact.content),
        latency_us=_latency_us(rung, parts.calibration[:1]),
        parameters=int(fitted.model.count_params()),
        train_loss=fitted.train_loss,
        validation_loss=fitted.validation_loss,
        gate=found,
        threshold=limit,
        threshold_float=limit_float,
        separation=roc_auc(normal, injected),
        figures=figures(played[-1], limit.value),
        figures_float=figures(played_float, limit_float.value),
        played=played,
        float_scores=float_normal,
        converted_scores=normal,
        seconds=fitted.seconds,
    )


def _gate_scores(rung: Converted, preprocessor: Preprocessor, parts: _Parts, grid: Grid) -> tuple[Floats, Floats]:
    scorer = _scorer(rung, preprocessor, grid, Threshold(1.0))
    return scorer.score_prepared(parts.calibration).value, scorer.score_prepared(parts.injected).value


def _play(
    scorer: Scorer, grid: Grid, options: TrainOptions, split: ds.Split, labelled: ds.Dataset | None
) -> tuple[Played, ...]:
    named = [("calibration", split.calibration), ("test: normal running", split.test)]
    if labelled is not None:
        named.append(("test: labelled", labelled.stretches))
    return tuple(play(title, scorer, part, grid.length, grid.hop, options.rule) for title, part in named)


def _latency_us(rung: Converted, window: Floats32) -> float:
    """Median time of one window through the model alone, on this machine."""
    model = TfliteModel(rung.content)
    times = []
    for _ in range(101):
        begin = time.perf_counter_ns()
        model.predict(window)
        times.append((time.perf_counter_ns() - begin) / 1e3)
    return statistics.median(times)


def _choose(candidates: tuple[Candidate, ...]) -> tuple[Candidate, str]:
    """The one that tells injected anomalies from normal windows best; among equals the fastest on the device."""
    passed = [candidate for candidate in candidates if candidate.gate.passed]
    if not passed:
        reasons = "; ".join(f"{c.family}: {c.gate.reason}" for c in candidates)
        raise GateError(f"no candidate decides alike before and after conversion: {reasons}")
    best = max(candidate.separation for candidate in passed)
    close = [candidate for candidate in passed if candidate.separation >= best - CLOSE]
    chosen = min(close, key=lambda candidate: candidate.latency_us)
    if len(candidates) == 1:
        return chosen, "the only family asked for"
    why = f"it tells injected anomalies from normal windows with ROC-AUC {chosen.separation:.4f}"
    if chosen.separation < best:
        why += f", within {CLOSE} of the best ({best:.4f}), and is the fastest of those"
    return chosen, why
