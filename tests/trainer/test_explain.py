"""Whoever asks why a window scores high is told the right channel, by every method, and how far to trust it."""

import doctest
import itertools
import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tocsin.core.bundle import Bundle, load_bundle
from tocsin.core.preprocess import STEPS, Preprocessor
from tocsin.errors import DataError, TocsinError
from tocsin.recordings import TableOptions
from tocsin.records import Floats
from tocsin_trainer import recorded, terminal
from tocsin_trainer.explain import explanation, game, rows
from tocsin_trainer.explain.exact import take_apart
from tocsin_trainer.explain.explanation import Explanation, explain, explanation_json, words
from tocsin_trainer.explain.game import Game, Player, players_of, typical_window
from tocsin_trainer.explain.lime import TRUSTED, Lime
from tocsin_trainer.explain.moment import Moment, find_moment
from tocsin_trainer.explain.page import page
from tocsin_trainer.explain.rows import rows_of
from tocsin_trainer.explain.shapley import shapley
from tocsin_trainer.explain.text import shown
from tocsin_trainer.recorded import Recorded, read_recorded

DATA = Path(__file__).parent.parent / "data"
SMALL = DATA / "small.tocsin"
Remade = Callable[..., Bundle]


def recording(bundle: Bundle, name: str = "faults.csv") -> Recorded:
    return read_recorded(DATA / name, bundle.manifest, TableOptions())


def spectrum(remade: Remade) -> Bundle:
    """A conv autoencoder of 31 bands and the effective value, of windows of 64 rows."""
    normal = recording(load_bundle(SMALL), "normal.csv").stretches[0].rows.values
    windows = np.stack([normal[start : start + 64] for start in range(0, 960, 60)])
    steps = [
        {"step": "log_spectrum", "bands": 31, "floor": 1e-3},
        {"step": "standardise", "center": [0.0, 0.0], "scale": [2.0, 2.0]},
    ]
    return remade(window={"length": 64}, steps=steps, golden=windows, threshold=3.0)


def level(remade: Remade) -> Bundle:
    """The same of levels and unrests of 16 parts."""
    normal = recording(load_bundle(SMALL), "normal.csv").stretches[0].rows.values
    windows = np.stack([normal[start : start + 64] for start in range(0, 960, 60)])
    center = np.concatenate([np.full((16, 2), (5.0, 21.0)), np.full((16, 2), (-1.5, 0.0))])
    scale = np.concatenate([np.full((16, 2), (0.4, 2.0)), np.full((16, 2), 1.0)])
    steps = [
        {"step": "level_unrest", "segments": 16, "floor": [1e-4, 1e-4]},
        {"step": "standardise", "center": center.tolist(), "scale": scale.tolist()},
    ]
    return remade(window={"length": 64}, steps=steps, golden=windows, threshold=3.0)


BUNDLES: dict[str, Callable[[Remade], Bundle]] = {
    "conv": lambda _: load_bundle(SMALL),
    "lstm": lambda _: load_bundle(DATA / "small_lstm.tocsin"),
    "mean_of_both": lambda remade: remade("mean"),
    "max_of_both": lambda remade: remade("max"),
    "geometric_mean_of_both": lambda remade: remade("geometric"),
    "spectrum": spectrum,
    "level_and_unrest": level,
}
each_bundle = pytest.mark.parametrize("make", BUNDLES.values(), ids=BUNDLES)
each_of_time = pytest.mark.parametrize("name", list(BUNDLES)[:5])


def with_offset(bundle: Bundle, channel: int) -> Moment:
    """A window of normal running with an offset of five swings in one channel."""
    found = find_moment(bundle, recording(bundle, "normal.csv"), "row:500")
    window = found.window.copy()
    window[:, channel] += (2.0, 10.0)[channel]
    return Moment(window, found.time_s, found.row, found.smoothed, 0.0)


Explained = Callable[[str, int], Explanation]


