"""Steps that show a window by its spectrum: for vibration.

Rules: each channel's mean is taken off and a Hann window put on; the mean itself is never shown. Powers are mean
squares, which sum to about the variance, whatever the length of the window; only `log_spectrum` takes
the bare Fourier sum's.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np

from tocsin.core.preprocess.step import MAX_BANDS, Step, above_zero, floors, swing, whole
from tocsin.records import Floats, Ints


@dataclass(frozen=True)
class LogSpectrum(Step):
    """Decadic logarithm of the power in equal frequency bands, and of the effective value.

    Bands are of equal width from the first bin to half of the sample rate.

    Attributes:
        bands: B.
        floor: added to each power, in the square of the channel's unit, > 0: what counts as silence; one for all
            channels, or (C,).
    """

    bands: int
    floor: float | Floats
    name: ClassVar[str] = "log_spectrum"

    def rows(self, length: int) -> int:
        """B + 1: the bands, then the effective value."""
        if length // 2 < self.bands:
            raise ValueError(f"{length} rows have fewer frequencies than {self.bands} bands")
        return self.bands + 1

    def transform(self, windows: Floats) -> Floats:
        """(K, B + 1, C)."""
        courses = swing(windows)
        spectrum = np.fft.rfft(courses * _hann(windows.shape[1]))[..., 1:]
        power = spectrum.real**2 + spectrum.imag**2
        width = power.shape[2] // self.bands
        bands = power[..., : width * self.bands].reshape(*power.shape[:2], self.bands, width).mean(axis=-1)
        square = (courses**2).mean(axis=-1, keepdims=True)
        shown: Floats = np.log10(np.concatenate([bands, square], axis=-1).transpose(0, 2, 1) + self.floor)
        shown[:, -1] /= 2
        return shown

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        floor = floors(form) if isinstance(form["floor"], list) else above_zero(form, "floor")
        return cls(whole(form, "bands", 1, MAX_BANDS), floor)


@dataclass(frozen=True)
class LogMel(Step):
    """Decadic logarithm of the power in overlapping bands that grow wider with the frequency.

    Triangles of equal width on the mel scale, 2595 log10(1 + f / 700 Hz), from 0 to half of the sample rate (Davis &
    Mermelstein, IEEE Trans. ASSP 28, 1980): fine where the orders of a shaft lie, coarse where resonances do.

    Attributes:
        bands: B.
        sample_rate_hz: of the rows.
        floor: (C,) added to each power, in the square of the channel's unit, > 0.
    """

    bands: int
    sample_rate_hz: float
    floor: Floats
    name: ClassVar[str] = "log_mel"

    def rows(self, length: int) -> int:
        """B."""
        if length // 2 <= self.bands or not _mel(self.bands, self.sample_rate_hz, length)[2]:
            raise ValueError(
                f"{length} rows at {self.sample_rate_hz:g} Hz have frequencies {self.sample_rate_hz / length:.3g} Hz "
                f"apart: too few for {self.bands} mel bands"
            )
        return self.bands

    def transform(self, windows: Floats) -> Floats:
        """(K, B, C)."""
        power = mean_squares(windows)
        starts, rising, _ = _mel(self.bands, self.sample_rate_hz, windows.shape[1])
        up = power * rising  # each frequency lies on the rising side of one triangle and on the falling one of another
        energy = np.add.reduceat(up, starts, axis=-1)[..., :-1] + np.add.reduceat(power - up, starts, axis=-1)[..., 1:]
        return np.log10(energy.transpose(0, 2, 1) + self.floor)

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        return cls(whole(form, "bands", 1, MAX_BANDS), above_zero(form, "sample_rate_hz", 1e9), floors(form))


@dataclass(frozen=True)
class EnvelopeSpectrum(Step):
    """Decadic logarithm of the power in equal frequency bands of the envelope of a band: for bearings and gears.

    A damaged bearing strikes a resonance some hundred times a second: the strikes show in how the resonance swells and
    fades, not at their own frequency (Randall & Antoni, Mech. Syst. Signal Process. 25, 2011). The band is cut out of
    the Fourier transform; without its negative frequencies it is the analytic signal, whose magnitude is the envelope.

    Attributes:
        bands: B, from the first frequency to `top_hz`.
        low_hz: of the band whose envelope it is, > 0.
        high_hz: above low_hz, at most half of the sample rate.
        top_hz: highest frequency shown of the envelope, at most half of the sample rate.
        sample_rate_hz: of the rows.
        floor: (C,) added to each power, in the square of the channel's unit, > 0.
    """

    bands: int
    low_hz: float
    high_hz: float
    top_hz: float
    sample_rate_hz: float
    floor: Floats
    name: ClassVar[str] = "envelope_spectrum"

    def rows(self, length: int) -> int:
        """B."""
        first, stop = _bins(self.low_hz, self.high_hz, self.sample_rate_hz, length)
        shown = self._shown(length)
        if shown < self.bands or stop - first < 2:
            raise ValueError(
                f"{length} rows at {self.sample_rate_hz:g} Hz have {stop - first} frequencies from {self.low_hz:g} to "
                f"{self.high_hz:g} Hz and {shown} up to {self.top_hz:g} Hz: expected 2 and {self.bands} or more"
            )
        return self.bands

    def transform(self, windows: Floats) -> Floats:
        """(K, B, C)."""
        length = windows.shape[1]
        first, stop = _bins(self.low_hz, self.high_hz, self.sample_rate_hz, length)
        spectrum = np.fft.rfft(swing(windows))
        analytic = np.zeros((*spectrum.shape[:2], length), np.complex128)
        analytic[..., first:stop] = 2 * spectrum[..., first:stop]
        envelope = np.abs(np.fft.ifft(analytic)).transpose(0, 2, 1)
        width = self._shown(length) // self.bands
        power = mean_squares(envelope)[..., : width * self.bands]
        bands = power.reshape(*power.shape[:2], self.bands, width).sum(axis=-1)
        out: Floats = np.log10(bands.transpose(0, 2, 1) + self.floor)
        return out

    def _shown(self, length: int) -> int:
        return min(length // 2, int(self.top_hz * length / self.sample_rate_hz))

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        rate = above_zero(form, "sample_rate_hz", 1e9)
        low, high, top = (above_zero(form, key, rate / 2) for key in ("low_hz", "high_hz", "top_hz"))
        if low >= high:
            raise ValueError(f"expected low_hz below high_hz, got {low:g} and {high:g}")
        return cls(whole(form, "bands", 1, MAX_BANDS), low, high, top, rate, floors(form))


@dataclass(frozen=True)
class BandEnergies(Step):
    """Decadic logarithm of the effective value within given frequency bands.

    Attributes:
        bands_hz: from and below, each; they may overlap.
        sample_rate_hz: of the rows.
        floor: (C,) added to each mean square, in the square of the channel's unit, > 0.
    """

    bands_hz: tuple[tuple[float, float], ...]
    sample_rate_hz: float
    floor: Floats
    name: ClassVar[str] = "band_energies"

    def rows(self, length: int) -> int:
        """One a band."""
        for low, high in self.bands_hz:
            first, stop = _bins(low, high, self.sample_rate_hz, length)
            if stop <= first:
                raise ValueError(
                    f"{length} rows at {self.sample_rate_hz:g} Hz have no frequency from {low:g} to {high:g} Hz"
                )
        if length < len(self.bands_hz):
            raise ValueError(f"{length} rows are fewer than {len(self.bands_hz)} bands")
        return len(self.bands_hz)

    def transform(self, windows: Floats) -> Floats:
        """(K, bands, C)."""
        power = mean_squares(windows)
        bins = (_bins(low, high, self.sample_rate_hz, windows.shape[1]) for low, high in self.bands_hz)
        energy = np.stack([power[..., first - 1 : stop - 1].sum(axis=-1) for first, stop in bins], axis=1)
        out: Floats = 0.5 * np.log10(energy + self.floor)
        return out

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {**super().to_json(), "bands_hz": [list(band) for band in self.bands_hz]}

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        rate, listed = above_zero(form, "sample_rate_hz", 1e9), form["bands_hz"]
        if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_BANDS:
            raise ValueError(f"bands_hz: expected a list of 1 to {MAX_BANDS} bands")
        bands = []
        for low, high in listed:
            if type(low) not in (int, float) or type(high) not in (int, float) or not 0 <= low < high <= rate:
                raise ValueError("bands_hz: expected [low, high] each, 0 ≤ low < high ≤ the sample rate")
            bands.append((float(low), float(high)))
        return cls(tuple(bands), rate, floors(form))


def mean_squares(windows: Floats) -> Floats:
    """(K, C, T // 2) mean square at each frequency but 0 of (K, T, C) windows."""
    length = windows.shape[1]
    hann = _hann(length)
    spectrum = np.fft.rfft(swing(windows) * hann)[..., 1:]
    power: Floats = (spectrum.real**2 + spectrum.imag**2) * (2 / (length * (hann**2).sum()))
    if length % 2 == 0:
        power[..., -1] /= 2  # half of the sample rate has no twin among the negative frequencies
    return power


def _bins(low_hz: float, high_hz: float, sample_rate_hz: float, length: int) -> tuple[int, int]:
    """First frequency that is not below `low_hz` (nor 0), first that is not below `high_hz`, counted in bins."""
    last = length // 2
    low, high = (math.ceil(hz * length / sample_rate_hz) for hz in (low_hz, high_hz))
    return max(1, low), min(high, last + 1)


@lru_cache(maxsize=8)
def _hann(length: int) -> Floats:
    window = np.hanning(length)
    window.flags.writeable = False
    return window


@lru_cache(maxsize=8)
def _mel(bands: int, sample_rate_hz: float, length: int) -> tuple[Ints, Floats, bool]:
    """Where the stretches between the triangles' tops start, how far up each frequency is, and whether none is empty.

    Stretch s lies between the tops of bands s − 1 and s; a frequency in it counts `rising` to band s and the rest to
    band s − 1.
    """
    hz = np.arange(1, length // 2 + 1) * (sample_rate_hz / length)
    place = np.log1p(hz / 700) / np.log1p(sample_rate_hz / 2 / 700) * (bands + 1)
    stretch = np.minimum(place.astype(np.int64), bands)
    starts = np.searchsorted(stretch, np.arange(bands + 1))
    rising = np.minimum(place - stretch, 1.0)
    starts.flags.writeable = rising.flags.writeable = False
    return starts, rising, bool((np.bincount(stretch, minlength=bands + 1) > 0).all())
