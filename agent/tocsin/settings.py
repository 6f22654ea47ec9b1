"""What settings are made of: the frozen base class, durations, paths, channels.

`tocsin.config` and every source build theirs from these.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from tocsin.recordings import split_unit
from tocsin.records import Channel

CHANNEL_KEY = r"^[a-z][a-z0-9_]*$"
TIME_COLUMN = "time"  # of every recording
DURATIONS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def _resolve(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base")
    return path.expanduser() if base is None else base / path.expanduser()


def _duration(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)\s*", value)):
        return float(match[1]) * DURATIONS[match[2]]
    if isinstance(value, str):
        raise ValueError("expected seconds, or a number with ms, s, min, h or d")
    return value


def _channel(value: Any) -> Any:
    return {"name": split_unit(value)[0], "unit": split_unit(value)[1]} if isinstance(value, str) else value


FilePath = Annotated[Path, AfterValidator(_resolve)]
Seconds = Annotated[
    float,
    BeforeValidator(_duration, json_schema_input_type=float | str),
    Field(description="seconds, or 500ms, 10s, 5min, 1h, 1d"),
]


def given_twice(names: Iterable[str]) -> list[str]:
    """Names that stand more than once, in alphabetical order."""
    return sorted(name for name, times in Counter(names).items() if times > 1)


class Settings(BaseModel):
    """Frozen; an unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ChannelSettings(Settings):
    """A channel: `{name: pressure, unit: bar}`, or `pressure [bar]`."""

    name: str = Field(pattern=CHANNEL_KEY, description="of the channel: lower-case letters, digits and _")
    unit: str = Field("", description="of measure, as the operator reads it")

    @field_validator("name")
    @classmethod
    def _is_free(cls, value: str) -> str:
        if value == TIME_COLUMN:
            raise ValueError(f"expected another name: {TIME_COLUMN} is the column of the stamps in every recording")
        return value

    def channel(self) -> Channel:
        """As it flows."""
        return Channel(self.name, self.unit)


AnyChannel = Annotated[ChannelSettings, BeforeValidator(_channel, json_schema_input_type=ChannelSettings | str)]
Channels = Annotated[tuple[AnyChannel, ...], Field(min_length=1)]


class ScaledChannelSettings(ChannelSettings):
    """A channel that comes as raw counts: engineering units are raw × scale + offset."""

    scale: float = Field(1.0, description="engineering units in one count")
    offset: float = Field(0.0, description="engineering units at count 0")


AnyScaledChannel = Annotated[
    ScaledChannelSettings, BeforeValidator(_channel, json_schema_input_type=ScaledChannelSettings | str)
]
ScaledChannels = Annotated[tuple[AnyScaledChannel, ...], Field(min_length=1)]
