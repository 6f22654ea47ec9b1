"""Whether a converted model may stand in for the float one: same decisions, same ranking, same scores."""

import numpy as np

from tocsin.records import Floats
from tocsin_trainer.results import Gate

MIN_AGREEMENT = 0.99
MAX_AUC_CHANGE = 0.01
MIN_CORRELATION = 0.9
MAX_DISTORTION = 1.0
FAR_OVER = 100.0  # times the limit: how far over, beyond this, makes no difference


def gate(
    float_normal: Floats,
    converted_normal: Floats,
    float_injected: Floats,
    converted_injected: Floats,
    threshold_float: float,
    threshold_converted: float,
    float_wide: Floats | None = None,
    converted_wide: Floats | None = None,
) -> Gate:
    """Compares the scores of two models on the same windows.

    Args:
        float_normal: (K,) of the float model on calibration windows.
        converted_normal: (K,) of the converted one.
        float_injected: (M,) of the float model on calibration windows with injected anomalies, or amplified and
            drifted otherwise.
        converted_injected: (M,) of the converted one.
        threshold_float: limit on the float model's scores.
        threshold_converted: limit on the converted model's scores, by the same rule.
        float_wide: (W,) of the float model on windows far outside of normal running, where int8 saturates.
        converted_wide: (W,) of the converted one.

    Returns:
        What was found; `reason` names every figure outside of its limit.
    """
    correlation = _correlation(
        _told_apart(np.concatenate([float_normal, float_injected]), threshold_float),
        _told_apart(np.concatenate([converted_normal, converted_injected]), threshold_converted),
    )
    over_float = np.concatenate([float_normal, float_injected]) >= threshold_float
    over_converted = np.concatenate([converted_normal, converted_injected]) >= threshold_converted
    agreement = float(np.mean(over_float == over_converted))
    auc_float = roc_auc(float_normal, float_injected)
    auc_converted = roc_auc(converted_normal, converted_injected)
    distortion = 0.0
    if float_wide is not None and converted_wide is not None:
        far = _told_apart(float_wide, threshold_float), _told_apart(converted_wide, threshold_converted)
        distortion = float(np.percentile(np.abs(far[1] - far[0]), 90))
    checks = (
        (agreement >= MIN_AGREEMENT, f"{agreement:.1%} of decisions agree, expected {MIN_AGREEMENT:.0%}"),
        (
            abs(auc_converted - auc_float) <= MAX_AUC_CHANGE,
            f"ROC-AUC on injected anomalies goes from {auc_float:.3f} to {auc_converted:.3f}, expected a change of "
            f"{MAX_AUC_CHANGE} at most",
        ),
        (
            distortion <= MAX_DISTORTION,
            f"scores far outside of normal running differ by a factor of {np.exp(distortion):.2f}, expected "
            f"{np.exp(MAX_DISTORTION):.2f} at most",
        ),
        (correlation >= MIN_CORRELATION, f"scores correlate at {correlation:.3f}, expected {MIN_CORRELATION}"),
    )
    reasons = [reason for passed, reason in checks if not passed]  # a figure that is not a number fails its check
    return Gate(correlation, agreement, auc_float, auc_converted, not reasons, "; ".join(reasons), distortion)


def roc_auc(normal: Floats, anomalous: Floats) -> float:
    """Chance that an anomalous window scores above a normal one, ties counted half; 0 to 1.

    >>> roc_auc(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.875
    """
    ordered = np.sort(normal)
    below = np.searchsorted(ordered, anomalous, "left") + np.searchsorted(ordered, anomalous, "right")
    return float(np.mean(below / (2 * len(normal))))


def _told_apart(scores: Floats, limit: float) -> Floats:
    """Logarithms of the ratios, as far as they make a difference."""
    return np.log(np.clip(scores / limit, 1 / FAR_OVER, FAR_OVER))


def _correlation(a: Floats, b: Floats) -> float:
    """Pearson's; for scores that do not vary, 1 when they are the same and 0 when not."""
    spread = float(np.std(a)), float(np.std(b))
    if not all(np.isfinite(spread)) or min(spread) == 0:
        return float(np.allclose(a, b))
    return float(np.corrcoef(a, b)[0, 1])
