"""`preprocess:` of ASSET.yaml: what is done to the signals before a model sees them.

Rules: what is left out is chosen from the data; a step is a mapping with its name under `step` and its constants, where
they are not to be the usual ones; constants that only data can give (floors, scales) are fitted by `steps`.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, field_validator

from tocsin.core.preprocess import MAX_WIDTH
from tocsin.settings import Settings

FeatureName = Literal[
    "signal",
    "level_unrest",
    "window_statistics",
    "moments",
    "log_spectrum",
    "log_mel",
    "envelope_spectrum",
    "band_energies",
]
ScalingName = Literal["robust", "standard", "minmax"]


def _odd(value: Any) -> Any:
    if type(value) is int and value % 2 == 0:
        raise ValueError("expected an odd number of rows, so that there is a middle one")
    return value


Width = Annotated[int, BeforeValidator(_odd), Field(ge=3, le=MAX_WIDTH)]


class DespikeSettings(Settings):
    """Single wild values become the running median."""

    step: Literal["despike"]
    width: Width = Field(5, description="rows looked at around a value")
    spreads: float = Field(6.0, gt=0, le=1e6, description="further off than so many spreads is wild")


class ClipSettings(Settings):
    """Values are kept within what the sensor can give."""

    model_config = Settings.model_config | {"validate_default": True}

    step: Literal["clip"]
    low: dict[str, FiniteFloat] = Field({}, description="lowest value, by channel")
    high: dict[str, FiniteFloat] = Field({}, description="highest value, by channel")

    @field_validator("high")
    @classmethod
    def _above_low(cls, high: dict[str, float], info: Any) -> dict[str, float]:
        low = info.data.get("low", {})
        if not high and not low:
            raise ValueError("expected low or high of at least one channel")
        crossed = [name for name, value in high.items() if value <= low.get(name, -float("inf"))]
        if crossed:
            raise ValueError(f"of {crossed[0]} is not above its low")
        return high


class MedianSettings(Settings):
    """Running median."""

    step: Literal["median"]
    width: Width = 5


class EwmaSettings(Settings):
    """Exponentially weighted mean."""

    step: Literal["ewma"]
    alpha: float = Field(0.3, gt=0, le=1, description="weight of the newest row")


class SavgolSettings(Settings):
    """Savitzky-Golay filter."""

    step: Literal["savgol"]
    width: Width = 7
    order: int = Field(2, ge=0, le=6, description="of the polynomial, below the width")

    @field_validator("order")
    @classmethod
    def _below_width(cls, order: int, info: Any) -> int:
        if order >= info.data.get("width", MAX_WIDTH):
            raise ValueError("expected less than the width")
        return order


class DetrendSettings(Settings):
    """The least-squares line is taken off each window."""

    step: Literal["detrend"]


class DifferenceSettings(Settings):
    """Each row less the row before."""

    step: Literal["difference"]


StepSettings = Annotated[
    DespikeSettings
    | ClipSettings
    | MedianSettings
    | EwmaSettings
    | SavgolSettings
    | DetrendSettings
    | DifferenceSettings,
    Field(discriminator="step"),
]


def _steps(value: Any) -> Any:
    """`auto` is None, `none` the empty list, `despike` a step with its usual constants."""
    if isinstance(value, str):
        if value not in ("auto", "none"):
            raise ValueError("expected auto, none, or a list of steps such as [{step: despike}]")
        return None if value == "auto" else []
    if isinstance(value, list):
        return [{"step": item} if isinstance(item, str) else item for item in value]
    return value


def _features(value: Any) -> Any:
    """`auto` is None, one name a list of one."""
    return (None if value == "auto" else [value]) if isinstance(value, str) else value


def _scaling(value: Any) -> Any:
    return None if value == "auto" else value


def _rising(band: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= band[0] < band[1]:
        raise ValueError("expected [low, high] in Hz, 0 or more, low below high")
    return band


Band = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_rising)]


class PreprocessSettings(Settings):
    """What models are shown; what is left out is chosen from the data."""

    clean: Annotated[tuple[StepSettings, ...] | None, BeforeValidator(_steps)] = Field(None, max_length=8)
    features: Annotated[tuple[FeatureName, ...] | None, BeforeValidator(_features)] = Field(
        None, min_length=1, max_length=8
    )
    scaling: Annotated[ScalingName | None, BeforeValidator(_scaling)] = None
    bands_hz: tuple[Band, ...] = Field((), max_length=256, description="of band_energies; octaves when left out")
    envelope_hz: Band | None = Field(None, description="of envelope_spectrum: the resonance that impacts excite")

    @field_validator("features")
    @classmethod
    def _side_by_side(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names and len(names) > 1 and ("signal" in names or len(set(names)) < len(names)):
            raise ValueError("expected signal alone, or other features once each")
        return names
