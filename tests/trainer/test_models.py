"""What every family keeps to, each kind its own suite."""

from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tocsin.core.bundle import write_bundle
from tocsin.core.interpreter import TfliteModel
from tocsin.core.preprocess import Limit, Preprocessor, Standardise
from tocsin.core.scoring import LOG_STD_FLOOR, Member, Scorer, mean_square, residual
from tocsin.core.threshold import Threshold
from tocsin.errors import DataError
from tocsin.records import Floats, Floats32
from tocsin_trainer.convert import LADDER, Converted, Converter
from tocsin_trainer.export import golden_vectors
from tocsin_trainer.fit import fit
from tocsin_trainer.gate import gate
from tocsin_trainer.inject import inject
from tocsin_trainer.models import FAMILIES, conv_predictor, latent_ae, losses
from tocsin_trainer.options import ALL_FAMILIES
from tocsin_trainer.options import FAMILIES as BY_DEFAULT
from tocsin_trainer.results import Fitted

SHAPE = (37, 3)  # cropped inside
PREDICTORS = ("conv_predictor", "lstm_predictor")
EPOCHS = 8
each_family = pytest.mark.parametrize("family", FAMILIES)


def of_kind(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.kind == kind])


def waves(count: int, seed: int, shape: tuple[int, int] = SHAPE) -> Floats32:
    """Sines with a phase of their own in each window, two rates over the channels, a little noise."""
    rng = np.random.default_rng(seed)
    length, channels = shape
    place = np.arange(length)[None, :, None] / 16 * (1 + np.arange(channels) % 2)
    phase = rng.random((count, 1, 1)) + np.arange(channels) / 7
    return (1.3 * np.sin(2 * np.pi * (place + phase)) + rng.normal(0, 0.1, (count, *shape))).astype(np.float32)


TRAIN, KNOWN = waves(768, 0), waves(200, 2)
NOISE = np.random.default_rng(3).normal(0, KNOWN.std(), KNOWN.shape).astype(np.float32)
INJECTED, _ = inject(KNOWN, seed=4, repeats=3)


@cache
def fitted(family: str) -> Fitted:
    return fit(family, TRAIN, waves(128, 1), seed=0, epochs=EPOCHS)


@cache
def int8(family: str, converter: Converter) -> tuple[Converted, str]:
    """The first rung that passes the gate, or the last one; and why it does not pass."""
    model = fitted(family)
    converter.add(model, TRAIN)
    before = [scores(family, given_by(model.model, windows), windows) for windows in (KNOWN, INJECTED)]
    for precision, headroom in LADDER:
        if precision != "int8":
            break
        rung = converter.convert(model, precision, headroom)
        converted = TfliteModel(rung.content)
        after = [scores(family, converted.predict(windows), windows) for windows in (KNOWN, INJECTED)]
        limits = [1.2 * float(np.quantile(part[0], 0.995)) for part in (before, after)]
        verdict = gate(before[0], after[0], before[1], after[1], limits[0], limits[1])
        if verdict.passed:
            break
    return rung, verdict.reason


def given_by(model: Any, windows: Floats32) -> Floats32:
    return np.asarray(keras.ops.convert_to_numpy(model(windows, training=False)))


def scores(family: str, out: Floats32, windows: Floats32) -> Floats:
    return np.asarray(mean_square(residual(FAMILIES[family].kind, windows, out)).mean(axis=1))


def test_the_command_line_knows_every_family() -> None:
    assert tuple(FAMILIES) == ALL_FAMILIES
    assert set(BY_DEFAULT) <= set(ALL_FAMILIES)


