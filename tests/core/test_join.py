"""Rate groups on one grid: what a joined row shows, when it is made, and when it is not."""

import json
from dataclasses import replace
from itertools import pairwise
from operator import itemgetter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.core import join
from tocsin.core.groups import Group, RateGroups, feature_names, one_group
from tocsin.core.join import Joiner
from tocsin.core.preprocess import BandEnergies, Moments, Stack
from tocsin.errors import BundleError
from tocsin.records import Channel, Contribution, Floats, Rows, SampleBlock

START_S = 1_773_043_200.0
SLOW, FAST = 1.0, 64.0
FRAME = 128
FEATURES = (Stack(((Moments(np.full(2, 1e-6)),), (BandEnergies(((4.0, 16.0),), FAST, np.full(2, 1e-9)),))),)


def process(align: tuple = ("hold", "hold"), rate: float = SLOW, max_age_s: float = 5.0) -> Group:
    return Group("process", (Channel("temperature", "K"), Channel("load")), rate, 5 / rate, max_age_s, align)


def vibration(max_age_s: float = 3.0) -> Group:
    channels = (Channel("x", "g"), Channel("y", "g"))
    return Group("vibration", channels, FAST, 5 / FAST, max_age_s, ("hold", "hold"), FRAME, FEATURES)


GROUPS = RateGroups((process(), vibration()))


def block(rate: float, start: float, stop: float, seed: int = 0, arrived_s: float = 0.0) -> SampleBlock:
    """Samples of [start, stop); the same instant has the same value, whatever the block."""
    at = np.arange(int(np.ceil(start * rate)), int(np.ceil(stop * rate)))
    noise = np.random.default_rng(seed).standard_normal((int(rate * 200), 2))[at]
    return SampleBlock(START_S + at / rate, np.stack((np.sin(at / 7), at / rate), axis=1) + noise, arrived_s)


def without(samples: SampleBlock, start: float, stop: float) -> SampleBlock:
    at = samples.time_s - START_S
    kept = (at < start) | (at >= stop)
    return SampleBlock(samples.time_s[kept], samples.values[kept], samples.arrived_s)


def pieces(samples: SampleBlock, cuts: list[int]) -> list[SampleBlock]:
    edges = [0, *sorted({cut % len(samples) for cut in cuts}), len(samples)]
    return [SampleBlock(samples.time_s[a:b], samples.values[a:b]) for a, b in pairwise(edges)]


def whole(parts: list[Rows]) -> tuple[Floats, Floats, Floats, list[float]]:
    """Times, values, sample numbers, and the times at which stretches begin."""
    begins = [float(part.time_s[0]) for part in parts if part.after_gap]
    return *(np.concatenate([getattr(part, n) for part in parts]) for n in ("time_s", "values", "sample")), begins


def joined(groups: RateGroups, *streams: SampleBlock) -> tuple[Floats, Floats, Floats, list[float]]:
    joiner = Joiner(groups, wait=False)
    parts = [rows for n, stream in enumerate(streams) for rows in joiner.push(n, stream)]
    return whole(parts + joiner.finish())


def seconds(times: Floats) -> list[float]:
    return (times - START_S).tolist()


def test_a_row_shows_the_slow_channels_and_features_of_the_frame_that_ends_with_it() -> None:
    slow, fast = block(SLOW, 0, 20), block(FAST, 0, 20)
    times, values, sample, begins = joined(GROUPS, slow, fast)
    assert seconds(times) == list(range(2, 20))  # before, no frame of 2 s is whole
    assert begins == [times[0]] and sample.tolist() == list(range(2, 20))
    np.testing.assert_array_equal(values[:, :2], slow.values[2:])
    for row, second in zip(values, range(2, 20), strict=True):
        end = int(second * FAST) + 1
        features = FEATURES[0].transform(fast.values[None, end - FRAME : end])[0]
        np.testing.assert_allclose(row[2:], features.T.ravel(), rtol=1e-9)
    assert [column.name for column in GROUPS.columns][2:8] == [
        *("x_rms", "x_crest", "x_kurtosis", "x_skewness", "x_band_1", "y_rms")
    ]


