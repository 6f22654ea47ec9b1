"""Operating modes of a machine: told by a channel, or found in what its windows look like. No labels are used.

Rules for finding them. One mode is the default; more are taken only where all of this holds, for the largest number for
which it does:

- clusters are apart: silhouette (Rousseeuw, J. Comput. Appl. Math. 20, 1987) of MIN_SILHOUETTE or more;
- nothing lies between them: at most BETWEEN of two clusters' windows in the middle third of the way from one to the
  other. A load that drifts from end to end is no two modes;
- modes last: LASTING of each mode's windows belong to stays of MIN_STAY window lengths, as a window that straddles two
  modes belongs to neither;
- the machine comes back: each is entered twice at least. What comes once may be drift, or a part that was replaced.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from tocsin.core.modes import UNKNOWN, Centroids, Modes, Ranges
from tocsin.core.windowing import SlidingWindow
from tocsin.errors import ConfigError
from tocsin.records import Channel, Floats, Ints
from tocsin_trainer.results import Choice
from tocsin_trainer.stretch import Stretch

MOST = 6  # modes that are looked for
MOST_LEVELS = 16  # of a channel that tells them
MIN_SILHOUETTE = 0.6
BETWEEN = 0.08  # 0.17 where a load is as often anywhere
MIN_STAY = 3.0
LASTING = 0.8
AMPLE = 1.2  # times the mean variance, that a direction has to have
MIN_ENTRIES = 2
MAX_WINDOWS = 2_000  # that are clustered
STEADY = 0.02  # of the channel's range: a window in which it moves less shows a level
APART = 0.05  # of the channel's range: levels nearer than this are one


@dataclass(frozen=True)
class WindowFigures:
    """What is known of the successive windows of a stretch.

    Attributes:
        mean: (K, C) of each channel, engineering units.
        low: (K, C) least value.
        high: (K, C) largest.
    """

    mean: Floats
    low: Floats
    high: Floats


def window_figures(stretches: tuple[Stretch, ...], length: int, hop: int) -> tuple[WindowFigures, ...]:
    """Figures of the windows of each stretch; read in pieces."""
    out = []
    for stretch in stretches:
        window, found = None, []
        for rows in stretch.blocks():
            window = window or SlidingWindow(length, hop, rows.values.shape[1])
            values = window.push(rows).values
            found.append((values.mean(axis=1), values.min(axis=1), values.max(axis=1)))
        out.append(WindowFigures(*(np.concatenate(each) for each in zip(*found, strict=True))))
    return tuple(out)


def find_modes(
    stretches: tuple[WindowFigures, ...], windows_a_length: float, seed: int = 0
) -> tuple[Modes | None, Choice]:
    """What tells modes apart by windows' means, or None where there is one mode.

    Args:
        stretches: windows of normal running.
        windows_a_length: windows from one to the first that shares no row with it: length / hop.
        seed: of the clustering.
    """
    every = np.concatenate([stretch.mean for stretch in stretches])
    center, scale = every.mean(axis=0), every.std(axis=0)
    scale = np.where(scale > 1e-9 * np.maximum(np.abs(center), 1.0), scale, 1.0)
    shown = [(part - center) / scale for part in (stretch.mean for stretch in stretches)]
    some = np.concatenate(shown)[:: max(1, -(-len(every) // MAX_WINDOWS))]
    if len(some) < 10 * MOST:
        return None, Choice("operating modes", "1", f"{len(some)} windows are too few to look for more")
    # Modes show in the directions of largest spread; the rest would drown them. Distances to centroids decide alike.
    turned = PCA(random_state=seed).fit(some)
    ample = int(np.count_nonzero(turned.explained_variance_ > AMPLE * turned.explained_variance_.mean()))
    shown_some = turned.transform(some)[:, : min(3, max(1, ample))]
    best: tuple[int, float, Floats] | None = None
    why = ""
    for count in range(2, MOST + 1):
        fitted = KMeans(count, n_init=4, random_state=seed).fit(shown_some)
        silhouette = float(silhouette_score(shown_some, fitted.labels_))
        centroids = np.stack([some[fitted.labels_ == m].mean(axis=0) for m in range(count)])
        wrong = _against(shown, centroids, silhouette, windows_a_length)
        if not wrong:
            best = count, silhouette, centroids
        why = why or wrong
    if best is None:
        return None, Choice("operating modes", "1", f"no more are clearly told apart: two clusters {why}")
    order = np.argsort(best[2] @ turned.components_[0])
    choice = Choice(
        "operating modes",
        str(best[0]),
        f"windows fall into clusters that are apart (silhouette {best[1]:.2f}), last and come again: a limit for each",
    )
    return Centroids(center, scale, best[2][order]), choice


def _against(shown: list[Floats], centroids: Floats, silhouette: float, windows_a_length: float) -> str:
    """Why these clusters are no modes, or nothing."""
    if silhouette < MIN_SILHOUETTE:
        return f"are not apart (silhouette {silhouette:.2f}, {MIN_SILHOUETTE:g} are asked for)"
    told = Centroids(np.zeros(centroids.shape[1]), np.ones(centroids.shape[1]), centroids)
    modes = [told.of(part[:, None]) for part in shown]
    every, mode = np.concatenate(shown), np.concatenate(modes)
    for a in range(len(centroids)):
        for b in range(a):
            way = centroids[a] - centroids[b]
            at = (every[(mode == a) | (mode == b)] - centroids[b]) @ way / (way @ way)
            between = float(np.mean((at > 1 / 3) & (at < 2 / 3)))
            if between > BETWEEN:
                return f"flow into each other ({between:.0%} of the windows lie between)"
    least = MIN_STAY * windows_a_length
    stays = [stay for part in modes for stay in _stays(part)]
    for each in range(len(centroids)):
        own = [n for m, n in stays if m == each]
        lasting = [n for n in own if n >= least]
        if sum(lasting) < LASTING * sum(own):  # on the way between two modes a third may be passed
            return f"do not last ({MIN_STAY:g} window lengths are asked for)"
        if len(lasting) < MIN_ENTRIES:
            return "do not come again: that may be drift"
    return ""


def _stays(modes: Ints) -> list[tuple[int, int]]:
    """(mode, windows) of each stay."""
    starts = np.flatnonzero(np.diff(modes, prepend=UNKNOWN - 1))
    lengths = np.diff(starts, append=len(modes))
    return list(zip(modes[starts].tolist(), lengths.tolist(), strict=True))


def modes_of_channel(
    name: str, channels: tuple[Channel, ...], stretches: tuple[WindowFigures, ...]
) -> tuple[Modes, Choice]:
    """Modes that a channel tells: the levels at which it stays for whole windows.

    Args:
        name: of the channel, one of the bundle's: the device has to see it too.
        channels: the bundle's.
        stretches: windows of normal running.

    Raises:
        ConfigError: no such channel, or one that does not stay at a few levels.
    """
    names = [channel.name for channel in channels]
    if name not in names:
        raise ConfigError(
            f"mode column {name!r}: it is none of the channels {', '.join(names)}: the device needs it as "
            "well, so that it has to be one of them"
        )
    at = names.index(name)
    least, most = (np.concatenate([getattr(s, which)[:, at] for s in stretches]) for which in ("low", "high"))
    spread = float(most.max() - least.min())
    steady = most - least <= STEADY * spread
    values = np.sort((least[steady] + most[steady]) / 2)
    if not len(values) or steady.mean() < 0.5:
        raise ConfigError(
            f"mode column {name!r}: it stays at a level in {steady.mean():.0%} of the windows: expected a channel "
            "with a few levels that last, such as a set-point; leave --mode-column out to have modes looked for"
        )
    groups = np.split(values, np.flatnonzero(np.diff(values) > APART * spread) + 1)
    if len(groups) > MOST_LEVELS:
        raise ConfigError(
            f"mode column {name!r}: it has {len(groups)} levels, expected {MOST_LEVELS} at most: that is a measured "
            "value and no mode; leave --mode-column out to have modes looked for"
        )
    margin = APART * spread / 2
    ranges = np.array([(group[0] - margin, group[-1] + margin) for group in groups])
    shown = ", ".join(f"{group.mean():.4g}" for group in groups)
    choice = Choice(
        "operating modes", str(len(groups)), f"given: {name} stays at {shown}; elsewhere the mode is unknown"
    )
    return Ranges(at, ranges[:, 0].copy(), ranges[:, 1].copy()), choice
