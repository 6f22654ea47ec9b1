"""Scores and their split over channels."""

from pathlib import Path

import numpy as np
import pytest

from tocsin.core.bundle import Bundle, load_bundle
from tocsin.core.interpreter import TfliteModel
from tocsin.core.scoring import CALM, CHUNK, LOG_STD_FLOOR, Member, Scorer, Smoother, combine, mean_square, residual
from tocsin.core.threshold import Threshold
from tocsin.records import Floats, Floats32, Scores

DATA = Path(__file__).parent.parent / "data"


class Predictor(TfliteModel):
    """The real model, of whose output the first rows are left out, as a predictor has them not."""

    def predict(self, windows: Floats32) -> Floats32:
        return super().predict(windows)[:, 10:]


class Unsure(TfliteModel):
    """The real model as the mean of a normal distribution of standard deviation 0.5."""

    def predict(self, windows: Floats32) -> Floats32:
        mean = super().predict(windows)
        return np.concatenate([mean, np.full_like(mean, np.log(0.5))], axis=1)


class Same(TfliteModel):
    """A model that gives back what it is shown."""

    def predict(self, windows: Floats32) -> Floats32:
        return windows


class Saturating(TfliteModel):
    """A model that gives back what it is shown, and cannot tell apart what is beyond ±2."""

    def predict(self, windows: Floats32) -> Floats32:
        return windows.clip(-2, 2)


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


def test_the_maximum_is_the_score_of_the_member_that_wins_and_has_its_split(small: Bundle) -> None:
    model, shown = TfliteModel(small.files["conv_ae.tflite"]), small.manifest.members[0].preprocessor
    kinds = (Member(model, shown, "reconstruct", 2.0), Member(model, shown, "whiten", 1.0))
    given = windows(small, CHUNK + 60)
    given[::2, 10:, 1] += 10
    alone = [Scorer((member,), np.ones(2), Threshold(1.0)).score(given).per_channel for member in kinds]
    found = Scorer(kinds, np.ones(2), Threshold(1.0), "max").score(given)
    first = alone[0].sum(axis=1) > alone[1].sum(axis=1)
    assert 0.2 < first.mean() < 0.8
    np.testing.assert_allclose(found.per_channel, np.where(first[:, None], *alone))
    np.testing.assert_allclose(found.per_channel.sum(axis=1), found.value)


@pytest.mark.parametrize("combination", ["mean", "max"])
def test_a_members_weight_multiplies_its_part(small: Bundle, combination: str) -> None:
    model, shown = TfliteModel(small.files["conv_ae.tflite"]), small.manifest.members[0].preprocessor
    members = (Member(model, shown, "reconstruct", 0.05, 1.5), Member(model, shown, "whiten", 0.8, 0.5))
    given = windows(small, 20)
    parts = [residual_square(member, given) / 2 / member.normaliser for member in members]
    found = Scorer(members, np.ones(2), Threshold(1.0), combination).score(given).per_channel
    np.testing.assert_allclose(found, combine(np.stack(parts), np.array([1.5, 0.5]), combination))
    mean = (1.5 / 0.05 * residual_square(members[0], given) + 0.5 / 0.8 * residual_square(members[1], given)) / 4
    if combination == "mean":
        np.testing.assert_allclose(found, mean)


def test_the_geometric_mean_weighs_logarithms_and_shares(small: Bundle) -> None:
    model, shown = TfliteModel(small.files["conv_ae.tflite"]), small.manifest.members[0].preprocessor
    members = (Member(model, shown, "reconstruct", 0.05, 1.5), Member(model, shown, "whiten", 0.8, 0.5))
    given = windows(small, 20)
    parts = [residual_square(member, given) / 2 / member.normaliser for member in members]
    found = Scorer(members, np.ones(2), Threshold(1.0), "geometric").score(given)
    values = [part.sum(axis=1) for part in parts]
    np.testing.assert_allclose(found.value, values[0] ** 0.75 * values[1] ** 0.25)
    shares = [part / value[:, None] for part, value in zip(parts, values, strict=True)]
    np.testing.assert_allclose(found.share(), 0.75 * shares[0] + 0.25 * shares[1])


def test_a_silent_member_leaves_the_split_to_the_others() -> None:
    parts = np.array([[[0.0, 0.0]], [[1.0, 3.0]]])
    split = combine(parts, np.ones(2), "geometric")[0]
    np.testing.assert_allclose(split / split.sum(), [0.25, 0.75])
    np.testing.assert_allclose(split.sum(), np.sqrt(CALM * 4.0))
    np.testing.assert_allclose(combine(np.zeros((2, 1, 2)), np.ones(2), "geometric"), CALM / 2)


def test_limits_are_passed_by_the_largest_number_alone_and_split_by_the_channels_own(small: Bundle) -> None:
    content, shown = small.files["conv_ae.tflite"], small.manifest.members[0].preprocessor
    member = Member(Same(content), shown, "limits")
    given = windows(small, 3)
    given[1, 5, 0] += 50
    given[1, 9, 1] -= 60
    seen = shown.transform(given).astype(np.float64) ** 2
    found = Scorer((member,), np.array([1.5, 0.5]), Threshold(1.0)).score(given)
    largest = seen.max(axis=1) * [1.5, 0.5]
    np.testing.assert_allclose(found.value, largest.max(axis=1))
    np.testing.assert_allclose(found.share(), largest / largest.sum(axis=1, keepdims=True))
    assert member.rebuilt(given[0]) is None


