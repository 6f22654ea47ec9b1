"""Scores and their split over channels."""

from pathlib import Path

import numpy as np
import pytest

from tocsin.core.bundle import Bundle, load_bundle
from tocsin.core.interpreter import TfliteModel
from tocsin.core.scoring import CHUNK, Member, Scorer, Smoother, mean_square
from tocsin.core.threshold import Threshold
from tocsin.records import Floats, Scores

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="module")
def small() -> Bundle:
    return load_bundle(DATA / "small.tocsin")


def windows(bundle: Bundle, count: int) -> Floats:
    """Golden windows over and over, with some noise."""
    golden = bundle.golden.windows
    noise = np.random.default_rng(0).normal(0, 0.1, (count, *golden.shape[1:]))
    return np.resize(golden, (count, *golden.shape[1:])) + noise


def test_the_error_is_the_mean_square_over_time_of_each_channel() -> None:
    seen = np.array([[[1, 0], [3, 4]]], np.float32)
    np.testing.assert_array_equal(mean_square(seen), [[5.0, 8.0]])


def test_channels_sum_to_the_score_and_shares_to_one(small: Bundle) -> None:
    scores = small.scorer().score(windows(small, 50))
    np.testing.assert_allclose(scores.per_channel.sum(axis=1), scores.value)
    np.testing.assert_allclose(scores.share().sum(axis=1), 1)
    np.testing.assert_allclose(scores.ratio * small.manifest.threshold.value, scores.value)


def test_a_window_scores_alike_alone_and_among_many(small: Bundle) -> None:
    scorer, given = small.scorer(), windows(small, 150)
    alone = np.concatenate([scorer.score(given[k : k + 1]).value for k in range(len(given))])
    np.testing.assert_allclose(scorer.score(given).value, alone, rtol=1e-6)


def test_more_windows_than_a_chunk_are_scored_in_order(small: Bundle) -> None:
    scorer, given = small.scorer(), windows(small, CHUNK + 70)
    np.testing.assert_allclose(scorer.score(given).value[-70:], scorer.score(given[-70:]).value, rtol=1e-6)


def test_no_windows_give_no_scores(small: Bundle) -> None:
    scores = small.scorer().score(windows(small, 0))
    assert len(scores) == 0 and scores.share().shape == (0, 2)


def test_a_channel_that_goes_wrong_has_the_largest_share(small: Bundle) -> None:
    given = windows(small, 1)
    given[0, 10:, 1] += 10
    first = small.scorer().explain(given[0], small.manifest.channels)[0]
    assert first.channel == "flow" and first.share > 0.7 and first.seen in given[0, :, 1]


def test_channel_weights_shift_the_score_towards_their_channel(small: Bundle) -> None:
    scorer = small.scorer()
    first = Scorer(scorer.members, np.array([2.0, 0.0]), scorer.threshold)
    plain, only = scorer.score(windows(small, 5)), first.score(windows(small, 5))
    np.testing.assert_allclose(only.value, 2 * plain.per_channel[:, 0])
    assert (only.share() == [1, 0]).all()


def test_members_are_averaged_each_by_its_normaliser(small: Bundle) -> None:
    def scorer(*normalisers: float) -> Scorer:
        model = TfliteModel(small.files["conv_ae.tflite"])
        shown = small.manifest.members[0].preprocessor
        members = tuple(Member(model, shown, normaliser=normaliser) for normaliser in normalisers)
        return Scorer(members, np.ones(2), Threshold(1.0))

    one, two = scorer(1.0).score(windows(small, 5)), scorer(1.0, 0.5).score(windows(small, 5))
    np.testing.assert_allclose(two.per_channel, 1.5 * one.per_channel)


def test_what_whitens_is_scored_by_its_output_and_what_rebuilds_by_the_difference(small: Bundle) -> None:
    model, shown = TfliteModel(small.files["conv_ae.tflite"]), small.manifest.members[0].preprocessor
    given = windows(small, 3)
    seen = shown.transform(given)
    rebuilds, whitens = (Member(model, shown, kind).residual(seen) for kind in ("reconstruct", "whiten"))
    np.testing.assert_array_equal(whitens, model.predict(seen))
    np.testing.assert_array_equal(rebuilds, seen - whitens)


def test_members_that_do_not_rebuild_the_signal_expect_its_usual_level(small: Bundle) -> None:
    model, shown = TfliteModel(small.files["conv_ae.tflite"]), small.manifest.members[0].preprocessor
    given = windows(small, 1)[0]
    found = Scorer((Member(model, shown, "whiten"),), np.ones(2), Threshold(1.0)).explain(
        given, small.manifest.channels
    )
    mean = dict(zip(("pressure", "flow"), given.mean(axis=0), strict=True))
    assert {part.channel: part.seen for part in found} == pytest.approx(mean)
    assert {part.channel: part.expected for part in found} == pytest.approx({"pressure": 5, "flow": 21}, rel=0.05)


def test_smoothing_follows_the_exponentially_weighted_geometric_mean_and_keeps_the_split(small: Bundle) -> None:
    scores = small.scorer().score(windows(small, 40))
    smooth = Smoother(9, small.manifest.threshold).update(scores)
    expected = np.log(scores.value[0])
    for value, found in zip(scores.value[1:], smooth.value[1:], strict=True):
        expected += 0.2 * (np.log(value) - expected)
        assert found == pytest.approx(np.exp(expected))
    np.testing.assert_allclose(smooth.share(), scores.share())
    np.testing.assert_allclose(smooth.per_channel.sum(axis=1), smooth.value)
    np.testing.assert_allclose(smooth.ratio * small.manifest.threshold.value, smooth.value)


def test_smoothing_does_not_depend_on_how_the_windows_are_cut_and_starts_anew_after_a_gap(small: Bundle) -> None:
    scorer, given, limit = small.scorer(), windows(small, 40), small.manifest.threshold
    whole, parts = Smoother(9, limit).update(scorer.score(given)).value, Smoother(9, limit)
    cut = np.concatenate(
        [parts.update(scorer.score(given[a:b])).value for a, b in ((0, 1), (1, 17), (17, 17), (17, 40))]
    )
    np.testing.assert_array_equal(cut, whole)
    parts.reset()
    assert parts.update(scorer.score(given[:1])).value == pytest.approx(scorer.score(given[:1]).value)


def test_a_machine_at_rest_does_not_delay_the_bell(small: Bundle) -> None:
    limit = small.manifest.threshold

    def until_over(before: list[float]) -> int:
        value = np.array([*before, *[10 * limit.value] * 60])
        smooth = Smoother(24, limit).update(Scores(value, value, value[:, None]))
        return int(np.argmax(smooth.ratio[len(before) :] >= 1))

    assert until_over([0.0] * 200) <= 3 * until_over([0.3 * limit.value] * 200) + 10


def test_a_wild_value_gives_a_large_and_finite_score(small: Bundle) -> None:
    given = windows(small, 2)
    given[0, 3, 0], given[1, 3, 0] = 1e15, -1e15
    scores = small.scorer().score(given)
    assert np.isfinite(scores.value).all() and (scores.ratio > 100).all()
