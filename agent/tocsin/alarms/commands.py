"""What people ask of an alarm, and whether they can have it: (command, alarm) → happening, or a refusal.

Rules: pure; the clock is passed in. A command is refused whole or done whole; what is so already is done. An
acknowledgement may name the occurrence that was seen: if that is over, the next one is not acknowledged by it.
"""

from dataclasses import dataclass

from tocsin.alarms.alarm import Alarm, AlarmContext, AlarmState
from tocsin.alarms.lifecycle import TABLE, Event, Happening
from tocsin.alarms.plan import Condition

ALL = "all"
COMMANDS = (
    Event.ACK,
    Event.SHELVE,
    Event.UNSHELVE,
    Event.SUPPRESS,
    Event.UNSUPPRESS,
    Event.OUT_OF_SERVICE,
    Event.IN_SERVICE,
)


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody asks.

    Attributes:
        event: one of `COMMANDS`.
        alarm: id of the condition; `all` acknowledges every alarm that waits for it.
        by: who asks.
        comment: what they wrote, or None.
        for_s: seconds of a shelf.
        occurrence: id of the occurrence that they saw, or None for whichever stands.
    """

    event: Event
    alarm: str
    by: str
    comment: str | None = None
    for_s: float | None = None
    occurrence: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a command changes nothing.

    Attributes:
        code: `unknown_alarm`, `over`, `held_back`, `invalid`, `too_long`.
        text: for people.
    """

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a command.

    Attributes:
        refusal: None where it is done.
        states: state of each alarm that it was about, by id.
        changed: how many of them changed.
    """

    refusal: Refusal | None
    states: dict[str, AlarmState]
    changed: int = 0


def asked(
    command: Command,
    alarm: Alarm | None,
    condition: Condition,
    context: AlarmContext,
    shelf_limit_s: float,
    now_s: float,
) -> Happening | Refusal:
    """What a command makes happen.

    Args:
        command: about this condition.
        alarm: the occurrence that stands, or None.
        condition: of the alarm.
        context: of the asset.
        shelf_limit_s: longest shelf.
        now_s: epoch seconds.
    """
    if command.event not in COMMANDS or not command.by:
        return Refusal("invalid", f"expected one of {', '.join(COMMANDS)} and who asks, got {command.event} of nobody")
    if command.occurrence is not None and (alarm is None or alarm.id != command.occurrence):
        return Refusal("over", f"{command.alarm}: occurrence {command.occurrence} is over; nothing is changed")
    until_s = None
    if command.event is Event.SHELVE:
        if command.for_s is None or not 0 < command.for_s <= shelf_limit_s:
            got = "nothing" if command.for_s is None else f"{command.for_s:g} s"
            code = "invalid" if command.for_s is None or not command.for_s > 0 else "too_long"
            return Refusal(code, f"shelve needs a time, at most {shelf_limit_s / 3600:g} h, got {got}")
        until_s = now_s + command.for_s
    if command.event is Event.ACK and alarm is not None and alarm.held is not None:
        return Refusal("held_back", f"{command.alarm} is {alarm.state}: there is nothing to acknowledge")
    transition = condition.quiet(command.alarm, now_s)
    return Happening(command.event, now_s, transition, context, command.by, command.comment, until_s)


def waits_for_ack(alarm: Alarm) -> bool:
    """Somebody has to acknowledge it."""
    return TABLE[Event.ACK][alarm.state] is not None
