"""Candidates: one model, or an ensemble, with its limit, its gate and its figures.

Rules: every score is a model's own, through the agent's code; members of an ensemble are weighed by how steady their
scores are in normal running, and by nothing else, unless stacking is asked for: then labels of the first half of each
labelled recording weigh them, and figures are those of the rest.

| combine  | of scores s_m, each divided by           | weights                               | by            |
|----------|------------------------------------------|---------------------------------------|---------------|
| weighted | its geometric mean in normal running     | inverse to the spread of ln s_m there | geometric mean|
| mean     | the same                                 | equal                                 | mean          |
| max      | the highest that normal running reached  | equal                                 | maximum       |
| stacked  | its geometric mean in normal running     | from labels, see `tocsin_trainer.stack`| mean         |
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from tocsin.core.scoring import Scorer
from tocsin.core.threshold import Threshold
from tocsin.errors import DataError
from tocsin.records import Bools, Floats, Scores
from tocsin_trainer import dataset as ds
from tocsin_trainer.build import Built, Parts
from tocsin_trainer.calibrate import Calibrated, calibrate
from tocsin_trainer.evaluate import bare_scores, combined, figures, play
from tocsin_trainer.export import Grid
from tocsin_trainer.gate import gate, roc_auc
from tocsin_trainer.options import TrainOptions
from tocsin_trainer.ranking import stability
from tocsin_trainer.results import Candidate, Gate, Played
from tocsin_trainer.stack import stacked_weights
from tocsin_trainer.stretch import Stretch

Courses = tuple[Scores, ...]
"""Bare scores of one model, stretch by stretch."""
IN_TURN, LABELLED, WEIGHED = "held back in turn", "labelled test", "labelled, for weights"
MAX_SCORED = 50_000  # windows of a part: of a longer one, pieces stand for it
STEADIEST = 0.05  # of the spread of log scores: no member is trusted more than one that wanders so little


@dataclass(frozen=True)
class Mix:
    """How the scores of some members become one.

    Attributes:
        normalisers: of the members: what each one's scores are divided by; 1 for a single one.
        weights: mean 1.
        combination: as the manifest names it.
    """

    normalisers: tuple[float, ...]
    weights: tuple[float, ...]
    combination: str = "mean"

    def __call__(self, members: tuple[Courses, ...]) -> Courses:
        """The scores of the ensemble from its members' own."""
        if len(members) == 1:
            return members[0]
        return combined(members, self.normalisers, self.weights, self.combination)


def mix(normal: tuple[Courses, ...], combine: str = "weighted") -> Mix:
    """From each member's bare scores in normal running that it was not fitted on.

    Args:
        normal: of each member.
        combine: `weighted`: who wanders little in normal running has more to say when it moves; `mean` or `max`, see
            the table of the module.
    """
    if len(normal) == 1:
        return Mix((1.0,), (1.0,))
    tiny = float(np.finfo(np.float32).tiny)
    logs = [np.log(np.maximum(np.concatenate([each.value for each in courses]), tiny)) for courses in normal]
    if combine == "max":
        return Mix(tuple(float(np.exp(log.max())) for log in logs), (1.0,) * len(logs), "max")
    typical = tuple(float(np.exp(log.mean())) for log in logs)
    if combine == "mean":
        return Mix(typical, (1.0,) * len(logs), "mean")
    weights = np.array([1 / max(float(log.std()), STEADIEST) for log in logs])
    return Mix(typical, tuple((weights / weights.mean()).tolist()), "geometric")


def mixed(
    members: tuple[Courses, ...], fold: tuple[int, ...], make: Callable[[tuple[Courses, ...]], Mix] = mix
) -> Courses:
    """The ensemble's scores in normal running, to set a limit on: those of each fold by the mix of the others.

    Weights are chosen so that these very scores are calm. Of scores that have chosen their weights themselves the
    highest is too low, by the more the shorter the recording is.

    Args:
        members: the bare scores of each, stretch by stretch.
        fold: of each stretch, which was held back together; with less than two of them, all scores make the mix.
        make: the mix from such scores.
    """
    if len(members) == 1 or len(set(fold)) < 2:
        return make(members)(members)
    out: dict[int, Scores] = {}
    for number in set(fold):
        held = [k for k, own in enumerate(fold) if own == number]
        how = make(tuple(tuple(each[k] for k, own in enumerate(fold) if own != number) for each in members))
        out |= zip(held, how(tuple(tuple(each[k] for k in held) for each in members)), strict=True)
    return tuple(out[k] for k in range(len(fold)))


