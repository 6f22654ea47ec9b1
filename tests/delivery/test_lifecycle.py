"""Events → steps, by the table of states; and every sequence of events, against what must hold after each."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pydantic import TypeAdapter

from tocsin.alarms.alarm import Alarm, AlarmContext, AlarmState, ulid
from tocsin.alarms.commands import Command, Refusal, asked
from tocsin.alarms.lifecycle import BACK, EFFECTS, TABLE, Event, Handling, Happening, Kind, Step, take
from tocsin.alarms.plan import Condition, Plan
from tocsin.alarms.sentence import sentence
from tocsin.records import Change, Contribution, Transition

CONTEXT = AlarmContext(units={"pressure": "bar"})
LIMIT_S = 24 * 3600.0
HELD = (AlarmState.SHELVED, AlarmState.SUPPRESSED, AlarmState.OUT_OF_SERVICE)
N, U, A, R, L, S, D, O = AlarmState  # noqa: E741 - as in the table


def happening(event: Event, transition: Transition, **others) -> Happening:
    return Happening(event, transition.time_s, transition, CONTEXT, **others)


def stepped(alarm: Alarm | None, event: Event, transition: Transition, **others) -> Alarm:
    step = take(alarm, happening(event, transition, **others), "B")
    assert step is not None
    return step.after


def raised(transition) -> Alarm:
    step = take(None, happening(Event.RAISE, transition()), "A")
    assert step is not None
    return step.after


def test_a_raise_begins_an_occurrence_that_is_active_and_unacknowledged(transition):
    step = take(None, happening(Event.RAISE, transition()), "A")
    assert step is not None
    assert (step.kind, step.before, step.after.id, step.after.count) == (Kind.NEW, None, "A", 1)
    assert step.after.active and step.after.state is U


def test_a_raise_of_an_active_alarm_counts_and_keeps_the_occurrence(transition):
    alarm = raised(transition)
    step = take(alarm, happening(Event.RAISE, transition()), "B")
    assert step is not None
    assert (step.kind, step.after.id, step.after.count, step.after.flaps) == (Kind.UPDATE, "A", 2, 1)
    assert step.before == alarm and step.after.raised_s == alarm.raised_s


def test_a_clear_ends_the_occurrence_and_keeps_why_it_was_raised(transition):
    alarm = raised(transition)
    clear = transition(Change.CLEARED, contributions=())
    step = take(alarm, happening(Event.CLEAR, clear), "B")
    assert step is not None
    assert (step.kind, step.after.id, step.after.state) == (Kind.END, "A", N)
    assert step.after.cleared_s == clear.time_s and step.after.contributions == alarm.contributions


def test_a_clear_of_what_is_not_active_is_no_step(transition):
    assert take(None, happening(Event.CLEAR, transition(Change.CLEARED)), "A") is None
    shelved = stepped(None, Event.SHELVE, transition(), by="ann", until_s=2e9)
    assert take(shelved, happening(Event.CLEAR, transition(Change.CLEARED)), "B") is None


def test_an_alarm_of_an_asset_no_longer_watched_ends_and_says_why(transition):
    quiet = transition(Change.CLEARED)
    step = take(raised(transition), happening(Event.RETIRE, quiet), "B")
    assert step is not None
    assert step.kind is Kind.END and step.after.cleared_s == quiet.time_s and step.after.comment


@pytest.mark.parametrize(
    ("handling", "clear", "then_ack"),
    [
        (Handling(), N, None),
        (Handling(auto_ack=False), R, N),
        (Handling(latching=True), L, N),
        (Handling(auto_ack=False, latching=True), L, N),
    ],
)
def test_how_an_alarm_ends_is_as_its_handling_says(transition, handling, clear, then_ack):
    over = stepped(raised(transition), handling.clear, transition(Change.CLEARED))
    assert over.state is clear
    if then_ack is not None:
        assert stepped(over, Event.ACK, transition(), by="ann").state is then_ack


def test_a_latched_alarm_needs_an_acknowledgement_after_its_end_and_stays_latched_on_the_shelf(transition):
    acked = stepped(raised(transition), Event.ACK, transition(), by="ann")
    assert (acked.state, acked.acked_by) == (A, "ann")
    latched = stepped(acked, Event.CLEAR_LATCHING, transition(Change.CLEARED))
    assert (latched.state, latched.acked_by) == (L, None)
    shelved = stepped(latched, Event.SHELVE, transition(), by="ann", until_s=2e9)
    assert stepped(shelved, Event.UNSHELVE, transition()).state is L


def test_what_returns_while_it_waits_for_an_acknowledgement_calls_again(transition):
    waiting = stepped(raised(transition), Event.CLEAR_UNACKED, transition(Change.CLEARED))
    again = stepped(waiting, Event.RAISE, transition())
    assert (again.state, again.id, again.count, again.flaps) == (U, "A", 2, 0)


def test_the_strongest_hold_is_shown_and_a_condition_that_is_on_calls_when_the_last_goes(transition):
    alarm, seen = raised(transition), []
    for event in (
        Event.SHELVE, Event.SUPPRESSOR_ON, Event.SUPPRESS, Event.OUT_OF_SERVICE, Event.UNSHELVE,
        Event.IN_SERVICE, Event.UNSUPPRESS, Event.SUPPRESSOR_OFF,
    ):  # fmt: skip
        alarm = stepped(alarm, event, transition(), by="x", until_s=2e9)
        seen.append(alarm.state)
    assert seen == [S, D, D, O, O, D, D, U] and alarm.id == "A"


def test_what_was_shelved_before_it_was_raised_ends_with_its_shelf_and_was_never_raised(transition):
    quiet = transition(Change.CLEARED)
    shelved = stepped(None, Event.SHELVE, quiet, by="ann", until_s=2e9)
    assert (shelved.state, shelved.active, shelved.raised_s) == (S, False, None)
    assert shelved.text == "pump-1-model is shelved by ann"
    step = take(shelved, happening(Event.UNSHELVE, quiet), "B")
    assert step is not None
    assert (step.kind, step.after.state) == (Kind.END, N)


def test_the_table_has_a_cell_for_every_event_and_state_and_an_effect_for_every_event():
    assert set(TABLE) == set(EFFECTS) == set(Event)
    assert all(set(row) == set(AlarmState) for row in TABLE.values())


def test_every_state_is_reached_and_every_state_can_be_left_for_normal():
    reached = {cell for row in TABLE.values() for cell in row.values() if cell not in (None, BACK)}
    assert reached == set(AlarmState)
    for state in set(AlarmState) - {N}:
        assert TABLE[Event.RETIRE][state] is N


def test_the_clock_ends_a_shelf_and_a_clock_set_back_makes_none_longer(transition):
    plan = Plan()
    shelved = stepped(raised(transition), Event.SHELVE, transition(), by="ann", until_s=1000.0)
    assert [plan.due(shelved, now_s) for now_s in (999.0, 1000.0, 1000.0 - LIMIT_S - 2)] == [
        None, Event.UNSHELVE, Event.UNSHELVE,
    ]  # fmt: skip


def test_an_acknowledged_alarm_calls_again_after_its_time(transition):
    plan = Plan({"pump-1-model": Condition("pump-1", "model", Handling(re_alarm_s=60.0))})
    acked = replace(stepped(raised(transition), Event.ACK, transition(), by="ann"), acked_s=100.0)
    assert [plan.due(acked, 159.0), plan.due(acked, 160.0)] == [None, Event.RE_ALARM]
    assert stepped(acked, Event.RE_ALARM, transition()).state is U
    assert Plan().due(acked, 1e9) is None


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (Command(Event.SHELVE, "a", "ann"), "invalid"),
        (Command(Event.SHELVE, "a", "ann", for_s=0.0), "invalid"),
        (Command(Event.SHELVE, "a", "ann", for_s=float("nan")), "invalid"),
        (Command(Event.SHELVE, "a", "ann", for_s=LIMIT_S + 1), "too_long"),
        (Command(Event.ACK, "a", "ann", occurrence="another"), "over"),
        (Command(Event.ACK, "a", ""), "invalid"),
        (Command(Event.RAISE, "a", "ann"), "invalid"),
        (Command(Event.RETIRE, "a", "ann"), "invalid"),
    ],
)
def test_a_command_that_cannot_be_is_refused_by_name(transition, command, code):
    found = asked(command, raised(transition), Condition("pump-1", "model"), CONTEXT, LIMIT_S, 0.0)
    assert isinstance(found, Refusal) and found.code == code


def test_what_is_held_back_has_nothing_to_acknowledge(transition):
    shelved = stepped(raised(transition), Event.SHELVE, transition(), by="ann", until_s=2e9)
    found = asked(Command(Event.ACK, "a", "ann"), shelved, Condition("pump-1", "model"), CONTEXT, LIMIT_S, 0.0)
    assert isinstance(found, Refusal) and found.code == "held_back"


class AnySequence(RuleBasedStateMachine):
    """Detectors, people, timers and suppressing alarms in any order, with power cuts between them."""

    def __init__(self) -> None:
        super().__init__()
        self.alarm: Alarm | None = None
        self.handling = Handling()
        self.on = False  # what the detector said last
        self.holds: set[str] = set()  # what holds it back, counted apart
        self.number = 0
        self.time_s = 1.7e9
        self.last: Step | None = None

    def do(self, event: Event, change: Change = Change.CLEARED, **others) -> None:
        self.time_s += 1
        self.number += 1
        transition = Transition("p", "p-a", change, self.time_s, "model", 2.0, 1.0, 2.0, 0.0, 1.0, 8)
        before = self.alarm
        step = take(self.alarm, Happening(event, self.time_s, transition, CONTEXT, **others), str(self.number))
        self.last = step
        if step is None:
            return
        assert step.before == before and step.after != before
        assert (step.kind is Kind.NEW) == (before is None)
        assert (step.kind is Kind.END) == (step.after.state is N)
        assert before is None or step.after.id == before.id
        self.alarm = None if step.kind is Kind.END else step.after

    @rule(handling=st.builds(Handling, auto_ack=st.booleans(), latching=st.booleans()))
    def settings_change(self, handling):
        self.handling = handling

    @rule()
    def power_fails(self):
        if self.alarm is not None:
            kept = TypeAdapter(Alarm).dump_json(self.alarm)
            assert TypeAdapter(Alarm).validate_json(kept) == self.alarm

    @rule()
    def condition_begins(self):
        self.on = True
        self.do(Event.RAISE, Change.RAISED)
        assert self.last is not None

    @rule()
    def condition_ends(self):
        self.on = False
        self.do(self.handling.clear)

    @rule(by=st.sampled_from(["ann", "bob"]))
    def somebody_acknowledges(self, by):
        waited = self.alarm is not None and self.alarm.state in (U, R, L)
        self.do(Event.ACK, by=by)
        assert (self.last is not None) == waited
        assert self.last is None or self.last.after.acked_by == by

    @rule()
    def it_calls_again(self):
        self.do(Event.RE_ALARM)

    @rule(seconds=st.integers(1, 86400))
    def somebody_shelves(self, seconds):
        self.do(Event.SHELVE, by="ann", until_s=self.time_s + seconds)
        self.holds.add("shelf")

    @rule(by=st.sampled_from(["", "ann"]))
    def a_shelf_ends(self, by):
        self.do(Event.UNSHELVE, by=by)
        self.holds.discard("shelf")

    @rule(by=st.sampled_from(["x", "y"]))
    def an_alarm_suppresses(self, by):
        self.do(Event.SUPPRESSOR_ON, by=by)
        self.holds.add(by)

    @rule(by=st.sampled_from(["x", "y"]))
    def an_alarm_suppresses_no_more(self, by):
        self.do(Event.SUPPRESSOR_OFF, by=by)
        self.holds.discard(by)

    @rule()
    def somebody_suppresses(self):
        self.do(Event.SUPPRESS, by="ann")
        self.holds.add("suppressed")

    @rule()
    def somebody_suppresses_no_more(self):
        self.do(Event.UNSUPPRESS, by="ann")
        self.holds.discard("suppressed")

    @rule()
    def somebody_takes_it_out_of_service(self):
        self.do(Event.OUT_OF_SERVICE, by="ann")
        self.holds.add("out")

    @rule()
    def somebody_takes_it_in_service(self):
        self.do(Event.IN_SERVICE, by="ann")
        self.holds.discard("out")

    @precondition(lambda self: self.alarm is not None)
    @rule()
    def it_is_taken_out_of_the_settings(self):
        self.do(Event.RETIRE)
        self.on = False
        self.holds.clear()
        assert self.alarm is None

    @invariant()
    def no_condition_is_forgotten(self):
        assert self.on == (self.alarm is not None and self.alarm.active)

    @invariant()
    def what_is_on_is_hidden_by_a_hold_only_and_what_is_held_says_so(self):
        state = N if self.alarm is None else self.alarm.state
        if "out" in self.holds:
            assert state is O
        elif self.holds & {"x", "y", "suppressed"}:
            assert state is D
        elif self.holds:
            assert state is S
        else:
            assert state in ((U, A) if self.on else (N, R, L))

    @invariant()
    def the_record_agrees_with_its_state(self):
        alarm = self.alarm
        if alarm is None:
            return
        assert alarm.state is not N
        assert (alarm.held is not None) == (alarm.state in HELD)
        assert (alarm.acked_s is not None) == (alarm.acked_by is not None) == (alarm.state is A)
        assert (alarm.raised_s is None) == (alarm.count == 0) and alarm.flaps <= alarm.count
        assert alarm.raised_s is not None or alarm.state in HELD
        assert alarm.latched or alarm.state is not L
        assert not alarm.latched or alarm.state in (L, *HELD)
        assert alarm.active == (alarm.cleared_s is None and alarm.raised_s is not None)


AnySequence.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True)
TestAnySequence = AnySequence.TestCase


def test_the_sentence_names_three_channels_and_leaves_out_values_that_are_not_finite(transition):
    parts = (
        Contribution("flow", 0.4, float("nan"), 1.0),
        *(Contribution(f"c{n}", 0.1, 1.0, float("inf")) for n in range(5)),
    )
    said = sentence(transition(contributions=parts), CONTEXT)
    assert said == "pump-1 behaves unlike its normal running: C0 (10 %) 1, C1 (10 %) 1, C2 (10 %) 1"


def test_alarms_of_sensors_and_rules_name_channels_without_shares(transition):
    parts = tuple(Contribution(f"t_{n}", 0.2, None if n == 1 else 20.5, None) for n in range(5))
    said = sentence(transition(cause="stuck", score=None, contributions=parts), AlarmContext(units={"t_0": "°C"}))
    assert said == "pump-1 has a value that does not move: T 0 20.5 °C, T 1, T 2 20.5, 2 more"
    said = sentence(transition(cause="rule", score=None, contributions=parts[:1]), AlarmContext(rule="t_0 > 20"))
    assert said == "pump-1 breaks a rule, t_0 > 20: T 0 20.5"


@pytest.mark.parametrize(
    ("cause", "fault", "end"),
    [
        ("model", "process", "pump-1 runs as normal again"),
        ("rule", "process", "pump-1 runs as normal again"),
        ("stuck", "sensor", "pump-1 gives values that can be trusted again"),
        ("data_gap", "comms", "pump-1 gives its samples as it should again"),
        ("clock", "comms", "pump-1 gives its samples as it should again"),
    ],
)
def test_the_class_of_an_alarm_says_whose_fault_it_is_and_how_it_ends(transition, cause, fault, end):
    alarm = raised(lambda: transition(cause=cause))
    over = stepped(alarm, Event.CLEAR, transition(Change.CLEARED, cause=cause))
    assert (alarm.alarm_class, over.text) == (fault, end)


def test_a_cause_nobody_thought_of_still_has_a_sentence(transition):
    assert sentence(transition(cause="smell", contributions=()), CONTEXT) == "pump-1 is in alarm (smell)"


def test_ulids_sort_by_time_and_differ_by_randomness():
    early, late = ulid(1.0, b"\xff" * 10), ulid(1.001, bytes(10))
    assert early < late and len(early) == 26 and ulid(1.0, bytes(10)) != early
