"""What a search comes to: the front of those that nothing beats in all respects, and the one to take.

Rules: the default stays unless another finds more in every block, and by more than detection differs from block to
block; of those that do, ties go to the cheapest. A search keeps the luckiest of many: that is why the lead has to be
clear.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tocsin.errors import GateError
from tocsin_trainer.device_budget import Cost, DeviceBudget
from tocsin_trainer.tune.space import Choice

CLOSE = 0.005  # detections this near count as equal


@dataclass(frozen=True)
class Trial:
    """Settings that were tried.

    Attributes:
        number: from 0; the default's first.
        choice: of each knob.
        detections: ROC-AUC on injected anomalies, block by block; fewer than all of them where it was given up.
        cost: size and time of the converted model.
        precision: of its members.
        seconds: that it took.
        why: it was given up; empty where it was measured to the end.
    """

    number: int
    choice: Choice
    detections: tuple[float, ...]
    cost: Cost
    precision: str
    seconds: float
    why: str = ""

    @property
    def complete(self) -> bool:
        """Measured on all blocks."""
        return not self.why

    @property
    def detection(self) -> float:
        """Mean of the blocks; not a number where there is none."""
        return statistics.fmean(self.detections) if self.detections else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation between blocks."""
        return statistics.stdev(self.detections) if len(self.detections) > 1 else 0.0

    @property
    def words(self) -> str:
        """The settings in one line; what is as the default has it is left out."""
        usual = {"features": "auto", "scaling": "auto", "clean": "auto", "augment": "auto"}
        parts = [
            f"{key} {value}"
            for key, value in self.choice.items()
            if key != "model" and value not in (usual.get(key), "given")
        ]
        return ", ".join((str(self.choice.get("model", "")), *parts))

    def as_json(self) -> dict[str, Any]:
        """For `tune.json`."""
        return {
            "number": self.number,
            "settings": self.choice,
            "detection": self.detection if self.detections else None,
            "spread": self.spread,
            "blocks": list(self.detections),
            "latency_us": self.cost.latency_us,
            "bytes": self.cost.bytes,
            "precision": self.precision,
            "seconds": round(self.seconds, 3),
            "given_up": self.why,
        }


@dataclass(frozen=True)
class Outcome:
    """A search that has ended.

    Attributes:
        trials: all of them.
        front: those that no other beats in detection, time and size together; by size.
        default: what `tocsin train` does by itself; None where it was not measured.
        chosen: to be taken.
        why: one or two sentences.
        budget: that was asked for.
    """

    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    default: Trial | None
    chosen: Trial
    why: str
    budget: DeviceBudget = field(default_factory=DeviceBudget)


def dominates(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
    """Whether a finds no less, takes no longer and is no larger than b, and differs.

    >>> dominates((0.9, 10.0, 100), (0.8, 10.0, 100)), dominates((0.9, 11.0, 100), (0.8, 10.0, 100))
    (True, False)
    """
    return a[0] >= b[0] and a[1] <= b[1] and a[2] <= b[2] and a != b


def outcome(trials: Sequence[Trial], default: Choice, budget: DeviceBudget) -> Outcome:
    """The front, and which settings to take.

    Args:
        trials: that ended.
        default: settings of `tocsin train` by itself.
        budget: of the device.

    Raises:
        GateError: nothing was measured to the end, or nothing fits the budget.
    """
    complete = [each for each in trials if each.complete]
    usual = next((each for each in complete if each.choice == default), None)
    costs = [each.cost for each in trials if each.detections]
    fits = [each for each in complete if not budget.over(each.cost)]
    if not fits and costs and any(map(budget.over, costs)):
        raise GateError(budget.none_fits(costs))
    if not fits:
        reasons = "; ".join(f"trial {each.number}: {each.why}" for each in trials[:3])
        raise GateError(f"no settings were measured to the end: {reasons or 'no trial was begun'}")
    chosen, why = _chosen(fits, usual)
    return Outcome(tuple(trials), _front(complete), usual, chosen, why, budget)


def _front(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    def place(trial: Trial) -> tuple[float, float, float]:
        return (trial.detection, trial.cost.latency_us, trial.cost.bytes)

    front = [each for each in trials if not any(dominates(place(other), place(each)) for other in trials)]
    return tuple(sorted(front, key=lambda each: (each.cost.bytes, -each.detection)))


def _chosen(fits: Sequence[Trial], usual: Trial | None) -> tuple[Trial, str]:
    if usual is None:
        chosen = _best(fits)
        return chosen, "the default was not measured: the best of the others"
    if usual not in fits:
        chosen = _best(fits)
        lead = chosen.detection - usual.detection
        return chosen, f"the default does not fit the budget; {_compared(lead)} is what detection changes by"
    better = [each for each in fits if each is not usual and _clearly(each, usual)]
    if better:
        chosen = _best(better)
        lead = chosen.detection - usual.detection
        return chosen, f"it finds more than the default in every block, {_compared(lead)} in the mean"
    rival = max(fits, key=lambda each: each.detection)
    if rival is usual:
        return usual, "the default: nothing finds more"
    lead, noise = rival.detection - usual.detection, max(rival.spread, usual.spread)
    return usual, (
        f"the default: trial {rival.number} leads by {lead:.4f}, which is not clear: detection differs by {noise:.4f} "
        "from block to block, and a lead has to be larger, and there in every block"
    )


def _clearly(trial: Trial, usual: Trial) -> bool:
    """Ahead in every block, and by more than blocks differ."""
    lead = trial.detection - usual.detection
    ahead = all(a > b for a, b in zip(trial.detections, usual.detections, strict=True))
    return ahead and lead > max(trial.spread, usual.spread)


def _best(trials: Sequence[Trial]) -> Trial:
    """Highest detection, ties to the cheapest."""
    highest = max(each.detection for each in trials)
    close = [each for each in trials if each.detection >= highest - CLOSE]
    return min(close, key=lambda each: (each.cost.latency_us * each.cost.bytes, each.number))


def _compared(lead: float) -> str:
    return f"{lead:+.4f}".replace("-", "−")
