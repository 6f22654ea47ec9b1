"""Each ill that is put into a channel is found and named, and a clean channel gets an A."""

import numpy as np
import pytest

from tocsin.records import Channel, Floats, Rows
from tocsin_trainer.dataset import Dataset
from tocsin_trainer.quality import Grader, grade, quality
from tocsin_trainer.results import ChannelGrade
from tocsin_trainer.stretch import RowStore, StoredRows, Stretch

ROWS = 6000


def course(seed: int, rows: int = ROWS, decimals: int = 3) -> Floats:
    """A process value: a cycle of 50 rows, a slow one, and noise, as a logger writes it down."""
    rng = np.random.default_rng(seed)
    t = np.arange(rows)
    signal = np.sin(t / 8) + 0.5 * np.sin(t / 130 + seed) + 0.2 * rng.standard_normal(rows)
    return np.round(20 + 3 * signal, decimals)


def recording(names: tuple[str, ...], time_s: Floats, values: Floats) -> Dataset:
    """One stretch, kept as `load` keeps it."""
    store = RowStore(len(names))
    store.append(Rows(time_s, values, np.arange(len(time_s)), True))
    stretch = Stretch(StoredRows(store, 0, len(store)), None, 0)
    return Dataset(tuple(map(Channel, names)), 1.0, 5.0, (stretch,), (), ())


def graded(column: Floats, rate_hz: float = 1.0) -> ChannelGrade:
    """The grade of a column that stands beside a clean one."""
    clean, found = grade(
        (Channel("clean"), Channel("tried")), [np.column_stack((course(99, len(column)), column))], rate_hz
    )
    assert clean.grade == "A", clean
    return found


def kinds(found: ChannelGrade) -> list[str]:
    return [finding.kind for finding in found.findings]


@pytest.mark.parametrize("decimals", [1, 2, 6])
def test_a_clean_channel_gets_an_a(decimals: int) -> None:
    found = graded(course(1, decimals=decimals))
    assert (found.grade, found.findings) == ("A", ())
    assert found.figures["spread"] == pytest.approx(course(1).std(), rel=0.01)


def test_a_constant_channel_gets_a_d_and_nothing_else() -> None:
    found = graded(np.full(ROWS, 4.2))
    assert (found.grade, kinds(found)) == ("D", ["constant"])


@pytest.mark.parametrize(("length", "letter"), [(60, "B"), (1200, "C")])
def test_a_stuck_sensor_is_told_with_its_longest_run(length: int, letter: str) -> None:
    column = course(2)
    column[1000 : 1000 + length] = column[1000]
    found = graded(column)
    assert (found.grade, kinds(found)) == (letter, ["stuck"])
    assert f"{length:,} rows at the longest" in found.findings[0].words
    assert found.figures["stuck"] == pytest.approx(length / ROWS)


