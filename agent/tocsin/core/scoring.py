"""Windows → anomaly scores, with their exact split over channels.

A member maps a preprocessed window x (T, C) to y of the same shape. What it cannot explain is the residual r:

| kind        | r     | such as                                                                        |
|-------------|-------|--------------------------------------------------------------------------------|
| reconstruct | x − y | autoencoders, PCA                                                              |
| whiten      | y     | Mahalanobis distance: y = Σ^(−½) (x − µ), so that its square is T²; the        |
|             |       | symmetric root keeps y_i next to x_i (Garthwaite & Koch, Biometrics 72, 2016)  |

    value = Σ_c per_channel_c        per_channel_c = w_c / C · mean_t r_tc²

w_c is the channel's weight. Members of an ensemble are each divided by their `normaliser` (their typical score in
normal running) and averaged; then the course of the score may be smoothed. The split stays exact through all of it.
"""

import math
from dataclasses import dataclass

import numpy as np

from tocsin.core.interpreter import TfliteModel
from tocsin.core.preprocess import Preprocessor
from tocsin.core.threshold import Threshold
from tocsin.records import Channel, Contribution, Floats, Floats32, Scores

CHUNK = 1024  # windows that are prepared and scored at once
KINDS = ("reconstruct", "whiten")
FLOOR = 1e-3  # of the limit: how far below it, beyond this, makes no difference to the smoothed score


@dataclass(frozen=True)
class Member:
    """One model of a bundle.

    Attributes:
        model: (K, T, C) → (K, T, C), of preprocessed windows.
        preprocessor: engineering units → the model's input.
        kind: `reconstruct` or `whiten`.
        normaliser: its typical score in normal running; 1 for a bundle of one.
    """

    model: TfliteModel
    preprocessor: Preprocessor
    kind: str = "reconstruct"
    normaliser: float = 1.0

    def residual(self, prepared: Floats32) -> Floats32:
        """(K, T, C) what the model does not explain."""
        out = self.model.predict(prepared)
        return out if self.kind == "whiten" else prepared - out


class Scorer:
    """Scores windows; holds the interpreters, so it belongs to one thread.

    Args:
        members: one or more models.
        channel_weights: (C,) mean 1.
        threshold: the limit on the score.
    """

    def __init__(self, members: tuple[Member, ...], channel_weights: Floats, threshold: Threshold) -> None:
        self.members, self.threshold = members, threshold
        self._weights = channel_weights / len(channel_weights)

    def score(self, windows: Floats) -> Scores:
        """Scores of (K, T, C) windows in engineering units; memory does not grow with K."""
        total = np.zeros((len(windows), windows.shape[2]))
        for start in range(0, len(windows), CHUNK):
            chunk = windows[start : start + CHUNK]
            for member in self.members:
                residual = member.residual(member.preprocessor.transform(chunk))
                total[start : start + CHUNK] += mean_square(residual) / member.normaliser
        total *= self._weights / len(self.members)
        value = total.sum(axis=1)
        return Scores(value, value / self.threshold.value, total)

    def explain(self, window: Floats, channels: tuple[Channel, ...]) -> tuple[Contribution, ...]:
        """Why one (T, C) window scores as it does: channels by share, largest first.

        Where members rebuild the signal, `seen` and `expected` are taken at the row where the channel's residual is
        largest, in its unit; else `seen` is the window's mean, and `expected` the usual level where a member knows it.
        """
        share = self.score(window[None]).share()[0]
        seen, expected = window.mean(axis=0), None
        rebuilt = self._rebuilt(window)
        if rebuilt is not None:
            worst, each = np.abs(window - rebuilt).argmax(axis=0), np.arange(len(channels))
            seen, expected = window[worst, each], rebuilt[worst, each]
        else:
            known = (member.preprocessor.usual_level() for member in self.members)
            expected = next((level for level in known if level is not None), None)
        return tuple(
            Contribution(
                channels[c].name, float(share[c]), float(seen[c]), None if expected is None else float(expected[c])
            )
            for c in np.argsort(-share, kind="stable").tolist()
        )

    def _rebuilt(self, window: Floats) -> Floats | None:
        """(T, C) the mean of what the members that rebuild the signal make of it, in engineering units."""
        found = []
        for member in self.members:
            if member.kind == "reconstruct":
                prepared = member.preprocessor.transform(window[None])
                rebuilt = member.preprocessor.inverse(member.model.predict(prepared))
                if rebuilt is not None:
                    found.append(rebuilt[0])
        return np.mean(found, axis=0) if found else None


class Smoother:
    """Exponentially weighted geometric mean of the scores, window by window.

    The logarithm is smoothed: one wild window does not ring the bell, and a score that was a thousand times the limit
    comes back about as soon as one that was ten times it. Scores are raised to a thousandth of the limit first, so that
    a machine at rest does not delay the bell. Shares stay those of the window itself.

    Args:
        span: windows; a new score weighs 2 / (span + 1), so that 1 changes nothing.
        threshold: the limit on the smoothed score.
    """

    def __init__(self, span: int, threshold: Threshold) -> None:
        self._weight, self._limit = 2.0 / (span + 1.0), threshold.value
        self._floor = FLOOR * threshold.value
        self._last: float | None = None

    def reset(self) -> None:
        """Forgets what was before a gap."""
        self._last = None

    def update(self, scores: Scores) -> Scores:
        """The next K scores, smoothed; a score that is not finite passes as it is and is forgotten."""
        if self._weight == 1.0 or not len(scores):
            return scores
        logs = np.log(np.maximum(scores.value, self._floor)).tolist()
        smooth, last = [], self._last
        for log in logs:
            if math.isfinite(log):
                last = log if last is None else last + self._weight * (log - last)
                smooth.append(last)
            else:
                smooth.append(log)
        self._last = last
        value = np.exp(smooth)
        share = scores.share()
        return Scores(value, value / self._limit, share * value[:, None])


def mean_square(residual: Floats32) -> Floats:
    """(K, C) mean square over time of a (K, T, C) residual."""
    square: Floats = np.einsum("ktc,ktc->kc", residual, residual, dtype=np.float64)
    mean: Floats = square / residual.shape[1]
    return mean
