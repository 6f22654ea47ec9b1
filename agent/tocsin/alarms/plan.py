"""What may be in alarm on a device, and what time and alarms do to alarms."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tocsin.alarms.alarm import Alarm, AlarmState
from tocsin.alarms.lifecycle import Event, Handling
from tocsin.records import Change, Transition

SHELF_LIMIT_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Condition:
    """What can be in alarm.

    Attributes:
        asset: id of what it is of.
        cause: `model`, `rule`, `data_gap`, …
        handling: how its alarm is dealt with.
    """

    asset: str
    cause: str
    handling: Handling = Handling()

    def quiet(self, alarm: str, time_s: float) -> Transition:
        """Its end at a time, with nothing measured."""
        return Transition(self.asset, alarm, Change.CLEARED, time_s, self.cause, None, None, None, time_s, time_s, 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that may be in alarm.

    Attributes:
        conditions: by id of the alarm; one that is not here is handled by default, and cannot be named in a command.
        shelf_limit_s: longest time on the shelf.
        modes: ids of the plant's modes, which suppress alarms and are none.
    """

    conditions: Mapping[str, Condition] = field(default_factory=dict)
    shelf_limit_s: float = SHELF_LIMIT_S
    modes: frozenset[str] = frozenset()

    def of(self, latest: Transition) -> Condition:
        """The condition of a transition."""
        return self.conditions.get(latest.alarm) or Condition(latest.asset, latest.cause)

    def suppressed_by(self, alarm: str) -> list[str]:
        """Alarms that this one, or this mode, suppresses while it is on."""
        named = [name for name, one in self.conditions.items() if alarm in one.handling.suppressed_by]
        return [name for name in named if name != alarm]

    def waits_for_time(self, alarm: Alarm) -> bool:
        """The clock alone may change it."""
        acked = alarm.acked_s is not None and self.of(alarm.latest).handling.re_alarm_s is not None
        return acked or alarm.shelved_until_s is not None

    def due(self, alarm: Alarm, now_s: float) -> Event | None:
        """What time does to an alarm: its shelf ends, or it calls again.

        Args:
            alarm: that stands.
            now_s: epoch seconds; a clock that was set makes no shelf longer than the limit.
        """
        until_s, re_alarm_s = alarm.shelved_until_s, self.of(alarm.latest).handling.re_alarm_s
        if until_s is not None and not 0 < until_s - now_s <= self.shelf_limit_s + 1:
            return Event.UNSHELVE
        if alarm.state is not AlarmState.ACKED or re_alarm_s is None or alarm.acked_s is None:
            return None
        return Event.RE_ALARM if abs(now_s - alarm.acked_s) >= re_alarm_s else None
