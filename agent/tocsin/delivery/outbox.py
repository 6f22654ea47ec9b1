"""Messages on disk until a broker has them, and the alarm table beside them, in one SQLite file.

Rules: a row never changes; `seq` is never used again; each start has a higher `boot`. Everything written inside one
`transaction` is on the disk (WAL, synchronous=FULL) when it ends, or not at all. Over `max_rows` or `max_mb` what was
delivered goes first, then the lowest priority, oldest first, counted: the file never fills the disk, for a full one
fails even a DELETE. A damaged file is set aside and replaced, damaged rows are left out, never a reason to stop.

```
outbox    seq, boot, topic, payload, …   waiting to be sent
delivered the same                       events of the last 24 h that were, for a consumer that lost them
latest    topic → payload                the newest retained payload of each topic, to say again at every connect
alarm     alarm → body                   alarms that are not `normal`
audit     n → body                       what was done to alarms, the newest 10,000
tally     asset → episodes, hours        alarms counted in normal running, by one bundle and its alarm settings
```
"""

import json
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
CREATE TABLE IF NOT EXISTS delivered(
    seq INTEGER PRIMARY KEY, boot INTEGER NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL,
    qos INTEGER NOT NULL, retain INTEGER NOT NULL, priority INTEGER NOT NULL, wall_s REAL NOT NULL,
    monotonic_s REAL NOT NULL);
