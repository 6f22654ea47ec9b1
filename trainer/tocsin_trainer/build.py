"""One model: shown its windows, fitted, converted, and compared with its float form.

Rules: nothing here sees calibration or test windows but to judge; a family's constants and weights come from the
windows it is fitted on.
"""

from dataclasses import dataclass, replace

import numpy as np

from tocsin.core.interpreter import TfliteModel
from tocsin.core.preprocess import Preprocessor
from tocsin.core.scoring import Member, Scorer
from tocsin.core.threshold import Threshold
from tocsin.errors import TocsinError
from tocsin.records import Floats, Floats32
from tocsin_trainer import dataset as ds
from tocsin_trainer.convert import LADDER, Converted, Converter
from tocsin_trainer.export import Grid
from tocsin_trainer.fit import fit
from tocsin_trainer.gate import gate
from tocsin_trainer.inject import inject, widen
from tocsin_trainer.inputs import Inputs, prepared, signal, standardised
from tocsin_trainer.models import FAMILIES
from tocsin_trainer.options import TrainOptions
from tocsin_trainer.results import Fitted, Gate, Progress
from tocsin_trainer.trackers import Tracker

MAX_TRAIN_WINDOWS = 8_000
MAX_GATE_WINDOWS = 2_000
OVERLAP = {"slow": 32, "vibration": 8}  # training windows start at least this part of a window apart
VALIDATION = 0.15  # last part of the training windows: when to stop
WORTH_IT = 0.8  # of the float file's size, that a dynamic one has to stay below
LITTLE_DISTORTION = 0.1  # no more headroom is tried from here on


@dataclass(frozen=True)
class Parts:
    """(N, T, C) windows that models are made and judged with, engineering units; of calibration some are enough."""

    fit: Floats
    validation: Floats
    calibration: Floats
    injected: Floats
    wide: Floats

    @property
    def all_normal(self) -> Floats:
        """What a closed form is solved for: nothing needs to be held back to know when to stop."""
        return np.concatenate([self.fit, self.validation])


@dataclass(frozen=True)
class Run:
    """What every step of a training run knows.

    Attributes:
        grid: how rows become windows, and windows scores.
        inputs: what the signal is, and how it is cleaned.
        options: what the user asked for.
        progress: told how far it is.
        tracker: follows the losses.
    """

    grid: Grid
    inputs: Inputs
    options: TrainOptions
    progress: Progress
    tracker: Tracker


@dataclass(frozen=True)
class Built:
    """One family: fitted, and converted to the first rung that decides as the float model does."""

    fitted: Fitted
    preprocessor: Preprocessor
    exact: Converted
    rung: Converted
    gate: Gate

    @property
    def family(self) -> str:
        """Its name."""
        return self.fitted.family

    @property
    def closed_form(self) -> bool:
        """Whether it is solved, not trained."""
        return not FAMILIES[self.family].epochs

    def member(self, *, exact: bool = False, normaliser: float = 1.0, weight: float = 1.0) -> Member:
        """The model as the agent runs it; `exact` for the float one."""
        form = self.exact if exact else self.rung
        model = TfliteModel(form.content, form.batch_content)
        return Member(model, self.preprocessor, FAMILIES[self.family].kind, normaliser, weight, form.input_range)


