import json

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from tocsin.core.preprocess import STEPS as PREPROCESSING
from tocsin.core.preprocess import (
    BandEnergies,
    Clip,
    Despike,
    Detrend,
    Difference,
    EnvelopeSpectrum,
    Ewma,
    LevelUnrest,
    Limit,
    LogMel,
    LogSpectrum,
    Moments,
    Preprocessor,
    RunningMedian,
    SavitzkyGolay,
    Stack,
    Standardise,
    WindowStatistics,
)
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


FORMS = [
    ({"step": "warp"}, "not known"),
    ({"step": ["despike"]}, "not known"),
    ({"step": "standardise", "center": [0.0], "scale": [0.0]}, "damaged"),
    ({"step": "standardise", "center": [0.0, 1.0], "scale": [1.0]}, "damaged"),
    ({"step": "limit"}, "damaged"),
    ({"step": "limit", "limit": -1}, "damaged"),
    ({"step": "despike", "width": 4, "spreads": 6, "floor": [1.0]}, "width.*odd.*got 4"),
    ({"step": "despike", "width": 103, "spreads": 6, "floor": [1.0]}, "width.*3 to 101"),
    ({"step": "despike", "width": 5, "spreads": float("nan"), "floor": [1.0]}, "spreads"),
    ({"step": "despike", "width": 5, "spreads": 6, "floor": [0.0]}, "floor above 0"),
    ({"step": "despike", "width": 5, "spreads": 6, "floor": [float("nan")]}, "floor.*finite"),
    ({"step": "despike", "width": 5, "spreads": 6, "floor": [[1.0]]}, "floor.*finite"),
    ({"step": "despike", "width": 5, "spreads": 6, "floor": "1"}, "floor.*list"),
    ({"step": "median", "width": 1 << 40}, "width"),
    ({"step": "median", "width": 5.0}, "width"),
    ({"step": "median", "width": "5" * 1000}, "width.{,120}$"),
    ({"step": "ewma", "alpha": 0}, "alpha"),
    ({"step": "ewma", "alpha": 1.5}, "alpha"),
    ({"step": "ewma", "alpha": True}, "alpha"),
    ({"step": "savgol", "width": 3, "order": 3}, "order"),
    ({"step": "savgol", "width": 101, "order": 50}, "order"),
    ({"step": "clip", "low": [1.0], "high": [0.0]}, "low below high"),
    ({"step": "clip", "low": [0.0], "high": [1.0, 1.0]}, "one low and one high"),
    ({"step": "clip", "low": [], "high": []}, "low.*list"),
    ({"step": "level_unrest", "segments": 0, "floor": [1.0]}, "segments"),
    ({"step": "window_statistics", "segments": 1 << 30}, "segments"),
    ({"step": "moments", "floor": [1e200]}, "floor"),
    ({"step": "moments", "floor": [None]}, "floor"),
    ({"step": "log_spectrum", "bands": 1e9, "floor": 1.0}, "bands"),
    ({"step": "log_spectrum", "bands": 8, "floor": float("inf")}, "floor"),
    ({"step": "log_mel", "bands": 8, "sample_rate_hz": float("nan"), "floor": [1.0]}, "sample_rate_hz"),
    ({"step": "log_mel", "bands": 8, "sample_rate_hz": 1e12, "floor": [1.0]}, "sample_rate_hz"),
    (
        {"step": "envelope_spectrum", "bands": 8, "low_hz": 400, "high_hz": 200, "top_hz": 100}
        | {"sample_rate_hz": 1000, "floor": [1.0]},
        "low_hz below high_hz",
    ),
    (
        {"step": "envelope_spectrum", "bands": 8, "low_hz": 100, "high_hz": 700, "top_hz": 100}
        | {"sample_rate_hz": 1000, "floor": [1.0]},
        "high_hz",
    ),
    ({"step": "band_energies", "bands_hz": [[5, 1]], "sample_rate_hz": 100, "floor": [1.0]}, "bands_hz"),
    ({"step": "band_energies", "bands_hz": [[1]], "sample_rate_hz": 100, "floor": [1.0]}, "damaged"),
    ({"step": "band_energies", "bands_hz": [], "sample_rate_hz": 100, "floor": [1.0]}, "bands_hz"),
    ({"step": "band_energies", "bands_hz": [[0, 1]] * 5000, "sample_rate_hz": 9, "floor": [1.0]}, "bands_hz"),
    ({"step": "stack", "branches": []}, "branches"),
    ({"step": "stack", "branches": [[], [{"step": "detrend"}]]}, "branches"),
    ({"step": "stack", "branches": [[{"step": "detrend"}], [{"step": "warp"}]]}, "not known"),
    ({"step": "stack", "branches": [[{"step": "detrend"}] * 17, [{"step": "detrend"}]]}, "at most 16"),
    ({"step": "stack", "branches": [[{"step": "stack", "branches": []}], [{"step": "detrend"}]]}, "within another"),
]