def damaged(seed: int) -> tuple[SampleBlock, SampleBlock]:
    """A minute of both groups, with holes of all lengths, missing values and jitter."""
    rng = np.random.default_rng(seed)
    out = []
    for rate in (SLOW, FAST):
        samples = block(rate, 0, 60, seed)
        jitter = rng.uniform(-0.2, 0.2, len(samples)) / rate
        values = samples.values.copy()
        values[rng.random(values.shape) < 0.01] = np.nan
        samples = SampleBlock(samples.time_s + jitter, values)
        for start in rng.uniform(0, 60, 2):
            samples = without(samples, start, start + rng.choice([0.05, 0.5, 2.5, 4.5, 9.0]))
        out.append(samples)
    return out[0], out[1]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(0, 60), max_size=12),
    st.lists(st.integers(0, 3840), max_size=12),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_rows_do_not_depend_on_how_streams_are_cut_and_interleaved(seed, slow_cuts, fast_cuts, order, live) -> None:
    slow, fast = damaged(seed)
    expected = joined(GROUPS, slow, fast)
    queues = [pieces(slow, slow_cuts), pieces(fast, fast_cuts)]
    joiner, out = Joiner(GROUPS, wait=live), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join, "FEW_ROWS", 0)  # let go at once of what is not needed, as long streams do
        while any(queues):
            group = order.choice([n for n, queue in enumerate(queues) if queue])
            out += joiner.push(group, queues[group].pop(0))
    found = whole(out + joiner.finish())
    for one, other in zip(expected[:3], found[:3], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    assert expected[3] == found[3]


def test_the_streams_of_that_test_have_gaps_and_held_frames() -> None:
    joiners = [Joiner(GROUPS, wait=False) for _ in range(20)]
    for seed, joiner in enumerate(joiners):
        for n, stream in enumerate(damaged(seed)):
            joiner.push(n, stream)
    assert sum(joiner.gaps for joiner in joiners) > 10
    assert sum(joiner.silent[1] for joiner in joiners) > 30
    assert all(sum(joiner.resamplers[n].gaps for joiner in joiners) for n in (0, 1))


def test_a_live_stream_within_the_wait_gives_the_rows_of_a_recording() -> None:
    slow, fast = damaged(3)
    expected = joined(GROUPS, slow, fast)
    joiner, out = Joiner(GROUPS), []
    for now in np.arange(0, 64, 0.5):  # vibration comes 1.5 s after its time
        for n, (stream, lag) in enumerate(((slow, 0.1), (fast, 1.5))):
            at = stream.time_s - START_S + lag
            chosen = (at >= now - 0.5) & (at < now)
            out += joiner.push(n, SampleBlock(stream.time_s[chosen], stream.values[chosen], now))
    found = whole(out + joiner.finish())
    for one, other in zip(expected[:3], found[:3], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    assert joiner.late.tolist() == [0, 0]


def stepped(samples: SampleBlock, at: float, step_s: float, size: int) -> list[SampleBlock]:
    """In blocks of a size, of which the first of after a time says that the clock was set there."""
    first = int(np.searchsorted(samples.time_s - START_S, at))
    out = []
    for part in pieces(samples, [first, *range(size, len(samples), size)]):
        after = part.time_s[0] - START_S >= at - 1e-9
        begins = part.time_s[0] == samples.time_s[first]
        out.append(replace(part, time_s=part.time_s + step_s * after, step_s=step_s * begins))
    return out


def in_turn(queues: list[list[SampleBlock]], lag: list[int]) -> list[tuple[int, SampleBlock]]:
    """Blocks of several groups, as they arrive: those of group n are so many samples behind."""
    due = [(part.arrived_s + lag[n], n, part) for n, queue in enumerate(queues) for part in queue]
    return [(n, part) for _, n, part in sorted(due, key=itemgetter(0))]


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, -30.0, 400 * 86400.0, -1.5])
@pytest.mark.parametrize("lag", [[0, 1], [1, 0]])
def test_a_clock_that_is_set_for_all_groups_loses_no_row_and_doubles_none(step_s: float, lag: list[int]) -> None:
    slow, fast = block(SLOW, 0, 60), block(FAST, 0, 60)
    _, expected, _, _ = joined(GROUPS, slow, fast)
    queues = []
    for samples, size in ((slow, 1), (fast, 24)):
        parts, true_s = stepped(samples, 30.3, step_s, size), 0.0
        arrived = []
        for part in parts:
            true_s += part.step_s
            arrived.append(replace(part, arrived_s=float(part.time_s[-1]) - true_s))
        queues.append(arrived)
    joiner = Joiner(GROUPS)
    parts = [rows for n, part in in_turn(queues, lag) for rows in joiner.push(n, part)] + joiner.finish()
    times, values, _, begins = whole(parts)
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    assert len(begins) == 1 and not joiner.late.any()
    np.testing.assert_allclose(times - START_S, [n + step_s * (n > 30.3) for n in range(2, 60)], atol=1e-6)


