"""What every family keeps to, whatever the shape of the windows."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import keras
import numpy as np
import pytest

from tocsin.core.interpreter import TfliteModel
from tocsin.core.scoring import mean_square
from tocsin.errors import DataError
from tocsin.records import Floats, Floats32
from tocsin_trainer.convert import LADDER, Converter
from tocsin_trainer.fit import fit
from tocsin_trainer.gate import gate
from tocsin_trainer.inject import inject
from tocsin_trainer.models import FAMILIES
from tocsin_trainer.results import Fitted

SHAPES = [(8, 1), (60, 10), (37, 3)]
conformance = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_family = pytest.mark.parametrize("family", FAMILIES)


def waves(count: int, shape: tuple[int, int], seed: int) -> Floats32:
    """Sines with a phase of their own in each window, two rates over the channels, a little noise."""
    rng = np.random.default_rng(seed)
    length, channels = shape
    place = np.arange(length)[None, :, None] / 16 * (1 + np.arange(channels) % 2)
    phase = rng.random((count, 1, 1)) + np.arange(channels) / 7
    return (1.3 * np.sin(2 * np.pi * (place + phase)) + rng.normal(0, 0.1, (count, *shape))).astype(np.float32)


@cache
def fitted(family: str, shape: tuple[int, int]) -> Fitted:
    return fit(family, waves(768, shape, 0), waves(128, shape, 1), seed=0, epochs=6)


def rebuilt_by(model: Any, windows: Floats32) -> Floats32:
    return np.asarray(keras.ops.convert_to_numpy(model(windows, training=False)))


def scores(family: str, out: Floats32, windows: Floats32) -> Floats:
    return np.asarray(mean_square(out if FAMILIES[family].kind == "whiten" else windows - out).mean(axis=1))


@pytest.fixture(scope="module", autouse=True)  # its child loads tensorflow while the first models are fitted
def converter() -> Iterator[Converter]:
    with Converter() as converter:
        yield converter


@each_family
@conformance
def test_a_family_keeps_the_shape_and_explains_what_it_knows_better_than_noise(
    family: str, shape: tuple[int, int]
) -> None:
    model = fitted(family, shape).model
    known = waves(200, shape, 2)
    noise = np.random.default_rng(3).normal(0, known.std(), known.shape).astype(np.float32)
    rebuilt = rebuilt_by(model, known)
    assert rebuilt.shape == known.shape and rebuilt.dtype == np.float32
    assert np.median(scores(family, rebuilt, known)) < 0.5 * np.median(scores(family, rebuilt_by(model, noise), noise))


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.kind == "reconstruct"])
@conformance
def test_int8_passes_the_gate_on_an_easy_signal(family: str, shape: tuple[int, int], converter: Converter) -> None:
    model = fitted(family, shape)
    converter.add(model, waves(768, shape, 0))
    normal = waves(200, shape, 2)
    injected, _ = inject(normal, seed=4, repeats=3)
    before = [scores(family, rebuilt_by(model.model, windows), windows) for windows in (normal, injected)]
    for precision, headroom in LADDER:
        converted = TfliteModel(converter.convert(model, precision, headroom).content)
        after = [scores(family, converted.predict(windows), windows) for windows in (normal, injected)]
        limits = [1.2 * float(np.quantile(part[0], 0.995)) for part in (before, after)]
        verdict = gate(before[0], after[0], before[1], after[1], limits[0], limits[1])
        if verdict.passed:
            break
    assert (precision, verdict.reason) == ("int8", "")


@each_family
def test_a_saved_model_loads_without_code_of_ours(family: str, tmp_path: object) -> None:
    model = fitted(family, (37, 3)).model
    path = f"{tmp_path}/model.keras"
    model.save(path)
    again = keras.saving.load_model(path, compile=False, safe_mode=True)
    windows = waves(5, (37, 3), 2)
    np.testing.assert_array_equal(rebuilt_by(again, windows), rebuilt_by(model, windows))
    assert all(type(layer).__module__.startswith("keras.") for layer in again.layers)


def test_t2_decides_alike_in_int8_on_level_and_unrest(converter: Converter) -> None:
    rng = np.random.default_rng(5)
    normal = rng.normal(size=(900, 2, 4)).astype(np.float32)
    model = fit("t2", normal[:600], normal[:600], seed=0)
    converter.add(model, normal[:600])
    content = converter.convert(model, "int8", 2.0).content
    far = normal[600:] * rng.uniform(0.5, 3, (300, 1, 1)).astype(np.float32)
    before, after = (
        scores("t2", out, far) for out in (rebuilt_by(model.model, far), TfliteModel(content).predict(far))
    )
    limit = 3.0
    assert np.mean((before >= limit) == (after >= limit)) >= 0.99


def test_t2_is_the_mahalanobis_distance_when_there_are_windows_enough() -> None:
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(4000, 6)) @ (np.eye(6) + 0.3 * rng.normal(size=(6, 6))) + 3
    windows = mixed.reshape(-1, 2, 3).astype(np.float32)
    out = rebuilt_by(fit("t2", windows, windows, seed=0).model, windows).reshape(-1, 6)
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
    np.testing.assert_allclose(rebuilt_by(model, windows[400:]), windows[400:], atol=1e-4)
    assert model.get_layer("encode").units == 2


def test_pca_stays_small_for_long_windows_of_many_channels() -> None:
    windows = np.random.default_rng(0).normal(size=(300, 256, 20)).astype(np.float32)
    assert fit("pca", windows, windows, seed=0).model.count_params() < 300_000
