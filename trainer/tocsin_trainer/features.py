"""Features of windows, by name: what a model is shown instead of the signal, with its floors fitted.

Rules: floors are parts of what is usual in the training part, so that silence is calm and not minus infinity; bands
follow from rate and window, and may be given.
"""

import numpy as np

from tocsin.core.preprocess import (
    BandEnergies,
    EnvelopeSpectrum,
    LevelUnrest,
    LogMel,
    LogSpectrum,
    Moments,
    Stack,
    Step,
    WindowStatistics,
)
from tocsin.errors import ConfigError
from tocsin.records import Floats
from tocsin_trainer.input_settings import FeatureName
from tocsin_trainer.options import InputOptions

BANDS = 128
MAX_FEATURES = 768  # of all channels together: more than that no whitening matrix can hold
MEL_BANDS = 64
ENVELOPE_BANDS = 32
ENVELOPE_TOP_HZ = 1000.0  # strikes a second: beyond it lie only their harmonics
OCTAVES = 8
SILENCE = 1e-6  # of the median power
CALM = 0.01  # of the median variance: a still channel is calm, not minus infinity


def chosen_features(
    options: InputOptions, windows: Floats, sample_rate_hz: float, segments: int = 1
) -> tuple[Step, ...] | None:
    """The features that the user named, side by side where there are several; () for the signal, None for `auto`.

    Args:
        options: what the user asked for.
        windows: (N, T, C) of the training part, cleaned.
        sample_rate_hz: of the grid.
        segments: parts of a window that `level_unrest` and `window_statistics` look at.

    Raises:
        ConfigError: the windows are too short for a feature, or the rate too low for its bands.
    """
    if options.features is None:
        return None
    if options.features == ("signal",):
        return ()
    steps = [feature_step(name, windows, sample_rate_hz, options, segments) for name in options.features]
    step = steps[0] if len(steps) == 1 else Stack(tuple((step,) for step in steps))
    try:
        step.rows(windows.shape[1])
    except ValueError as error:
        raise ConfigError(f"preprocess.features: {error}; longer windows: --window") from error
    return (step,)


def feature_step(
    name: FeatureName, windows: Floats, sample_rate_hz: float, options: InputOptions | None = None, segments: int = 1
) -> Step:
    """A feature by its name, its floors fitted.

    Args:
        name: any but `signal`, which needs no step.
        windows: (N, T, C) of the training part, cleaned.
        sample_rate_hz: of the grid.
        options: bands that the user gave.
        segments: parts of a window that `level_unrest` and `window_statistics` look at.

    Raises:
        ConfigError: windows too short for it, or bands beyond half of the sample rate.
    """
    options = options or InputOptions()
    _check_bands(options, sample_rate_hz)
    length, nyquist = windows.shape[1], sample_rate_hz / 2
    power = _power(windows)
    step: Step
    match name:
        case "level_unrest":
            step = LevelUnrest(segments, CALM * power)
        case "window_statistics":
            step = WindowStatistics(segments)
        case "moments":
            step = Moments(CALM * power)
        case "log_spectrum":
            bands = min(BANDS, length // 8, MAX_FEATURES // windows.shape[2] - 1)
            step = LogSpectrum(max(1, bands), SILENCE * power)
        case "log_mel":
            step = LogMel(_mel_bands(sample_rate_hz, length), sample_rate_hz, SILENCE * power)
        case "envelope_spectrum":
            low, high = options.envelope_hz or (nyquist / 4, 0.9 * nyquist)
            top = min(ENVELOPE_TOP_HZ, nyquist / 2)
            count = max(1, min(ENVELOPE_BANDS, int(top * length / sample_rate_hz)))
            step = EnvelopeSpectrum(count, low, high, top, sample_rate_hz, SILENCE * power)
        case "band_energies":
            octaves = ((nyquist / 2 ** (k + 1), nyquist / 2**k) for k in reversed(range(OCTAVES)))
            given = tuple(band for band in octaves if band[0] * length >= sample_rate_hz)
            step = BandEnergies(options.bands_hz or given, sample_rate_hz, SILENCE * power)
        case _:
            raise ValueError(f"{name!r} is no feature that needs a step")
    return step


def _check_bands(options: InputOptions, sample_rate_hz: float) -> None:
    for key, bands in (("bands_hz", options.bands_hz), ("envelope_hz", (options.envelope_hz or (0.0, 0.0),))):
        highest = max((high for _, high in bands), default=0.0)
        if highest > sample_rate_hz / 2:
            raise ConfigError(
                f"preprocess.{key}: {highest:g} Hz is more than half of the sample rate, {sample_rate_hz / 2:g} Hz"
            )


def _mel_bands(sample_rate_hz: float, length: int) -> int:
    """The most, up to MEL_BANDS, of which none lies between two frequencies; 1 where all do."""
    for bands in range(min(MEL_BANDS, length // 4), 1, -1):
        try:
            return LogMel(bands, sample_rate_hz, np.ones(1)).rows(length)
        except ValueError:
            continue
    return 1


def _power(windows: Floats) -> Floats:
    """(C,) usual variance of a window; of a channel that mostly stands still, that of all rows, or 1."""
    usual = np.median(windows.var(axis=1), axis=0)
    whole = windows.reshape(-1, windows.shape[2]).var(axis=0)
    power: Floats = np.where(usual > 0, usual, np.where(whole > 0, whole, 1.0))
    return power
