"""What an asset's line says does not depend on how its samples arrive."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.alarms.normal import Normal, NormalChannel
from tocsin.core.bundle import Bundle, load_bundle
from tocsin.errors import DataError
from tocsin.pipeline import AssetLine
from tocsin.records import Change, Channel, Contribution, Floats, SampleBlock, Transition

DATA = Path(__file__).parent.parent / "data"
START_S = 1_773_043_200.0


SMALL, LSTM = (load_bundle(DATA / f"{name}.tocsin") for name in ("small", "small_lstm"))


def normal(rows: int) -> Floats:
    """(rows, 2) pressure and flow of the machine that the bundles know, without its noise."""
    phase = 2 * np.pi * np.arange(rows) / 24
    return np.stack((5 + 0.4 * np.sin(phase), 21 + 2 * np.sin(phase - np.pi / 4)), axis=1)


def stream(seed: int, rows: int = 400) -> SampleBlock:
    """A machine with faults, on a line that loses, repeats, delays and misorders samples."""
    rng, at = np.random.default_rng(seed), np.arange(rows)
    values = normal(rows) + rng.normal(0, (0.05, 0.2), (rows, 2))
    for begin in rng.integers(40, rows, 2):
        values[begin : begin + 30, rng.integers(2)] -= rng.uniform(1, 5)
    values[rng.random((rows, 2)) < 0.02] = np.nan
    begin = rng.integers(rows)
    values[begin : begin + rng.integers(12), rng.integers(2)] = np.nan
    time_s = START_S + at + rng.uniform(-0.4, 0.4, rows)
    for begin in rng.integers(1, rows, 2):
        time_s[begin:] += rng.choice([1.0, 3.0, 5.0, 60.0])  # a gap
    if rng.random() < 0.3:
        time_s[rng.integers(1, rows) :] -= rng.choice([0.3, 2.0, 3600.0])  # the clock is set back
    repeated = np.sort(np.concatenate((at, rng.integers(0, rows, 5))))
    return SampleBlock(time_s[repeated], values[repeated])


def test_no_value_is_expected_that_normal_running_never_had() -> None:
    channels = (NormalChannel("pressure", 4.5, 4.9, 1, 1.0), NormalChannel("flow", 0.0, 18.0, 1, 1.0))
    raw = {**SMALL.manifest.raw, "quality": Normal(9, channels=channels).to_json()}
    bounded = replace(SMALL, manifest=replace(SMALL.manifest, raw=raw))
    values = normal(200)
    values[100:, 0] -= 3.0
    samples = SampleBlock(START_S + np.arange(200.0), values)
    parts = [each.contributions for each in play(bounded, samples, [])[4]]
    plain = [each.contributions for each in play(SMALL, samples, [])[4]]
    assert len(parts) == len(plain) > 0
    for told, free in zip(parts, plain, strict=True):
        assert [each.share for each in told] == [each.share for each in free]
        for each in told:
            known = next(channel for channel in channels if channel.name == each.channel)
            assert each.expected is None or known.low <= each.expected <= known.high
        assert any(each.expected is not None for each in told)
        assert [each.expected for each in told] != [each.expected for each in free]


@pytest.mark.parametrize(
    ("seen", "rebuilt", "told"),
    [
        (700.0, 900.0, 900.0),
        (700.0, 2068.0, 1480.0),
        (700.0, -9.0, 0.0),
        (1480.0, 2068.0, None),  # nothing is expected that is there
        (1500.0, 2068.0, None),  # nor less, of what the model held for too little
        (1500.0, 1400.0, 1400.0),
        (-5.0, -9.0, None),
    ],
)
def test_the_nearest_possible_value_is_expected_only_on_the_side_that_the_model_meant(
    seen: float, rebuilt: float, told: float | None
) -> None:
    speed = Normal(9, channels=(NormalChannel("speed", 0.0, 1480.0, 1, 9.0),))
    (found,) = speed.possible((Contribution("speed", 1.0, seen, rebuilt),))
    assert found == Contribution("speed", 1.0, seen, told)


Heard = tuple[Floats, Floats, Floats, list[bool], list[Transition]]


def play(bundle: Bundle, samples: SampleBlock, cuts: list[int]) -> Heard:
    """End times, scores, shares, states and transitions when the samples come in blocks that end at the cuts."""
    line = AssetLine("pump-1", bundle, bundle.manifest.channels)
    out: Heard = (np.empty(0), np.empty(0), np.empty((0, 2)), [], [])
    ends, scores, shares, states, transitions = out
    edges = [0, *sorted({cut % len(samples) for cut in cuts} - {0}), len(samples)]
    for start, stop in pairwise(edges):
        for part in line.feed(SampleBlock(samples.time_s[start:stop], samples.values[start:stop])):
            ends = np.concatenate((ends, part.windows.end_s))
            scores = np.concatenate((scores, part.scores.value))
            shares = np.concatenate((shares, part.scores.share()))
            states += part.anomaly.tolist()
            transitions += part.transitions
    return ends, scores, shares, states, transitions


def assert_alike(one: Heard, other: Heard) -> None:
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_allclose(one[1], other[1], rtol=1e-6)
    np.testing.assert_allclose(one[2], other[2], atol=1e-6)
    assert one[3] == other[3]
    assert len(one[4]) == len(other[4])
    for a, b in zip(one[4], other[4], strict=True):
        assert (a.time_s, a.change, a.contributions) == (b.time_s, b.change, b.contributions)
        assert a.score == pytest.approx(b.score, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 404), max_size=12))
def test_alarms_and_scores_do_not_depend_on_how_the_stream_is_cut(seed: int, cuts: list[int]) -> None:
    samples = stream(seed)
    assert_alike(play(SMALL, samples, []), play(SMALL, samples, cuts))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 404), max_size=12))
def test_nor_do_those_of_a_recurrent_model(seed: int, cuts: list[int]) -> None:
    samples = stream(seed)
    assert_alike(play(LSTM, samples, []), play(LSTM, samples, cuts))


@pytest.mark.parametrize("bundle", [SMALL, LSTM], ids=["conv_ae", "lstm_ae"])
def test_live_samples_one_by_one_are_scored_as_a_recording_at_once(bundle: Bundle) -> None:
    samples = stream(3)
    whole = play(bundle, samples, [])
    assert_alike(whole, play(bundle, samples, list(range(len(samples)))))
    assert whole[4] and len(whole[0]) > 100


def test_the_streams_of_these_tests_have_alarms_gaps_and_clock_steps() -> None:
    lines = [AssetLine("pump-1", SMALL, SMALL.manifest.channels) for _ in range(20)]
    raised = 0
    for seed, line in enumerate(lines):
        raised += sum(t.change is Change.RAISED for part in line.feed(stream(seed)) for t in part.transitions)
    found = [line.resampler for line in lines]
    assert raised > 10
    assert min(sum(getattr(r, what) for r in found) for what in ("gaps", "repeated", "held", "backwards")) > 0


def test_channels_are_found_by_name_whatever_their_order() -> None:
    samples = stream(0)
    more = (Channel("flow"), Channel("speed"), Channel("pressure"))
    line = AssetLine("pump-1", SMALL, more)
    values = np.column_stack((samples.values[:, 1], np.full(len(samples), np.nan), samples.values[:, 0]))
    scores = np.concatenate([p.scores.value for p in line.feed(SampleBlock(samples.time_s, values))])
    np.testing.assert_array_equal(scores, play(SMALL, samples, [])[1])


def test_a_source_without_a_channel_of_the_bundle_is_refused() -> None:
    with pytest.raises(DataError, match=r"pump-1: the source has no channel 'flow'.*gives pressure"):
        AssetLine("pump-1", SMALL, (Channel("pressure"),))


def test_an_alarm_names_the_channel_that_caused_it_with_its_evidence() -> None:
    at = np.arange(100)
    values = normal(100)
    values[60:, 1] = 5.0
    line = AssetLine("pump-1", SMALL, SMALL.manifest.channels)
    (raised,) = (t for part in line.feed(SampleBlock(START_S + at, values)) for t in part.transitions)
    assert (raised.change, raised.alarm, raised.cause) == (Change.RAISED, "pump-1-anomaly", "model")
    assert raised.time_s == raised.window_end_s
    assert START_S + 62 <= raised.time_s <= START_S + 70  # 3 of 5 windows, after the smoothing
    assert raised.window_end_s - raised.window_start_s == 31 and raised.window_rows == 32
    first = raised.contributions[0]
    assert (first.channel, first.seen) == ("flow", 5.0) and first.share > 0.9
    assert first.expected is not None and 15 < first.expected < 27
    assert sum(part.share for part in raised.contributions) == pytest.approx(1)
    assert raised.ratio == pytest.approx(raised.score / raised.threshold) and raised.ratio >= 1


def test_an_alarm_that_was_on_before_a_restart_is_cleared_by_normal_running() -> None:
    line = AssetLine("pump-1", SMALL, SMALL.manifest.channels, active={"pump-1-anomaly"})
    block = SampleBlock(START_S + np.arange(60), normal(60))
    transitions = [t for part in line.feed(block) for t in part.transitions]
    assert [t.change for t in transitions] == [Change.CLEARED]
    assert transitions[0].time_s == START_S + 31 + 4  # the fifth quiet window
