"""Rates of false alarms, as people write them, and what is promised."""

import doctest
import math
from dataclasses import replace

import numpy as np
import pytest

from tocsin.core import promise, tail
from tocsin.core.promise import Promise, Tally, estimate_text, parse_rate, rate_text
from tocsin.core.tail import fit_tail
from tocsin.errors import BundleError, ConfigError

KEPT = Promise(1 / 168, 1 / 168, 0.4 / 168, 3 / 168, 2000.0, 11, 2000.0, False)
REFUSED = replace(KEPT, high=0.1, refused=True, hours=48.0, needed_hours=900.0)


@pytest.mark.parametrize("module", [promise, tail])
def test_examples_in_docstrings_are_true(module) -> None:
    found = doctest.testmod(module, extraglobs={"np": np})
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize(
    ("text", "per_hour"),
    [("1/week", 1 / 168), (" 2 / Day", 2 / 24), ("0.5/year", 0.5 / 8766), ("1/months", 1 / 730.5), ("3/hour", 3.0)],
)
def test_a_rate_is_a_number_a_slash_and_a_unit(text: str, per_hour: float) -> None:
    assert parse_rate(text) == pytest.approx(per_hour)
    assert parse_rate(rate_text(per_hour)) == pytest.approx(per_hour, rel=0.05)


@pytest.mark.parametrize(
    "text", ["", "1", "0/week", "-1/week", "1/fortnight", "week", "one/week", "1/week/day", "1e9/day"]
)
def test_another_rate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a number above 0.*1/week"):
        parse_rate(text)


def test_a_promise_says_its_interval_and_a_refusal_what_would_be_needed() -> None:
    assert "about 1/week false alarms" in KEPT.sentence() and "3/week" in KEPT.sentence()
    assert KEPT.promised == KEPT.asked
    assert (
        "cannot be promised" in REFUSED.sentence()
        and "about 5.4 weeks of normal running and train again" in REFUSED.sentence()
    )
    assert REFUSED.promised == REFUSED.high


def test_no_rate_is_told_that_nobody_can_imagine() -> None:
    said = replace(REFUSED, low=2.4e-21, expected=0.033, high=450.0, hours=0.3).sentence()
    assert said.startswith("1/week false alarms cannot be promised: 18 minutes of normal running are too few to tell.")
    assert "Expect up to 450/hour." in said and "e-" not in said and "guess" not in said


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.2 / 24, 9.6 / 24, "1/week to 10/day"),
        (1.51, 2.49, "1.5/hour to 2.5/hour"),
        (9.6, 10.2, "9.6/hour to 10/hour"),
        (2.0, 2.01, "about 2/hour"),
    ],
)
def test_the_ends_of_an_estimate_are_told_apart_and_in_plain_numbers(low: float, high: float, said: str) -> None:
    assert estimate_text(low, high) == said


def test_no_end_of_an_estimate_has_an_exponent() -> None:
    for high in np.geomspace(1e-4, 1e6, 5000).tolist():
        assert "e+" not in (said := estimate_text(high / 3, high)) and "e-" not in said


def test_the_manifest_keeps_a_promise() -> None:
    assert Promise.from_json(KEPT.to_json()) == KEPT


@pytest.mark.parametrize("changes", [{"low": None}, {"high": math.inf}, {"low": 1.0}, {"episodes": -1}, {"asked": "x"}])
def test_a_damaged_promise_is_refused(changes: dict) -> None:
    with pytest.raises(BundleError, match="promise"):
        Promise.from_json({**KEPT.to_json(), **changes})


def test_a_promise_is_broken_by_what_the_upper_rate_does_not_explain() -> None:
    """At three a week: eight in a week have a chance of 1.2 %, nine of 0.4 %."""
    assert not KEPT.broken_by(8, 168)
    assert KEPT.broken_by(9, 168)
    assert not KEPT.broken_by(0, 0)


def test_a_promise_is_judged_as_quickly_after_a_billion_alarms_as_after_one() -> None:
    at_the_limit = replace(KEPT, high=1e9)
    assert not at_the_limit.broken_by(1_000_010_000, 1.0)
    assert at_the_limit.broken_by(1_000_100_000, 1.0)


def test_the_chance_of_a_count_is_that_of_the_poisson_law() -> None:
    for mean in (0.01, 0.7, 3.0, 60.0, 500.0):
        chance = 1.0
        for count in range(1, 700):
            chance -= math.exp((count - 1) * math.log(mean) - mean - math.lgamma(count))
            if abs(chance / promise.SURPRISE - 1) > 1e-6:
                assert replace(KEPT, high=mean).broken_by(count, 1.0) == (chance < promise.SURPRISE), (count, mean)


def test_the_interval_of_a_count_holds_the_rate_it_came_from_nine_times_in_ten() -> None:
    rng = np.random.default_rng(0)
    for rate in (0.5, 4.0, 60.0):
        intervals = [Tally(int(n), 1.0).between() for n in rng.poisson(rate, 2000)]
        assert np.mean([low <= rate <= high for low, high in intervals]) > 0.88


@pytest.mark.parametrize(
    ("episodes", "weeks", "said"),
    [
        (
            9,
            1,
            "9 alarms in 7 days of normal running, 5/week to 2/day: more than promised (expected 2/month to",
        ),
        (40, 20, "as promised (expected 2/month to 3/week)"),
        (0, 0.5, "0 alarms in 3.5 days of normal running, up to 6/week: as promised"),
        (0, 0.05, "too short to tell more"),
        (0, 40, "less than expected"),
    ],
)
def test_what_was_counted_is_told_beside_the_promise(episodes: int, weeks: float, said: str) -> None:
    assert said in KEPT.measured(Tally(episodes, 168 * weeks))


def test_where_the_promise_was_refused_none_is_said_to_be_kept() -> None:
    refused = replace(KEPT, refused=True)
    assert "as expected, nothing was promised" in refused.measured(Tally(40, 168 * 20))
    assert "more than expected" in refused.measured(Tally(9, 168))


def test_a_tail_gives_the_law_that_its_exceedances_follow() -> None:
    rng = np.random.default_rng(0)
    for shape in (-0.3, 0.0, 0.2):
        uniform = rng.random(2000)
        y = -0.3 * np.log(uniform) if shape == 0 else 0.3 * (uniform**-shape - 1) / shape
        law = fit_tail(y)
        assert law.shape[0] == pytest.approx(shape, abs=0.08)
        far = float(law.quantile(1e-3)[0])
        assert np.mean(y > far) == pytest.approx(1e-3, abs=1.5e-3)
        assert float(law.survival(far)[0]) == pytest.approx(1e-3)
