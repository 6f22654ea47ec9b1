"""Which candidate ships: ranked without labels, by what is known of each.

```
separation   ROC-AUC between normal windows and the same with a made-up anomaly
stability    what the worst block of time, as the limit, leaves of the anomalies that are found          0 to 1
agreement    rank correlation with the scores of a model trained from another seed; solved ones: 1       0 to 1
cost         bytes, and µs a window: over the device's budget is out; of equal networks the quickest ships
worth        ½ + (separation − ½) · stability · agreement
```
Rules: nothing is trained or scored here. Labels are never used. Made-up anomalies flatter networks, and do not rank
linear models, so the panel of linear models for the kind of signal, as a weighted geometric mean, is what a network,
or the panel combined otherwise, has to beat clearly, on a recording that is long enough to tell; no linear model by
itself stands against it. Agreement costs a training: it is
measured only of who would ship without it.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from tocsin.errors import GateError
from tocsin.records import Floats
from tocsin_trainer.device_budget import Cost, DeviceBudget
from tocsin_trainer.models import FAMILIES
from tocsin_trainer.reasons import MARGIN
from tocsin_trainer.results import Candidate

ENOUGH_WINDOWS = 200  # end to end: of less normal running, a lead is luck
CLOSE = 0.005  # worths this near count as equal: the quickest model ships
BLOCKS = 5  # of time
FEWEST = 8  # windows a block
HIGH = 0.95  # quantile of a block's scores, over which an anomaly would be found


def stability(normal: Floats, injected: Floats) -> float | None:
    """Part of the anomalies that are found with a usual block of time that is still found with the worst one.

    Each block's upper quantile is taken for a limit: of scores that wander, one block's limit hides what another's
    finds. It does not depend on the scale of the scores.

    Args:
        normal: (K,) scores of normal running that the model was not fitted on, in order of time.
        injected: (M,) scores of windows with made-up anomalies.

    Returns:
        0 to 1; None where there is too little to make two blocks of.

    >>> anomalies = np.linspace(0.0, 10.0, 101)
    >>> steady, wandering = np.tile([1.0, 2.0], 40), np.repeat([1.0, 1.0, 2.0, 2.0, 6.0], 16)
    >>> round(stability(steady, anomalies), 2), round(stability(wandering, anomalies), 2)
    (1.0, 0.5)
    """
    blocks = min(BLOCKS, len(normal) // FEWEST)
    if blocks < 2:
        return None
    limits = [np.quantile(block, HIGH) for block in np.array_split(normal, blocks)]
    found = np.array([np.mean(injected > limit) for limit in limits])
    usual = float(np.median(found))
    return float(found.min()) / usual if usual > 0 else 0.0


def agreement(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation of two models' scores of the same windows, 0 where it is below or nothing varies."""
    if min(np.ptp(first), np.ptp(second)) == 0:
        return 0.0
    return max(0.0, float(np.corrcoef(_ranks(first), _ranks(second))[0, 1]))


def _ranks(scores: Floats) -> Floats:
    """Place of each in the order of size; equal ones share the mean of theirs."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks


def networks(candidate: Candidate) -> tuple[str, ...]:
    """Those of its families that are trained, not solved."""
    return tuple(family for family in candidate.family.split("+") if FAMILIES[family].epochs)


def choose(
    candidates: Sequence[Candidate], panel: Iterable[str], windows: float, budget: DeviceBudget, *, int8: bool = False
) -> tuple[int, str]:
    """Place of the one that ships, and why.

    Args:
        candidates: judged; those that are over the budget say so in `why_not`.
        panel: families of the linear ensemble for such a signal.
        windows: of normal running, end to end.
        budget: of the device.
        int8: asked for, come what may: who did not pass the gate is taken where nobody did.

    Raises:
        GateError: nobody passed the gate, or fits the budget.
    """
    asked = [k for k, candidate in enumerate(candidates) if not candidate.beside]
    fits = _fits(candidates, asked, budget, int8)
    if len(asked) == 1:
        return fits[0], "the only family asked for"
    linear = [k for k in fits if not networks(candidates[k])]
    if not linear:
        best = max(fits, key=lambda k: candidates[k].worth)
        close = [k for k in fits if candidates[k].worth >= candidates[best].worth - CLOSE]
        chosen = min(close, key=lambda k: candidates[k].latency_us)
        nearly = "" if chosen == best else f", within {CLOSE} of the best, and is the quickest of those"
        return chosen, f"of the networks it is worth most: {_told(candidates[chosen])}{nearly}"
    usual = _panel([(k, candidates[k]) for k in linear], set(panel))
    rivals = [k for k in fits if networks(candidates[k]) or candidates[k].family == candidates[usual].family]
    best = max(rivals, key=lambda k: _lead(candidates[k], candidates[usual]))
    lead = _lead(candidates[best], candidates[usual])
    rival = f"{candidates[best].title} ({_told(candidates[best])})"
    if lead >= MARGIN and windows >= ENOUGH_WINDOWS:
        what = "together otherwise, which" if best in linear else "a network that"
        return best, f"{what} is {lead:.3f} better than the linear models as they are usually taken: {rival}"
    together = len(set(candidates[usual].family.split("+")) & set(panel)) > 1
    what = "linear models that see different things, together" if together else "the linear model for such a signal"
    why = f"the default, {what} ({_told(candidates[usual])})"
    if lead > 0:
        short = (
            f"leads, but {windows:.0f} windows of normal running are too few to trust it, {ENOUGH_WINDOWS} are needed"
        )
        took = f"does not lead by {MARGIN:g} in worth and in separation, which it would take"
        why += f"; {rival} {short if lead >= MARGIN else took}"
    return usual, why


def cost(candidate: Candidate) -> Cost:
    """What it takes of the device."""
    return Cost(candidate.family, candidate.bytes, candidate.latency_us)


def _fits(candidates: Sequence[Candidate], asked: list[int], budget: DeviceBudget, int8: bool) -> list[int]:
    passed = [k for k in asked if candidates[k].gate.passed]
    if not passed and int8:
        passed = asked
    if not passed:
        reasons = "; ".join(f"{candidates[k].family}: {candidates[k].gate.reason}" for k in asked)
        raise GateError(f"no candidate decides alike before and after conversion: {reasons}")
    fits = [k for k in passed if not candidates[k].why_not]
    if not fits:
        raise GateError(budget.none_fits(cost(candidates[k]) for k in passed))
    return fits


def _panel(linear: list[tuple[int, Candidate]], known: set[str]) -> int:
    """The candidate that holds most of the panel; as a weighted mean where it is there, else the best of them."""
    held = {k: len(set(candidate.family.split("+")) & known) for k, candidate in linear}
    most = max(held.values())
    fullest = [(k, candidate) for k, candidate in linear if held[k] == most]
    return max(fullest, key=lambda each: (each[1].combination == "weighted", each[1].worth))[0]


def _lead(candidate: Candidate, usual: Candidate) -> float:
    """In worth and in separation, the less of the two.

    A panel that is held back in turn shows all times of a recording, a network the part that was kept from it: the
    steadiness of the two is not quite the same thing.
    """
    return min(candidate.worth - usual.worth, candidate.separation - usual.separation)


def _told(candidate: Candidate) -> str:
    facts = [f"worth {candidate.worth:.3f}", f"separation {candidate.separation:.3f}"]
    if candidate.stability is not None:
        facts.append(f"stability {candidate.stability:.2f}")
    if networks(candidate) and candidate.agreement is not None:
        facts.append(f"agreement of two seeds {candidate.agreement:.2f}")
    return ", ".join(facts)
