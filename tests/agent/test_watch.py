"""A broken sensor alarms as a sensor, a broken machine as a machine: through the whole line, with a real model."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.alarms.limits import ChannelOverride
from tocsin.alarms.normal import Normal, NormalCourse
from tocsin.alarms.rules import Rule
from tocsin.alarms.stale import Staleness
from tocsin.alarms.watch import Joined, Prior, Sampled, Watch
from tocsin.core.bundle import Bundle, load_bundle
from tocsin.core.manifest import Manifest
from tocsin.errors import BundleError, ConfigError
from tocsin.pipeline import AssetLine, Scored
from tocsin.records import Channel, Floats, Rows, SampleBlock, Scores, Transition, Windows

DATA = Path(__file__).parent.parent / "data"
START_S = 1_773_043_200.0
CHANNELS = (Channel("pressure", "bar"), Channel("flow", "l/min"))


def machine(rows: int, seed: int) -> Floats:
    """(rows, 2) of the machine that the bundles know."""
    phase = 2 * np.pi * np.arange(rows) / 24
    swing = np.stack((5 + 0.4 * np.sin(phase), 21 + 2 * np.sin(phase - np.pi / 4)), axis=1)
    return (swing + np.random.default_rng(seed).normal(0, (0.05, 0.2), (rows, 2))).round(3)


def knowing(bundle: Bundle) -> Bundle:
    """The bundle as the trainer writes it, with what normal running was."""
    course = NormalCourse(("pressure", "flow"), 1.0)
    course.push(START_S + np.arange(1200), machine(1200, 7))
    return replace(bundle, manifest=Manifest.from_json({**bundle.manifest.raw, "quality": course.normal().to_json()}))


OLD = load_bundle(DATA / "small.tocsin")
BUNDLE = knowing(OLD)


def play(
    values: Floats,
    cuts: list[int] | None = None,
    bundle: Bundle = BUNDLE,
    prior: Prior = Prior(),  # noqa: B008
) -> tuple[list[Transition], list[Scored], AssetLine]:
    line = AssetLine("pump-1", bundle, CHANNELS, prior=prior)
    block = SampleBlock(START_S + np.arange(len(values)), values)
    transitions: list[Transition] = []
    parts: list[Scored] = []
    for start, stop in pairwise([0, *sorted({cut % len(values) for cut in cuts or []} - {0}), len(values)]):
        new = line.feed(SampleBlock(block.time_s[start:stop], block.values[start:stop]))
        transitions += [*line.watch.told(), *(t for part in new for t in part.transitions)]
        parts += [replace(part, windows=replace(part.windows, values=np.empty(0))) for part in new]
    return transitions, parts, line


def raised(transitions: list[Transition]) -> set[str]:
    return {t.alarm.removeprefix("pump-1-") for t in transitions if t.change.value == "raised"}


def broken(fault: str, column: int, seed: int = 1, rows: int = 500) -> Floats:
    """A machine in good health with a sensor that is not, from row 200 to 350."""
    values = machine(rows, seed)
    part = (slice(200, 350), column)
    match fault:
        case "stuck":
            values[part] = values[200, column]
        case "unplugged, reads 0":
            values[part] = 0.0
        case "unplugged, no value":
            values[part] = np.nan
        case "unplugged, full scale":
            values[part] = 65535.0
        case "garbage":
            values[part] = np.where(np.random.default_rng(seed).random(150) < 0.3, 3e38, values[part])
        case "spikes":
            values[200:350:12, column] *= 4
    return values


SENSOR_FAULTS = {
    "stuck": {"stuck"},
    "unplugged, reads 0": {"stuck"},
    "unplugged, no value": {"missing"},
    "unplugged, full scale": {"stuck", "range"},
    "garbage": {"range"},
    "spikes": {"spikes"},
}


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("fault", SENSOR_FAULTS)
def test_a_broken_sensor_gives_its_alarm_and_none_of_the_process(fault: str, column: int) -> None:
    for seed in range(3):
        transitions, _, _ = play(broken(fault, column, seed))
        assert raised(transitions) == SENSOR_FAULTS[fault], seed
        last = {t.alarm: t.change.value for t in transitions}
        assert set(last.values()) == {"cleared"}


def test_without_what_normal_running_was_the_same_sensor_alarms_as_a_machine() -> None:
    assert raised(play(broken("unplugged, reads 0", 0), bundle=OLD)[0]) == {"anomaly"}


@pytest.mark.parametrize("factor", [0.5, 1.5, 3.0, 20.0])
def test_a_machine_fault_alarms_as_the_process_alone(factor: float) -> None:
    values = machine(500, 1)
    values[200:350, 1] *= factor
    transitions, parts, line = play(values)
    assert raised(transitions) == {"anomaly"}
    assert line.watch.held_back == 0 and not any(part.held.any() for part in parts)


def test_a_machine_that_fails_while_a_sensor_is_only_a_bystander_still_alarms() -> None:
    values = machine(900, 1)
    values[200:, 0] = values[200, 0]  # not that far from its usual course: the model hardly minds
    values[400:, 1] += 15
    transitions, _, _ = play(values)
    assert raised(transitions) == {"stuck", "anomaly"}


def test_what_is_held_back_is_counted_told_and_leaves_no_trace() -> None:
    values = broken("unplugged, reads 0", 0)
    _, parts, line = play(values)
    held = np.concatenate([part.held for part in parts])
    ratio = np.concatenate([part.scores.ratio for part in parts])
    assert line.watch.held_back == np.count_nonzero(held & (ratio >= 1)) > 100
    assert ratio[held].max() > 5 and np.isfinite(ratio).all()
    after = np.flatnonzero(held)[-1] + 1
    assert (ratio[after:] < 1).all()
    assert not np.concatenate([part.anomaly for part in parts]).any()


def test_a_machine_fault_alarms_beside_a_sensor_that_goes_wild_in_every_window() -> None:
    values = machine(2000, 1)
    values[400:, 0] += 3
    values[400::30, 1] = 1e6
    transitions, _, _ = play(values)
    assert raised(transitions) == {"range", "anomaly"}


@pytest.mark.parametrize(("held", "alarms"), [(4, True), (400, False)])
def test_windows_from_before_a_long_hold_have_no_part_in_an_alarm_after_it(held: int, alarms: bool) -> None:
    line = AssetLine("pump-1", BUNDLE, CHANNELS)
    over = np.array([2.0, 2.0, *[0.5] * held, 2.0])  # on_n is 3
    scores = Scores(over, over, np.ones((len(over), 2)) / 2)
    is_held = np.array([False, False, *[True] * held, False])
    cut = len(over) // 2
    found = []
    for part in (slice(cut), slice(cut, None)):
        piece = Scores(scores.value[part], scores.ratio[part], scores.per_channel[part])
        found += line._decide(piece, is_held[part], np.zeros(len(piece.value), np.int64))[2]
    assert bool(found) == alarms


def test_a_machine_fault_alarms_between_windows_that_are_held_back() -> None:
    values = machine(1500, 1)
    values[400:, 0] += 1
    values[400::34, 1] = 1e6  # two or three windows of 34 are believed
    transitions, parts, _ = play(values)
    assert np.concatenate([part.held for part in parts])[500:].mean() > 0.9
    assert raised(transitions) == {"range", "anomaly"}


def wild_by_turns() -> Floats:
    """Every window has a wild value, of one channel or the other; of each they are too few for an alarm of its own."""
    values = machine(1000, 1)
    values[400:800:62, 0] = values[431:800:62, 1] = 1e6
    return values


def test_a_model_that_is_held_back_for_long_while_no_sensor_is_in_alarm_is_told() -> None:
    transitions, _, _ = play(wild_by_turns())
    assert [(t.alarm, t.change.value, t.time_s - START_S) for t in transitions] == [
        ("pump-1-held-back", "raised", 501),
        ("pump-1-held-back", "cleared", 804),
    ]
    assert {part.channel for part in transitions[0].contributions} <= {"pressure", "flow"}


def test_what_is_told_of_windows_held_back_does_not_depend_on_how_the_stream_is_cut() -> None:
    values = wild_by_turns()
    values[600:700, 0] = values[600, 0]
    whole, parts = (play(values, cuts)[0] for cuts in ([], list(range(0, 1000, 7))))
    assert sorted((t.time_s, t.alarm) for t in whole) == sorted((t.time_s, t.alarm) for t in parts)
    assert raised(whole) == {"held-back", "stuck"}


def test_channels_in_alarm_are_named() -> None:
    _, _, line = play(broken("stuck", 1)[:300])
    assert line.watch.bad_channels() == ("flow",)


def test_rules_and_limits_of_the_user_hold_beside_the_model() -> None:
    values = machine(500, 1)
    values[200:260, 1] = 0.4 + np.random.default_rng(0).random(60) / 5
    rule = Rule("dry", "pressure > 4 and flow < 1", for_s=10)
    transitions, _, _ = play(values, prior=Prior((rule,)))
    assert raised(transitions) == {"anomaly", "dry"}
    impossible = Prior((rule,), {"flow": ChannelOverride(low=1.0)})
    assert raised(play(values, prior=impossible)[0]) == {"range"}
    assert raised(play(values, prior=Prior(quality=False))[0]) == {"anomaly"}


def test_a_limit_of_an_unknown_channel_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"asset pump-1: quality: no channel 'flw', there are pressure, flow"):
        play(machine(10, 1), prior=Prior(overrides={"flw": ChannelOverride()}))


def test_a_damaged_quality_section_is_refused() -> None:
    damaged = {"rows": 10, "rates": [1, 1], "channels": [{"name": "flow", "low": 1, "high": "x"}]}
    bundle = replace(OLD, manifest=Manifest.from_json({**OLD.manifest.raw, "quality": damaged}))
    with pytest.raises(BundleError, match="quality section is damaged"):
        play(machine(10, 1), bundle=bundle)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(sorted(SENSOR_FAULTS)), st.integers(0, 1000), st.lists(st.integers(0, 500), max_size=10))
def test_what_is_told_and_held_back_does_not_depend_on_how_the_stream_is_cut(
    fault: str, seed: int, cuts: list[int]
) -> None:
    values = broken(fault, seed % 2, seed)
    rules = Prior((Rule("low", "mean(flow, 10s) < 20 or pressure < 1", for_s=3),))
    heard = []
    for cut in ([], cuts):
        transitions, parts, line = play(values, cut, prior=rules)
        told = sorted((t.alarm, t.change, t.time_s) for t in transitions)
        heard.append((told, np.concatenate([part.held for part in parts]).tolist(), line.watch.held_back))
    assert heard[0] == heard[1]


def test_doubt_about_one_of_several_groups_is_found_by_time_and_its_features_look_back() -> None:
    slow, fast = Sampled((CHANNELS[0],), 1.0), Sampled((CHANNELS[1],), 10.0, frame_s=2.0, measured=False)
    joined = Joined((Channel("pressure"), Channel("flow_rms"), Channel("flow_crest")), np.array([0, 1, 1]))
    prior = Prior((Rule("high", "flow_rms > 1"),), {"flow": ChannelOverride(stuck_after_s=1.0)})
    watch = Watch("motor", (slow, fast), joined, 1.0, Normal(0), prior)
    flow = np.random.default_rng(0).normal(0, 1, 600)
    flow[200:300] = 7.0  # from 20 s to 30 s
    watch.block(SampleBlock(START_S + np.arange(60), machine(60, 1)[:, :1]), 0)
    watch.block(SampleBlock(START_S + np.arange(600) / 10, flow[:, None]), 1)
    assert [(t.alarm, t.time_s - START_S) for t in watch.told()] == [
        ("motor-stuck", pytest.approx(20.9)),
        ("motor-stuck", pytest.approx(34.9)),
    ]
    end = np.arange(4, 60)
    times, none = START_S + end, np.zeros(56, np.int64)
    rows = Rows(times, np.full((56, 3), 2.0), none, True)
    watch.rows(rows)
    assert [t.time_s - START_S for t in watch.told()] == [4.0]  # before the doubt, which does not clear it
    score = np.full(56, 2.0)
    windows = Windows(np.empty((56, 5, 3)), times - 4, times, none, none)
    held, _ = watch.hold(windows, Scores(score, score, np.tile((0.5, 1.5), (56, 1))))
    assert end[held].tolist() == list(range(21, 36))  # five rows a window, two seconds a frame
    assert watch.held_back == 15


def test_a_condition_of_two_groups_is_on_until_both_are_well() -> None:
    groups = (Sampled((CHANNELS[0],), 1.0), Sampled((CHANNELS[1],), 1.0))
    prior = Prior(overrides={name: ChannelOverride(low=0, high=100) for name in ("pressure", "flow")})
    for active in ((), ("motor-range",)):
        watch = Watch("motor", groups, Joined(CHANNELS, np.array([0, 1])), 1.0, Normal(0), prior, active)
        told = []
        values = machine(600, 1)
        values[10:320, 0], values[10:20, 1] = np.linspace(200, 300, 310), np.linspace(200, 300, 10)
        for row in range(0, 600, 100):
            for group in (0, 1):
                part = values[row : row + 100, group, None]
                watch.block(SampleBlock(START_S + row + np.arange(100), part), group)
            told += [(t.change.value, t.time_s - START_S) for t in watch.told()]
        assert [change for change, _ in told] == ["raised", "raised", "cleared"]
        assert told[-1] == ("cleared", 419.0)


def test_a_rule_for_a_flow_of_nothing_hears_a_flow_that_is_exactly_nothing() -> None:
    values = machine(400, 1)
    values[200:, 1] = 0.0
    transitions, _, _ = play(values, prior=Prior((Rule("dry", "pressure > 4 and mean(flow, 10s) < 1"),)))
    assert {(t.alarm, t.time_s - START_S) for t in transitions if t.cause == "rule" and t.time_s < START_S + 212} == {
        ("pump-1-dry", 209)
    }


def silence(stale: Staleness, *pieces: tuple[float, int]) -> list[tuple[str, float]]:
    """(change, seconds after the start) when blocks of n samples, 1 a second, begin at these times."""
    out = []
    for begin_s, n in pieces:
        for t in stale.take(SampleBlock(START_S + begin_s + np.arange(n), np.zeros((n, 1)))):
            out.append((t.change.value, t.time_s - START_S))
    return out


def test_a_silence_in_a_recording_is_told_with_its_times() -> None:
    stale = Staleness("pump-1", 1.0, live=False)
    assert silence(stale, (0, 100), (104, 50), (300, 100)) == [("raised", 153 + 10), ("cleared", 305)]
    assert stale.alarm == "pump-1-stale"


def test_so_it_is_however_the_recording_is_cut() -> None:
    block = np.concatenate((np.arange(100), 300 + np.arange(100), 350 + np.arange(50)))
    whole = Staleness("pump-1", 1.0, live=False).take(SampleBlock(block.astype(float), np.zeros((250, 1))))
    single = Staleness("pump-1", 1.0, live=False)
    assert [t for s in block for t in single.take(SampleBlock(np.array([float(s)]), np.zeros((1, 1))))] == list(whole)


def test_a_live_source_is_stale_while_it_is_silent_and_once() -> None:
    stale = Staleness("pump-1", 10.0, live=True)
    stale.take(SampleBlock(np.array([START_S]), np.zeros((1, 1)), arrived_s=50.0))
    assert stale.wait(59.9, START_S + 9.9) == ()
    (raised_then,) = stale.wait(60.1, START_S + 10.1)
    assert (raised_then.change.value, raised_then.cause, raised_then.time_s) == ("raised", "data_gap", START_S + 10.1)
    assert stale.wait(70.0, START_S + 20) == ()
    assert silence(stale, (30, 4)) == [] and silence(stale, (34, 4)) == [("cleared", 35)]


def test_a_source_that_never_gave_anything_is_stale_too() -> None:
    stale = Staleness("pump-1", None, live=True, patience_s=3.0)
    assert stale.wait(100.0, START_S) == ()
    assert len(stale.wait(103.5, START_S + 3.5)) == 1


def test_a_clock_that_is_set_makes_no_silence() -> None:
    stale = Staleness("pump-1", 1.0, live=True)
    stale.take(SampleBlock(np.array([100.0]), np.zeros((1, 1))))
    assert stale.take(SampleBlock(np.array([START_S]), np.zeros((1, 1)), step_s=START_S - 101)) == ()
