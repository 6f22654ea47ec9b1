"""The receiving side, with agents' publishers and a real broker: every event is kept, once."""

import io
import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import create_engine

from tocsin.config import MqttSettings
from tocsin.delivery.outbox import Outbox, Priority
from tocsin.delivery.publisher import Publisher
from tocsin.delivery.wire import AgentInfo, HardwareInfo, Health, Info, rfc3339
from tocsin.errors import ConfigError
from tocsin_fleet.inbox.inbox import Forwarder, parse
from tocsin_fleet.inbox.store import EVENTS, Store, Stored, StoreError
from tocsin_fleet.inbox.table import Standing

DEVICE = "edge-1"


def body(n: int, type_: str = "new") -> bytes:
    after = {"time": rfc3339(1.7e9 + n), "alarm": f"pump-{n}-anomaly", "asset": f"pump-{n}", "severity": "major",
             "state": "unacked", "text": f"pump-{n} behaves unlike its normal running"}  # fmt: skip
    return json.dumps({"type": type_, "before": None, "after": after}).encode()


def stored(n: int, **others: Any) -> Stored:
    fields = {"device": DEVICE, "boot": 1, "seq": n, "kind": "alarm", "type": "new", "time": rfc3339(n), "alarm": "a",
              "asset": "p", "severity": "major", "text": f"text {n}", "body": "{}", "forwarded": False}  # fmt: skip
    return Stored(**(fields | others))


class Agents:
    """Publishers with an outbox each, that keep events until they are confirmed."""

    def __init__(self, folder: Path, port: int) -> None:
        self.outbox, self._port = Outbox(folder / "outbox.db"), port
        self.publisher = self._made()
        self.publisher.start()

    def _made(self) -> Publisher:
        settings = MqttSettings(host="127.0.0.1", port=self._port, delivery="end_to_end")
        info = Info(device=DEVICE, agent=AgentInfo(version="0", python="3"), hw=HardwareInfo(arch="x", cpus=1), os="t")
        healthy = Health(time=rfc3339(0), status="ok", uptime_s=0, clock_synced=True)
        return Publisher(settings, DEVICE, self.outbox, info, lambda: healthy)

    def restart(self) -> None:
        self.publisher.stop()
        self.publisher = self._made()
        self.publisher.start()

    def tell(self, numbers: range) -> None:
        for n in numbers:
            self.outbox.put("event/alarm", body(n), priority=Priority.ALARM)
            self.publisher.wake()

    def close(self) -> None:
        self.publisher.stop(1.0)
        self.outbox.close()


@pytest.fixture
def agent(broker: Any, tmp_path: Path) -> Iterator[Agents]:
    broker.start()
    made = Agents(tmp_path, broker.port)
    yield made
    made.close()