@pytest.fixture(scope="module")
def explained(remade: Remade) -> Explained:
    """By all methods: an offset in a channel, in a bundle of BUNDLES."""

    @cache
    def make(name: str, channel: int) -> Explanation:
        bundle = BUNDLES[name](remade)
        return explain(bundle, with_offset(bundle, channel), ("exact", "shap", "lime"))

    return make


@pytest.mark.parametrize("channel", [0, 1])
@each_of_time
def test_every_method_names_the_channel_that_is_off(name: str, channel: int, explained: Explained) -> None:
    found = explained(name, channel)
    bundle = found.bundle
    assert found.exact.ratio > 5
    assert {name: int(np.argmax(amount)) for name, amount in found.amounts().items()} == dict.fromkeys(
        ("exact", "shap", "lime"), channel
    )
    assert found.contributions[0].channel == bundle.manifest.channels[channel].name
    assert words(found)[0].startswith(bundle.manifest.channels[channel].name)


@each_bundle
def test_exact_amounts_are_the_scorers_own_to_the_last_digits(make: Callable[[Remade], Bundle], remade: Remade) -> None:
    bundle = make(remade)
    scorer, length = bundle.scorer(), bundle.manifest.length
    values = recording(bundle).stretches[0].rows.values
    for start in (0, 140, 300, 440):
        window = values[start : start + length]
        score = scorer.score(window[None])
        exact = take_apart(bundle, scorer, window)
        limit = bundle.manifest.threshold.value
        assert exact.ratio == pytest.approx(float(score.ratio[0]), rel=1e-9)
        np.testing.assert_allclose(exact.per_channel * limit, score.per_channel[0], rtol=1e-9)
        np.testing.assert_allclose(exact.share(), score.share()[0], rtol=1e-9)
        assert exact.share().sum() == pytest.approx(1, abs=1e-9)
        assert sum(float(member.amount.sum()) for member in exact.members) == pytest.approx(exact.ratio, rel=1e-9)


def test_of_a_maximum_only_the_member_that_wins_is_told(remade: Remade) -> None:
    found = explain(remade("max"), with_offset(remade("max"), 0), ("exact",))
    assert sorted(bool(member.amount.any()) for member in found.exact.members) == [False, True]


@each_of_time
def test_shapley_values_sum_to_the_score_less_that_of_a_typical_window(name: str, explained: Explained) -> None:
    found = explained(name, 1)
    assert found.shap is not None and found.shap.base < 1
    assert found.shap.amount.sum() == pytest.approx(found.exact.ratio - found.shap.base, rel=1e-6)
    assert found.shap.error < 1e-6 * found.exact.ratio


def test_shapley_values_are_those_of_the_definition() -> None:
    bundle = load_bundle(SMALL)
    window = with_offset(bundle, 0).window
    players = tuple(Player((c,), start, start + 16) for c in range(2) for start in (0, 16))
    asked = Game(bundle.scorer(), window, typical_window(bundle, window), players)
    present = np.array(list(itertools.product((False, True), repeat=4)))
    worth = {tuple(on): value for on, value in zip(present.tolist(), asked.ratio(present).tolist(), strict=True)}
    expected = np.zeros(4)
    for on, value in worth.items():
        for n in range(4):
            if on[n]:
                without = tuple(flag and k != n for k, flag in enumerate(on))
                others = sum(without)
                weight = math.factorial(others) * math.factorial(3 - others) / math.factorial(4)
                expected[n] += weight * (value - worth[without])
    found = shapley(asked)
    assert found.exact
    np.testing.assert_allclose(found.amount, expected, rtol=1e-6)


def test_shapley_values_are_the_same_in_every_run_and_leave_the_common_generator_alone() -> None:
    bundle = load_bundle(SMALL)
    np.random.seed(7)
    state = np.random.get_state()[1].copy()
    first, second = (explain(bundle, with_offset(bundle, 0), ("shap", "lime")) for _ in range(2))
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    for name in ("shap", "lime"):
        np.testing.assert_array_equal(getattr(first, name).amount, getattr(second, name).amount)


