"""What outlives a session of Sparkplug: its number, and what the primary host said last.

Rules: a number is on the disk before the broker hears it, so that no restart uses it again; a disk that fails costs no
session. What a host says is from anybody who may publish there: what cannot be read changes nothing.
"""

import json
import logging
import os
from pathlib import Path

from tocsin.delivery.sparkplug_node import CYCLE

log = logging.getLogger(__name__)

_LONGEST_STATE = 1000  # bytes
_LONGEST_NUMBER = 20
_END_OF_TIME_MS = 2**63


class Sessions:
    """Numbers of sessions (bdSeq): 0, 1, … 255, 0, one for each CONNECT.

    Args:
        path: of the file that holds the next; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = self._next = self._read()
        self._failing = False

    def _read(self) -> int:
        try:
            with self._path.open(encoding="ascii") as handle:
                return int(handle.read(_LONGEST_NUMBER)) % CYCLE
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read (%s): the sessions of Sparkplug are counted from 0", self._path, error)
            return 0

    def take(self) -> int:
        """The number of the session that begins now."""
        number, self._next = self._next, (self._next + 1) % CYCLE
        if self._written != self._next:
            self._write(self._next)
        return number

    def give_back(self) -> None:
        """The number that was taken last was never heard by a broker."""
        self._next = (self._next - 1) % CYCLE

    def _write(self, number: int) -> None:
        written = self._path.with_suffix(".new")
        try:
            with written.open("w", encoding="ascii") as handle:
                handle.write(f"{number}\n")
                handle.flush()
                os.fsync(handle.fileno())
            written.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            if not self._failing:
                log.warning("%s cannot be written (%s): a number may come again after a restart", written, error)
            self._failing = True
        else:
            self._written, self._failing = number, False


class PrimaryHost:
    """What `spBv1.0/STATE/<host>` says; a message that is older than the one before counts for nothing.

    Attributes:
        online: it takes what it is told.
    """

    def __init__(self) -> None:
        self.online = False
        self._latest_ms: float = 0

    def forget(self) -> None:
        """A new session: the host has to be seen online anew, no earlier than it was seen last."""
        self.online = False

    def take(self, payload: bytes) -> None:
        """What it says."""
        said = _state(payload)
        if said is None:
            log.warning("sparkplug: STATE of the primary host cannot be read: expected online and timestamp as JSON")
            return
        online, time_ms = said
        if time_ms < self._latest_ms:
            log.warning("sparkplug: STATE of the primary host is older than the last: left out; is its clock right?")
            return
        self.online, self._latest_ms = online, time_ms


def _state(payload: bytes) -> tuple[bool, float] | None:
    """Online, and since when: ms since 1970; None where it does not say so."""
    if len(payload) > _LONGEST_STATE:
        return None
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    online, time_ms = (said.get("online"), said.get("timestamp")) if isinstance(said, dict) else (None, None)
    if not isinstance(online, bool) or isinstance(time_ms, bool) or not isinstance(time_ms, int | float):
        return None
    return (online, time_ms) if 0 <= time_ms < _END_OF_TIME_MS else None
