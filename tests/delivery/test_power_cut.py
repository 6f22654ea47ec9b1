"""The power goes while the outbox writes: what was committed is there, and nothing by halves.

A VFS of APSW records each write and each sync that SQLite makes for the outbox. A power cut at any of them leaves on
the disk what was synced, and of the writes since then any part, torn where sectors end. Each such disk is opened as an
agent does at its start. `synchronous=NORMAL` is the control: there committed rows have to be lost, or this test shows
nothing.
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import apsw
import pytest

from tocsin.delivery import outbox as module
from tocsin.delivery.outbox import Outbox, Priority

CUTS = int(os.environ.get("CHAOS_CUTS") or 150)
TRANSACTIONS = 60
SECTOR = 512

Op = tuple[str, str, int, bytes]  # write, truncate, sync or delete; file, offset or size, data
State = tuple[tuple[tuple[int, str], ...], tuple[tuple[str, bytes], ...]]


class File(apsw.VFSFile):
    """A file whose writes and syncs are recorded."""

    log: ClassVar[list[Op]] = []

    def __init__(self, base: str, name: Any, flags: list[int]) -> None:
        super().__init__(base, name, flags)
        self._name = Path(name.filename() if isinstance(name, apsw.URIFilename) else str(name)).name

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self.log.append(("write", self._name, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        super().xTruncate(size)
        self.log.append(("truncate", self._name, size, b""))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self.log.append(("sync", self._name, 0, b""))


class Disk(apsw.VFS):
    """Opens recorded files."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> File:
        return File("", name, flags)

    def xDelete(self, name: str, syncdir: bool) -> None:
        super().xDelete(name, syncdir)
        File.log.append(("delete", Path(name).name, 0, b""))


class Rows(list[Any]):
    """What `sqlite3` gives for a statement."""

    def __init__(self, rows: Sequence[Any], rowcount: int, lastrowid: int) -> None:
        super().__init__(rows)
        self.rowcount, self.lastrowid = rowcount, lastrowid

    def fetchone(self) -> Any:
        return self[0] if self else None

    def fetchall(self) -> list[Any]:
        return self


class Connection:
    """As much of `sqlite3.Connection` as the outbox uses, on a recorded disk."""

    def __init__(self, path: Path, *, synchronous: str, **_: object) -> None:
        self._db, self._synchronous = apsw.Connection(str(path), vfs="recorded"), synchronous
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")  # the log's index in memory: a VFS of APSW shares none

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        rows = list(self._db.execute(sql.replace("synchronous=FULL", f"synchronous={self._synchronous}"), values))
        return Rows(rows, self._db.changes(), self._db.last_insert_rowid())

    def executemany(self, sql: str, values: Sequence[Sequence[Any]]) -> Rows:
        return Rows([], sum(self.execute(sql, each).rowcount for each in values), 0)

    def executescript(self, sql: str) -> None:
        self._db.execute(sql)

    def create_function(self, name: str, arguments: int, function: Callable[..., Any], **_: object) -> None:
        self._db.create_scalar_function(name, function, arguments, deterministic=True)

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def close(self) -> None:
        self._db.close()


def state_of(outbox: Outbox) -> State:
    rows = tuple((row.seq, row.topic) for row in outbox.pending(100_000))
    return rows, tuple(sorted(outbox.alarms().items()))