def test_without_the_extra_shap_says_which_and_lime_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shap", None)
    bundle = load_bundle(SMALL)
    with pytest.raises(TocsinError, match=r"extra `explain`.*\.\[explain\].*--method exact,lime"):
        explain(bundle, with_offset(bundle, 0), ("exact", "shap"))
    assert explain(bundle, with_offset(bundle, 0), ("exact", "lime")).lime is not None


def test_lime_says_when_the_score_is_not_linear() -> None:
    bundle = load_bundle(SMALL)
    good, bad = (
        explain(bundle, find_moment(bundle, recording(bundle), at), ("lime",)) for at in ("row:190", "row:500")
    )
    assert good.lime is not None and good.lime.r2 > 0.9
    assert bad.lime is not None and bad.lime.r2 < TRUSTED
    assert "trust these slopes little" in shown(bad) and "trust these slopes little" not in shown(good)


def test_the_typical_window_is_a_normal_one_in_step_and_a_median_is_not() -> None:
    bundle = load_bundle(SMALL)
    scorer, golden = bundle.scorer(), bundle.golden
    normal = golden.windows[golden.scores < bundle.manifest.threshold.value]
    assert float(scorer.score(np.median(normal, axis=0)[None]).ratio[0]) > 1
    for row in (500, 506, 512):
        window = find_moment(bundle, recording(bundle, "normal.csv"), f"row:{row}").window
        typical = typical_window(bundle, window)
        assert float(scorer.score(typical[None]).ratio[0]) < 1
        assert np.corrcoef(window[:, 0], typical[:, 0])[0, 1] > 0.8


def test_a_bundle_without_a_normal_golden_window_is_told(remade: Remade) -> None:
    bundle = remade(threshold=1e-6)
    with pytest.raises(TocsinError, match="none of its golden windows is normal"):
        explain(bundle, with_offset(bundle, 0), ("lime",))


def test_the_parts_cover_every_value_once_and_are_few() -> None:
    for length, channels in ((8, 1), (37, 3), (60, 16), (50, 40), (1, 5), (4, 2)):
        weight: Floats = np.arange(channels, dtype=np.float64)
        players = players_of(length, channels, weight)
        covered = np.zeros((length, channels), int)
        for player in players:
            covered[player.start : player.stop, list(player.channels)] += 1
        assert (covered == 1).all() and len(players) <= 16
    assert max(players_of(50, 40, np.arange(40.0)), key=lambda p: len(p.channels)).channels == tuple(range(25))


def test_channels_that_are_one_part_together_have_no_amount_of_their_own(told: Explanation) -> None:
    together = replace(told, players=(Player((0, 1), 0, 32),), shap=None, lime=Lime(np.array([5.0]), 1.0))
    assert np.isnan(together.amounts()["lime"]).all() and together.agreement() == {}
    assert together.part_name(together.players[0]) == "2 other channels"
    assert [each["lime"] for each in explanation_json(together)["channels"]] == [None, None]
    assert re.search(r"pressure .* –$", shown(together), re.MULTILINE) and "<svg" in page(together)


def test_rank_agreement_is_high_where_methods_agree(explained: Explained) -> None:
    agreement = explained("conv", 0).agreement()
    assert set(agreement) == {"exact, shap", "exact, lime", "shap, lime"}
    assert min(agreement.values()) > 0.5
    assert explanation.spearman(np.array([1.0, 2.0, 2.0]), np.array([5.0, 7.0, 7.0])) == 1
    assert explanation.spearman(np.array([1.0, 2.0]), np.array([2.0, 1.0])) == -1
    assert explanation.spearman(np.array([1.0, 1.0]), np.array([2.0, 1.0])) is None