@pytest.mark.parametrize(("form", "said"), FORMS, ids=[f"{form['step']}-{n}" for n, (form, _) in enumerate(FORMS)])
def test_a_step_that_cannot_be_is_refused(form, said):
    with pytest.raises(BundleError, match=said):
        Preprocessor.from_json([form])


@pytest.mark.parametrize("forms", [3, "despike", {"step": "detrend"}, [3], [None]])
def test_what_is_no_list_of_steps_is_refused(forms):
    with pytest.raises(BundleError, match="expected a list of steps"):
        Preprocessor.from_json(forms)


def test_more_steps_than_anyone_needs_are_refused():
    step = {"step": "detrend"}
    for forms in ([step] * 17, [step, {"step": "stack", "branches": [[step] * 8, [step] * 8]}]):
        with pytest.raises(BundleError, match=r"17 .* at most 16"):
            Preprocessor.from_json(forms)


def test_features_side_by_side_with_more_rows_than_the_window_are_refused():
    step = Stack(((Detrend(),), (Detrend(),)))
    with pytest.raises(ValueError, match="65 rows are fewer than the 130"):
        step.rows(65)


FLOOR = np.array([0.01, 0.02, 0.03])
FEATURES = [
    LevelUnrest(2, FLOOR),
    WindowStatistics(3),
    Moments(FLOOR),
    LogSpectrum(8, 1e-6),
    LogSpectrum(8, FLOOR),
    LogMel(8, 1000.0, FLOOR),
    EnvelopeSpectrum(6, 100.0, 450.0, 200.0, 1000.0, FLOOR),
    BandEnergies(((0.0, 100.0), (50.0, 500.0)), 1000.0, FLOOR),
    Stack(((LevelUnrest(1, FLOOR),), (Detrend(), LogSpectrum(4, 1e-6)), (Moments(FLOOR),))),
]
FILTERS = [
    Despike(5, 2.0, np.array([0.1, 0.2, np.inf])),
    Clip(np.array([-1.0, -np.inf, -0.5]), np.array([1.0, 0.5, np.inf])),
    RunningMedian(7),
    Ewma(0.2),
    SavitzkyGolay(7, 2),
    Limit(1.5),
]
OTHERS = [
    Detrend(),
    Difference(),
    Standardise(np.zeros(3), FLOOR),
    Standardise(np.zeros((65, 3)), np.ones((65, 3))),
]
EVERY = [*FEATURES, *FILTERS, *OTHERS]
SIGNAL = np.random.default_rng(0).normal(size=(40, 65, 3)).cumsum(axis=1)

each_step = pytest.mark.parametrize("step", EVERY, ids=lambda step: step.name)
each_feature = pytest.mark.parametrize("step", FEATURES, ids=lambda step: step.name)


def test_every_step_is_tried_here():
    assert {step.name for step in EVERY} == set(PREPROCESSING)


@each_step
def test_a_step_gives_the_rows_it_says_and_comes_back_from_the_manifest(step):
    out = step.transform(SIGNAL)
    assert out.shape == (40, step.rows(65), 3) and np.isfinite(out).all()
    assert step.rows(65) <= 65
    written = json.dumps(Preprocessor((step,)).to_json(), allow_nan=False)
    (again,) = Preprocessor.from_json(json.loads(written)).steps
    assert type(again) is type(step)
    assert np.array_equal(again.transform(SIGNAL), out)