@each_family
@pytest.mark.parametrize("shape", [(8, 1), SHAPE, (60, 10)], ids=str)
def test_a_family_gives_the_rows_of_its_kind_whatever_the_shape(family: str, shape: tuple[int, int]) -> None:
    windows, (length, channels) = waves(64, 0, shape), shape
    _, given, columns = fit(family, windows, windows, seed=0, epochs=0).model.output_shape
    match FAMILIES[family].kind:
        case "probability":
            expected = range(2 * length, 2 * length + 1)
        case "whiten":
            expected = range(1, length + 1)
        case _:
            fewer = family in (*PREDICTORS, "pca_short")  # the first rows have no past, or are not looked at
            expected = range(length // 2, length) if fewer else range(length, length + 1)
    assert columns == channels and given in expected


@of_kind("reconstruct")
def test_a_reconstructor_rebuilds_what_it_knows_better_than_noise(family: str) -> None:
    known, noise = (np.median(scores(family, given_by(fitted(family).model, x), x)) for x in (KNOWN, NOISE))
    assert known < 0.5 * noise
    assert known < 0.5 * KNOWN.var()


@pytest.mark.parametrize("family", PREDICTORS)
def test_a_predictor_beats_persistence(family: str) -> None:
    out = given_by(fitted(family).model, KNOWN)
    rows = out.shape[1]
    persistence = np.mean((KNOWN[:, -rows:] - KNOWN[:, -rows - 1 : -1]) ** 2)
    assert np.mean((KNOWN[:, -rows:] - out) ** 2) < 0.5 * persistence


@pytest.mark.parametrize("family", PREDICTORS)
def test_a_predictor_does_not_see_the_row_that_it_predicts_nor_those_after_it(family: str) -> None:
    changed = KNOWN[:20].copy()
    changed[:, 30:] = 9.0
    before, after = (given_by(fitted(family).model, windows) for windows in (KNOWN[:20], changed))
    first = SHAPE[0] - before.shape[1]
    np.testing.assert_array_equal(before[:, : 31 - first], after[:, : 31 - first])
    assert not np.array_equal(before[:, 31 - first], after[:, 31 - first])


@of_kind("probability")
def test_a_probability_holds_noise_for_less_likely_than_what_it_knows_and_knows_how_sure_it_is(family: str) -> None:
    model = fitted(family).model
    known, noise = (np.median(scores(family, given_by(model, x), x)) for x in (KNOWN, NOISE))
    assert known < 0.5 * noise
    mean, log_std = np.split(given_by(model, KNOWN), 2, axis=1)
    claimed = np.exp(np.maximum(log_std, LOG_STD_FLOOR))
    assert 0.7 < np.sqrt(np.mean((KNOWN - mean) ** 2)) / np.sqrt(np.mean(claimed**2)) < 1.4


@of_kind("probability")
def test_a_probability_is_scored_by_plain_layers_at_the_mean_of_its_latent_vector(family: str) -> None:
    model = fitted(family).model
    assert {"z", "log_variance"}.isdisjoint(layer.name for layer in model.layers)
    trained = FAMILIES[family].build(TRAIN, 0)
    cut = FAMILIES[family].finish
    assert cut is not None
    np.testing.assert_allclose(given_by(cut(trained, TRAIN), KNOWN), given_by(trained, KNOWN), rtol=1e-5, atol=1e-6)
    noisy = np.asarray(keras.ops.convert_to_numpy(trained(KNOWN, training=True)))
    assert not np.allclose(noisy, given_by(trained, KNOWN))


@of_kind("whiten")
def test_a_distance_is_larger_for_noise_than_for_what_it_knows(family: str) -> None:
    known, noise = (np.median(scores(family, given_by(fitted(family).model, x), x)) for x in (KNOWN, NOISE))
    assert known < 0.5 * noise


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "t2"])  # it is shown level and unrest: below
def test_int8_passes_the_gate_on_an_easy_signal(family: str, converter: Converter) -> None:
    rung, reason = int8(family, converter)
    assert (rung.precision, reason) == ("int8", "")
    assert len(rung.content) < 120 * 1024