def test_a_clock_of_one_group_alone_that_is_set_right_joins_it_from_then_on() -> None:
    slow = block(SLOW, 0, 60)
    wrong = [replace(part, time_s=part.time_s - 7200.0) for part in stepped(block(FAST, 0, 60), 30.0, 7200.0, 24)]
    joiner = Joiner(GROUPS, wait=False)
    queues = [[replace(part, arrived_s=float(part.time_s[-1])) for part in pieces(slow, list(range(1, 60)))], wrong]
    arrived_s = START_S
    for n, part in enumerate(wrong):
        arrived_s += len(part) / FAST
        wrong[n] = replace(part, arrived_s=arrived_s)
    parts = [rows for n, part in in_turn(queues, [0, 0]) for rows in joiner.push(n, part)] + joiner.finish()
    times = seconds(whole(parts)[0])
    assert times and times[0] <= 33 and times == list(range(int(times[0]), 60))


def test_rows_before_the_first_whole_one_are_not_said_to_be_left_out() -> None:
    joiner = Joiner(GROUPS, wait=False)
    for n, stream in enumerate((block(SLOW, 0, 40), without(block(FAST, 0, 40), 10.0, 30.0))):
        joiner.push(n, stream)
    joiner.finish()
    assert joiner.silent.tolist() == [0, 32 - 13] and joiner.left_out == 32 - 13


def test_a_silent_group_is_held_for_its_limit_and_then_makes_a_gap() -> None:
    slow, fast = block(SLOW, 0, 40), without(block(FAST, 0, 40), 10.0, 30.0)
    times, values, _, begins = joined(GROUPS, slow, fast)
    present = list(range(2, 13)) + list(range(32, 40))  # held for 3 s; whole again after a frame of 2 s
    assert seconds(times) == present
    assert seconds(np.array(begins)) == [2, 32]
    np.testing.assert_array_equal(values[8:11, 2:], values[[8], 2:].repeat(3, axis=0))


def test_a_group_that_lags_is_waited_for_and_what_comes_later_is_counted() -> None:
    joiner = Joiner(GROUPS)
    out = joiner.push(1, block(FAST, 0, 5, arrived_s=5.0))
    out += joiner.push(0, block(SLOW, 0, 8, arrived_s=8.0))
    assert seconds(whole(out)[0]) == [2, 3, 4]  # at 5 s and later vibration may still come
    out = joiner.push(0, block(SLOW, 8, 11, arrived_s=10.5))  # waited for more than 2 s
    assert seconds(whole(out)[0]) == [5, 6, 7]
    assert joiner.late.tolist() == [0, 0]
    joiner.push(1, block(FAST, 5, 9, arrived_s=11.0))
    assert joiner.late.tolist() == [0, 2 * FAST + 1]  # of the times up to 7 s


