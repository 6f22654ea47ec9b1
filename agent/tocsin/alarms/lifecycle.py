"""The life-cycle of an alarm: a table, state × event → state, and what each event does besides.

States are those of ANSI/ISA-18.2 (IEC 62682). `TABLE` is all there is of transitions; `EFFECTS` says what is noted.

```
            raise                    acknowledge
 normal ───────────► unacked ◄──────────────────────► acked          shelved · suppressed · out of service
    ▲                   │ clear    re-alarm             │ clear      hold back each of these, and give it back
    │                   ▼                               ▼
    └──── acknowledge ─ rtn_unacked, latched ◄──────────┘ (latching only)
```
Rules: pure; the clock and new ids are passed in. What leaves `normal` begins an occurrence, what comes back ends it.
A condition is followed while it is held back, so that one that is on when the last hold goes calls at once. An event
without a cell changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from tocsin.alarms.alarm import Alarm, AlarmContext, AlarmState, Severity
from tocsin.alarms.sentence import ended, sentence
from tocsin.alarms.words import say
from tocsin.records import Transition

BACK: Literal["back"] = "back"  # to what still holds it; else by its condition: unacked, latched or normal


class Event(StrEnum):
    """What can happen to an alarm."""

    RAISE = "raise"
    CLEAR = "clear"
    CLEAR_UNACKED = "clear, auto_ack: false"
    CLEAR_LATCHING = "clear, latching: true"
    ACK = "ack"
    RE_ALARM = "re_alarm"
    STEP_UP = "step_up"
    STEP_DOWN = "step_down"
    SHELVE = "shelve"
    UNSHELVE = "unshelve"
    SUPPRESS = "suppress"
    UNSUPPRESS = "unsuppress"
    SUPPRESSOR_ON = "suppressor on"
    SUPPRESSOR_OFF = "suppressor off"
    OUT_OF_SERVICE = "out_of_service"
    IN_SERVICE = "in_service"
    RETIRE = "retire"


Cell = AlarmState | Literal["back"] | None
_N, _U, _A, _R, _L, _S, _D, _O = AlarmState
_B: Cell = BACK
__: Cell = None


def _row(*cells: Cell) -> Mapping[AlarmState, Cell]:
    return dict(zip(AlarmState, cells, strict=True))


TABLE: Mapping[Event, Mapping[AlarmState, Cell]] = {
    #                          normal unacked acked  rtn  latched shelved suppressed out of service
    Event.RAISE: _row(             _U,    _U,   _A,   _U,   _U,    _S,    _D,    _O),
    Event.CLEAR: _row(             __,    _N,   _N,   _N,   __,    _S,    _D,    _O),
    Event.CLEAR_UNACKED: _row(     __,    _R,   _N,   __,   __,    _S,    _D,    _O),
    Event.CLEAR_LATCHING: _row(    __,    _L,   _L,   __,   __,    _S,    _D,    _O),
    Event.ACK: _row(               __,    _A,   __,   _N,   _N,    __,    __,    __),
    Event.RE_ALARM: _row(          __,    __,   _U,   __,   __,    __,    __,    __),
    Event.STEP_UP: _row(           __,    _U,   _U,   __,   __,    _S,    _D,    _O),
    Event.STEP_DOWN: _row(         __,    _U,   _A,   __,   __,    _S,    _D,    _O),
    Event.SHELVE: _row(            _S,    _S,   _S,   _S,   _S,    _S,    _D,    _O),
    Event.UNSHELVE: _row(          __,    __,   __,   __,   __,    _B,    _B,    _B),
    Event.SUPPRESS: _row(          _D,    _D,   _D,   _D,   _D,    _D,    _D,    _O),
    Event.UNSUPPRESS: _row(        __,    __,   __,   __,   __,    _B,    _B,    _B),
    Event.SUPPRESSOR_ON: _row(     _D,    _D,   _D,   _D,   _D,    _D,    _D,    _O),
    Event.SUPPRESSOR_OFF: _row(    __,    __,   __,   __,   __,    _B,    _B,    _B),
    Event.OUT_OF_SERVICE: _row(    _O,    _O,   _O,   _O,   _O,    _O,    _O,    _O),
    Event.IN_SERVICE: _row(        __,    __,   __,   __,   __,    _B,    _B,    _B),
    Event.RETIRE: _row(            __,    _N,   _N,   _N,   _N,    _N,    _N,    _N),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Handling:
    """How an alarm is dealt with.

    Attributes:
        auto_ack: it is over when its condition is, acknowledged or not.
        latching: it stays until it is acknowledged after its condition's end, whatever `auto_ack` says.
        re_alarm_s: seconds after which an acknowledged alarm whose condition is still on calls again; None = never.
        suppressed_by: alarms and modes that suppress it while their condition is on.
    """

    auto_ack: bool = True
    latching: bool = False
    re_alarm_s: float | None = None
    suppressed_by: tuple[str, ...] = ()

    @property
    def clear(self) -> Event:
        """The event of a condition that ends."""
        if self.latching:
            return Event.CLEAR_LATCHING
        return Event.CLEAR if self.auto_ack else Event.CLEAR_UNACKED


@dataclass(frozen=True, slots=True)
class Happening:
    """An event, with what belongs to it.

    Attributes:
        event: what happened.
        time_s: epoch seconds.
        transition: of a raise or a clear; for others, what begins an occurrence where there is none.
        context: of the asset.
        by: who did it: a person, the suppressing alarm, or empty for detectors and timers of this device.
        comment: what that person wrote.
        until_s: end of a shelf.
    """

    event: Event
    time_s: float
    transition: Transition
    context: AlarmContext
    by: str = ""
    comment: str | None = None
    until_s: float | None = None


class Kind(StrEnum):
    """What a step does to the occurrence."""

    NEW = "new"
    UPDATE = "update"
    END = "end"


@dataclass(frozen=True, slots=True)
class Step:
    """What one event does.

    Attributes:
        kind: new, update or end.
        before: the alarm until now; None when it is new.
        after: the alarm from now on; its state is `normal` when it ended.
        cause: what happened.
    """

    kind: Kind
    before: Alarm | None
    after: Alarm
    cause: Happening

    @property
    def flaps(self) -> bool:
        """The condition came again before its end was believed: it is counted, and nobody has to be told."""
        before, after = self.before, self.after
        same = before is not None and (after.state, after.severity) == (before.state, before.severity)
        return before is not None and same and after.flaps > before.flaps


def take(alarm: Alarm | None, happening: Happening, new_id: str) -> Step | None:
    """The step that an event makes.

    Args:
        alarm: the occurrence that stands, or None where the state is `normal`.
        happening: the event.
        new_id: taken when an occurrence begins.

    Returns:
        None where nothing changes.
    """
    before = alarm or _quiet(happening, new_id)
    cell = TABLE[happening.event][before.state]
    if cell is None:
        return None
    after = EFFECTS[happening.event](before, happening)
    state = _back(after) if cell == BACK else cell
    if after == before and state is before.state:
        return None
    after = _entered(replace(after, state=state))
    kind = Kind.NEW if alarm is None else Kind.END if state is AlarmState.NORMAL else Kind.UPDATE
    return Step(kind, alarm, after, happening)


_HOLDS = frozenset({Event.SHELVE, Event.SUPPRESS, Event.SUPPRESSOR_ON, Event.OUT_OF_SERVICE})


def _quiet(happening: Happening, new_id: str) -> Alarm:
    """An occurrence about to begin."""
    transition, language, text = happening.transition, happening.context.language, ""
    if happening.event in _HOLDS:
        text = say(language, happening.event, alarm=transition.alarm, by=happening.by)
    return Alarm(new_id, AlarmState.NORMAL, False, None, None, 0, transition, (), text, happening.context)


def _back(alarm: Alarm) -> AlarmState:
    if alarm.held is not None:
        return alarm.held
    if alarm.active:
        return AlarmState.UNACKED
    return AlarmState.LATCHED if alarm.latched else AlarmState.NORMAL


def _entered(after: Alarm) -> Alarm:
    """What goes with a state, however it was reached."""
    state = after.state
    if state in (AlarmState.UNACKED, AlarmState.LATCHED):
        after = replace(after, latched=state is AlarmState.LATCHED)
    if state not in (AlarmState.ACKED, AlarmState.NORMAL):
        after = replace(after, acked_s=None, acked_by=None)
    return after


def _raise(alarm: Alarm, happening: Happening) -> Alarm:
    transition = happening.transition
    return replace(
        alarm,
        active=True,
        raised_s=transition.time_s if alarm.raised_s is None else alarm.raised_s,
        cleared_s=None,
        count=alarm.count + 1,
        flaps=alarm.flaps + alarm.active,
        latest=transition,
        contributions=transition.contributions,
        stepped=None if transition.severity is None else Severity(transition.severity),
        text=sentence(transition, happening.context),
        context=happening.context,
    )


def _clear(alarm: Alarm, happening: Happening) -> Alarm:
    if not alarm.active:
        return alarm
    transition = happening.transition
    return replace(
        alarm,
        active=False,
        cleared_s=transition.time_s,
        latest=transition,
        text=ended(transition.asset, transition.cause, happening.context.language),
        context=happening.context,
    )


def _step(alarm: Alarm, happening: Happening) -> Alarm:
    transition, latest = happening.transition, alarm.latest
    if not alarm.active or transition.severity is None or transition.ratio is None:
        return alarm
    score = None if latest.threshold is None else transition.ratio * latest.threshold
    latest = replace(latest, time_s=transition.time_s, ratio=transition.ratio, score=score)
    return replace(alarm, latest=latest, stepped=Severity(transition.severity))


def _ack(alarm: Alarm, happening: Happening) -> Alarm:
    return replace(_said(alarm, happening), acked_s=happening.time_s, acked_by=happening.by, latched=False)


def _shelve(alarm: Alarm, happening: Happening) -> Alarm:
    return replace(_said(alarm, happening), shelved_until_s=happening.until_s)


def _unshelve(alarm: Alarm, happening: Happening) -> Alarm:
    return alarm if alarm.shelved_until_s is None else replace(_said(alarm, happening), shelved_until_s=None)


def _suppress(alarm: Alarm, happening: Happening) -> Alarm:
    return replace(_said(alarm, happening), suppressed_by=happening.by)


def _unsuppress(alarm: Alarm, happening: Happening) -> Alarm:
    return alarm if alarm.suppressed_by is None else replace(_said(alarm, happening), suppressed_by=None)


def _suppressor_on(alarm: Alarm, happening: Happening) -> Alarm:
    return replace(alarm, suppressors=tuple(sorted({*alarm.suppressors, happening.by})))


def _suppressor_off(alarm: Alarm, happening: Happening) -> Alarm:
    return replace(alarm, suppressors=tuple(by for by in alarm.suppressors if by != happening.by))


def _take_out(alarm: Alarm, happening: Happening) -> Alarm:
    return replace(_said(alarm, happening), out_of_service_by=happening.by)


def _take_in(alarm: Alarm, happening: Happening) -> Alarm:
    return alarm if alarm.out_of_service_by is None else replace(_said(alarm, happening), out_of_service_by=None)


def _retire(alarm: Alarm, happening: Happening) -> Alarm:
    transition, language = happening.transition, happening.context.language
    return replace(
        alarm,
        active=False,
        cleared_s=happening.time_s if alarm.active else alarm.cleared_s,
        latest=transition,
        text=say(language, "retire", asset=transition.asset),
        comment=say(language, "retire_comment"),
    )


def _said(alarm: Alarm, happening: Happening) -> Alarm:
    return alarm if happening.comment is None else replace(alarm, comment=happening.comment)


EFFECTS: Mapping[Event, Callable[[Alarm, Happening], Alarm]] = {
    Event.RAISE: _raise,
    Event.CLEAR: _clear,
    Event.CLEAR_UNACKED: _clear,
    Event.CLEAR_LATCHING: _clear,
    Event.ACK: _ack,
    Event.RE_ALARM: lambda alarm, _: alarm,
    Event.STEP_UP: _step,
    Event.STEP_DOWN: _step,
    Event.SHELVE: _shelve,
    Event.UNSHELVE: _unshelve,
    Event.SUPPRESS: _suppress,
    Event.UNSUPPRESS: _unsuppress,
    Event.SUPPRESSOR_ON: _suppressor_on,
    Event.SUPPRESSOR_OFF: _suppressor_off,
    Event.OUT_OF_SERVICE: _take_out,
    Event.IN_SERVICE: _take_in,
    Event.RETIRE: _retire,
}
