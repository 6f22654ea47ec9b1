"""The agent's settings: what may be written, with defaults and meaning.

Rules: frozen after start; an unknown key is an error; a relative path is relative to the file it stands in; secrets
are named by file, never written. `tocsin.config_file` reads YAML into these; the settings of a source stand in its
module.
"""

import ipaddress
import math
import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tocsin.alarms.alarm import Severity
from tocsin.alarms.detector import AlarmRule
from tocsin.alarms.device_clock import ALARM
from tocsin.alarms.escalation import Step
from tocsin.alarms.expression import parse
from tocsin.alarms.hold_off import HOLD_OFF_S
from tocsin.alarms.lifecycle import Handling
from tocsin.alarms.limits import ChannelOverride
from tocsin.alarms.plan import SHELF_LIMIT_S, Condition, Plan
from tocsin.alarms.quality import CHECKS, cause_of, condition
from tocsin.alarms.rules import Rule
from tocsin.alarms.watch import Prior
from tocsin.core.groups import GROUP_NAME
from tocsin.errors import ConfigError
from tocsin.recorder.settings import RecordingSettings
from tocsin.settings import CHANNEL_KEY, FilePath, Seconds, Settings, given_twice
from tocsin.sources import AnySource, SourceSettings

TOPIC_ID = r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"
PREFIX = r"^[^/#+\s][^#+\s]*[^/#+\s]$|^[^/#+\s]$"
LONGEST_ID = 64  # of an asset, a rule, an alarm
Id = Annotated[str, Field(pattern=TOPIC_ID, description="lower-case letters, digits and hyphens, 1 to 64")]


class TlsSettings(Settings):
    """TLS to the broker; certificates are always verified."""

    ca_file: FilePath | None = Field(None, description="the broker's CA, PEM; the system's CAs when left out")
    cert_file: FilePath | None = Field(None, description="this device's certificate, PEM")
    key_file: FilePath | None = Field(None, description="its private key, PEM")


class BrokerSettings(Settings):
    """How to reach an MQTT broker."""

    host: str = Field("localhost", description="name or address of the broker")
    port: int | None = Field(None, ge=1, le=65535, description="1883, with TLS 8883, when left out")
    tls: TlsSettings | None = Field(None, description="leave out for a broker on this machine only")
    username: str | None = None
    password_file: FilePath | None = Field(None, description="file whose first line is the password")
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="auto: MQTT 5, and 3.1.1 when the broker does not answer it"
    )
    keepalive_s: int = Field(15, ge=5, le=3600)

    @property
    def port_used(self) -> int:
        """The port, filled in."""
        return self.port or (1883 if self.tls is None else 8883)

    @property
    def on_this_machine(self) -> bool:
        """What is sent there leaves no network card."""
        try:
            return self.host.lower() == "localhost" or ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def bares_password(self) -> bool:
        """A password would cross a network in the clear."""
        return self.password_file is not None and self.tls is None and not self.on_this_machine


DETECTION_OFF = "detection-off"  # the mode in which no model raises alarms
SettingName = Literal["detection", "sensitivity"]
CommandName = Literal["ack", "shelve", "unshelve", "suppress", "unsuppress", "out_of_service", "in_service", "identify"]


class MqttSettings(BrokerSettings):
    """The broker and what is published."""

    prefix: str = Field(
        "tocsin",
        pattern=PREFIX,
        description="first levels of every topic",
    )
    delivery: Literal["puback", "end_to_end"] = Field(
        "puback",
        description="an event is delivered when the broker has it; end_to_end: when a consumer says on `ack/events` "
        "that it has stored it, as `tocsin inbox` does",
    )
    outbox_max_mb: float = Field(
        256.0, ge=32, description="of the file of what waits; over it the least important goes, oldest first, counted"
    )
    scores: bool = Field(True, description="publish every scored window, QoS 0")
    data_interval: Seconds | None = Field(
        None, ge=0.1, description="publish the newest sample of each channel so often, QoS 0; not at all when left out"
    )
    health_interval_s: Seconds = Field(60.0, ge=1)
    commands: tuple[CommandName, ...] = Field(
        ("ack", "shelve", "unshelve", "identify"),
        description="what may be asked on `cmd/<command>`, by whom the broker lets publish there; [] for nothing",
    )
    settings: tuple[SettingName, ...] = Field(
        (), description="what may be changed on `set/<setting>`: detection, sensitivity; both can silence alarms"
    )
    commands_per_min: int = Field(60, ge=1, le=6000, description="requests that are taken; more are refused")
    commands_kept: Seconds = Field(
        86_400.0, ge=0, le=2**32 - 1, description="the broker keeps requests so long for a device that is away; 0: none"
    )
    home_assistant: bool = Field(False, description="makes a device of this agent there, by MQTT device discovery")
    discovery_prefix: str = Field(
        "homeassistant", pattern=PREFIX, description="first levels of Home Assistant's topics, as it is set up there"
    )
    groups: tuple[Id, ...] = Field(
        (), description="this device does what `_group/<group>/cmd/<command>` asks; it is in the group `all` anyway"
    )


