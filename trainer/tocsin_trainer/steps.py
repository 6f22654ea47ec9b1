"""Cleaning and scaling with their constants, fitted on the training part: as the user asked, or chosen from the data.

Rules: what is taken out of a signal can no longer raise an alarm, so that nothing is taken out unasked but what is
plainly not the machine, and a `Choice` says so; floors and scales are the only things that are fitted.

| scaling  | center               | scale                                                                     |
|----------|----------------------|---------------------------------------------------------------------------|
| standard | mean                 | standard deviation; this is what is taken unasked                          |
| robust   | median               | spread of the middle half, at least half of the deviation without extremes |
| minmax   | middle of the range  | half of the range: training data lie within −1 and 1                      |
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np

from tocsin.core.groups import RateGroups
from tocsin.core.preprocess import (
    Clip,
    Despike,
    Detrend,
    Difference,
    Ewma,
    RunningMedian,
    SavitzkyGolay,
    Standardise,
    Step,
)
from tocsin.errors import ConfigError
from tocsin.recordings import channel_key, split_unit
from tocsin.records import Channel, Floats
from tocsin_trainer.dataset import VIBRATION_HZ
from tocsin_trainer.input_settings import (
    ClipSettings,
    DespikeSettings,
    DetrendSettings,
    DifferenceSettings,
    EwmaSettings,
    MedianSettings,
    SavgolSettings,
    ScalingName,
    StepSettings,
)
from tocsin_trainer.options import InputOptions, TrainOptions
from tocsin_trainer.results import Choice

SEEN = 1 << 22  # values that are enough to fit a constant

SPIKE_WIDTH = 5  # rows
SPIKE_SPREADS = 20.0  # further off than anything that a machine does from one row to the next and undoes at once
SPIKE_SHARE = 1e-3  # of a channel's rows at most: what happens more often belongs to the machine
SPIKE_COUNT = 3  # at least: one is an accident
STRAY_SHARE = 0.05  # of the jumps at most may not come back at once: else the channel is switched, or pulsed
SIGMA_OF_MAD, SIGMA_OF_P99 = 1.4826, 1 / 2.576  # of a normal distribution


def cleaning_steps(
    options: InputOptions, windows: Floats, sample_rate_hz: float, channels: tuple[Channel, ...]
) -> tuple[tuple[Step, ...], tuple[Choice, ...]]:
    """Cleaning and denoising, as asked or chosen.

    Args:
        options: what the user asked for.
        windows: (N, T, C) of the training part, engineering units.
        sample_rate_hz: of the grid.
        channels: in the order of the columns.

    Raises:
        ConfigError: a step names a channel that is not there, or is too wide for the windows.
    """
    if options.clean is None:
        return automatic(windows, sample_rate_hz, channels)
    steps = from_settings(options.clean, windows, channels)
    return steps, (Choice("cleaning", ", ".join(step.name for step in steps) or "none", "given"),)


def automatic(
    windows: Floats, sample_rate_hz: float, channels: tuple[Channel, ...]
) -> tuple[tuple[Step, ...], tuple[Choice, ...]]:
    """Despiking, where single wild values occur in normal running that no machine makes; else nothing.

    A spike is a value more than 20 spreads off the rows before and after it, in the same direction; the spread is that
    of the differences between rows. A channel is despiked where there are some in its normal running, but few, and
    where hardly any jump of that size stays: a switched or pulsed channel is left alone.

    Args:
        windows: (N, T, C) of the training part, engineering units.
        sample_rate_hz: of the grid.
        channels: in the order of the columns.
    """
    noise = Choice("denoising", "none", "noise is part of normal running, and a change of it a sign")
    if sample_rate_hz >= VIBRATION_HZ:
        return (), (Choice("cleaning", "none", "of vibration, impacts are what a fault looks like"), noise)
    some = _some(windows)
    spread = _unrest(some)
    share = _spikes(some, spread)
    if not share.any():
        why = f"no channel has rare single values {SPIKE_SPREADS:g} spreads off and back again, and no other such jumps"
        return (), (Choice("cleaning", "none", why), noise)
    named = ", ".join(f"{channels[c].name} ({share[c]:.2g} of the rows)" for c in np.flatnonzero(share))
    why = (
        f"single values {SPIKE_SPREADS:g} spreads off and back again occur in normal running of {named}; they are "
        "taken out, so that a fault which shows in nothing else is not seen there"
    )
    step = Despike(SPIKE_WIDTH, SPIKE_SPREADS, np.where(share > 0, spread, np.inf))
    return (step,), (Choice("cleaning", f"despike, {SPIKE_WIDTH} rows", why), noise)


def _spikes(windows: Floats, spread: Floats) -> Floats:
    """(C,) part of the rows that are single wild values; 0 for channels that are not to be despiked."""
    jump = np.diff(windows, axis=1)
    big = (np.abs(jump) > SPIKE_SPREADS * spread) & (spread > 0)
    there, back = big[:, :-1] & (jump[:, :-1] * jump[:, 1:] < 0), big[:, 1:]
    left = np.abs(jump[:, :-1] + jump[:, 1:])  # after the spike, against before
    spike = there & back & (left <= np.maximum(np.abs(jump[:, 1:]) / 4, spread))
    paired = np.zeros_like(big)
    paired[:, :-1] |= spike
    paired[:, 1:] |= spike
    inner = slice(1, -1)  # of a jump at the edge, the other one may lie outside
    jumps = big[:, inner].sum(axis=(0, 1))
    strays = (big & ~paired)[:, inner].sum(axis=(0, 1))
    share: Floats = spike.mean(axis=(0, 1))
    seen = [len(np.unique(windows[:, 1:-1, c][spike[..., c]])) for c in range(windows.shape[2])]  # windows overlap
    despiked = (np.array(seen) >= SPIKE_COUNT) & (share <= SPIKE_SHARE) & (strays <= STRAY_SHARE * jumps)
    return np.where(despiked, share, 0.0)


def from_settings(settings: Sequence[StepSettings], windows: Floats, channels: tuple[Channel, ...]) -> tuple[Step, ...]:
    """The steps that the user listed, constants that were left out fitted on what comes into each.

    Args:
        settings: `preprocess.clean` of ASSET.yaml.
        windows: (N, T, C) of the training part, engineering units.
        channels: in the order of the columns.

    Raises:
        ConfigError: a step names a channel that is not there, or is too wide for the windows.
    """
    some, steps = _some(windows), []
    for number, setting in enumerate(settings):
        step = _step(setting, some, channels, f"preprocess.clean[{number}]")
        try:
            step.rows(some.shape[1])
        except ValueError as error:
            raise ConfigError(f"preprocess.clean[{number}]: {error}; longer windows: --window") from error
        some = step.transform(some)
        steps.append(step)
    return tuple(steps)


def _step(setting: StepSettings, windows: Floats, channels: tuple[Channel, ...], key: str) -> Step:
    step: Step
    match setting:
        case DespikeSettings():
            step = Despike(setting.width, setting.spreads, _least_spread(windows))
        case ClipSettings():
            low, high = (
                _by_channel(given, channels, f"{key}.{name}", default)
                for given, name, default in ((setting.low, "low", -np.inf), (setting.high, "high", np.inf))
            )
            step = Clip(low, high)
        case MedianSettings():
            step = RunningMedian(setting.width)
        case EwmaSettings():
            step = Ewma(setting.alpha)
        case SavgolSettings():
            step = SavitzkyGolay(setting.width, setting.order)
        case DetrendSettings():
            step = Detrend()
        case DifferenceSettings():
            step = Difference()
    return step


def scaling(kind: ScalingName | None, values: Floats) -> Standardise:
    """Centre and scale by one of the three rules, a channel each, or a feature and channel.

    The scale of `robust` is the interquartile range as a standard deviation, but at least half of the standard
    deviation without the outermost percent: a pulsed signal has an interquartile range near nothing. What is constant
    is scaled by a hundredth of its value, by any rule, so that any change of it shows.

    Args:
        kind: None = standard.
        values: (n, C) rows, or (N, R, C) features of windows, of the training part.
    """
    if kind == "minmax":
        low, high = values.min(axis=0), values.max(axis=0)
        center, scale = (low + high) / 2, (high - low) / 2
    elif kind == "robust":
        low, first, center, third, high = np.percentile(values, (0.5, 25, 50, 75, 99.5), axis=0)
        scale = np.maximum((third - first) / 1.349, np.clip(values, low, high).std(axis=0) / 2)
        scale = np.where(scale > 0, scale, values.std(axis=0))
    else:
        center, scale = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    tiny = 1e-9 * np.maximum(np.abs(center), 1.0)
    scale = np.where(scale > tiny, scale, np.where(center != 0, np.abs(center) / 100, 1.0))
    return Standardise(np.asarray(center, np.float64), np.asarray(scale, np.float64))


def channel_weights(
    given: Mapping[str, float], channels: tuple[Channel, ...], groups: RateGroups | None = None
) -> Floats:
    """(C,) weights in the score, mean 1; a channel that is not named has the weight 1 before that.

    Args:
        given: by name.
        channels: columns of the dataset.
        groups: of which they are made: a channel's weight is that of all columns made of it that are not named.

    Raises:
        ConfigError: a name that is no channel's, or no weight above 0.
    """
    weights = _by_channel(_of_columns(given, groups), channels, "channel_weights", 1.0)
    if not weights.any():
        raise ConfigError("channel_weights: all are 0: expected at least one channel that counts")
    mean_one: Floats = weights / weights.mean()
    return mean_one


def _of_columns(given: Mapping[str, float], groups: RateGroups | None) -> dict[str, float]:
    """The same by columns, where channels are shown by features."""
    every = dict(given)
    for group in groups.groups if groups else ():
        for channel in group.channels if group.features else ():
            if channel.name in every:
                weight = every.pop(channel.name)
                every = {f"{channel.name}_{name}": weight for name in group.names} | every
    return every


def check_names(options: TrainOptions, channels: tuple[Channel, ...], groups: RateGroups | None = None) -> None:
    """Whether channels that the options name are there, before anything heavy is loaded.

    Raises:
        ConfigError: a name that is no channel's, or no weight above 0.
    """
    channel_weights(options.channel_weights, channels, groups)
    for number, setting in enumerate(options.inputs.clean or ()):
        if isinstance(setting, ClipSettings):
            for key, given in (("low", setting.low), ("high", setting.high)):
                _by_channel(given, channels, f"preprocess.clean[{number}].{key}", 0.0)


def _by_channel(given: Mapping[str, float], channels: tuple[Channel, ...], key: str, default: float) -> Floats:
    """(C,) values by name, in the order of the channels; names as in the recording's header are taken too."""
    names = [channel.name for channel in channels]
    out = np.full(len(names), default)
    for name, value in given.items():
        own = name if name in names else channel_key(split_unit(name)[0])
        if own not in names:
            close = get_close_matches(own, names, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected some of {', '.join(names)}"
            raise ConfigError(f"{key}: {name[:80]!r} is no channel of the recordings: {hint}")
        out[names.index(own)] = value
    return out


def _some(windows: Floats) -> Floats:
    """Windows evenly drawn, so many that a constant can be fitted on them."""
    return windows[:: max(1, -(-windows.size // SEEN))]


def _unrest(windows: Floats) -> Floats:
    """(C,) spread of the differences between rows, without the most extreme percent; 0 where most do not change."""
    size = np.abs(np.diff(windows, axis=1)).reshape(-1, windows.shape[2])
    middle, high = np.percentile(size, (50, 99), axis=0)
    spread: Floats = np.maximum(SIGMA_OF_MAD * middle, SIGMA_OF_P99 * high)
    return spread


def _least_spread(windows: Floats) -> Floats:
    """(C,) as `_unrest`; of a channel that hardly ever changes, its smallest change; infinite where there is none."""
    spread, size = _unrest(windows), np.abs(np.diff(windows, axis=1))
    smallest = np.where(size > 0, size, np.inf).min(axis=(0, 1))
    return np.where(spread > 0, spread, smallest)