@each_step
def test_windows_give_the_same_bits_in_any_company_and_wherever_they_lie(step, monkeypatch):
    steps = Preprocessor((step,))
    whole = steps.transform(SIGNAL)
    assert np.array_equal(np.concatenate([steps.transform(SIGNAL[k : k + 1]) for k in range(40)]), whole)
    assert np.array_equal(np.concatenate([steps.transform(SIGNAL[:7]), steps.transform(SIGNAL[7:])]), whole)
    assert np.array_equal(steps.transform(np.asfortranarray(SIGNAL)), whole)
    overlapping = sliding_window_view(SIGNAL[0], 65, axis=0).transpose(0, 2, 1)
    assert np.array_equal(steps.transform(overlapping), whole[:1])
    monkeypatch.setattr("tocsin.core.preprocess.pipeline.PIECE", 3 * 65 * 3)
    assert np.array_equal(steps.transform(SIGNAL), whole)


@each_step
def test_a_step_leaves_its_windows_as_they_are(step):
    before = SIGNAL.copy()
    step.transform(SIGNAL)
    assert np.array_equal(SIGNAL, before)


@each_step
def test_one_channel_alone_is_shown_as_among_others(step):
    if not step.takes(1):
        assert step.takes(3)
        return
    assert np.allclose(step.transform(SIGNAL[..., 1:2]), step.transform(SIGNAL)[..., 1:2], rtol=1e-12, atol=1e-12)


@each_step
def test_constants_for_three_channels_are_for_no_other_number(step):
    free = {"window_statistics", "log_spectrum", "median", "ewma", "savgol", "limit", "detrend", "difference"}
    assert step.takes(3) and step.takes(4) == (step.name in free and getattr(step, "floor", 0) is not FLOOR)


@pytest.mark.parametrize("step", FILTERS, ids=lambda step: step.name)
def test_what_is_left_by_a_filter_is_in_the_same_unit(step):
    assert np.array_equal(step.inverse(SIGNAL), SIGNAL)


@pytest.mark.parametrize("step", [*FEATURES, Detrend(), Difference()], ids=lambda step: step.name)
def test_from_a_feature_there_is_no_way_back(step):
    assert Preprocessor((step,)).inverse(step.transform(SIGNAL).astype(np.float32)) is None


@each_feature
def test_a_still_window_is_shown_as_numbers(step):
    assert np.isfinite(step.transform(np.full((2, 65, 3), 1e6))).all()


@pytest.mark.parametrize(
    "step",
    [step for step in EVERY if not isinstance(step, Clip | Ewma | Limit | Standardise)],
    ids=lambda step: step.name,
)
def test_a_window_too_short_for_a_step_is_told(step):
    with pytest.raises(ValueError, match="rows"):
        step.rows(1)


def test_the_usual_level_is_known_behind_filters():
    scale = Standardise(np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), np.ones((4, 3)))
    steps = (Despike(5, 6.0, FLOOR), LevelUnrest(2, FLOOR), scale)
    assert Preprocessor(steps).usual_level().tolist() == [2.0, 2.0, 2.0]
    assert Preprocessor((Ewma(0.5), Standardise(FLOOR, FLOOR))).usual_level() is FLOOR
    assert Preprocessor((Difference(), Standardise(FLOOR, FLOOR))).usual_level() is None


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


def column(*values):
    """(1, T, 1) one window of one channel."""
    return np.array(values, np.float64)[None, :, None]


def test_despiking_takes_out_single_wild_values_at_the_edges_too_and_no_steps():
    course = np.tile([0.0, 1.0], 16)
    spiked = course.copy()
    spiked[[0, 9, 31]] = 50.0, -40.0, 90.0
    out = Despike(5, 6.0, np.array([0.5])).transform(column(*spiked))[0, :, 0]
    assert np.abs(out).max() <= 1.0
    untouched = np.delete(np.arange(32), [0, 9, 31])
    assert np.array_equal(out[untouched], course[untouched])
    steps = column(*np.repeat([0.0, 50.0, 0.0], [10, 6, 16]))
    assert np.array_equal(Despike(5, 6.0, np.array([0.5])).transform(steps), steps)