class SparkplugSettings(Settings):
    """Sparkplug B 3.0, on a connection of its own."""

    group: str = Field(pattern=r"^[^+/#\x00-\x1f]+$", description="id of the group that this device is an edge node of")
    host: str | None = Field(
        None,
        pattern=r"^[^+/#\x00-\x1f]+$",
        description="id of the primary host application, no address: nothing is told until it is online; told at once "
        "when left out",
    )
    deadband: float = Field(0.01, ge=0, description="a ratio that changed by no more is not told anew")
    broker: BrokerSettings | None = Field(None, description="that of `mqtt` when left out")


class StepSettings(Settings):
    """When an alarm of the model matters more, or less, than it did."""

    to: Literal["warning", "minor", "major", "critical"] = Field(description="severity while the step holds")
    ratio: float = Field(1.0, gt=0, description="score / limit that is reached, …")
    for_: Seconds = Field(
        0.0, ge=0, alias="for", description="… for so long; the step is left when it was below for as long"
    )


class AlarmSettings(Settings):
    """When a score becomes an alarm, where what is left out is as the bundle says; and how alarms are dealt with."""

    on_n: int | None = Field(None, ge=1, description="windows over the limit, …")
    on_m: int | None = Field(None, ge=1, description="… of this many, that raise it")
    off_delay: int | None = Field(None, ge=1, description="windows in a row below clear_ratio that clear it")
    clear_ratio: float | None = Field(None, gt=0, le=1)
    hold_off: Seconds = Field(
        HOLD_OFF_S, ge=0, description="an alarm is over when its condition has been off for so long; 0: at once"
    )

    steps: tuple[StepSettings, ...] = Field(
        (), description="severity by ratio and duration: the most severe step that holds, else the asset's `severity`"
    )

    auto_ack: bool = Field(
        True, description="an alarm is over when its condition is; false: when it is acknowledged too"
    )
    latching: bool = Field(False, description="an alarm stays until it is acknowledged after its condition's end")
    re_alarm_after: Seconds | None = Field(
        None, gt=0, description="an acknowledged alarm that is still on calls again; never when left out"
    )
    suppressed_by: tuple[Id, ...] = Field(
        (), description="ids of alarms, and of rules with `severity: none`, that suppress those of this asset while on"
    )

    def rule(self, default: AlarmRule) -> AlarmRule:
        """The bundle's rule with these changes.

        Raises:
            ConfigError: the two together cannot be.
        """
        try:
            return AlarmRule(
                **{**default.to_json(), **self.model_dump(include=set(default.to_json()), exclude_none=True)}
            )
        except ValueError as error:
            raise ConfigError(f"alarm: {error} (what is not set is as the bundle says)") from error

    def escalation(self) -> tuple[Step, ...]:
        """Its steps, as they are followed."""
        return tuple(Step(Severity(step.to), step.ratio, step.for_) for step in self.steps)

    def handling(self) -> Handling:
        """How its alarms are dealt with."""
        return Handling(self.auto_ack, self.latching, self.re_alarm_after, self.suppressed_by)


