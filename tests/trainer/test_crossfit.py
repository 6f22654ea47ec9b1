"""Short recordings: who is fitted on what, how members are weighed, and what int8 has to tell apart."""

import numpy as np
import pytest

from tocsin.core.threshold import ALONE, highest
from tocsin.records import Channel, Floats, Rows, Scores
from tocsin_trainer.crossfit import FOLDS, folds
from tocsin_trainer.export import Grid
from tocsin_trainer.judge import Mix, mix, mixed
from tocsin_trainer.models import pca, t2
from tocsin_trainer.stretch import Stretch

CHANNELS = (Channel("a"), Channel("b"))


def stretch(start: int, rows: int) -> Stretch:
    at = np.arange(start, start + rows)
    return Stretch(Rows(at.astype(np.float64), np.stack((at, -at), axis=1).astype(np.float64), at, True), None, 0)


def grid(length: int, hop: int) -> Grid:
    return Grid(CHANNELS, 1.0, 5.0, length, hop)


def seconds(part: Stretch) -> set[int]:
    return {int(second) for second in part.rows.time_s}


@pytest.mark.parametrize(("length", "hop"), [(16, 1), (16, 6), (10, 10)])
def test_each_row_is_held_back_once_from_models_that_have_not_seen_it(length: int, hop: int) -> None:
    recording = (stretch(0, 203), stretch(1000, 97))
    made = list(folds(recording, grid(length, hop)))
    assert len(made) == FOLDS
    seen: list[int] = []
    for kept, held, once in made:
        fitted = set().union(*map(seconds, kept))
        assert not fitted & set().union(*map(seconds, held))
        assert len(fitted) > 0.6 * 300
        seen += [second for k in once for second in seconds(held[k])]
    assert len(seen) == len(set(seen)) and len(seen) > 300 - FOLDS * 2 * length


def test_blocks_of_a_cycle_begin_where_a_cycle_begins() -> None:
    for kept, held, _ in folds((stretch(0, 600),), grid(60, 60)):
        assert all(int(part.rows.time_s[0]) % 60 == 0 for part in (*kept, *held))


def test_windows_that_overlap_are_scored_in_each_phase_of_the_hop() -> None:
    _, held, once = next(iter(folds((stretch(0, 400),), grid(32, 16))))
    assert [int(part.rows.time_s[0]) for part in held] == [0, 4, 8, 12] and once == (0,)


def course(logs: Floats) -> tuple[Scores, ...]:
    value = np.exp(logs)
    return (Scores(value, value, value[:, None]),)


def test_a_member_weighs_the_more_the_less_it_wanders_in_normal_running() -> None:
    noise = np.random.default_rng(0).normal(size=2000)
    how = mix((course(2 + 0.1 * noise), course(-1 + 0.4 * noise)))
    assert how.weights == pytest.approx((1.6, 0.4), rel=0.05) and how.combination == "geometric"
    assert np.log(how.normalisers) == pytest.approx((2, -1), abs=0.05)


def test_the_scores_that_set_the_limit_have_not_chosen_their_own_weights() -> None:
    rng = np.random.default_rng(0)
    first, second = ([course(level + spread * rng.normal(size=300))[0] for spread in spreads]
                     for level, spreads in ((2, (0.1, 0.1, 0.9)), (-1, (0.4, 0.4, 0.1))))  # fmt: skip
    members, fold = (tuple(first), tuple(second)), (0, 0, 1)
    found = mixed(members, fold)
    others = mix((tuple(first[:2]), tuple(second[:2])))
    np.testing.assert_allclose(found[2].value, others((tuple(first[2:]), tuple(second[2:])))[0].value)
    assert others.weights[0] > others.weights[1] and found[2].value.max() > 2 * mix(members)(members)[2].value.max()
    np.testing.assert_array_equal(mixed(members, ())[2].value, mix(members)(members)[2].value)


def test_a_member_that_does_not_wander_at_all_does_not_silence_the_others() -> None:
    still, moving = course(np.zeros(50)), course(np.random.default_rng(0).normal(0, 0.2, 50))
    assert mix((still, moving)).weights[1] > 0.3


def test_one_member_is_left_as_it_is() -> None:
    alone = course(np.arange(5.0))
    assert mix((alone,)) == Mix((1.0,), (1.0,)) and Mix((1.0,), (1.0,))((alone,)) is alone


def test_no_single_part_of_a_recording_sets_the_limit_alone() -> None:
    scores, usual = np.array([1.0, 2.0, 160.0]), 2.0
    limit = highest(scores, 99, np.array([1.5, usual, 160.0]))
    assert limit.value == pytest.approx(ALONE * usual * (1 + 1 / 99)) and limit.parameters["reached"] == 160
    assert highest(scores, 99, np.array([1.5, 160.0])).value > 160  # of two, who knows which
    assert highest(scores, 99, np.array([40.0, 50.0, 160.0])).value > 160


def test_what_breaks_a_tight_relation_is_among_the_windows_that_set_int8_ranges() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=(800, 1, 1))
    windows = (common + 0.1 * rng.normal(size=(800, 4, 2))).astype(np.float32)
    model = t2.build(windows, 0)
    beyond = t2.extremes(model, windows)
    usual, far = (np.abs(model.predict(each, verbose=0)).max() for each in (windows, beyond))
    assert beyond.shape == (2, 4, 2) and far > 5 * usual
    assert np.abs(beyond).max() <= np.abs(windows).max() + np.abs(windows.mean(axis=0)).max()


def test_latent_numbers_of_pca_have_room_for_all_that_inputs_within_their_range_can_do() -> None:
    rng = np.random.default_rng(0)
    moves = rng.normal(size=(400, 1, 1)) * np.array([1, -1, 0.5]) + rng.normal(size=(400, 12, 1))
    windows = (moves + 0.1 * rng.normal(size=(400, 12, 3))).astype(np.float32)
    for build, rows in ((pca.build, 12), (pca.build_short, 6)):
        model = build(windows, seed=0)
        beyond = pca.extremes(model, windows)
        encode, bias = (np.asarray(weight) for weight in model.get_layer("encode").get_weights())

        def latent(given: Floats, last: int = rows, encode: Floats = encode, bias: Floats = bias) -> Floats:
            reached: Floats = np.abs(given[:, -last:].reshape(len(given), -1) @ encode + bias).max(axis=0)
            return reached

        peak = np.abs(windows).max()
        assert beyond.shape == (2 * encode.shape[1], 12, 3) and np.abs(beyond).max() == pytest.approx(peak, rel=1e-5)
        np.testing.assert_allclose(latent(beyond), peak, rtol=0.1)
        assert (latent(windows) < 1.1 * latent(beyond)).all()
