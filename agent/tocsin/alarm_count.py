"""How many alarms one asset raised in normal running, beside what its limit promises.

Rules: an alarm counts when it is raised, true or false, as only people can tell which it was; running counts while no
alarm is on and no doubted sensor holds the score back, so that a fault that lasts days is one alarm and no time. The
count belongs to one bundle and one set of alarm settings, and goes on over restarts: it is written at every alarm,
every ten minutes of running and at the end, so that a loss of power costs minutes. Another bundle, or other settings,
begin at nothing. A disk that fails costs the count and nothing else.
"""

import hashlib
import json
import logging
import sqlite3

import numpy as np

from tocsin.alarms.detector import AlarmRule
from tocsin.core.bundle import Bundle
from tocsin.core.promise import Promise, Tally
from tocsin.delivery.outbox import Outbox
from tocsin.delivery.wire import FalseAlarms, number
from tocsin.pipeline import Scored
from tocsin.records import Change

log = logging.getLogger(__name__)

KEPT_EVERY_H = 1 / 6
DAY_H = 24.0


class AlarmCount:
    """Counts the alarms of one asset; belongs to its thread, but for `report`.

    Args:
        asset: its id.
        bundle: that scores.
        rule: when a score becomes an alarm; where it is not the bundle's own, nothing is promised.
        outbox: holds the count over restarts.

    Attributes:
        tally: so far.
        promise: of the limit, or None.
    """

    def __init__(self, asset: str, bundle: Bundle, rule: AlarmRule, outbox: Outbox) -> None:
        manifest = bundle.manifest
        own = rule == AlarmRule.from_json(manifest.alarm)
        self.promise: Promise | None = manifest.threshold.promise if own else None
        self._asset, self._outbox = asset, outbox
        self._subject = f"{bundle.digest} {hashlib.sha256(json.dumps(rule.to_json()).encode()).hexdigest()[:16]}"
        self._hop_h = manifest.hop / manifest.sample_rate_hz / 3600
        self.tally = self._restored()
        self._kept = self.tally
        self._broken = self._is_broken()

    def take(self, part: Scored) -> None:
        """The next windows."""
        raised = sum(change.change is Change.RAISED for change in part.transitions)
        quiet = int(np.count_nonzero(~(part.anomaly | part.held)))
        self.tally = Tally(self.tally.episodes + raised, self.tally.hours + quiet * self._hop_h)
        if raised or self.tally.hours - self._kept.hours >= KEPT_EVERY_H:
            self.keep()
        if self._broken != (broken := self._is_broken()):
            self._broken = broken
            if broken and self.promise is not None:
                log.warning("%s: %s", self._asset, self.promise.measured(self.tally))

    def keep(self) -> None:
        """Writes the count."""
        if self.tally == self._kept:
            return
        try:
            self._outbox.keep_tally(self._asset, self._subject, self.tally.episodes, self.tally.hours)
        except sqlite3.Error as error:
            log.debug("%s: the count of alarms cannot be written: %s", self._asset, error)
        self._kept = self.tally  # what could not be written goes with the next

    def report(self) -> FalseAlarms:
        """For `health`; from any thread."""
        tally, promise = self.tally, self.promise
        low, high = tally.between()
        return FalseAlarms(
            episodes=tally.episodes,
            hours=round(tally.hours, 4),
            low_per_day=number(DAY_H * low),
            high_per_day=number(DAY_H * high),
            asked_per_day=None if promise is None else number(DAY_H * promise.asked),
            promised_low_per_day=None if promise is None else number(DAY_H * promise.low),
            promised_high_per_day=None if promise is None else number(DAY_H * promise.high),
            refused=None if promise is None else promise.refused,
            broken=None if promise is None else promise.broken_by(tally.episodes, tally.hours),
        )

    def _is_broken(self) -> bool:
        return self.promise is not None and self.promise.broken_by(self.tally.episodes, self.tally.hours)

    def _restored(self) -> Tally:
        try:
            return Tally(*self._outbox.tally(self._asset, self._subject))
        except sqlite3.Error as error:
            log.error("%s: the count of alarms cannot be read, it begins anew: %s", self._asset, error)
            return Tally()
