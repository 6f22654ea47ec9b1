"""What training makes small, where it is not the plain mean square.

Rules: `loss(windows, out)` of (K, T, C) windows and what the model gives of them; `keras.ops` only; never below 0, so
that "better by a part" has a meaning.
"""

from typing import Any

from keras import ops

from tocsin.core.scoring import LOG_STD_FLOOR

BELOW_FLOOR = 1.0  # price of a log standard deviation below the floor, where the score no longer changes


def last_rows(windows: Any, out: Any) -> Any:
    """Mean square error of (K, n, C) predictions of the last n rows."""
    return ops.mean(ops.square(windows[:, -out.shape[1] :] - out))


def deviance(windows: Any, out: Any) -> Any:
    """Half of the mean square residual of a `probability` member, see `tocsin.core.scoring`: a log likelihood.

    Args:
        windows: (K, T, C).
        out: (K, 2T, C) means, then log standard deviations.
    """
    mean, log_std = ops.split(ops.cast(out, "float32"), 2, axis=1)
    over = ops.relu(log_std - LOG_STD_FLOOR)
    below = ops.relu(LOG_STD_FLOOR - log_std)
    square = ops.square((windows - mean) * ops.exp(-over - LOG_STD_FLOOR))
    return ops.mean(0.5 * square + over + BELOW_FLOOR * below)
