"""What is told of alarms: alarms, steps, floods and commands → payloads.

Rules: pure; what a payload may hold stands in `wire`.
"""

import math
from collections.abc import Iterable

from tocsin.alarms.alarm import Alarm, AlarmState
from tocsin.alarms.commands import Command, Refusal
from tocsin.alarms.flood import Flood
from tocsin.alarms.lifecycle import Step
from tocsin.alarms.sentence import flood_sentence
from tocsin.delivery.clock import TimeQuality
from tocsin.delivery.wire import (
    MAX_CONTRIBUTIONS,
    MAX_FLOOD,
    AlarmBody,
    AlarmChange,
    AuditBody,
    ChannelShare,
    FloodAlarm,
    FloodBody,
    Model,
    Window,
    number,
    rfc3339,
)
from tocsin.records import Contribution


def alarm_body(alarm: Alarm, quality: TimeQuality) -> AlarmBody:
    """An alarm's payload."""
    latest, context = alarm.latest, alarm.context
    window = Window(
        start=rfc3339(latest.window_start_s),
        end=rfc3339(latest.window_end_s),
        samples=latest.window_rows,
        rate_hz=number(context.rate_hz),
    )
    model = Model(name=context.model_name, version=context.model_version, digest=context.model_digest)
    return AlarmBody(
        id=alarm.id,
        group=alarm.group or None,
        alarm=latest.alarm,
        asset=latest.asset,
        detector=context.detector,
        time=rfc3339(latest.time_s),
        time_quality=quality,
        raised=_when(alarm.raised_s),
        cleared=_when(alarm.cleared_s),
        acked_at=_when(alarm.acked_s),
        acked_by=alarm.acked_by,
        text=alarm.text,
        state=alarm.state,
        active=alarm.active,
        acked=alarm.acked_s is not None,
        shelved=alarm.shelved_until_s is not None,
        suppressed=bool(alarm.suppressors) or alarm.suppressed_by is not None,
        severity=alarm.severity,
        severity_code=alarm.severity.code,
        score=number(latest.score),
        threshold=number(latest.threshold),
        ratio=number(latest.ratio),
        count=alarm.count,
        flaps=alarm.flaps,
        window=window,
        model=model if context.model_name else None,
        contributions=_shares(alarm.contributions),
        class_=alarm.alarm_class,
        cause=latest.cause,
        advice=context.advice or None,
        comment=alarm.comment,
        snapshot=alarm.snapshot,
    )


def _when(time_s: float | None) -> str | None:
    return None if time_s is None else rfc3339(time_s)


def flood_body(flood: Flood, now_s: float, quality: TimeQuality) -> FloodBody:
    """A flood's payload."""
    return FloodBody(
        type="end" if flood.over else "begin",
        id=flood.id,
        time=rfc3339(now_s),
        time_quality=quality,
        text=flood_sentence(flood),
        count=flood.count,
        assets=list(dict.fromkeys(alarm.latest.asset for alarm in flood.alarms)),
        alarms=[
            FloodAlarm(
                id=alarm.id,
                alarm=alarm.latest.alarm,
                asset=alarm.latest.asset,
                time=rfc3339(alarm.latest.time_s),
                severity=alarm.severity,
                text=alarm.text,
            )
            for alarm in flood.alarms[:MAX_FLOOD]
        ],
    )


def audit_of(step: Step) -> AuditBody:
    """The audit's line of a step."""
    return AuditBody(
        time=rfc3339(step.cause.time_s),
        alarm=step.after.latest.alarm,
        id=step.after.id,
        action=step.cause.event,
        by=step.cause.by or None,
        severity=step.after.severity,
        from_=AlarmState.NORMAL if step.before is None else step.before.state,
        to=step.after.state,
        outcome="done",
        comment=step.cause.comment,
    )


def audit_of_nothing(command: Command, alarm: Alarm | None, refusal: Refusal | None, time_s: float) -> AuditBody:
    """The audit's line of a command that changed nothing: refused, or so already."""
    state = AlarmState.NORMAL if alarm is None else alarm.state
    return AuditBody(
        time=rfc3339(time_s),
        alarm=command.alarm,
        id=None if alarm is None else alarm.id,
        action=command.event,
        by=command.by or None,
        from_=state,
        to=state,
        outcome="unchanged" if refusal is None else "refused",
        comment=command.comment,
        reason=None if refusal is None else refusal.text,
    )


def alarm_change(step: Step, quality: TimeQuality) -> AlarmChange:
    """The event that tells of a step."""
    before = None if step.before is None else alarm_body(step.before, quality)
    return AlarmChange(type=step.kind.value, before=before, after=alarm_body(step.after, quality))


def _shares(parts: Iterable[Contribution]) -> list[ChannelShare]:
    """The largest parts; shares are rounded down, so that they never sum to more than 1."""
    finite = [part for part in parts if math.isfinite(part.share)][:MAX_CONTRIBUTIONS]
    return [
        ChannelShare(
            channel=part.channel,
            share=math.floor(min(max(part.share, 0.0), 1.0) * 1e4) / 1e4,
            seen=number(part.seen),
            expected=number(part.expected),
        )
        for part in finite
    ]
