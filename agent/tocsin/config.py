"""The agent's settings: YAML → frozen values."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

TOPIC_ID = r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"
Id = Annotated[str, Field(pattern=TOPIC_ID, description="lower-case letters, digits and hyphens, 1 to 64")]


class Settings(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSettings(Settings):
    """TLS to the broker; certificates are always verified."""

    ca_file: Path | None = Field(None, description="the broker's CA, PEM; the system's CAs when left out")
    cert_file: Path | None = Field(None, description="this device's certificate, PEM")
    key_file: Path | None = Field(None, description="its private key, PEM")


class MqttSettings(Settings):
    """The broker and what is published."""

    host: str = Field("localhost", description="name or address of the broker")
    port: int | None = Field(None, ge=1, le=65535, description="1883, with TLS 8883, when left out")
    tls: TlsSettings | None = Field(None, description="leave out for a broker on this machine only")
    username: str | None = None
    password_file: Path | None = Field(None, description="file whose first line is the password")
    prefix: str = Field(
        "tocsin", pattern=r"^[^/#+\s][^#+\s]*[^/#+\s]$|^[^/#+\s]$", description="first levels of every topic"
    )
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="auto: MQTT 5, and 3.1.1 when the broker does not answer it"
    )
    keepalive_s: int = Field(15, ge=5, le=3600)
    scores: bool = Field(True, description="publish every scored window, QoS 0")
    health_interval_s: float = Field(60.0, ge=1)