def test_despiking_leaves_alone_what_is_within_the_local_spread_or_the_floor():
    rough = np.random.default_rng(0).normal(0, 10, (1, 200, 1))
    rough[0, 100] = 30.0  # far in the floor's unit, not in that of its neighbours
    assert Despike(9, 6.0, np.array([0.01])).transform(rough)[0, 100, 0] == 30.0
    small = column(*[0.0] * 8, 1.0, *[0.0] * 8)
    assert np.array_equal(Despike(5, 6.0, np.array([1.0])).transform(small), small)
    assert np.array_equal(Despike(5, 6.0, np.array([np.inf])).transform(1e9 * small), 1e9 * small)


@pytest.mark.parametrize("width", [3, 5, 31])
def test_the_running_median_is_scipys_away_from_the_edges(width):
    signal = pytest.importorskip("scipy.signal")
    half = width // 2
    out = RunningMedian(width).transform(SIGNAL)
    expected = signal.medfilt(SIGNAL, (1, width, 1))
    assert np.array_equal(out[:, half:-half], expected[:, half:-half])
    assert np.array_equal(out[:, 0], np.median(SIGNAL[:, :width], axis=1))
    assert np.array_equal(out[:, -1], np.median(SIGNAL[:, -width:], axis=1))


def test_a_running_median_in_pieces_is_the_same(monkeypatch):
    whole = RunningMedian(5).transform(SIGNAL)
    for piece in (1, 100, 4000):
        monkeypatch.setattr("tocsin.core.preprocess.denoising.PIECE", piece)
        assert np.array_equal(RunningMedian(5).transform(SIGNAL), whole)


