"""The one thread that owns every alarm.

```
 every line ── Transition ─┐
 people ────── Command ────┼─► queue ─► lifecycle.take ─► AlarmStore.commit ─► wake
 time ──────── shelf ends ─┘
```
Rules: what comes is applied in the order in which it came, nowhere else. What was committed is delivered or still on
the disk. An item that fails is counted and logged, and the next is taken; a disk that is full, failing or damaged is
waited for. What people and timers did is told in `event/audit`; all that happened stays in the audit table.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

from tocsin.alarms.alarm import Alarm, AlarmContext, AlarmState, Severity, ulid
from tocsin.alarms.commands import ALL, Answer, Command, Refusal, asked, waits_for_ack
from tocsin.alarms.flood import FloodWatch
from tocsin.alarms.lifecycle import Event, Happening, Kind, Step, take
from tocsin.alarms.plan import Condition, Plan
from tocsin.alarms.sentence import flood_sentence
from tocsin.delivery.alarm_store import AlarmStore
from tocsin.delivery.clock import TimeQuality, time_quality
from tocsin.delivery.outbox import Outbox
from tocsin.delivery.told import audit_of_nothing
from tocsin.records import Change, Transition

log = logging.getLogger(__name__)

LOOK_S = 1.0  # between looks at the clock, where an alarm waits for it
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.1, 5.0


class _Stop:
    """The last item of the queue."""


@dataclass(frozen=True, slots=True)
class _Order:
    """A command, and whom to tell what became of it."""

    command: Command
    reply: Callable[[Answer], object]


@dataclass(frozen=True, slots=True)
class DeskStatistics:
    """What the desk did since its start.

    Attributes:
        raised: conditions that began.
        cleared: conditions that ended.
        failed: transitions and commands that could not be applied.
        waiting_for_disk: an item is being tried again.
    """

    raised: int
    cleared: int
    failed: int
    waiting_for_disk: bool


class AlarmDesk:
    """Applies transitions and commands.

    Args:
        outbox: holds the alarm table and takes the messages; left open.
        device: id, for the log.
        contexts: what alarms say of each asset, by id.
        wake: called after each commit, from the desk's thread.
        quality: how far the wall clock can be trusted.
        snapshot: keeps what was recorded around a time of an asset, and gives its id; must not block.
        of_alarms: what alarms say that are not the model's, by id.
        plan: how alarms are dealt with.
        now: epoch seconds.

    Attributes:
        queue: where every line puts its transitions.
    """

    def __init__(
        self,
        outbox: Outbox,
        device: str,
        contexts: Mapping[str, AlarmContext],
        wake: Callable[[], None],
        quality: Callable[[], TimeQuality] = time_quality,
        snapshot: Callable[[str, float], str | None] = lambda _asset, _time_s: None,
        of_alarms: Mapping[str, AlarmContext] | None = None,
        plan: Plan = Plan(),  # noqa: B008 - frozen
        now: Callable[[], float] = time.time,
    ) -> None:
        self.queue: SimpleQueue[Transition | _Order | _Stop] = SimpleQueue()
        self._device, self._contexts, self._wake, self._quality = device, contexts, wake, quality
        self._store = AlarmStore(outbox)
        self._snapshot, self._plan, self._now = snapshot, plan, now
        self._of_alarms = {} if of_alarms is None else of_alarms
        self._raised = self._cleared = 0
        self._waiting_for_disk = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alarm-desk", daemon=True)
        self._standing, self._failed = self._store.restore()
        self._floods = FloodWatch()
        held = {by for one in self._standing.values() for by in one.suppressors}
        self._modes = plan.modes & held  # that are on; each that does anything is kept with what it suppresses

    def start(self) -> None:
        """Ends alarms that are no longer configured, then takes transitions and commands."""
        self._thread.start()

    def stop(self) -> None:
        """Applies all that is queued, then ends the thread."""
        self._stopping.set()
        self.queue.put(_Stop())
        if self._thread.is_alive():
            self._thread.join()

    def order(self, command: Command, reply: Callable[[Answer], object]) -> None:
        """Takes a command, from any thread.

        Args:
            command: what somebody asks.
            reply: called once, from the desk's thread, when what became of it is on the disk; must not block.
        """
        self.queue.put(_Order(command, reply))

    def active_alarms(self) -> frozenset[str]:
        """Ids of the conditions and modes that are on, so that detectors resume in that state."""
        return self._modes | {alarm for alarm, one in self._standing.copy().items() if one.active}

    def standing_alarms(self) -> dict[str, Alarm]:
        """Every alarm that is not `normal`, by id; from any thread."""
        return self._standing.copy()

    @property
    def alive(self) -> bool:
        """Its thread runs; from any thread."""
        return self._thread.is_alive()

    @property
    def statistics(self) -> DeskStatistics:
        """What the desk did; from any thread."""
        return DeskStatistics(self._raised, self._cleared, self._failed, self._waiting_for_disk)

    def _run(self) -> None:
        self._settle()
        looked_s = time.monotonic()
        while True:
            try:
                item = self.queue.get(timeout=LOOK_S if self._waits_for_time() else None)
            except Empty:
                item = None
            if isinstance(item, _Stop):
                return
            if isinstance(item, _Order):
                self._obey(item)
            elif item is not None and item.alarm in self._plan.modes:
                self._enter(item)
            elif item is not None:
                self._try(item.alarm, self._happening(item))
            if time.monotonic() - looked_s >= LOOK_S:
                looked_s = time.monotonic()
                self._look_at_the_clock()

    def _waits_for_time(self) -> bool:
        return self._floods.waits_for_time or any(map(self._plan.waits_for_time, self._standing.values()))

    def _settle(self) -> None:
        """What the settings changed while the agent was not running."""
        for alarm, one in list(self._standing.items()):
            handling = self._plan.of(one.latest).handling
            if not self._is_watched(one.latest):
                self._do(alarm, Event.RETIRE)
            elif handling.clear is Event.CLEAR and not one.active and one.state is AlarmState.RTN_UNACKED:
                self._do(alarm, Event.CLEAR)
        on = self.active_alarms()
        for alarm, one in list(self._standing.items()):
            for by in one.suppressors:
                if by not in on or by not in self._plan.of(one.latest).handling.suppressed_by:
                    self._do(alarm, Event.SUPPRESSOR_OFF, by)
        for by in on:
            self._suppress_others(by, Event.SUPPRESSOR_ON)

    def _is_watched(self, latest: Transition) -> bool:
        return latest.asset in self._contexts and (latest.cause == "model" or latest.alarm in self._of_alarms)

    def _look_at_the_clock(self) -> None:
        now_s = self._now()
        for alarm, one in list(self._standing.items()):
            event = self._plan.due(one, now_s)
            if event is not None:
                self._do(alarm, event)
        flood = self._floods.look(now_s)
        if flood is not None:
            quality = self._quality()
            self._when_possible(lambda: self._store.flood(flood, now_s, quality))
            log.warning("%s", flood_sentence(flood))
            self._wake()

    def _happening(self, transition: Transition) -> Happening:
        stands = self._standing.get(transition.alarm)
        if transition.change is Change.STEPPED:
            order = tuple(Severity)
            now, was = Severity(transition.severity or Severity.MAJOR), stands.severity if stands else Severity.CRITICAL
            event = Event.STEP_UP if order.index(now) > order.index(was) else Event.STEP_DOWN
        else:
            event = Event.RAISE if transition.change is Change.RAISED else self._plan.of(transition).handling.clear
        return Happening(event, transition.time_s, transition, self._context(transition.asset, transition.alarm))

    def _context(self, asset: str, alarm: str) -> AlarmContext:
        return self._of_alarms.get(alarm) or self._contexts.get(asset, AlarmContext())

    def _condition(self, alarm: str) -> Condition | None:
        stands = self._standing.get(alarm)
        return self._plan.conditions.get(alarm) if stands is None else self._plan.of(stands.latest)

    def _do(self, alarm: str, event: Event, by: str = "") -> None:
        """What is nobody's command."""
        condition, now_s = self._condition(alarm), self._now()
        if condition is None:
            return
        quiet = condition.quiet(alarm, now_s)
        self._try(alarm, Happening(event, now_s, quiet, self._context(condition.asset, alarm), by))

    def _obey(self, order: _Order) -> None:
        command = order.command
        answer = Answer(Refusal("failed", f"{command.alarm}: the alarm table cannot be written"), {})
        try:
            answer = self._answer(command)
        except Exception:  # the thread outlives any single item
            self._failed += 1
            log.exception("%s: %s of %s could not be done", self._device, command.event, command.alarm)
        try:
            order.reply(answer)
        except Exception:  # the one who asked is gone
            log.exception("%s: nobody takes the answer to %s", self._device, command.event)

    def _answer(self, command: Command) -> Answer:
        if command.alarm == ALL and command.event is Event.ACK:
            waiting = [alarm for alarm, one in self._standing.items() if waits_for_ack(one)]
            answers = [self._answer(replace(command, alarm=alarm)) for alarm in waiting]
            states = {alarm: state for answer in answers for alarm, state in answer.states.items()}
            return Answer(None, states, sum(answer.changed for answer in answers))
        alarm, now_s = self._standing.get(command.alarm), self._now()
        condition = self._condition(command.alarm)
        if condition is None:
            known = ", ".join(sorted(self._plan.conditions)) or "none"
            return Answer(Refusal("unknown_alarm", f"no alarm {command.alarm!r}: there are {known}"), {})
        context = self._context(condition.asset, command.alarm)
        found = asked(command, alarm, condition, context, self._plan.shelf_limit_s, now_s)
        refusal = found if isinstance(found, Refusal) else None
        step = self._apply(command.alarm, found) if isinstance(found, Happening) else None
        if step is None:
            entry = audit_of_nothing(command, alarm, refusal, now_s)
            self._when_possible(lambda: self._store.audit(entry))
            self._wake()
        stands = self._standing.get(command.alarm)
        state = AlarmState.NORMAL if stands is None else stands.state
        return Answer(refusal, {command.alarm: state}, int(step is not None))

    def _try(self, alarm: str, happening: Happening) -> None:
        try:
            self._apply(alarm, happening)
        except Exception:  # the thread outlives any single item
            self._failed += 1
            log.exception("%s: %s of %s could not be applied", self._device, happening.event, alarm)

    def _apply(self, alarm: str, happening: Happening) -> Step | None:
        step = take(self._standing.get(alarm), happening, ulid(self._now(), os.urandom(10)))
        if step is None:
            return None
        step = self._with_snapshot(self._with_group(step))
        quality = self._quality()
        self._when_possible(lambda: self._store.commit(step, quality))
        self._note(step)
        was_on = step.before is not None and step.before.active
        if step.after.active != was_on:
            self._suppress_others(alarm, Event.SUPPRESSOR_ON if step.after.active else Event.SUPPRESSOR_OFF)
        return step

    def _enter(self, mode: Transition) -> None:
        """A mode of the plant begins or ends."""
        begins = mode.change is Change.RAISED
        if begins == (mode.alarm in self._modes):
            return
        self._modes = self._modes ^ {mode.alarm}
        log.info("mode %s %s", mode.alarm, "begins" if begins else "ends")
        self._suppress_others(mode.alarm, Event.SUPPRESSOR_ON if begins else Event.SUPPRESSOR_OFF)

    def _suppress_others(self, by: str, event: Event) -> None:
        for alarm in self._plan.suppressed_by(by):
            self._do(alarm, event, by)

    def _with_group(self, step: Step) -> Step:
        if step.kind is not Kind.NEW:
            return step
        asset = step.after.latest.asset
        on = [one for one in self._standing.values() if one.active and one.latest.asset == asset]
        return replace(step, after=replace(step.after, group=on[0].group if on else step.after.id))

    def _with_snapshot(self, step: Step) -> Step:
        first = step.cause.event is Event.RAISE and step.after.count == 1
        if not first:
            return step
        latest = step.after.latest
        try:
            snapshot = self._snapshot(latest.asset, latest.time_s)
        except Exception:  # the recorder's; the alarm goes out without
            log.exception("%s: nothing is kept of what was recorded around %s", self._device, latest.alarm)
            return step
        return replace(step, after=replace(step.after, snapshot=snapshot))

    def _when_possible(self, commit: Callable[[], None]) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                commit()
            except sqlite3.Error as error:  # full, failing, locked, damaged: the state is as before
                if self._stopping.is_set():
                    raise
                if not self._waiting_for_disk:
                    log.error("%s: alarms cannot be written (%s); trying until they can", self._device, error)
                self._waiting_for_disk = True
                self._stopping.wait(retry_s)
                retry_s = min(retry_s * 2, _LONGEST_RETRY_S)
            else:
                self._waiting_for_disk = False
                return

    def _note(self, step: Step) -> None:
        """What a committed step changes in memory."""
        alarm, ended = step.after.latest.alarm, step.kind is Kind.END
        if ended:
            self._standing.pop(alarm, None)
        else:
            self._standing[alarm] = step.after
        before = step.before
        if before is None or before.state is not step.after.state:
            what = step.after.state if step.kind is Kind.UPDATE else step.kind
            log.info("alarm %s %s: %s", alarm, what.value, step.after.text)
        if before is None and step.after.state is AlarmState.UNACKED:
            self._floods.new(step.after, self._now())
        was_on = before is not None and before.active
        self._raised += step.after.active and not was_on
        self._cleared += was_on and not step.after.active
        self._wake()
