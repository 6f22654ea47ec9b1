"""Shapley values of the parts of a window, by KernelSHAP as the package `shap` computes it.

The method is of Lundberg & Lee, "A unified approach to interpreting model predictions", NIPS 2017. Rules: up to 12
parts every coalition is asked and the values are exact; above, coalitions are drawn by a fixed seed, the same in every
run.
"""

import contextlib
import io
import logging
from dataclasses import dataclass

import numpy as np

from tocsin.errors import TocsinError
from tocsin.records import Floats
from tocsin_trainer.explain.game import Game

COALITIONS = 4096


@dataclass(frozen=True)
class Shapley:
    """What each part gives.

    Attributes:
        amount: (M,) part of the ratio; they sum to the window's ratio less `base`.
        base: ratio of the typical window.
        error: by how much the sum misses that.
        exact: every coalition was asked.
    """

    amount: Floats
    base: float
    error: float
    exact: bool


def shapley(game: Game, seed: int = 0) -> Shapley:
    """Shapley values of a game's players.

    Raises:
        TocsinError: the extra `explain` is not installed.
    """
    try:
        import shap  # noqa: PLC0415 - it takes seconds to load, and only this method needs it
    except ImportError as error:
        raise TocsinError(
            f"the method shap needs the extra `explain` ({error.name} is missing): pip install '.[explain]', "
            "or leave it out: --method exact,lime"
        ) from error
    count = len(game.players)
    base, ratio = game.ratio(np.array([[False] * count, [True] * count])).tolist()
    if count == 1:
        return Shapley(np.array([ratio - base]), base, 0.0, True)
    logging.getLogger("shap").setLevel(logging.WARNING)
    drawn = np.random.get_state()  # shap draws from the one generator that all share
    np.random.seed(seed)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            explainer = shap.KernelExplainer(lambda on: game.ratio(np.asarray(on) > 0.5), np.zeros((1, count)))
            found = explainer.shap_values(np.ones((1, count)), nsamples=COALITIONS, l1_reg=0, silent=True)
    finally:
        np.random.set_state(drawn)
    amount: Floats = np.asarray(found, np.float64).reshape(count)
    return Shapley(amount, base, abs(float(amount.sum()) - (ratio - base)), 2**count - 2 <= COALITIONS)