def test_a_coarse_clock_of_values_is_not_stuck() -> None:
    slow = np.repeat(course(3, ROWS // 10), 10)  # a value each ten rows, as of a slow sensor
    assert "stuck" not in kinds(graded(slow))


@pytest.mark.parametrize(("top", "letter"), [(25.0, "B"), (22.0, "C")])
def test_saturation_is_told_with_the_value_of_the_rail(top: float, letter: str) -> None:
    found = graded(np.minimum(course(4), top))
    assert (found.grade, kinds(found)) == (letter, ["saturated"])
    assert f"exactly at {top:g}" in found.findings[0].words


def test_a_machine_that_rests_at_zero_is_no_worse_than_b() -> None:
    found = graded(np.maximum(course(4) - 20, 0))
    assert (found.grade, kinds(found)) == ("B", ["saturated"])


@pytest.mark.parametrize(("count", "letter"), [(3, "B"), (60, "C")])
def test_lone_spikes_are_counted(count: int, letter: str) -> None:
    column = course(5)
    column[np.linspace(30, ROWS - 30, count).astype(int)] += 40
    found = graded(column)
    assert (found.grade, kinds(found)) == (letter, ["spikes"])
    assert found.figures["spikes"] == pytest.approx(count / ROWS)


def test_a_step_that_stays_is_no_spike() -> None:
    column = course(6)
    column[3000:3400] += 20
    assert "spikes" not in kinds(graded(column))


def test_few_distinct_values_are_coarse_and_a_switch_is_called_one() -> None:
    coarse = graded(np.round(course(7) / 3) * 3)
    assert (coarse.grade, kinds(coarse)) == ("C", ["coarse"])
    switch = graded((np.arange(ROWS) // 300 % 2).astype(float))
    assert (switch.grade, kinds(switch)) == ("B", ["coarse"])
    assert "only 2 distinct values: a switch" in switch.findings[0].words


@pytest.mark.parametrize(("rise", "letter"), [(10.0, "B"), (60.0, "C")])
def test_drift_is_measured_in_deviations_of_the_quarters(rise: float, letter: str) -> None:
    found = graded(course(8) + np.linspace(0, rise, ROWS))
    assert (found.grade, kinds(found)) == (letter, ["drift"])
    stepped = graded(course(8) + np.where(np.arange(ROWS) > ROWS / 2, rise, 0))
    assert stepped.figures["drift"] == pytest.approx(rise / course(8).std(), rel=0.25)


def test_white_noise_is_told_at_process_rates_and_not_at_those_of_vibration() -> None:
    noise = np.random.default_rng(9).standard_normal(ROWS)
    assert kinds(graded(noise)) == ["noise"]
    assert kinds(graded(noise, rate_hz=2000)) == []
    assert graded(course(9)).figures["noise"] == pytest.approx(0.6 / course(9).std(), rel=0.15)  # σ = 3 · 0.2


def test_the_second_of_two_equal_channels_is_the_duplicate() -> None:
    a = course(10)
    found = grade((Channel("a"), Channel("b"), Channel("c")), [np.column_stack((a, course(11), 5 - 2 * a))])
    assert [each.grade for each in found] == ["A", "A", "C"]
    assert found[2].findings[0].words.startswith("the same as a (correlation -1.00000)")


@pytest.mark.parametrize(("share", "letter"), [(0.02, "B"), (0.2, "C"), (0.8, "D")])
def test_missing_values_are_counted(share: float, letter: str) -> None:
    column = course(12)
    column[np.random.default_rng(0).random(ROWS) < share] = np.nan
    found = graded(column)
    assert (found.grade, kinds(found)) == (letter, ["missing"])
    assert found.figures["missing"] == pytest.approx(share, rel=0.1)
    empty = graded(np.full(ROWS, np.nan))
    assert empty.grade == "D"


def test_blocks_give_the_grades_of_the_whole() -> None:
    column = course(13)
    column[1990:2050] = column[1990]  # over the border of two blocks
    column[2999] += 40
    values = np.column_stack((column, np.minimum(course(14), 22), course(15) + np.linspace(0, 40, ROWS)))
    channels = (Channel("a"), Channel("b"), Channel("c"))
    whole = grade(channels, [values])
    parts = grade(channels, [values[start : start + 1000] for start in range(0, ROWS, 1000)])
    assert [kinds(each) for each in parts] == [kinds(each) for each in whole]
    assert [kinds(each) for each in whole] == [["stuck", "spikes"], ["saturated"], ["drift"]]
    for one, other in zip(parts, whole, strict=True):
        assert one.figures == pytest.approx(other.figures, rel=0.02, abs=0.01)


def test_memory_does_not_grow_with_the_rows() -> None:
    grader = Grader((Channel("a"),), 1.0)
    for seed in range(20):
        grader.push(course(seed, 20_000, decimals=9)[:, None])
    kept = grader._courses[0]
    assert len(kept.chunks) <= 256
    assert max(len(pile) for pile in kept.ends.values()) <= 8
    assert kept.levels is None
    assert len(kept.runs) < 10


def test_the_recording_s_own_ills_are_told_beside_the_channels_and_in_the_sentence() -> None:
    rng = np.random.default_rng(1)
    time_s = np.arange(ROWS) + 0.2 * rng.standard_normal(ROWS)
    held = np.arange(ROWS) % 10 == 9
    time_s[held] = time_s[np.flatnonzero(held) - 1]  # each tenth row was not recorded
    values = np.column_stack((course(1), np.full(ROWS, 7.0)))
    found = quality(recording(("a", "dead"), time_s, values))
    assert {finding.kind for finding in found.findings} == {"missing", "jitter"}
    assert (found.rows, found.stretches) == (ROWS, 1)
    assert found.sentence.startswith("1 of 2 channels are clean. Leave out dead (constant) with --columns")
    even = quality(recording(("a",), np.arange(ROWS, dtype=float), values[:, :1]))
    assert (even.jitter, even.findings, even.sentence) == (0.0, (), "The channel is clean.")


def test_what_normal_running_was_is_measured_beside_the_grades() -> None:
    values = np.column_stack((course(1), np.repeat(np.arange(ROWS // 100) % 2, 100)))
    normal = quality(recording(("noisy", "valve"), np.arange(ROWS, dtype=float), values)).normal
    noisy, valve = normal.of("noisy"), normal.of("valve")
    assert noisy is not None and valve is not None and normal.rows == ROWS
    assert (noisy.low, noisy.high) == (values[:, 0].min(), values[:, 0].max())
    assert noisy.largest_step == pytest.approx(np.abs(np.diff(values[:, 0])).max()) and noisy.longest_run <= 2
    assert (valve.low, valve.high, valve.longest_run, valve.largest_step) == (0.0, 1.0, 100, 1.0)
