"""Recordings played as the device would see them, and what that says about a model.

The windows, scores and alarms come from `tocsin.core` and `tocsin.alarms`: the agent's own code.
"""

import numpy as np

from tocsin.alarms.detector import AlarmDetector, AlarmRule
from tocsin.core.scoring import Scorer, Smoother, combine, limits_of
from tocsin.core.threshold import Threshold
from tocsin.core.windowing import SlidingWindow
from tocsin.records import Change, Floats, Scores
from tocsin_trainer import metrics
from tocsin_trainer.export import Grid
from tocsin_trainer.results import Played
from tocsin_trainer.stretch import Stretch

ROWS_DRAWN = 1 << 15  # many times the points of a picture


def bare_scores(scorer: Scorer, stretches: tuple[Stretch, ...], grid: Grid) -> tuple[Scores, ...]:
    """Scores of each stretch's windows, before smoothing."""
    window = SlidingWindow(grid.length, grid.hop, len(grid.channels))
    return tuple(
        _joined([scorer.score(window.push(rows).values) for rows in stretch.blocks()]) for stretch in stretches
    )


def _joined(scores: list[Scores]) -> Scores:
    if len(scores) == 1:
        return scores[0]
    value, ratio, split = (np.concatenate([getattr(s, n) for s in scores]) for n in ("value", "ratio", "per_channel"))
    modes = [s.mode for s in scores if s.mode is not None]
    return Scores(value, ratio, split, np.concatenate(modes) if modes else None)


def combined(
    members: tuple[tuple[Scores, ...], ...],
    normalisers: tuple[float, ...],
    weights: tuple[float, ...] | None = None,
    how: str = "mean",
) -> tuple[Scores, ...]:
    """Scores of an ensemble from its members' own, stretch by stretch, as `tocsin.core.scoring` combines them.

    Args:
        members: of each member, the scores of each stretch, neither normalised nor weighted.
        normalisers: each member's typical score in normal running.
        weights: of the members, mean 1; None for equal ones.
        how: one of `tocsin.core.scoring.COMBINATIONS`.
    """
    weighted = np.ones(len(members)) if weights is None else np.asarray(weights)
    out = []
    for each in zip(*members, strict=True):
        parts = np.stack([scores.per_channel / n for scores, n in zip(each, normalisers, strict=True)])
        split = combine(parts, weighted, how)
        value = split.sum(axis=1)
        out.append(Scores(value, value, split, each[0].mode))
    return tuple(out)


def play(
    title: str,
    bare: tuple[Scores, ...],
    stretches: tuple[Stretch, ...],
    grid: Grid,
    rule: AlarmRule,
    threshold: Threshold,
) -> Played:
    """Smoothed scores and alarms over some stretches, in order.

    Where operating modes have limits of their own, scores are told as if all had the largest: one line in a picture.

    Args:
        title: what the report calls it.
        bare: scores of each stretch, see `bare_scores`.
        stretches: rows, with labels or without.
        grid: how rows become windows.
        rule: when a score becomes an alarm.
        threshold: the limit on the smoothed score.
    """
    detector, smoother = AlarmDetector(rule), Smoother(grid.smoothing, threshold)
    end_s, score, share, anomaly, labels, row_scores = [], [], [], [], [], []
    alarms: list[tuple[float, float]] = []
    raised_s: float | None = None
    for stretch, own in zip(stretches, bare, strict=True):
        smoother.reset()
        detector.reset()
        scores = smoother.update(own)
        last_row = np.arange(len(own)) * grid.hop + grid.length - 1
        ends = stretch.time_at(last_row)
        relative = scores.value / limits_of(threshold, scores)
        on, changes = detector.update(relative)
        for k, change in changes:
            if change is Change.RAISED:
                raised_s = float(ends[k])
            elif raised_s is not None:
                alarms.append((raised_s, float(ends[k])))
                raised_s = None
        end_s.append(ends)
        score.append(relative * threshold.value)
        share.append(scores.share())
        anomaly.append(on)
        if stretch.label is not None:
            labels.append(stretch.label[last_row])
            row_scores.append(_by_row(relative * threshold.value, len(stretch), grid.length, grid.hop))
    if raised_s is not None:
        alarms.append((raised_s, float(stretches[-1].read(len(stretches[-1]) - 1, len(stretches[-1])).time_s[0])))
    labelled = len(labels) == len(stretches)
    row_time_s, rows = _whole(stretches) if labelled else course(stretches)
    return Played(
        title=title,
        row_time_s=row_time_s,
        rows=rows,
        end_s=np.concatenate(end_s),
        score=np.concatenate(score),
        anomaly=np.concatenate(anomaly),
        share=np.concatenate(share),
        row_label=np.concatenate([s.label for s in stretches if s.label is not None]) if labelled else None,
        window_label=np.concatenate(labels) if labelled else None,
        row_score=np.concatenate(row_scores) if labelled else None,
        alarms=tuple(alarms),
        row_count=sum(map(len, stretches)),
        step_s=1 / grid.sample_rate_hz,
    )


def _whole(stretches: tuple[Stretch, ...]) -> tuple[Floats, Floats]:
    """(m,) times and (m, C) values of all rows, each read once into its place."""
    time_s = np.empty(sum(map(len, stretches)))
    rows = np.empty((len(time_s), stretches[0].read(0, 1).values.shape[1]))
    done = 0
    for block in (block for stretch in stretches for block in stretch.blocks()):
        time_s[done : done + len(block)], rows[done : done + len(block)] = block.time_s, block.values
        done += len(block)
    return time_s, rows


def course(stretches: tuple[Stretch, ...]) -> tuple[Floats, Floats]:
    """(n,) times and (n, C) values that draw the same picture as all rows do.

    Of more than 32,768 rows two stand for each bucket of them, one with the lowest value of each channel, one with the
    highest; no bucket lies across a gap, and the first and the last time are kept.
    """
    total = sum(map(len, stretches))
    if total <= ROWS_DRAWN:
        return _whole(stretches)
    size = -(-2 * total // ROWS_DRAWN)
    times, values = [], []
    for stretch in stretches:
        for block in stretch.blocks():  # a block's end cuts a bucket short
            first = np.arange(0, len(block), size)
            middle = np.minimum(first + size // 2, len(block) - 1)
            times.append(block.time_s[np.stack((first, middle), axis=1).ravel()])
            low, high = (pick.reduceat(block.values, first) for pick in (np.minimum, np.maximum))
            values.append(np.stack((low, high), axis=1).reshape(-1, block.values.shape[1]))
        times[-1][-1] = block.time_s[-1]
    return np.concatenate(times), np.concatenate(values)


def _by_row(score: Floats, rows: int, length: int, hop: int) -> Floats:
    """(rows,) the score of the latest window that ends at or before each row; the first one before that."""
    if not len(score):
        return np.zeros(rows)
    latest = (np.arange(rows) - (length - 1)) // hop
    return score[np.clip(latest, 0, len(score) - 1)]


def figures(played: Played, threshold: float) -> dict[str, float]:
    """Figures against labels, at the shipped threshold and without one; empty without labels."""
    if played.row_label is None or played.row_score is None:
        return {}
    window = metrics.window_length(played.rows[:, 0])
    return metrics.label_figures(played.row_label, played.row_score, threshold, played.row_time_s, window)


def baselines(played: Played, seed: int) -> dict[str, dict[str, float]]:
    """The same figures for an alarm that is always on, and for random scores; empty without labels."""
    if played.row_label is None:
        return {}
    window = metrics.window_length(played.rows[:, 0])
    return metrics.baseline_figures(played.row_label, played.row_time_s, seed, window)