@pytest.fixture
def receive(broker: Any, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `tocsin inbox`; its database is `inbox.db`."""
    made: list[subprocess.Popen[str]] = []

    def start(*words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tocsin.cli.main", "inbox", "--host", "127.0.0.1", "--port", broker.port,
                   "--database", f"sqlite:///{tmp_path}/inbox.db", *words]  # fmt: skip
        log = (tmp_path / f"inbox-{len(made)}.log").open("w")
        made.append(subprocess.Popen(list(map(str, command)), text=True, stdout=log, stderr=log))
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.wait()


class Phone(ThreadingHTTPServer):
    """What people are told, by apprise's `json://`."""

    def __init__(self) -> None:
        self.told: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", 0), Hears)


class Hears(BaseHTTPRequestHandler):
    server: Phone

    def do_POST(self) -> None:
        self.server.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()


@pytest.fixture
def phone() -> Iterator[Phone]:
    server = Phone()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def kept(folder: Path) -> list[str]:
    if not (folder / "inbox.db").exists():
        return []
    with sqlite3.connect(folder / "inbox.db") as db:
        try:
            return [alarm for (alarm,) in db.execute("SELECT alarm FROM event ORDER BY seq")]
        except sqlite3.OperationalError:
            return []


def names(count: int, form: str = "pump-{}-anomaly") -> list[str]:
    return [form.format(n) for n in range(count)]


@pytest.mark.broker
def test_events_stay_at_the_device_until_the_inbox_has_stored_them(agent, receive, until, tmp_path) -> None:
    agent.tell(range(20))
    process = receive()
    until(lambda: kept(tmp_path) == names(20), 30)
    until(lambda: agent.outbox.depth() == 0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    agent.tell(range(20, 25))
    until(lambda: agent.publisher.statistics.acknowledged >= 5 and agent.publisher.statistics.settled)
    assert agent.outbox.depth() == 5, "the broker has them, nobody else"
    receive()
    until(lambda: kept(tmp_path) == names(25), 30)
    until(lambda: agent.outbox.depth() == 0)


@pytest.mark.broker
def test_an_inbox_whose_database_was_lost_gets_what_was_delivered_again(agent, receive, until, tmp_path) -> None:
    process = receive()
    agent.tell(range(20))
    until(lambda: kept(tmp_path) == names(20), 30)
    until(lambda: agent.outbox.depth() == 0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    for path in tmp_path.glob("inbox.db*"):
        path.unlink()
    receive("--since", "1h")
    until(lambda: kept(tmp_path) == names(20), 30)
    until(lambda: agent.outbox.depth() == 0)


@pytest.mark.broker
@pytest.mark.timeout(180)
def test_killed_brokers_inboxes_and_a_restarted_agent_lose_nothing_and_store_nothing_twice(
    agent, broker, receive, until, tmp_path
) -> None:
    rounds = int(os.environ.get("CHAOS_ROUNDS") or 3)
    process = receive()
    until(lambda: agent.publisher.statistics.connected)
    for n in range(rounds):
        agent.tell(range(30 * n, 30 * n + 15))
        broker.kill()  # what it took last is forgotten
        agent.tell(range(30 * n + 15, 30 * n + 30))
        broker.start()
        process.kill()
        process.wait()
        process = receive()
        agent.restart()
    count = 30 * rounds
    until(lambda: len(kept(tmp_path)) >= count, 60)
    until(lambda: agent.outbox.depth() == 0, 60)
    found = kept(tmp_path)
    lost, twice = set(names(count)) - set(found), len(found) - len(set(found))
    print(f"{count} events, {rounds} kills of the broker and of the inbox: {len(lost)} lost, {twice} stored twice")
    assert (lost, twice) == (set(), 0)


@pytest.mark.broker
def test_new_alarms_are_shown_listed_and_forwarded_once(agent, receive, phone, until, tmp_path) -> None:
    (tmp_path / "notify.txt").write_text(f"# who is told\njson://127.0.0.1:{phone.server_port}\n")
    agent.tell(range(2))
    process = receive("--notify", tmp_path / "notify.txt")
    until(lambda: len(kept(tmp_path)) == 2, 30)
    until(lambda: "pump-1 behaves" in (tmp_path / "inbox-0.log").read_text())
    until(lambda: len(phone.told) == 2)
    assert [one["title"] for one in phone.told] == ["major at pump-0", "major at pump-1"]
    assert "pump-1 behaves unlike its normal running" in phone.told[1]["message"]
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 0
    command = [sys.executable, "-m", "tocsin.cli.main", "inbox", "--list", "5", "--json", "--database"]
    agent.tell(range(2, 4))
    alone = receive()  # nobody is told meanwhile
    until(lambda: len(kept(tmp_path)) == 4, 30)
    alone.send_signal(signal.SIGTERM)
    assert alone.wait(15) == 0
    process = receive("--notify", tmp_path / "notify.txt")
    agent.tell(range(4, 5))
    until(lambda: len(phone.told) == 3, 30)
    assert phone.told[2]["title"] == "major at pump-4", "of old alarms nobody is told"
    listed = subprocess.run([*command, f"sqlite:///{tmp_path}/inbox.db"], capture_output=True, text=True, check=True)
    assert [json.loads(line)["after"]["asset"] for line in listed.stdout.splitlines()] == names(5, "pump-{}")


def of_alarm(n: int, type_: str, state: str, severity: str = "major", alarm: str = "a", **others: Any) -> Stored:
    after = {"state": state, "raised": rfc3339(n)}
    return stored(n, type=type_, alarm=alarm, severity=severity, body=json.dumps({"after": after}), **others)


def test_the_table_shows_what_stands_the_loudest_first(url: str) -> None:
    events = [
        of_alarm(1, "new", "unacked", alarm="a"),
        of_alarm(2, "update", "acked", "critical", alarm="b"),
        of_alarm(3, "new", "unacked", alarm="c"),
        of_alarm(4, "new", "unacked", "critical", alarm="d"),
        of_alarm(5, "end", "normal", alarm="c"),
        of_alarm(6, "new", "latched", "warning", device="edge-2", text="[red]no markup"),
        stored(7, kind="audit", type="", device="edge-3"),
    ]
    store = Store(url)
    store.add(events)
    restarted = Standing(store.standing())
    store.close()
    followed = Standing()
    for one in [*events, events[2]]:  # one comes again, late
        followed.take(one)
    assert followed.rows() == restarted.rows()
    assert [(row[0], row[1], row[2]) for row in followed.rows()] == [
        ("critical", "edge-1", "unacked"), ("major", "edge-1", "unacked"), ("warning", "edge-2", "latched"),
        ("critical", "edge-1", "acked"),
    ]  # fmt: skip
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(followed.table())
    shown = console.export_text()
    assert "4 alarms stand, 3 of them unacknowledged; 3 devices heard" in shown and "[red]no markup" in shown


@pytest.mark.broker
def test_on_a_terminal_the_inbox_shows_the_table(agent, broker, until, tmp_path) -> None:
    near, far = pty.openpty()
    command = [sys.executable, "-m", "tocsin.cli.main", "inbox", "--host", "127.0.0.1", "--port", str(broker.port),
               "--database", f"sqlite:///{tmp_path}/inbox.db"]  # fmt: skip
    process = subprocess.Popen(command, stdout=far, stderr=far, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"})
    os.close(far)
    shown = bytearray()

    def read() -> bool:
        with suppress(OSError):  # the terminal's other end is closed
            if select.select([near], [], [], 0.05)[0]:
                shown.extend(os.read(near, 65536))
        return b"2 alarms stand, 2 of them unacknowledged" in shown

    try:
        agent.tell(range(2))
        until(read, 30)
    finally:
        process.terminate()
        until(lambda: read() and process.poll() is not None, 15)
        os.close(near)
    assert process.returncode == 0


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/a.db"
    found = str(request.getfixturevalue("postgres"))
    EVENTS.drop(create_engine(found), checkfirst=True)
    return found


def test_an_event_is_kept_once_and_the_rest_of_its_batch_is_new(url: str) -> None:
    store = Store(url)
    assert store.add([stored(1), stored(2), stored(1)]) == [stored(1), stored(2)]
    assert store.add([stored(2), stored(3), stored(2, boot=2)]) == [stored(3), stored(2, boot=2)]
    assert store.newest(2) == [stored(2, boot=2), stored(3)]
    assert store.add([]) == []
    found = [stored(n, text="déjà 泵", body="{}") for n in range(10, 15)]
    assert store.add(found) == found and store.newest(5) == found
    store.forwarded(store.to_forward())
    assert store.to_forward() == []
    store.close()


def test_people_are_told_in_order_again_after_a_failure_and_of_many_in_one_list(
    tmp_path: Path, until: Callable[..., None]
) -> None:
    store, sent, works = Store(f"sqlite:///{tmp_path}/a.db"), [], [False]

    def send(title: str, text: str) -> bool:
        if works[0]:
            sent.append((title, text))
        return works[0]

    store.add([stored(1), stored(2), stored(3, forwarded=True)])
    forwarder = Forwarder(store, send, together=3)
    forwarder.start()
    works[0] = True
    until(lambda: len(sent) == 2)
    assert [text.splitlines()[0] for _, text in sent] == ["text 1", "text 2"] and sent[0][0] == "major at p"
    store.add([stored(n) for n in range(10, 22)])
    forwarder.wake()
    until(lambda: len(sent) == 3)
    assert sent[2][0] == "12 alarms" and len(sent[2][1].splitlines()) == 12
    until(lambda: store.to_forward() == [])
    forwarder.stop()
    store.close()


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"{}", b"null", b'{"boot": "1", "seq": 2, "time": "t"}', b'{"boot": 1, "seq": -1, "time": "t"}'],
)
def test_what_is_no_event_is_left_out(payload: bytes) -> None:
    assert parse("tocsin/edge-1/event/alarm", "tocsin", payload) is None


def test_an_event_is_read_by_its_topic_and_envelope() -> None:
    envelope = b'{"boot": 7, "seq": 9, '
    found = parse("acme/tocsin/edge-1/event/alarm", "acme/tocsin", envelope + body(3)[1:])
    assert found is not None and found.key == ("edge-1", 7, 9)
    assert (found.kind, found.type, found.alarm, found.forwarded) == ("alarm", "new", "pump-3-anomaly", False)
    over = parse("acme/tocsin/edge-1/event/alarm", "acme/tocsin", envelope + body(3, "end")[1:])
    assert over is not None and over.forwarded


def test_a_database_that_cannot_be_used_is_told_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open"):
        Store(f"sqlite:///{tmp_path}/none/a.db")
    for url in ("mysql://u:secret@h/d", "no url"):
        with pytest.raises(ConfigError, match="expected sqlite") as error:
            Store(url)
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("# nobody\n", "expected a URL of apprise on each line, got none"),
        (
            "json://localhost\nno-such-service://token-of-mine\n",
            "notify.txt:2: expected a URL of a service that apprise",
        ),
        (None, "cannot be read as text: No such file"),
    ],
)
def test_services_that_are_not_there_are_told_at_once_and_no_secret_is(tmp_path: Path, lines, says: str) -> None:
    path = tmp_path / "notify.txt"
    if lines is not None:
        path.write_text(lines)
    command = [sys.executable, "-m", "tocsin.cli.main", "inbox", "--notify", path, "--database", "sqlite://"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3 and says in done.stderr and "token-of-mine" not in done.stderr + done.stdout


@pytest.mark.broker
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[" * 5000,
        b"\xff" * 99,
        b'{"events": [[1]]}',
        b'{"events": [[1, 99999999999999999999999]]}',
        b'{"events": [[-1, 1]]}',
        b'{"events": "all"}',
        b'{"replay": "perhaps"}',
    ],
)
def test_an_acknowledgement_that_is_none_changes_nothing_and_ends_no_connection(
    agent, broker, consume, until, payload
) -> None:
    hears = consume(broker.port)
    agent.tell(range(3))
    until(lambda: agent.publisher.statistics.settled and agent.publisher.statistics.acknowledged >= 3)
    connects = agent.publisher.statistics.connects
    hears._client.publish(f"tocsin/{DEVICE}/ack/events", payload, 1)
    rows = agent.outbox.pending(9)
    hears._client.publish(f"tocsin/{DEVICE}/ack/events", json.dumps({"events": [[rows[0].boot, rows[0].seq]]}), 1)
    until(lambda: agent.outbox.depth() == 2)
    assert agent.publisher.statistics.connects == connects
