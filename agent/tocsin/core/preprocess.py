"""Windows in engineering units → what a model sees, by named steps with frozen constants.

```
(K, T, C) float64 ──────────────── standardise ─ limit ──► (K, T, C) float32    the signal itself
(K, T, C) float64 ─ level_unrest ─ standardise ─ limit ──► (K, 2·S, C)          its level and unrest
(K, T, C) float64 ─ log_spectrum ─ standardise ─ limit ──► (K, B + 1, C)        its spectrum
```
Rules: nothing here fits anything; the last axis stays the channels, so that a score can be split over them; a step
whose meaning changes gets a new name; each step reads and writes the manifest's form `{"step": NAME, …constants}`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from tocsin.errors import BundleError
from tocsin.records import Floats, Floats32


class Step(Protocol):
    """One step of preprocessing."""

    name: ClassVar[str]

    def rows(self, length: int) -> int:
        """Rows that come out of `length`."""

    def transform(self, windows: Floats) -> Floats:
        """(K, T, C) → (K, rows(T), C)."""

    def inverse(self, windows: Floats) -> Floats | None:
        """Back to the unit before the step; None where that cannot be."""

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""


@dataclass(frozen=True)
class Standardise:
    """(x − center) / scale: a constant of each a channel, or a row and channel.

    Attributes:
        center: (C,) or (T, C), in the unit of what comes in.
        scale: the same shape, > 0.
    """

    center: Floats
    scale: Floats
    name: ClassVar[str] = "standardise"

    def rows(self, length: int) -> int:
        """As many as come in."""
        return length

    def transform(self, windows: Floats) -> Floats:
        """(K, T, C) in units of the scale."""
        return (windows - self.center) / self.scale

    def inverse(self, windows: Floats) -> Floats:
        """(K, T, C) in engineering units."""
        return windows * self.scale + self.center

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {"step": self.name, "center": self.center.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        center, scale = np.asarray(form["center"], np.float64), np.asarray(form["scale"], np.float64)
        finite = np.isfinite(center).all() and np.isfinite(scale).all()
        if center.ndim not in (1, 2) or center.shape != scale.shape or not (finite and (scale > 0).all()):
            raise ValueError("expected one finite center and one positive scale a channel")
        return cls(center, scale)


@dataclass(frozen=True)
class Limit:
    """Keeps |x| ≤ limit, so that the square of a wild value still fits float32.

    Attributes:
        limit: in units of the scale; far outside of what any model has seen.
    """

    limit: float
    name: ClassVar[str] = "limit"

    def rows(self, length: int) -> int:
        """As many as come in."""
        return length

    def transform(self, windows: Floats) -> Floats:
        """(K, T, C) within ± limit."""
        return np.clip(windows, -self.limit, self.limit)

    def inverse(self, windows: Floats) -> Floats:
        """Unchanged: what was cut off is lost."""
        return windows

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {"step": self.name, "limit": self.limit}

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        limit = float(form["limit"])
        if not 0 < limit < np.inf:
            raise ValueError("expected a limit above 0")
        return cls(limit)


@dataclass(frozen=True)
class LevelUnrest:
    """Level and unrest: mean, and logarithm of the standard deviation, of equal parts of the window.

    Attributes:
        segments: S parts; rows at the window's start that do not fill a part are left out.
        floor: (C,) added to the variance before its logarithm, in the square of the channel's unit, > 0.
    """

    segments: int
    floor: Floats
    name: ClassVar[str] = "level_unrest"

    def rows(self, length: int) -> int:
        """2·S: the levels, then the unrests."""
        if length < 2 * self.segments:
            raise ValueError(f"{length} rows cannot be cut into {self.segments} parts of two or more")
        return 2 * self.segments

    def transform(self, windows: Floats) -> Floats:
        """(K, 2·S, C)."""
        part = windows.shape[1] // self.segments
        kept = windows[:, windows.shape[1] - part * self.segments :]
        parts = kept.reshape(len(windows), self.segments, part, windows.shape[2])
        return np.concatenate([parts.mean(axis=2), 0.5 * np.log(parts.var(axis=2) + self.floor)], axis=1)

    def inverse(self, windows: Floats) -> None:
        """There is no way back."""
        return None

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {"step": self.name, "segments": self.segments, "floor": self.floor.tolist()}

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        segments, floor = int(form["segments"]), np.asarray(form["floor"], np.float64)
        if segments < 1 or floor.ndim != 1 or not (np.isfinite(floor) & (floor > 0)).all():
            raise ValueError("expected one segment or more, and a floor above 0 for each channel")
        return cls(segments, floor)


@dataclass(frozen=True)
class LogSpectrum:
    """Decadic logarithm of the power in equal frequency bands, and of the effective value: for vibration.

    Each channel's mean is taken off, a Hann window put on; bands are of equal width from the first bin to half of the
    sample rate.

    Attributes:
        bands: B.
        floor: added to each power, in the square of the channel's unit: what counts as silence.
    """

    bands: int
    floor: float
    name: ClassVar[str] = "log_spectrum"

    def rows(self, length: int) -> int:
        """B + 1: the bands, then the effective value."""
        if length // 2 < self.bands:
            raise ValueError(f"{length} rows have fewer frequencies than {self.bands} bands")
        return self.bands + 1

    def transform(self, windows: Floats) -> Floats:
        """(K, B + 1, C)."""
        length, channels = windows.shape[1:]
        swing = windows - windows.mean(axis=1, keepdims=True)
        spectrum = np.fft.rfft(swing * np.hanning(length)[:, None], axis=1)[:, 1:]
        power = spectrum.real**2 + spectrum.imag**2
        width = power.shape[1] // self.bands
        bands = power[:, : width * self.bands].reshape(len(windows), self.bands, width, channels).mean(axis=2)
        square = (swing**2).mean(axis=1, keepdims=True)
        return np.concatenate([np.log10(bands + self.floor), 0.5 * np.log10(square + self.floor)], axis=1)

    def inverse(self, windows: Floats) -> None:
        """There is no way back."""
        return None

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {"step": self.name, "bands": self.bands, "floor": self.floor}

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        bands, floor = int(form["bands"]), float(form["floor"])
        if bands < 1 or not 0 < floor < np.inf:
            raise ValueError("expected one band or more and a floor above 0")
        return cls(bands, floor)


STEPS: dict[str, type[Step]] = {step.name: step for step in (Standardise, Limit, LevelUnrest, LogSpectrum)}


@dataclass(frozen=True)
class Preprocessor:
    """The steps of a member, in order."""

    steps: tuple[Step, ...]

    def rows(self, length: int) -> int:
        """Rows that the model sees of windows of `length`.

        Raises:
            ValueError: the windows are too short for a step.
        """
        for step in self.steps:
            length = step.rows(length)
        return length

    def transform(self, windows: Floats) -> Floats32:
        """(K, T, C) in engineering units → (K, rows(T), C) float32 as the model sees it."""
        for step in self.steps:
            windows = step.transform(windows)
        return np.ascontiguousarray(windows, np.float32)

    def inverse(self, windows: Floats32) -> Floats | None:
        """(K, rows(T), C) as the model sees it → engineering units; None where a step cannot be undone."""
        values: Floats | None = windows.astype(np.float64)
        for step in reversed(self.steps):
            values = None if values is None else step.inverse(values)
        return values

    def usual_level(self) -> Floats | None:
        """(C,) what the steps hold to be each channel's level in normal running, engineering units; None if nothing."""
        match self.steps:
            case (LevelUnrest(segments=parts), Standardise(center=center), *_) if center.ndim == 2:
                level: Floats = center[:parts].mean(axis=0)
                return level
            case (Standardise(center=center), *_) if center.ndim == 1:
                return center
        return None

    def to_json(self) -> list[dict[str, Any]]:
        """The manifest's list of steps."""
        return [step.to_json() for step in self.steps]

    @classmethod
    def from_json(cls, forms: list[dict[str, Any]]) -> Self:
        """From the manifest's list.

        Raises:
            BundleError: an unknown step, or constants that do not fit it.
        """
        steps = []
        for form in forms:
            name = form.get("step")
            if name not in STEPS:
                raise BundleError(
                    f"preprocessing step {name!r} is not known to this agent (it knows {', '.join(sorted(STEPS))}): "
                    "update the agent, or train again with its version"
                )
            try:
                steps.append(STEPS[name].from_json(form))
            except (KeyError, TypeError, ValueError) as error:
                raise BundleError(f"preprocessing step {name!r} of the manifest is damaged: {error}") from error
        return cls(tuple(steps))
