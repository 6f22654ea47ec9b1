"""Messages on disk until a broker has them, and the alarm table beside them, in one SQLite file.

Rules: a row never changes; `seq` is never used again; each start has a higher `boot`. Everything written inside one
`transaction` is on the disk (WAL, synchronous=FULL) when it ends, or not at all. Over `max_rows` the lowest priority
goes first, oldest first, counted. A damaged file is set aside and replaced, never a reason to stop.

```
outbox    seq, boot, topic, payload, …   waiting to be sent
latest    topic → payload                the newest retained payload of each topic, to say again at every connect
alarm     alarm → body                   alarms that are not `normal`
audit     n → body                       what was done to alarms, the newest 10,000
tally     asset → episodes, hours        alarms counted in normal running, by one bundle and its alarm settings
```
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox(
    seq INTEGER PRIMARY KEY AUTOINCREMENT, boot INTEGER NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL,
    qos INTEGER NOT NULL, retain INTEGER NOT NULL, priority INTEGER NOT NULL, wall_s REAL NOT NULL,
    monotonic_s REAL NOT NULL);
CREATE INDEX IF NOT EXISTS outbox_topic ON outbox(topic, seq);
CREATE INDEX IF NOT EXISTS outbox_priority ON outbox(priority, seq);
CREATE TABLE IF NOT EXISTS latest(topic TEXT PRIMARY KEY, payload BLOB NOT NULL, priority INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS alarm(alarm TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS audit(n INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS tally(
    asset TEXT PRIMARY KEY, subject TEXT NOT NULL, episodes INTEGER NOT NULL, hours REAL NOT NULL);
CREATE TABLE IF NOT EXISTS agent(
    one INTEGER PRIMARY KEY CHECK (one = 1), boot INTEGER NOT NULL, dropped INTEGER NOT NULL);
"""
_COLUMNS = "seq, boot, topic, payload, qos, retain, priority, wall_s, monotonic_s"
_FORMAT = 1
_AUDITED = 10_000
_BUSY_S = 10.0
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}  # the last: other columns than ours


class _DamagedError(Exception):
    """The file is no outbox, or not one any more."""


