"""The thread that owns every alarm."""

import json
import sqlite3
import threading

import pytest

from tocsin.alarm_desk import AlarmDesk
from tocsin.alarms.alarm import AlarmContext, AlarmState
from tocsin.alarms.commands import Answer, Command
from tocsin.alarms.lifecycle import Event, Handling
from tocsin.alarms.plan import Condition, Plan
from tocsin.delivery.outbox import Outbox
from tocsin.records import Change


def run(desk: AlarmDesk, *items: object, answers: list[Answer] | None = None) -> AlarmDesk:
    taken: list[Answer] = [] if answers is None else answers
    desk.start()
    for item in items:
        if isinstance(item, Command):
            desk.order(item, taken.append)
        else:
            desk.queue.put(item)
    desk.stop()
    return desk


def planned(outbox: Outbox, handling: Handling = Handling(), now=lambda: 1.75e9, **others: Handling) -> AlarmDesk:  # noqa: B008
    conditions = {"pump-1-model": Condition("pump-1", "model", handling)}
    conditions |= {name.replace("_", "-"): Condition("pump-1", "model", one) for name, one in others.items()}
    return AlarmDesk(outbox, "edge-1", {"pump-1": AlarmContext()}, lambda: None, plan=Plan(conditions), now=now)


def trail(outbox: Outbox) -> list[tuple[str, str, str, str, str | None]]:
    entries = [json.loads(body) for body in outbox.audit()]
    return [(e["action"], e["from"], e["to"], e["outcome"], e["by"]) for e in entries]


def messages(outbox: Outbox) -> list[tuple[str, str]]:
    rows = outbox.pending(1000)
    return [(row.topic, json.loads(row.payload).get("type", "state") if row.payload else "gone") for row in rows]


def test_a_condition_that_flaps_is_counted_and_calls_once(outbox, desk_of, transition):
    raises, clears = (transition(), transition()), (transition(Change.CLEARED), transition(Change.CLEARED))
    desk = run(desk_of(), *raises, *clears)
    topic = "alarm/pump-1-model"
    assert messages(outbox) == [
        ("event/alarm", "new"), (topic, "state"), (topic, "state"), ("event/alarm", "end"), (topic, "gone"),
    ]  # fmt: skip
    flapped = [json.loads(row.payload) for row in outbox.pending(9) if row.topic == topic and row.payload][-1]
    assert (flapped["count"], flapped["flaps"]) == (2, 1)
    assert len(outbox.audit()) == 2
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


def test_two_people_acknowledging_at_once_give_one_state_and_two_lines_in_the_audit(outbox, transition):
    answers: list[Answer] = []
    acks = [Command(Event.ACK, "pump-1-model", by) for by in ("ann", "bob")]
    desk = run(planned(outbox), transition(), *acks, answers=answers)
    assert [(a.refusal, a.states, a.changed) for a in answers] == [
        (None, {"pump-1-model": AlarmState.ACKED}, 1), (None, {"pump-1-model": AlarmState.ACKED}, 0),
    ]  # fmt: skip
    assert desk.standing_alarms()["pump-1-model"].acked_by == "ann"
    assert trail(outbox) == [
        ("raise", "normal", "unacked", "done", None),
        ("ack", "unacked", "acked", "done", "ann"),
        ("ack", "acked", "acked", "unchanged", "bob"),
    ]
    assert [topic for topic, _ in messages(outbox)].count("event/audit") == 2


def test_a_refused_command_changes_nothing_but_the_audit(outbox, transition):
    answers: list[Answer] = []
    refused = [Command(Event.SHELVE, "pump-1-model", "ann", for_s=1e9), Command(Event.ACK, "pump-9", "ann")]
    desk = run(planned(outbox), transition(), *refused, answers=answers)
    assert [answer.refusal and answer.refusal.code for answer in answers] == ["too_long", "unknown_alarm"]
    assert desk.standing_alarms()["pump-1-model"].state is AlarmState.UNACKED and desk.statistics.failed == 0
    assert trail(outbox)[1:] == [("shelve", "unacked", "unacked", "refused", "ann")]


