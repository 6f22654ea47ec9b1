"""Windows → anomaly scores, with their exact split over channels.

For a reconstructing member the score of a window is the mean square of its residual, channel by channel:

    value = Σ_c per_channel_c        per_channel_c = w_c / C · mean_t (x_tc − x̂_tc)²

in units of the preprocessed signal, w_c the channel's weight. Members of an ensemble are each divided by their
`normaliser` (their typical score in normal running) and averaged; the split stays exact.
"""

from dataclasses import dataclass

import numpy as np

from tocsin.core.interpreter import TfliteModel
from tocsin.core.preprocess import Preprocessor
from tocsin.core.threshold import Threshold
from tocsin.records import Channel, Contribution, Floats, Floats32, Scores

CHUNK = 1024  # windows that are standardised and scored at once


@dataclass(frozen=True)
class Member:
    """One model of a bundle.

    Attributes:
        model: reconstructs (K, T, C) → (K, T, C).
        normaliser: its typical score in normal running; 1 for a bundle of one.
    """

    model: TfliteModel
    normaliser: float = 1.0


class Scorer:
    """Scores windows; holds the interpreters, so it belongs to one thread.

    Args:
        preprocessor: engineering units → the models' input.
        members: one or more reconstructing models.
        channel_weights: (C,) mean 1.
        threshold: the limit on the score.
    """

    def __init__(
        self, preprocessor: Preprocessor, members: tuple[Member, ...], channel_weights: Floats, threshold: Threshold
    ) -> None:
        self.preprocessor, self.members, self.threshold = preprocessor, members, threshold
        self._weights = channel_weights / len(channel_weights)

    def score(self, windows: Floats) -> Scores:
        """Scores of (K, T, C) windows in engineering units; memory does not grow with K."""
        if len(windows) <= CHUNK:
            return self.score_prepared(self.preprocessor.transform(windows))
        parts = [self.score(windows[start : start + CHUNK]) for start in range(0, len(windows), CHUNK)]
        return Scores(
            np.concatenate([part.value for part in parts]),
            np.concatenate([part.ratio for part in parts]),
            np.concatenate([part.per_channel for part in parts]),
        )

    def score_prepared(self, prepared: Floats32) -> Scores:
        """Scores of (K, T, C) windows that went through the preprocessor."""
        total = np.zeros((len(prepared), prepared.shape[2]))
        for member in self.members:
            total += self._split(prepared, member) / member.normaliser
        total /= len(self.members)
        value = total.sum(axis=1)
        return Scores(value, value / self.threshold.value, total)

    def _split(self, prepared: Floats32, member: Member) -> Floats:
        return reconstruction_error(prepared, member.model.predict(prepared)) * self._weights

    def explain(self, window: Floats, channels: tuple[Channel, ...]) -> tuple[Contribution, ...]:
        """Why one (T, C) window scores as it does: channels by share, largest first.

        `seen` and `expected` are taken at the row where the channel's residual is largest, in its unit.
        """
        prepared = self.preprocessor.transform(window[None])
        share = self.score_prepared(prepared).share()[0]
        rebuilt = np.stack([member.model.predict(prepared) for member in self.members]).mean(axis=0)
        worst = np.abs(prepared - rebuilt)[0].argmax(axis=0)
        expected = self.preprocessor.inverse(rebuilt)[0]
        order = np.argsort(-share, kind="stable")
        return tuple(
            Contribution(channels[c].name, float(share[c]), float(window[worst[c], c]), float(expected[worst[c], c]))
            for c in order.tolist()
        )


def reconstruction_error(prepared: Floats32, rebuilt: Floats32) -> Floats:
    """(K, C) mean square of the residual over time; both (K, T, C)."""
    residual = prepared - rebuilt
    square: Floats = np.einsum("ktc,ktc->kc", residual, residual, dtype=np.float64)
    mean: Floats = square / prepared.shape[1]
    return mean