def test_time_row_and_worst_find_the_same_window() -> None:
    bundle, data = load_bundle(SMALL), recording(load_bundle(SMALL))
    worst = find_moment(bundle, data, "worst")
    stamp = recorded.clock(float(worst.time_s[-1]))
    day, time = stamp.split(" ")
    forms = (
        f"row:{worst.row}", stamp, f"{day}T{time}Z", f"{'.'.join(reversed(day.split('-')))} {time}",
        f"{day} {int(time[:2]) + 2:02d}{time[2:]}+02:00", str(worst.time_s[-1]), f"{1000 * worst.time_s[-1]:.0f}",
        f"{worst.time_s[-1] - data.span_s[0]:g}",
    )  # fmt: skip
    for at in forms:
        np.testing.assert_array_equal(find_moment(bundle, data, at).window, worst.window)
    ratios = bundle.scorer().score(np.stack([worst.window])).ratio
    assert take_apart(bundle, bundle.scorer(), worst.window).ratio == pytest.approx(float(ratios[0]))


def test_the_time_that_a_recording_without_a_clock_shows_can_be_given_back(tmp_path: Path) -> None:
    lines = (DATA / "faults.csv").read_text("ascii").splitlines()
    body = [f"{n / 1000 + 200_000 + n}{line[19:]}" for n, line in enumerate(lines[1:])]
    (tmp_path / "relative.csv").write_text("\n".join([lines[0], *body]) + "\n")
    bundle = load_bundle(SMALL)
    data = read_recorded(tmp_path / "relative.csv", bundle.manifest, TableOptions())
    worst = find_moment(bundle, data, "worst")
    shown_ = recorded.clock(float(worst.time_s[-1]))
    assert shown_.endswith(" s")
    np.testing.assert_array_equal(find_moment(bundle, data, shown_).window, worst.window)
    with pytest.raises(DataError, match=r"relative.csv runs from 200000 s to 2005\d\d.*s"):
        find_moment(bundle, data, "2026-03-09T08:00:00")


def test_with_a_hop_the_window_is_the_last_before_the_time(remade: Remade) -> None:
    bundle = remade(window={"hop": 10})
    data = recording(bundle)
    found = find_moment(bundle, data, "2026-03-09T08:01:00")
    assert (found.row, found.late_s) == (51, 9.0)
    assert find_moment(bundle, data, "row:60").row == 51


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("2026-03-08T08:00:00", "from 2026-03-09 08:00:31, when the first window ends, to 2026-03-09 08:09:59"),
        ("2026-03-09T08:00:30", "expected a time from"),
        ("2026-03-10T08:00:00", "expected a time from"),
        ("row:3", r"expected a row from 31 .* to 599"),
        ("row:600", "expected a row from 31"),
        (
            "yesterday",
            r"expected a time such as .*, got 'yesterday'; or `worst`, or `row:N`; faults.csv runs from 2026-03-09",
        ),
        ("900", "faults.csv runs from 2026-03-09 08:00:00 to 2026-03-09 08:09:59"),
    ],
)
def test_a_moment_that_is_not_there_is_told_with_those_that_are(at: str, says: str) -> None:
    bundle = load_bundle(SMALL)
    with pytest.raises(DataError, match=says):
        find_moment(bundle, recording(bundle), at)


def test_the_words_say_how_far_off_in_the_channels_unit() -> None:
    bundle = load_bundle(SMALL)
    sentence, *_ = words(explain(bundle, with_offset(bundle, 0), ("exact",)))
    match = re.fullmatch(
        r"pressure is ([\d.]+) bar above expected \(.*\) at 2026-03-09 08:0\d:\d\d; (\d+)% of the score", sentence
    )
    assert match and 1 < float(match[1]) < 4 and int(match[2]) > 70


