"""What the operator reads of an alarm."""

import math

from tocsin.alarms.alarm import AlarmClass, AlarmContext, class_of
from tocsin.records import Contribution, Transition

_NAMED_CHANNELS = 3

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


def sentence(transition: Transition, context: AlarmContext) -> str:
    """What the operator reads: the asset, what it does, and the channels that show it most.

    >>> from tocsin.records import Change
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


def ended(asset: str, cause: str) -> str:
    """The sentence of a condition that is over.

    >>> ended("pump-1", "stuck")
    'pump-1 gives values that can be trusted again'
    """
    return f"{asset} {_ENDS.get(class_of(cause), 'runs as normal again')}"
