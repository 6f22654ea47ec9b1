"""The window cut into parts that can be taken away: the players of a game whose pay-off is the score.

Rules: a part that is away is replaced by that of a typical window, which is a normal one of the bundle's golden
vectors: the nearest to the window in question, so that a machine's cycle stays in step. (A median over windows of
different phase is no window at all: it scores as an anomaly itself.) There are few players, so that all coalitions, or
a good part of them, can be asked.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tocsin.core.bundle import Bundle
from tocsin.core.scoring import CHUNK, Scorer
from tocsin.errors import TocsinError
from tocsin.records import Bools, Floats, Ints

MAX_PLAYERS = 16
MAX_SEGMENTS = 8  # of time


@dataclass(frozen=True)
class Player:
    """A part of the window.

    Attributes:
        channels: its columns; several where there are more channels than players.
        start: first row.
        stop: row after the last.
    """

    channels: tuple[int, ...]
    start: int
    stop: int


class Game:
    """What the score is when only some parts of the window are as they were.

    Args:
        scorer: of the bundle.
        window: (T, C) in engineering units.
        typical: (T, C) that stands in for what is away.
        players: parts that cover the window once.
    """

    def __init__(self, scorer: Scorer, window: Floats, typical: Floats, players: tuple[Player, ...]) -> None:
        self.players, self.asked = players, 0
        self._scorer, self._window, self._typical = scorer, window, typical
        self._owner: Ints = np.full(window.shape, -1)
        for index, player in enumerate(players):
            self._owner[player.start : player.stop, list(player.channels)] = index

    def ratio(self, present: Bools) -> Floats:
        """(K,) score / threshold of (K, M) coalitions."""
        out = np.empty(len(present))
        for start in range(0, len(present), CHUNK):
            kept = present[start : start + CHUNK][:, self._owner]
            out[start : start + CHUNK] = self._scorer.score(np.where(kept, self._window, self._typical)).ratio
        self.asked += len(present)
        return out


def players_of(length: int, channels: int, weight: Floats) -> tuple[Player, ...]:
    """Channels × equal parts of time, MAX_PLAYERS at most.

    Args:
        length: T, rows of the window.
        channels: C; where they are too many, those with little weight are one player.
        weight: (C,) how much each matters.

    >>> players_of(8, 2, np.ones(2))[:2]
    (Player(channels=(0,), start=0, stop=1), Player(channels=(0,), start=1, stop=2))
    """
    if channels > MAX_PLAYERS:
        order = np.argsort(-weight, kind="stable").tolist()
        single, rest = sorted(order[: MAX_PLAYERS - 1]), sorted(order[MAX_PLAYERS - 1 :])
        return (*(Player((c,), 0, length) for c in single), Player(tuple(rest), 0, length))
    segments = max(1, min(MAX_SEGMENTS, MAX_PLAYERS // channels, length))
    edges = np.linspace(0, length, segments + 1).astype(int).tolist()
    return tuple(Player((c,), start, stop) for c in range(channels) for start, stop in pairwise(edges))


def typical_window(bundle: Bundle, window: Floats) -> Floats:
    """(T, C) the normal golden window that is nearest to `window` in most of its values.

    Raises:
        TocsinError: none of the bundle's golden windows is below the threshold.
    """
    golden = bundle.golden
    normal = golden.windows[golden.scores < bundle.manifest.threshold.value]
    if not len(normal):
        raise TocsinError(
            f"{bundle.path}: none of its golden windows is normal, so there is nothing to compare with: "
            "use --method exact, or train again"
        )
    scale = np.maximum(normal.std(axis=(0, 1)), np.finfo(np.float64).tiny)
    distance = np.median(np.abs(normal - window) / scale, axis=(1, 2))
    nearest: Floats = normal[int(np.argmin(distance))]
    return nearest
