"""What the metrics say of facts, and what stands on their page."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tocsin.alarms.alarm import AlarmState, Severity
from tocsin.monitoring.answers import KEPT_S, Kept, alive, ready
from tocsin.monitoring.exposition import page
from tocsin.monitoring.metrics import METRICS, Facts

FORM = re.compile(r"^tocsin_[a-z0-9]+(_[a-z0-9]+)*$")
NOT_BASE = ("_ms", "_s", "_mb", "_percent", "_minutes", "_hours", "_kb", "_hz")


def served(facts: Facts) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Name → labels → figure, as Prometheus's own reader takes the page."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(page(lambda: facts)().decode()):
        for sample in family.samples:
            lines = found.setdefault(sample.name, {})
            key = tuple(sorted(sample.labels.items()))
            assert key not in lines, f"{sample.name}{sample.labels} stands twice"
            lines[key] = sample.value
    return found


def test_every_metric_has_a_line_where_every_figure_is_known(facts: Callable[..., Facts]) -> None:
    assert list(served(facts())) == [metric.name for metric in METRICS]


def test_names_are_as_prometheus_wants_them() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert [name for name in names if not FORM.match(name) or name.endswith(NOT_BASE)] == []


def test_figures_are_in_base_units(facts: Callable[..., Facts]) -> None:
    found = served(facts())
    asset, main = (("asset", "pump-1"),), (("asset", "pump-1"), ("source", "pump-1"))
    assert found["tocsin_memory_bytes"][()] == 2 * 2**20
    assert found["tocsin_inference_seconds"] == {
        (*asset, ("percentile", "50")): 0.0015,
        (*asset, ("percentile", "99")): 0.0025,
    }
    assert found["tocsin_model_quiet_seconds_total"][asset] == 1800
    assert found["tocsin_source_samples_total"][main] == 100
    assert found["tocsin_cpu_seconds_total"][()] == 3.25
    assert found["tocsin_recording_failing"][()] == 1


def test_a_state_is_one_of_all(facts: Callable[..., Facts]) -> None:
    found = served(facts())
    assert {dict(key)["status"]: figure for key, figure in found["tocsin_status"].items()} == {
        "ok": 0, "degraded": 1, "failing": 0,
    }  # fmt: skip
    states = {dict(key)["state"]: figure for key, figure in found["tocsin_asset_state"].items()}
    assert states == {"ok": 1, "off_rate": 0, "silent": 0, "failing": 0, "ended": 0}


def test_reasons_may_be_any_text(facts: Callable[..., Facts]) -> None:
    reasons = {dict(key)["reason"]: figure for key, figure in served(facts())["tocsin_source_bad_total"].items()}
    assert reasons == {"crc": 4, 'a "quote"\n': 1}


def test_what_is_not_known_has_no_line(facts: Callable[..., Facts], source: Callable[..., Any]) -> None:
    unknown = {"cpu_temp_c": None, "recording": None, "memory_mb": None}
    found = served(facts(unknown, {"pump-1": source(rate_hz=None, last_sample_age_s=None)}))
    gone = {metric.name for metric in METRICS} - set(found)
    assert gone == {
        "tocsin_cpu_temperature_celsius", "tocsin_memory_bytes", "tocsin_source_rate_hertz",
        "tocsin_source_last_sample_age_seconds",
        *(metric.name for metric in METRICS if metric.name.startswith("tocsin_recording_")),
    }  # fmt: skip


def test_sources_of_rate_groups_are_counted_once(facts: Callable[..., Facts], source: Callable[..., Any]) -> None:
    several = {"pump-1": source(samples_total=30, state="silent")} | {
        f"pump-1/{group}": source(samples_total=n) for group, n in (("main", 10), ("vibration", 20))
    }
    found = served(facts(sources=several))
    lines = found["tocsin_source_samples_total"]
    assert {dict(key)["source"]: figure for key, figure in lines.items()} == {"pump-1/main": 10, "pump-1/vibration": 20}
    assert {dict(key)["asset"] for key in lines} == {"pump-1"}
    assert found["tocsin_asset_state"][("asset", "pump-1"), ("state", "silent")] == 1


def test_alarms_that_are_on_count_by_severity_but_for_those_held_back(
    facts: Callable[..., Facts], alarm: Callable[..., Any]
) -> None:
    standing = {
        "a": alarm(),
        "b": alarm(Severity.CRITICAL),
        "c": alarm(shelved_until_s=1e12, state=AlarmState.SHELVED),
        "d": alarm(active=False, state=AlarmState.RTN_UNACKED),
        "e": alarm(state=AlarmState.ACKED),
    }
    found = served(facts(alarms=standing))
    on = {dict(key)["severity"]: n for key, n in found["tocsin_alarms_on"].items() if ("asset", "pump-1") in key}
    assert on == {"warning": 0, "minor": 0, "major": 2, "critical": 1}
    assert found["tocsin_alarms_unacked"] == {(("asset", "pump-1"),): 3, (("asset", "edge-1"),): 0}


@pytest.mark.parametrize("state", ["silent", "failing", "ended"])
def test_an_old_score_is_not_told_as_if_it_were_of_now(
    facts: Callable[..., Facts], source: Callable[..., Any], state: str
) -> None:
    assert "tocsin_score_ratio" in served(facts())
    assert "tocsin_score_ratio" not in served(facts(sources={"pump-1": source(state=state)}))


def test_no_text_of_an_error_stands_on_the_page(facts: Callable[..., Facts], source: Callable[..., Any]) -> None:
    said = "anna:hunter2@plant.example refused"
    delivery = replace(facts().delivery, last_error=said, held=(f"event/alarm: {said}",))
    told = facts(sources={"pump-1": source(last_error=said, state="failing")}, delivery=delivery)
    answers = (page(lambda: told)(), ready(told).body)
    assert not any(word in answer for answer in answers for word in (b"hunter2", b"anna", b"plant.example"))


def test_a_thread_that_ended_is_named() -> None:
    assert alive({"alarm-desk": True, "publisher": True}).status == 200
    reply = alive({"alarm-desk": True, "publisher": False})
    assert (reply.status, reply.body) == (503, b'{"status": "failing", "ended": ["publisher"]}\n')


def test_it_is_ready_when_all_is_watched_and_can_be_told(
    facts: Callable[..., Facts], source: Callable[..., Any]
) -> None:
    assert ready(facts()).status == 200
    assert ready(facts(sources={"pump-1": source(state="off_rate")})).status == 200
    told = facts(sources={"pump-1": source(state="silent")}, delivery=replace(facts().delivery, connected=False))
    reply = ready(told)
    missing = b'{"status": "waiting", "missing": {"pump-1": "silent", "mqtt": "not connected"}}\n'
    assert (reply.status, reply.body) == (503, missing)
    stuck = replace(facts().desk, waiting_for_disk=True)
    assert ready(facts(desk=stuck)).status == 503


def test_what_is_kept_is_made_anew_after_a_second() -> None:
    clock, made = [10.0], []
    kept = Kept(lambda: made.append(clock[0]) or len(made), lambda: clock[0])
    assert [kept(), kept()] == [1, 1]
    clock[0] += KEPT_S + 0.1
    assert kept() == 2


def test_what_could_not_be_made_is_tried_again() -> None:
    tries = iter([False, True])

    def make() -> str:
        if not next(tries):
            raise OSError
        return "made"

    kept = Kept(make, lambda: 0.0)
    with pytest.raises(OSError):
        kept()
    assert kept() == "made"
