"""Who ships: separation, stability, agreement and cost, without labels."""

from dataclasses import replace

import numpy as np
import pytest

from tocsin.core.threshold import Threshold
from tocsin.errors import GateError
from tocsin_trainer.device_budget import DeviceBudget
from tocsin_trainer.ranking import ENOUGH_WINDOWS, agreement, choose, stability
from tocsin_trainer.reasons import MARGIN
from tocsin_trainer.results import Candidate, Gate

PANEL = ("t2", "pca")
ANY = DeviceBudget(None, None)
PASSED, REFUSED = Gate(1.0, 1.0, 0.9, 0.9, True), Gate(0.1, 0.1, 0.9, 0.5, False, "decisions differ")
RNG = np.random.default_rng(0)


def candidate(family: str, separation: float, stable: float = 1.0, **others: object) -> Candidate:
    scores = np.ones(4)
    plain = Candidate(
        family, "int8", 1.0, 1000, 4000, 3.0, 100, scores, scores, PASSED, Threshold(1.0), Threshold(1.0), separation,
        {}, {}, (), scores, scores, 1.0, stability=stable, combination="weighted" if "+" in family else "",
    )  # fmt: skip
    return replace(plain, **others)


TOGETHER = candidate("t2+pca", 0.8)


def chosen(*candidates: Candidate, windows: float = ENOUGH_WINDOWS) -> tuple[str, str]:
    place, why = choose(candidates, PANEL, windows, ANY)
    return candidates[place].family + candidates[place].combination.replace("weighted", ""), why


def test_scores_that_wander_over_blocks_of_time_are_less_stable_whatever_their_scale() -> None:
    steady, anomalies = RNG.gamma(4.0, size=400), 2 * RNG.gamma(4.0, size=400)
    wandering = steady * np.repeat([1.0, 1.0, 1.0, 2.0, 1.0], 80)
    assert stability(steady, anomalies) > 0.7
    assert stability(wandering, anomalies) < 0.5 * stability(steady, anomalies)
    assert stability(1e6 * wandering, 1e6 * anomalies) == stability(wandering, anomalies)


def test_scores_that_find_nothing_have_no_stability_and_of_too_few_it_is_not_known() -> None:
    assert stability(np.arange(100.0), np.zeros(50)) == 0.0
    assert stability(np.arange(10.0), np.zeros(50)) is None
    assert replace(TOGETHER, stability=None).worth == replace(TOGETHER, stability=1.0).worth


def test_seeds_agree_by_the_order_of_their_scores() -> None:
    scores = RNG.random(1000)
    assert agreement(scores, scores**3) == pytest.approx(1.0)
    assert agreement(scores, -scores) == 0.0
    assert agreement(scores, RNG.random(1000)) < 0.1
    assert agreement(np.ones(9), np.ones(9)) == agreement(scores, np.ones(1000)) == 0.0


def test_worth_is_what_is_told_apart_beyond_chance_less_wandering_and_luck() -> None:
    assert candidate("conv_ae", 0.9).worth == pytest.approx(0.9)
    assert candidate("conv_ae", 0.9, 0.5).worth == pytest.approx(0.7)
    assert candidate("conv_ae", 0.9, 0.5, agreement=0.5).worth == pytest.approx(0.6)


def test_of_networks_the_steady_one_ships() -> None:
    assert chosen(candidate("conv_ae", 0.95, 0.6), candidate("lstm_ae", 0.9, 0.9))[0] == "lstm_ae"


def test_of_equals_the_quickest_ships() -> None:
    slow, quick = candidate("lstm_ae", 0.902), candidate("conv_ae", 0.9, latency_us=1.0)
    family, why = chosen(slow, quick)
    assert family == "conv_ae" and "the quickest of those" in why


def test_a_network_ships_where_it_leads_clearly_on_a_long_recording() -> None:
    network = candidate("conv_ae", 0.8 + MARGIN + 0.01)
    assert chosen(TOGETHER, network)[0] == "conv_ae"
    assert chosen(TOGETHER, replace(network, separation=0.8 + MARGIN - 0.01))[0] == "t2+pca"
    family, why = chosen(TOGETHER, network, windows=ENOUGH_WINDOWS - 1)
    assert family == "t2+pca" and "199 windows of normal running are too few to trust it, 200 are needed" in why


@pytest.mark.parametrize("lost", [{"stability": 0.7}, {"agreement": 0.7}], ids=str)
def test_a_lead_that_wanders_or_that_another_seed_does_not_repeat_is_none(lost: dict[str, float]) -> None:
    network = candidate("conv_ae", 0.95)
    assert chosen(TOGETHER, network)[0] == "conv_ae"
    assert chosen(TOGETHER, replace(network, **lost))[0] == "t2+pca"


def test_the_panel_ships_as_a_weighted_mean_unless_another_combination_leads_clearly() -> None:
    highest = candidate("t2+pca", 0.85, combination="max")
    family, why = chosen(TOGETHER, highest)
    assert family == "t2+pca" and "t2+pca (max) (worth 0.850" in why and "the default, linear models" in why
    family, why = chosen(TOGETHER, replace(highest, separation=0.95))
    assert family == "t2+pcamax" and "t2+pca (max)" in why
    assert chosen(TOGETHER, replace(highest, separation=0.95), windows=ENOUGH_WINDOWS - 1)[0] == "t2+pca"


def test_a_network_that_is_only_steadier_does_not_ship() -> None:
    wandering = replace(TOGETHER, stability=0.2)
    assert chosen(wandering, candidate("conv_ae", 0.85))[0] == "t2+pca"
    assert chosen(wandering, candidate("conv_ae", 0.91))[0] == "conv_ae"


def test_no_single_linear_model_stands_against_the_panel() -> None:
    assert chosen(candidate("t2", 0.99), candidate("limits", 0.99), TOGETHER)[0] == "t2+pca"


def test_who_fails_the_gate_is_over_budget_or_was_fitted_to_compare_with_does_not_ship() -> None:
    better = candidate("conv_ae", 0.99)
    for out in ({"gate": REFUSED}, {"why_not": "too large"}, {"beside": True}):
        assert chosen(TOGETHER, candidate("t2", 0.7), replace(better, **out))[0] == "t2+pca"
    with pytest.raises(GateError, match="no candidate decides alike before and after conversion: t2: decisions differ"):
        chosen(candidate("t2", 0.9, gate=REFUSED))
