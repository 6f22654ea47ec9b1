"""How well settings do: fitted on two blocks of time, judged on the third, in turn.

```
blocks of time   1 2 3
                 h f f      f: fitted   h: held back; segments of it as they are, and with a made-up anomaly
                 f h f
                 f f h
```
Rules: all settings see the same segments, whatever their window; a segment's score is the highest of its windows', as
an alarm would have it; detection is the chance that a segment with an anomaly scores above a normal one.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tocsin.core.interpreter import TfliteModel
from tocsin.core.scoring import Member, Scorer
from tocsin.core.threshold import Threshold
from tocsin.errors import DataError
from tocsin.records import Floats
from tocsin_trainer import dataset as ds
from tocsin_trainer import inputs
from tocsin_trainer.build import Run, converted, fitted, parts, stride
from tocsin_trainer.convert import Converter
from tocsin_trainer.crossfit import folds
from tocsin_trainer.device_budget import Cost
from tocsin_trainer.export import Grid
from tocsin_trainer.gate import roc_auc
from tocsin_trainer.inject import inject
from tocsin_trainer.judge import latency_us, mix
from tocsin_trainer.models import FAMILIES
from tocsin_trainer.options import TrainOptions
from tocsin_trainer.steps import channel_weights
from tocsin_trainer.stretch import Stretch
from tocsin_trainer.trackers import Untracked

BLOCKS = 3
MAX_SEGMENTS = 400  # of a block, as they are
REPEATS = 4  # of each kind, strength and reach of anomaly
OVERLAP = 4  # windows of a segment start at least this part of a window apart

Rungs = tuple[tuple[str, float], ...]
"""Precision and headroom of each member."""


@dataclass(frozen=True)
class Block:
    """A part of the time, held back.

    Attributes:
        kept: the rest: what models are fitted on.
        held: the block.
        normal: (N, S, C) segments of it, engineering units.
        injected: (M, S, C) segments of it, each with an anomaly.
    """

    kept: tuple[Stretch, ...]
    held: tuple[Stretch, ...]
    normal: Floats
    injected: Floats


@dataclass(frozen=True)
class Judged:
    """What settings come to on one block.

    Attributes:
        detection: ROC-AUC of segments, 0 to 1.
        cost: of the converted model.
        rungs: that its members were converted to.
    """

    detection: float
    cost: Cost
    rungs: Rungs

    @property
    def precision(self) -> str:
        """As a candidate names it."""
        return "+".join(sorted({precision for precision, _ in self.rungs}))


def blocks(data: ds.Dataset, span: int, hop: int, seed: int) -> tuple[Block, ...]:
    """The blocks of a recording, and their segments.

    Args:
        data: normal running.
        span: rows a segment: the longest window of those that are compared.
        hop: rows from window to window; not below the span where windows follow a machine's cycle.
        seed: of segments and anomalies.

    Raises:
        DataError: there are not so many blocks in it.
    """
    grid = Grid(data.channels, data.sample_rate_hz, data.max_gap_s, span, hop)
    made = []
    for kept, held, once in folds(data.stretches, grid, BLOCKS):
        plain_held = tuple(held[k] for k in once)
        usual = inputs.standardised(ds.windows(kept, span, stride(sum(map(len, kept)), grid)))
        step = hop if hop >= span else max(1, span // OVERLAP)
        most = ds.most_windows(span, len(data.channels), MAX_SEGMENTS)
        normal = ds.some_windows(plain_held, span, step, most, seed)
        injected = usual.inverse(inject(inputs.prepared(usual, normal), seed, REPEATS)[0])
        assert injected is not None  # standardising can be undone
        made.append(Block(kept, plain_held, normal, injected))
    if len(made) < BLOCKS:
        raise DataError(
            f"{len(data)} rows are too few to be held back in {BLOCKS} blocks of windows of {span} rows: "
            "record for longer, or choose a shorter --window"
        )
    return tuple(made)


def judged(block: Block, data: ds.Dataset, options: TrainOptions, converter: Converter, rungs: Rungs = ()) -> Judged:
    """Fits all families of the options on a block's rest, as one ensemble, and judges that on the block.

    Args:
        block: of `data`.
        data: tells channels and rate.
        options: families, window, hop, inputs, seed and how networks are trained.
        converter: in use.
        rungs: to convert the members to; () = the best of the ladder for each.

    Raises:
        TocsinError: the settings do not fit the signal, or a model cannot be converted.
    """
    length, hop = options.window, options.hop
    assert length is not None and hop is not None  # a choice has both
    weights = channel_weights(options.channel_weights, data.channels, data.groups)
    grid = Grid(data.channels, data.sample_rate_hz, data.max_gap_s, length, hop)
    seen = parts(ds.Split(block.kept, block.held, ()), grid, options.seed)
    shown, _ = inputs.choose(seen.all_normal, data.sample_rate_hz, hop, data.channels, options.inputs)
    run = Run(grid, shown, options, lambda *_: None, Untracked())
    members, taken = [], []
    for n, family in enumerate(options.families):
        windows = seen.fit if FAMILIES[family].epochs else seen.all_normal
        model, preprocessor, as_seen = fitted(family, windows, seen.validation, run)
        if rungs:
            converter.add(model, as_seen)
            form = converter.convert(model, *rungs[n])
        else:
            form = converted(model, preprocessor, as_seen, converter, seen, run).rung
        taken.append((form.precision, form.headroom))
        runtime, kind = TfliteModel(form.content, form.batch_content), FAMILIES[family].kind
        members.append((Member(runtime, preprocessor, kind, input_range=form.input_range), len(form.content)))
    alone = tuple((Scorer((member,), weights, Threshold(1.0)).score(seen.calibration),) for member, _ in members)
    how = mix(alone)
    together = tuple(
        replace(member, normaliser=normaliser, weight=weight)
        for (member, _), normaliser, weight in zip(members, how.normalisers, how.weights, strict=True)
    )
    scorer = Scorer(together, weights, Threshold(1.0), how.combination)
    detection = roc_auc(*(_highest(scorer, each, length, hop) for each in (block.normal, block.injected)))
    size = sum(count for _, count in members)
    cost = Cost("+".join(options.families), size, latency_us(scorer, seen.calibration[:1]))
    return Judged(detection, cost, tuple(taken))


def _highest(scorer: Scorer, segments: Floats, length: int, hop: int) -> Floats:
    """(N,) the highest score of the windows of each (S, C) segment."""
    views = sliding_window_view(segments, length, axis=1).transpose(0, 1, 3, 2)  # (N, S - T + 1, T, C)
    step = hop if hop >= length else max(1, length // OVERLAP)
    last = views.shape[1] - 1
    starts = sorted({*range(0, last + 1, step), last})
    scores = [scorer.score(np.ascontiguousarray(views[:, start])).value for start in starts]
    highest: Floats = np.max(scores, axis=0)
    return highest
