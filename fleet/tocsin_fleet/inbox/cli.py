"""`tocsin inbox`: receive, keep, show and forward the events of all devices."""

import json
import logging
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

import click
from apprise import Apprise
from rich.console import Console
from rich.live import Live

from tocsin.cli.duration import positive_seconds
from tocsin.cli.mqtt import BROKER, broker_settings, readable
from tocsin.delivery.connection import Access, Received
from tocsin.errors import ConfigError
from tocsin_fleet.inbox.inbox import Forwarder, Inbox
from tocsin_fleet.inbox.store import Store, Stored
from tocsin_fleet.inbox.table import Standing

DATABASE = "sqlite:///tocsin-inbox.db"


@click.command()
@BROKER
@click.option(
    "--database",
    "url",
    default=DATABASE,
    show_default=True,
    envvar="TOCSIN_INBOX_DATABASE",
    help="SQLite or PostgreSQL, as SQLAlchemy writes it.",
)
@click.option(
    "--notify",
    "urls",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with a URL of apprise on each line: who is told of new alarms.",
)
@click.option("--name", default="inbox", show_default=True, help="Of this inbox; each has a session at the broker.")
@click.option(
    "--since",
    "ago_s",
    callback=positive_seconds,
    metavar="AGO",
    help="Ask each device for what it delivered since so long ago: the database was lost. At most 24h.",
)
@click.option("--lines", is_flag=True, help="Print a line for each event also on a terminal, instead of the table.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as a line of JSON.")
@click.option("--list", "count", type=click.IntRange(1), metavar="N", help="Print the newest N events, and end.")
def inbox(
    path: Path | None,
    host: str | None,
    port: int | None,
    url: str,
    urls: Path | None,
    name: str,
    ago_s: float | None,
    lines: bool,
    as_json: bool,
    count: int | None,
) -> None:
    """Receive the events of all devices: keep each once, show it, tell people of new alarms.

    Each event is acknowledged to its device when it is on the disk; agents whose `mqtt.delivery` is end_to_end keep it
    until then. What comes while the inbox is away waits at the broker and at the devices. On a terminal the alarms that
    stand are a table that follows events.

    \b
    Examples:
      tocsin inbox --host broker.local
      tocsin inbox -c tocsin.yaml --database postgresql+psycopg://tocsin@db/alarms --notify /etc/tocsin/notify.txt
      tocsin inbox --host broker.local --since 24h
      tocsin inbox --list 20
    """  # fmt: skip
    store = Store(url)
    show = _as_json if as_json else _readable
    if count is not None:
        for one in store.newest(count):
            click.echo(show(one))
        return
    settings, _ = broker_settings(path, host, port)
    forwarder = None if urls is None else Forwarder(store, _sender(urls))

    standing = Standing(store.standing())
    live = None
    if sys.stdout.isatty() and not (as_json or lines):
        live = Live(standing.table(), refresh_per_second=2, console=Console())

    def new(one: Stored) -> None:
        if live is not None:
            standing.take(one)
            live.update(standing.table())
        else:
            click.echo(show(one))
        if forwarder is not None:
            forwarder.wake()

    since_s = None if ago_s is None else time.time() - ago_s
    receiver = Inbox(Access.read(settings), settings.prefix, name, store, new, forwarder is not None, since_s)

    def stop(_number: int, _frame: FrameType | None) -> None:
        receiver.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if forwarder is not None:
        forwarder.start()
    try:
        with live or nullcontext():  # what is logged stands above the table
            logging.basicConfig(level=logging.INFO, format="%(message)s")
            receiver.run()
    finally:
        if forwarder is not None:
            forwarder.stop()
        store.close()


def _readable(one: Stored) -> str:
    topic = f"{one.device}/event/{one.kind}"
    return f"{one.device} {readable(Received(topic, one.body.encode(), 1, False))}"


def _as_json(one: Stored) -> str:
    return json.dumps({"device": one.device, "kind": one.kind} | json.loads(one.body), ensure_ascii=False)


def _sender(path: Path) -> Callable[[str, str], bool]:
    """Sends by all services of a file.

    Raises:
        ConfigError: it names none, or one that apprise does not know; URLs hold secrets and are not told.
    """
    services = Apprise()
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {getattr(error, 'strerror', None) or error}") from error
    urls = [(n, line) for n, line in enumerate(lines, 1) if line and not line.startswith("#")]
    for n, url in urls:
        if not services.add(url):
            raise ConfigError(
                f"{path}:{n}: expected a URL of a service that apprise knows, such as mailto://… or tgram://…"
            )
    if not urls:
        raise ConfigError(f"{path}: expected a URL of apprise on each line, got none")
    return lambda title, text: bool(services.notify(body=text, title=title))