@each_family
def test_int8_reproduces_its_golden_vectors_from_a_bundle(family: str, converter: Converter, tmp_path: Path) -> None:
    content = int8(family, converter)[0].content
    shown = Preprocessor((Standardise(np.zeros(3), np.ones(3)), Limit(1000.0)))
    kind = FAMILIES[family].kind
    made = Scorer((Member(TfliteModel(content), shown, kind),), np.ones(3), Threshold(1.0))
    manifest = {
        "name": "x",
        "version": "1",
        "groups": [{"channels": [{"name": name} for name in "abc"], "sample_rate_hz": 1.0, "max_gap_s": 1.0}],
        "window": {"length": SHAPE[0], "hop": 1},
        "members": [
            {"name": family, "family": family, "kind": kind, "file": "m.tflite", "batch_file": None}
            | {"precision": "int8", "normaliser": 1.0, "preprocess": shown.to_json()}
        ],
        "score": {"reduction": "mean_square", "combination": "mean", "channel_weights": [1.0] * 3}
        | {"smoothing": {"method": "geometric_ewma", "span": 1}},
        "threshold": {"method": "quantile", "value": 1.0, "parameters": {}},
        "alarm": {},
    }
    golden = golden_vectors(made, KNOWN.astype(np.float64), INJECTED.astype(np.float64))
    bundle = write_bundle(tmp_path / "x.tocsin", manifest, {"m.tflite": content}, golden, "card")
    test = bundle.self_test()
    assert test.passed and test.worst < 1e-6
    parts = bundle.scorer().explain(golden.windows[0], bundle.manifest.channels)
    assert sum(part.share for part in parts) == pytest.approx(1)


@each_family
def test_a_saved_model_loads_without_code_of_ours(family: str, tmp_path: object) -> None:
    model = fitted(family).model
    path = f"{tmp_path}/model.keras"
    model.save(path)
    again = keras.saving.load_model(path, compile=False, safe_mode=True)
    windows = KNOWN[:5]
    np.testing.assert_array_equal(given_by(again, windows), given_by(model, windows))
    assert all(type(layer).__module__.startswith("keras.") for layer in again.layers)


def test_t2_decides_alike_in_int8_on_level_and_unrest(converter: Converter) -> None:
    rng = np.random.default_rng(5)
    normal = rng.normal(size=(900, 2, 4)).astype(np.float32)
    model = fit("t2", normal[:600], normal[:600], seed=0)
    converter.add(model, normal[:600])
    content = converter.convert(model, "int8", 2.0).content
    far = normal[600:] * rng.uniform(0.5, 3, (300, 1, 1)).astype(np.float32)
    before, after = (scores("t2", out, far) for out in (given_by(model.model, far), TfliteModel(content).predict(far)))
    limit = 3.0
    assert np.mean((before >= limit) == (after >= limit)) >= 0.99


def test_t2_is_the_mahalanobis_distance_when_there_are_windows_enough() -> None:
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(4000, 6)) @ (np.eye(6) + 0.3 * rng.normal(size=(6, 6))) + 3
    windows = mixed.reshape(-1, 2, 3).astype(np.float32)
    out = given_by(fit("t2", windows, windows, seed=0).model, windows).reshape(-1, 6)
    centred = mixed - mixed.mean(axis=0)
    expected = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(np.cov(mixed.T)), centred)
    np.testing.assert_allclose((out**2).sum(axis=1), expected, rtol=0.1)
    np.testing.assert_allclose(np.cov(out.T), np.eye(6), atol=0.05)


def test_t2_refuses_more_numbers_a_window_than_it_can_hold() -> None:
    windows = np.zeros((10, 256, 20), np.float32)
    with pytest.raises(DataError, match="--columns"):
        fit("t2", windows, windows, seed=0)


