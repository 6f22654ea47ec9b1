"""What the updater and the agent tell each other about a model that is tried, and how it is judged.

```
offer.json     updater ─► agent    try this one: beside the current (shadow), or as the current (trial)
verdict.json   agent ─► updater    how both fared on the same windows of the live stream
```
Rules: a model is judged by comparison with the one before on the same stream: alarms of both together may be the
machine's. A file is replaced whole. What cannot be read is nothing.
"""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

WORSE = 0.05  # part of windows in alarm that a new model may have more than the old one
SLOWEST = 0.5  # of the time between two windows
FEW = 20  # windows that tell nothing yet
SAME = 1e-9  # ratios that never differ by more are no scores


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    def write(self, path: Path) -> None:
        """Whole, or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            file.write(self.model_dump_json().encode())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """None where there is none that can be read."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None


class Offer(_File):
    """What the agent is to try."""

    job: str
    sha256: str
    stage: Literal["shadow", "trial"]
    windows: int = Field(ge=1, description="after which a verdict is expected")


class Fared(_File):
    """How one model fared."""

    windows: int = 0
    not_finite: int = 0
    over_limit: int = 0
    in_alarm: int = Field(0, description="windows with the condition on")
    raised: int = 0
    ratio_p50: float | None = None
    ratio_p90: float | None = None
    ratio_p99: float | None = None
    ratio_max: float | None = None
    ratio_min: float | None = None
    ms_p50: float | None = None
    ms_p99: float | None = None


class Verdict(_File):
    """How the new model fared beside the old one."""

    job: str
    sha256: str
    stage: Literal["shadow", "trial"]
    time_s: float
    hop_s: float = Field(description="time between two windows")
    new: Fared
    old: Fared
    agreement: float | None = Field(None, description="part of the time in which both say the same, alarm or none")
    failed: str | None = Field(None, description="why the agent cannot use it")


def judge(verdict: Verdict, windows: int) -> str | None:
    """What is wrong with the new model; empty: nothing; None: too early to say.

    Args:
        verdict: the newest.
        windows: that are to be scored.
    """
    new = verdict.new
    if verdict.failed:
        return verdict.failed
    if new.not_finite:
        return f"{new.not_finite} of its {new.windows} scores are no numbers"
    return None if new.windows < windows else _compared(new, verdict.old, verdict.hop_s)


def _compared(new: Fared, old: Fared, hop_s: float) -> str:
    share, before = new.in_alarm / new.windows, old.in_alarm / max(1, old.windows)
    if share > before + WORSE:
        return f"in alarm for {share:.0%} of its windows, the model before for {before:.0%} of the same time"
    if new.ms_p99 is not None and new.ms_p99 > SLOWEST * 1e3 * hop_s:
        return f"too slow: 99 % of windows within {new.ms_p99:.3g} ms, one is due each {1e3 * hop_s:.3g} ms"
    many = new.windows >= FEW and new.ratio_max is not None and new.ratio_min is not None
    if many and new.ratio_max - new.ratio_min <= SAME:  # type: ignore[operator]
        return f"it says {new.ratio_max:.3g} whatever it is shown"
    return ""
