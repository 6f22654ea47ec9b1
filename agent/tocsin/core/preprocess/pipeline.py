"""Steps in a row, and side by side: what a member of a bundle does to windows before its model sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from tocsin.core.preprocess.cleaning import Clip, Despike
from tocsin.core.preprocess.denoising import Ewma, RunningMedian, SavitzkyGolay
from tocsin.core.preprocess.scaling import Limit, Standardise
from tocsin.core.preprocess.spectrum import BandEnergies, EnvelopeSpectrum, LogMel, LogSpectrum
from tocsin.core.preprocess.statistic import LevelUnrest, Moments, WindowStatistics
from tocsin.core.preprocess.step import Filter, Step
from tocsin.core.preprocess.trend import Detrend, Difference
from tocsin.errors import BundleError
from tocsin.records import Floats, Floats32

MAX_STEPS = 16  # of a member: in a row and side by side, together
PIECE = 1 << 16  # values of the windows that are prepared at once: 512 KiB


@dataclass(frozen=True)
class Stack(Step):
    """Several features side by side: the rows of the first branch, then those of the second, and so on.

    Attributes:
        branches: steps of each, in order; one step or more, none of them a stack.
    """

    branches: tuple[tuple[Step, ...], ...]
    name: ClassVar[str] = "stack"

    def rows(self, length: int) -> int:
        """Those of all branches together."""
        together = sum(rows_after(steps, length) for steps in self.branches)
        if together > length:
            raise ValueError(f"{length} rows are fewer than the {together} that its features have together")
        return together

    def takes(self, channels: int) -> bool:
        """Whether all of the steps do."""
        return all(step.takes(channels) for steps in self.branches for step in steps)

    def transform(self, windows: Floats) -> Floats:
        """(K, rows, C)."""
        return np.concatenate([transformed(steps, windows) for steps in self.branches], axis=1)

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {"step": self.name, "branches": [[step.to_json() for step in steps] for steps in self.branches]}

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        listed = form["branches"]
        if not isinstance(listed, list) or not 2 <= len(listed) <= MAX_STEPS or not all(listed):
            raise ValueError(f"branches: expected 2 to {MAX_STEPS} lists of one step or more")
        return cls(tuple(_read(forms, inside=cls) for forms in listed))

    def __len__(self) -> int:
        """Number of steps in it."""
        return sum(map(len, self.branches))


STEPS: dict[str, type[Step]] = {
    step.name: step
    for step in (
        *(Despike, Clip, RunningMedian, Ewma, SavitzkyGolay, Detrend, Difference),
        *(LevelUnrest, WindowStatistics, Moments, LogSpectrum, LogMel, EnvelopeSpectrum, BandEnergies),
        *(Stack, Standardise, Limit),
    )
}


@dataclass(frozen=True)
class Preprocessor:
    """The steps of a member, in order."""

    steps: tuple[Step, ...]

    def rows(self, length: int) -> int:
        """Rows that the model sees of windows of `length`, at most as many.

        Raises:
            ValueError: the windows are too short for a step.
        """
        return rows_after(self.steps, length)

    def takes(self, channels: int) -> bool:
        """Whether the constants of all steps are for so many channels."""
        return all(step.takes(channels) for step in self.steps)

    def transform(self, windows: Floats) -> Floats32:
        """(K, T, C) in engineering units → (K, rows(T), C) float32 as the model sees it.

        Windows are laid out anew first, as the order in which numbers are summed follows from where they lie, and
        taken in pieces that fit the processor's cache.
        """
        count = max(1, PIECE // (windows.shape[1] * windows.shape[2]))
        out = np.empty((len(windows), self.rows(windows.shape[1]), windows.shape[2]), np.float32)
        for start in range(0, len(windows), count):
            piece = slice(start, start + count)
            out[piece] = transformed(self.steps, np.ascontiguousarray(windows[piece]))
        return out

    def inverse(self, windows: Floats32) -> Floats | None:
        """(K, rows(T), C) as the model sees it → engineering units; None where a step cannot be undone."""
        values: Floats | None = windows.astype(np.float64)
        for step in reversed(self.steps):
            values = None if values is None else step.inverse(values)
        return values

    def usual_level(self) -> Floats | None:
        """(C,) what the steps hold to be each channel's level in normal running, engineering units; None if nothing."""
        steps = self.steps
        while steps and isinstance(steps[0], Filter):  # they keep the unit
            steps = steps[1:]
        match steps:
            case (LevelUnrest(segments=parts) | WindowStatistics(segments=parts), Standardise(center=center), *_) if (
                center.ndim == 2
            ):
                level: Floats = center[:parts].mean(axis=0)
                return level
            case (Standardise(center=center), *_):
                usual: Floats = center if center.ndim == 1 else center.mean(axis=0)
                return usual
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
        steps = _read(forms)
        count = sum(len(step) if isinstance(step, Stack) else 1 for step in steps)
        if count > MAX_STEPS:
            raise BundleError(f"{count} preprocessing steps for one model: at most {MAX_STEPS} are taken")
        return cls(steps)


def rows_after(steps: Sequence[Step], length: int) -> int:
    """Rows that are left of `length` after steps in a row.

    Raises:
        ValueError: the windows are too short for one of them.
    """
    for step in steps:
        length = step.rows(length)
    return length


def transformed(steps: Sequence[Step], windows: Floats) -> Floats:
    """(K, T, C) → (K, rows_after(steps, T), C)."""
    for step in steps:
        windows = step.transform(windows)
    return windows


def _read(forms: list[dict[str, Any]], inside: type[Step] | None = None) -> tuple[Step, ...]:
    if not isinstance(forms, list) or not all(isinstance(form, dict) for form in forms):
        raise BundleError("the preprocessing of the manifest is damaged: expected a list of steps")
    if len(forms) > MAX_STEPS:
        raise BundleError(f"{len(forms)} preprocessing steps for one model: at most {MAX_STEPS} are taken")
    steps = []
    for form in forms:
        name = form.get("step")
        if not isinstance(name, str) or name not in STEPS:
            raise BundleError(
                f"preprocessing step {str(name)[:40]!r} is not known to this agent (it knows "
                f"{', '.join(sorted(STEPS))}): update the agent, or train again with its version"
            )
        if STEPS[name] is inside:
            raise BundleError(f"preprocessing step {name!r} of the manifest is damaged: one lies within another")
        try:
            steps.append(STEPS[name].from_json(form))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"preprocessing step {name!r} of the manifest is damaged: {error}") from error
    return tuple(steps)