def test_pca_rebuilds_a_plane_exactly() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(2, 40 * 3))
    windows = (1.5 + rng.normal(size=(500, 2)) @ plane).reshape(-1, 40, 3).astype(np.float32)
    model = fit("pca", windows[:400], windows[400:], seed=0).model
    np.testing.assert_allclose(given_by(model, windows[400:]), windows[400:], atol=1e-4)
    assert model.get_layer("encode").units == 2


def test_pca_stays_small_for_long_windows_of_many_channels() -> None:
    windows = np.random.default_rng(0).normal(size=(300, 256, 20)).astype(np.float32)
    assert fit("pca", windows, windows, seed=0).model.count_params() < 300_000


def test_predictions_are_made_of_half_the_window_at_most() -> None:
    for length in range(8, 300):
        assert 2 * conv_predictor.past(conv_predictor.layers(length)) <= length


def test_the_deviance_that_is_trained_is_the_one_that_is_scored() -> None:
    rng = np.random.default_rng(0)
    windows, out = rng.normal(size=(5, 6, 2)).astype(np.float32), rng.normal(size=(5, 12, 2)).astype(np.float32)
    out[:, 6:] = np.maximum(out[:, 6:], LOG_STD_FLOOR)  # below it, training alone pays
    expected = 0.5 * mean_square(residual("probability", windows, out)).mean()
    assert float(losses.deviance(windows, out)) == pytest.approx(expected, rel=1e-5)


def test_the_latent_distance_is_mahalanobis_and_keeps_to_its_channels() -> None:
    """Channels that have nothing to do with each other: each disturbs its own column most."""
    rng = np.random.default_rng(0)
    phase = 2 * np.pi * rng.random((700, 1, 3))
    windows = np.sin(phase + np.arange(32)[None, :, None] / np.array([3, 5, 8])).astype(np.float32)
    model = fit("latent_ae", windows[:600], windows[600:], seed=0, epochs=4).model
    latent = keras.Model(model.input, model.get_layer("latent").output).predict(windows, verbose=0)
    latent = latent.reshape(len(windows), -1).astype(np.float64)
    out = given_by(model, windows).astype(np.float64)
    kernel, bias = (np.asarray(w, np.float64) for w in model.get_layer("whiten").get_weights())
    np.testing.assert_allclose(out.reshape(len(out), -1), latent @ kernel + bias, atol=1e-3)
    precision = kernel @ kernel.T
    centred = latent - latent[:600].mean(axis=0)
    distance = np.einsum("ni,ij,nj->n", centred, precision, centred)
    np.testing.assert_allclose((out**2).sum(axis=(1, 2)), distance, rtol=1e-3, atol=1e-2)
    for c in range(3):
        hit = windows[600:].copy()
        hit[:, :, c] *= 2.5
        more = mean_square(residual("whiten", hit, given_by(model, hit))).mean(axis=0)
        assert more.argmax() == c


def test_of_all_rotations_the_one_that_correlates_most_is_taken() -> None:
    rng = np.random.default_rng(0)
    white = np.linalg.qr(rng.normal(size=(400, 5)) - 0.0)[0] * 20
    targets = np.column_stack([white[:, [3, 1, 0]] + rng.normal(0, 0.3, (400, 3)), rng.normal(size=(400, 3))])
    found = latent_ae.rotation(white, targets)
    np.testing.assert_allclose(found @ found.T, np.eye(5), atol=1e-12)
    best = np.sum((white @ found) * targets)
    for _ in range(50):
        other = np.linalg.qr(rng.normal(size=(6, 6)))[0][:5]
        assert np.sum((white @ other) * targets) < best
    assert np.corrcoef((white @ found)[:, 0], targets[:, 0])[0, 1] > 0.9


def test_latent_spaces_of_long_windows_of_many_channels_stay_small() -> None:
    windows = np.random.default_rng(0).normal(size=(40, 1024, 6)).astype(np.float32)
    model = fit("latent_ae", windows, windows, seed=0, epochs=0).model
    assert model.get_layer("whiten").count_params() < 70_000