def test_a_linear_model_does_not_saturate_on_windows_beyond_its_range(small: Bundle) -> None:
    content, shown = small.files["conv_ae.tflite"], small.manifest.members[0].preprocessor
    far = shown.transform(windows(small, 4)) * np.array([0.1, 1.0, 30.0, -30.0], np.float32)[:, None, None]
    whole = Member(Saturating(content), shown, "whiten", input_range=(-2.0, 2.0)).residual(far)
    np.testing.assert_allclose(whole, far, rtol=1e-5)
    assert np.abs(Member(Saturating(content), shown, "whiten").residual(far)).max() == 2


def residual_square(member: Member, given: Floats) -> Floats:
    return mean_square(member.residual(member.preprocessor.transform(given)))


def test_what_rebuilds_is_scored_by_the_difference_and_what_whitens_by_its_output(small: Bundle) -> None:
    model, shown = TfliteModel(small.files["conv_ae.tflite"]), small.manifest.members[0].preprocessor
    given = windows(small, 3)
    seen = shown.transform(given)
    rebuilds, whitens = (Member(model, shown, kind).residual(seen) for kind in ("reconstruct", "whiten"))
    np.testing.assert_array_equal(whitens, model.predict(seen))
    np.testing.assert_array_equal(rebuilds, seen - whitens)


def test_what_predicts_is_scored_on_the_rows_that_it_predicts(small: Bundle) -> None:
    whole, shown = TfliteModel(small.files["conv_ae.tflite"]), small.manifest.members[0].preprocessor
    predictor = Member(Predictor(small.files["conv_ae.tflite"]), shown)
    seen = shown.transform(windows(small, 3))
    np.testing.assert_array_equal(predictor.residual(seen), Member(whole, shown).residual(seen)[:, 10:])


def test_a_probability_is_scored_by_twice_the_log_likelihood_that_it_misses() -> None:
    rng = np.random.default_rng(0)
    seen, mean, log_std = rng.normal(size=(3, 20, 6, 2)).astype(np.float32)
    out = np.concatenate([mean, log_std], axis=1)
    found = residual("probability", seen, out)
    std = np.exp(np.maximum(log_std, LOG_STD_FLOOR))
    nll = 0.5 * ((seen - mean) / std) ** 2 + np.log(std)
    np.testing.assert_allclose(found**2, 2 * (nll - LOG_STD_FLOOR), rtol=1e-3, atol=1e-5)
    assert (np.sign(found) == np.sign(seen - mean)).all()


def test_a_probability_that_claims_to_be_surer_than_the_floor_is_not_believed() -> None:
    seen, mean = np.full((1, 1, 1), 0.2, np.float32), np.zeros((1, 1, 1), np.float32)
    wild, sure = (
        residual("probability", seen, np.concatenate([mean, mean + s], axis=1)) for s in (-90.0, LOG_STD_FLOOR)
    )
    assert wild == sure == pytest.approx(0.2 / 0.1)


@pytest.mark.parametrize("model", [Predictor, Unsure])
def test_what_predicts_or_knows_how_sure_it_is_tells_what_it_expected(small: Bundle, model: type[TfliteModel]) -> None:
    shown = small.manifest.members[0].preprocessor
    kind = "probability" if model is Unsure else "reconstruct"
    member = Member(model(small.files["conv_ae.tflite"]), shown, kind)
    given = windows(small, 1)[0]
    given[4] -= 40  # of which a predictor can have nothing to say
    given[20, 1] += 30
    scorer = Scorer((member, Member(member.model, shown, kind, 2.0)), np.ones(2), Threshold(1.0))
    flow = next(part for part in scorer.explain(given, small.manifest.channels) if part.channel == "flow")
    place = 4 if model is Unsure else 20
    assert flow.seen == given[place, 1]
    whole = Member(TfliteModel(small.files["conv_ae.tflite"]), shown).rebuilt(given)
    assert whole is not None and flow.expected == pytest.approx(whole[place, 1], rel=1e-5)


def test_members_that_rebuild_unlike_rows_are_compared_on_those_that_all_have(small: Bundle) -> None:
    content, shown = small.files["conv_ae.tflite"], small.manifest.members[0].preprocessor
    given = windows(small, 1)[0]
    given[12] += 30
    members = (Member(TfliteModel(content), shown), Member(Predictor(content), shown))
    found = Scorer(members, np.ones(2), Threshold(1.0)).explain(given, small.manifest.channels)
    whole = members[0].rebuilt(given)
    assert whole is not None
    for part in found:
        column = ("pressure", "flow").index(part.channel)
        assert (part.seen, part.expected) == (given[12, column], pytest.approx(whole[12, column]))


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


@pytest.mark.filterwarnings("error")
def test_parts_of_a_score_that_is_not_finite_are_those_of_the_channels_that_are_not():
    split = np.array([[np.inf, 1.0, 3.0], [np.nan, np.inf, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, 0.0], [1e308, 1e308, 0.0]])
    with np.errstate(over="ignore"):
        value = split.sum(axis=1)
    scores = Scores(value, value, split)
    parts = [[1, 0, 0], [0.5, 0.5, 0], [0.25, 0.75, 0], [0, 0, 0], [0.5, 0.5, 0]]
    np.testing.assert_allclose(scores.share(), parts)
    smooth = Smoother(5, Threshold(1.0)).update(scores)
    np.testing.assert_allclose(smooth.share()[[0, 2, 4]], [parts[0], parts[2], parts[4]])