class ChannelQualitySettings(Settings):
    """What the sensor of a channel can give; what is left out is as normal running was."""

    name: str = Field(pattern=CHANNEL_KEY, description="of the channel")
    watch: bool = Field(True, description="false: nothing but the model looks at it")
    min: float | None = Field(None, description="less is a fault of the sensor, unit of the channel")
    max: float | None = Field(None, description="more is a fault of the sensor")
    max_rate: float | None = Field(None, gt=0, description="a faster change is a fault of the sensor, units a second")
    stuck_after: Seconds | Literal["never"] | None = Field(
        None, description="standing still for so long is a fault of the sensor; or `never`"
    )

    @model_validator(mode="after")
    def _min_is_below_max(self) -> "ChannelQualitySettings":
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min: expected less than max, {self.max:g}, got {self.min:g}")
        return self

    def override(self) -> ChannelOverride:
        """As the checks take it."""
        stuck = math.inf if self.stuck_after == "never" else self.stuck_after
        return ChannelOverride(self.watch, self.min, self.max, self.max_rate, stuck)


class QualitySettings(Settings):
    """When a sensor, or the line to it, is in alarm."""

    enabled: bool = Field(True, description="false: all samples are believed")
    severity: Literal["warning", "minor", "major", "critical"] = Field(
        "minor", description="of these alarms, but that of a clock: warning"
    )
    stale_after: Seconds | None = Field(
        None, gt=0, description="without a sample; the longer of 10 s and 10 samples when left out"
    )
    channels: tuple[ChannelQualitySettings, ...] = Field((), description="limits of single channels")

    @field_validator("channels")
    @classmethod
    def _have_names_of_their_own(cls, value: tuple[ChannelQualitySettings, ...]) -> tuple[ChannelQualitySettings, ...]:
        twice = given_twice(channel.name for channel in value)
        if twice:
            raise ValueError(f"the channel {twice[0]!r} is given twice: put all that is said of it under one")
        return value

    def alarm_ids(self, asset: str) -> tuple[str, ...]:
        """Of all its conditions."""
        return tuple(condition(asset, check) for check in CHECKS) if self.enabled else ()


class RuleSettings(Settings):
    """A condition that the user knows to be wrong."""

    id: Id
    when: str = Field(description="such as `pressure > 4 and flow < 1`")
    clear_when: str | None = Field(None, description="ends it; the contrary of `when` when left out")
    for_: Seconds = Field(0.0, ge=0, alias="for", description="each has to hold for so long")
    severity: Literal["warning", "minor", "major", "critical", "none"] = Field(
        "major",
        description="of its alarm; none: it is no alarm but a mode of the plant, for `suppressed_by` of alarms",
    )
    advice: str = Field("", max_length=500, description="what the operator should do; sent with its alarm")
    latching: bool | None = Field(None, description="its alarm stays until acknowledged; as the asset's when left out")

    @field_validator("id")
    @classmethod
    def _is_free(cls, value: str) -> str:
        taken = ("anomaly", *CHECKS)
        if value in taken:
            raise ValueError(f"expected another name: {', '.join(taken)} are taken")
        return value

    @field_validator("when", "clear_when")
    @classmethod
    def _can_be_read(cls, value: str | None) -> str | None:
        if value is not None:
            parse(value)
        return value

    @property
    def is_mode(self) -> bool:
        """It is no alarm."""
        return self.severity == "none"

    def rule(self) -> Rule:
        """As it is looked at."""
        return Rule(self.id, self.when, self.clear_when, self.for_, self.is_mode)

    def sentence(self) -> str:
        """The condition, for the operator."""
        return f"{self.when} for {self.for_:g} s" if self.for_ else self.when