def stride(rows: int, grid: Grid) -> int:
    """Rows from one training window to the next; windows of a cycle stay in step with it."""
    kind = signal(grid.sample_rate_hz, grid.length, grid.hop)
    most = ds.most_windows(grid.length, len(grid.channels), MAX_TRAIN_WINDOWS)
    if kind == "cycle":
        return grid.hop * max(1, -(-rows // grid.hop // most))
    return max(1, -(-rows // most), grid.length // OVERLAP[kind])


def parts(split: ds.Split, grid: Grid, seed: int) -> Parts:
    """Windows of each part, and calibration windows with made-up anomalies."""
    step = stride(sum(map(len, split.train)), grid)
    made = ds.windows(split.train, grid.length, step)
    held_back = max(1, round(len(made) * VALIDATION))
    overlap = 0 if grid.hop >= grid.length else min(grid.length // step, len(made) // 4)
    most = ds.most_windows(grid.length, len(grid.channels), MAX_GATE_WINDOWS)
    calibration = ds.some_windows(split.calibration, grid.length, grid.dense.hop, most, seed)
    plain = standardised(made)
    normal = prepared(plain, calibration)
    injected = plain.inverse(inject(normal, seed)[0])
    wide = plain.inverse(widen(normal, seed))
    assert injected is not None and wide is not None  # standardising can be undone
    return Parts(made[: max(1, len(made) - held_back - overlap)], made[-held_back:], calibration, injected, wide)


def fitted(family: str, windows: Floats, validation: Floats, run: Run) -> tuple[Fitted, Preprocessor, Floats32]:
    """A family's model, its preprocessing, and the windows as it was shown them.

    Raises:
        DataError: the family is not for such windows.
    """

    def report(epoch: int, epochs: int, loss: float, validation: float) -> None:
        run.progress("epoch", epoch, epochs, f"{family}: loss {loss:.4f}, held back {validation:.4f}")

    preprocessor = run.inputs.fitted(family, windows)
    shown, held_back = prepared(preprocessor, windows), prepared(preprocessor, validation)
    options = run.options
    how = options.fitting if run.inputs.shows_time else options.fitting.without_time()
    model = fit(family, shown, held_back, options.seed, options.epochs, report, how=how, tracker=run.tracker)
    return model, preprocessor, shown


def converted(
    model: Fitted,
    preprocessor: Preprocessor,
    shown: Floats32,
    converter: Converter,
    parts: Parts,
    run: Run,
) -> Built:
    """Down the ladder to the int8 rung that keeps the decisions and distorts least; below int8 only where none does."""
    grid, options = run.grid, run.options
    converter.add(model, shown)
    exact = converter.convert(model, "float32")
    float_normal, float_injected, float_wide = _bare_scores(model, exact, preprocessor, parts, grid)
    limit_float = options.threshold.limit(float_normal).value
    passed: list[tuple[Converted, Gate]] = []
    refused: list[tuple[Converted, Gate]] = []
    crashed = ""
    for precision, headroom in LADDER:
        if precision != "int8" and (passed or (refused and options.precision == "int8")):
            break
        try:
            rung = converter.convert(model, precision, headroom)
        except TocsinError as error:  # the converter may crash on one rung and make the next
            crashed = str(error)
            continue
        if rung.precision == "dynamic" and len(rung.content) > WORTH_IT * len(exact.content):
            continue  # weights too small to be worth it, and older runtimes cannot run it
        normal, injected, wide = _bare_scores(model, rung, preprocessor, parts, grid)
        limit = options.threshold.limit(normal).value
        found = gate(float_normal, normal, float_injected, injected, limit_float, limit, float_wide, wide)
        (passed if found.passed else refused).append((rung, found))
        if found.passed and found.distortion <= LITTLE_DISTORTION:
            break
    if passed:
        rung, found = min(passed, key=lambda each: each[1].distortion)
        if rung.precision != "int8":
            tried = [gated for form, gated in refused if form.precision == "int8"]
            why = max(tried, key=lambda gated: gated.agreement).reason if tried else crashed
            found = replace(found, reason=f"int8 is not used: {why}")
    elif not refused:
        raise TocsinError(crashed)
    else:  # int8 was asked for, come what may
        rung, found = max(refused, key=lambda each: each[1].agreement)
    return Built(model, preprocessor, exact, converter.with_batch(model, rung), found)


def _bare_scores(
    model: Fitted, form: Converted, preprocessor: Preprocessor, parts: Parts, grid: Grid
) -> tuple[Floats, Floats, Floats]:
    """Scores of normal, of injected and of wide windows, each for itself."""
    kind = FAMILIES[model.family].kind
    member = Member(TfliteModel(form.content), preprocessor, kind, input_range=form.input_range)
    scorer = Scorer((member,), grid.channel_weights, Threshold(1.0))
    normal, injected, wide = (
        scorer.score(windows).value for windows in (parts.calibration, parts.injected, parts.wide)
    )
    return normal, injected, wide
