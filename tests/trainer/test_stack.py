"""Weights of members from labels."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tocsin.records import Bools, Floats
from tocsin_trainer.stack import stacked_weights


def members(count: int, seed: int, *strengths: float) -> tuple[Floats, Bools]:
    """Scores of typical size 1 with heavy tails, which anomalies raise by e to the strength; and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.1
    log = rng.normal(0, 0.5, (len(strengths), count)) + labels * np.array(strengths)[:, None]
    return np.exp(log), labels


def test_a_useless_member_gets_next_to_nothing() -> None:
    weights = stacked_weights(*members(2000, 0, 2.0, 0.0, 1.5))
    assert weights.mean() == pytest.approx(1) and (weights >= 0).all()
    assert weights[1] < 0.1 and min(weights[0], weights[2]) > 0.5


def test_a_member_that_is_calm_in_anomalies_gets_nothing() -> None:
    weights = stacked_weights(*members(2000, 0, 2.0, -2.0))
    np.testing.assert_allclose(weights, [2, 0], atol=1e-6)


def test_members_that_say_the_same_share() -> None:
    scores, labels = members(2000, 1, 2.0)
    np.testing.assert_allclose(stacked_weights(np.concatenate([scores, scores]), labels), [1, 1], rtol=1e-3)


def test_stacked_members_rank_other_windows_better_than_equal_ones() -> None:
    weights = stacked_weights(*members(2000, 0, 2.0, 0.0, 0.0, 0.1))
    scores, labels = members(2000, 1, 2.0, 0.0, 0.0, 0.1)

    stacked, equal = (average_precision_score(labels, w @ scores) for w in (weights, np.ones(4)))
    assert 1 - stacked < 0.5 * (1 - equal)


def test_a_wild_score_does_not_upset_the_weights() -> None:
    scores, labels = members(2000, 0, 2.0, 0.0)
    calm = stacked_weights(scores, labels)
    scores[:, np.flatnonzero(labels)[0]] = 1e12
    np.testing.assert_allclose(stacked_weights(scores, labels), calm, atol=0.1)


@pytest.mark.parametrize("label", [False, True])
def test_labels_of_one_class_give_equal_weights(label: bool) -> None:
    scores, labels = members(100, 0, 1.0, 0.0)
    np.testing.assert_array_equal(stacked_weights(scores, np.full_like(labels, label)), [1, 1])


def test_members_none_of_which_helps_get_equal_weights() -> None:
    scores, labels = members(500, 0, -1.0, -2.0)
    np.testing.assert_array_equal(stacked_weights(scores, labels), [1, 1])
    np.testing.assert_array_equal(stacked_weights(np.ones((3, 500)), labels), [1, 1, 1])


@pytest.mark.parametrize(("shape", "value", "says"), [((2, 9), 1.0, "expected scores"), ((2, 10), np.nan, "finite")])
def test_what_cannot_be_is_refused(shape: tuple[int, int], value: float, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        stacked_weights(np.full(shape, value), np.arange(10) > 5)
