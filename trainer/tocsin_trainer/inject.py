"""Normal windows → windows with a known, made-up anomaly: what models are judged by when there are no labels.

Rules: windows are standardised (a channel's normal spread is about 1), and strengths are in that unit; every kind comes
at every strength, on one channel and on all of them; the same seed gives the same anomalies.
"""

from collections.abc import Callable
from itertools import product

import numpy as np

from tocsin.records import Floats, Floats32

Generator = np.random.Generator
STRENGTHS = (1.0, 2.0, 4.0, 8.0)


def inject(windows: Floats32, seed: int, repeats: int = 6) -> tuple[Floats32, tuple[str, ...]]:
    """Anomalous windows made of normal ones.

    Args:
        windows: (N, T, C) normal, standardised.
        seed: of everything drawn.
        repeats: windows of each kind, strength and reach (one channel, all channels).

    Returns:
        (M, T, C) windows and the M names of what is wrong with them; M = 8 kinds · 4 strengths · 2 · `repeats`, less
        for one channel, which has no other to disagree with.
    """
    rng = np.random.default_rng(seed)
    channels = windows.shape[2]
    out, names = [], []
    turn = 0
    for name, change in KINDS.items():
        if name == "correlation" and channels == 1:
            continue
        for strength, joint, _ in product(STRENGTHS, (False, True), range(repeats)):
            if name == "correlation":  # a part of the channels leaves the rest behind
                hit = rng.permutation(channels)[: max(1, channels // 2) if joint else 1]
            else:
                hit = np.arange(channels) if joint else np.array([turn % channels])
            turn += 1
            chosen = rng.integers(len(windows))
            other = (chosen + rng.integers(1, max(2, len(windows)))) % len(windows)
            window = windows[chosen].astype(np.float64)
            window[:, hit] = change(window[:, hit], windows[other][:, hit], strength, rng)
            out.append(window)
            names.append(name)
    return np.asarray(out, np.float32), tuple(names)


def widen(windows: Floats32, seed: int, count: int = 240) -> Floats32:
    """(count, T, C) normal windows carried far outside: amplified up to 6 times, or drifted up to 12 spreads.

    Each on one channel or on all of them: what an int8 range fixed by normal running would cut off.
    """
    rng = np.random.default_rng(seed)
    out = windows[rng.integers(len(windows), size=count)].astype(np.float64)
    length, channels = windows.shape[1:]
    for n in range(count):
        hit = np.arange(channels) if n % 2 else rng.integers(channels, size=1)
        if n % 4 < 2:
            out[n][:, hit] *= rng.uniform(2, 6)
        else:
            out[n][:, hit] += (
                np.linspace(rng.uniform(0, 1), 1, length)[:, None] * rng.uniform(3, 12) * _sign(out[n][:, hit], rng)
            )
    return out.astype(np.float32)


def _offset(course: Floats, _: Floats, strength: float, rng: Generator) -> Floats:
    return course + strength * _sign(course, rng)


def _drift(course: Floats, _: Floats, strength: float, rng: Generator) -> Floats:
    ramp: Floats = np.linspace(0.0, 1.5 * strength, len(course))[:, None] * _sign(course, rng)
    return course + ramp


def _spike(course: Floats, _: Floats, strength: float, rng: Generator) -> Floats:
    """One to three rows far off."""
    at, width = rng.integers(len(course)), rng.integers(1, 4)
    course[at : at + width] += 3 * strength * _sign(course, rng)
    return course


def _noise(course: Floats, _: Floats, strength: float, rng: Generator) -> Floats:
    """A burst over half of the window."""
    half = (len(course) + 1) // 2
    start = rng.integers(len(course) - half + 1)
    course[start : start + half] += rng.normal(0.0, strength, (half, course.shape[1]))
    return course


def _frozen(course: Floats, _: Floats, strength: float, rng: Generator) -> Floats:
    """The value sticks; the stronger, the longer."""
    held = min(len(course) - 1, max(2, round(len(course) * (0.25 + strength / 12))))
    start = rng.integers(len(course) - held)
    course[start : start + held] = course[start]
    return course


def _amplitude(course: Floats, _: Floats, strength: float, rng: Generator) -> Floats:
    """Swings about the mean grow or shrink."""
    factor = 1 + strength / 2 if rng.random() < 0.5 else 1 / (1 + strength / 2)
    mean = course.mean(axis=0)
    scaled: Floats = mean + factor * (course - mean)
    return scaled


def _correlation(course: Floats, other: Floats, strength: float, rng: Generator) -> Floats:
    """The channels run as at another time, each value possible, their sum not; the stronger, the longer."""
    taken = max(1, round(len(course) * min(1.0, 0.3 + strength / 8)))
    return np.concatenate([course[:-taken], other[-taken:]])


def _frequency(course: Floats, _: Floats, strength: float, rng: Generator) -> Floats:
    """The course runs faster, folded back where it ends."""
    last = len(course) - 1
    place = np.arange(len(course)) * (1 + strength / 4)
    place = last - np.abs(place % (2 * last) - last)
    return np.column_stack([np.interp(place, np.arange(len(course)), column) for column in course.T])


def _sign(course: Floats, rng: Generator) -> Floats:
    sign: Floats = rng.choice([-1.0, 1.0], course.shape[1])
    return sign


KINDS: dict[str, Callable[[Floats, Floats, float, Generator], Floats]] = {
    "offset": _offset,
    "drift": _drift,
    "spike": _spike,
    "noise": _noise,
    "frozen": _frozen,
    "amplitude": _amplitude,
    "correlation": _correlation,
    "frequency": _frequency,
}
