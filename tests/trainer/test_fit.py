"""How a fit goes, whatever the family."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tocsin.core.interpreter import TfliteModel
from tocsin.records import Floats32
from tocsin_trainer.convert import Converter
from tocsin_trainer.fit import EPOCH_WINDOWS, PATIENCE, cosine, fit
from tocsin_trainer.hardware import gpus, uses_float16
from tocsin_trainer.models import FAMILIES
from tocsin_trainer.options import FitOptions
from tocsin_trainer.results import Fitted


def windows(count: int, seed: int) -> Floats32:
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * rng.random((count, 1, 1))
    course = np.sin(phase + np.arange(16)[None, :, None] / 3 + np.arange(2))
    return (course + rng.normal(0, 0.1, (count, 16, 2))).astype(np.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_weights(family: str) -> None:
    def fitted() -> Fitted:
        keras.utils.clear_session()  # as a new process: layers are named by a counter, and sums go by their names
        return fit(family, windows(300, 0), windows(50, 1), seed=3, epochs=2)

    first, second = fitted(), fitted()
    for a, b in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first.validation_loss, second.validation_loss)


def test_another_seed_gives_other_weights() -> None:
    first, second = (fit("conv_ae", windows(100, 0), windows(50, 1), seed, epochs=0) for seed in (1, 2))
    assert not np.array_equal(first.model.get_weights()[0], second.model.get_weights()[0])


def test_training_lowers_the_loss_and_reports_each_epoch() -> None:
    seen: list[tuple[int, int, float, float]] = []
    fitted = fit("conv_ae", windows(500, 0), windows(100, 1), seed=0, epochs=4, progress=lambda *at: seen.append(at))
    assert [epoch for epoch, *_ in seen] == [1, 2, 3, 4]
    assert {total for _, total, *_ in seen} == {4}
    assert [train for _, _, train, _ in seen] == fitted.train_loss.tolist()
    assert [validation for *_, validation in seen] == fitted.validation_loss.tolist()
    assert fitted.validation_loss[-1] < 0.7 * fitted.validation_loss[0]
    assert fitted.seconds > 0


def test_a_fit_that_gains_nothing_ends_early_with_its_best_weights() -> None:
    rng = np.random.default_rng(0)
    train, other = (rng.normal(size=(64, 16, 2)).astype(np.float32) for _ in range(2))
    fitted = fit("conv_ae", train, other, seed=0, epochs=200)
    best = int(fitted.validation_loss.argmin())
    assert len(fitted.validation_loss) < 200
    assert len(fitted.validation_loss) - 1 - best <= PATIENCE
    rebuilt = fitted.model.predict(other, verbose=0)
    assert np.mean((rebuilt - other) ** 2) == pytest.approx(fitted.validation_loss.min(), rel=0.006)


def test_a_closed_form_has_no_epochs() -> None:
    fitted = fit("pca", windows(300, 0), windows(50, 1), seed=0)
    assert fitted.train_loss.shape == fitted.validation_loss.shape == (0,)


def test_an_epoch_sees_a_bounded_number_of_windows() -> None:
    many = np.repeat(windows(100, 0), 200, axis=0)
    fitted = fit("conv_ae", many, windows(50, 1), seed=0, epochs=1)
    assert fitted.model.optimizer.iterations == EPOCH_WINDOWS // FAMILIES["conv_ae"].batch


def test_a_handful_of_windows_is_enough_to_run() -> None:
    few = windows(5, 0)
    for family in ("pca", "conv_ae"):
        fitted = fit(family, few, few, seed=0, epochs=1)
        assert np.isfinite(fitted.model(few)).all() and np.isfinite(fitted.validation_loss).all()


def test_a_cosine_runs_all_epochs_and_ends_with_a_small_step() -> None:
    how = FitOptions(schedule="cosine")
    fitted = fit("conv_ae", windows(300, 0), windows(50, 1), seed=0, epochs=6, how=how)
    assert len(fitted.validation_loss) == 6
    rates = [cosine(epoch, 6) for epoch in range(6)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1, 0.75, 0.25])
    assert float(fitted.model.optimizer.learning_rate) == pytest.approx(rates[-1] * FAMILIES["conv_ae"].learning_rate)


def test_float16_trains_as_well_and_leaves_a_float32_model() -> None:
    plain, half = (
        fit("conv_ae", windows(300, 0), windows(50, 1), 0, 3, how=FitOptions(mixed_precision=wanted))
        for wanted in ("off", "on")
    )
    assert half.model.output.dtype == "float32"
    assert {layer.compute_dtype for layer in half.model.layers} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    assert half.validation_loss.min() == pytest.approx(plain.validation_loss.min(), rel=0.1)
    assert not np.array_equal(half.train_loss, plain.train_loss)  # it was used


def test_on_a_cpu_auto_is_float32() -> None:
    assert uses_float16("on") and not uses_float16("off")
    assert uses_float16("auto") == bool(gpus())


def child(code: str, **environment: str) -> str:
    """Runs code in another process, whose backend and devices can still be chosen; gives what it prints."""
    place = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": place, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


TWO_DEVICES = """
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from test_fit import fit, np, windows, FitOptions
results = [fit("conv_ae", windows(130, 0), windows(50, 1), 0, 2, how=FitOptions(devices=names, augment=("mask",)))
           for names in (("CPU:0",), ("CPU:0", "CPU:1"))]
for a, b in zip(*(each.model.get_weights() for each in results), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
np.testing.assert_allclose(*(each.validation_loss for each in results), rtol=1e-4)
from tocsin_trainer.hardware import Devices
share = Devices(("CPU:0", "CPU:1")).share(np.arange(8, dtype=np.float32))
print([part.numpy().tolist() for part in share.values])
"""


def test_two_devices_share_each_batch_and_end_as_one_does() -> None:
    assert child(TWO_DEVICES).splitlines()[-1] == "[[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]"


ON_JAX = """
import sys
from pathlib import Path
import keras
assert keras.backend.backend() == "jax"
from test_fit import fit, np, windows, FitOptions
fitted = fit("conv_ae", windows(130, 0), windows(50, 1), 0, 3, how=FitOptions(work=Path(sys.argv[1])))
folder = Path(sys.argv[1])
fitted.model.save(folder / "there.keras")
np.save(folder / "there.npy", fitted.model(windows(20, 2)))
assert fitted.validation_loss[-1] < fitted.validation_loss[0]
"""


def test_what_jax_trained_is_taken_up_and_converted_here(tmp_path: Path, converter: Converter) -> None:
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed: pip install jax")
    without_tensorflow = f"import sys; sys.modules['tensorflow'] = None; sys.argv = ['', {str(tmp_path)!r}]"
    child(without_tensorflow + ON_JAX, KERAS_BACKEND="jax")
    there, shown = np.load(tmp_path / "there.npy"), windows(20, 2)
    loaded = keras.saving.load_model(tmp_path / "there.keras", compile=False)
    np.testing.assert_allclose(np.asarray(loaded(shown)), there, atol=1e-5)

    begun: list[int] = []
    how = FitOptions(work=tmp_path, resume=True)
    taken = fit("conv_ae", windows(130, 0), windows(50, 1), 0, 3, lambda epoch, *_: begun.append(epoch), how=how)
    assert begun == []
    np.testing.assert_allclose(np.asarray(taken.model(shown)), there, atol=1e-5)
    converter.add(taken, shown)
    converted = converter.convert(taken, "float32").content
    np.testing.assert_allclose(TfliteModel(converted).predict(shown), there, atol=1e-4)
