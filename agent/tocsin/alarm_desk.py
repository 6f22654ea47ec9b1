"""The one thread that owns every alarm.

```
 every line ── Transition ──► queue ──► lifecycle.apply ──► one transaction: alarm table, event, retained state ──► wake
```
Rules: transitions are applied in the order in which they came, nowhere else. What was committed is delivered or still
on the disk. An item that fails is counted and logged, and the next is taken; a disk that is full, failing or damaged
is waited for.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from queue import SimpleQueue

from pydantic import TypeAdapter, ValidationError

from tocsin.alarms.lifecycle import Alarm, AlarmContext, Kind, Step, apply, retire, ulid
from tocsin.delivery.clock import TimeQuality, time_quality
from tocsin.delivery.outbox import Outbox, Priority
from tocsin.delivery.wire import EVENT_ALARM, alarm_body, alarm_change, alarm_topic
from tocsin.records import Transition

log = logging.getLogger(__name__)

_ALARM = TypeAdapter(Alarm)
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.1, 5.0


class _Stop:
    """The last item of the queue."""


@dataclass(frozen=True, slots=True)
class DeskStatistics:
    """What the desk did since its start.

    Attributes:
        raised: occurrences begun.
        cleared: occurrences ended.
        failed: transitions that could not be applied.
        waiting_for_disk: an item is being tried again.
    """

    raised: int
    cleared: int
    failed: int
    waiting_for_disk: bool


class AlarmDesk:
    """Applies transitions.

    Args:
        outbox: holds the alarm table and takes the messages; left open.
        device: id, for the log.
        contexts: what alarms say of each asset, by id.
        wake: called after each commit, from the desk's thread.
        quality: how far the wall clock can be trusted.
        snapshot: keeps what was recorded around a time of an asset, and gives its id; must not block.
        of_alarms: what alarms say that are not the model's, by id.

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
    ) -> None:
        self.queue: SimpleQueue[Transition | _Stop] = SimpleQueue()
        self._outbox, self._device, self._contexts, self._wake, self._quality = outbox, device, contexts, wake, quality
        self._snapshot = snapshot
        self._of_alarms = {} if of_alarms is None else of_alarms
        self._raised = self._cleared = self._failed = 0
        self._waiting_for_disk = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alarm-desk", daemon=True)
        self._active = self._restore()

    def _restore(self) -> dict[str, Alarm]:
        active: dict[str, Alarm] = {}
        for alarm, body in self._outbox.alarms().items():
            try:
                active[alarm] = _ALARM.validate_json(body)
            except ValidationError as error:
                self._failed += 1
                log.error("%s: alarm %s in the outbox cannot be read, forgotten: %s", self._device, alarm, error)
                with self._outbox.transaction():
                    self._outbox.keep_alarm(alarm, None)
                    self._outbox.put(alarm_topic(alarm), b"", retain=True, priority=Priority.ALARM)
        return active

    def start(self) -> None:
        """Ends alarms that are no longer configured, then takes transitions."""
        self._thread.start()

    def stop(self) -> None:
        """Applies all that is queued, then ends the thread."""
        self._stopping.set()
        self.queue.put(_Stop())
        if self._thread.is_alive():
            self._thread.join()

    def active_alarms(self) -> frozenset[str]:
        """Ids of the conditions that are active, so that detectors resume in that state."""
        return frozenset(self._active.copy())

    @property
    def statistics(self) -> DeskStatistics:
        """What the desk did; from any thread."""
        return DeskStatistics(self._raised, self._cleared, self._failed, self._waiting_for_disk)

    def _run(self) -> None:
        gone = [alarm for alarm in self._active.values() if not self._is_watched(alarm.latest)]
        for alarm in gone:
            self._try(alarm.latest, lambda latest: retire(self._active[latest.alarm], time.time()))
        while not isinstance(item := self.queue.get(), _Stop):
            self._try(item, self._decide)

    def _is_watched(self, latest: Transition) -> bool:
        return latest.asset in self._contexts and (latest.cause == "model" or latest.alarm in self._of_alarms)

    def _decide(self, transition: Transition) -> Step | None:
        of_asset = self._contexts.get(transition.asset, AlarmContext())
        context = self._of_alarms.get(transition.alarm, of_asset)
        step = apply(self._active.get(transition.alarm), transition, context, ulid(time.time(), os.urandom(10)))
        if step is None or step.kind is not Kind.NEW:
            return step
        try:
            snapshot = self._snapshot(transition.asset, transition.time_s)
        except Exception:  # the recorder's; the alarm goes out without
            log.exception("%s: nothing is kept of what was recorded around %s", self._device, transition.alarm)
            return step
        return replace(step, after=replace(step.after, snapshot=snapshot))

    def _try(self, transition: Transition, decide: Callable[[Transition], Step | None]) -> None:
        try:
            step = decide(transition)
            if step is not None:
                self._commit_when_possible(step)
        except Exception:  # the thread outlives any single item
            self._failed += 1
            log.exception("%s: %s of %s could not be applied", self._device, transition.change, transition.alarm)

    def _commit_when_possible(self, step: Step) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                self._commit(step)
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

    def _commit(self, step: Step) -> None:
        alarm, quality, ended = step.after.latest.alarm, self._quality(), step.kind is Kind.END
        body = alarm_body(step.after, quality)
        state = b"" if ended else body.encode()
        event = alarm_change(step, quality).encode()
        with self._outbox.transaction():
            self._outbox.keep_alarm(alarm, None if ended else _ALARM.dump_json(step.after))
            self._outbox.put(EVENT_ALARM, event, priority=Priority.ALARM)
            self._outbox.put(alarm_topic(alarm), state, retain=True, priority=Priority.ALARM)
        if ended:
            self._active.pop(alarm, None)
        else:
            self._active[alarm] = step.after
        if ended or step.kind is Kind.NEW:
            log.info("alarm %s %s: %s", alarm, step.kind.value, body.text)
        self._raised += step.kind is Kind.NEW
        self._cleared += ended
        self._wake()
