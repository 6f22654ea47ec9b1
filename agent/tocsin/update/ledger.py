"""What the updater must not forget, in SQLite with synchronous=FULL: jobs, floors, and the latest time that was seen.

Rule: metadata of The Update Framework on the disk may be lost or zeroed; the floor of a product's release counter is
kept here, and what is below it is refused whatever the metadata say.
"""

import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tocsin.errors import TocsinError
from tocsin.update.story import Job, State

_SCHEMA = """
CREATE TABLE IF NOT EXISTS floor(product TEXT PRIMARY KEY, counter INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS job(n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, asset TEXT, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS clock(one INTEGER PRIMARY KEY CHECK (one = 1), seen_s REAL NOT NULL);
CREATE TABLE IF NOT EXISTS seen(rollout TEXT PRIMARY KEY, since_s REAL NOT NULL);
"""
_KEPT = 200  # jobs


class Ledger:
    """The file; belongs to one process.

    Args:
        path: made when missing.

    Raises:
        TocsinError: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise TocsinError(
                f"{path}: cannot be used: {error}: move it away, and release counters begin anew"
            ) from error

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def floor(self, product: str) -> int:
        """Lowest release counter that is believed."""
        with closing(self._db.execute("SELECT counter FROM floor WHERE product = ?", (product,))) as found:
            row = found.fetchone()
        return int(row[0]) if row else 0

    def raise_floor(self, product: str, counter: int) -> None:
        """Never lowers it."""
        self._db.execute(
            "INSERT INTO floor VALUES (?, ?)"
            " ON CONFLICT(product) DO UPDATE SET counter = max(counter, excluded.counter)",
            (product, counter),
        )

    def keep(self, job: Job) -> None:
        """The newest of a job; over 200 the oldest go."""
        body = json.dumps(dataclasses.asdict(job))
        self._db.execute(
            "INSERT INTO job(id, asset, body) VALUES (?, ?, ?) ON CONFLICT(id) DO UPDATE SET body = excluded.body",
            (job.id, job.asset, body),
        )
        self._db.execute("DELETE FROM job WHERE n <= (SELECT max(n) FROM job) - ?", (_KEPT,))

    def jobs(self, asset: str | None = None) -> Iterator[Job]:
        """All jobs, newest first."""
        where, values = ("", ()) if asset is None else ("WHERE asset = ?", (asset,))
        for (body,) in self._db.execute(f"SELECT body FROM job {where} ORDER BY n DESC", values).fetchall():  # noqa: S608
            form = json.loads(body)
            yield Job(**{**form, "state": State(form["state"])})

    def job(self, asset: str) -> Job | None:
        """The newest of an asset."""
        return next(self.jobs(asset), None)

    def latest(self, now_s: float) -> float:
        """The latest time ever seen, now or before, epoch seconds: a clock that was set back hides no expiry."""
        with closing(self._db.execute("SELECT seen_s FROM clock")) as found:
            row = found.fetchone()
        latest_s = max(now_s, float(row[0]) if row else 0.0)
        self._db.execute("REPLACE INTO clock VALUES (1, ?)", (latest_s,))
        return latest_s

    def seen_since(self, rollout: str, now_s: float) -> float:
        """When this device first saw that a roll-out includes it, epoch seconds."""
        self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (rollout, now_s))
        with closing(self._db.execute("SELECT since_s FROM seen WHERE rollout = ?", (rollout,))) as found:
            return float(found.fetchone()[0])
