"""Training batches made richer: windows changed into others that could be normal, and inputs spoiled on purpose.

| name | input | target | teaches |
|---|---|---|---|
| `jitter` | white noise | the same | that noise is normal |
| `scale` | each channel swings a little more or less | the same | that load wanders |
| `bend` | the same, changing slowly within the window | the same | that load wanders |
| `warp` | time runs a little faster here, slower there | the same | that speed wanders |
| `noise` | white noise | as recorded | to denoise (Vincent et al., ICML 2008) |
| `mask` | a span of time at zero | as recorded | to fill in (masked autoencoders: He et al., CVPR 2022) |
| `drop` | a channel at zero | as recorded | to tell a channel from the others |

Rules: windows are standardised, so zero is a channel's mean and strengths are in its normal spread; what spoils the
input never touches the target, since a model that learns to rebuild a dead channel would not see one; the same
generator state gives the same batch.
Time series augmentation: Um et al., ICMI 2017.
"""

from collections.abc import Callable

import numpy as np

from tocsin.records import Floats, Floats32

Generator = np.random.Generator
JITTER = 0.03  # of the normal spread
SCALE = 0.1  # standard deviation of the factor
BEND = 0.1
WARP = 0.15  # standard deviation of the speed
NOISE = 0.25  # of the normal spread
MASKED = 0.25  # of the window, at most
SPOILED = 0.5  # of the windows: the others are shown as they are, as they will be on the device
KNOTS = 4  # of the slow curves


def augmented(windows: Floats32, kinds: tuple[str, ...], rng: Generator) -> tuple[Floats32, Floats32]:
    """A training batch.

    Args:
        windows: (N, T, C) normal, standardised.
        kinds: what to do, of `CHANGES` and `SPOILERS`; nothing when empty.
        rng: draws everything.

    Returns:
        (N, T, C) inputs and (N, T, C) targets; the windows themselves where nothing is asked for.
    """
    for name, change in CHANGES.items():
        if name in kinds:
            windows = change(windows, rng).astype(np.float32)
    target = windows
    for name, spoil in SPOILERS.items():
        if name in kinds:
            hit = rng.random(len(windows))[:, None, None] < SPOILED
            windows = np.where(hit, spoil(windows, rng), windows).astype(np.float32)
    return windows, target


def _jitter(windows: Floats32, rng: Generator) -> Floats:
    return windows + rng.normal(0, JITTER, windows.shape)


def _scale(windows: Floats32, rng: Generator) -> Floats:
    return windows * rng.normal(1, SCALE, (len(windows), 1, windows.shape[2]))


def _bend(windows: Floats32, rng: Generator) -> Floats:
    return windows * (1 + _slow(windows.shape, BEND, rng))


def _warp(windows: Floats32, rng: Generator) -> Floats:
    """All channels together: they share one clock."""
    count, length, _ = windows.shape
    speed = np.exp(_slow((count, length, 1), WARP, rng)[:, :, 0])
    place = np.cumsum(speed, axis=1) - speed[:, :1]
    place *= (length - 1) / place[:, -1:]  # starts and ends with the window
    before = np.minimum(place.astype(np.int64), length - 2)
    part = (place - before)[:, :, None]
    each = np.arange(count)[:, None]
    warped: Floats = windows[each, before] * (1 - part) + windows[each, before + 1] * part
    return warped


def _noise(windows: Floats32, rng: Generator) -> Floats:
    return windows + rng.normal(0, NOISE, windows.shape)


def _mask(windows: Floats32, rng: Generator) -> Floats:
    """One span a window, over all channels."""
    count, length, _ = windows.shape
    span = rng.integers(1, max(2, round(length * MASKED) + 1), (count, 1))
    start = rng.integers(0, length - span + 1)
    row = np.arange(length)
    kept = (row < start) | (row >= start + span)
    return np.where(kept[:, :, None], windows, 0.0)


def _drop(windows: Floats32, rng: Generator) -> Floats:
    """One channel a window; a single channel stays, since nothing tells what it was."""
    count, _, channels = windows.shape
    if channels == 1:
        return windows.astype(np.float64)
    kept = np.arange(channels) != rng.integers(channels, size=(count, 1))
    return np.where(kept[:, None, :], windows, 0.0)


def _slow(shape: tuple[int, ...], spread: float, rng: Generator) -> Floats:
    """(N, T, C) smooth curves about zero, drawn at a few knots and joined by cosines."""
    count, length, channels = shape
    knots = rng.normal(0, spread, (count, KNOTS, channels))
    place = np.linspace(0, KNOTS - 1, length)
    before = np.minimum(place.astype(np.int64), KNOTS - 2)
    part = ((1 - np.cos(np.pi * (place - before))) / 2)[None, :, None]
    curve: Floats = knots[:, before] * (1 - part) + knots[:, before + 1] * part
    return curve


CHANGES: dict[str, Callable[[Floats32, Generator], Floats]] = {
    "jitter": _jitter,
    "scale": _scale,
    "bend": _bend,
    "warp": _warp,
}
SPOILERS: dict[str, Callable[[Floats32, Generator], Floats]] = {"noise": _noise, "mask": _mask, "drop": _drop}
