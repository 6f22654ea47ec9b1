"""Windows → anomaly scores, with their exact split over channels.

A member maps a preprocessed window x (T, C) to y. What it cannot explain is the residual r, which has C columns:

| kind        | y                              | r                            | such as                               |
|-------------|--------------------------------|------------------------------|---------------------------------------|
| reconstruct | (n, C), n ≤ T: the last n rows | x[−n:] − y                   | autoencoders, PCA; predictors, which  |
|             | of x, rebuilt or predicted     |                              | have nothing to tell the first rows by|
| whiten      | (m, C), any m ≥ 1              | y                            | Mahalanobis distance, of the window   |
|             |                                |                              | or of a latent vector                 |
| probability | (2T, C): means µ, then ln σ    | ± √(((x−µ)/σ)² + 2 ln(σ/σ₀)) | variational autoencoders              |
| limits      | (T, C): x itself               | y                            | limits on each number of a window     |

    value = Σ_c per_channel_c        per_channel_c = w_c / C · mean_t r_tc²

w_c is the channel's weight. Limits are looked at one by one: there, with m_c = w_c · max_t r_tc², the value is the
largest m_c, and per_channel_c is value · m_c / Σ m_c.

- whiten: y = Σ^(−½) (x − µ), so that its square is T²; the symmetric root keeps y_i next to x_i, or a rotation brings
  it as near as can be (Garthwaite & Koch, Biometrics 72, 2016).
- probability: r is the deviance residual of a normal distribution: r² is twice the negative log likelihood, less the
  least that it can be, which it is at x = µ and σ = σ₀ = 0.1, the floor of σ. It is the reconstruction probability of
  An & Cho (SNU Data Mining Center, 2015), taken at the mean of the latent variables instead of over samples of them.

An int8 model saturates where its input leaves the range that it was converted for. Linear ones have no need to: a
window that is too large is made smaller, and what the model gives of it larger by the same factor.

Members of an ensemble are each divided by their `normaliser` (their typical score in normal running) and combined by
their `weight` (of mean 1):

| combination | value, of M members' scores s_m                | split over channels                            |
|-------------|------------------------------------------------|------------------------------------------------|
| mean        | mean of weight · s_m                           | the same mean of the members' splits           |
| max         | largest weight · s_m                           | that of the member that wins                   |
| geometric   | ∏ s_m to the power of weight / M               | value · mean of weight · the members' shares   |

Then the course of the score may be smoothed. The split stays exact through all of it.
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from tocsin.core.interpreter import TfliteModel
from tocsin.core.modes import Modes
from tocsin.core.preprocess import Preprocessor
from tocsin.core.threshold import Threshold
from tocsin.records import Channel, Contribution, Floats, Floats32, Scores

CHUNK = 1024  # windows that are prepared and scored at once
KINDS = ("reconstruct", "whiten", "probability", "limits")
COMBINATIONS = ("mean", "max", "geometric")
LOG_STD_FLOOR = math.log(0.1)  # of what a probability member may claim: int8 tells no finer
CALM = 1e-6  # of what is typical: a member this calm does not hide what the others say
FLOOR = 1e-3  # of the limit: how far below it, beyond this, makes no difference to the smoothed score
REMEMBERED = 64  # windows that can be taken back


@dataclass(frozen=True)
class Member:
    """One model of a bundle.

    Attributes:
        model: (K, T, C) preprocessed windows → (K, rows, C), see the table of kinds.
        preprocessor: engineering units → the model's input.
        kind: how its output becomes a residual, one of KINDS.
        normaliser: its typical score in normal running; 1 for a bundle of one.
        weight: in an ensemble, 0 or more; all of them have mean 1.
        input_range: of a linear model: lowest and highest number that its int8 form can tell from others; None = all.
    """

    model: TfliteModel
    preprocessor: Preprocessor
    kind: str = "reconstruct"
    normaliser: float = 1.0
    weight: float = 1.0
    input_range: tuple[float, float] | None = None

    def residual(self, prepared: Floats32) -> Floats32:
        """(K, rows, C) what the model does not explain of (K, T, C)."""
        return residual(self.kind, prepared, self.predict(prepared))

    def predict(self, prepared: Floats32) -> Floats32:
        """(K, rows, C) what the model gives of (K, T, C); windows too large for a linear one are made smaller."""
        if self.input_range is None:
            return self.model.predict(prepared)
        low, high = (np.float32(end) for end in self.input_range)
        over = np.maximum(prepared.max(axis=(1, 2)) / high, prepared.min(axis=(1, 2)) / low)
        gain: Floats32 = np.maximum(over, np.float32(1))[:, None, None]
        return self.model.predict(prepared / gain) * gain

    def split(self, prepared: Floats32, channel_weights: Floats) -> Floats:
        """(K, C) each channel's part of the score of (K, T, C) windows; the parts add up to it.

        Args:
            prepared: windows as the model sees them.
            channel_weights: (C,) whose sum is 1.
        """
        unexplained = self.residual(prepared)
        if self.kind != "limits":
            return mean_square(unexplained) * channel_weights
        largest = (unexplained.astype(np.float64) ** 2).max(axis=1) * channel_weights * len(channel_weights)
        total = np.maximum(largest.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        split: Floats = largest * (largest.max(axis=1, keepdims=True) / total)
        return split

    def over_rows(self, prepared: Floats32) -> Floats:
        """(rows, C) how the channels' parts of one (1, T, C) window's score spread over rows; columns sum to 1."""
        square = self.residual(prepared)[0].astype(np.float64) ** 2
        if self.kind == "limits":  # the row that is farthest out decides alone
            square = (np.arange(len(square))[:, None] == square.argmax(axis=0)).astype(np.float64)
        total = square.sum(axis=0)
        spread: Floats = np.where(total > 0, square / np.maximum(total, np.finfo(np.float64).tiny), 1 / len(square))
        return spread

    def rebuilt(self, window: Floats) -> Floats | None:
        """(n, C) what the model makes of the last n rows of a (T, C) window; engineering units.

        None where it does not rebuild, or where there is no way back to the unit.
        """
        if self.kind in ("whiten", "limits"):
            return None
        prepared = self.preprocessor.transform(window[None])
        out = self.predict(prepared)
        rows = out.shape[1] // 2 if self.kind == "probability" else out.shape[1]
        whole = prepared.copy()  # rows without a prediction keep their place on the way back
        whole[:, -rows:] = out[:, :rows]
        values = self.preprocessor.inverse(whole)
        return None if values is None else values[0, -rows:]


def residual(kind: str, prepared: Floats32, out: Floats32) -> Floats32:
    """What a model does not explain, see the table of kinds.

    Args:
        kind: one of KINDS.
        prepared: (K, T, C) windows as the model sees them.
        out: (K, rows, C) what it gives.
    """
    if kind in ("whiten", "limits"):
        return out
    if kind == "reconstruct":
        return prepared[:, -out.shape[1] :] - out
    mean, log_std = np.split(out, 2, axis=1)
    over = np.maximum(log_std, np.float32(LOG_STD_FLOOR)) - np.float32(LOG_STD_FLOOR)
    far = prepared - mean
    square = (far * np.exp(-over - np.float32(LOG_STD_FLOOR))) ** 2 + 2 * over
    signed: Floats32 = np.copysign(np.sqrt(square), far)
    return signed


class Scorer:
    """Scores windows; holds the interpreters, so it belongs to one thread.

    Args:
        members: one or more models.
        channel_weights: (C,) mean 1.
        threshold: the limit on the score.
        combination: of the members, one of COMBINATIONS.
        modes: what tells a window's operating mode, where there is a limit for each.
    """

    def __init__(
        self,
        members: tuple[Member, ...],
        channel_weights: Floats,
        threshold: Threshold,
        combination: str = "mean",
        modes: Modes | None = None,
    ) -> None:
        self.members, self.threshold, self.combination, self.modes = members, threshold, combination, modes
        self._weights = channel_weights / len(channel_weights)

    def score(self, windows: Floats) -> Scores:
        """Scores of (K, T, C) windows in engineering units; memory does not grow with K."""
        split = np.empty((len(windows), windows.shape[2]))
        weights = np.array([member.weight for member in self.members])
        for start in range(0, len(windows), CHUNK):
            chunk = windows[start : start + CHUNK]
            parts = [m.split(m.preprocessor.transform(chunk), self._weights) / m.normaliser for m in self.members]
            split[start : start + CHUNK] = combine(np.stack(parts), weights, self.combination)
        value = split.sum(axis=1)
        mode = None if self.modes is None else self.modes.of(windows)
        return Scores(value, value / self.threshold.of(mode), split, mode)

    def explain(self, window: Floats, channels: tuple[Channel, ...]) -> tuple[Contribution, ...]:
        """Why one (T, C) window scores as it does: channels by share, largest first.

        Where members rebuild the signal, `seen` and `expected` are taken at the row where the channel's residual is
        largest, in its unit; else `seen` is the window's mean, and `expected` the usual level where a member knows it.
        """
        share = self.score(window[None]).share()[0]
        seen, expected = window.mean(axis=0), None
        rebuilt = self.rebuilt(window)
        if rebuilt is not None:
            rows = window[-len(rebuilt) :]
            worst, each = np.abs(rows - rebuilt).argmax(axis=0), np.arange(len(channels))
            seen, expected = rows[worst, each], rebuilt[worst, each]
        else:
            known = (member.preprocessor.usual_level() for member in self.members)
            expected = next((level for level in known if level is not None), None)
        return tuple(
            Contribution(
                channels[c].name, float(share[c]), float(seen[c]), None if expected is None else float(expected[c])
            )
            for c in np.argsort(-share, kind="stable").tolist()
        )

    def attribution(self, window: Floats) -> tuple[Floats, ...]:
        """(rows, C) for each member: what each row and channel of its residual gives to one (T, C) window's score.

        All of them together sum to the score that `score` gives, and over rows and members to its `per_channel`.
        """
        prepared = [member.preprocessor.transform(window[None]) for member in self.members]
        each = list(zip(self.members, prepared, strict=True))
        splits = np.stack([member.split(shown, self._weights) / member.normaliser for member, shown in each])
        parts = divide(splits, np.array([member.weight for member in self.members]), self.combination)[:, 0]
        return tuple(member.over_rows(shown) * part for (member, shown), part in zip(each, parts, strict=True))

    def rebuilt(self, window: Floats) -> Floats | None:
        """(n, C) the mean of what members make of the last n rows, which all that rebuild know; engineering units."""
        found = [rebuilt for member in self.members if (rebuilt := member.rebuilt(window)) is not None]
        rows = min(map(len, found), default=0)
        return np.mean([rebuilt[-rows:] for rebuilt in found], axis=0) if found else None


class Smoother:
    """Exponentially weighted geometric mean of the scores, window by window.

    The logarithm is smoothed: one wild window does not ring the bell, and a score that was a thousand times the limit
    comes back about as soon as one that was ten times it. Scores are raised to a thousandth of the limit first, so that
    a machine at rest does not delay the bell. Shares stay those of the window itself.

    Where modes have limits of their own it is the ratio that is smoothed: a change of mode is no jump, and a score
    counts by the limit under which it was made.

    Args:
        span: windows; a new score weighs 2 / (span + 1), so that 1 changes nothing.
        threshold: the limit on the smoothed score.
    """

    def __init__(self, span: int, threshold: Threshold) -> None:
        self._weight, self._threshold = 2.0 / (span + 1.0), threshold
        self._course: deque[float | None] = deque([None], maxlen=REMEMBERED + 1)  # smoothed, newest last

    def reset(self) -> None:
        """Forgets what was before a gap."""
        self._course = deque([None], maxlen=REMEMBERED + 1)

    def take_back(self, windows: int) -> None:
        """Forgets the newest windows; all, where they are more than are remembered."""
        for _ in range(min(windows, len(self._course))):
            self._course.pop()
        if not self._course:
            self.reset()

    def update(self, scores: Scores) -> Scores:
        """The next K scores, smoothed; a score that is not finite passes as it is and is forgotten."""
        if self._weight == 1.0 or not len(scores):
            return scores
        limit = self._threshold.of(scores.mode)
        logs = np.log(np.maximum(scores.value / limit, FLOOR)).tolist()
        smooth, last = [], self._course[-1]
        for log in logs:
            if math.isfinite(log):
                last = log if last is None else last + self._weight * (log - last)
                smooth.append(last)
            else:
                smooth.append(log)
            self._course.append(last)
        ratio = np.exp(smooth)
        value = ratio * limit
        usable = np.isfinite(value)[:, None]
        split = np.where(usable, scores.share() * np.where(usable, value[:, None], 0.0), scores.per_channel)
        return Scores(value, ratio, split, scores.mode)


def limits_of(threshold: Threshold, scores: Scores) -> Floats:
    """(K,) the limit of each score."""
    return np.broadcast_to(np.asarray(threshold.of(scores.mode), np.float64), len(scores))


def mean_square(residual: Floats32) -> Floats:
    """(K, C) mean square over time of a (K, T, C) residual."""
    square: Floats = np.einsum("ktc,ktc->kc", residual, residual, dtype=np.float64)
    mean: Floats = square / residual.shape[1]
    return mean


def combine(splits: Floats, weights: Floats, combination: str) -> Floats:
    """(K, C) the split of an ensemble's scores over the channels.

    Args:
        splits: (M, K, C) of its members, normalised.
        weights: (M,) of mean 1.
        combination: one of COMBINATIONS, see the module.

    >>> both = np.array([[[1.0, 3.0]], [[1.0, 0.0]]])
    >>> combine(both, np.ones(2), "mean"), combine(both, np.ones(2), "max"), combine(both, np.ones(2), "geometric")
    (array([[1. , 1.5]]), array([[1., 3.]]), array([[1.25, 0.75]]))
    """
    together: Floats = divide(splits, weights, combination).sum(axis=0)
    return together


def divide(splits: Floats, weights: Floats, combination: str) -> Floats:
    """(M, K, C) what each member gives to what `combine` makes of the same."""
    weighted = splits * weights[:, None, None]
    if combination == "mean":
        return weighted / len(weights)
    if combination == "max":
        winner = weighted.sum(axis=2).argmax(axis=0)
        of_winner: Floats = np.where(np.arange(len(weights))[:, None, None] == winner[None, :, None], weighted, 0.0)
        return of_winner
    value = splits.sum(axis=2)  # (M, K)
    share = splits / np.maximum(value, np.finfo(np.float64).tiny)[..., None]
    part = weights[:, None] / len(weights)
    score = np.exp((part * np.log(np.maximum(value, CALM))).sum(axis=0))
    spread = part[..., None] * share
    unspread = spread.sum(axis=(0, 2))[:, None]  # below 1 where a member is silent: the others share its part
    evenly = 1 / (len(weights) * splits.shape[2])
    spread = np.where(unspread > 0, spread / np.maximum(unspread, np.finfo(np.float64).tiny), evenly)
    divided: Floats = spread * score[:, None]
    return divided