def test_a_row_shows_nothing_of_a_later_time() -> None:
    slow, fast = block(SLOW, 0, 12), block(FAST, 0, 12)
    wild = SampleBlock(fast.time_s, np.where((fast.time_s > START_S + 8)[:, None], 1e6, fast.values))
    calm, other = joined(GROUPS, slow, fast), joined(GROUPS, slow, wild)
    np.testing.assert_array_equal(calm[1][:7], other[1][:7])
    assert (calm[1][7:, 2:] != other[1][7:, 2:]).any(axis=1).all()


@pytest.mark.parametrize(
    ("align", "shown"),
    [("hold", [2.0, 2.0, 2.0, 2.0, 4.0, 4.0]), ("interpolate", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5])],
)
def test_a_slower_channel_is_held_or_drawn_between_samples_that_are_there(align: str, shown: list[float]) -> None:
    slow = Group("slow", (Channel("level"),), 0.5, 10.0, 10.0, (align,))
    base = Group("base", (Channel("load"),), 2.0, 2.5, 2.5, ("hold",))
    groups = RateGroups((slow, base), base=1)
    at = np.arange(0, 9, 2.0)
    half = np.arange(0, 8.5, 0.5)
    times, values, *_ = joined(
        groups, SampleBlock(START_S + at, at[:, None]), SampleBlock(START_S + half, half[:, None])
    )
    chosen = (times >= START_S + 2) & (times < START_S + 5)
    assert values[chosen, 0].tolist() == shown
    np.testing.assert_array_equal(values[:, 1], times - START_S)


def test_no_line_is_drawn_over_a_gap() -> None:
    slow = Group("slow", (Channel("level"),), 0.1, 10.0, 50.0, ("interpolate",))
    base = Group("base", (Channel("load"),), 1.0, 5.0, 5.0, ("hold",))
    at = np.concatenate((np.arange(0, 101, 10.0), np.arange(250, 301, 10.0)))
    level, second = np.where(at < 200, 0.0, 1000.0 + (at - 250)), np.arange(300.0)
    times, values, *_ = joined(
        RateGroups((slow, base), base=1),
        SampleBlock(START_S + at, level[:, None]),
        SampleBlock(START_S + second, second[:, None]),
    )
    shown = dict(zip(seconds(times), values[:, 0].tolist(), strict=True))
    assert {shown[n] for n in shown if n < 250} == {0.0} and max(n for n in shown if n < 250) <= 160
    assert [shown[n] for n in (250, 255, 259, 260, 265, 275)] == [1000.0, 1000.0, 1000.0, 1000.0, 1005.0, 1015.0]


def test_a_faster_channel_can_be_shown_by_its_mean() -> None:
    fast = Group("fast", (Channel("flow"), Channel("level")), 8.0, 0.5, 2.0, ("mean", "hold"))
    slow, samples = block(SLOW, 0, 10), block(8.0, 0, 10)
    times, values, *_ = joined(RateGroups((process(), fast)), slow, samples)
    for time_s, row in zip(times, values, strict=True):
        end = np.searchsorted(samples.time_s, time_s, side="right")
        assert row[2:].tolist() == pytest.approx([samples.values[end - 8 : end, 0].mean(), samples.values[end - 1, 1]])


def test_rows_may_be_made_at_each_so_many_of_the_base() -> None:
    groups = RateGroups((process(rate=0.1, max_age_s=30.0), vibration()), base=1, every=int(FAST))
    times, values, *_ = joined(groups, block(0.1, 0, 40), block(FAST, 0, 40))
    assert groups.sample_rate_hz == 1.0
    np.testing.assert_allclose(np.diff(times), 1.0)
    assert values[10, 1] != values[20, 1] == values[21, 1]


