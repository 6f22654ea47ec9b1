"""What is done to training windows, each for itself."""

import numpy as np
import pytest

from tocsin.records import Floats32
from tocsin_trainer.augment import CHANGES, SPOILED, SPOILERS, augmented
from tocsin_trainer.options import AUGMENTATIONS, FitOptions


def windows(count: int = 400, length: int = 32, channels: int = 3) -> Floats32:
    rng = np.random.default_rng(0)
    phase = 2 * np.pi * rng.random((count, 1, 1))
    return (1.5 + np.sin(phase + np.arange(length)[None, :, None] / 4 + np.arange(channels))).astype(np.float32)


def made(*kinds: str, seed: int = 1) -> tuple[Floats32, Floats32]:
    return augmented(windows(), kinds, np.random.default_rng(seed))


def test_the_names_that_a_user_may_say_are_those_there_are() -> None:
    assert set(AUGMENTATIONS) == set(CHANGES) | set(SPOILERS)


def test_nothing_asked_for_changes_nothing() -> None:
    shown, wanted = made()
    np.testing.assert_array_equal(shown, windows())
    np.testing.assert_array_equal(wanted, windows())


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_keeps_shape_and_type_and_repeats_by_seed(name: str) -> None:
    first, again, other = made(name), made(name), made(name, seed=2)
    for part in (0, 1):
        assert first[part].shape == windows().shape and first[part].dtype == np.float32
        np.testing.assert_array_equal(first[part], again[part])
    assert np.isfinite(first[0]).all()
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("name", CHANGES)
def test_what_could_be_normal_is_the_target_too_and_is_near(name: str) -> None:
    shown, wanted = made(name)
    np.testing.assert_array_equal(shown, wanted)
    moved = np.abs(shown - windows()).mean()
    assert 0.005 < moved < 0.4


@pytest.mark.parametrize("name", SPOILERS)
def test_what_spoils_the_input_leaves_the_target_and_some_windows_alone(name: str) -> None:
    shown, wanted = made(name)
    np.testing.assert_array_equal(wanted, windows())
    hit = (shown != wanted).any(axis=(1, 2)).mean()
    assert hit == pytest.approx(SPOILED, abs=0.1)


def test_a_mask_is_one_span_of_zeros_over_all_channels() -> None:
    shown, _ = made("mask")
    gone = (shown == 0).all(axis=2)
    assert np.array_equal(gone, (shown == 0).any(axis=2))
    assert (np.abs(np.diff(gone.astype(int), axis=1)).sum(axis=1) <= 2).all()
    assert 0 < gone.sum(axis=1).max() <= windows().shape[1] / 4


def test_a_drop_silences_one_channel_but_never_the_only_one() -> None:
    silent = (made("drop")[0] == 0).all(axis=1).sum(axis=1)
    assert set(silent) == {0, 1}
    alone = windows(channels=1)
    np.testing.assert_array_equal(augmented(alone, ("drop",), np.random.default_rng(0))[0], alone)


def test_a_warp_keeps_both_ends_the_range_and_the_channels_together() -> None:
    course = windows()
    course[:, :, 1] = course[:, :, 0]
    warped, _ = augmented(course, ("warp",), np.random.default_rng(0))
    np.testing.assert_allclose(warped[:, [0, -1]], course[:, [0, -1]], atol=1e-5)
    np.testing.assert_array_equal(warped[:, :, 0], warped[:, :, 1])
    assert (warped.max(axis=1) <= course.max(axis=1) + 1e-6).all()
    assert not np.allclose(warped, course, atol=0.05)


def test_where_rows_are_frequencies_nothing_is_warped() -> None:
    asked = FitOptions(augment=("jitter", "warp", "mask"))
    assert asked.without_time().augment == ("jitter", "mask")
    assert FitOptions().without_time().augment == ()
