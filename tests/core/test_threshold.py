import doctest

import numpy as np
import pytest

from tocsin.core import threshold
from tocsin.core.promise import Promise
from tocsin.core.threshold import Threshold, k_table, mu_sigma, pot, quantile
from tocsin.errors import BundleError
from tocsin.recordings import table


@pytest.mark.parametrize("module", [threshold, table])
def test_examples_in_docstrings_are_true(module):
    found = doctest.testmod(module, extraglobs={"np": np})
    assert found.attempted > 0
    assert found.failed == 0


def test_a_limit_is_above_zero_even_for_a_perfect_model():
    assert mu_sigma(np.zeros(10), 3).value > 0
    assert quantile(np.zeros(10), 0.99).value > 0


def test_the_k_table_shows_what_part_of_normal_running_each_limit_calls_unusual():
    scores = np.random.default_rng(0).normal(10, 1, 100_000)
    table = {row["k"]: row["over"] for row in k_table(scores)}
    assert table[2] == pytest.approx(0.0228, abs=0.002)
    assert table[3] == pytest.approx(0.00135, abs=0.0005)
    assert sorted(table.values(), reverse=True) == list(table.values())


def test_the_manifest_keeps_method_and_parameters():
    limit = quantile(np.arange(100.0), 0.9, 1.5)
    assert Threshold.from_json(limit.to_json()) == limit


@pytest.mark.parametrize(("q", "within"), [(0.999, 0.1), (0.9999, 0.1), (0.99999, 0.2)])
def test_peaks_over_threshold_reach_beyond_what_the_scores_show(q, within):
    """Twenty times 5,000 scores, each correlated with its neighbours as those of overlapping windows are."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        noise = np.convolve(rng.normal(size=5009), np.full(10, 10**-0.5), "valid")
        found.append(pot(np.exp(0.3 * noise), q, apart=10).value)
    exact = np.exp(0.3 * {0.999: 3.090, 0.9999: 3.719, 0.99999: 4.265}[q])
    assert np.median(found) == pytest.approx(exact, rel=within)


def test_the_manifest_keeps_limits_of_modes_and_the_promise():
    promise = Promise(1 / 168, 1 / 168, 0.001, 0.02, 336.0, 3, 500.0, True)
    limit = Threshold(3.0, "budget", {"base": 1.0}, (3.0, 1.5), promise)
    assert Threshold.from_json(limit.to_json()) == limit
    assert limit.of(np.array([0, 1, -1])).tolist() == [3, 1.5, 3]
    assert limit.of(None) == Threshold(3.0).of(np.array([0, 1])) == 3.0


@pytest.mark.parametrize("limits", [[0.0], [4.0], ["x"], 3])
def test_limits_that_cannot_be_are_refused(limits):
    with pytest.raises(BundleError, match="threshold"):
        Threshold.from_json({"value": 3.0, "limits": limits})


@pytest.mark.parametrize(
    "form", [{}, {"value": 0}, {"value": "x"}, {"value": float("nan")}, {"value": 1, "parameters": 3}]
)
def test_a_damaged_threshold_is_refused(form):
    with pytest.raises(BundleError, match="threshold"):
        Threshold.from_json(form)
