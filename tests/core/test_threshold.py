import doctest

import numpy as np
import pytest

from tocsin import recordings
from tocsin.core import threshold
from tocsin.core.threshold import Threshold, k_table, mu_sigma, quantile
from tocsin.errors import BundleError


@pytest.mark.parametrize("module", [threshold, recordings])
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


@pytest.mark.parametrize(
    "form", [{}, {"value": 0}, {"value": "x"}, {"value": float("nan")}, {"value": 1, "parameters": 3}]
)
def test_a_damaged_threshold_is_refused(form):
    with pytest.raises(BundleError, match="threshold"):
        Threshold.from_json(form)
