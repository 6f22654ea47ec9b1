"""What steps are taken, with which constants: asked for in ASSET.yaml, or chosen from the data."""

from pathlib import Path

import numpy as np
import pytest

from tocsin.config_file import read_settings
from tocsin.core.preprocess import Despike, Preprocessor, Stack, Standardise
from tocsin.errors import ConfigError
from tocsin.records import Channel
from tocsin_trainer.cli import TrainSettings
from tocsin_trainer.features import chosen_features, feature_step
from tocsin_trainer.options import InputOptions, TrainOptions
from tocsin_trainer.steps import channel_weights, check_names, cleaning_steps, scaling

CHANNELS = (Channel("pressure", "bar"), Channel("flow"), Channel("valve"))
FEATURES = [
    "level_unrest", "window_statistics", "moments", "log_spectrum", "log_mel", "envelope_spectrum", "band_energies",
]  # fmt: skip


def slow(rows: int = 4800, seed: int = 0) -> np.ndarray:
    """(n, 3) a wandering pressure, a noisy flow, a valve that is switched."""
    rng = np.random.default_rng(seed)
    pressure = 5 + 0.01 * rng.normal(size=rows).cumsum()
    valve = (np.arange(rows) // 90 % 2).astype(float)
    return np.column_stack([pressure, 100 + rng.normal(size=rows), valve])


def cut(rows: np.ndarray, length: int = 48) -> np.ndarray:
    return rows[: len(rows) // length * length].reshape(-1, length, rows.shape[1])


def asset(tmp_path: Path, text: str) -> TrainOptions:
    """The options that an ASSET.yaml gives."""
    path = tmp_path / "asset.yaml"
    path.write_text(text)
    file = read_settings(path, TrainSettings)
    p = file.preprocess
    inputs = InputOptions(p.clean, p.features, p.scaling, p.bands_hz, p.envelope_hz)
    return TrainOptions((Path("a.csv"),), Path("out"), "a", inputs=inputs, channel_weights=file.channel_weights)


def chosen(windows: np.ndarray, rate: float = 1.0) -> tuple:
    steps, choices = cleaning_steps(InputOptions(), windows, rate, CHANNELS)
    assert [choice.what for choice in choices] == ["cleaning", "denoising"] and all(choice.why for choice in choices)
    return steps, choices[0]


def test_nothing_is_taken_out_of_ordinary_signals():
    assert chosen(cut(slow()))[0] == ()


def glitched(share: float, channel: int, width: int = 1, more: int = 0) -> np.ndarray:
    """Wild values in a share of the rows, each so many rows long, and `more` of one row."""
    rows, rng = slow(), np.random.default_rng(1)
    count = max(1, round(share * len(rows)))
    for n, at in enumerate(rng.choice(np.arange(10, len(rows) - 10, 12), count + more, replace=False)):
        rows[at : at + (width if n < count else 1), channel] += rng.choice([-1, 1]) * rng.uniform(60, 90)
    return rows


def test_single_wild_values_are_taken_out_where_they_occur_and_the_reason_says_so():
    rows = glitched(8e-4, 1)
    (step,), choice = chosen(cut(rows))
    assert isinstance(step, Despike) and np.isfinite(step.floor).tolist() == [False, True, False]
    assert choice.value == "despike, 5 rows" and "flow (0.000" in choice.why and "not seen" in choice.why
    cleaned = step.transform(cut(rows))
    assert cleaned[..., 1].max() < 110 and np.array_equal(cleaned[..., [0, 2]], cut(rows)[..., [0, 2]])
    untouched = cut(slow())
    assert np.array_equal(step.transform(untouched), untouched)


def test_windows_that_overlap_show_the_same_spikes():
    rows = glitched(8e-4, 1)
    windows = np.lib.stride_tricks.sliding_window_view(rows, 48, axis=0).transpose(0, 2, 1)[::6]
    assert len(chosen(windows)[0]) == 1
    once = slow()
    once[1000, 1] += 80  # in eight windows, but one all the same
    windows = np.lib.stride_tricks.sliding_window_view(once, 48, axis=0).transpose(0, 2, 1)[::6]
    assert chosen(windows)[0] == ()


@pytest.mark.parametrize(
    "rows",
    [glitched(8e-3, 1), glitched(2e-4, 1), glitched(8e-4, 1, width=3), glitched(6e-4, 1, width=3, more=4)],
    ids=["often", "once", "three rows long", "of one row and of three"],
)
def test_what_may_be_the_machine_is_left_alone(rows):
    assert chosen(cut(rows))[0] == ()


def test_impacts_are_left_in_vibration():
    steps, choice = chosen(cut(glitched(8e-4, 1)), rate=10_000.0)
    assert steps == () and "impacts" in choice.why


def test_steps_are_those_that_were_listed(tmp_path):
    options = asset(
        tmp_path,
        "preprocess:\n  clean:\n"
        "    - {step: clip, low: {pressure: 0}, high: {Flow: 200}}\n    - despike\n    - {step: median, width: 3}\n"
        "    - {step: ewma, alpha: 0.5}\n    - savgol\n    - detrend\n    - difference\n",
    )
    steps, (choice,) = cleaning_steps(options.inputs, cut(slow()), 1.0, CHANNELS)
    assert [step.name for step in steps] == ["clip", "despike", "median", "ewma", "savgol", "detrend", "difference"]
    assert steps[0].low.tolist() == [0, -np.inf, -np.inf] and steps[0].high.tolist() == [np.inf, 200, np.inf]
    assert (steps[1].floor > 0).all() and choice.why == "given"
    again = Preprocessor.from_json(Preprocessor(steps).to_json())
    assert np.array_equal(again.transform(cut(slow())), Preprocessor(steps).transform(cut(slow())))


@pytest.mark.parametrize(("said", "count"), [("none", 0), ("[]", 0), ("auto", 1)])
def test_cleaning_is_none_or_chosen(tmp_path, said, count):
    options = asset(tmp_path, f"preprocess: {{clean: {said}}}\n")
    steps, _ = cleaning_steps(options.inputs, cut(glitched(8e-4, 1)), 1.0, CHANNELS)
    assert len(steps) == count


def test_a_channel_that_seldom_changes_is_despiked_in_steps_of_its_own_when_asked(tmp_path):
    options = asset(tmp_path, "preprocess: {clean: [despike]}\n")
    (step,), _ = cleaning_steps(options.inputs, cut(slow()), 1.0, CHANNELS)
    window = cut(slow())[:1].copy()
    window[0, 20, 2] = 900.0
    assert np.array_equal(step.transform(window)[..., 2], cut(slow())[:1, :, 2])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("preprocess: {clean: [{step: despike, widht: 5}]}", r"clean\[0\].widht is not a key: did you mean 'width'"),
        ("preprocess: {clean: [{step: despike, width: 4}]}", r"clean\[0\].width: expected an odd number.*got 4"),
        ("preprocess: {clean: [{step: despik}]}", r"clean\[0\].step: expected one of 'despike', .* got 'despik'"),
        ("preprocess: {clean: [{width: 5}]}", r"clean\[0\].step is missing: expected one of clip, despike"),
        ("preprocess: {clean: sometimes}", "expected auto, none, or a list of steps"),
        ("preprocess: {clean: [clip]}", "low or high of at least one channel"),
        ("preprocess: {clean: [{step: clip, low: {a: 2}, high: {a: 1}}]}", "of a is not above its low"),
        ("preprocess: {clean: [{step: clip, low: {a: .nan}}]}", r"clean\[0\].low.a: .*finite"),
        ("preprocess: {clean: [{step: savgol, width: 3, order: 3}]}", "order: expected less than the width"),
        ("preprocess: {features: mel}", r"features\[0\]: expected 'signal'.*got 'mel'"),
        ("preprocess: {features: [signal, moments]}", "signal alone"),
        ("preprocess: {features: [moments, moments]}", "once each"),
        ("preprocess: {scaling: max}", "scaling: expected 'robust', 'standard' or 'minmax'"),
        ("preprocess: {envelope_hz: [30, 20]}", "low below high"),
        ("preprocess: {bands_hz: [[0, 20], [-1, 20]]}", r"bands_hz\[1\]: .*0 or more"),
        ("channel_weights: {pressure: -1}", "channel_weights.pressure: .*greater than or equal to 0"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_key(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        asset(tmp_path, text + "\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("channel_weights: {presure: 2}", "channel_weights: 'presure' is no channel .*did you mean 'pressure'"),
        ("channel_weights: {x: 2}", "expected some of pressure, flow, valve"),
        ("channel_weights: {pressure: 0, flow: 0, valve: 0}", "at least one channel that counts"),
        ("preprocess: {clean: [despike, {step: clip, low: {x: 2}}]}", r"clean\[1\].low: 'x' is no channel"),
    ],
)
def test_a_channel_that_is_not_there_is_told_before_anything_runs(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        check_names(asset(tmp_path, text + "\n"), CHANNELS)


def test_a_filter_wider_than_the_window_is_told_with_its_key(tmp_path):
    options = asset(tmp_path, "preprocess: {clean: [detrend, {step: median, width: 101}]}\n")
    with pytest.raises(ConfigError, match=r"preprocess.clean\[1\]: 48 rows are too few for median.*--window"):
        cleaning_steps(options.inputs, cut(slow()), 1.0, CHANNELS)


def test_weights_have_a_mean_of_one_and_those_not_named_weigh_as_before():
    assert channel_weights({}, CHANNELS).tolist() == [1.0, 1.0, 1.0]
    assert channel_weights({"Pressure [bar]": 4.0}, CHANNELS).tolist() == [2.0, 0.5, 0.5]
    assert channel_weights({"pressure": 0.0}, CHANNELS).tolist() == [0.0, 1.5, 1.5]


VIBRATION = np.random.default_rng(3).normal(size=(20, 1024, 2)) * [1.0, 1000.0]


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("rate", [1.0, 500.0, 25_600.0])
@pytest.mark.parametrize("length", [8, 48, 1024])
def test_a_feature_fits_any_rate_and_window_and_shows_small_channels_as_well_as_large_ones(name, rate, length):
    windows = VIBRATION[:, :length]
    try:
        (step,) = chosen_features(InputOptions(features=(name,)), windows, rate)
    except ConfigError as error:
        assert length == 8 and "--window" in str(error)
        return
    shown = Preprocessor((step,)).transform(windows)
    assert shown.shape[1] == step.rows(length) and np.isfinite(shown).all()
    if name not in ("window_statistics", "level_unrest"):
        assert (shown.std(axis=0) > 0.001).all()  # no floor drowns it
    assert np.isfinite(Preprocessor((step,)).transform(np.zeros_like(windows))).all()


def test_features_named_together_are_stacked_in_their_order(tmp_path):
    options = asset(tmp_path, "preprocess: {features: [log_spectrum, envelope_spectrum, moments]}\n").inputs
    (step,) = chosen_features(options, VIBRATION, 25_600.0)
    assert isinstance(step, Stack) and step.rows(1024) == 129 + 32 + 4
    assert [branch[0].name for branch in step.branches] == list(options.features)


def test_the_signal_needs_no_step_and_auto_is_not_chosen_here(tmp_path):
    assert chosen_features(asset(tmp_path, "preprocess: {features: signal}\n").inputs, VIBRATION, 1.0) == ()
    assert chosen_features(asset(tmp_path, "preprocess: {features: auto}\n").inputs, VIBRATION, 1.0) is None


def test_bands_are_those_that_were_given_if_the_rate_reaches_them():
    options = InputOptions(bands_hz=((10.0, 200.0),), envelope_hz=(300.0, 400.0))
    assert feature_step("band_energies", VIBRATION, 1000.0, options).bands_hz == ((10.0, 200.0),)
    assert feature_step("envelope_spectrum", VIBRATION, 1000.0, options).low_hz == 300.0
    with pytest.raises(ConfigError, match=r"preprocess\.envelope_hz: 400 Hz is more than half"):
        feature_step("envelope_spectrum", VIBRATION, 500.0, options)


def test_features_that_need_more_rows_than_the_window_has_are_told():
    options = InputOptions(features=("moments", "window_statistics"))
    with pytest.raises(ConfigError, match=r"preprocess.features: 8 rows are fewer than the 9.*--window"):
        chosen_features(options, VIBRATION[:, :8], 1.0)


@pytest.mark.parametrize("kind", ["robust", "standard", "minmax", None])
def test_scaled_values_come_back_and_are_about_one(kind):
    values = np.random.default_rng(0).normal([5.0, -100.0], [0.1, 30.0], (2000, 2))
    step = scaling(kind, values)
    out = step.transform(values)
    assert isinstance(step, Standardise) and np.allclose(step.inverse(out), values)
    expected = {"minmax": (-1.0, 1.0)}.get(kind)
    if expected:
        assert out.min(axis=0) == pytest.approx([-1, -1]) and out.max(axis=0) == pytest.approx([1, 1])
    else:
        assert np.abs(out.mean(axis=0)).max() < 0.1 and np.abs(out.std(axis=0) - 1).max() < 0.1


@pytest.mark.parametrize("kind", ["robust", "standard", "minmax"])
def test_any_change_of_what_is_constant_shows_by_any_rule(kind):
    step = scaling(kind, np.tile([7.0, 0.0], (100, 1)))
    assert step.center.tolist() == [7.0, 0.0] and step.scale == pytest.approx([0.07, 1.0])


def test_robust_scaling_is_not_moved_by_wild_values():
    values = np.random.default_rng(0).normal(size=(2000, 1))
    values[::400] = 1e6
    assert scaling("robust", values).scale[0] == pytest.approx(1, abs=0.1)
    assert scaling("standard", values).scale[0] > 1e4