def test_the_words_expect_nothing_that_normal_running_never_had() -> None:
    known = {"rows": 9, "rates": [1.0, 1.0], "channels": [
        {"name": "pressure", "low": 4.5, "high": 4.6, "longest_run": 1, "largest_step": 1.0},
    ]}  # fmt: skip
    plain = load_bundle(SMALL)
    manifest = replace(plain.manifest, raw={**plain.manifest.raw, "quality": known})
    bundle = replace(plain, manifest=manifest)
    found = explain(bundle, with_offset(bundle, 0), ("exact",))
    expected = re.search(r"pressure is .* expected ([\d.]+)\)", words(found)[0])
    assert expected and 4.5 <= float(expected[1]) <= 4.6
    (told_,) = (each for each in found.contributions if each.channel == "pressure")
    assert told_.expected is not None and 4.5 <= told_.expected <= 4.6


def test_the_words_tell_no_expected_value_that_would_be_what_was_seen() -> None:
    """All that the model expects is below what normal running had, and what was seen is less far below."""
    known = {"rows": 9, "rates": [1.0, 1.0], "channels": [
        {"name": "pressure", "low": 40.0, "high": 41.0, "longest_run": 1, "largest_step": 1.0},
    ]}  # fmt: skip
    plain = load_bundle(SMALL)
    bundle = replace(plain, manifest=replace(plain.manifest, raw={**plain.manifest.raw, "quality": known}))
    found = explain(bundle, with_offset(bundle, 0), ("exact",))
    assert re.match(r"pressure is not as expected \([\d.]+ bar\) at 2026", words(found)[0])
    (told_,) = (each for each in found.contributions if each.channel == "pressure")
    assert told_.expected is None


def test_bands_are_named_by_frequency_and_a_tone_is_found_in_its_own(remade: Remade) -> None:
    bundle = spectrum(remade)
    found = find_moment(bundle, recording(bundle, "normal.csv"), "row:500")
    window = found.window.copy()
    window[:, 1] += 8 * np.sin(2 * np.pi * 0.3 * np.arange(64))
    told = explain(bundle, Moment(window, found.time_s, found.row, 1.0, 0.0), ("exact", "lime"))
    (member,) = told.exact.members
    assert member.seen is not None and not member.of_time
    names = [row.name for row in member.rows]
    assert names[0] == "0.0156–0.0312 Hz" and names[-1] == "effective value" and len(names) == 32
    band = int(np.argmax(member.seen[:31, 1]))
    low, high = (float(text) for text in names[band].removesuffix(" Hz").split("–"))
    assert low - 0.02 <= 0.3 <= high + 0.02
    assert words(told)[0].startswith("flow has ")
    assert re.search(r"times the expected (power at [\d.]+–[\d.]+ Hz|effective value)", words(told)[0])
    assert set(told.by_part()) == {"lime"}  # features belong to no part of the window


FORMS: list[dict[str, Any]] = [
    {"step": "level_unrest", "segments": 4, "floor": [1e-4, 1e-4]},
    {"step": "window_statistics", "segments": 3},
    {"step": "moments", "floor": [1e-4, 1e-4]},
    {"step": "log_spectrum", "bands": 16, "floor": 1e-4},
    {"step": "log_mel", "bands": 8, "sample_rate_hz": 4000.0, "floor": [1e-4, 1e-4]},
    {"step": "envelope_spectrum", "bands": 8, "low_hz": 900.0, "high_hz": 1800.0, "top_hz": 400.0,
     "sample_rate_hz": 4000.0, "floor": [1e-4, 1e-4]},
    {"step": "band_energies", "bands_hz": [[100.0, 500.0], [1000.0, 1500.0]], "sample_rate_hz": 4000.0,
     "floor": [1e-4, 1e-4]},
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=lambda form: str(form["step"]))
def test_every_feature_has_a_name_of_its_own(form: dict[str, Any]) -> None:
    made = Preprocessor.from_json([form])
    names = [row.name for row in rows_of(made, 256, 4000.0)]
    assert len(names) == made.rows(256) and all(names) and len(set(names)) == len(names)
    both = Preprocessor.from_json([{"step": "stack", "branches": [[form], [FORMS[2]]]}])
    assert [row.name for row in rows_of(both, 256, 4000.0)] == names + [r.name for r in rows_of(
        Preprocessor.from_json([FORMS[2]]), 256, 4000.0)]  # fmt: skip


