"""What the operator reads of an alarm."""

import math

from tocsin.alarms.alarm import AlarmContext, class_of
from tocsin.alarms.flood import Flood
from tocsin.alarms.words import LANGUAGES, say
from tocsin.records import Contribution, Transition

_NAMED_CHANNELS = 3
_NAMED_ASSETS = 5


def sentence(transition: Transition, context: AlarmContext) -> str:
    """What the operator reads: the asset, what it does, and the channels that show it most.

    >>> from tocsin.records import Change
    >>> t = Transition("pump-1", "pump-1-model", Change.RAISED, 0.0, "model", 3.0, 1.0, 3.0, 0.0, 1.0, 8,
    ...                (Contribution("pressure", 0.54, 2.31, 5.02),))
    >>> sentence(t, AlarmContext(units={"pressure": "bar"}))
    'pump-1 behaves unlike its normal running: Pressure (54 %) 2.31 bar where 5.02 was expected'
    >>> sentence(t, AlarmContext(units={"pressure": "bar"}, language="zh"))
    'pump-1 的运行状态偏离正常：Pressure（54 %） 2.31 bar，预期 5.02'
    """
    language = context.language
    cause = transition.cause if transition.cause in LANGUAGES[language] else "other"
    says = say(language, cause, asset=transition.asset, cause=transition.cause)
    if context.rule:
        says = say(language, "with_rule", says=says, rule=context.rule)
    if transition.score is None:  # nothing was scored: channels are named, and have no share
        parts = [_value(part, context.units.get(part.channel, "")) for part in transition.contributions]
        left = len(parts) - _NAMED_CHANNELS
        parts = parts[:_NAMED_CHANNELS] + ([say(language, "more", count=left)] if left > 0 else [])
    else:
        shown = [part for part in transition.contributions if math.isfinite(part.seen or 0.0) and part.share > 0]
        parts = [_channel(part, context.units.get(part.channel, ""), language) for part in shown[:_NAMED_CHANNELS]]
    if not parts:
        return says
    return say(language, "with_parts", says=says, parts=say(language, "between_parts").join(parts))


def _label(part: Contribution) -> str:
    label = part.channel.replace("_", " ")
    return f"{label[:1].upper()}{label[1:]}"


def _value(part: Contribution, unit: str) -> str:
    return _label(part) if part.seen is None else f"{_label(part)} {part.seen:.4g} {unit}".rstrip()


def _channel(part: Contribution, unit: str, language: str) -> str:
    share = say(language, "share", channel=_label(part), share=f"{part.share * 100:.0f}")
    if part.seen is None:
        return share
    if part.expected is None or not math.isfinite(part.expected):
        return f"{share} {part.seen:.3g} {unit}".rstrip()
    seen, expected = _told_apart(part.seen, part.expected)
    return say(language, "expected", seen=f"{share} {seen} {unit}".rstrip(), expected=expected)


def _told_apart(seen: float, expected: float) -> tuple[str, str]:
    """Both with as many digits, three or more, as it takes to tell them apart."""
    for digits in range(3, 7):
        texts = f"{seen:.{digits}g}", f"{expected:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def ended(asset: str, cause: str, language: str = "en") -> str:
    """The sentence of a condition that is over.

    >>> ended("pump-1", "stuck")
    'pump-1 gives values that can be trusted again'
    """
    return say(language, f"{class_of(cause)}_ends", asset=asset)


def flood_sentence(flood: Flood) -> str:
    """How many alarms, within which time, of what, and which was first; in the first one's language."""
    first, last = flood.alarms[0], flood.alarms[-1]
    language = first.context.language
    if flood.over:
        return say(language, "flood_ends", count=flood.count)
    assets = list(dict.fromkeys(alarm.latest.asset for alarm in flood.alarms))
    left = len(assets) - _NAMED_ASSETS
    named = assets[:_NAMED_ASSETS] + ([say(language, "more", count=left)] if left > 0 else [])
    seconds = f"{last.latest.time_s - first.latest.time_s:.0f}"
    of, alarm = say(language, "between_parts").join(named), first.latest.alarm
    return say(language, "flood", count=flood.count, seconds=seconds, assets=of, alarm=alarm)
