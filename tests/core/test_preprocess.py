import numpy as np
import pytest

from tocsin.core.preprocess import LevelUnrest, Limit, LogSpectrum, Preprocessor, Standardise
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


FEATURES = [LevelUnrest(2, np.array([0.01, 0.01])), LogSpectrum(8, 1e-6)]


@pytest.mark.parametrize("step", FEATURES, ids=lambda step: step.name)
def test_a_feature_step_gives_the_rows_it_says_and_comes_back_from_the_manifest(step):
    windows = np.random.default_rng(0).normal(size=(3, 65, 2))
    out = step.transform(windows)
    assert out.shape == (3, step.rows(65), 2)
    assert np.array_equal(type(step).from_json(step.to_json()).transform(windows), out)
    assert Preprocessor((step,)).inverse(out.astype(np.float32)) is None


@pytest.mark.parametrize("step", FEATURES, ids=lambda step: step.name)
def test_a_window_too_short_for_a_feature_step_is_told(step):
    with pytest.raises(ValueError, match="rows"):
        step.rows(3)


def test_level_and_unrest_are_mean_and_logarithm_of_the_deviation_of_each_part():
    window = np.array([[9.0], [1.0], [3.0], [5.0], [5.0]])[None]  # the odd first row is left out
    out = LevelUnrest(2, np.array([1e-12])).transform(window)[0, :, 0]
    assert out == pytest.approx([2.0, 5.0, 0.0, 0.5 * np.log(1e-12)])


def test_a_tone_lies_in_its_band_and_a_level_in_none():
    at = np.arange(256)
    tone = np.sin(2 * np.pi * at * 40 / 256)  # 40 of 128 bins: the third of eight bands
    out = LogSpectrum(8, 1e-9).transform(np.stack([tone + 100, np.full(256, 7.0)], 1)[None])[0]
    assert out[:8, 0].argmax() == 2
    assert out[8, 0] == pytest.approx(np.log10(np.sqrt(0.5)), abs=1e-6)
    assert out[:, 1].max() < -4
