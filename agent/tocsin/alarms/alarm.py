"""An alarm as a record: one occurrence of a condition, from when it leaves `normal` to when it is back there.

Rules: frozen; times are epoch seconds; one occurrence has one id.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from tocsin.records import Contribution, Transition

_BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class AlarmState(StrEnum):
    """States of ISA-18.2, in the order of the table of states."""

    NORMAL = "normal"
    UNACKED = "unacked"
    ACKED = "acked"
    RTN_UNACKED = "rtn_unacked"
    LATCHED = "latched"
    SHELVED = "shelved"
    SUPPRESSED = "suppressed"
    OUT_OF_SERVICE = "out_of_service"


class Severity(StrEnum):
    """How much an alarm matters, mildest first."""

    WARNING = "warning"
    MINOR = "minor"
    MAJOR = "major"
    CRITICAL = "critical"

    @property
    def code(self) -> int:
        """Severity as OPC UA counts it, 1 to 1000."""
        return {"warning": 250, "minor": 450, "major": 650, "critical": 850}[self.value]


class AlarmClass(StrEnum):
    """What is at fault: the machine, a sensor, the line to it, or the slow change of both."""

    PROCESS = "process"
    SENSOR = "sensor"
    COMMS = "comms"
    DRIFT = "drift"


_CLASS = {
    "data_gap": AlarmClass.COMMS,
    "bad_status": AlarmClass.COMMS,
    "stuck": AlarmClass.SENSOR,
    "range": AlarmClass.SENSOR,
    "rate": AlarmClass.SENSOR,
    "spikes": AlarmClass.SENSOR,
    "saturated": AlarmClass.SENSOR,
    "sample_rate": AlarmClass.COMMS,
    "clock": AlarmClass.COMMS,
    "held_back": AlarmClass.SENSOR,
    "drift": AlarmClass.DRIFT,
}


@dataclass(frozen=True, slots=True)
class AlarmContext:
    """What an alarm says of its asset beyond the evidence.

    Attributes:
        detector: what watches the asset: `model`, `quality` or `rules`.
        model_name: of the bundle in use; empty without a model, as are the next two.
        model_version: of that bundle.
        model_digest: sha256 of that bundle, hexadecimal.
        rate_hz: rows a second of the grid, or None.
        units: unit of measure by channel.
        severity: of this asset's alarms.
        advice: what the operator should do, or empty.
        rule: of a rule's alarm: the condition, as the user wrote it.
        language: of its sentences.
    """

    detector: str = "model"
    model_name: str = ""
    model_version: str = ""
    model_digest: str = ""
    rate_hz: float | None = None
    units: dict[str, str] = field(default_factory=dict)
    severity: Severity = Severity.MAJOR
    advice: str = ""
    rule: str = ""
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One occurrence of a condition.

    Attributes:
        id: ULID, the same until the state is `normal` again.
        state: see `AlarmState`.
        active: the condition is on.
        raised_s: of the window that raised it first; None where it was held back before it was ever raised.
        cleared_s: of the window that cleared it, or None.
        count: how often it was raised within the occurrence.
        latest: the newest transition, for its time, scores and window.
        contributions: of the newest raise, largest share first.
        text: one sentence for the operator.
        context: of the asset, as it was at the newest transition.
        comment: what somebody wrote to the newest command, or why it ended when it was not by the condition's end.
        snapshot: id of the recording around its raise, or None.
        group: id of the first of its asset's alarms that were on together with it; its own where it is the first.
        flaps: raises that came while it was on already: its condition had ended, but not for long enough.
        acked_s: when it was acknowledged; None while it is not.
        acked_by: who did.
        latched: it waits for an acknowledgement after its end, also while it is held back.
        shelved_until_s: end of the shelf, or None.
        suppressors: alarms that suppress it.
        suppressed_by: who suppressed it, or None.
        out_of_service_by: who took it out of service, or None.
        stepped: severity by its ratio and duration; None for that of the asset.
    """

    id: str
    state: AlarmState
    active: bool
    raised_s: float | None
    cleared_s: float | None
    count: int
    latest: Transition
    contributions: tuple[Contribution, ...]
    text: str
    context: AlarmContext
    comment: str | None = None
    snapshot: str | None = None
    group: str = ""
    flaps: int = 0
    acked_s: float | None = None
    acked_by: str | None = None
    latched: bool = False
    shelved_until_s: float | None = None
    suppressors: tuple[str, ...] = ()
    suppressed_by: str | None = None
    out_of_service_by: str | None = None
    stepped: Severity | None = None

    @property
    def severity(self) -> Severity:
        """How much it matters now."""
        return self.stepped or self.context.severity

    @property
    def alarm_class(self) -> AlarmClass:
        """What is at fault."""
        return class_of(self.latest.cause)

    @property
    def held(self) -> AlarmState | None:
        """The strongest of what holds it back from people; None where nothing does."""
        if self.out_of_service_by is not None:
            return AlarmState.OUT_OF_SERVICE
        if self.suppressors or self.suppressed_by is not None:
            return AlarmState.SUPPRESSED
        return None if self.shelved_until_s is None else AlarmState.SHELVED


def class_of(cause: str) -> AlarmClass:
    """What is at fault where an alarm has this cause; the machine, where the cause is not known.

    >>> class_of("stuck").value, class_of("model").value
    ('sensor', 'process')
    """
    return _CLASS.get(cause, AlarmClass.PROCESS)


def ulid(time_s: float, randomness: bytes) -> str:
    """A ULID: 48 bits of milliseconds, 80 random bits, in Crockford's base 32; sorts by time.

    Args:
        time_s: epoch seconds.
        randomness: 10 bytes.

    >>> ulid(1469918176.385, bytes(10))
    '01ARYZ6S410000000000000000'
    """
    number = (max(0, round(time_s * 1000)) & (1 << 48) - 1) << 80 | int.from_bytes(randomness)
    return "".join(_BASE32[number >> shift & 31] for shift in range(125, -1, -5))
