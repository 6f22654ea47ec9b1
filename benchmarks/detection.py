"""How well does what `tocsin train` ships detect, on public recordings, beside simple detectors?

    python benchmarks/detection.py --data-root DIR [--suites skab,nab] [--files valve1-0] [--quick] [--seeds 3]
                                   [--families lstm_ae] [--precision int8] [--false-alarms 1/day]
                                   [--out FOLDER] [--jobs 2]

DIR holds a folder a set; `suites.py` says how each is split. Every model is trained as by a user who gives nothing but
the recordings, and its bundle is scored by the code of `tocsin replay`. Tables on stdout, and detection.md and
detection.json in --out; exit code 1 when a training or a replay failed.

Rules: scores are causal; a row has the score of the latest window that ends at it or before, rows before the first
window have its score. The labels reach the trainer as `--test` does, which is for figures only: the float model's and
each family's are the trainer's own. Nothing is kept from one run to the next.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import simple_detectors
from detection_figures import (
    CONVERTED,
    EXACT,
    FLOAT,
    ORACLE,
    RANKS,
    SHIPPED,
    Found,
    Measured,
    Outcome,
    Series,
    headline,
    markdown,
    rank,
    summed,
)  # fmt: skip
from suites import SUITES, Suite, Task

from tocsin.cli.replay import Summary, scored_files
from tocsin.core.bundle import Bundle, load_bundle
from tocsin.core.promise import Tally, parse_rate
from tocsin.errors import ConfigError, DataError
from tocsin.recordings import MAIN, TableOptions, open_table, read_table
from tocsin.records import Bools, Change, Floats
from tocsin_trainer import metrics
from tocsin_trainer.calibrate import ThresholdRule
from tocsin_trainer.options import ALL_FAMILIES, FAMILIES, TrainOptions
from tocsin_trainer.results import Candidate, TrainingResult

QUICK_EPOCHS = 6


def tables(paths: Iterable[Path], options: TableOptions) -> Iterator[tuple[Floats, Bools]]:
    """Values and labels of each table, a row as the file has it."""
    for path in paths:
        parts = list(read_table(open_table(path, options)))
        values = np.concatenate([part.block.values for part in parts])
        labels = [np.zeros(len(part.block), np.bool_) if part.label is None else part.label for part in parts]
        yield values, np.concatenate(labels)


def trained(suite: Suite, task: Task, seed: int, asked: TrainOptions) -> Outcome:
    """Trains a task as `tocsin train` would, and scores its test part as `tocsin replay` would.

    Args:
        suite: of the task.
        task: what to train and test on.
        seed: of the training.
        asked: what else was asked for: families, precision, epochs, false alarms.
    """
    begin = time.perf_counter()
    outcome = Outcome(suite.name, task.name, seed)
    options = replace(
        asked, data=task.train, asset=task.name, test=task.test, seed=seed, table=task.table, window=task.window,
        hop=task.hop,
    )  # fmt: skip
    try:
        with tempfile.TemporaryDirectory(prefix="tocsin-bench-") as folder:
            _train(suite, task, replace(options, out=Path(folder)), outcome)
    except Exception:  # noqa: BLE001 - a failed training is a result, told in full
        outcome.error = traceback.format_exc()
    outcome.seconds = time.perf_counter() - begin
    return outcome


def _train(suite: Suite, task: Task, options: TrainOptions, outcome: Outcome) -> None:
    from tocsin_trainer.train import train  # noqa: PLC0415 - tensorflow is for the processes that train

    repaired = ""
    try:
        run = train(options)
    except DataError as error:  # it tells the user of --repair, who would
        repaired = str(error)
        run = train(replace(options, repair=True))
    series, summary, measured = replayed(load_bundle(run.bundle.path), suite, task)
    outcome.measured = measured
    outcome.found.append(Found(task.name, options.seed, SHIPPED, rank(series), series))
    outcome.found += [f for candidate in run.result.candidates for f in judged(suite, task, options.seed, candidate)]
    converted = [f for f in outcome.found if f.method.endswith(CONVERTED.format(""))]
    if converted:
        best = max(converted, key=lambda f: f.ranks.get(headline(suite), 0.0))
        outcome.found.append(replace(best, method=ORACLE))
    outcome.training = _told(run.result, repaired, [*run.result.warnings, *summary.warnings])


def replayed(bundle: Bundle, suite: Suite, task: Task) -> tuple[tuple[Series, ...], Summary, Measured]:
    """Every test table through the agent's own code."""
    out, summary = [], Summary()
    manifest = bundle.manifest
    measured = Measured(manifest.threshold.promise)
    for path, (values, label) in zip(task.test, tables(task.test, task.table), strict=True):
        ends, ratios = [np.empty(0, np.int64)], [np.empty(0)]
        apart = normal_rows(label, manifest.length)
        episodes, quiet = 0, 0
        for scored, _ in scored_files(bundle, {MAIN: path}, task.table, summary):
            raised = {t.window_end_s for t in scored.transitions if t.change is Change.RAISED}
            rows = scored.windows.sample[np.isin(scored.windows.end_s, list(raised))]
            episodes += int(apart[rows].sum())
            quiet += int((apart[scored.windows.sample] & ~scored.anomaly).sum())
            finite = np.isfinite(scored.scores.ratio)
            ends.append(scored.windows.sample[finite])
            ratios.append(scored.scores.ratio[finite])
        hours = quiet * manifest.hop / manifest.sample_rate_hz / 3600
        measured.tally = Tally(measured.tally.episodes + episodes, measured.tally.hours + hours)
        end, ratio = np.concatenate(ends), np.concatenate(ratios)
        if not len(end):
            raise DataError(f"{path.name}: no window could be scored")
        if suite.by_row:
            latest = np.searchsorted(end, np.arange(len(label)), side="right") - 1
            out.append(Series(label, ratio[np.maximum(latest, 0)], metrics.window_length(values[:, 0])))
        else:
            out.append(Series(label[end], ratio, None))
    return tuple(out), summary, measured


