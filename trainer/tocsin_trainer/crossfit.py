"""Closed-form models made of all rows, their limit from scores of rows that they were not fitted on.

```
blocks of time   1 2 3 4 5
fold 1           h f f f f      f: fitted, h: held back and scored
fold 2           f h f f f      …
the model        f f f f f      limit: from all the h
```
A short recording is too good to give a part of it away for the limit: what ships is fitted on all of it. Each fold's
model is converted to the very rung of the model that ships, so that the limit is a converted model's. No window of a
fold's fit shares a row with the block that is held back.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from tocsin.core.interpreter import TfliteModel
from tocsin.core.scoring import Member, Scorer
from tocsin.core.threshold import Threshold
from tocsin.records import Scores
from tocsin_trainer import dataset as ds
from tocsin_trainer.build import Built, Parts, Run, converted, fitted, stride
from tocsin_trainer.convert import Converter
from tocsin_trainer.evaluate import bare_scores
from tocsin_trainer.export import Grid
from tocsin_trainer.judge import Normal
from tocsin_trainer.models import FAMILIES
from tocsin_trainer.stretch import Stretch

FOLDS = 5
PHASES = 4  # of the hop, in which a held-back block is scored
SHORT = 1_000  # windows, end to end: a longer recording has rows enough for each of its parts


def is_short(data: ds.Dataset, grid: Grid) -> bool:
    """Whether the recording is too short to give a part of it away."""
    return len(data) < SHORT * grid.length


def crossfit(
    family: str,
    data: ds.Dataset,
    parts: Parts,
    converter: Converter,
    run: Run,
) -> tuple[Built, Normal]:
    """A family fitted on all rows, and normal running as models of the same make score it without knowing it.

    Args:
        family: a closed-form one.
        data: all recordings of normal running.
        parts: windows to compare float and converted models on.
        converter: in use.
        run: of which it is a step.

    Raises:
        DataError: the family is not for such windows.
    """
    grid = run.grid
    windows = ds.windows(data.stretches, grid.length, stride(len(data), grid))
    model, preprocessor, shown = fitted(family, windows, windows[:1], run)
    built = converted(model, preprocessor, shown, converter, parts, run)
    stretches: list[Stretch] = []
    courses: list[Scores] = []
    once: list[int] = []
    fold: list[int] = []
    blocks = list(folds(data.stretches, grid))
    for n, (kept, held, plain) in enumerate(blocks):
        run.progress("cross-fit", n, len(blocks), family)
        windows = ds.windows(kept, grid.length, stride(len(data), grid))
        model, preprocessor, shown = fitted(family, windows, windows[:1], run)
        converter.add(model, shown)
        rung = converter.convert(model, built.rung.precision, built.rung.headroom)
        kind = FAMILIES[family].kind
        member = Member(TfliteModel(rung.content), preprocessor, kind, input_range=rung.input_range)
        once += [len(stretches) + k for k in plain]
        stretches += held
        fold += [n] * len(held)
        courses += bare_scores(Scorer((member,), grid.channel_weights, Threshold(1.0), modes=grid.modes), held, grid)
    scores = (tuple(courses),)  # of float and converted: they decide alike, or the rung would not have passed
    return built, Normal(tuple(stretches), grid, scores, scores, tuple(once), tuple(fold))


def folds(
    stretches: tuple[Stretch, ...], grid: Grid, count: int = FOLDS
) -> Iterator[tuple[tuple[Stretch, ...], tuple[Stretch, ...], tuple[int, ...]]]:
    """(kept, held back, which of those hold each row once) of each fold; held-back ones come in phases of the hop."""
    total = sum(map(len, stretches))
    step = grid.hop if grid.hop >= grid.length else 1  # a cut keeps step with the cycle
    for first, last in pairwise(np.linspace(0, total, count + 1)):
        kept: list[Stretch] = []
        held: list[Stretch] = []
        once: list[int] = []
        done = 0
        for stretch in stretches:
            low, high = (min(len(stretch), max(0, int((edge - done) // step) * step)) for edge in (first, last))
            high = len(stretch) if last >= done + len(stretch) else high
            kept += [part for part in (stretch.part(0, low), stretch.part(high, len(stretch))) if len(part)]
            if high - low >= grid.length:
                once.append(len(held))
                held += _phases(stretch.part(low, high), grid)
            done += len(stretch)
        kept = [part for part in kept if len(part) >= grid.length]
        if kept and held:
            yield tuple(kept), tuple(held), tuple(once)


def _phases(stretch: Stretch, grid: Grid) -> list[Stretch]:
    """The stretch as it is, and begun a part of a hop later: other windows of the same rows."""
    if grid.hop >= grid.length:
        return [stretch]
    starts = sorted({grid.hop * phase // PHASES for phase in range(PHASES)})
    return [stretch.part(start, len(stretch)) for start in starts if len(stretch) - start >= grid.length]
