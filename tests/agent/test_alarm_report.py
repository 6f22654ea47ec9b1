"""Figures of an alarm system, against counts by hand; and the command, on an agent's own trail and on events."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin.alarm_desk import AlarmDesk
from tocsin.alarms.alarm import AlarmContext
from tocsin.alarms.commands import Command
from tocsin.alarms.lifecycle import Event, Handling
from tocsin.alarms.plan import Condition, Plan
from tocsin.alarms.report import Figures, Mark, figures
from tocsin.cli.report_page import page
from tocsin.delivery.outbox import Outbox
from tocsin.records import Change, Transition

DAY_S = 86_400.0


def mark(time_s: float, what: str, alarm: str = "pump-anomaly", occurrence: str = "A", **others: Any) -> Mark:
    fields = {"device": "edge-1", "severity": "major", "calls": what == "calls", "acked": what == "acked",
              "ended": what == "ended"}  # fmt: skip
    return Mark(time_s, alarm=alarm, occurrence=occurrence, **(fields | others))


def of(*marks: Mark, since_s: float = 0, until_s: float = DAY_S) -> Figures:
    return figures(marks, since_s, until_s)


def test_alarms_are_counted_in_ten_minutes_and_by_alarm() -> None:
    marks = [mark(60 * n, "calls", f"a-{n % 3}", str(n), severity=("minor", "critical")[n % 2]) for n in range(20)]
    found = of(*marks)
    assert (found.calls, len(found.per_interval), found.per_interval[:3]) == (20, 144, (10, 10, 0))
    assert found.mean == pytest.approx(20 / 144) and found.most == 10 and found.flooded == 0
    assert [(bad.alarm, bad.count) for bad in found.worst] == [("edge-1/a-0", 7), ("edge-1/a-1", 7), ("edge-1/a-2", 6)]
    assert sum(bad.share for bad in found.worst) == pytest.approx(1)
    assert found.severities == {"critical": 10, "major": 0, "minor": 10, "warning": 0}
    assert found.verdict.startswith("manageable")


def test_a_flood_is_a_share_of_the_time() -> None:
    found = of(*(mark(n, "calls", f"a-{n}") for n in range(11)), until_s=6000)
    assert (found.most, found.flooded) == (11, 0.1) and found.verdict.startswith("overloaded")


def test_chattering_is_three_calls_within_a_minute() -> None:
    often = [mark(t, "calls", "often") for t in (0, 29, 58)]
    rarely = [mark(t, "calls", "rarely") for t in (0, 30, 60, 90)]
    assert of(*often).chattering == (("edge-1/often", 3),)
    assert of(*rarely).chattering == ()


def test_what_stands_is_known_from_before_the_period_and_is_stale_after_a_day() -> None:
    marks = [mark(-2 * DAY_S, "calls", "old"), mark(-DAY_S / 2, "calls", "over"), mark(10, "ended", "over"),
             mark(DAY_S - 60, "calls", "young")]  # fmt: skip
    found = of(*marks)
    assert (found.calls, found.standing) == (1, 2)
    assert found.stale == (("edge-1/old", pytest.approx(72)),)


def test_time_to_acknowledge_is_from_the_call_of_that_occurrence() -> None:
    marks = [mark(0, "calls", occurrence="A"), mark(10, "acked", occurrence="A"),
             mark(100, "calls", occurrence="B"), mark(400, "acked", occurrence="B"),
             mark(500, "calls", occurrence="C"), mark(500, "acked", occurrence="D")]  # fmt: skip
    found = of(*marks)
    assert (found.acked, found.ack_mean_s, found.ack_median_s) == (2, 155, 155)
    assert of().ack_mean_s is None


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.sampled_from(["calls", "acked", "ended"])), max_size=40))
def test_any_marks_give_figures_that_agree(drawn: list[tuple[float, str]]) -> None:
    found = of(*(mark(time_s, what) for time_s, what in drawn), since_s=-5e5, until_s=5e5)
    assert found.calls == sum(found.per_interval) == sum(found.severities.values())
    assert found.standing in (0, 1) and found.acked <= found.calls
    assert page(found).startswith("<!doctype html>")


def test_the_page_needs_no_network_and_shows_names_as_text() -> None:
    made = page(of(mark(1, "calls", "<script>alert(1)</script>")))
    assert "<script" not in made and "&lt;script&gt;" in made
    assert not re.findall(r"(?:src|href)\s*=", made) and "@import" not in made and "url(" not in made


def report(*words: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tocsin.cli.main", "alarms", "report", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, input=text)


@pytest.fixture
def state(tmp_path: Path) -> tuple[Path, str]:
    """A configuration whose agent had two alarms, one acknowledged; and the events that it told."""
    names, answers = ("pump-1-anomaly", "pump-1-stuck"), []
    plan = Plan({name: Condition("pump-1", "model", Handling(auto_ack=False)) for name in names})
    begin = time.time() - 3600
    with Outbox(tmp_path / "outbox.db") as outbox:
        desk = AlarmDesk(outbox, "edge-1", {"pump-1": AlarmContext()}, lambda: None, plan=plan, now=lambda: begin + 90)
        desk.start()
        for n, name in enumerate(names):
            at = begin + n
            desk.queue.put(Transition("pump-1", name, Change.RAISED, at, "model", 2, 1, 2, at, at, 1))
        desk.order(Command(Event.ACK, names[0], "ann"), answers.append)
        desk.stop()
        rows = [row for row in outbox.pending(99) if row.topic == "event/alarm"]
    bodies = [json.loads(row.payload) | {"boot": row.boot, "seq": row.seq} for row in rows]
    lines = [json.dumps({"topic": "a/edge-1/event/alarm", "payload": body}) for body in [*bodies, bodies[0]]]
    config = tmp_path / "tocsin.yaml"
    config.write_text(
        f"version: 1\ndevice: edge-1\nstate_dir: {tmp_path}\n"
        "assets: [{id: pump-1, bundle: a.tocsin, source: {type: synthetic, channels: [a], rate_hz: 1}}]\n"
    )
    return config, "\n".join(lines)


def test_the_agents_trail_and_its_events_give_the_same_figures(state: tuple[Path, str], tmp_path: Path) -> None:
    config, events = state
    (tmp_path / "events.jsonl").write_text(events)
    given = [report("-c", config, "--json"), report("--events", tmp_path / "events.jsonl", "--json")]
    given.append(report("--events", "-", "--json", text=events))
    assert [done.returncode for done in given] == [0, 0, 0], given[0].stderr + given[1].stderr
    trail, told, piped = (json.loads(done.stdout) for done in given)
    for form in (trail, told, piped):
        assert (form["calls"], form["standing"], form["acked"], form["severities"]["major"]) == (2, 2, 1, 2)
        assert form["ack_mean_s"] == pytest.approx(90, abs=0.01)
    shown = report("-c", config, "--html", tmp_path / "report.html")
    assert shown.returncode == 0 and "edge-1/pump-1-stuck" in (tmp_path / "report.html").read_text()
    assert "2 alarms, manageable" in report("-c", config).stdout


def test_mistakes_are_told_with_what_was_expected(state: tuple[Path, str], tmp_path: Path) -> None:
    config, _ = state
    assert "give --config" in report().stderr
    assert "expected 12h, 7d" in report("-c", config, "--since", "yesterday").stderr
    assert "--since before --until" in report("-c", config, "--since", "1h", "--until", "2h").stderr
    assert "the newest change is of" in report("-c", config, "--since", "9d", "--until", "8d").stderr
    broken = report("--events", "-", text='{"topic": 1}\n')
    assert broken.returncode == 4 and "line 1: expected JSON as `tocsin mqtt sub --json`" in broken.stderr
    (tmp_path / "outbox.db").unlink()
    gone = report("-c", config)
    assert gone.returncode == 1 and "is it an agent's outbox.db" in gone.stderr