def test_every_step_is_known_to_name_its_rows_or_keeps_them() -> None:
    keeps = {"despike", "clip", "median", "ewma", "savgol", "detrend", "difference", "standardise", "limit"}
    assert {form["step"] for form in FORMS} | {"stack"} | keeps == set(STEPS)


@pytest.mark.parametrize("form", FORMS[3:], ids=lambda form: str(form["step"]))
def test_a_tone_is_loudest_in_the_band_that_names_its_frequency(form: dict[str, Any]) -> None:
    made, hz = Preprocessor.from_json([form]), 250.0
    at = np.arange(256) / 4000.0
    tone = np.sin(2 * np.pi * hz * at)
    if form["step"] == "envelope_spectrum":  # the tone is how a resonance swells
        tone = (1 + 0.8 * tone) * np.sin(2 * np.pi * 1350 * at)
    shown = made.transform(np.stack([tone, tone], axis=1)[None])[0, :, 0]
    rows = rows_of(made, 256, 4000.0)
    bands = [n for n, row in enumerate(rows) if row.name.endswith("Hz") or "envelope" in row.name]
    best = rows[max(bands, key=lambda n: shown[n])].name.partition(" Hz")[0]
    low, high = (float(text) for text in best.split("–"))
    assert low - 16 <= hz <= high + 16


def test_levels_are_told_in_the_unit(remade: Remade) -> None:
    bundle = level(remade)
    sentence, *_ = words(explain(bundle, with_offset(bundle, 0), ("exact",)))
    assert re.match(r"pressure is [\d.]+ bar above expected in its level, part \d+ of 16", sentence)


def test_json_holds_everything_and_the_parts_sum(explained: Explained) -> None:
    found = explanation_json(explained("mean_of_both", 0))
    json.dumps(found, allow_nan=False)
    assert sum(each["exact"] for each in found["channels"]) == pytest.approx(found["ratio"], rel=1e-9)
    assert sum(np.sum(each["amount"]) for each in found["members"]) == pytest.approx(found["ratio"], rel=1e-9)
    assert sum(each["shap"] for each in found["parts"]) == pytest.approx(
        found["ratio"] - found["shap"]["base"], rel=1e-6
    )
    assert found["score"] == pytest.approx(found["ratio"] * found["threshold"])


@pytest.fixture(scope="module")
def told() -> Explanation:
    bundle = load_bundle(SMALL)
    return explain(bundle, find_moment(bundle, recording(bundle), "worst"), ("exact", "shap", "lime"))


def test_the_page_stands_alone(told: Explanation) -> None:
    shown_page = page(told)
    assert "default-src 'none'" in shown_page and "<script" not in shown_page
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", shown_page)
    assert shown_page.count("<svg") == 3 and words(told)[0] in shown_page


def test_the_page_of_features_draws_them(remade: Remade) -> None:
    bundle = spectrum(remade)
    shown_page = page(explain(bundle, find_moment(bundle, recording(bundle), "worst"), ("exact",)))
    assert "Features that differ" in shown_page and "effective value" in shown_page


def test_text_shows_every_method_with_its_own_measure(told: Explanation) -> None:
    text = shown(told)
    assert "times the threshold" in text and "rank agreement (Spearman)" in text
    assert re.search(r"channel +share +seen +expected +unit +exact +shap +lime", text)
    assert "lime: R² 0.9" in text and "most by shap" in text


@pytest.mark.parametrize("module", [game, rows, explanation, recorded, terminal], ids=lambda m: m.__name__)
def test_examples_in_docstrings_hold(module: ModuleType) -> None:
    found = doctest.testmod(module, extraglobs={"np": np})
    assert found.attempted and not found.failed
