"""A threshold from scores of normal running that the model was not fitted on.

```
bare scores, modes ─ ÷ typical score of the mode ─ smooth ─► courses ─ rule ─► threshold, promise
```
Rules: the courses are what the device will see: its own smoothing, its own detector. Each operating mode has its own
limit; with a budget all limits rise and fall together, as one alarm is counted and not one a mode. A mode that
calibration has hardly seen gets the largest limit, and that is said.
"""

from dataclasses import dataclass, replace

import numpy as np

from tocsin.alarms.detector import AlarmRule
from tocsin.core.promise import Promise
from tocsin.core.scoring import Smoother, limits_of
from tocsin.core.threshold import Threshold, highest, mu_sigma, pot, quantile
from tocsin.errors import ConfigError
from tocsin.records import Floats, Ints, Scores

METHODS = ("highest", "mu_sigma", "quantile", "pot", "budget", "fixed")
MIN_WINDOWS = 20  # of a mode, for a limit of its own
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class ThresholdRule:
    """How the limit is found.

    Attributes:
        method: one of METHODS.
        k: of mu_sigma.
        q: of quantile and pot.
        margin: of quantile: factor on top, for what a finite sample has not shown.
        value: of fixed.
        false_alarms: of budget: alarm episodes an hour, see `tocsin.core.promise.parse_rate`.
    """

    method: str = "highest"
    k: float = 5.0
    q: float = 0.999
    margin: float = 1.25
    value: float | None = None
    false_alarms: float | None = None

    def limit(self, scores: Floats, independent: float | None = None, maxima: Floats | None = None) -> Threshold:
        """The limit for these calibration scores, each taken for itself.

        With a budget, which needs whole courses (see `calibrate`), it is that of `pot`: where windows are compared one
        by one, as the gate does, the height of the limit matters and no rate does.

        Args:
            scores: (K,).
            independent: how many of them tell something of their own, see `highest`; None = all.
            maxima: of the recording's parts, see `highest`.

        Raises:
            ConfigError: `fixed` without a value above 0, or an unknown method.
        """
        if self.method == "highest":
            return highest(scores, len(scores) if independent is None else independent, maxima)
        if self.method == "mu_sigma":
            return mu_sigma(scores, self.k)
        if self.method == "quantile":
            return quantile(scores, self.q, self.margin)
        if self.method in ("pot", "budget"):
            return pot(scores, self.q)
        if self.method == "fixed" and self.value is not None and self.value > 0:
            return Threshold(self.value)
        raise ConfigError(
            f"threshold method {self.method!r}: expected one of {', '.join(METHODS)}; fixed needs a value above 0"
        )


@dataclass(frozen=True)
class Calibrated:
    """A threshold, and what it was found on.

    Attributes:
        threshold: to ship; its `promise` is set where a budget was asked for.
        courses: (K,) smoothed scores of each stretch, as `tocsin_trainer.evaluate.play` gives them.
        notes: for the report: the promise or the refusal, modes without a limit of their own.
    """

    threshold: Threshold
    courses: tuple[Floats, ...]
    notes: tuple[str, ...]

    @property
    def promise(self) -> Promise | None:
        """Of false alarms, where a budget was asked for."""
        return self.threshold.promise


def calibrate(
    stretches: tuple[Scores, ...],
    hop_s: float,
    rule: ThresholdRule,
    alarm: AlarmRule,
    *,
    smoothing: int = 1,
    modes: int = 1,
    seed: int = 0,
    independent: float | None = None,
) -> Calibrated:
    """The threshold for scores of normal running.

    Args:
        stretches: bare scores of the converted model, of each stretch that no fit has seen; in order, unsmoothed, with
            `mode` where there are modes.
        hop_s: from one window to the next.
        rule: how the limit is found.
        alarm: the detector that the bundle ships.
        smoothing: span of the smoothing that the bundle ships, windows.
        modes: how many operating modes there are.
        seed: of the bootstrap.
        independent: how many windows tell something of their own, see `tocsin.core.threshold.highest`; None = all.

    Raises:
        ConfigError: see `ThresholdRule.limit`; a budget without a rate.
    """
    stretches = tuple(scores for scores in stretches if len(scores))
    if rule.method == "fixed":
        whole = rule.limit(np.empty(0))
        notes: list[str] = []
        threshold = replace(whole, limits=(whole.value,) * modes if modes > 1 else ())
    else:
        # Smoothing needs limits, and limits smoothed scores: typical scores stand in for them at first.
        threshold = _typical(stretches, modes)
        if smoothing > 1 or modes > 1:
            threshold, _ = _limits(_smoothed(stretches, smoothing, threshold), rule, threshold, independent)
        smoothed = _smoothed(stretches, smoothing, threshold)
        found = _budget(smoothed, hop_s, rule, alarm, threshold, seed) if rule.method == "budget" else None
        threshold, notes = _limits(smoothed, rule, threshold, independent, found)
    courses = tuple(
        scores.value * (threshold.value / limits_of(threshold, scores))
        for scores in _smoothed(stretches, smoothing, threshold)
    )
    return Calibrated(threshold, courses, tuple(notes))