def test_a_dead_base_lets_no_memory_grow() -> None:
    joiner = Joiner(GROUPS, kept=1 << 16)
    most = 0
    for second in range(150):
        joiner.push(1, block(FAST, second, second + 1, arrived_s=second))
        most = max(most, sum(len(run) for _, _, run in joiner._lanes[1]._chunks))
    assert most <= (1 << 16) / 32
    assert joiner.dropped[0] == 0 and joiner.dropped[1] > 150 * FAST - most


def test_a_group_that_has_ended_shows_its_last_until_it_is_too_old_and_is_missing_then() -> None:
    joiner = Joiner(GROUPS, wait=False)
    out = joiner.push(0, block(SLOW, 0, 10)) + joiner.push(1, block(FAST, 0, 5))
    assert seconds(whole(out)[0]) == [2, 3, 4]
    out += joiner.end(1)
    assert seconds(whole(out)[0]) == [2, 3, 4, 5, 6, 7]  # the last frame ends a sample before 5, and 3 s are allowed
    assert not joiner.push(0, block(SLOW, 10, 200)) and not joiner.finish()
    assert joiner.silent.tolist() == [0, 192] and len(joiner._lanes[0]._rows()[0]) < 200


def test_nothing_is_kept_for_a_base_that_has_ended() -> None:
    joiner = Joiner(GROUPS, wait=False)
    joiner.push(0, block(SLOW, 0, 10))
    joiner.end(0)
    out = [rows for second in range(190) for rows in joiner.push(1, block(FAST, second, second + 1))]
    assert seconds(whole(out)[0]) == list(range(2, 10))
    assert len(joiner._lanes[1]._rows()[0]) < 100 * FAST


def test_a_clock_that_is_set_after_a_group_has_ended_is_followed() -> None:
    joiner = Joiner(GROUPS, wait=False)
    joiner.push(0, block(SLOW, 0, 10))
    joiner.push(1, block(FAST, 0, 10))
    joiner.end(1)
    later = block(SLOW, 10, 20)
    joiner.push(0, replace(later, time_s=later.time_s + 3600, step_s=3600.0))
    assert not joiner._steps._open


@pytest.mark.parametrize("every_s", [20, 50, 200])
def test_a_base_that_comes_in_bursts_loses_no_row(every_s: int) -> None:
    slow, fast = block(SLOW, 0, 200), block(FAST, 0, 200)
    expected = joined(GROUPS, slow, fast)
    joiner, out = Joiner(GROUPS), []
    for second in range(200):
        out += joiner.push(1, block(FAST, second, second + 1, arrived_s=second + 1.0))
        if (second + 1) % every_s == 0:
            out += joiner.push(0, block(SLOW, second + 1 - every_s, second + 1, arrived_s=second + 1.0))
    found = whole(out + joiner.finish())
    for one, other in zip(expected[:3], found[:3], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    assert expected[3] == found[3] and not joiner.dropped.any()


def test_golden_samples_that_hold_over_long_gaps_are_refused_before_their_rows_are_made() -> None:
    slow, fast = block(SLOW, 0, 10), block(FAST, 0, 10)
    join.check_golden(GROUPS, (slow, fast))
    patient = replace(GROUPS, groups=(replace(process(), max_gap_s=1e6, max_age_s=1e6), vibration()))
    join.check_golden(patient, (slow, fast))
    for times, said in (((0.0, 9e5, 0.0, 9e5), "numbers"), ((np.nan,), "no finite numbers"), ((np.inf,), "no finite")):
        with pytest.raises(ValueError, match=said):
            join.check_golden(patient, (SampleBlock(np.array(times), np.zeros((len(times), 2))), fast))
    with pytest.raises(ValueError, match=r"features of 8.33e\+08: expected at most"):
        wide = replace(GROUPS, groups=(process(), replace(vibration(), frame=1 << 20)))
        join.check_golden(wide, (block(SLOW, 0, 199), fast))


def test_the_manifest_form_comes_back_alike() -> None:
    groups = RateGroups((process(("hold", "interpolate")), vibration()), wait_s=3.0)
    again = RateGroups.from_json(json.loads(json.dumps(groups.to_json())))
    assert again.to_json() == groups.to_json()
    assert (again.columns, again.channels, again.sample_rate_hz) == (groups.columns, groups.channels, 1.0)
    alone = one_group((Channel("flow", "l/min"),), 10.0, 0.5)
    assert alone.alone and list(alone.to_json()) == ["groups"]
    assert RateGroups.from_json(alone.to_json()) == alone


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"frame": 1 << 40}, "a frame of"),
        ({"frame": 2}, "rows are"),
        ({"max_age_s": 0.001}, "oldest value"),
        ({"name": "process"}, "given twice"),
        ({"sample_rate_hz": float("nan")}, "sample rate"),
        ({"channels": [{"name": "x"}]}, "features that are not for 1"),
        ({"max_age_s": 1e9}, "values that may be held"),
    ],
)
def test_a_damaged_group_is_refused(damage: dict, said: str) -> None:
    raw = GROUPS.to_json()
    raw["groups"][1] |= damage
    with pytest.raises(BundleError, match=said):
        RateGroups.from_json(raw)


