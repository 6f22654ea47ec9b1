"""Weights of an ensemble's members from labelled windows (stacking: Wolpert, Neural Networks 5, 1992).

Rules: weights are 0 or more, so that a higher score of a member never makes the ensemble calmer; and have mean 1, so
that limits stay of one size. What these weights were fitted on must never be what is then reported.
"""

import numpy as np

from tocsin.records import Bools, Floats

RIDGE = 0.01  # of the squared weights: members that say the same share, and perfect ones do not grow without end
STEPS = 500
FAR = 20.0  # times typical: how far over, beyond this, makes no difference to a decision


def stacked_weights(scores: Floats, labels: Bools) -> Floats:
    """Weights by which the members' scores tell anomalous windows from normal ones best.

    A logistic regression on the scores without negative weights (Breiman, Machine Learning 24, 1996), in which normal
    and anomalous windows count alike, however rare these are. Never report figures on the windows that were given here,
    nor on their neighbours in time: take labels of another stretch of the recording.

    Args:
        scores: (M, K) of M members on K labelled windows, each divided by the member's normaliser.
        labels: (K,) true where a window is anomalous.

    Returns:
        (M,) weights of mean 1, see `tocsin.core.scoring`; all 1 where labels are of one class, or no member helps.

    Raises:
        ValueError: shapes that do not fit, or scores that are not finite.
    """
    members, label = len(scores), np.asarray(labels, bool)
    if scores.ndim != 2 or scores.shape[1:] != label.shape:
        raise ValueError(f"expected scores (M, K) and labels (K,), got {scores.shape} and {label.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("expected finite scores: leave windows out that could not be scored")
    if not label.any() or label.all():
        return np.ones(members)
    seen = np.minimum(scores, FAR)
    spread = seen.std(axis=1)
    spread[spread == 0] = np.inf  # a member that always says the same says nothing
    features = (seen - seen.mean(axis=1, keepdims=True)) / spread[:, None]
    weights = _regression(features, label) / spread
    return weights * (members / weights.sum()) if weights.sum() > 0 else np.ones(members)


def _regression(features: Floats, label: Bools) -> Floats:
    """(M,) the weights, 0 or more, of a logistic regression with intercept on (M, K) features of mean 0.

    By accelerated projected gradients (Beck & Teboulle, SIAM Journal on Imaging Sciences 2, 2009).
    """
    sign = np.where(label, 1.0, -1.0)
    share = np.where(label, 0.5 / np.count_nonzero(label), 0.5 / np.count_nonzero(~label))
    rows = np.vstack([features, np.ones(len(label))])  # the last one for the intercept
    price = np.append(np.full(len(features), 2 * RIDGE), 0.0)
    lowest = np.append(np.zeros(len(features)), -np.inf)
    step = 1.0 / (0.25 * np.linalg.eigvalsh((rows * share) @ rows.T)[-1] + 2 * RIDGE)
    at = ahead = np.zeros(len(rows))
    speed = 1.0
    for _ in range(STEPS):
        margin = sign * (ahead @ rows)
        slope = price * ahead - rows @ (share * sign * 0.5 * (1.0 - np.tanh(margin / 2)))
        last, at = at, np.maximum(ahead - step * slope, lowest)
        before, speed = speed, 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * speed**2))
        ahead = at + (before - 1.0) / speed * (at - last)
    return at[:-1]
