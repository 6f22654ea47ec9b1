"""Figures are the reference's where there is one, and what the words say where there is none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.records import Bools
from tocsin_trainer.metrics import (
    NO_PERIOD,
    always_on,
    baseline_figures,
    best_f1,
    event_figures,
    label_figures,
    point_figures,
    random_scores,
    rank_figures,
    runs,
    vus_pr,
    window_length,
)

REFERENCE: dict[str, Any] = json.loads(Path(__file__).with_name("tsb_ad_reference.json").read_text(encoding="utf-8"))


def flags(text: str) -> Bools:
    """`.` is false, anything else true."""
    return np.array([mark != "." for mark in text], np.bool_)


def seconds(rows: int, step: float = 10.0) -> Any:
    return 1.7e9 + step * np.arange(rows)


@pytest.mark.parametrize("case", REFERENCE["vus_pr"], ids=lambda case: case["name"])
def test_vus_pr_equals_the_reference(case: dict[str, Any]) -> None:
    label = np.zeros(len(case["score"]), np.bool_)
    for start, stop in case["events"]:
        label[start:stop] = True
    assert vus_pr(label, np.array(case["score"]), case["window"]) == pytest.approx(case["vus_pr"], abs=1e-9)


@pytest.mark.parametrize("case", REFERENCE["length"], ids=lambda case: f"{case['kind']} {case['period']}")
def test_window_length_equals_the_reference(case: dict[str, Any]) -> None:
    t = np.arange(case["rows"])
    series = t / case["rows"] if case["kind"] == "ramp" else np.sin(2 * np.pi * t / case["period"])
    assert window_length(series) == case["length"]


@pytest.mark.parametrize("series", [[], [1.0], [1.0, 2.0, 1.0], [3.0] * 500])
def test_a_series_without_a_period_gets_the_default_window(series: list[float]) -> None:
    assert window_length(np.array(series)) == NO_PERIOD


def test_vus_pr_equals_tsb_ad_where_it_is_installed() -> None:
    curve = pytest.importorskip("TSB_AD.evaluation.basic_metrics").generate_curve
    rng = np.random.default_rng(5)
    for _ in range(20):
        rows, window = int(rng.integers(20, 800)), int(rng.integers(0, 60))
        label = np.repeat(rng.random(rows // 10 + 1) < 0.2, 10)[:rows]
        label[:2] = False, True
        score = np.round(rng.random(rows) + 0.5 * label, int(rng.integers(1, 6)))
        theirs = float(curve(label.astype(int), score, window, "opt", 250)[-1])
        assert vus_pr(label, score, window) == pytest.approx(theirs, abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_vus_pr_needs_only_the_order_of_the_scores(seed: int, window: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.random(100) < 0.3
    label[:2] = False, True
    score = rng.integers(0, 30, 100).astype(float)
    figure = vus_pr(label, score, window)
    assert 0 <= figure <= 1
    assert figure == pytest.approx(vus_pr(label, score**3 + 7, window), abs=1e-12)


@pytest.mark.parametrize("label", ["....", "xxxx"])
def test_the_surface_needs_both_kinds_of_row(label: str) -> None:
    with pytest.raises(ValueError, match="labelled and unlabelled"):
        vus_pr(flags(label), np.arange(4.0), 2)


def test_point_figures_count_rows_without_adjustment() -> None:
    label, over = flags("..xxxx...."), flags("x....x....")
    assert point_figures(label, over) == {"f1": 2 / 6, "precision": 0.5, "recall": 0.25, "far": 1 / 6, "mar": 0.75}


def test_undefined_figures_are_left_out() -> None:
    nothing = np.zeros(0, np.bool_)
    assert point_figures(nothing, nothing) == {}
    assert point_figures(flags("...."), flags("....")) == {"far": 0.0}
    assert point_figures(flags("...."), flags("x...")) == {"precision": 0.0, "far": 0.25}
    assert point_figures(flags("xxxx"), flags("....")) == {"f1": 0.0, "recall": 0.0, "mar": 1.0}
    assert rank_figures(flags("...."), np.arange(4.0)) == {}
    assert rank_figures(flags("xxxx"), np.arange(4.0)) == {}
    assert rank_figures(nothing, np.zeros(0)) == {}
    assert best_f1(flags("...."), np.arange(4.0)) is None
    assert baseline_figures(flags("...."), seconds(4), 0) == {}


def test_an_event_is_found_by_any_row_inside_and_only_by_those() -> None:
    label = flags(".xxx...xxx....xx.")
    over_ = flags("x..x..x...xx.....")
    figures = event_figures(label, over_, seconds(17))
    assert (figures["events"], figures["found"], figures["missed"]) == (3, 1, 2)
    assert figures["event_recall"] == pytest.approx(1 / 3)


def test_a_false_event_touches_no_label() -> None:
    label = flags("....xxx.....")
    over_ = flags("xx.xx..xx..x")
    assert event_figures(label, over_, seconds(12))["false_events"] == 3


def test_the_delay_is_the_median_over_found_events_in_rows_and_seconds() -> None:
    label = flags("xxxx..xxxx..xxxx..xx")
    over_ = flags("x.....xxxx.....x....")
    figures = event_figures(label, over_, seconds(20, 0.5))
    assert (figures["found"], figures["delay_rows"], figures["delay_s"]) == (3, 0.0, 0.0)
    figures = event_figures(label, flags(".x......xx.....x...."), seconds(20, 0.5))
    assert (figures["delay_rows"], figures["delay_s"]) == (2.0, 1.0)


def test_false_events_a_day_count_unlabelled_running_without_gaps() -> None:
    label, over = flags("..x....."), flags("x...x.x.")
    time_s = seconds(8, 3600.0)
    time_s[5:] += 30 * 86400  # a month without data is no month without false alarms
    assert event_figures(label, over, time_s)["false_events_per_day"] == pytest.approx(3 / 7 * 24)


def test_event_figures_without_events_or_rows_are_counts_only() -> None:
    quiet = event_figures(flags("...."), flags("...."), seconds(4))
    assert quiet == {"events": 0, "found": 0, "missed": 0, "false_events": 0, "false_events_per_day": 0.0}
    all_labelled = event_figures(flags("xxxx"), flags("...."), seconds(4))
    assert all_labelled == {"events": 1, "found": 0, "missed": 1, "false_events": 0, "event_recall": 0.0}
    nothing = event_figures(flags(""), flags(""), seconds(0))
    assert nothing == {"events": 0, "found": 0, "missed": 0, "false_events": 0}


@given(st.lists(st.booleans(), max_size=60), st.lists(st.booleans(), max_size=60))
def test_event_counts_agree_with_a_plain_loop(a: list[bool], b: list[bool]) -> None:
    rows = min(len(a), len(b))
    label, over = np.array(a[:rows], np.bool_), np.array(b[:rows], np.bool_)
    found = sum(bool(over[i:j].any()) for i, j in zip(*runs(label), strict=True))
    false = sum(not label[i:j].any() for i, j in zip(*runs(over), strict=True))
    figures = event_figures(label, over, seconds(rows))
    assert (figures["found"], figures["false_events"]) == (found, false)


def test_the_baselines_show_what_knowing_nothing_gives() -> None:
    label = flags("." * 700 + "x" * 300)
    figures = baseline_figures(label, seconds(1000), seed=3, window=20)
    assert figures["always-on"]["f1"] == pytest.approx(2 * 0.3 / 1.3)
    assert figures["always-on"]["far"] == 1.0
    assert figures["random"]["roc_auc"] == pytest.approx(0.5, abs=0.06)
    assert always_on(label).all()
    assert np.array_equal(random_scores(label, 3), random_scores(label, 3))


def test_the_oracle_is_never_below_the_limit_that_ships() -> None:
    rng = np.random.default_rng(8)
    label = np.repeat(rng.random(40) < 0.3, 10)
    score = rng.random(400) + 0.4 * label
    figures = label_figures(label, score, 0.9, seconds(400), window=10)
    oracle = best_f1(label, score)
    assert oracle is not None
    assert oracle >= figures["f1"]
    assert set(figures) > {"vus_pr", "average_precision", "roc_auc", "f1", "far", "mar", "events", "false_events"}


def test_a_row_at_the_limit_is_over_it() -> None:
    assert label_figures(flags(".x"), np.array([0.0, 1.0]), 1.0, seconds(2))["recall"] == 1.0


def test_all_figures_are_finite_plain_numbers() -> None:
    figures = label_figures(flags("..xx.."), np.arange(6.0), 3.0, seconds(6), window=3)
    assert all(type(value) in {int, float} and np.isfinite(value) for value in figures.values())