def test_what_a_model_says_of_features_folds_back_onto_the_channel() -> None:
    split = np.arange(12.0)[None]
    np.testing.assert_array_equal(GROUPS.fold(split), [[0, 1, 2 + 3 + 4 + 5 + 6, 7 + 8 + 9 + 10 + 11]])
    parts = [Contribution(column.name, 0.05, -1.0, -2.0) for column in GROUPS.columns]
    told = GROUPS.told(parts)
    assert [each.channel for each in told] == ["x", "y", "temperature", "load"]
    assert told[0].share == pytest.approx(0.25)
    assert (told[0].seen, told[0].expected) == (0.1, 0.01)  # effective value: 10 to the power of x_rms


@pytest.mark.parametrize("expected", [400.0, -400.0, 4.0, float("nan")])
def test_an_expected_level_that_is_decades_off_is_not_told(expected: float) -> None:
    parts = [Contribution(column.name, 0.05, -1.0, expected) for column in GROUPS.columns]
    told = {each.channel: each for each in GROUPS.told(parts)}
    assert (told["x"].seen, told["x"].expected) == (0.1, None)


def test_a_level_that_no_number_holds_is_not_told() -> None:
    told = GROUPS.told([Contribution(column.name, 0.05, 400.0, 399.0) for column in GROUPS.columns])
    assert {(each.seen, each.expected) for each in told[:2]} == {(None, None)}


def test_an_alarm_names_the_channel_of_a_group_that_shows_one_number_of_each() -> None:
    bands = (BandEnergies(((4.0, 16.0),), FAST, np.full(2, 1e-9)),)
    groups = RateGroups((process(), replace(vibration(), features=bands)))
    told = groups.told([Contribution(column.name, 0.25, 1.0, 2.0) for column in groups.columns])
    assert sorted(each.channel for each in told) == ["load", "temperature", "x", "y"]


def test_a_bundle_of_too_many_columns_is_refused_by_their_number() -> None:
    raw = GROUPS.to_json()
    raw["groups"][0]["channels"] = [{"name": f"c{n}"} for n in range(1100)]
    with pytest.raises(BundleError, match=r"1110 columns \(process 1100 × 1, vibration 2 × 5\), at most 1024"):
        RateGroups.from_json(raw)


def test_features_have_names_that_differ() -> None:
    names = feature_names(FEATURES, FRAME)
    assert names == ("rms", "crest", "kurtosis", "skewness", "band_1")
