"""Weights set to zero, and what it does to a file."""

import zlib

import numpy as np
import pytest

from tocsin.records import Floats32
from tocsin_trainer.convert import Converter
from tocsin_trainer.fit import fit
from tocsin_trainer.options import FitOptions
from tocsin_trainer.prune import Pruner, sparsity


def windows(count: int, seed: int) -> Floats32:
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * rng.random((count, 1, 1))
    return (np.sin(phase + np.arange(16)[None, :, None] / 3 + np.arange(2))).astype(np.float32)


def test_half_of_each_kernel_ends_at_zero_and_the_rest_still_learns() -> None:
    fitted = fit("conv_ae", windows(400, 0), windows(50, 1), 0, epochs=6, how=FitOptions(prune=0.5))
    for weight in fitted.model.get_weights():
        if weight.ndim > 1:
            assert np.mean(weight == 0) == pytest.approx(0.5, abs=0.01)
    assert sparsity(fitted.model) == pytest.approx(0.5, abs=0.01)
    assert fitted.validation_loss[-1] < 0.7 * fitted.validation_loss[0]


def test_without_pruning_nothing_is_zero() -> None:
    assert sparsity(fit("conv_ae", windows(100, 0), windows(50, 1), 0, epochs=1).model) < 0.01


def test_the_part_grows_and_zeros_stay() -> None:
    model = fit("conv_ae", windows(100, 0), windows(50, 1), 0, epochs=0).model
    pruner = Pruner(model, 0.8)
    parts, last = [], [np.zeros(w.shape, bool) for w in model.get_weights()]
    for epoch in range(8):
        done = pruner.tighten(epoch, 8)
        zero = [w == 0 for w in model.get_weights()]
        assert all((now | ~before).all() for now, before in zip(zero, last, strict=True) if now.ndim > 1)
        parts.append(sparsity(model))
        last = zero
        assert done == (epoch >= 3)
    assert parts == sorted(parts)
    assert parts[0] < 0.6 and parts[3:] == pytest.approx([0.8] * 5, abs=0.01)


def test_the_smallest_go_first() -> None:
    model = fit("conv_ae", windows(100, 0), windows(50, 1), 0, epochs=0).model
    before = model.get_weights()[0].copy()
    Pruner(model, 0.5).tighten(0, 1)
    after = model.get_weights()[0]
    assert np.abs(before[after == 0]).max() <= np.abs(after[after != 0]).min()


def test_an_int8_file_keeps_its_size_and_packs_smaller(converter: Converter) -> None:
    shown = windows(400, 0)
    files = []
    for part in (0.0, 0.8):
        fitted = fit("conv_ae", shown, windows(50, 1), 0, epochs=2, how=FitOptions(prune=part))
        converter.add(fitted, shown)
        files.append(converter.convert(fitted, "int8").content)
    full, pruned = files
    assert len(pruned) == pytest.approx(len(full), rel=0.02)
    assert len(zlib.compress(pruned)) < 0.8 * len(zlib.compress(full))
