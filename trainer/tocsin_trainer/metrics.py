"""Honest figures: labels against scores and alarms.

Rules: no point adjustment (a row that was not over counts as missed, whatever its neighbours did); an event is a run
of labelled rows; a figure that is not defined on the data (recall without a labelled row) is left out, never NaN.
`label` and `over` are (m,) bool and `score` is (m,) float, one a row, higher = more anomalous.

| figure                                             | defined when                             |
|----------------------------------------------------|------------------------------------------|
| `vus_pr`, `average_precision`, `roc_auc`           | both kinds of row are there              |
| `f1`, `recall`, `mar` (missed alarm rate, FN/P)    | a row is labelled                        |
| `precision`                                        | a row is over                            |
| `far` (false alarm rate, FP/N)                     | a row is not labelled                    |
| `events`, `found`, `missed`, `false_events`        | always                                   |
| `event_recall`                                     | there is an event                        |
| `delay_rows`, `delay_s` (median, to the first row) | an event was found                       |
| `false_events_per_day` (of unlabelled running)     | at least two rows, one of them unlabelled |
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from tocsin.records import Bools, Floats, Ints

NO_PERIOD = 125  # rows: the window of the volume under the surface where a series shows no period
_DAY_S = 86400.0


def point_figures(label: Bools, over: Bools) -> dict[str, float]:
    """F1, precision, recall, FAR and MAR of single rows; several files are pooled by concatenating them.

    >>> point_figures(np.array([True, True, False, False]), np.array([True, False, False, True]))
    {'f1': 0.5, 'precision': 0.5, 'recall': 0.5, 'far': 0.5, 'mar': 0.5}
    """
    hit, false = int(np.count_nonzero(label & over)), int(np.count_nonzero(~label & over))
    positive = int(np.count_nonzero(label))
    negative = len(label) - positive
    figures = {}
    if positive:
        figures["f1"] = 2 * hit / (positive + hit + false)
    if hit + false:
        figures["precision"] = hit / (hit + false)
    if positive:
        figures["recall"] = hit / positive
    if negative:
        figures["far"] = false / negative
    if positive:
        figures["mar"] = (positive - hit) / positive
    return figures


def event_figures(label: Bools, over: Bools, time_s: Floats) -> dict[str, float]:
    """Events found and missed, false events and the delay.

    An event is found if any row inside is over; its delay runs from its first row to the first that is over. A false
    event is a run of rows over the limit that touches no labelled row.

    Args:
        label: (m,) labelled rows.
        over: (m,) rows over the limit.
        time_s: (m,) of the rows; the days of unlabelled running are their number times the median step, so that
            gaps do not count as running.
    """
    starts, stops = runs(label)
    first_over = _next_true(over)[starts]
    found = first_over < stops
    false_starts, false_stops = runs(over)
    false = int(np.count_nonzero(_next_true(label)[false_starts] >= false_stops))
    figures: dict[str, float] = {
        "events": len(starts),
        "found": int(np.count_nonzero(found)),
        "missed": int(np.count_nonzero(~found)),
        "false_events": false,
    }
    if len(starts):
        figures["event_recall"] = figures["found"] / len(starts)
    if found.any():
        first, last = starts[found], first_over[found]
        figures["delay_rows"] = float(np.median(last - first))
        figures["delay_s"] = float(np.median(time_s[last] - time_s[first]))
    running_s = float(np.count_nonzero(~label) * np.median(np.diff(time_s))) if len(time_s) > 1 else 0.0
    if running_s > 0:
        figures["false_events_per_day"] = false * _DAY_S / running_s
    return figures


def rank_figures(label: Bools, score: Floats, window: int = NO_PERIOD) -> dict[str, float]:
    """ROC-AUC, average precision and VUS-PR: how well the score ranks rows, whatever the limit.

    Args:
        label: (m,) labelled rows.
        score: (m,) finite.
        window: rows, for VUS-PR; `window_length` of the test series' first channel.
    """
    if not label.any() or label.all():
        return {}
    return {
        "roc_auc": float(roc_auc_score(label, score)),
        "average_precision": float(average_precision_score(label, score)),
        "vus_pr": vus_pr(label, score, window),
    }


def label_figures(
    label: Bools, score: Floats, limit: float, time_s: Floats, window: int = NO_PERIOD
) -> dict[str, float]:
    """All figures of one score and the limit that ships; a row is over at `score ≥ limit`."""
    over = score >= limit
    return rank_figures(label, score, window) | point_figures(label, over) | event_figures(label, over, time_s)


def best_f1(label: Bools, score: Floats) -> float | None:
    """F1 at the limit that only the test labels could tell: an oracle, for comparing with boards; None without labels.

    Never a figure of what ships.
    """
    if not label.any():
        return None
    precision, recall, _ = precision_recall_curve(label, score)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def always_on(label: Bools) -> Bools:
    """(m,) the alarm that is never off: what any F1 has to beat."""
    return np.ones(len(label), np.bool_)


def random_scores(label: Bools, seed: int) -> Floats:
    """(m,) scores that know nothing: what any ranking has to beat."""
    return np.random.default_rng(seed).random(len(label))


def baseline_figures(label: Bools, time_s: Floats, seed: int, window: int = NO_PERIOD) -> dict[str, dict[str, float]]:
    """Figures of the two detectors that look at nothing, to stand beside ours; empty without a labelled row."""
    if not label.any():
        return {}
    on = always_on(label)
    return {
        "always-on": point_figures(label, on) | event_figures(label, on, time_s),
        "random": rank_figures(label, random_scores(label, seed), window),
    }


def runs(flags: Bools) -> tuple[Ints, Ints]:
    """First rows and rows after the last of each run of true.

    >>> runs(np.array([True, False, True, True]))
    (array([0, 2]), array([1, 4]))
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return edges[::2], edges[1::2]


