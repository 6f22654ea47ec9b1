"""The agent's settings: what may be written, with defaults and meaning.

Rules: frozen after start; an unknown key is an error; a relative path is relative to the file it stands in; secrets
are named by file, never written. `tocsin.config_file` reads YAML into these.
"""

import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from tocsin.alarms.detector import AlarmRule
from tocsin.errors import ConfigError
from tocsin.recordings import split_unit
from tocsin.records import Channel

TOPIC_ID = r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"
CHANNEL_KEY = r"^[a-z][a-z0-9_]*$"
DURATIONS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

Id = Annotated[str, Field(pattern=TOPIC_ID, description="lower-case letters, digits and hyphens, 1 to 64")]


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


class Settings(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSettings(Settings):
    """TLS to the broker; certificates are always verified."""

    ca_file: FilePath | None = Field(None, description="the broker's CA, PEM; the system's CAs when left out")
    cert_file: FilePath | None = Field(None, description="this device's certificate, PEM")
    key_file: FilePath | None = Field(None, description="its private key, PEM")


class MqttSettings(Settings):
    """The broker and what is published."""

    host: str = Field("localhost", description="name or address of the broker")
    port: int | None = Field(None, ge=1, le=65535, description="1883, with TLS 8883, when left out")
    tls: TlsSettings | None = Field(None, description="leave out for a broker on this machine only")
    username: str | None = None
    password_file: FilePath | None = Field(None, description="file whose first line is the password")
    prefix: str = Field(
        "tocsin",
        pattern=r"^[^/#+\s][^#+\s]*[^/#+\s]$|^[^/#+\s]$",
        description="first levels of every topic",
    )
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="auto: MQTT 5, and 3.1.1 when the broker does not answer it"
    )
    keepalive_s: int = Field(15, ge=5, le=3600)
    scores: bool = Field(True, description="publish every scored window, QoS 0")
    health_interval_s: Seconds = Field(60.0, ge=1)


class ChannelSettings(Settings):
    """A channel: `{name: pressure, unit: bar}`, or `pressure [bar]`."""

    name: str = Field(pattern=CHANNEL_KEY)
    unit: str = ""

    def channel(self) -> Channel:
        """As it flows."""
        return Channel(self.name, self.unit)


AnyChannel = Annotated[ChannelSettings, BeforeValidator(_channel, json_schema_input_type=ChannelSettings | str)]
Channels = Annotated[tuple[AnyChannel, ...], Field(min_length=1)]


class ReplaySettings(Settings):
    """Recorded files, played."""

    type: Literal["replay"]
    files: tuple[FilePath, ...] = Field(min_length=1, description="CSV tables, played one after the other")
    speed: float = Field(1.0, ge=0, description="recorded seconds in a second; 0 = as fast as possible")
    time: str | None = Field(None, description="name of the time column, when it is not found")
    separator: str | None = None
    rate_hz: float | None = Field(None, gt=0, description="rows a second, for files without a time column")


class SyntheticSettings(Settings):
    """A made-up machine, for trying things out."""

    type: Literal["synthetic"]
    channels: Channels
    rate_hz: float = Field(10.0, gt=0)
    seed: int = 0
    speed: float = Field(1.0, ge=0, description="seconds of samples in a second; 0 = as fast as possible")
    start_s: float | None = Field(None, description="epoch seconds of the first sample; now when left out")
    duration_s: Seconds | None = Field(None, description="end after this")
    fault_at_s: Seconds | None = Field(None, description="from this time on, `fault_channel` is off")
    fault_channel: str | None = None
    fault_size: float = 3.0

    @model_validator(mode="after")
    def _fault_channel_exists(self) -> "SyntheticSettings":
        if self.fault_at_s is not None and self.fault_channel not in {c.name for c in self.channels}:
            raise ValueError(f"fault_channel: expected one of {', '.join(c.name for c in self.channels)}")
        return self


class SerialSettings(Settings):
    """Lines of numbers over a serial port."""

    type: Literal["serial"]
    port: str = Field(description="/dev/serial/by-id/… is the same after every start")
    baud: int = Field(115200, gt=0)
    channels: Channels
    rate_hz: float = Field(gt=0, description="lines a second")


SourceSettings = Annotated[ReplaySettings | SyntheticSettings | SerialSettings, Field(discriminator="type")]


class AlarmSettings(Settings):
    """When a score becomes an alarm; what is left out is as the bundle says."""

    on_n: int | None = Field(None, ge=1, description="windows over the limit, …")
    on_m: int | None = Field(None, ge=1, description="… of this many, that raise it")
    off_delay: int | None = Field(None, ge=1, description="windows in a row below clear_ratio that clear it")
    clear_ratio: float | None = Field(None, gt=0, le=1)

    def rule(self, default: AlarmRule) -> AlarmRule:
        """The bundle's rule with these changes.

        Raises:
            ConfigError: the two together cannot be.
        """
        try:
            return AlarmRule(**{**default.to_json(), **self.model_dump(exclude_none=True)})
        except ValueError as error:
            raise ConfigError(f"alarm: {error} (what is not set is as the bundle says)") from error


class AssetSettings(Settings):
    """A machine that is watched."""

    id: Id
    bundle: FilePath = Field(description="the model, a .tocsin file")
    source: SourceSettings
    alarm: AlarmSettings = AlarmSettings()
    severity: Literal["warning", "minor", "major", "critical"] = "major"
    advice: str = Field("", max_length=500, description="what the operator should do; sent with each alarm")


def _device() -> str:
    name = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-")[:64].strip("-")
    return name or "device"


def _state_dir() -> Path:
    if os.environ.get("STATE_DIRECTORY"):  # systemd
        return Path(os.environ["STATE_DIRECTORY"].split(":")[0])
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "tocsin"


class AgentSettings(Settings):
    """All of the agent's settings."""

    version: Literal[1] = Field(description="of this file's form")
    device: Id = Field(default_factory=_device, description="this box in topics; the host's name when left out")
    state_dir: FilePath = Field(
        default_factory=_state_dir, description="outbox and alarm states; systemd's, or ~/.local/state/tocsin"
    )
    mqtt: MqttSettings = MqttSettings()
    assets: tuple[AssetSettings, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _assets_have_names_of_their_own(self) -> "AgentSettings":
        ids = [asset.id for asset in self.assets]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"assets: the id {twice[0]!r} is given twice")
        return self
