"""Transitions → steps, and what they say."""

import pytest

from tocsin.alarms.lifecycle import Alarm, AlarmContext, AlarmState, Kind, apply, retire, sentence, ulid
from tocsin.records import Change, Contribution

CONTEXT = AlarmContext(units={"pressure": "bar"})


def raised(transition) -> Alarm:
    step = apply(None, transition(), CONTEXT, "A")
    assert step is not None
    return step.after


def test_a_raise_begins_an_occurrence_that_is_active_and_unacknowledged(transition):
    step = apply(None, transition(), CONTEXT, "A")
    assert step is not None
    assert (step.kind, step.before, step.after.id, step.after.count) == (Kind.NEW, None, "A", 1)
    assert step.after.active and step.after.state is AlarmState.UNACKED


def test_a_raise_of_an_active_alarm_counts_and_keeps_the_occurrence(transition):
    alarm = raised(transition)
    step = apply(alarm, transition(), CONTEXT, "B")
    assert step is not None
    assert (step.kind, step.after.id, step.after.count) == (Kind.UPDATE, "A", 2)
    assert step.before == alarm and step.after.raised_s == alarm.raised_s


def test_a_clear_ends_the_occurrence_and_keeps_why_it_was_raised(transition):
    alarm = raised(transition)
    clear = transition(Change.CLEARED, contributions=())
    step = apply(alarm, clear, CONTEXT, "B")
    assert step is not None
    assert (step.kind, step.after.id, step.after.state) == (Kind.END, "A", AlarmState.NORMAL)
    assert step.after.cleared_s == clear.time_s and step.after.contributions == alarm.contributions


def test_a_clear_of_what_is_not_active_is_no_step(transition):
    assert apply(None, transition(Change.CLEARED), CONTEXT, "A") is None


def test_an_alarm_of_an_asset_no_longer_watched_ends_and_says_why(transition):
    step = retire(raised(transition), 2e9)
    assert step.kind is Kind.END and step.after.cleared_s == 2e9 and step.after.comment


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
    step = apply(alarm, transition(Change.CLEARED, cause=cause), CONTEXT, "B")
    assert (alarm.alarm_class, step.after.text) == (fault, end)


def test_a_cause_nobody_thought_of_still_has_a_sentence(transition):
    assert sentence(transition(cause="smell", contributions=()), CONTEXT) == "pump-1 is in alarm (smell)"


def test_ulids_sort_by_time_and_differ_by_randomness():
    early, late = ulid(1.0, b"\xff" * 10), ulid(1.001, bytes(10))
    assert early < late and len(early) == 26 and ulid(1.0, bytes(10)) != early