@dataclass(frozen=True)
class Normal:
    """Normal running that the members were not fitted on, scored by each of them, float and converted.

    Attributes:
        stretches: rows.
        grid: on which windows they were scored.
        converted: of each member.
        exact: the same of the float models.
        once: which of the stretches, together, hold each row once.
        fold: of each stretch, with which others it was held back; empty where models are fitted once.
    """

    stretches: tuple[Stretch, ...]
    grid: Grid
    converted: tuple[Courses, ...]
    exact: tuple[Courses, ...]
    once: tuple[int, ...] = ()
    fold: tuple[int, ...] = ()

    def beside(self, others: tuple["Normal", ...]) -> "Normal":
        """The same rows, scored by the members of all."""
        made = (self, *others)
        return replace(
            self,
            converted=tuple(course for each in made for course in each.converted),
            exact=tuple(course for each in made for course in each.exact),
        )


class Judge:
    """Scores every part of the recordings once a model, float and converted, and puts candidates together from them.

    Raises:
        DataError: stacking is asked for, and there are no labels of both kinds to find the weights by.
    """

    def __init__(
        self, parts: Parts, grid: Grid, options: TrainOptions, split: ds.Split, labelled: ds.Dataset | None
    ) -> None:
        self._parts, self._grid, self._options = parts, grid, options
        most = MAX_SCORED * grid.hop
        calibration, test = (ds.pieces(part, most, 8 * grid.length) for part in (split.calibration, split.test))
        self._calibration = calibration
        self._shown = {"calibration": calibration, "test": test}
        if labelled is not None:
            self._shown[LABELLED] = labelled.stretches
        if options.combine == "stacked":
            if labelled is None:
                raise DataError("--combine stacked finds weights by labels: give labelled recordings with --test")
            self._shown[WEIGHED], self._shown[LABELLED] = _halves(labelled.stretches, grid)
            self._label = _window_labels(self._shown[WEIGHED], grid)
        self._known: dict[tuple[int, bool, str, int], Courses] = {}

    def candidate(
        self, members: tuple[Built, ...], normal: Normal | None = None, combine: str = "weighted"
    ) -> tuple[Candidate, Scorer]:
        """Limit, gate and figures of one model, or of some together; and how the agent would score by it.

        Args:
            members: of the candidate.
            normal: what the limit is set on; None = the calibration part.
            combine: how members' scores become one, see the table of the module.
        """
        normal = normal or self._held_back(members)
        make = partial(self._mix, members, combine)
        converted, exact = make(normal.converted), make(normal.exact)
        own, own_float = (
            self._calibrated(mixed(each, normal.fold, make), normal) for each in (normal.converted, normal.exact)
        )
        limit, limit_float = own.threshold, own_float.threshold
        scorer = self.scorer(members, converted, limit)
        injected = scorer.score(self._parts.injected).value
        bare = scorer.score(self._parts.calibration).value
        unseen = [] if not normal.once else [self._in_turn(normal, limit, make)]
        titles = [title for title in self._shown if title == LABELLED or not (unseen or title == WEIGHED)]
        played = (*unseen, *(self._play(title, members, converted, limit) for title in titles))
        judged = [self._play(LABELLED, members, exact, limit_float, exact=True)] if LABELLED in titles else []
        return Candidate(
            family="+".join(each.family for each in members),
            precision="+".join(sorted({each.rung.precision for each in members})),
            headroom=max(each.rung.headroom for each in members),
            bytes=sum(len(each.rung.content) for each in members),
            float_bytes=sum(len(each.exact.content) for each in members),
            latency_us=latency_us(scorer, self._parts.calibration[:1]),
            parameters=sum(int(each.fitted.model.count_params()) for each in members),
            train_loss=members[-1].fitted.train_loss,
            validation_loss=members[-1].fitted.validation_loss,
            gate=self._gate(members, scorer, exact, limit_float, bare, injected),
            threshold=limit,
            threshold_float=limit_float,
            separation=roc_auc(bare, injected),
            figures=figures(played[-1], limit.value),
            figures_float=figures(judged[0], limit_float.value) if judged else {},
            played=played,
            float_scores=np.concatenate(own_float.courses),
            converted_scores=np.concatenate(own.courses),
            seconds=sum(each.fitted.seconds for each in members),
            stability=self._stability(normal, converted, injected),
            agreement=1.0 if all(each.closed_form for each in members) else None,
            combination=combine if len(members) > 1 else "",
            fitted_on="all rows" if normal.once else "training part",
        ), scorer

    def scorer(self, members: tuple[Built, ...], how: Mix, limit: Threshold, *, exact: bool = False) -> Scorer:
        """Members together, as the agent runs them."""
        made = tuple(
            each.member(exact=exact, normaliser=normaliser, weight=weight)
            for each, normaliser, weight in zip(members, how.normalisers, how.weights, strict=True)
        )
        return Scorer(made, self._grid.channel_weights, limit, how.combination, self._grid.modes)

    def _mix(self, members: tuple[Built, ...], combine: str, normal: tuple[Courses, ...]) -> Mix:
        if combine != "stacked" or len(members) == 1:
            return mix(normal, combine)
        plain, grid = mix(normal, "mean"), self._grid
        scores = [np.concatenate([c.value for c in self._bare(WEIGHED, e, grid, exact=False)]) for e in members]
        seen = np.stack(scores) / np.array(plain.normalisers)[:, None]
        return replace(plain, weights=tuple(stacked_weights(seen, self._label).tolist()))

    def _stability(self, normal: Normal, how: Mix, injected: Floats) -> float | None:
        chosen = normal.once or range(len(normal.stretches))
        courses = how(tuple(tuple(each[k] for k in chosen) for each in normal.converted))
        return stability(np.concatenate([each.value for each in courses]), injected)

    def _held_back(self, members: tuple[Built, ...]) -> Normal:
        grid = self._grid.dense
        converted, exact = (
            tuple(self._bare("calibration", each, grid, exact=form) for each in members) for form in (False, True)
        )
        return Normal(self._calibration, grid, converted, exact)

    def _calibrated(self, bare: Courses, normal: Normal) -> Calibrated:
        """Smoothed scores of normal running, and the limit that they give."""
        options, grid = self._options, normal.grid
        stretches = normal.stretches
        rows = sum(map(len, stretches))
        if normal.once:
            rows = sum(len(stretches[k]) for k in normal.once)
        if normal.once and options.threshold.method == "budget":  # alarms are counted once
            bare = tuple(bare[k] for k in normal.once)
        return calibrate(
            bare,
            grid.hop / grid.sample_rate_hz,
            options.threshold,
            options.rule,
            smoothing=grid.smoothing,
            modes=1 if grid.modes is None else len(grid.modes),
            seed=options.seed,
            independent=rows / grid.length,
        )

    def _in_turn(self, normal: Normal, limit: Threshold, make: Callable[[tuple[Courses, ...]], Mix]) -> Played:
        bare = mixed(normal.converted, normal.fold, make)
        stretches = tuple(normal.stretches[k] for k in normal.once)
        return play(IN_TURN, tuple(bare[k] for k in normal.once), stretches, normal.grid, self._options.rule, limit)

    def _gate(
        self,
        members: tuple[Built, ...],
        scorer: Scorer,
        exact: Mix,
        limit_float: Threshold,
        bare: Floats,
        injected: Floats,
    ) -> Gate:
        if len(members) == 1:
            return members[0].gate
        floating = self.scorer(members, exact, limit_float, exact=True)
        normal, injected_float = (
            floating.score(windows).value for windows in (self._parts.calibration, self._parts.injected)
        )
        return gate(normal, bare, injected_float, injected, limit_float.value, scorer.threshold.value)

    def _play(
        self, title: str, members: tuple[Built, ...], how: Mix, limit: Threshold, *, exact: bool = False
    ) -> Played:
        bare = how(tuple(self._bare(title, each, self._grid, exact=exact) for each in members))
        return play(title, bare, self._shown[title], self._grid, self._options.rule, limit)

    def _bare(self, title: str, each: Built, grid: Grid, *, exact: bool) -> Courses:
        key = (id(each), exact, title, grid.hop)
        if key not in self._known:
            scorer = Scorer((each.member(exact=exact),), grid.channel_weights, Threshold(1.0), modes=grid.modes)
            self._known[key] = bare_scores(scorer, self._shown[title], grid)
        return self._known[key]