def _smoothed(stretches: tuple[Scores, ...], span: int, threshold: Threshold) -> tuple[Scores, ...]:
    return tuple(Smoother(span, threshold).update(scores) for scores in stretches)


def _typical(stretches: tuple[Scores, ...], modes: int) -> Threshold:
    """The geometric mean of the scores, and of those of each mode, as a threshold."""
    logs = np.log(np.maximum(np.concatenate([scores.value for scores in stretches]), TINY))
    finite = np.isfinite(logs)
    every = float(np.exp(logs[finite].mean())) if finite.any() else 1.0
    if modes == 1:
        return Threshold(every)
    mode = _modes(stretches)
    own = [finite & (mode == m) for m in range(modes)]
    limits = tuple(float(np.exp(logs[which].mean())) if which.any() else every for which in own)
    return Threshold(max(limits), limits=limits)


def _modes(stretches: tuple[Scores, ...]) -> Ints:
    return np.concatenate([np.zeros(len(s), np.int64) if s.mode is None else s.mode for s in stretches])


def _courses(smoothed: tuple[Scores, ...], unit: Threshold) -> tuple[Floats, ...]:
    """Scores as they are; where there are modes, in units of their limits."""
    return tuple(np.maximum(s.value / unit.of(s.mode) if unit.limits else s.value, TINY) for s in smoothed)


def _budget(
    smoothed: tuple[Scores, ...], hop_s: float, rule: ThresholdRule, alarm: AlarmRule, unit: Threshold, seed: int
) -> Threshold:
    from tocsin_trainer.budget import budget  # noqa: PLC0415 - options.py imports this module, and stays light

    if rule.false_alarms is None:
        raise ConfigError("the budget of false alarms has no rate: expected one such as --false-alarms 1/week")
    found = budget(_courses(smoothed, unit), hop_s, rule.false_alarms, alarm, seed)
    return Threshold(found.limit, "budget", found.parameters, promise=found.promise)


def _limits(
    smoothed: tuple[Scores, ...],
    rule: ThresholdRule,
    unit: Threshold,
    independent: float | None,
    found: Threshold | None = None,
) -> tuple[Threshold, list[str]]:
    """The threshold, and what is to be said of it.

    Args:
        smoothed: scores of each stretch.
        rule: how the limit is found.
        unit: rough limits of the modes.
        independent: see `calibrate`.
        found: the limit that a budget gives, in that unit where there are modes.
    """
    every, mode = np.concatenate(_courses(smoothed, unit)), _modes(smoothed)
    maxima = np.array([course.max() for course in _courses(smoothed, unit)]) if independent is not None else None
    whole = found or rule.limit(every, independent, maxima)
    notes = [] if whole.promise is None else [whole.promise.sentence()]
    if not unit.limits:
        return whole, notes
    limits: list[float | None] = []
    for m, scale in enumerate(unit.limits):
        own = every[mode == m]
        part = None if independent is None else independent * len(own) / max(1, len(every))
        factor = (found or rule.limit(own, part)).value if len(own) >= MIN_WINDOWS else None
        limits.append(None if factor is None else factor * scale)
    largest = max((limit for limit in limits if limit is not None), default=whole.value * unit.value)
    unseen = [str(m) for m, limit in enumerate(limits) if limit is None]
    if unseen:
        notes.append(
            f"calibration has hardly seen mode {', '.join(unseen)}: the largest limit is taken there, as it is where "
            "the mode is unknown"
        )
    shipped = tuple(largest if limit is None else limit for limit in limits)
    return replace(whole, value=max(shipped), limits=shipped), notes
