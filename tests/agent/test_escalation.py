"""Severity by ratio and duration."""

import json
from pathlib import Path

import numpy as np
import pytest

from tocsin.alarm_desk import AlarmDesk
from tocsin.alarms.alarm import AlarmContext, Severity
from tocsin.alarms.commands import Command
from tocsin.alarms.escalation import Escalation, Step
from tocsin.alarms.lifecycle import Event
from tocsin.alarms.plan import Condition, Plan
from tocsin.delivery.outbox import Outbox
from tocsin.records import Change, Transition

GROWS = Step(Severity.CRITICAL, ratio=3, for_s=20)
STANDS = Step(Severity.MAJOR, for_s=100)


def raised(time_s: float, change: Change = Change.RAISED) -> Transition:
    return Transition("p", "p-anomaly", change, time_s, "model", 2.0, 1.0, 2.0, time_s, time_s, 1)


def told(escalation: Escalation, begin: int, ratios: list[float], *own: Transition) -> list[tuple[float, str, str]]:
    times = begin + 10.0 * np.arange(len(ratios))
    took = escalation.take(times, np.array(ratios), own, "p", "p-anomaly")
    return [(one.time_s, one.change.value, str(one.severity)) for one in took]


def test_a_step_holds_when_its_ratio_lasts_and_is_left_when_it_was_below_as_long() -> None:
    escalation = Escalation((GROWS,), Severity.MINOR)
    assert told(escalation, 0, [2, 4, 4, 2, 4, 4], raised(10)) == [(10, "raised", "minor")], "never twenty seconds"
    assert told(escalation, 60, [4, 4]) == [(60, "stepped", "critical")]
    assert told(escalation, 80, [2, 4, 2, 2, 2]) == [(120, "stepped", "minor")]


def test_the_most_severe_step_that_holds_counts_and_a_raise_carries_it() -> None:
    escalation = Escalation((GROWS, STANDS), Severity.WARNING)
    assert told(escalation, 0, [5] * 12, raised(20)) == [(20, "raised", "critical")]
    assert told(escalation, 120, [2] * 3) == [(140, "stepped", "major")]


def test_blocks_may_be_cut_anywhere_and_values_that_are_not_finite_change_nothing() -> None:
    ratios = [float(x) for x in np.random.default_rng(1).uniform(0, 6, 200).repeat(3)]
    whole, cut = Escalation((GROWS, STANDS), Severity.MINOR), Escalation((GROWS, STANDS), Severity.MINOR)
    parts = [each for n in range(0, 600, 7) for each in told(cut, 10 * n, ratios[n : n + 7])]
    assert told(whole, 0, ratios) == parts and len(parts) > 4
    quiet = Escalation((GROWS,), Severity.MINOR)
    assert told(quiet, 0, [4, float("nan"), 4]) == [(20, "stepped", "critical")]


def test_without_steps_transitions_are_as_they_were() -> None:
    took = Escalation((), Severity.MINOR).take(np.array([1.0]), np.array([9.0]), (raised(1),), "p", "p-anomaly")
    assert list(took) == [raised(1)]


@pytest.mark.parametrize(("to", "state"), [("critical", "unacked"), ("minor", "acked")])
def test_an_acknowledged_alarm_calls_again_when_it_grows_and_not_when_it_shrinks(
    tmp_path: Path, to: str, state: str
) -> None:
    step = Transition("p", "p-anomaly", Change.STEPPED, 9.0, "model", None, None, 3.5, 9, 9, 0, (), to)
    with Outbox(tmp_path / "outbox.db") as outbox:
        plan = Plan({"p-anomaly": Condition("p", "model")})
        desk = AlarmDesk(outbox, "edge-1", {"p": AlarmContext()}, lambda: None, plan=plan, now=lambda: 5.0)
        desk.start()
        desk.queue.put(step)  # of nothing that stands
        desk.queue.put(raised(1))
        desk.order(Command(Event.ACK, "p-anomaly", "ann"), lambda _: None)
        desk.queue.put(step)
        desk.stop()
        last = [json.loads(row.payload) for row in outbox.pending(99) if row.topic == "event/alarm"][-1]["after"]
        assert (last["severity"], last["state"], last["ratio"], last["score"]) == (to, state, 3.5, 3.5)
        assert last["count"] == 1 and (last["acked_by"] is None) == (state == "unacked")
        restored = AlarmDesk(outbox, "edge-1", {"p": AlarmContext()}, lambda: None)
        assert restored.standing_alarms()["p-anomaly"].severity == to