class AssetSettings(Settings):
    """A machine that is watched."""

    id: Id
    bundle: FilePath = Field(description="the model, a .tocsin file; with updates: the one to fall back on")
    product: Id | None = Field(None, description="kind of machine whose updates it takes; none when left out")
    source: AnySource | None = Field(None, description="where its samples come from")
    sources: dict[str, AnySource] = Field({}, description="instead of `source`: one for each rate group of the bundle")
    alarm: AlarmSettings = AlarmSettings()
    quality: QualitySettings = QualitySettings()
    rules: tuple[RuleSettings, ...] = Field((), description="conditions with alarms of their own")
    severity: Literal["warning", "minor", "major", "critical"] = "major"
    advice: str = Field("", max_length=500, description="what the operator should do; sent with each alarm")

    @model_validator(mode="after")
    def _one_or_several(self) -> "AssetSettings":
        if (self.source is None) != bool(self.sources):
            raise ValueError("expected `source:`, or `sources:` with one for each rate group of the bundle")
        return self

    @field_validator("sources")
    @classmethod
    def _are_groups(cls, value: dict[str, SourceSettings]) -> dict[str, SourceSettings]:
        wrong = [name for name in value if not re.fullmatch(GROUP_NAME, name)]
        if wrong:  # its recordings get a folder of that name
            raise ValueError(
                "expected the name of a rate group for each: lower-case letters, digits, hyphens and underscores, "
                f"a letter first, at most 63; got {wrong[0][:80]!r}: write it as `tocsin model info` shows it"
            )
        return value

    @model_validator(mode="after")
    def _alarms_have_short_ids(self) -> "AssetSettings":
        longest = max(self.alarm_ids(), key=len)
        if len(longest) > LONGEST_ID:
            key = "id" if longest.removeprefix(f"{self.id}-") in ("anomaly", *CHECKS) else "rules"
            raise ValueError(
                f"{key}: expected ids of alarms of at most {LONGEST_ID} characters, got {longest!r} "
                f"({len(longest)}): shorten the id of the asset{' or of the rule' * (key == 'rules')}"
            )
        return self

    def streams(self) -> dict[str, SourceSettings]:
        """Its sources by the names that their recordings have: `<asset>`, or `<asset>.<group>`."""
        if self.source is not None:
            return {self.id: self.source}
        return {f"{self.id}.{group}": source for group, source in self.sources.items()}

    def by_group(self, groups: tuple[str, ...]) -> dict[str, SourceSettings]:
        """The source of each rate group.

        Args:
            groups: names of the bundle's, in its order.

        Raises:
            ConfigError: they are others than the settings have.
        """
        given = self.sources if self.source is None else dict.fromkeys(groups[:1], self.source)
        if set(given) == set(groups):
            return {name: given[name] for name in groups}
        if len(groups) == 1:
            raise ConfigError("sources: the bundle has one group of channels: write `source:` with the source itself")
        said = f"got {', '.join(given)}" if self.sources else "got `source:`"
        raise ConfigError(f"sources: the bundle needs a source for each of its groups {', '.join(groups)}, {said}")

    def prior(self) -> Prior:
        """What the user knows of it."""
        overrides = {channel.name: channel.override() for channel in self.quality.channels}
        return Prior(tuple(rule.rule() for rule in self.rules), overrides, self.quality.enabled)

    def alarm_ids(self) -> tuple[str, ...]:
        """Of all its conditions and modes."""
        rules = (condition(self.id, rule.id) for rule in self.rules)
        return (condition(self.id, "anomaly"), *self.quality.alarm_ids(self.id), *rules)

    def conditions(self) -> dict[str, Condition]:
        """All that may be in alarm, by id of its alarm."""
        handling = self.alarm.handling()
        checks = {condition(self.id, check): cause_of(check) for check in CHECKS if self.quality.enabled}
        found = {alarm: Condition(self.id, cause, handling) for alarm, cause in checks.items()}
        found[condition(self.id, "anomaly")] = Condition(self.id, "model", handling)
        for rule in (rule for rule in self.rules if not rule.is_mode):
            own = handling if rule.latching is None else replace(handling, latching=rule.latching)
            found[condition(self.id, rule.id)] = Condition(self.id, "rule", own)
        return found


def _device() -> str:
    name = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-")[:64].strip("-")
    return name or "device"


def _state_dir() -> Path:
    if os.environ.get("STATE_DIRECTORY"):  # systemd
        return Path(os.environ["STATE_DIRECTORY"].split(":")[0])
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "tocsin"


class AlarmsSettings(Settings):
    """What holds for all alarms of this device."""

    shelve_limit: Seconds = Field(SHELF_LIMIT_S, gt=0, description="longest time that an alarm can be shelved")


