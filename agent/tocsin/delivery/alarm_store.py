"""Where alarms are kept: what one step changes, in one transaction.

```
 Step ─► alarm table · alarm/<alarm> retained · audit table · event/alarm · event/audit, where it was not a detector
         └──── all that a flap does ────┘
```
"""

import logging

from pydantic import TypeAdapter, ValidationError

from tocsin.alarms.alarm import Alarm
from tocsin.alarms.flood import Flood
from tocsin.alarms.lifecycle import Event, Kind, Step
from tocsin.delivery.clock import TimeQuality
from tocsin.delivery.outbox import Outbox, Priority
from tocsin.delivery.told import alarm_body, alarm_change, audit_of, flood_body
from tocsin.delivery.wire import EVENT_ALARM, EVENT_AUDIT, EVENT_FLOOD, AuditBody, alarm_topic

log = logging.getLogger(__name__)

_ALARM = TypeAdapter(Alarm)
_OF_DETECTORS = frozenset(
    {Event.RAISE, Event.CLEAR, Event.CLEAR_UNACKED, Event.CLEAR_LATCHING, Event.STEP_UP, Event.STEP_DOWN}
)


class AlarmStore:
    """The alarm table and what goes with it.

    Args:
        outbox: left open.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def restore(self) -> tuple[dict[str, Alarm], int]:
        """Alarms that stand, by id, and how many cannot be read; those are forgotten, and their state withdrawn."""
        standing: dict[str, Alarm] = {}
        failed = 0
        for alarm, body in self._outbox.alarms().items():
            try:
                standing[alarm] = _ALARM.validate_json(body)
            except ValidationError as error:
                failed += 1
                log.error("alarm %s in the outbox cannot be read, forgotten: %s", alarm, error)
                with self._outbox.transaction():
                    self._outbox.keep_alarm(alarm, None)
                    self._outbox.put(alarm_topic(alarm), b"", retain=True, priority=Priority.ALARM)
        return standing, failed

    def commit(self, step: Step, quality: TimeQuality) -> None:
        """All of a step, or nothing.

        Raises:
            sqlite3.Error: the disk is full or failing.
        """
        alarm, ended = step.after.latest.alarm, step.kind is Kind.END
        state = b"" if ended else alarm_body(step.after, quality).encode()
        event = alarm_change(step, quality).encode()
        with self._outbox.transaction():
            self._outbox.keep_alarm(alarm, None if ended else _ALARM.dump_json(step.after))
            if not step.flaps:
                self.audit(audit_of(step), told=step.cause.event not in _OF_DETECTORS)
                self._outbox.put(EVENT_ALARM, event, priority=Priority.ALARM)
            self._outbox.put(alarm_topic(alarm), state, retain=True, priority=Priority.ALARM)

    def flood(self, flood: Flood, now_s: float, quality: TimeQuality) -> None:
        """Tells that a flood of alarms is there, or over.

        Raises:
            sqlite3.Error: the disk is full or failing.
        """
        self._outbox.put(EVENT_FLOOD, flood_body(flood, now_s, quality).encode(), priority=Priority.ALARM)

    def audit(self, entry: AuditBody, told: bool = True) -> None:
        """One line of the audit trail, in the caller's transaction where there is one.

        Args:
            entry: what was done, or refused.
            told: also in `event/audit`.

        Raises:
            sqlite3.Error: the disk is full or failing.
        """
        with self._outbox.transaction():
            self._outbox.keep_audit(entry.encode())
            if told:
                self._outbox.put(EVENT_AUDIT, entry.encode())
