import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin.alarms.detector import AlarmDetector, AlarmRule
from tocsin.errors import BundleError
from tocsin.records import Change


def run(ratio, rule=None, active=False):
    return AlarmDetector(rule or AlarmRule(), active).update(np.asarray(ratio, float))


def test_three_of_five_windows_over_the_limit_raise():
    state, changes = run([0.5, 1.2, 0.9, 1.0, 0.9, 1.1])
    assert changes == [(5, Change.RAISED)]
    assert state.tolist() == [False] * 5 + [True]


def test_two_of_five_do_not():
    _, changes = run([1.2, 0.9, 1.2, 0.9, 0.9, 0.9, 1.2, 0.9, 0.9])
    assert changes == []


def test_a_score_between_clear_ratio_and_limit_keeps_the_alarm():
    _, changes = run([2, 2, 2] + [0.9] * 50)
    assert changes == [(2, Change.RAISED)]


def test_five_quiet_windows_in_a_row_clear():
    _, changes = run([2, 2, 2, 0.5, 0.5, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert changes == [(2, Change.RAISED), (10, Change.CLEARED)]


def test_a_noisy_score_around_the_limit_gives_one_alarm():
    noise = np.random.default_rng(0).normal(1.0, 0.15, 20_000)
    _, changes = run(np.maximum(noise, 0.81))
    assert [change for _, change in changes] == [Change.RAISED]


def test_a_score_that_is_not_finite_changes_nothing():
    state, changes = run([2, 2, np.nan, np.inf, 2, np.nan])
    assert changes == [(4, Change.RAISED)]
    assert state.tolist() == [False] * 4 + [True] * 2


def test_windows_before_a_gap_do_not_count_and_the_condition_stays():
    detector = AlarmDetector(AlarmRule())
    detector.update(np.array([2.0, 2.0]))
    detector.reset()
    assert detector.update(np.array([2.0]))[1] == []
    assert detector.update(np.array([2.0, 2.0]))[1] == [(1, Change.RAISED)]
    detector.reset()
    assert detector.active


def test_an_alarm_that_was_on_before_a_restart_is_cleared_and_not_raised_again():
    _, changes = run([2, 2, 2, 0, 0, 0, 0, 0], active=True)
    assert changes == [(7, Change.CLEARED)]


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(0, 60))
def test_alarms_do_not_depend_on_how_scores_are_cut(ratio, cut):
    whole = run(ratio)
    detector = AlarmDetector(AlarmRule())
    first, second = (detector.update(np.asarray(part, float)) for part in (ratio[:cut], ratio[cut:]))
    assert [*first[0], *second[0]] == whole[0].tolist()
    assert [*first[1], *((k + len(first[0]), change) for k, change in second[1])] == whole[1]


@pytest.mark.parametrize("form", [{"on_n": 6}, {"on_n": 0}, {"clear_ratio": 1.5}, {"off_delay": "x"}])
def test_settings_that_cannot_be_are_refused(form):
    with pytest.raises(BundleError, match="alarm"):
        AlarmRule.from_json(form)
