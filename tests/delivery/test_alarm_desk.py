"""The thread that owns every alarm."""

import json
import sqlite3
import threading

import pytest

from tocsin.alarm_desk import AlarmDesk
from tocsin.alarms.alarm import AlarmContext
from tocsin.delivery.outbox import Outbox
from tocsin.records import Change


def run(desk: AlarmDesk, *items: object) -> AlarmDesk:
    desk.start()
    for item in items:
        desk.queue.put(item)
    desk.stop()
    return desk


def messages(outbox: Outbox) -> list[tuple[str, str]]:
    rows = outbox.pending(1000)
    return [(row.topic, json.loads(row.payload).get("type", "state") if row.payload else "gone") for row in rows]


def test_raise_raise_clear_clear_is_new_update_end_in_order(outbox, desk_of, transition):
    raises, clears = (transition(), transition()), (transition(Change.CLEARED), transition(Change.CLEARED))
    desk = run(desk_of(), *raises, *clears)
    topic = "alarm/pump-1-model"
    assert messages(outbox) == [
        ("event/alarm", "new"), (topic, "state"), ("event/alarm", "update"), (topic, "state"),
        ("event/alarm", "end"), (topic, "gone"),
    ]  # fmt: skip
    assert desk.active_alarms() == frozenset() and outbox.alarms() == {}
    assert (desk.statistics.raised, desk.statistics.cleared, desk.statistics.failed) == (1, 1, 0)


def test_active_alarms_outlive_a_restart_and_keep_their_occurrence(outbox, desk_of, transition):
    run(desk_of(), transition())
    restarted = desk_of()
    assert restarted.active_alarms() == {"pump-1-model"}
    run(restarted, transition(Change.CLEARED))
    events = [json.loads(row.payload) for row in outbox.pending(9) if row.topic == "event/alarm"]
    assert [event["type"] for event in events] == ["new", "end"]
    assert events[0]["after"]["id"] == events[1]["after"]["id"]
    assert events[1]["before"] == events[0]["after"]


def test_the_publisher_is_woken_after_each_commit(outbox, desk_of, transition):
    depths = []
    run(desk_of(wake=lambda: depths.append(outbox.depth())), transition(), transition(alarm="pump-1-stale"))
    assert depths == [2, 4]


def test_an_item_that_cannot_be_applied_does_not_stop_the_next(outbox, desk_of, transition):
    desk = run(desk_of(), transition(window_rows=-1), transition())
    assert desk.statistics.failed == 1 and desk.active_alarms() == {"pump-1-model"}


@pytest.mark.parametrize("time_s", [1.7e15, -1e300, float("nan")])
def test_an_alarm_whose_time_no_calendar_holds_is_told_all_the_same(outbox, desk_of, transition, time_s):
    desk = run(desk_of(), transition(time_s=time_s, window_end_s=time_s))
    assert desk.statistics.failed == 0
    assert messages(outbox) == [("event/alarm", "new"), ("alarm/pump-1-model", "state")]


def test_state_and_messages_are_committed_together_or_not_at_all(outbox, desk_of, transition):
    sabotage = sqlite3.connect(outbox.path)
    sabotage.execute("CREATE TRIGGER no BEFORE INSERT ON latest BEGIN SELECT RAISE(ABORT, 'no'); END")
    desk = run(desk_of(), transition())
    assert desk.active_alarms() == frozenset() and outbox.alarms() == {} and outbox.depth() == 0
    assert desk.statistics.failed == 1
    sabotage.close()


def test_a_disk_that_is_full_for_a_while_is_waited_for(outbox, desk_of, transition, until):
    woken = threading.Event()
    desk = desk_of(wake=woken.set)
    with outbox.transaction():
        (pages,) = outbox._db.execute("PRAGMA page_count").fetchone()
    outbox._db.execute(f"PRAGMA max_page_count={pages}")
    desk.start()
    for n in range(20):
        desk.queue.put(transition(alarm=f"pump-1-{n}"))
    until(lambda: desk.statistics.waiting_for_disk)
    outbox._db.execute("PRAGMA max_page_count=1000000")
    until(lambda: len(desk.active_alarms()) == 20)
    desk.stop()
    assert desk.statistics.failed == 0 and outbox.depth() == 40


def test_a_database_error_of_any_kind_is_waited_for(outbox, desk_of, transition, until):
    sabotage = sqlite3.connect(outbox.path, isolation_level=None)
    sabotage.execute("CREATE TRIGGER no BEFORE INSERT ON latest BEGIN SELECT RAISE(ABORT, 'no'); END")
    desk = desk_of()
    desk.start()
    desk.queue.put(transition())
    until(lambda: desk.statistics.waiting_for_disk)
    assert desk.active_alarms() == frozenset() and desk.statistics.failed == 0
    sabotage.execute("DROP TRIGGER no")
    sabotage.close()
    until(lambda: desk.active_alarms() == {"pump-1-model"})
    desk.stop()
    assert desk.statistics.failed == 0 and not desk.statistics.waiting_for_disk and outbox.depth() == 2


def test_an_alarm_of_an_asset_taken_out_of_the_configuration_ends_at_start(outbox, desk_of, transition):
    run(desk_of(), transition())
    desk = run(AlarmDesk(outbox, "edge-1", {}, lambda: None))
    assert desk.active_alarms() == frozenset()
    assert messages(outbox)[-2:] == [("event/alarm", "end"), ("alarm/pump-1-model", "gone")]


def test_an_alarm_of_a_rule_has_a_context_of_its_own_and_ends_with_its_rule(outbox, desk_of, transition):
    contexts, unscored = {"pump-1": AlarmContext()}, transition(cause="rule", alarm="pump-1-dry", score=None)
    of_rule = {"pump-1-dry": AlarmContext(detector="rules", advice="Vent.")}
    desk = run(AlarmDesk(outbox, "edge-1", contexts, lambda: None, of_alarms=of_rule), unscored)
    again = run(AlarmDesk(outbox, "edge-1", contexts, lambda: None, of_alarms=of_rule))
    assert desk.active_alarms() == again.active_alarms() == {"pump-1-dry"} and again.statistics.failed == 0
    state = json.loads(outbox.alarms()["pump-1-dry"])
    assert (state["context"]["detector"], state["context"]["advice"]) == ("rules", "Vent.")
    gone = run(AlarmDesk(outbox, "edge-1", contexts, lambda: None))
    assert gone.active_alarms() == frozenset()


def test_a_stored_alarm_that_cannot_be_read_is_forgotten_and_its_state_withdrawn(outbox, desk_of):
    outbox.keep_alarm("pump-1-model", b"not json")
    desk = desk_of()
    assert desk.active_alarms() == frozenset() and desk.statistics.failed == 1
    assert messages(outbox) == [("alarm/pump-1-model", "gone")]


def test_an_alarm_goes_out_though_nothing_can_be_kept_of_what_was_recorded(outbox, transition):
    def broken(_asset, _time_s):
        raise OSError("no such disk")

    desk = run(AlarmDesk(outbox, "edge-1", {"pump-1": AlarmContext()}, lambda: None, snapshot=broken), transition())
    assert desk.active_alarms() == {"pump-1-model"} and desk.statistics.failed == 0