def test_an_acknowledgement_of_an_occurrence_that_is_over_leaves_the_next_one_alone(outbox, transition):
    answers: list[Answer] = []
    desk = planned(outbox)
    run(desk, transition(), Command(Event.ACK, "pump-1-model", "ann", occurrence="01OLD"), answers=answers)
    assert answers[0].refusal is not None and answers[0].refusal.code == "over"
    assert desk.standing_alarms()["pump-1-model"].state is AlarmState.UNACKED


def test_all_that_wait_are_acknowledged_at_once(outbox, transition):
    answers: list[Answer] = []
    raised = [transition(alarm=f"pump-1-{n}") for n in range(3)]
    run(planned(outbox), *raised, Command(Event.ACK, "all", "ann"), answers=answers)
    assert answers == [Answer(None, {f"pump-1-{n}": AlarmState.ACKED for n in range(3)}, 3)]


def test_acknowledgements_holds_and_shelves_outlive_a_restart(outbox, transition):
    asked = [
        Command(Event.ACK, "pump-1-a", "ann"),
        Command(Event.SHELVE, "pump-1-b", "ann", for_s=3600.0),
        Command(Event.OUT_OF_SERVICE, "pump-1-model", "ann", comment="bearing is changed"),
    ]
    run(planned(outbox), transition(alarm="pump-1-a"), transition(alarm="pump-1-b"), *asked)
    again = planned(outbox).standing_alarms()
    assert {alarm: one.state.value for alarm, one in again.items()} == {
        "pump-1-a": "acked", "pump-1-b": "shelved", "pump-1-model": "out_of_service",
    }  # fmt: skip
    assert again["pump-1-model"].comment == "bearing is changed"
    assert planned(outbox).active_alarms() == {"pump-1-a", "pump-1-b"}


def test_a_shelf_ends_by_itself_and_an_alarm_that_is_on_calls_again(outbox, transition, until):
    now = [1.75e9]
    desk = planned(outbox, now=lambda: now[0])
    desk.start()
    desk.queue.put(transition())
    desk.order(Command(Event.SHELVE, "pump-1-model", "ann", for_s=3600.0), lambda _: None)
    until(lambda: "pump-1-model" in desk.standing_alarms() and desk.standing_alarms()["pump-1-model"].shelved_until_s)
    now[0] += 3601
    until(lambda: desk.standing_alarms()["pump-1-model"].state is AlarmState.UNACKED)
    desk.stop()
    assert trail(outbox)[-1] == ("unshelve", "shelved", "unacked", "done", None)


def test_an_alarm_suppresses_others_while_it_is_on_also_over_a_restart(outbox, transition):
    handling = Handling(suppressed_by=("pump-1-stop",))
    desk = run(planned(outbox, handling, pump_1_stop=Handling()), transition(), transition(alarm="pump-1-stop"))
    assert desk.standing_alarms()["pump-1-model"].state is AlarmState.SUPPRESSED
    again = planned(outbox, handling, pump_1_stop=Handling())
    run(again, transition(Change.CLEARED, alarm="pump-1-stop"))
    assert {alarm: one.state for alarm, one in again.standing_alarms().items()} == {"pump-1-model": AlarmState.UNACKED}


def test_suppression_that_the_settings_no_longer_know_ends_at_the_start(outbox, transition):
    suppressed = Handling(suppressed_by=("pump-1-stop",))
    run(planned(outbox, suppressed, pump_1_stop=Handling()), transition(), transition(alarm="pump-1-stop"))
    desk = run(planned(outbox, pump_1_stop=Handling()))
    assert desk.standing_alarms()["pump-1-model"].state is AlarmState.UNACKED