def _halves(stretches: tuple[Stretch, ...], grid: Grid) -> tuple[tuple[Stretch, ...], tuple[Stretch, ...]]:
    """First and second halves of each stretch; no window of the one shares a row with one of the other."""
    cut = [len(stretch) // 2 // grid.hop * grid.hop for stretch in stretches]
    both = [(s.part(0, at), s.part(at, len(s))) for s, at in zip(stretches, cut, strict=True)]
    first, second = (tuple(half for half in halves if len(half) >= grid.length) for halves in zip(*both, strict=True))
    if not first or not second:
        raise DataError(f"--combine stacked: expected labelled recordings of {2 * grid.length} rows or more")
    return first, second


def _window_labels(stretches: tuple[Stretch, ...], grid: Grid) -> Bools:
    """(K,) of each window's last row."""
    labels = [s.label for s in stretches if s.label is not None]
    if len(labels) < len(stretches):
        raise DataError(
            f"--combine stacked finds weights by labels: {len(stretches) - len(labels)} of {len(stretches)} stretches "
            "of the recordings that --test names have none: give each a label column, or leave it out"
        )
    label = np.concatenate([each[grid.length - 1 :: grid.hop] for each in labels])
    if not label.any() or label.all():
        raise DataError(
            "--combine stacked finds weights by the first half of each labelled recording: expected normal and "
            f"anomalous windows there, got {np.count_nonzero(label)} anomalous ones of {len(label)}"
        )
    return label


def latency_us(scorer: Scorer, window: Floats) -> float:
    """Median time of one window from engineering units to score, on this machine."""
    times = []
    for _ in range(101):
        begin = time.perf_counter_ns()
        scorer.score(window)
        times.append((time.perf_counter_ns() - begin) / 1e3)
    return statistics.median(times)
