"""Scores of ensembles put together from scores of their members."""

from pathlib import Path

import numpy as np
import pytest

from tocsin.core.bundle import load_bundle
from tocsin.core.interpreter import TfliteModel
from tocsin.core.scoring import COMBINATIONS, Member, Scorer
from tocsin.core.threshold import Threshold
from tocsin_trainer.evaluate import combined

SMALL = load_bundle(Path(__file__).parent.parent / "data/small.tocsin")


@pytest.mark.parametrize("how", COMBINATIONS)
def test_members_scored_alone_and_combined_are_the_ensemble_scored_by_the_agent(how: str) -> None:
    model, shown = TfliteModel(SMALL.files["conv_ae.tflite"]), SMALL.manifest.members[0].preprocessor
    kinds, normalisers, weights = ("reconstruct", "whiten"), (2.0, 1.0), (0.6, 1.4)
    limit, channels, windows = Threshold(1.0), np.array([0.5, 1.5]), SMALL.golden.windows
    together = tuple(Member(model, shown, *each) for each in zip(kinds, normalisers, weights, strict=True))
    expected = Scorer(together, channels, limit, how).score(windows)
    alone = [Scorer((Member(model, shown, kind),), channels, limit).score(windows) for kind in kinds]
    (found,) = combined(tuple((scores,) for scores in alone), normalisers, weights, how)
    np.testing.assert_allclose(found.per_channel, expected.per_channel, rtol=1e-12)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-12)