def _next_true(flags: Bools) -> Ints:
    """(m + 1,) index of the first true at or after each row; m where there is none."""
    at = np.where(np.append(flags, True), np.arange(len(flags) + 1), len(flags))
    first: Ints = np.minimum.accumulate(at[::-1])[::-1]
    return first


def vus_pr(label: Bools, score: Floats, window: int, thresholds: int = 250) -> float:
    """Volume under the precision-recall surface, 0 to 1 (Paparrizos et al., "Volume under the surface", VLDB 2022).

    The mean over buffers of w = 0 … `window` rows of the average precision in which a row at distance d ≤ w / 2
    outside an event counts as √(1 − d / w) labelled, and recall is scaled by the part of (buffered, merged) events
    with any row over. Equal to TSB-AD 1.5's `generate_curve(label, score, window, "opt", 250)[-1]`.

    Args:
        label: (m,) with both kinds of row.
        score: (m,) finite; only its order matters.
        window: rows, ≥ 0.
        thresholds: limits that are tried, at even ranks of the score.

    Raises:
        ValueError: no row is labelled, or every one.
    """
    if not label.any() or label.all():
        raise ValueError("expected labelled and unlabelled rows: the precision-recall surface needs both")
    rows = len(label)
    limits = -np.sort(-score)[np.linspace(0, rows - 1, thresholds).astype(int)]
    rank = np.searchsorted(-limits, -score)  # (m,) a row is over from this limit on
    over = np.cumsum(np.bincount(rank, minlength=thresholds))
    hits = np.cumsum(np.bincount(rank[label], minlength=thresholds))
    positive = int(np.count_nonzero(label))
    row, distance = _surroundings(label, window // 2)
    near, place = np.unique(row, return_inverse=True)  # the unlabelled rows that any buffer reaches
    near_rank = rank[near]

    total, share = 0.0, np.empty(0)
    for w in range(window + 1):
        used = int(np.searchsorted(distance, w // 2, side="right"))
        weight = np.sqrt(1 - np.arange(w // 2 + 1) / max(w, 1))[distance[:used]]
        soft = np.minimum(np.bincount(place[:used], weights=weight, minlength=len(near)), 1.0)
        extra = np.cumsum(np.bincount(near_rank, weights=soft, minlength=thresholds))
        if w % 2 == 0:
            share = _events_over(label, rank, w // 2, thresholds)
        recall = np.minimum((hits + extra) / (positive + extra / 2), 1.0) * share
        total += float(np.diff(recall, prepend=0.0) @ ((hits + extra) / over))
    return total / (window + 1)


def _surroundings(label: Bools, reach: int) -> tuple[Ints, Ints]:
    """(unlabelled row, its distance to an event) for every event within reach, nearest first."""
    starts, stops = runs(label)
    away = np.arange(1, reach + 1)
    row = np.concatenate((stops[:, None] - 1 + away, starts[:, None] - away)).ravel()
    distance = np.tile(away, 2 * len(starts))
    kept = (row >= 0) & (row < len(label))
    kept[kept] = ~label[row[kept]]
    order = np.argsort(distance[kept], kind="stable")
    return row[kept][order], distance[kept][order]


def _events_over(label: Bools, rank: NDArray[np.intp], reach: int, thresholds: int) -> Floats:
    """(thresholds,) part of the events, widened by `reach` and merged where they meet, with a row over each limit."""
    starts, stops = runs(label)
    apart = stops[:-1] - 1 + reach < starts[1:] - reach
    first = np.maximum(starts[np.append(True, apart)] - reach, 0)
    last = np.minimum(stops[np.append(apart, True)] + reach, len(label))
    lowest = np.minimum.reduceat(np.append(rank, thresholds), np.column_stack((first, last)).ravel())[::2]
    return np.cumsum(np.bincount(lowest, minlength=thresholds)) / len(first)


def window_length(series: Floats) -> int:
    """Rows of the strongest period, for `vus_pr`; TSB-AD 1.5's `find_length_rank(series, 1)`.

    The highest local maximum of the autocorrelation over lags 3 to 400 of the first 20,000 rows; 125 where there is
    none, or outside lags 6 to 303.

    Args:
        series: (m,) one channel.
    """
    centred = series[:20000] - np.mean(series[:20000]) if len(series) else series
    spectrum = np.fft.rfft(centred, 1 << (2 * len(centred) + 1).bit_length())
    power = np.fft.irfft(np.abs(spectrum) ** 2)[: min(len(centred), 401)]
    if len(power) < 6 or power[0] <= 0:
        return NO_PERIOD
    lags = power[3:] / power[0]
    peaks = np.flatnonzero((lags[1:-1] > lags[:-2]) & (lags[1:-1] > lags[2:])) + 1
    if not len(peaks):
        return NO_PERIOD
    best = int(peaks[np.argmax(lags[peaks])])
    return best + 3 if 3 <= best <= 300 else NO_PERIOD
