"""A network against the linear models beside it, in words."""

from dataclasses import replace

import numpy as np
import pytest

from tocsin.core.threshold import Threshold
from tocsin_trainer.comparison import compared
from tocsin_trainer.results import Candidate, Gate


def candidate(family: str, separation: float, epochs: int, **others: object) -> Candidate:
    loss, scores = np.ones(epochs), np.ones(4)
    plain = Candidate(
        family, "int8", 1.0, 1000, 4000, 3.0, 100, loss, loss, Gate(1.0, 1.0, 0.9, 0.9, True), Threshold(1.0),
        Threshold(1.0), separation, {}, {}, (), scores, scores, 1.0,
    )  # fmt: skip
    return replace(plain, **others)


LSTM = candidate("lstm_ae", 0.9, 5, chosen=True)
PANEL = candidate("t2+pca", 0.95, 0, beside=True)


@pytest.mark.parametrize(
    ("separation", "said", "lead"),
    [
        (0.95, "loses to the linear t2+pca: separation of injected anomalies 0.900 against 0.950, 0.050 less", -0.05),
        (
            0.85,
            "wins against the linear t2+pca: separation of injected anomalies 0.900 against 0.850, 0.050 more",
            0.05,
        ),
        (
            0.9,
            "is as good as the linear t2+pca: separation of injected anomalies 0.900 against 0.900, no difference",
            0,
        ),
    ],
)
def test_the_sentence_says_who_wins_and_by_how_much(separation: float, said: str, lead: float) -> None:
    found = compared((LSTM, replace(PANEL, separation=separation)))
    assert found is not None
    assert found.sentence() == f"lstm_ae {said}" and found.lead == pytest.approx(lead)


def test_labels_decide_over_made_up_anomalies() -> None:
    network = replace(LSTM, separation=0.99, figures={"roc_auc": 0.8, "vus_pr": 0.5})
    found = compared((network, replace(PANEL, figures={"roc_auc": 0.7, "vus_pr": 0.6})))
    assert found is not None and found.lead == pytest.approx(-0.1)
    assert "VUS-PR against the labels 0.500 against 0.600, 0.100 less" in found.sentence()


def test_linear_models_that_ship_are_compared_with_nothing_and_the_best_rival_is_taken() -> None:
    weak, refused = candidate("limits", 0.6, 0), candidate("pca", 0.99, 0, gate=Gate(0.1, 0.1, 0.9, 0.5, False))
    assert compared((replace(PANEL, chosen=True), replace(LSTM, chosen=False))) is None
    assert compared((LSTM,)) is None
    found = compared((LSTM, weak, candidate("t2", 0.8, 0), refused))
    assert found is not None and found.linear.family == "t2"
