"""A network and the linear models beside it: who wins, and by how much.

Rules: where only networks were asked for, the linear models for such a signal are fitted too, on the rows that the
networks are fitted on, shown as one row, and never ship; what decides is the figure against labels where there are
some, else the separation of injected anomalies.
"""

from dataclasses import dataclass

from tocsin_trainer.results import Candidate

EQUAL = 0.005  # a difference below this is none
LABELLED = {"vus_pr": "VUS-PR against the labels", "roc_auc": "ROC-AUC against the labels"}
NOT_ASKED = "fitted for comparison: it was not asked for"


@dataclass(frozen=True)
class Comparison:
    """A network against the best of the linear candidates.

    Attributes:
        network: that ships.
        linear: it is compared with.
        figures: name of a figure → the network's, the linear model's; the first one decides.
    """

    network: Candidate
    linear: Candidate
    figures: dict[str, tuple[float, float]]

    @property
    def lead(self) -> float:
        """By how much the network is better; below 0 it is worse."""
        ours, theirs = next(iter(self.figures.values()))
        return ours - theirs

    def sentence(self) -> str:
        """Who wins, by how much and against what."""
        told = [_told(name, *pair) for name, pair in self.figures.items()]
        won = "is as good as" if abs(self.lead) < EQUAL else "wins against" if self.lead > 0 else "loses to"
        return f"{self.network.title} {won} the linear {self.linear.title}: {'; '.join(told)}"


def _told(name: str, ours: float, theirs: float) -> str:
    gap = ours - theirs
    by = "no difference" if abs(gap) < EQUAL / 10 else f"{abs(gap):.3f} {'more' if gap > 0 else 'less'}"
    return f"{name} {ours:.3f} against {theirs:.3f}, {by}"


def compared(candidates: tuple[Candidate, ...]) -> Comparison | None:
    """The network that ships against the best linear candidate; None where none of either kind is there."""
    shipped = next((c for c in candidates if c.chosen), None)
    rivals = [c for c in candidates if c.gate.passed and not len(c.train_loss)]
    if shipped is None or not len(shipped.train_loss) or not rivals:
        return None
    # One that was fitted for this alone has seen the same rows.
    best = max(rivals, key=lambda c: (c.beside, c.separation))
    figures = {
        words: (shipped.figures[key], best.figures[key])
        for key, words in LABELLED.items()
        if key in shipped.figures and key in best.figures
    }
    separation = {"separation of injected anomalies": (shipped.separation, best.separation)}
    return Comparison(shipped, best, figures | separation)
