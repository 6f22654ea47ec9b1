"""Where events are kept: SQLite or PostgreSQL, by a URL of SQLAlchemy.

Rules: an event has one key, (device, boot, seq); a second one of that key changes nothing. What `add` has returned is
on the disk.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    func,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from tocsin.errors import ConfigError, TocsinError

_INSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_META = MetaData()
EVENTS = Table(
    "event",
    _META,
    Column("device", String(64), primary_key=True),
    Column("boot", BigInteger, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("type", String(16), nullable=False),
    Column("time", String(32), nullable=False, index=True),
    Column("alarm", String(64)),
    Column("asset", String(64)),
    Column("severity", String(16)),
    Column("text", Text),
    Column("body", Text, nullable=False),
    Column("forwarded", Boolean, nullable=False, index=True),
)
_KEY = (EVENTS.c.device, EVENTS.c.boot, EVENTS.c.seq)


class StoreError(TocsinError):
    """The database cannot be used."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An event, as it is kept.

    Attributes:
        device: id.
        boot: epoch of the agent's start; with `device` and `seq` the key.
        seq: number of the message.
        kind: `alarm`, `audit`, `flood`: the last level of its topic.
        type: `new`, `update`, `end`, `begin`, or empty.
        time: RFC 3339.
        alarm: id, or None.
        asset: id, or None.
        severity: or None.
        text: the operator's sentence, or None.
        body: the whole message, JSON.
        forwarded: nobody has to be told of it any more.
    """

    device: str
    boot: int
    seq: int
    kind: str
    type: str
    time: str
    alarm: str | None
    asset: str | None
    severity: str | None
    text: str | None
    body: str
    forwarded: bool

    @property
    def key(self) -> tuple[str, int, int]:
        """What no two events have in common."""
        return self.device, self.boot, self.seq


class Store:
    """The table of events.

    Args:
        url: as SQLAlchemy writes it: `sqlite:///inbox.db`, `postgresql+psycopg://user@host/name`.

    Raises:
        ConfigError: no such URL, or another kind of database.
        StoreError: it cannot be reached or written.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = create_engine(url, pool_pre_ping=True)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise ConfigError(
                f"database: expected sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME: {error}"
            ) from error
        if self._engine.dialect.name not in _INSERTS:
            raise ConfigError(f"database: expected sqlite or postgresql, got {self._engine.dialect.name}")
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _durable)
        with _told(self._engine):
            _META.create_all(self._engine)

    def add(self, events: Sequence[Stored]) -> list[Stored]:
        """Keeps events; those that were not there before, in their order.

        Raises:
            StoreError: none of them is kept.
        """
        if not events:
            return []
        insert: Any = _INSERTS[self._engine.dialect.name](EVENTS)
        with _told(self._engine), self._engine.begin() as connection:
            rows = connection.execute(
                insert.on_conflict_do_nothing().returning(*_KEY), [asdict(one) for one in events]
            ).all()
        new, fresh = {tuple(row) for row in rows}, []
        for one in events:
            if one.key in new:
                new.discard(one.key)
                fresh.append(one)
        return fresh

    def to_forward(self, limit: int = 100) -> list[Stored]:
        """Events that somebody has to be told of, oldest first."""
        query = select(EVENTS).where(EVENTS.c.forwarded.is_(False)).order_by(EVENTS.c.time, *_KEY).limit(limit)
        return self._read(query)

    def forwarded(self, events: Sequence[Stored]) -> None:
        """Somebody was told of them."""
        keys = [one.key for one in events]
        with _told(self._engine), self._engine.begin() as connection:
            connection.execute(EVENTS.update().where(tuple_(*_KEY).in_(keys)).values(forwarded=True))

    def newest(self, limit: int) -> list[Stored]:
        """The newest events by their time, oldest of them first."""
        query = select(EVENTS).order_by(EVENTS.c.time.desc(), EVENTS.c.boot.desc(), EVENTS.c.seq.desc()).limit(limit)
        return self._read(query)[::-1]

    def standing(self) -> list[Stored]:
        """The newest event of each alarm, where that is not its end."""
        newest = func.row_number().over(
            partition_by=(EVENTS.c.device, EVENTS.c.alarm), order_by=(EVENTS.c.boot.desc(), EVENTS.c.seq.desc())
        )
        each = select(EVENTS, newest.label("nth")).where(EVENTS.c.kind == "alarm").subquery()
        query = select(*(each.c[column.name] for column in EVENTS.c)).where(each.c.nth == 1, each.c.type != "end")
        return self._read(query)

    def _read(self, query: Any) -> list[Stored]:
        with _told(self._engine), self._engine.connect() as connection:
            return [Stored(**row) for row in connection.execute(query).mappings()]

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()


def _durable(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


@contextmanager
def _told(engine: Engine) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        where = engine.url.render_as_string(hide_password=True)
        cause = getattr(error, "orig", None) or error
        raise StoreError(f"{where}: {cause}") from error
