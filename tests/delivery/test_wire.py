"""Payloads, as consumers read them."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tocsin.alarms.alarm import AlarmContext
from tocsin.alarms.lifecycle import Event, Happening, take
from tocsin.delivery.told import alarm_body, alarm_change
from tocsin.delivery.wire import AlarmEvent, AlarmMessage, Envelope, Score, rfc3339, stamp
from tocsin.records import Change, Contribution, Transition

CONTEXT = AlarmContext(model_name="pump-1", model_version="1.0.0", model_digest="ab", advice="Look at the filter.")
ENVELOPE = Envelope(boot=7, seq=41, replayed=True)
KEYS = {
    "schema", "id", "seq", "boot", "alarm", "asset", "detector", "time", "raised", "cleared", "acked_at", "acked_by",
    "text", "state", "active", "acked", "shelved", "suppressed", "severity", "severity_code", "score", "threshold",
    "ratio", "count", "flaps", "window", "model", "contributions", "class", "cause", "advice", "snapshot", "comment",
    "time_quality", "replayed", "group",
}  # fmt: skip


def step_of(transition, **others):
    return raised(transition(**others))


def raised(transition):
    step = take(None, Happening(Event.RAISE, transition.time_s, transition, CONTEXT), "01J")
    assert step is not None
    return step


def test_a_retained_alarm_has_every_key_of_the_api_and_reads_back(transition):
    sent = stamp(alarm_body(step_of(transition).after, "ntp").encode(), ENVELOPE)
    assert set(json.loads(sent)) == KEYS
    message = AlarmMessage.model_validate_json(sent)
    assert (message.seq, message.replayed, message.severity_code, message.class_) == (41, True, 650, "process")
    assert message.text.startswith("pump-1 behaves unlike its normal running: Pressure (54 %) 2.31 where 5.02")


def test_an_event_tells_before_and_after_and_carries_its_envelope_at_the_top(transition):
    first = step_of(transition)
    over = transition(Change.CLEARED)
    second = take(first.after, Happening(Event.CLEAR, over.time_s, over, CONTEXT), "unused")
    assert second is not None
    new = AlarmEvent.model_validate_json(stamp(alarm_change(first, "ntp").encode(), ENVELOPE))
    end = AlarmEvent.model_validate_json(stamp(alarm_change(second, "ntp").encode(), ENVELOPE))
    assert (new.type, new.before, new.after.active) == ("new", None, True)
    assert (end.type, end.before, end.after.state) == ("end", new.after, "normal")


def test_an_empty_payload_stays_empty():
    assert stamp(b"", ENVELOPE) == b""


wild = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.tuples(wild, wild, st.none() | wild), max_size=12), wild, wild)
def test_whatever_was_measured_the_payload_is_valid_json_of_finite_numbers(parts, score, ratio):
    contributions = tuple(Contribution(f"c{n}", *part) for n, part in enumerate(parts))
    made = Transition("a", "a-model", Change.RAISED, 0.0, "model", score, 1.0, ratio, 0.0, 1.0, 8, contributions)
    step = raised(made)
    sent = stamp(alarm_body(step.after, "unsynced").encode(), ENVELOPE)
    form = json.loads(sent, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    AlarmMessage.model_validate(form, strict=False)
    assert len(form["contributions"]) <= 8


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8))
def test_shares_never_sum_to_more_than_one(weights):
    parts = tuple(Contribution(f"c{n}", w / math.fsum(weights), 0.0, None) for n, w in enumerate(weights))
    made = Transition("a", "a-model", Change.RAISED, 0.0, "model", 2.0, 1.0, 2.0, 0.0, 1.0, 8, parts)
    step = raised(made)
    assert math.fsum(part.share for part in alarm_body(step.after, "ntp").contributions) <= 1


def test_a_score_that_is_not_finite_is_refused():
    values = {"time": rfc3339(0), "threshold": 1, "ratio": 1, "anomaly": 0, "inference_ms": 1, "seq": 0}
    assert json.loads(Score(score=1.0, **values).encode())["quality"] == 192
    with pytest.raises(ValidationError, match="finite"):
        Score(score=math.nan, **values)


def test_times_have_milliseconds_and_end_in_z():
    assert rfc3339(1741529159.25) == "2025-03-09T14:05:59.250Z" and rfc3339(0) == "1970-01-01T00:00:00.000Z"
