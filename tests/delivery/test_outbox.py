"""Messages on disk."""

import sqlite3
import threading
import time

import pytest

from tocsin.delivery.outbox import REPLAY_S, Outbox, Priority


def test_messages_come_back_in_order_after_a_restart_under_a_higher_boot(tmp_path):
    with Outbox(tmp_path / "o.db") as first:
        seqs = [first.put("event/alarm", b'{"n":%d}' % n) for n in range(3)]
        boot = first.boot
    with Outbox(tmp_path / "o.db") as second:
        rows = second.pending(10)
        assert [row.seq for row in rows] == seqs and {row.boot for row in rows} == {boot}
        assert second.boot == boot + 1 and second.depth() == 3


def test_a_seq_is_never_used_again_even_when_the_outbox_ran_empty(outbox):
    seq = outbox.put("event/alarm", b"{}")
    outbox.delete([seq])
    assert outbox.put("event/alarm", b"{}") > seq


def test_after_an_exception_nothing_of_the_transaction_is_there(outbox):
    outbox.put("event/alarm", b"{}")
    with pytest.raises(RuntimeError), outbox.transaction():
        outbox.put("event/alarm", b"{}")
        outbox.keep_alarm("a", b"{}")
        raise RuntimeError
    assert (outbox.depth(), len(outbox.pending(10)), outbox.alarms()) == (1, 1, {})


def test_a_full_outbox_drops_the_lowest_priority_first_and_the_oldest_of_it(tmp_path):
    with Outbox(tmp_path / "o.db", max_rows=4) as outbox:
        for n, priority in enumerate(
            (Priority.ALARM, Priority.TELEMETRY, Priority.TELEMETRY, Priority.EVENT, Priority.ALARM, Priority.ALARM)
        ):
            outbox.put(f"t/{n}", b"{}", priority=priority)
        assert [row.topic for row in outbox.pending(10)] == ["t/0", "t/3", "t/4", "t/5"]
        outbox.put("t/6", b"{}", priority=Priority.ALARM)
        outbox.put("t/7", b"{}", priority=Priority.ALARM)
        assert [row.topic for row in outbox.pending(10)] == ["t/4", "t/5", "t/6", "t/7"]
        assert outbox.dropped == 4
    with Outbox(tmp_path / "o.db") as again:
        assert again.dropped == 4


def test_the_file_stays_within_its_bound_and_drops_what_was_delivered_first_then_the_least_important(tmp_path):
    path = tmp_path / "o.db"
    with Outbox(path, max_mb=2) as outbox:
        first = [outbox.put("event/alarm", b"d" * 900, priority=Priority.ALARM) for _ in range(500)]
        outbox.delivered(first)
        for _ in range(500):
            outbox.put("event/source", b"e" * 900)
        assert outbox.dropped == 0
        alarms = [outbox.put("event/alarm", b"a" * 900, priority=Priority.ALARM) for _ in range(1500)]
        kept = [row for row in outbox.pending(10_000) if row.topic == "event/source"]
        assert outbox.redeliver(0.0) == 0, "delivered ones went first"
        assert len(kept) < 500 and outbox.dropped > 0
        last = [row.seq for row in outbox.pending(10_000) if row.priority == Priority.ALARM]
        assert last == alarms[len(alarms) - len(last) :] and (len(last) == 1500 or not kept)
        assert outbox.depth() == len(outbox.pending(10_000)) == len(kept) + len(last)
        outbox.delete(last)
        outbox.put("event/alarm", b"{}")
    assert path.stat().st_size <= 2 << 20


def test_what_was_delivered_can_be_had_again_as_it_was_for_a_day(outbox, monkeypatch):
    begin_s = time.time()
    old, state, young = (outbox.put(topic, b"{}") for topic in ("event/a", "alarm/a", "event/b"))
    rows = outbox.pending(10)
    outbox.delivered([old, state, young])
    assert outbox.depth() == 0 and outbox.redeliver(time.time() + 1) == 0
    assert outbox.redeliver(begin_s) == 2 and outbox.redeliver(begin_s) == 0
    assert outbox.pending(10) == [rows[0], rows[2]] and outbox.depth() == 2
    outbox.delivered([old])
    monkeypatch.setattr("tocsin.delivery.outbox.time.time", lambda: begin_s + REPLAY_S + 60)
    outbox.delivered([young])
    assert outbox.redeliver(0.0) == 0


@pytest.mark.parametrize("damage", ["garbage", "zeroed page", "truncated", "foreign", "newer format"])
def test_a_damaged_file_is_set_aside_and_no_boot_comes_twice(tmp_path, damage):
    path = tmp_path / "o.db"
    with Outbox(path) as outbox:
        for _ in range(200):
            outbox.put("event/alarm", b"x" * 500)
        boot = outbox.boot
    content = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(b"\xde\xad" * 5000)
    elif damage == "zeroed page":
        path.write_bytes(content[:8192] + bytes(16384) + content[24576:])
    elif damage == "truncated":
        path.write_bytes(content[:20000])
    else:
        if damage == "foreign":
            path.unlink()
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE outbox(a)" if damage == "foreign" else "PRAGMA user_version=99")
        db.close()
    with Outbox(path) as outbox:
        assert outbox.set_aside is not None and outbox.set_aside.is_file()
        assert outbox.depth() == 0 and outbox.boot > boot
        outbox.put("event/alarm", b"{}")
    with Outbox(path) as outbox:
        assert outbox.set_aside is None and outbox.depth() == 1


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(OSError, match="its folder must exist"):
        Outbox(tmp_path / "no" / "o.db")


def test_a_file_in_use_is_never_set_aside(tmp_path, monkeypatch):
    path = tmp_path / "o.db"
    Outbox(path).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("tocsin.delivery.outbox._BUSY_S", 0.05)
    with pytest.raises(OSError, match="for one agent"):
        Outbox(path)
    holder.close()
    assert [found.name for found in tmp_path.iterdir() if "damaged" in found.name] == []


def test_the_newest_retained_payload_of_a_topic_can_be_said_again(outbox):
    for payload in (b'{"n":1}', b'{"n":2}'):
        outbox.put("alarm/a", payload, retain=True)
    assert outbox.say_again() == 0
    outbox.delete([row.seq for row in outbox.pending(10)])
    assert outbox.say_again() == 1
    assert [(row.topic, row.payload, row.retain) for row in outbox.pending(10)] == [("alarm/a", b'{"n":2}', True)]


def test_the_age_is_that_of_the_oldest_message(outbox):
    assert outbox.oldest_age() == 0
    outbox.put("event/alarm", b"{}")
    assert 0 <= outbox.oldest_age() < 5


def test_writers_and_a_reader_in_threads_lose_nothing(outbox):
    def write():
        for _ in range(30):
            with outbox.transaction():
                outbox.put("event/alarm", b"{}")
                outbox.put("alarm/a", b"{}", retain=True)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads) or outbox.depth():
        rows = outbox.pending(20)
        seen |= {row.seq for row in rows}
        outbox.delete([row.seq for row in rows])
    assert len(seen) == 120
