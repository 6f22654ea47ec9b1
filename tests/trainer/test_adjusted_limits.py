"""Limits on each number given all others, and the rounding of weights that keeps them whole in int8."""

from typing import Any

import keras
import numpy as np
import pytest

from tocsin.core.interpreter import TfliteModel
from tocsin.errors import DataError
from tocsin.records import Floats32
from tocsin_trainer.convert import Converter
from tocsin_trainer.fit import fit
from tocsin_trainer.gate import roc_auc
from tocsin_trainer.models import FAMILIES
from tocsin_trainer.models.rounding import STEPS, rounded
from tocsin_trainer.models.t2 import MAX_INPUTS

LENGTH, CHANNELS, CONDITIONS = 20, 4, 3


def cycles(count: int, seed: int, length: int = LENGTH) -> Floats32:
    """Cycles of a machine whose three conditions shape all channels, and a little noise; spread about 1."""
    shape = np.random.default_rng(9).normal(size=(CONDITIONS, length, CHANNELS)) / np.sqrt(CONDITIONS)
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(count, CONDITIONS))
    made = np.einsum("ks,stc->ktc", state, shape) + rng.normal(0, 0.2, (count, length, CHANNELS))
    return made.astype(np.float32)


def outputs(family: str, train: Floats32, windows: Floats32) -> Any:
    model = fit(family, train, train[:1], seed=0).model
    return np.asarray(keras.ops.convert_to_numpy(model(windows)), np.float64)


def test_each_number_is_taken_off_what_the_others_let_expect_of_it() -> None:
    train, windows = cycles(20_000, 0, 3)[:8192], cycles(50, 1, 3)
    found = outputs("adjusted_limits", train, windows).reshape(50, -1)
    known, seen = train.reshape(len(train), -1).astype(np.float64), windows.reshape(50, -1)
    for n in range(known.shape[1]):
        design, shown = (np.delete(np.column_stack([part, np.ones(len(part))]), n, axis=1) for part in (known, seen))
        slope = np.linalg.lstsq(design, known[:, n], rcond=None)[0]
        spread = (known[:, n] - design @ slope).std()
        np.testing.assert_allclose(found[:, n], (seen[:, n] - shown @ slope) / spread, atol=0.15)


def test_an_excursion_within_the_limits_of_each_number_shows_once_the_conditions_are_taken_off() -> None:
    train, normal, odd = cycles(600, 0), cycles(200, 1), cycles(200, 2)
    odd[:, 7, 2] += 1.5
    area = {
        family: roc_auc(*((outputs(family, train, part) ** 2).max(axis=(1, 2)) for part in (normal, odd)))
        for family in ("limits", "adjusted_limits")
    }
    assert area["limits"] < 0.75
    assert area["adjusted_limits"] > 0.97


def test_without_relations_it_is_limits_on_each_number() -> None:
    train = np.random.default_rng(0).normal(size=(30, LENGTH, CHANNELS)).astype(np.float32)  # fewer than numbers
    given = outputs("adjusted_limits", train, train).ravel()
    assert np.corrcoef(given, train.ravel())[0, 1] > 0.95


def test_of_a_long_window_means_of_as_few_rows_as_the_layer_takes_are_looked_at() -> None:
    length = 401
    train = cycles(60, 0, length)
    made = outputs("adjusted_limits", train, train)
    each = next(n for n in range(1, length) if length // n * CHANNELS <= MAX_INPUTS)
    assert each == 3 and made.shape == train.shape
    np.testing.assert_array_equal(made[:, : length % each], 0.0)
    parts = made[:, length % each :].reshape(60, -1, each, CHANNELS)
    np.testing.assert_array_equal(parts, np.broadcast_to(parts[:, :, :1], parts.shape))
    assert np.unique(parts[0, :, 0]).size == length // each * CHANNELS


def test_more_channels_than_the_layer_takes_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"adjusted_limits takes up to 768 channels, got 769"):
        fit("adjusted_limits", np.zeros((4, 2, 769), np.float32), np.zeros((1, 2, 769), np.float32), seed=0)


def test_weights_rounded_together_give_what_the_exact_ones_give_where_plain_rounding_does_not() -> None:
    train = cycles(600, 0).reshape(600, -1).astype(np.float64)
    covariance = np.cov(train.T)
    precision = np.linalg.inv(covariance)
    exact = precision / np.sqrt(np.diag(precision))
    step = np.abs(exact).max(axis=0) / STEPS
    together = rounded(exact, covariance)
    np.testing.assert_allclose(together / step, np.round(together / step), atol=1e-6)
    assert np.abs(together / step).max() <= STEPS + 1e-6
    fresh = cycles(300, 1).reshape(300, -1)
    off, plain = (np.std(fresh @ (weights - exact)) for weights in (together, np.round(exact / step) * step))
    assert off < 0.5 * plain


def test_what_is_left_of_a_number_survives_int8(converter: Converter) -> None:
    train, windows = cycles(600, 0), cycles(100, 1)
    model = fit("adjusted_limits", train, train[:1], seed=0)
    converter.add(model, train)
    exact, small = (TfliteModel(converter.convert(model, form).content) for form in ("float32", "int8"))
    inside = windows[np.abs(windows).max(axis=(1, 2)) < np.abs(train).max() / 2]
    assert np.std(small.predict(inside) - exact.predict(inside)) < 0.3
    assert FAMILIES["adjusted_limits"].kind == "limits"