def normal_rows(label: Bools, length: int) -> Bools:
    """(m,) rows whose windows hold no labelled row, nor do those of the window's length before them."""
    seen = np.concatenate(([0], np.cumsum(label)))
    at = np.arange(len(label))
    rows: Bools = seen[at + 1] == seen[np.maximum(at + 1 - 2 * length, 0)]
    return rows


def judged(suite: Suite, task: Task, seed: int, candidate: Candidate) -> Iterator[Found]:
    """A family as the trainer itself saw it on the test tables, which it plays one after the other."""
    played, limit = candidate.played[-1], candidate.threshold.value
    if played.row_label is None or played.row_score is None or played.window_label is None:
        return
    if suite.by_row:
        own = Series(played.row_label, played.row_score / limit, metrics.window_length(played.rows[:, 0]))
    else:
        own = Series(played.window_label, played.score / limit, None)
    ranks = rank([own])
    exact = {name: value for name, value in candidate.figures_float.items() if name in RANKS and name in ranks}
    yield Found(task.name, seed, CONVERTED.format(candidate.title), ranks, (own,), apart=len(task.test) == 1)
    yield Found(task.name, seed, EXACT.format(candidate.title), exact)
    if candidate.chosen:
        yield Found(task.name, seed, FLOAT, exact)


def _told(result: TrainingResult, repaired: str, warned: list[str]) -> dict[str, Any]:
    """What detection.json says of a training."""
    return {
        "chosen": result.chosen.title,
        "why": next(choice.why for choice in result.choices if choice.what == "model"),
        "window": result.length,
        "hop": result.hop,
        "repaired": repaired,
        "warnings": warned,
        "candidates": {
            c.title: {
                "precision": c.precision, "headroom": c.headroom, "bytes": c.bytes, "separation": c.separation,
                "correlation": c.gate.correlation, "agreement": c.gate.agreement, "reason": c.gate.reason,
                "latency_us": c.latency_us, "seconds": c.seconds,
            }
            for c in result.candidates
        },
    }  # fmt: skip


def simple(suite: Suite, task: Task) -> Outcome:
    """The simple detectors on one task."""
    warnings.simplefilter("ignore", RuntimeWarning)
    begin = time.perf_counter()
    outcome = Outcome(suite.name, task.name, 0)
    features = suite.features
    try:
        train = [values for values, _ in tables(task.train, task.table)]
        test = [values for values, _ in tables(task.test, task.table)]
        labels = [label for _, label in tables(task.test, task.table)]
        periods: list[int | None] = [None] * len(test)
        if suite.by_row:
            periods = [metrics.window_length(values[:, 0]) for values in test]
        else:
            labels = [label[features.length - 1 :: features.hop] for label in labels]
        for method, scores, limit in simple_detectors.scored(features, train, test):
            series = tuple(Series(y, s / limit, p) for y, s, p in zip(labels, scores, periods, strict=True))
            outcome.found.append(Found(task.name, 0, method, rank(series), series))
        on = tuple(Series(label, np.ones(len(label)), None) for label in labels)
        outcome.found.append(Found(task.name, 0, "always on", {}, on))
    except Exception:  # noqa: BLE001 - told in full
        outcome.error = traceback.format_exc()
    outcome.seconds = time.perf_counter() - begin
    return outcome


