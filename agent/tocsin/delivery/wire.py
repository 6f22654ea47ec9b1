"""Topics and payloads: the single source of what Tocsin says over MQTT.

```
<prefix>/<device>/status           online | stopped | offline     retained
<prefix>/<device>/info             Info                           retained
<prefix>/<device>/health           Health                         retained
<prefix>/<device>/score/<asset>    Score
<prefix>/<device>/data/<asset>     Data, and DataMeta on …/meta   meta retained
<prefix>/<device>/alarm/<alarm>    AlarmMessage                   retained; empty = gone
<prefix>/<device>/event/alarm      AlarmEvent
<prefix>/<device>/event/audit      AuditEvent
<prefix>/<device>/event/flood      FloodEvent
<prefix>/<device>/update/<asset>   UpdateState                    retained
<prefix>/<device>/job/<job>        JobState                       retained
<prefix>/<device>/set/<setting>    a SettingState's value, asked for; state/<setting> is retained
<prefix>/<device>/ack/events       EventAck, from the one who stores them
<prefix>/<device>/cmd/<command>    a request; its Reply on …/result
<prefix>/_group/<group>/cmd/<command>   the same for every device of a group; all devices are in `all`
```
Rules: times are RFC 3339, UTC, with ms and `Z`; numbers are finite, what cannot be is null. What goes through the
outbox has an `Envelope` at its top level, put there at sending; consumers drop duplicates on (device, boot, seq).
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tocsin.alarms.alarm import AlarmClass, AlarmState, Severity
from tocsin.delivery.clock import TimeQuality

SCHEMA: Literal[1] = 1
EVERY_DEVICE = "all"  # the group
ACK_EVENTS = "ack/events"
ONLINE, STOPPED, OFFLINE = "online", "stopped", "offline"
EVENT_ALARM, EVENT_AUDIT, EVENT_FLOOD = "event/alarm", "event/audit", "event/flood"
MAX_CONTRIBUTIONS = 8
MAX_FLOOD = 50  # alarms that are listed
_FIRST_S, _LAST_S = -62135596800.0, 253402300799.9995  # the years 1 to 9999

Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", examples=["2025-03-09T14:05:59.250Z"])]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[int, Field(ge=0, lt=2**63)]  # as SQLite keeps it
Quality = Literal[192, 0, 500]


@dataclass(frozen=True, slots=True)
class Topics:
    """Topics of one device.

    Attributes:
        prefix: first levels of every topic.
        device: id.
    """

    prefix: str
    device: str

    def under(self, tail: str) -> str:
        """`tail` under the device; the outbox keeps tails only.

        >>> Topics("acme/tocsin", "edge-1").under(alarm_topic("pump-1-model"))
        'acme/tocsin/edge-1/alarm/pump-1-model'
        """
        return f"{self.prefix}/{self.device}/{tail}"


def alarm_topic(alarm: str) -> str:
    """Tail of a condition's retained state."""
    return f"alarm/{alarm}"


def data_topic(asset: str) -> str:
    """Tail of an asset's samples."""
    return f"data/{asset}"


def update_topic(asset: str) -> str:
    """Tail of the state of an asset's updates."""
    return f"update/{asset}"


def job_topic(job: str) -> str:
    """Tail of an update's state."""
    return f"job/{job}"


def score_topic(asset: str) -> str:
    """Tail of an asset's scores."""
    return f"score/{asset}"


def group_commands(prefix: str, group: str) -> str:
    """Filter of what a group is asked."""
    return f"{prefix}/_group/{group}/cmd/+"


LOWEST, HIGHEST = 0.25, 4.0  # sensitivity
SET, STATE = "set/", "state/"  # heads of the tails of settings, as they are to be and as they are


def command_of(topic: str) -> str:
    """The last level of a command's topic.

    >>> command_of("tocsin/edge-1/cmd/ack"), command_of("tocsin/_group/all/cmd/a/b")
    ('ack', 'a/b')
    """
    return topic.rpartition("/cmd/")[2]