def test_a_mode_of_the_plant_suppresses_alarms_also_over_a_restart_and_is_none_itself(outbox, transition):
    conditions = {"pump-1-model": Condition("pump-1", "model", Handling(suppressed_by=("pump-1-stop",)))}

    def desk() -> AlarmDesk:
        plan = Plan(conditions, modes=frozenset({"pump-1-stop"}))
        return AlarmDesk(outbox, "edge-1", {"pump-1": AlarmContext()}, lambda: None, plan=plan)

    begins, ends = (transition(change, alarm="pump-1-stop") for change in (Change.RAISED, Change.CLEARED))
    first = run(desk(), begins, transition(), begins)
    assert {alarm: one.state for alarm, one in first.standing_alarms().items()} == {
        "pump-1-model": AlarmState.SUPPRESSED
    }
    assert not [topic for topic, _ in messages(outbox) if "pump-1-stop" in topic]
    again = desk()
    assert again.active_alarms() == {"pump-1-model", "pump-1-stop"}
    run(again)
    assert again.standing_alarms()["pump-1-model"].state is AlarmState.SUPPRESSED
    last = run(desk(), ends, ends)
    assert last.standing_alarms()["pump-1-model"].state is AlarmState.UNACKED
    assert last.active_alarms() == {"pump-1-model"}


def test_alarms_that_waited_for_an_acknowledgement_end_once_the_settings_ask_for_none(outbox, transition):
    desk = run(planned(outbox, Handling(auto_ack=False)), transition(), transition(Change.CLEARED))
    assert desk.standing_alarms()["pump-1-model"].state is AlarmState.RTN_UNACKED
    assert run(planned(outbox)).standing_alarms() == {}


def test_an_order_that_cannot_be_written_is_answered_and_changes_nothing(outbox, transition):
    answers: list[Answer] = []
    run(planned(outbox), transition())
    sabotage = sqlite3.connect(outbox.path)
    sabotage.execute("CREATE TRIGGER no BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END")
    desk = run(planned(outbox), Command(Event.ACK, "pump-1-model", "ann"), answers=answers)
    sabotage.close()
    assert [answer.refusal and answer.refusal.code for answer in answers] == ["failed"]
    assert planned(outbox).standing_alarms()["pump-1-model"].state is AlarmState.UNACKED
    assert desk.statistics.failed == 1


def test_a_plant_trip_of_twelve_assets_is_one_flood_event_with_all_of_them(outbox, transition, until):
    assets = [f"press-{n}" for n in range(12)]
    desk = AlarmDesk(outbox, "edge-1", dict.fromkeys(assets, AlarmContext()), lambda: None)
    desk.start()
    for n, asset in enumerate(assets):
        desk.queue.put(transition(asset=asset, alarm=f"{asset}-anomaly", time_s=1.7e9 + n / 10))
    until(lambda: any(row.topic == "event/flood" for row in outbox.pending(99)))
    desk.stop()
    (flood,) = [json.loads(row.payload) for row in outbox.pending(99) if row.topic == "event/flood"]
    assert (flood["type"], flood["count"], flood["assets"]) == ("begin", 12, assets)
    assert [one["alarm"] for one in flood["alarms"]] == [f"{asset}-anomaly" for asset in assets]
    assert all(one["text"] and one["severity"] == "major" for one in flood["alarms"])


def test_alarms_of_an_asset_that_are_on_together_have_one_group(outbox, desk_of, transition):
    desk = run(
        desk_of(),
        transition(),
        transition(alarm="pump-1-stuck"),
        transition(Change.CLEARED),
        transition(alarm="pump-1-range"),
        transition(Change.CLEARED, alarm="pump-1-stuck"),
        transition(Change.CLEARED, alarm="pump-1-range"),
        transition(),
    )
    bodies = [json.loads(row.payload)["after"] for row in outbox.pending(99) if row.topic == "event/alarm"]
    first, stuck, _, third, *_, alone = bodies
    assert first["group"] == stuck["group"] == third["group"] == first["id"]
    assert alone["group"] == alone["id"] != first["id"]
    assert desk.active_alarms() == {"pump-1-model"}
