"""Windows in engineering units → what the model sees, by named steps with frozen constants.

```
(K, T, C) float64 ─ standardise ─ limit ─► (K, T, C) float32
```
Rules: nothing here fits anything; a step whose meaning changes gets a new name; each step reads and writes the
manifest's form `{"step": NAME, …constants}`.
"""

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from tocsin.errors import BundleError
from tocsin.records import Floats, Floats32


class Step(Protocol):
    """One step of preprocessing."""

    name: str

    def transform(self, windows: Floats) -> Floats:
        """(K, T, C) → (K, T, C)."""

    def inverse(self, windows: Floats) -> Floats:
        """Back to the unit before the step, as far as that can be."""

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""


@dataclass(frozen=True)
class Standardise:
    """(x − center) / scale, a constant of each a channel.

    Attributes:
        center: (C,) in engineering units.
        scale: (C,) in engineering units, > 0.
    """

    center: Floats
    scale: Floats
    name = "standardise"

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
        if center.ndim != 1 or center.shape != scale.shape or not (finite and (scale > 0).all()):
            raise ValueError("expected one finite center and one positive scale a channel")
        return cls(center, scale)


@dataclass(frozen=True)
class Limit:
    """Keeps |x| ≤ limit, so that the square of a wild value still fits float32.

    Attributes:
        limit: in units of the scale; far outside of what any model has seen.
    """

    limit: float
    name = "limit"

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


STEPS: dict[str, type[Step]] = {Standardise.name: Standardise, Limit.name: Limit}


@dataclass(frozen=True)
class Preprocessor:
    """The steps of a bundle, in order."""

    steps: tuple[Step, ...]

    def transform(self, windows: Floats) -> Floats32:
        """(K, T, C) in engineering units → (K, T, C) float32 as the model sees it."""
        for step in self.steps:
            windows = step.transform(windows)
        return np.ascontiguousarray(windows, np.float32)

    def inverse(self, windows: Floats32) -> Floats:
        """(K, T, C) as the model sees it → engineering units."""
        values = windows.astype(np.float64)
        for step in reversed(self.steps):
            values = step.inverse(values)
        return values

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