def rfc3339(time_s: float) -> str:
    """Epoch seconds as text; what no calendar holds is its nearest end, or 1970 when it is no number.

    >>> rfc3339(0.0625), rfc3339(1e18), rfc3339(float("nan"))
    ('1970-01-01T00:00:00.062Z', '9999-12-31T23:59:59.999Z', '1970-01-01T00:00:00.000Z')
    """
    held = 0.0 if math.isnan(time_s) else min(max(time_s, _FIRST_S), _LAST_S)  # an alarm is worth more than its time
    return datetime.fromtimestamp(held, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def epoch_s(time: str) -> float:
    """What `rfc3339` wrote.

    >>> epoch_s("1970-01-01T00:00:00.062Z")
    0.062
    """
    return datetime.fromisoformat(time).timestamp()


def number(value: float | None) -> float | None:
    """Six significant digits, or None for what is not finite.

    >>> number(2.000000001), number(float("nan"))
    (2.0, None)
    """
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


class Wire(BaseModel):
    """Frozen; an unknown key is an error; finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    def encode(self) -> bytes:
        """The payload: UTF-8 JSON."""
        return self.model_dump_json(by_alias=True).encode()


class Envelope(Wire):
    """What every message from the outbox has at its top level."""

    schema_: Literal[1] = Field(SCHEMA, alias="schema", description="of this payload")
    boot: Count = Field(description="epoch, higher at each start of the agent")
    seq: Count = Field(description="number of the message, never used again within a boot")
    replayed: bool = Field(description="it waited out an outage or a restart")


class Window(Wire):
    """The window that decided."""

    start: Time
    end: Time
    samples: Count
    rate_hz: float | None


class Model(Wire):
    """The bundle that scored."""

    name: str
    version: str
    digest: str = Field(description="sha256 of the bundle, hexadecimal")


class ChannelShare(Wire):
    """One channel's part in an alarm."""

    channel: str
    share: float = Field(ge=0, le=1)
    seen: float | None
    expected: float | None = Field(description="null for members that do not reconstruct")


class AlarmBody(Wire):
    """One occurrence of a condition, as it stands."""

    id: str = Field(description="ULID, one occurrence")
    group: str | None = Field(
        None, description="id of the first of the asset's alarms that were on together; its own where it is the first"
    )
    alarm: str
    asset: str
    detector: str
    time: Time = Field(description="of the window that made the newest transition")
    time_quality: TimeQuality
    raised: Time | None = Field(description="null where it was held back before it was ever raised")
    cleared: Time | None
    acked_at: Time | None = None
    acked_by: str | None = None
    text: str = Field(description="one sentence for the operator")
    state: AlarmState
    active: bool
    acked: bool = False
    shelved: bool = False
    suppressed: bool = False
    severity: Severity
    severity_code: int = Field(ge=1, le=1000, description="as OPC UA counts it")
    score: float | None
    threshold: float | None
    ratio: float | None = Field(description="score / threshold: 1.0 is the limit")
    count: Count = Field(description="raises within the occurrence")
    flaps: Count = Field(0, description="how many of these came before its end was believed")
    window: Window
    model: Model | None
    contributions: list[ChannelShare] = Field(max_length=MAX_CONTRIBUTIONS)
    class_: AlarmClass = Field(alias="class")
    cause: str = Field(
        description="model, rule, data_gap, bad_status, stuck, range, rate, spikes, saturated, sample_rate, clock, "
        "held_back, drift or degradation"
    )
    advice: str | None = None
    snapshot: str | None = Field(None, description="id of the recording around the raise")
    comment: str | None = None


class AlarmMessage(AlarmBody, Envelope):
    """Retained on `alarm/<alarm>` while its state is not `normal`."""


class AlarmChange(Wire):
    """What happened to an occurrence."""

    type: Literal["new", "update", "end"]
    before: AlarmBody | None
    after: AlarmBody


class AlarmEvent(AlarmChange, Envelope):
    """Sent on `event/alarm` at every transition."""


class AuditBody(Wire):
    """What was done to an alarm, or refused."""

    time: Time
    alarm: str
    id: str | None = Field(None, description="of the occurrence; null where none stands")
    action: str = Field(description="ack, shelve, unshelve, suppress, unsuppress, …: a row of the table of states")
    by: str | None = Field(None, description="who did it; null for timers and settings of the device")
    severity: Severity | None = Field(None, description="of the alarm; null for commands that changed nothing")
    from_: AlarmState = Field(alias="from")
    to: AlarmState
    outcome: Literal["done", "unchanged", "refused"]
    comment: str | None = None
    reason: str | None = Field(None, description="why it was refused")


class AuditEvent(AuditBody, Envelope):
    """Sent on `event/audit` for each command, and for what timers and settings did."""


class FloodAlarm(Wire):
    """One alarm of a flood, as it was when it began."""

    id: str
    alarm: str
    asset: str
    time: Time
    severity: Severity
    text: str


class FloodBody(Wire):
    """Ten new alarms or more within ten minutes; over when fewer than five came in as long."""

    type: Literal["begin", "end"]
    id: str = Field(description="of its first alarm's occurrence; the same at its end")
    time: Time
    time_quality: TimeQuality
    text: str = Field(description="for the operator: how many, of what, and which was first")
    count: Count = Field(description="new alarms until now")
    assets: list[str] = Field(description="that are in alarm, first alarm first")
    alarms: list[FloodAlarm] = Field(max_length=MAX_FLOOD, description="in the order of their time")


class FloodEvent(FloodBody, Envelope):
    """Sent on `event/flood` once it has settled, and once when it is over."""


class EventAck(Wire):
    """What a consumer says on `ack/events`: it has stored these events (`end_to_end`), or wants some again."""

    events: list[tuple[Number, Number]] = Field([], max_length=1000, description="boot and seq of each")
    replay: bool = Field(
        False, description="send again all that was not acknowledged: the consumer, or its broker, is new"
    )
    replay_since: Time | None = Field(
        None, description="send again what was delivered since then too, at most 24 h: the consumer lost it"
    )


class Score(Wire):
    """One scored window; flat, for clients that plot."""

    time: Time
    score: float
    threshold: float
    ratio: float
    anomaly: Literal[0, 1]
    quality: Quality = Field(192, description="192 good, 0 bad: it rests on doubted channels, 500 stale")
    inference_ms: float
    seq: Count


class AgentInfo(Wire):
    """The software."""

    version: str
    commit: str | None = None
    python: str


class RuntimeInfo(Wire):
    """What runs the models."""

    name: str
    version: str | None = None
    delegate: str | None = None
    threads: int = 1


class HardwareInfo(Wire):
    """The box."""

    model: str | None = None
    serial: str | None = None
    arch: str
    cpus: int
    memory_mb: int | None = None


class AssetInfo(Wire):
    """One watched asset."""

    id: str
    product: str | None = Field(None, description="kind of machine whose updates it takes")
    channels: list[str]
    rate_hz: float
    model: str | None = None
    version: str | None = None
    digest: str | None = None
    window: int | None = Field(None, description="rows")
    threshold: float | None = None
    false_alarm_budget: float | None = Field(None, description="alarms a day that the limit was set for")


class MqttInfo(Wire):
    """How messages are delivered on this connection."""

    protocol: Literal["5", "3.1.1"] = Field(description="with 3.1.1 a denied publish looks like a success")
    delivery: Literal["puback", "end_to_end"] = "puback"


class Info(Wire):
    """The birth document."""

    schema_: Literal[1] = Field(SCHEMA, alias="schema")
    device: str
    agent: AgentInfo
    runtime: RuntimeInfo | None = None
    hw: HardwareInfo
    os: str
    assets: list[AssetInfo] = []
    commands: list[str] = []
    settings: list[str] = Field([], description="that may be changed on `set/<setting>`")
    groups: list[str] = []
    mqtt: MqttInfo | None = Field(None, description="filled in by the publisher")


class Data(Wire):
    """The newest sample of each channel, flat: its name → its value, engineering units."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, float] = Field(init=False)

    time: Time


class ChannelMeta(Wire):
    """One channel of `data`."""

    unit: str
    low: float | None = Field(description="lowest value of normal running")
    high: float | None = Field(description="highest value of normal running")


class DataMeta(Wire):
    """What the values on `data/<asset>` are."""

    schema_: Literal[1] = Field(SCHEMA, alias="schema")
    rate_hz: float = Field(description="that the asset is sampled at; `data` comes less often")
    channels: dict[str, ChannelMeta]


class UpdateState(Wire):
    """The model of an asset that takes updates; the keys of Home Assistant's update entity, and no others."""

    installed_version: str
    latest_version: str = Field(description="that is wanted here; the installed one where nothing is")
    title: str = Field(description="product")
    release_summary: str | None = Field(description="what is new, for people")
    release_url: str | None
    in_progress: bool
    update_percentage: float | None


class JobState(Wire):
    """One update of one asset; the newest five stay."""

    id: str
    asset: str
    state: str = Field(
        description="available, downloading, verifying, smoke, shadow, swapping, trial, committing, rolling_back; at "
        "its end succeeded, rolled_back, failed, rejected or cancelled"
    )
    version: str
    release_counter: Count
    rollout: str = Field(description="that asked for it; empty where an operator did")
    reason: str = Field(description="why it ended, or tries again; empty where there is nothing to say")
    time: str = Field(description="RFC 3339, when the state began")


class SettingState(Wire):
    """How a setting stands that may be changed over MQTT."""

    value: float | Literal["ON", "OFF"] = Field(
        description="`detection`: ON or OFF; `sensitivity`: 0.25 to 4, above 1 the limit is lower by that factor"
    )
    time: Time = Field(description="when it was set")


class SourceHealth(Wire):
    """How an asset's source fares."""

    state: Literal["ok", "off_rate", "silent", "failing", "ended"] = Field(
        "ok",
        description="silent: no sample for ten hops of the window, at least 10 s; off_rate: the measured rate differs "
        "from the stated one by more than a tenth; of several sources: "
        "one of them is silent, fails, or has ended before the others",
    )
    samples_total: Count
    last_sample_age_s: float | None = None
    errors_total: Count = Field(0, description="failures, and lines that could not be read")
    last_error: str | None = Field(None, description="null while it is well")
    rate_hz: float | None = Field(None, description="samples a second, measured over the last minute")
    stated_rate_hz: float | None = Field(None, description="by the settings, or the bundle")
    bad_total: Count = Field(0, description="lines, frames, answers and values that could not be read")
    bad: dict[str, int] = Field({}, description="how many of them, by reason")
    lost_total: Count = Field(0, description="samples missing by their sequence numbers")
    late_total: Count = Field(
        0, description="polls, of a Modbus line those of each slave, that were left out for want of time"
    )
    reconnects_total: Count = 0
    clock_steps_total: Count = Field(0, description="how often its clock was set, and the stamps went along")


class FalseAlarms(Wire):
    """Alarms of an asset's model as counted on this device, beside what its limit promises.

    Every alarm counts, as only people can tell which was false; the count goes on over restarts, and begins anew with
    another bundle or other alarm settings.
    """

    episodes: Count = Field(description="alarms raised")
    hours: float = Field(description="of running with no alarm on")
    low_per_day: float | None = Field(None, description="the rate lies from here … nine times in ten")
    high_per_day: float | None = Field(None, description="… to here; null before anything ran")
    asked_per_day: float | None = Field(None, description="by `--false-alarms`; null where no rate was asked for")
    promised_low_per_day: float | None = Field(None, description="the bundle says that the rate lies from here …")
    promised_high_per_day: float | None = Field(None, description="… to here, nine times in ten")
    refused: bool | None = Field(None, description="the recording did not support the rate that was asked for")
    broken: bool | None = Field(
        None, description="so many alarms have a chance below 1 % even at the upper end of what was promised"
    )


class AssetHealth(Wire):
    """How an asset's line fares."""

    windows_total: Count
    inference_ms_p50: float | None = None
    inference_ms_p99: float | None = None
    overruns_total: Count = 0
    not_finite_total: Count = Field(0, description="windows without a finite score, left out of the decision")
    unknown_mode_total: Count = Field(0, description="windows of an operating mode that the model does not know")
    gaps_total: Count = Field(0, description="stretches without samples, longer than are held")
    late_total: Count = Field(0, description="samples of a rate group that came too late for the row of their time")
    left_out_total: Count = Field(0, description="rows left out because a rate group had nothing young enough")
    dropped_total: Count = Field(
        0, description="rows of rate groups let go of while the group that sets the grid gave nothing"
    )
    held_back_total: Count = Field(0, description="windows over the limit that rest on doubted channels")
    bad_channels: list[str] = Field([], description="channels whose sensor or line is in alarm")
    false_alarms: FalseAlarms | None = Field(None, description="null before the bundle is in use")


class RecordingHealth(Wire):
    """How recording fares."""

    rows_total: Count = Field(0, description="samples written since the start")
    dropped_total: Count = Field(0, description="samples that could not be written")
    ring_mb: float = 0.0
    segments: Count = 0
    evicted_total: Count = Field(0, description="segments that left the ring since the start")
    snapshots_mb: float = 0.0
    snapshots: Count = 0
    snapshots_evicted_total: Count = 0
    last_error: str | None = Field(None, description="null while it is well")


class Health(Wire):
    """How the agent fares; the three outbox figures are filled in by the publisher."""

    schema_: Literal[1] = Field(SCHEMA, alias="schema")
    time: Time
    status: Literal["ok", "degraded", "failing"] = Field(
        description="failing: every asset fails; degraded: one fails or is silent, or alarms or samples could not "
        "be written"
    )
    uptime_s: float
    cpu_percent: float | None = None
    memory_mb: float | None = None
    cpu_temp_c: float | None = None
    throttled: bool | None = None
    disk_free_mb: float | None = None
    outbox_depth: Count = 0
    outbox_oldest_s: float = 0.0
    dropped_total: Count = 0
    alarms_failed_total: Count = Field(0, description="alarm changes that could not be applied")
    waiting_for_disk: bool = Field(False, description="alarms wait in memory until the disk takes them")
    clock_synced: bool
    sources: dict[str, SourceHealth] = Field({}, description="by asset; of rate groups also by asset/group")
    assets: dict[str, AssetHealth] = {}
    recording: RecordingHealth | None = Field(None, description="null where nothing is recorded")


def stamp(body: bytes, envelope: Envelope) -> bytes:
    """A stored JSON object with the envelope in front; an empty body stays empty."""
    return envelope.encode()[:-1] + b"," + body[1:] if body else body
