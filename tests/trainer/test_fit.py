"""How a fit goes, whatever the family."""

import numpy as np
import pytest

from tocsin.records import Floats32
from tocsin_trainer.fit import EPOCH_WINDOWS, PATIENCE, fit
from tocsin_trainer.models import FAMILIES


def windows(count: int, seed: int) -> Floats32:
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * rng.random((count, 1, 1))
    course = np.sin(phase + np.arange(16)[None, :, None] / 3 + np.arange(2))
    return (course + rng.normal(0, 0.1, (count, 16, 2))).astype(np.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_weights(family: str) -> None:
    first, second = (fit(family, windows(300, 0), windows(50, 1), seed=3, epochs=2) for _ in range(2))
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