CREATE TABLE IF NOT EXISTS latest(topic TEXT PRIMARY KEY, payload BLOB NOT NULL, priority INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS alarm(alarm TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS audit(n INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS tally(
    asset TEXT PRIMARY KEY, subject TEXT NOT NULL, episodes INTEGER NOT NULL, hours REAL NOT NULL);
CREATE TABLE IF NOT EXISTS agent(
    one INTEGER PRIMARY KEY CHECK (one = 1), boot INTEGER NOT NULL, dropped INTEGER NOT NULL);
"""
_ROW = (
    "readable(CAST(topic AS BLOB), payload) AND typeof(boot) = 'integer' AND qos IN (0, 1) AND retain IN (0, 1) "
    "AND priority IN (0, 1, 2) AND typeof(wall_s) = 'real' AND typeof(monotonic_s) = 'real'"
)
_WHOLE = {  # what holds for a row that can be used; SQLite sees no damage within a text or a number
    "outbox": _ROW,
    "delivered": _ROW,
    "latest": "readable(CAST(topic AS BLOB), payload) AND priority IN (0, 1, 2)",
    "alarm": "readable(CAST(alarm AS BLOB), '')",
    "audit": "readable('audit', body)",
    "tally": "readable(CAST(asset AS BLOB), '') AND readable(CAST(subject AS BLOB), '') "
    "AND typeof(episodes) = 'integer' AND typeof(hours) = 'real'",
    "agent": "typeof(boot) = 'integer' AND boot BETWEEN 0 AND 1 << 62 AND typeof(dropped) = 'integer'",
}
_COLUMNS = "seq, boot, topic, payload, qos, retain, priority, wall_s, monotonic_s"
_FORMAT = 1
_AUDITED = 10_000
REPLAY_S = 86_400.0  # what was delivered is kept so long
_MB = 1 << 20
_ROOM = 0.9  # of `max_mb`, for messages; the rest is for what cannot be dropped
_AT_ONCE = 100  # rows dropped at a time, where the file is full
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
        max_mb: bound on the file, MiB.

    Attributes:
        boot: epoch of this start.
        dropped: messages dropped for want of room since the file was made.
        set_aside: where a damaged file was moved to at this start, or None.

    Raises:
        OSError: no folder, no right to write there, no room, or another process has it.
    """

    def __init__(self, path: Path, max_rows: int = 200_000, max_mb: float = 256.0) -> None:
        self.path, self.max_rows, self._max_mb = path, max_rows, max_mb
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
            (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
            (self._max_pages,) = db.execute(f"PRAGMA max_page_count={int(self._max_mb * _MB / page_bytes)}").fetchone()
            (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
            (written,) = db.execute("PRAGMA user_version").fetchone()
            if verdict != "ok" or written not in (0, _FORMAT):
                raise _DamagedError(verdict if verdict != "ok" else f"format {written}, this agent's is {_FORMAT}")
            db.executescript(_SCHEMA)
            db.execute(f"SELECT {_COLUMNS} FROM outbox LIMIT 1")  # noqa: S608
            db.execute(f"PRAGMA user_version={_FORMAT}")
            self._leave_out(db)
        except sqlite3.DatabaseError as error:
            db.close()
            if error.sqlite_errorcode & 0xFF in _DAMAGED:
                raise _DamagedError(str(error)) from error
            raise
        except _DamagedError:
            db.close()
            raise
        return db

    def _leave_out(self, db: sqlite3.Connection) -> None:
        """Forgets rows that are damaged within."""
        db.create_function("readable", 2, _readable, deterministic=True)
        for table, whole in _WHOLE.items():
            gone = db.execute(f"DELETE FROM {table} WHERE NOT coalesce({whole}, 0)").rowcount  # noqa: S608
            if gone:
                log.error("%s: %d damaged rows of %s are left out", self.path, gone, table)

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
        if self._depth > self.max_rows:
            self._drop(self._depth - self.max_rows)
        while self._pages() > _ROOM * self._max_pages:
            cursor = self._db.execute(
                "DELETE FROM delivered WHERE seq IN (SELECT seq FROM delivered ORDER BY seq LIMIT ?)", (_AT_ONCE,)
            )
            if cursor.rowcount == 0 and not self._drop(_AT_ONCE):
                return

    def _pages(self) -> int:
        """In use."""
        (there,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return int(there) - int(free)

    def _drop(self, count: int) -> int:
        """Forgets what matters least, oldest first; gives how many were there."""
        cursor = self._db.execute(
            "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox ORDER BY priority, seq LIMIT ?)", (count,)
        )
        self._depth -= cursor.rowcount
        self.dropped += cursor.rowcount
        self._db.execute("UPDATE agent SET dropped = ?", (self.dropped,))
        return cursor.rowcount

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

    def latest(self, topic: str) -> bytes | None:
        """The newest retained payload of a topic."""
        with self._lock:
            found = self._db.execute("SELECT payload FROM latest WHERE topic = ?", (topic,)).fetchone()
        return None if found is None else bytes(found[0])

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
        """Forgets messages."""
        with self.transaction():
            cursor = self._db.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq in seqs])
            self._depth -= max(cursor.rowcount, 0)

    def delivered(self, seqs: Iterable[int]) -> None:
        """Takes messages out of what waits; events stay for `REPLAY_S`, for a consumer that asks again."""
        seqs = list(seqs)
        with self.transaction():
            self._db.executemany(
                f"REPLACE INTO delivered SELECT {_COLUMNS} FROM outbox WHERE seq = ? AND topic LIKE 'event/%'",  # noqa: S608
                [(seq,) for seq in seqs],
            )
            self._db.execute("DELETE FROM delivered WHERE abs(? - wall_s) > ?", (time.time(), REPLAY_S))
            self.delete(seqs)

    def redeliver(self, since_s: float) -> int:
        """Puts events back that were delivered, as they were.

        Args:
            since_s: epoch seconds; those put since then.

        Returns:
            How many.
        """
        with self.transaction():
            cursor = self._db.execute(
                f"INSERT OR IGNORE INTO outbox SELECT {_COLUMNS} FROM delivered WHERE wall_s >= ?",  # noqa: S608
                (since_s,),
            )
            self._db.execute("DELETE FROM delivered WHERE wall_s >= ?", (since_s,))
            self._depth += cursor.rowcount
            return cursor.rowcount

    def confirm(self, events: Iterable[tuple[int, int]]) -> list[int]:
        """Takes out of what waits the events that a consumer has stored.

        Args:
            events: (boot, seq) of each; what is not there, or no event, is left alone.

        Returns:
            The seqs that were there.
        """
        found = []
        with self.transaction():
            for boot, seq in events:
                there = self._db.execute(
                    "SELECT 1 FROM outbox WHERE seq = ? AND boot = ? AND topic LIKE 'event/%'", (seq, boot)
                ).fetchone()
                found += [seq] * (there is not None)
            self.delivered(found)
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


def _readable(name: bytes | str, payload: bytes | str) -> bool:
    """A name that may be part of a topic, and a JSON object or nothing."""
    try:
        text = name.decode() if isinstance(name, bytes) else name
        return (
            text.isprintable() and not set(text) & set("+#") and (not payload or isinstance(json.loads(payload), dict))
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False


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
