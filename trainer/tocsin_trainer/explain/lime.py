"""A linear model of the score around one window: LIME over segments (Ribeiro, Singh & Guestrin, KDD 2016).

Written out here in a few lines: the package `lime` has had no release since 2020. Parts are switched off at random, the
ratio is asked for, and a ridge regression, in which coalitions count the more the fewer parts are away, gives each part
its slope. R² of that fit is told: where it is low, the score is not linear here, and the slopes explain little.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge

from tocsin.records import Floats
from tocsin_trainer.explain.game import Game

SAMPLES = 2000
WIDTH = 0.25  # of the kernel, as in the paper's code for images
ALPHA = 1e-3  # keeps the fit defined; no shrinkage to speak of
TRUSTED = 0.8  # R² from here on


@dataclass(frozen=True)
class Lime:
    """What the linear model says.

    Attributes:
        amount: (M,) what the ratio loses, at this slope, without the part.
        r2: of the weighted fit, 1 at best.
    """

    amount: Floats
    r2: float


def lime(game: Game, seed: int = 0) -> Lime:
    """Slopes of a linear model of the ratio over the presence of a game's players."""
    count = len(game.players)
    present = np.random.default_rng(seed).random((SAMPLES, count)) < 0.5
    present[0] = True  # the window itself
    ratio = game.ratio(present)
    distance = 1 - np.sqrt(present.mean(axis=1))  # of the cosine to the whole window
    weight = np.sqrt(np.exp(-(distance**2) / WIDTH**2))
    model = Ridge(alpha=ALPHA).fit(present, ratio, sample_weight=weight)
    return Lime(np.asarray(model.coef_, np.float64), float(model.score(present, ratio, sample_weight=weight)))
