"""Stamps that are coarser than the sensor's clock: when they are made even, and when not."""

from pathlib import Path

import numpy as np
import pytest

from tocsin.core.resample import Resampler
from tocsin.recordings import TableBlock, TableOptions, open_table, read_table
from tocsin.recordings.clock import CoarseClock, Evened, coarse_clock
from tocsin.records import Floats, SampleBlock


def sampled(period_s: float, count: int = 600, jitter: float = 0.1, seed: int = 0) -> Floats:
    """Times of a sensor, each a little off its place."""
    rng = np.random.default_rng(seed)
    return period_s * (np.arange(count) + 0.3) + rng.uniform(-jitter, jitter, count)


def held(time_s: Floats, rate_hz: float) -> int:
    """Rows that are made up on the grid."""
    resampler = Resampler(rate_hz, 1, 5 / rate_hz)
    resampler.push(SampleBlock(time_s, np.ones((len(time_s), 1))))
    assert not resampler.repeated
    return resampler.held


@pytest.mark.parametrize(
    ("period_s", "unit_s"), [(1.05, 1.0), (1.4, 1.0), (2.07, 1.0), (1.9, 1.0), (0.95, 1.0), (0.107, 0.1)]
)
def test_a_sensor_that_is_no_whole_number_of_units_gets_a_row_for_each_of_its_samples(
    period_s: float, unit_s: float
) -> None:
    stamps = np.floor(sampled(period_s, jitter=0.1 * period_s) / unit_s) * unit_s + 1e9
    clock = coarse_clock(stamps)
    assert clock is not None and clock.unit_s == unit_s
    assert clock.period_s == pytest.approx(period_s, rel=2e-3)
    even = Evened(clock)(stamps)
    assert np.abs(even - stamps).max() <= unit_s * 1.001
    assert held(even, 1 / clock.period_s) == 0


@pytest.mark.parametrize("seed", range(5))
def test_samples_lost_at_random_are_no_coarse_clock(seed: int) -> None:
    kept = np.sort(np.random.default_rng(seed).permutation(600)[:560])
    assert coarse_clock(kept.astype(np.float64)) is None


@pytest.mark.parametrize("period_s", [1.0, 5.0, 300.0, 0.1, 1.05])
def test_stamps_that_show_the_sensors_clock_stay_as_they_are(period_s: float) -> None:
    assert coarse_clock(np.round(np.arange(400) * period_s, 3)) is None


def test_a_pause_stays_where_it_is_and_lost_samples_are_held_as_before() -> None:
    time_s = sampled(1.05)
    stamps = np.floor(np.delete(time_s, [*range(200, 260), 400, 401, 402, 403]))
    even = Evened(CoarseClock(1.05, 1.0))(stamps)
    steps = np.diff(even)
    assert np.flatnonzero(steps > 1.6).tolist() == [199, 339]
    assert steps[199] == pytest.approx(61 * 1.05, abs=1) and steps[339] == pytest.approx(5 * 1.05, abs=1)


def test_stamps_that_go_back_still_do() -> None:
    steps = np.diff(Evened(CoarseClock(1.05, 1.0))(np.array([0.0, 1, 2, 3, 1, 2])))
    assert steps[3] < 0 and (np.delete(steps, 3) > 0).all()


def test_rows_that_were_written_twice_are_no_coarse_clock() -> None:
    twice = np.sort(np.concatenate((np.arange(600), np.random.default_rng(0).permutation(600)[:40])))
    assert coarse_clock(twice.astype(np.float64)) is None


def test_blocks_of_a_table_are_evened_as_one(tmp_path: Path) -> None:
    stamps = np.floor(sampled(1.05)).astype(int)
    path = tmp_path / "data.csv"
    path.write_text("time,a\n" + "".join(f"{stamp},{n}\n" for n, stamp in enumerate(stamps)))

    def read(lines: int) -> list[TableBlock]:
        return list(read_table(open_table(path, TableOptions()), lines))

    whole, parts = read(1000), read(250)
    assert len(whole) == 1 and len(parts) == 3 and parts[2].clock == parts[0].clock is not None
    rows = np.concatenate([part.block.time_s for part in parts])
    np.testing.assert_array_equal(rows, Evened(parts[0].clock)(stamps.astype(np.float64)))
    assert whole[0].stamps == [str(stamp) for stamp in stamps]
    assert held(rows, 1 / parts[0].clock.period_s) == held(whole[0].block.time_s, 1 / 1.05) == 0
    given = next(read_table(open_table(path, TableOptions(rate_hz=1))))
    assert given.clock is None and given.block.time_s[-1] == 599
