"""What becomes of a condition when it begins, begins again, or ends: (alarm, transition) → step.

```
            raise                 raise again                clear
 (none) ───────────► new ───────────────────► update ───────────────► end
                     active, unacked          count + 1               inactive, normal
```
Rules: pure; the clock and new ids are passed in. One occurrence has one id, from its raise to its end. While there is
no acknowledging, a cleared alarm ends by itself. A clear of what is not active is no step.
"""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tocsin.records import Change, Contribution, Transition

_BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_NAMED_CHANNELS = 3


class AlarmState(StrEnum):
    """States of ISA-18.2; `normal` and `unacked` are reached so far."""

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


class Kind(StrEnum):
    """What a step does to the occurrence."""

    NEW = "new"
    UPDATE = "update"
    END = "end"


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
_SAYS = {
    "model": "behaves unlike its normal running",
    "rule": "breaks a rule",
    "data_gap": "gives no data",
    "bad_status": "gives values that their source calls bad",
    "stuck": "has a value that does not move",
    "range": "has a value out of its range",
    "rate": "has a value that changes faster than it can",
    "spikes": "has a value with lone spikes",
    "saturated": "has a value that is cut off at the end of its range",
    "sample_rate": "gives samples too fast or too slowly",
    "clock": "has a clock that went back or was set",
    "held_back": "gives values that cannot be trusted, too many for the model to judge",
    "drift": "drifts away from its normal running",
    "degradation": "is wearing",
}
_ENDS = {
    AlarmClass.SENSOR: "gives values that can be trusted again",
    AlarmClass.COMMS: "gives its samples as it should again",
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


@dataclass(frozen=True, slots=True)
class Alarm:
    """One occurrence of a condition.

    Attributes:
        id: ULID, the same from raise to end.
        state: see `AlarmState`.
        active: the condition is on.
        raised_s: epoch seconds of the window that raised it.
        cleared_s: of the window that cleared it, or None.
        count: how often it was raised within the occurrence.
        latest: the newest transition, for its time, scores and window.
        contributions: of the newest raise, largest share first.
        text: one sentence for the operator.
        context: of the asset, as it was at the newest transition.
        comment: why it ended, when it was not by the condition's end.
        snapshot: id of the recording around its raise, or None.
    """

    id: str
    state: AlarmState
    active: bool
    raised_s: float
    cleared_s: float | None
    count: int
    latest: Transition
    contributions: tuple[Contribution, ...]
    text: str
    context: AlarmContext
    comment: str | None = None
    snapshot: str | None = None

    @property
    def alarm_class(self) -> AlarmClass:
        """What is at fault."""
        return class_of(self.latest.cause)


@dataclass(frozen=True, slots=True)
class Step:
    """What one transition does.

    Attributes:
        kind: new, update or end.
        before: the alarm until now; None when it is new.
        after: the alarm from now on; inactive when it ended.
    """

    kind: Kind
    before: Alarm | None
    after: Alarm


def apply(alarm: Alarm | None, transition: Transition, context: AlarmContext, new_id: str) -> Step | None:
    """The step that a transition makes.

    Args:
        alarm: the active occurrence of that condition, or None.
        transition: a raise or a clear.
        context: of the transition's asset.
        new_id: taken when a new occurrence begins.

    Returns:
        None when nothing changes: a clear of what is not active.
    """
    if transition.change is Change.RAISED:
        after = Alarm(
            id=new_id if alarm is None else alarm.id,
            state=AlarmState.UNACKED if alarm is None else alarm.state,
            active=True,
            raised_s=transition.time_s if alarm is None else alarm.raised_s,
            cleared_s=None,
            count=1 if alarm is None else alarm.count + 1,
            latest=transition,
            contributions=transition.contributions,
            text=sentence(transition, context),
            context=context,
            snapshot=None if alarm is None else alarm.snapshot,
        )
        return Step(Kind.NEW if alarm is None else Kind.UPDATE, alarm, after)
    if alarm is None:
        return None
    text = f"{transition.asset} {_ENDS.get(alarm.alarm_class, 'runs as normal again')}"
    return Step(Kind.END, alarm, _ended(alarm, transition, text, context))


def retire(alarm: Alarm, time_s: float) -> Step:
    """Ends an alarm whose asset is no longer watched, at `time_s`."""
    transition = replace(alarm.latest, change=Change.CLEARED, time_s=time_s)
    after = _ended(alarm, transition, f"{transition.asset} is no longer watched", alarm.context)
    return Step(Kind.END, alarm, replace(after, comment="it was taken out of the configuration"))


def _ended(alarm: Alarm, transition: Transition, text: str, context: AlarmContext) -> Alarm:
    return replace(
        alarm,
        state=AlarmState.NORMAL,
        active=False,
        cleared_s=transition.time_s,
        latest=transition,
        text=text,
        context=context,
    )


def sentence(transition: Transition, context: AlarmContext) -> str:
    """What the operator reads: the asset, what it does, and the channels that show it most.

    >>> t = Transition("pump-1", "pump-1-model", Change.RAISED, 0.0, "model", 3.0, 1.0, 3.0, 0.0, 1.0, 8,
    ...                (Contribution("pressure", 0.54, 2.31, 5.02),))
    >>> sentence(t, AlarmContext(units={"pressure": "bar"}))
    'pump-1 behaves unlike its normal running: Pressure (54 %) 2.31 bar where 5.02 was expected'
    """
    says = f"{transition.asset} {_SAYS.get(transition.cause, f'is in alarm ({transition.cause})')}"
    if context.rule:
        says += f", {context.rule}"
    if transition.score is None:  # nothing was scored: channels are named, and have no share
        parts = [_value(part, context.units.get(part.channel, "")) for part in transition.contributions]
        more = [f"{len(parts) - _NAMED_CHANNELS} more"] if len(parts) > _NAMED_CHANNELS else []
        return f"{says}: {', '.join(parts[:_NAMED_CHANNELS] + more)}" if parts else says
    shown = [part for part in transition.contributions if math.isfinite(part.seen or 0.0) and part.share > 0]
    parts = [_channel(part, context.units.get(part.channel, "")) for part in shown[:_NAMED_CHANNELS]]
    return f"{says}: {', '.join(parts)}" if parts else says


def _label(part: Contribution) -> str:
    label = part.channel.replace("_", " ")
    return f"{label[:1].upper()}{label[1:]}"


def _value(part: Contribution, unit: str) -> str:
    return _label(part) if part.seen is None else f"{_label(part)} {part.seen:.4g} {unit}".rstrip()


def _channel(part: Contribution, unit: str) -> str:
    share = f"{_label(part)} ({part.share * 100:.0f} %)"
    if part.seen is None:
        return share
    if part.expected is None or not math.isfinite(part.expected):
        return f"{share} {part.seen:.3g} {unit}".rstrip()
    seen, expected = _told_apart(part.seen, part.expected)
    return f"{f'{share} {seen} {unit}'.rstrip()} where {expected} was expected"


def _told_apart(seen: float, expected: float) -> tuple[str, str]:
    """Both with as many digits, three or more, as it takes to tell them apart."""
    for digits in range(3, 7):
        texts = f"{seen:.{digits}g}", f"{expected:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


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