@pytest.mark.parametrize(("width", "order"), [(3, 0), (5, 2), (9, 3), (31, 6)])
def test_savitzky_golay_is_scipys_at_the_edges_too(width, order):
    signal = pytest.importorskip("scipy.signal")
    expected = signal.savgol_filter(SIGNAL, width, order, axis=1, mode="interp")  # its edges lose some digits
    assert np.allclose(SavitzkyGolay(width, order).transform(SIGNAL), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("alpha", [0.01, 0.3, 1.0])
def test_the_exponential_mean_is_the_recursion(alpha):
    expected = SIGNAL.copy()
    for t in range(1, 65):
        expected[:, t] = expected[:, t - 1] + alpha * (SIGNAL[:, t] - expected[:, t - 1])
    assert np.allclose(Ewma(alpha).transform(SIGNAL), expected, rtol=0, atol=1e-12)


def test_clipping_keeps_each_channel_within_its_own_limits():
    step = Clip(np.array([0.0, -np.inf]), np.array([np.inf, 1.0]))
    assert step.transform(np.array([[[-5.0, -5.0], [5.0, 5.0]]])).tolist() == [[[0.0, -5.0], [5.0, 1.0]]]


def test_detrending_takes_off_a_line_and_nothing_else():
    at = np.arange(65.0)
    assert np.abs(Detrend().transform(column(*(1e6 + 3 * at)))).max() < 1e-8
    bow = (at - 32) ** 2
    assert Detrend().transform(column(*(bow + 3 * at)))[0, :, 0] == pytest.approx(bow - bow.mean())


def test_differences_start_with_zero():
    assert Difference().transform(column(5, 7, 4)).ravel().tolist() == [0.0, 2.0, -3.0]


def test_window_statistics_are_mean_deviation_extremes_and_rise_of_each_part():
    window = column(99, 1, 2, 3, 4, 5, 7, 7, 7, 7, 12)  # the odd first row is left out
    out = WindowStatistics(2).transform(window)[0, :, 0]
    assert out == pytest.approx([3, 8, np.sqrt(2), 2, 1, 7, 5, 12, 4, 4])


def test_moments_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(2).gamma(2.0, size=4096)
    rms, crest, kurtosis, skewness = Moments(np.array([1e-12])).transform(column(*(values + 50)))[0, :, 0]
    swing = values - values.mean()
    assert 10**rms == pytest.approx(values.std())
    assert 10**crest == pytest.approx(np.abs(swing).max() / values.std())
    assert 10**kurtosis == pytest.approx(stats.kurtosis(values, fisher=False))
    assert skewness == pytest.approx(stats.skew(values))


def test_a_still_channel_has_no_crest_no_kurtosis_and_no_skewness():
    assert Moments(np.array([0.01])).transform(np.full((1, 9, 1), 5.0)).ravel().tolist() == [-1.0, 0.0, 0.0, 0.0]


def tone(hz, rate=1000.0, rows=1000):
    return np.sin(2 * np.pi * hz * np.arange(rows) / rate)


def test_mel_bands_hold_all_of_the_power_and_are_fine_where_frequencies_are_low():
    noise = np.random.default_rng(0).normal(size=(1, 4096, 1))
    step = LogMel(20, 16_000.0, np.array([1e-12]))
    power = 10 ** step.transform(noise)[0, :, 0]
    assert power[-1] > 5 * power[0]  # wider
    places = [int(step.transform(column(*tone(hz, 16_000.0, 4096))).argmax()) for hz in (200, 400, 4000, 4200)]
    assert places[0] < places[1] < places[2] == places[3]
    middle = 10 ** step.transform(column(*tone(1000, 16_000.0, 4096)))
    assert middle.sum() == pytest.approx(0.5, rel=1e-3)  # the mean square of a tone, shared by two bands


def test_more_mel_bands_than_frequencies_are_refused():
    with pytest.raises(ValueError, match="too few for 40 mel bands"):
        LogMel(40, 16_000.0, FLOOR).rows(256)


def test_the_envelope_shows_how_often_a_resonance_is_struck_and_the_plain_spectrum_does_not():
    rate, rows = 10_000.0, 4000
    at = np.arange(rows)
    strikes = np.exp(-(at % 100) / 15) * np.sin(2 * np.pi * 3100 * (at % 100) / rate)  # 100 a second
    hum = 3 * tone(50, rate, rows)
    step = EnvelopeSpectrum(50, 2000.0, 4500.0, 500.0, rate, np.array([1e-9]))
    shown = step.transform(column(*(strikes + hum)))
    places = np.flatnonzero(shown[0, :, 0] > shown.max() - 2)
    assert shown[0, :, 0].argmax() == 9  # 100 Hz is the last frequency of the tenth band of 10 Hz
    assert set(places) >= {9, 19, 29} and not set(places) & set(range(4))
    still = EnvelopeSpectrum(50, 2000.0, 4500.0, 500.0, rate, np.array([1e-9])).transform(
        column(*tone(3100, rate, rows))
    )
    assert still.max() < shown.max() - 3  # a steady tone does not swell


def test_band_energies_are_effective_values():
    window = column(*(3 * tone(50) + 0.1 * tone(300) + 20))
    out = BandEnergies(((0.0, 100.0), (100.0, 400.0), (400.0, 500.0)), 1000.0, np.array([1e-12])).transform(window)
    assert 10 ** out[0, :2, 0] == pytest.approx([3 / np.sqrt(2), 0.1 / np.sqrt(2)], rel=1e-3)
    assert out[0, 2, 0] == pytest.approx(-6, abs=0.5)


def test_a_band_without_a_frequency_is_refused():
    with pytest.raises(ValueError, match="no frequency from 1 to 2 Hz"):
        BandEnergies(((1.0, 2.0),), 1000.0, FLOOR).rows(64)


def test_features_stand_side_by_side_in_their_order():
    branches = ((LevelUnrest(1, FLOOR),), (Ewma(0.5), Moments(FLOOR)))
    out = Stack(branches).transform(SIGNAL)
    assert np.array_equal(out[:, :2], branches[0][0].transform(SIGNAL))
    assert np.array_equal(out[:, 2:], Moments(FLOOR).transform(Ewma(0.5).transform(SIGNAL)))
