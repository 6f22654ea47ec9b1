import numpy as np
import pytest

from tocsin.core.preprocess import Limit, Preprocessor, Standardise
from tocsin.errors import BundleError

STEPS = Preprocessor((Standardise(np.array([10.0, 0.0]), np.array([2.0, 0.5])), Limit(100.0)))


def test_channels_of_very_different_size_come_out_alike():
    windows = np.array([[[12.0, 0.5], [8.0, -0.5]]])
    assert STEPS.transform(windows).tolist() == [[[1.0, 1.0], [-1.0, -1.0]]]
    assert STEPS.transform(windows).dtype == np.float32


def test_wild_values_stay_finite_when_squared():
    out = STEPS.transform(np.full((1, 1, 2), 1e14))
    assert np.isfinite(np.square(out)).all()


def test_the_inverse_gives_engineering_units_back():
    windows = np.random.default_rng(0).normal(size=(3, 5, 2))
    assert np.allclose(STEPS.inverse(STEPS.transform(windows)), windows, atol=1e-5)


def test_the_manifest_keeps_every_constant():
    again = Preprocessor.from_json(STEPS.to_json())
    windows = np.random.default_rng(1).normal(size=(3, 5, 2))
    assert np.array_equal(again.transform(windows), STEPS.transform(windows))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"step": "warp"}, "not known"),
        ({"step": "standardise", "center": [0.0], "scale": [0.0]}, "damaged"),
        ({"step": "standardise", "center": [0.0, 1.0], "scale": [1.0]}, "damaged"),
        ({"step": "limit"}, "damaged"),
        ({"step": "limit", "limit": -1}, "damaged"),
    ],
)
def test_a_step_that_cannot_be_is_refused(form, said):
    with pytest.raises(BundleError, match=said):
        Preprocessor.from_json([form])