def work(outbox: Outbox, dice: random.Random) -> Iterator[State]:
    """Transactions as the desk and the publisher make them; the state after each."""
    for n in range(TRANSACTIONS):
        if n % 4 == 3:
            waiting = [row.seq for row in outbox.pending(50)]
            outbox.delivered(dice.sample(waiting, len(waiting) // 2))
        else:
            alarm = f"pump-{dice.randrange(5)}"
            body = b'{"body":"%s"}' % dice.randbytes(dice.randrange(100, 1500)).hex().encode()
            with outbox.transaction():
                outbox.keep_alarm(alarm, None if dice.random() < 0.3 else body)
                outbox.put("event/alarm", body, priority=Priority.ALARM)
                outbox.put(f"alarm/{alarm}", body, retain=True, priority=Priority.ALARM)
        yield state_of(outbox)


def recorded(
    folder: Path, synchronous: str, dice: random.Random, patch: pytest.MonkeyPatch
) -> tuple[list[Op], list[tuple[int, State]]]:
    """What was written, and the state that was committed when so much of it was."""
    File.log = []
    vfs = Disk("recorded")
    connect: Callable[..., Any] = lambda path, **others: Connection(path, synchronous=synchronous, **others)  # noqa: E731
    with patch.context() as patched:
        patched.setattr(module.sqlite3, "connect", connect)
        patched.setattr(module.sqlite3, "DatabaseError", apsw.Error)
        with Outbox(folder / "outbox.db") as outbox:
            states = [(len(File.log), state_of(outbox))]
            states += [(len(File.log), state) for state in work(outbox, dice)]
    vfs.unregister()
    return File.log, states


def torn(dice: random.Random, offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """What of a write reached the disk: any of its sectors."""
    if dice.random() < 0.5:
        yield offset, data
        return
    for at in range(0, len(data), SECTOR):
        if dice.random() < 0.5:
            yield offset + at, data[at : at + SECTOR]


def apply(image: bytearray, what: str, offset: int, data: bytes) -> None:
    if what == "truncate":
        del image[offset:]
    else:
        image.extend(bytes(max(0, offset + len(data) - len(image))))
        image[offset : offset + len(data)] = data


def disks(log: list[Op], cuts: list[int], dice: random.Random) -> Iterator[tuple[int, dict[str, bytes]]]:
    """At each cut: what the files hold."""
    synced: dict[str, bytearray] = {}
    since: dict[str, list[Op]] = {}
    done = 0
    for cut in cuts:
        for op in log[done:cut]:
            what, name, _, _ = op
            if what == "delete":
                synced.pop(name, None)
                since.pop(name, None)
                continue
            since.setdefault(name, []).append(op)
            if what == "sync":
                for was, _, offset, data in since.pop(name):
                    if was != "sync":
                        apply(synced.setdefault(name, bytearray()), was, offset, data)
        done = cut
        files = {name: bytearray(image) for name, image in synced.items()}
        for name, ops in since.items():
            image = files.setdefault(name, bytearray())
            kept = (
                ops[: dice.randrange(len(ops) + 1)] if dice.random() < 0.5 else [o for o in ops if dice.random() < 0.5]
            )
            for was, _, offset, data in kept:
                for at, part in torn(dice, offset, data) if was == "write" else [(offset, b"")]:
                    apply(image, was, at, part)
        yield cut, {name: bytes(image) for name, image in files.items()}


def campaign(tmp_path: Path, synchronous: str, count: int, patch: pytest.MonkeyPatch) -> dict[str, int]:
    """Cuts of the power, and what they cost."""
    found = {"cuts": 0, "damaged": 0, "lost": 0, "by halves": 0}
    seed = 0
    while found["cuts"] < count:
        dice = random.Random(seed)
        folder = tmp_path / f"{synchronous}-{seed}"
        folder.mkdir()
        log, states = recorded(folder, synchronous, dice, patch)
        begin = states[0][0]  # an agent's first start, before anything was said, is made anew
        cuts = sorted(dice.randint(begin, len(log)) for _ in range(min(count - found["cuts"], 500)))
        disk = folder / "disk"
        disk.mkdir()
        for cut, files in disks(log, cuts, dice):
            for path in disk.iterdir():
                path.unlink()
            for name, content in files.items():
                if not name.endswith("-shm"):
                    (disk / name).write_bytes(content)
            told = max(n for n, (at, _) in enumerate(states) if at <= cut)
            allowed = [state for _, state in states[told : told + 2]]  # the next one may have got there, whole
            with Outbox(disk / "outbox.db") as outbox:
                state = state_of(outbox)
                found["damaged"] += outbox.set_aside is not None
            if state not in allowed:
                found["lost" if state in [one for _, one in states[:told]] else "by halves"] += 1
            found["cuts"] += 1
        seed += 1
    print(f"synchronous={synchronous}: {found}")
    return found


@pytest.mark.timeout(3600)
def test_no_cut_of_the_power_damages_the_outbox_or_takes_what_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = campaign(tmp_path, "FULL", CUTS, monkeypatch)
    assert found == {"cuts": CUTS, "damaged": 0, "lost": 0, "by halves": 0}


def test_with_less_syncs_committed_rows_are_lost_so_that_the_test_above_can_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = campaign(tmp_path, "NORMAL", min(CUTS, 500), monkeypatch)
    assert found["lost"] > found["cuts"] / 10 and found["by halves"] == 0