class Priority(IntEnum):
    """What is dropped last when the outbox is full."""

    TELEMETRY = 0
    EVENT = 1
    ALARM = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One message.

    Attributes:
        seq: number, never used again.
        boot: epoch in which it was put.
        topic: tail under `<prefix>/<device>/`.
        payload: without its envelope; empty = forget what is retained.
        qos: 0 or 1.
        retain: the broker keeps it as current state.
        priority: see `Priority`.
        wall_s: epoch seconds when it was put.
        monotonic_s: the same on the monotonic clock, which means nothing in another boot.
    """

    seq: int
    boot: int
    topic: str
    payload: bytes
    qos: int
    retain: bool
    priority: int
    wall_s: float
    monotonic_s: float


class Outbox:
    """The file; safe to use from several threads, one transaction at a time.

    Args:
        path: made when missing; its folder must exist.
        max_rows: bound on the messages that wait.

    Attributes:
        boot: epoch of this start.
        dropped: messages dropped for want of room since the file was made.
        set_aside: where a damaged file was moved to at this start, or None.

    Raises:
        OSError: no folder, no right to write there, no room, or another process has it.
    """

    def __init__(self, path: Path, max_rows: int = 200_000) -> None:
        self.path, self.max_rows = path, max_rows
        self.set_aside: Path | None = None
        self._lock = threading.RLock()
        self._level = 0
        try:
            try:
                self._db = self._open()
            except _DamagedError as error:
                self.set_aside = _set_aside(path)
                log.error("%s is damaged (%s): set aside as %s, an empty one begins", path, error, self.set_aside)
                self._db = self._open()
        except sqlite3.Error as error:
            raise OSError(
                f"{path}: cannot be used ({error}): its folder must exist, with room, for one agent"
            ) from error
        self.boot, self.dropped = self._next_boot()
        self._depth = self._count()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
            (written,) = db.execute("PRAGMA user_version").fetchone()
            if verdict != "ok" or written not in (0, _FORMAT):
                raise _DamagedError(verdict if verdict != "ok" else f"format {written}, this agent's is {_FORMAT}")
            db.executescript(_SCHEMA)
            db.execute(f"SELECT {_COLUMNS} FROM outbox LIMIT 1")  # noqa: S608
            db.execute(f"PRAGMA user_version={_FORMAT}")
        except sqlite3.DatabaseError as error:
            db.close()
            if error.sqlite_errorcode & 0xFF in _DAMAGED:
                raise _DamagedError(str(error)) from error
            raise
        except _DamagedError:
            db.close()
            raise
        return db

    def _next_boot(self) -> tuple[int, int]:
        """A new file counts on from the wall clock: after one was lost, no (boot, seq) comes a second time."""
        with self.transaction():
            found = self._db.execute("SELECT boot, dropped FROM agent").fetchone()
            boot, dropped = (found[0] + 1, found[1]) if found else (time.time_ns() // 1_000_000, 0)
            self._db.execute("REPLACE INTO agent VALUES (1, ?, ?)", (boot, dropped))
        return boot, dropped

    def _count(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM outbox").fetchone()
        return int(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; to do it again is no error."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All inside is on the disk at the end, or, after an exception, none of it; may be nested.

        Raises:
            sqlite3.Error: disk full, input/output error.
        """
        with self._lock:
            if self._level:
                yield
                return
            dropped = getattr(self, "dropped", 0)
            self._db.execute("BEGIN IMMEDIATE")
            self._level = 1
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._depth, self.dropped = self._count(), dropped
                raise
            finally:
                self._level = 0

    def put(
        self, topic: str, payload: bytes, *, retain: bool = False, priority: Priority = Priority.EVENT, qos: int = 1
    ) -> int:
        """Adds a message, inside the caller's transaction where there is one.

        Args:
            topic: tail under `<prefix>/<device>/`.
            payload: JSON object without an envelope, or empty.
            retain: the broker keeps it, and it is said again at every connect.
            priority: what is dropped last.
            qos: 0 or 1.

        Returns:
            Its seq.
        """
        with self.transaction():
            values = (self.boot, topic, payload, qos, retain, int(priority), time.time(), time.monotonic())
            cursor = self._db.execute(
                "INSERT INTO outbox(boot, topic, payload, qos, retain, priority, wall_s, monotonic_s)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            if retain:
                self._db.execute("REPLACE INTO latest VALUES (?, ?, ?)", (topic, payload, int(priority)))
            self._depth += 1
            self._bound()
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def _bound(self) -> None:
        over = self._depth - self.max_rows
        if over <= 0:
            return
        self._db.execute(
            "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox ORDER BY priority, seq LIMIT ?)", (over,)
        )
        self._depth -= over
        self.dropped += over
        self._db.execute("UPDATE agent SET dropped = ?", (self.dropped,))

    def say_again(self) -> int:
        """Puts the newest retained payload of each topic that has none waiting; a broker may have lost them.

        Returns:
            How many.
        """
        with self.transaction():
            again = self._db.execute(
                "SELECT topic, payload, priority FROM latest WHERE topic NOT IN (SELECT topic FROM outbox)"
            ).fetchall()
            for topic, payload, priority in again:
                self.put(topic, payload, retain=True, priority=Priority(priority))
        return len(again)

    def pending(self, limit: int, after: int = 0) -> list[Row]:
        """The oldest messages with a seq above `after`, in order."""
        with self._lock:
            found = self._db.execute(
                f"SELECT {_COLUMNS} FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608
                (after, limit),
            )
            return [_row(values) for values in found]

    def first(self, topic: str, seq: int) -> Row | None:
        """The oldest message of a topic with at least that seq."""
        with self._lock:
            values = self._db.execute(
                f"SELECT {_COLUMNS} FROM outbox WHERE topic = ? AND seq >= ? ORDER BY seq LIMIT 1",  # noqa: S608
                (topic, seq),
            ).fetchone()
        return _row(values) if values else None

    def delete(self, seqs: Iterable[int]) -> None:
        """Forgets messages that were delivered."""
        with self.transaction():
            cursor = self._db.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq in seqs])
            self._depth -= max(cursor.rowcount, 0)

    def confirm(self, events: Iterable[tuple[int, int]]) -> list[int]:
        """Forgets events that a consumer has stored.

        Args:
            events: (boot, seq) of each; what is not there, or no event, is left alone.

        Returns:
            The seqs that were there.
        """
        found = []
        with self.transaction():
            for boot, seq in events:
                gone = self._db.execute(
                    "DELETE FROM outbox WHERE seq = ? AND boot = ? AND topic LIKE 'event/%'", (seq, boot)
                )
                found += [seq] * gone.rowcount
            self._depth -= len(found)
        return found

    def depth(self) -> int:
        """Messages that wait."""
        with self._lock:
            return self._depth

    def oldest_age(self) -> float:
        """Seconds since the oldest message was put, ≥ 0; 0 when none waits."""
        with self._lock:
            found = self._db.execute("SELECT boot, wall_s, monotonic_s FROM outbox ORDER BY seq LIMIT 1").fetchone()
        if found is None:
            return 0.0
        boot, wall_s, monotonic_s = int(found[0]), float(found[1]), float(found[2])
        return max(0.0, time.monotonic() - monotonic_s if boot == self.boot else time.time() - wall_s)

    def keep_alarm(self, alarm: str, body: bytes | None) -> None:
        """Keeps the body of an alarm that is not `normal`; None forgets it."""
        with self.transaction():
            if body is None:
                self._db.execute("DELETE FROM alarm WHERE alarm = ?", (alarm,))
            else:
                self._db.execute("REPLACE INTO alarm VALUES (?, ?)", (alarm, body))

    def alarms(self) -> dict[str, bytes]:
        """The bodies of the alarms that are not `normal`, by id."""
        with self._lock:
            return dict(self._db.execute("SELECT alarm, body FROM alarm ORDER BY alarm").fetchall())

    def keep_audit(self, body: bytes) -> None:
        """Adds a line to the audit trail; over 10,000 the oldest goes."""
        with self.transaction():
            cursor = self._db.execute("INSERT INTO audit(body) VALUES (?)", (body,))
            assert cursor.lastrowid is not None
            self._db.execute("DELETE FROM audit WHERE n <= ?", (cursor.lastrowid - _AUDITED,))

    def audit(self) -> list[bytes]:
        """The audit trail, oldest first."""
        with self._lock:
            return [body for (body,) in self._db.execute("SELECT body FROM audit ORDER BY n")]

    def keep_tally(self, asset: str, subject: str, episodes: int, hours: float) -> None:
        """Keeps an asset's count of alarms, in place of what was kept before.

        Args:
            asset: its id.
            subject: what was counted: bundle and alarm settings.
            episodes: alarms.
            hours: of running without one.
        """
        with self.transaction():
            self._db.execute("REPLACE INTO tally VALUES (?, ?, ?, ?)", (asset, subject, episodes, hours))

    def tally(self, asset: str, subject: str) -> tuple[int, float]:
        """Episodes and hours that were kept of this subject; nothing where another one was counted."""
        with self._lock:
            found = self._db.execute(
                "SELECT episodes, hours FROM tally WHERE asset = ? AND subject = ?", (asset, subject)
            ).fetchone()
        return (int(found[0]), float(found[1])) if found else (0, 0.0)


def read_audit(path: Path) -> list[bytes]:
    """The audit trail of a file that an agent may be using, oldest first.

    Raises:
        OSError: it cannot be read, or is no outbox.
    """
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)
        try:
            return [body for (body,) in db.execute("SELECT body FROM audit ORDER BY n")]
        finally:
            db.close()
    except sqlite3.Error as error:
        raise OSError(
            f"{path}: cannot be read ({error}): is it an agent's outbox.db, and may this user read it?"
        ) from error


def _row(values: tuple[int, int, str, bytes, int, int, int, float, float]) -> Row:
    seq, boot, topic, payload, qos, retain, priority, wall_s, monotonic_s = values
    return Row(seq, boot, topic, payload, qos, bool(retain), priority, wall_s, monotonic_s)


def _set_aside(path: Path) -> Path:
    """Renames the file and its log; gives the new name."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        extra = path.with_name(path.name + suffix)
        if extra.exists():
            extra.rename(aside.with_name(aside.name + suffix))
    return aside