class UpdateSettings(Settings):
    """Where signed models come from, and how they prove themselves."""

    repository: str = Field(
        pattern=r"^(https?://\S+|file:///\S*|[^:]+)$", description="URL, or a folder such as that of a stick"
    )
    trusted_root: FilePath = Field(description="root.json that `tocsin fleet init` made")
    ca_file: FilePath | None = Field(None, description="of the server, where it is not one of the system's")
    shadow_windows: int = Field(200, ge=1, description="that a new model scores beside the current one first")
    trial_windows: int = Field(200, ge=1, description="that it then scores as the current one before it stays")
    patience: Seconds = Field(3600.0, ge=10, description="longest time for each of the two; then the old one stays")
    keep_free_mb: float = Field(50.0, ge=0, description="left free on the disk by downloads")


class HttpSettings(Settings):
    """Where the agent answers over HTTP: `/metrics`, `/healthz`, `/readyz`."""

    listen: str = Field(
        "127.0.0.1", description="address of this machine; another than 127.0.0.1 or ::1 opens it to a network"
    )
    port: int = Field(9464, ge=1, le=65535, description="TCP")

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            raise ValueError("expected an address such as 127.0.0.1, ::1, or 0.0.0.0 for all networks") from None

    @property
    def on_this_machine(self) -> bool:
        """Nobody else can reach it."""
        return ipaddress.ip_address(self.listen).is_loopback


class AgentSettings(Settings):
    """All of the agent's settings."""

    version: Literal[1] = Field(description="of this file's form")
    device: Id = Field(default_factory=_device, description="this box in topics; the host's name when left out")
    state_dir: FilePath = Field(
        default_factory=_state_dir, description="outbox and alarm states; systemd's, or ~/.local/state/tocsin"
    )
    language: Literal["en", "zh"] = Field("en", description="of what operators read: English or Chinese")
    mqtt: MqttSettings = MqttSettings()
    sparkplug: SparkplugSettings | None = Field(None, description="nothing is told by Sparkplug when left out")
    alarms: AlarmsSettings = AlarmsSettings()
    update: UpdateSettings | None = Field(None, description="models over the air; none when left out")
    recording: RecordingSettings | None = Field(None, description="keep samples on disk; nothing is kept when left out")
    http: HttpSettings | None = Field(None, description="figures of this agent, for Prometheus; off when left out")
    assets: tuple[AssetSettings, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _assets_have_names_of_their_own(self) -> "AgentSettings":
        twice = given_twice(asset.id for asset in self.assets)
        if twice:
            raise ValueError(f"assets: the id {twice[0]!r} is given twice")
        alarms = [alarm for asset in self.assets for alarm in asset.alarm_ids()]
        twice = given_twice(alarms)
        if twice:
            raise ValueError(f"rules: two alarms would have the id {twice[0]!r}: give the rule another id")
        if self.update is None and any(asset.product for asset in self.assets):
            raise ValueError("product: expected `update:` with a repository too, got none: nothing would come")
        for asset in self.assets:
            unknown = sorted(set(asset.alarm.suppressed_by) - set(alarms))
            if unknown:
                raise ValueError(
                    f"assets: {asset.id}: alarm.suppressed_by: no alarm {unknown[0]!r}, there are {', '.join(alarms)}"
                )
        used = {by for asset in self.assets for by in asset.alarm.suppressed_by}
        idle = sorted(self._modes() - used)
        if idle:
            raise ValueError(
                f"rules: {idle[0]} has `severity: none` and suppresses nothing: expected its id in `suppressed_by` "
                "of an asset's `alarm:`, or a severity"
            )
        return self

    def _modes(self) -> frozenset[str]:
        return frozenset(condition(asset.id, rule.id) for asset in self.assets for rule in asset.rules if rule.is_mode)

    def plan(self) -> Plan:
        """What may be in alarm, and how that is dealt with."""
        conditions = {alarm: one for asset in self.assets for alarm, one in asset.conditions().items()}
        conditions[ALARM] = Condition(self.device, "clock")
        modes = self._modes()
        if "detection" in self.mqtt.settings:
            modes |= {DETECTION_OFF}
            conditions |= {
                alarm: replace(
                    one, handling=replace(one.handling, suppressed_by=(*one.handling.suppressed_by, DETECTION_OFF))
                )
                for alarm, one in conditions.items()
                if one.cause == "model"
            }
        return Plan(conditions, self.alarms.shelve_limit, modes)
