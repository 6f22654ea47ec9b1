"""Converted files say what the Keras model says; the gate and the anomalies that judge them."""

from collections import Counter
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from tocsin.core.interpreter import TfliteModel, runtime
from tocsin.core.preprocess import Limit, Preprocessor
from tocsin.core.scoring import Member, residual
from tocsin.errors import TocsinError
from tocsin.records import Floats32
from tocsin_trainer.convert import HEADROOMS, REPRESENTATIVE, Converter, representative
from tocsin_trainer.fit import fit
from tocsin_trainer.gate import gate, roc_auc
from tocsin_trainer.inject import KINDS, STRENGTHS, inject
from tocsin_trainer.models import FAMILIES
from tocsin_trainer.results import Fitted

SHAPE = (37, 3)  # cropped inside
each_family = pytest.mark.parametrize("family", FAMILIES)


def windows(count: int, seed: int) -> Floats32:
    rng = np.random.default_rng(seed)
    walk = rng.normal(size=(count, 1, 3)) + np.sin(np.arange(37)[None, :, None] / 5 + 6 * rng.random((count, 1, 1)))
    return (walk + rng.normal(0, 0.2, (count, *SHAPE))).astype(np.float32)


TRAIN, OTHER = windows(400, 0), windows(130, 1)


@pytest.fixture(scope="module")
def models(converter: Converter) -> dict[str, Fitted]:
    """One of each family; weights need not be trained to be converted."""
    fitted = {family: fit(family, TRAIN, OTHER, seed=0, epochs=0) for family in FAMILIES}
    for model in fitted.values():
        converter.add(model, TRAIN)
    return fitted


