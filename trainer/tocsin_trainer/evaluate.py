"""Recordings played as the device would see them, and what that says about a model.

The windows, scores and alarms come from `tocsin.core` and `tocsin.alarms`: the agent's own code.
"""

import numpy as np

from tocsin.alarms.detector import AlarmDetector, AlarmRule
from tocsin.core.scoring import Scorer, Smoother
from tocsin.core.windowing import SlidingWindow
from tocsin.records import Change, Floats
from tocsin_trainer import metrics
from tocsin_trainer.dataset import Stretch
from tocsin_trainer.export import Grid
from tocsin_trainer.results import Played


def play(title: str, scorer: Scorer, stretches: tuple[Stretch, ...], grid: Grid, rule: AlarmRule) -> Played:
    """Scores and alarms over some stretches, in order.

    Args:
        title: what the report calls it.
        scorer: with its threshold.
        stretches: rows, with labels or without.
        grid: how rows become windows.
        rule: when a score becomes an alarm.
    """
    channels = stretches[0].rows.values.shape[1]
    length, hop = grid.length, grid.hop
    window, detector = SlidingWindow(length, hop, channels), AlarmDetector(rule)
    smoother = Smoother(grid.smoothing, scorer.threshold)
    end_s, score, share, anomaly, labels, row_scores = [], [], [], [], [], []
    alarms: list[tuple[float, float]] = []
    raised_s: float | None = None
    for stretch in stretches:
        found = window.push(stretch.rows)
        smoother.reset()
        scores = smoother.update(scorer.score(found.values))
        on, changes = detector.update(scores.ratio)
        for k, change in changes:
            if change is Change.RAISED:
                raised_s = float(found.end_s[k])
            elif raised_s is not None:
                alarms.append((raised_s, float(found.end_s[k])))
                raised_s = None
        end_s.append(found.end_s.copy())
        score.append(scores.value)
        share.append(scores.share())
        anomaly.append(on)
        if stretch.label is not None:
            last_row = np.arange(len(found)) * hop + length - 1
            labels.append(stretch.label[last_row])
            row_scores.append(_by_row(scores.value, len(stretch), length, hop))
    if raised_s is not None:
        alarms.append((raised_s, float(stretches[-1].rows.time_s[-1])))
    labelled = len(labels) == len(stretches)
    return Played(
        title=title,
        row_time_s=np.concatenate([s.rows.time_s for s in stretches]),
        rows=np.concatenate([s.rows.values for s in stretches]),
        end_s=np.concatenate(end_s),
        score=np.concatenate(score),
        anomaly=np.concatenate(anomaly),
        share=np.concatenate(share),
        row_label=np.concatenate([s.label for s in stretches if s.label is not None]) if labelled else None,
        window_label=np.concatenate(labels) if labelled else None,
        row_score=np.concatenate(row_scores) if labelled else None,
        alarms=tuple(alarms),
    )


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
