"""Limits from scores of normal running, and what they promise of false alarms."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import false_alarms

from tocsin.alarms.detector import AlarmDetector, AlarmRule
from tocsin.errors import ConfigError
from tocsin.records import Change, Floats, Scores
from tocsin_trainer.budget import budget, episodes, memory, on_level
from tocsin_trainer.calibrate import ThresholdRule, calibrate

RULE = AlarmRule()
WEEKLY = ThresholdRule("budget", false_alarms=1 / 168)


def normal(hours: float, seed: int = 0) -> Floats:
    """A score a minute."""
    return false_alarms.KINDS["calm"](np.random.default_rng(seed), int(hours * 60))


def stretch(values: Floats, mode: Floats | None = None) -> Scores:
    return Scores(values, values, values[:, None], None if mode is None else mode.astype(np.int64))


def raised(course: Floats, limit: float, rule: AlarmRule = RULE) -> int:
    return sum(change is Change.RAISED for _, change in AlarmDetector(rule).update(course / limit)[1])


@pytest.mark.parametrize("rule", [RULE, AlarmRule(1, 1, 1, 1.0), AlarmRule(2, 7, 3, 0.5)])
def test_episodes_are_those_of_the_detector_over_the_whole_course(rule: AlarmRule) -> None:
    course = normal(100)
    for level in np.quantile(course, (0.5, 0.9, 0.99, 0.999)):
        found = episodes((course,), float(level), rule, (on_level(course, rule),))
        assert len(found) == raised(course, float(level), rule)


def test_an_episodes_peak_is_the_highest_limit_that_still_raises_it() -> None:
    course = np.full(200, 0.1)
    course[50:60] = [1, 2, 5, 9, 3, 4, 2, 1, 1, 1]
    found = episodes((course,), 1.0, RULE, (on_level(course, RULE),))
    assert found.peak.tolist() == [4.0]  # 3 of 5: 5, 9 and 4
    assert raised(course, 4.0) == 1 and raised(course, 4.01) == 0


def test_the_memory_of_an_autoregression_is_twice_its_time_constant() -> None:
    course = false_alarms.wandering(np.random.default_rng(0), 60_000, 20.0)
    assert memory((course,)) == pytest.approx(40, rel=0.2)
    assert memory((course[:30_000], course[30_000:])) == pytest.approx(40, rel=0.25)


def test_the_limit_raises_as_many_alarms_in_the_recording_as_were_asked_for_where_it_shows_enough() -> None:
    course = normal(1000)
    found = budget((course,), 60.0, 1 / 24, RULE)
    assert raised(course, found.limit) == found.promise.episodes == pytest.approx(1000 / 24, rel=0.3)
    assert not found.promise.refused and found.promise.needed_hours == found.promise.hours == 1000


def test_fewer_false_alarms_need_a_higher_limit() -> None:
    course = normal(200)
    limits = [budget((course,), 60.0, rate, RULE).limit for rate in (1 / 12, 1 / 24, 1 / 168, 1 / 730)]
    assert limits == sorted(limits) and limits[-1] < 4 * limits[0]


def test_a_recording_that_is_too_short_is_told_so_and_how_long_it_should_be() -> None:
    promise = budget((normal(6),), 60.0, 1 / 168, RULE).promise
    assert promise.refused and promise.needed_hours > 24
    assert promise.low < promise.asked < promise.high == promise.promised
    assert "cannot be promised" in promise.sentence()


def test_rarer_than_a_hundred_recordings_is_not_extrapolated() -> None:
    promise = budget((normal(6),), 60.0, 1 / 8766, RULE).promise
    assert promise.expected == pytest.approx(1 / 600, rel=0.1) and promise.refused


def test_a_recording_whose_quarters_differ_promises_less_sharply() -> None:
    steady = normal(400)
    drifting = steady * np.repeat([0.8, 1.3, 1.0, 0.9], len(steady) // 4)
    one, other = (budget((course,), 60.0, 1 / 24, RULE).promise for course in (steady, drifting))
    assert other.high / other.low > 1.5 * one.high / one.low


def test_the_same_seed_gives_the_same_promise() -> None:
    one, two = (calibrate((stretch(normal(48)),), 60.0, WEEKLY, RULE, smoothing=5, seed=3) for _ in range(2))
    assert one.threshold == two.threshold


@pytest.mark.parametrize(
    ("hours", "per_hour", "needed"), [(300, 1 / 12, 14 * 24), (400, 1 / 168, 3 * 168), (700, 1 / 730.5, 3 * 730.5)]
)
def test_a_promise_needs_two_weeks_and_time_for_three_of_the_asked_alarms(
    hours: float, per_hour: float, needed: float
) -> None:
    promise = budget((normal(hours),), 60.0, per_hour, RULE).promise
    assert promise.refused and promise.needed_hours >= needed


def test_a_load_that_stays_for_days_needs_a_longer_recording_than_one_that_changes_within_hours() -> None:
    rng = np.random.default_rng(0)
    fast, slow = (false_alarms.scores(rng, 600 * 60, 0.3, drift_h) for drift_h in (1.0, 48.0))
    one, other = (budget((course,), 60.0, 1 / 24, RULE).promise for course in (fast, slow))
    assert not one.refused
    assert other.refused and other.needed_hours > 3 * 600


@pytest.mark.parametrize("seed", [1, 2])
def test_episodes_that_a_higher_limit_splits_are_counted_as_the_detector_would(seed: int) -> None:
    """A machine whose loud times have valleys; as if each stayed one episode, 56 and 58 would come out."""
    course = false_alarms.KINDS["channels"](np.random.default_rng(seed), 60_000)
    course = false_alarms.smoothed(course, false_alarms.SPAN, 2.0 * float(np.median(course)))
    found = budget((course,), 60.0, 1 / 24, RULE)
    assert raised(course, found.limit) == found.promise.episodes == pytest.approx(1000 / 24, rel=0.15)


@pytest.fixture(scope="module")
def promises() -> Floats:
    """Of three kinds of normal running, eight recordings of three weeks each, against half a year of use."""
    return np.concatenate([false_alarms.row(kind, 504.0, "1/day", 8, 4_000) for kind in ("calm", "bursts", "slow")])


def test_nine_promises_in_ten_hold(promises: Floats) -> None:
    """`benchmarks/false_alarms.py` plays fifty recordings of each kind and of several lengths."""
    assert false_alarms.holds(promises)


def test_the_interval_says_something(promises: Floats) -> None:
    width, refused, ratio = promises[:, 1], promises[:, 2], promises[:, 3]
    assert np.median(width[refused == 0]) < 10
    assert refused[:16].mean() < 0.5 < refused[16:].mean()  # that of a load that drifts over days
    assert 0.5 < np.median(ratio) < 2


def modal(hours: float, loud: float = 8.0, seed: int = 0) -> Scores:
    """Every two hours the machine changes to a mode in which it scores eight times as high, with a heavier tail."""
    values = normal(hours, seed)
    mode = (np.arange(len(values)) // 120) % 2
    return stretch(np.where(mode == 1, loud * values**1.3, values), mode)


@pytest.mark.parametrize("rule", [ThresholdRule(), ThresholdRule("quantile"), ThresholdRule("pot", q=0.9999), WEEKLY])
@pytest.mark.parametrize("smoothing", [1, 9])
def test_each_mode_gets_a_limit_of_its_own(rule: ThresholdRule, smoothing: int) -> None:
    scores = modal(300)
    found = calibrate((scores,), 60.0, rule, RULE, smoothing=smoothing, modes=2)
    quiet, loud = found.threshold.limits
    assert 5 < loud / quiet < 20 and found.threshold.value == loud
    assert raised(found.courses[0], found.threshold.value) <= 8
    alone = calibrate((replace(scores, mode=None),), 60.0, rule, RULE, smoothing=smoothing).threshold
    assert alone.limits == () and alone.value > 3 * quiet


def test_with_modes_the_budget_holds_for_all_of_them_together() -> None:
    rule = ThresholdRule("budget", false_alarms=1 / 24)
    found = calibrate((modal(600),), 60.0, rule, RULE, smoothing=5, modes=2)
    assert found.promise is not None
    assert raised(found.courses[0], found.threshold.value) == pytest.approx(25, abs=10)


def test_a_mode_that_calibration_hardly_saw_gets_the_largest_limit_and_is_named() -> None:
    scores = modal(100)
    scores.mode[:5] = 2
    found = calibrate((scores,), 60.0, ThresholdRule(), RULE, modes=4)
    assert found.threshold.limits[2] == found.threshold.limits[3] == found.threshold.value == found.threshold.limits[1]
    assert "mode 2, 3" in found.notes[-1]


def test_one_mode_and_no_smoothing_give_the_rules_own_limit() -> None:
    course = normal(50)
    for rule in (ThresholdRule(), ThresholdRule("quantile"), ThresholdRule("pot"), ThresholdRule("fixed", value=3.0)):
        assert calibrate((stretch(course),), 60.0, rule, RULE).threshold == rule.limit(course)


def test_scores_of_zero_and_of_infinity_do_not_stop_a_calibration() -> None:
    course = normal(50)
    course[:100], course[500] = 0.0, np.inf
    for rule in (WEEKLY, ThresholdRule("pot")):
        assert 0 < calibrate((stretch(course),), 60.0, rule, RULE, smoothing=5).threshold.value < np.inf
    assert calibrate((stretch(np.zeros(50)),), 60.0, WEEKLY, RULE).threshold.value > 0


def test_a_budget_without_a_rate_is_refused() -> None:
    with pytest.raises(ConfigError, match="--false-alarms 1/week"):
        calibrate((stretch(normal(2)),), 60.0, ThresholdRule("budget"), RULE)