def details(content: bytes) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Operators and tensors of the file as it is written, no delegate applied."""
    plain = runtime().OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = runtime().Interpreter(model_content=content, experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    return Counter(op["op_name"] for op in interpreter._get_ops_details()), interpreter.get_tensor_details()


@each_family
def test_the_float_file_equals_keras(family: str, models: dict[str, Fitted], converter: Converter) -> None:
    content = converter.convert(models[family], "float32").content
    expected = models[family].model.predict(OTHER, verbose=0)
    np.testing.assert_allclose(TfliteModel(content).predict(OTHER), expected, atol=1e-4)


@each_family
def test_int8_is_int8_but_for_the_two_ends(family: str, models: dict[str, Fitted], converter: Converter) -> None:
    content = converter.convert(models[family], "int8", 1.5).content
    operators, tensors = details(content)
    floats = [tensor["name"] for tensor in tensors if tensor["dtype"] == np.float32]
    assert len([name for name in floats if "_intermediate" not in name]) == 2, floats  # those only carry gate ranges
    assert np.int8 in {tensor["dtype"] for tensor in tensors}
    assert operators["QUANTIZE"] == operators["DEQUANTIZE"] == 1
    assert sum(operators.values()) < 25
    error = TfliteModel(content).predict(OTHER) - models[family].model.predict(OTHER, verbose=0)
    allowed = 0.2 if FAMILIES[family].extremes else 0.1  # outputs have a range many times that of normal running
    assert float(np.sqrt(np.mean(error**2))) < allowed


def test_an_lstm_layer_is_one_operator(models: dict[str, Fitted], converter: Converter) -> None:
    for precision in ("int8", "dynamic", "float32"):
        operators, _ = details(converter.convert(models["lstm_ae"], precision).content)
        assert operators["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 2
        assert not {"WHILE", "CONCATENATION"} & set(operators)


@each_family
@pytest.mark.parametrize(("precision", "headroom"), [("int8", 2.0), ("float32", 1.0)])
def test_the_batch_file_gives_the_rows_of_the_single_one(
    family: str, precision: str, headroom: float, models: dict[str, Fitted], converter: Converter
) -> None:
    one = converter.convert(models[family], precision, headroom)
    both = converter.with_batch(models[family], one)
    if FAMILIES[family].recurrent:
        assert both is one and both.batch_content is None
        return
    assert both.batch_content is not None and both.content == one.content
    alone, together = TfliteModel(one.content).predict(OTHER), TfliteModel(both.content, both.batch_content)
    if precision == "int8":
        np.testing.assert_array_equal(together.predict(OTHER), alone)
    else:
        np.testing.assert_allclose(together.predict(OTHER), alone, atol=1e-5)


def test_each_headroom_makes_another_file(models: dict[str, Fitted], converter: Converter) -> None:
    rungs = [converter.convert(models["pca"], "int8", headroom) for headroom in HEADROOMS]
    assert len({rung.content for rung in rungs}) == len(HEADROOMS)


@pytest.mark.parametrize("family", ["pca", "pca_short", "t2"])
def test_linear_int8_models_score_windows_far_outside_as_float_ones_do(
    family: str, models: dict[str, Fitted], converter: Converter
) -> None:
    rng = np.random.default_rng(2)
    faults = (OTHER * rng.uniform(1, 40, (len(OTHER), 1, 1)) + rng.normal(0, 5, (len(OTHER), 1, 3))).astype(np.float32)
    rung, kind = converter.convert(models[family], "int8"), FAMILIES[family].kind
    shown = Preprocessor((Limit(1000.0),))
    expected = residual(kind, faults, models[family].model.predict(faults, verbose=0))
    found = Member(TfliteModel(rung.content), shown, kind, input_range=rung.input_range).residual(faults)
    ratio = (found**2).mean(axis=(1, 2)) / (expected**2).mean(axis=(1, 2))
    assert np.percentile(np.abs(np.log(ratio)), 90) < 0.2


def test_headroom_lets_drift_through_that_plain_ranges_cut_off(models: dict[str, Fitted], converter: Converter) -> None:
    drifted = 3 * OTHER
    expected = models["dense_ae"].model.predict(drifted, verbose=0)

    def error(headroom: float) -> float:
        content = converter.convert(models["dense_ae"], "int8", headroom).content
        return float(np.mean((TfliteModel(content).predict(drifted) - expected) ** 2))

    assert error(3.0) < 0.1 * error(1.0)


def test_a_model_that_does_not_convert_is_named_and_the_next_one_converts(
    models: dict[str, Fitted], converter: Converter
) -> None:
    window = keras.Input(SHAPE)
    bad = keras.Model(window, keras.layers.Lambda(lambda x: x)(window))  # a safe load refuses code in a file
    broken = replace(models["conv_ae"], model=bad)
    converter.add(broken, TRAIN)
    with pytest.raises(TocsinError, match=r"conversion of conv_ae to int8.*exit code 1.*[Ll]ambda"):
        converter.convert(broken, "int8")
    assert TfliteModel(converter.convert(models["pca"], "float32").content).input_shape == (1, *SHAPE)


def test_representative_windows_hold_the_widest_swing() -> None:
    many = windows(2000, 5)
    many[1234] *= 9
    chosen = representative(many)
    assert 200 <= len(chosen) <= REPRESENTATIVE
    assert (chosen == many[1234]).all(axis=(1, 2)).any()
    np.testing.assert_array_equal(representative(many[:10]), many[:10])


def test_the_gate_passes_equal_scores_and_names_what_differs() -> None:
    rng = np.random.default_rng(0)
    normal, injected = rng.gamma(4, 0.1, 500), rng.gamma(4, 0.4, 500)
    same = gate(normal, normal, injected, injected, 1.0, 1.0)
    assert same.passed and same.reason == "" and same.agreement == 1.0
    assert same.auc_float == same.auc_converted == roc_auc(normal, injected)
    assert gate(normal, 2 * normal, injected, 2 * injected, 1.0, 2.0).passed, "a scale of its own is no difference"
    assert "decisions" in gate(normal, normal, injected, injected, 1.0, 1.3).reason
    assert "ROC-AUC" in gate(normal, normal, injected, injected - 0.3, 1.0, 1.0).reason
    assert "correlate" in gate(normal, rng.permutation(normal), injected, injected, 1.0, 1.0).reason
    broken = gate(normal, np.full(500, np.nan), injected, np.full(500, np.nan), 1.0, np.nan)
    assert not broken.passed


def test_roc_auc_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    normal, anomalous = rng.integers(0, 20, 300).astype(float), rng.integers(5, 25, 200).astype(float)
    label = np.repeat([0, 1], [300, 200])
    assert roc_auc(normal, anomalous) == pytest.approx(roc_auc_score(label, np.concatenate([normal, anomalous])))


def test_injected_anomalies_repeat_by_seed_and_leave_the_normal_windows_alone() -> None:
    kept = OTHER.copy()
    first, names = inject(OTHER, seed=1)
    again, _ = inject(OTHER, seed=1)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(OTHER, kept)
    assert not np.array_equal(first, inject(OTHER, seed=2)[0])
    assert first.dtype == np.float32 and np.isfinite(first).all()
    assert Counter(names) == {kind: len(STRENGTHS) * 2 * 6 for kind in KINDS}


def test_every_kind_changes_every_window_somewhere() -> None:
    apart = np.random.default_rng(0).normal(size=(40, 12, 2)).astype(np.float32)
    injected, names = inject(apart, seed=0)
    for window, name in zip(injected, names, strict=True):
        same_rows = (window[None] == apart).all(axis=2).sum(axis=1)
        assert same_rows.max() < 12, name


def test_one_channel_has_no_other_to_disagree_with() -> None:
    injected, names = inject(OTHER[:, :, :1], seed=0)
    assert "correlation" not in names and injected.shape[1:] == (37, 1)
    assert inject(OTHER[:, :8], seed=0)[0].shape[1:] == (8, 3)