def run(suites: dict[str, Suite], asked: TrainOptions, seeds: int, jobs: int) -> dict[str, Any]:
    """Every suite, those of one long training first, so that the processes end together."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, str(max(1, (os.cpu_count() or 1) // jobs)))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    found: dict[str, list[Outcome]] = {name: [] for name in suites}
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        work = [
            pool.submit(trained, suite, task, seed, asked)
            for suite in sorted(suites.values(), key=lambda suite: suite.by_row)
            for seed in range(seeds)
            for task in suite.tasks
        ]
        work += [pool.submit(simple, suite, task) for suite in suites.values() for task in suite.tasks]
        for done, future in enumerate(as_completed(work), 1):
            outcome = future.result()
            found[outcome.suite].append(outcome)
            what = f"ships {outcome.training['chosen']}" if outcome.training else "simple detectors"
            what = f"FAILED: {outcome.error.strip().splitlines()[-1]}" if outcome.error else what
            where = f"{outcome.suite} {outcome.task} seed {outcome.seed}"
            print(f"{done}/{len(work)} {where}: {what}, {outcome.seconds:.0f} s", file=sys.stderr, flush=True)
    for outcomes in found.values():
        outcomes.sort(key=lambda outcome: (outcome.task, outcome.seed))
    return {name: summed(suites[name], found[name], asked.families) for name in suites}


def only(suite: Suite, files: list[str]) -> Suite:
    """The suite with those of its tasks alone, or with all where none of them is its own."""
    kept = tuple(task for task in suite.tasks if task.name in files)
    return replace(suite, tasks=kept or suite.tasks)


def main(arguments: list[str]) -> int:
    """Runs, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--suites", default=",".join(SUITES), help="comma-separated  [%(default)s]")
    parser.add_argument("--files", default="", help="of a suite of many, such as valve1-0,other-9; all when left out")
    parser.add_argument("--quick", action="store_true", help="a part of the files, few epochs, one seed")
    parser.add_argument("--families", default=",".join(FAMILIES), help="comma-separated  [%(default)s]")
    parser.add_argument("--precision", default="auto", choices=("auto", "int8"), help="[%(default)s]")
    parser.add_argument("--false-alarms", metavar="RATE", help="the limit for so many, such as 1/day, and their count")
    parser.add_argument("--seeds", type=int, help="trainings a model  [3]")
    parser.add_argument("--out", type=Path, default=Path("out/detection"), help="[%(default)s]")
    parser.add_argument("--jobs", type=int, default=2, help="processes  [%(default)s]")
    chosen = parser.parse_args(arguments)
    names, families = chosen.suites.split(","), tuple(chosen.families.split(","))
    for flag, asked, known in (("suites", names, SUITES), ("families", families, ALL_FAMILIES)):
        if unknown := [name for name in asked if name not in known]:
            parser.error(f"--{flag}: {unknown[0]!r} is not known: expected some of {', '.join(known)}")
    try:
        rate = ThresholdRule("budget", false_alarms=parse_rate(chosen.false_alarms)) if chosen.false_alarms else None
    except ConfigError as error:
        parser.error(f"--false-alarms: {error}")
    asked = TrainOptions(
        (), Path(), "", families=families, epochs=QUICK_EPOCHS if chosen.quick else None,
        threshold=rate or ThresholdRule(), precision=chosen.precision,
    )  # fmt: skip
    begin = time.perf_counter()
    seeds = chosen.seeds or (1 if chosen.quick else 3)
    with tempfile.TemporaryDirectory(prefix="tocsin-suites-") as folder:
        made = {name: SUITES[name](chosen.data_root, Path(folder) / name, chosen.quick) for name in names}
        suites = {name: only(suite, chosen.files.split(",")) for name, suite in made.items()}
        report = run(suites, asked, seeds, chosen.jobs)
    text = markdown(report)
    about = {"seconds": time.perf_counter() - begin, "quick": chosen.quick, "seeds": seeds}
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "detection.md").write_text(text)
    (chosen.out / "detection.json").write_text(json.dumps({**about, "suites": report}, indent=1) + "\n")
    print(text)
    return 1 if any(suite["errors"] for suite in report.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
