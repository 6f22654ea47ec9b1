"""Recordings → stretches, windows, and the three parts."""

import resource
import signal
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tocsin.errors import DataError, TocsinError
from tocsin.recordings import TableOptions, open_table, text
from tocsin.records import Channel, Floats, Rows
from tocsin_trainer import dataset, stretch
from tocsin_trainer.dataset import (
    MAX_GAP_ROWS,
    PARTS,
    Dataset,
    Stretch,
    choose_window,
    load,
    most_windows,
    pieces,
    some_windows,
    split,
    windows,
    without_labels,
)

OPTIONS = TableOptions()


def table(folder: Path, time_s: Floats, values: Floats, name: str = "data.csv", label: str = "") -> Path:
    """A CSV with the columns time, a, b, …"""
    path = folder / name
    header = ",".join(["time", *"abcdef"[: values.shape[1]], *([label] if label else [])])
    lines = (f"{t:.4f}," + ",".join(f"{v:.4f}" for v in row) for t, row in zip(time_s, values, strict=True))
    tail = ",0" if label else ""
    path.write_text(header + "\n" + "".join(f"{line}{tail}\n" for line in lines))
    return path


def noise(rows: int, channels: int = 2, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 1, (rows, channels))


def made(*lengths: int, values: Floats | None = None, rate: float = 1.0, files: tuple[int, ...] = ()) -> Dataset:
    """A dataset of stretches of so many rows; channel 0 counts all rows."""
    stretches, done = [], 0
    for n, length in enumerate(lengths):
        at = np.arange(done, done + length)
        rows = np.stack((at.astype(float), np.zeros(length)), axis=1) if values is None else values[at]
        stretches.append(Stretch(Rows(at / rate, rows, at, True), None, files[n] if files else 0))
        done += length
    return Dataset((Channel("a"), Channel("b")), rate, 5 / rate, tuple(stretches), (), ())


@pytest.mark.parametrize("rate", [0.1, 1.0, 10.0, 100.0])
def test_the_rate_is_found_from_the_time_stamps(tmp_path: Path, rate: float) -> None:
    rng = np.random.default_rng(0)
    time_s = 1000 + np.arange(300) / rate + rng.uniform(-0.2, 0.2, 300) / rate
    found = load((table(tmp_path, time_s, noise(300)),), OPTIONS)
    assert found.sample_rate_hz == pytest.approx(rate, rel=0.05)
    assert found.choices[0].what == "sample rate"
    assert len(found) == pytest.approx(300, abs=15)


def test_a_rate_that_is_given_is_taken(tmp_path: Path) -> None:
    found = load((table(tmp_path, np.arange(200.0), noise(200)),), TableOptions(rate_hz=8))
    assert (found.sample_rate_hz, len(found)) == (8, 200)


def test_stamps_that_are_made_even_are_told_with_what_to_do_where_samples_are_lost_in_a_rhythm(tmp_path: Path) -> None:
    kept = np.flatnonzero(np.arange(600) % 20 != 7).astype(float)
    found = load((table(tmp_path, kept, noise(len(kept))),), TableOptions())
    assert [choice.what for choice in found.choices] == ["sample rate", "stamps"]
    assert found.choices[1].value == "made even" and found.choices[1].why.endswith("give --rate 1")
    asked = load((table(tmp_path, kept, noise(len(kept))),), TableOptions(rate_hz=1))
    assert (asked.sample_rate_hz, len(asked), len(asked.choices)) == (1, len(kept), 1)


def test_the_rate_of_the_first_file_holds_for_all(tmp_path: Path) -> None:
    files = (
        table(tmp_path, np.arange(200.0), noise(200), "1.csv"),
        table(tmp_path, 5000 + np.arange(200.0), noise(200), "2.csv"),
    )
    found = load(files, OPTIONS)
    assert [(stretch.file, len(stretch)) for stretch in found.stretches] == [(0, 200), (1, 200)]


def test_a_gap_ends_a_stretch_and_nothing_is_invented(tmp_path: Path) -> None:
    time_s = np.concatenate((np.arange(100.0), 500 + np.arange(100.0)))
    found = load((table(tmp_path, time_s, noise(200)),), OPTIONS)
    assert [len(stretch) for stretch in found.stretches] == [100, 100]
    assert any("1 gaps" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda t, v: (t[:30], v[:30]), "only 30 rows"),
        (lambda t, v: (t[::-1], v), r"line 3: time goes back"),
        (lambda t, v: (np.where(t == 50, 49, t), v), r"line 52: the time .* comes twice"),
        (lambda t, v: (t * 0, v), r"line 3: the time .* comes twice"),
        (lambda t, v: (t, v * [1, 0]), "'b' is constant"),
        (lambda t, v: (t, np.where(abs(t - 40)[:, None] < 20, np.nan, v)), r"line 23: channel 'a' .* 39 rows"),
        (lambda t, v: (t, np.where((t < 3)[:, None] | (abs(t - 40) < 20)[:, None], np.nan, v)), "line 23: channel 'a'"),
        (lambda t, v: (t, v * [1, np.nan]), "'b' has no number"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("block", [text.BLOCK_SIZE, 150])
def test_damage_is_told_with_its_place_and_can_be_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage, says: str, block: int
) -> None:
    monkeypatch.setattr(text, "BLOCK_SIZE", block)
    path = table(tmp_path, *damage(np.arange(200.0), noise(200)))
    with pytest.raises(DataError, match=says) as told:
        load((path,), OPTIONS)
    assert "data.csv" in str(told.value)
    if "repair" in str(told.value) and "line 3" not in says:  # no time goes on there
        mended = load((path,), OPTIONS, repair=True)
        assert mended.warnings
        assert all(np.isfinite(stretch.rows.values).all() for stretch in mended.stretches)


def test_a_second_file_without_a_channel_of_the_first_is_refused(tmp_path: Path) -> None:
    files = (
        table(tmp_path, np.arange(100.0), noise(100, 3), "1.csv"),
        table(tmp_path, np.arange(100.0), noise(100, 2), "2.csv"),
    )
    with pytest.raises(DataError, match=r"2\.csv: column 'c' is missing"):
        load(files, OPTIONS)


def test_columns_are_found_by_name_in_every_further_file(tmp_path: Path) -> None:
    values = noise(100)
    first = table(tmp_path, np.arange(100.0), values, "1.csv")
    second = tmp_path / "2.csv"
    turned = (f"{n},{b:.4f},{n},{a:.4f}\n" for n, (a, b) in enumerate(values))
    second.write_text("time,b,more,a\n" + "".join(turned))
    found = load((first, second), OPTIONS)
    assert [channel.name for channel in found.channels] == ["a", "b"]
    assert np.array_equal(found.stretches[0].rows.values, found.stretches[1].rows.values)


def test_an_empty_channel_cannot_be_repaired(tmp_path: Path) -> None:
    path = table(tmp_path, np.arange(200.0), noise(200) * [1, np.nan])
    with pytest.raises(DataError, match=r"data\.csv: no row in which every channel has a value"):
        load((path,), OPTIONS, repair=True)


def test_bursts_of_vibration_too_short_for_a_spectrum_are_refused(tmp_path: Path) -> None:
    time_s = (np.arange(40)[:, None] + np.arange(5) / 1000).ravel()
    found = load((table(tmp_path, time_s, noise(200)),), OPTIONS)
    with pytest.raises(DataError, match="longest stretch 5"):
        choose_window(found, None, None)


def test_columns_of_one_name_get_keys_of_their_own_in_training_and_in_replay(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("time,temp,temp,flow\n" + "".join(f"{n},{n % 7},{n % 5},{n % 3}\n" for n in range(100)))
    learned = open_table(path, OPTIONS)
    assert [channel.name for channel in learned.channels] == ["temp", "temp_2", "flow"]
    assert open_table(path, OPTIONS, learned.channels).value_columns == learned.value_columns == (1, 2, 3)


def test_labels_are_read_and_can_be_forgotten(tmp_path: Path) -> None:
    found = load((table(tmp_path, np.arange(100.0), noise(100), label="anomaly"),), OPTIONS)
    assert [channel.name for channel in found.channels] == ["a", "b"]
    assert found.stretches[0].label is not None and not found.stretches[0].label.any()
    assert without_labels(found).stretches[0].label is None


@pytest.mark.parametrize("period", [12, 24, 50, 100])
@pytest.mark.parametrize("drift", [0.0, 2.0])
def test_the_window_is_the_machines_cycle_even_beside_a_drift(period: int, drift: float) -> None:
    at = np.arange(3000)
    cycle = np.sin(2 * np.pi * at / period)
    values = np.stack((cycle, np.roll(cycle, 3)), axis=1) + noise(3000) * 0.1 + drift * (at / 3000)[:, None]
    length, _, choices = choose_window(made(3000, values=values), None, None)
    assert abs(length - period) <= 1
    assert "period" in choices[0].why


def test_noise_has_no_cycle() -> None:
    length, _, choices = choose_window(made(3000, values=noise(3000)), None, None)
    assert length == 48 and "no period" in choices[0].why


@pytest.mark.parametrize(("rate", "hop"), [(0.1, 1), (1, 1), (10, 10), (100, 16)])
def test_the_hop_is_a_second_a_row_or_half_a_window(rate: float, hop: int) -> None:
    found = choose_window(made(3000, values=noise(3000), rate=rate), 32, None)
    assert found[:2] == (32, hop)


def test_what_is_asked_for_is_taken() -> None:
    assert choose_window(made(3000), 40, 7) == (40, 7, ())


@pytest.mark.parametrize("lengths", [(100,), (39, 39, 39)])
def test_too_few_rows_for_the_window_are_refused(lengths: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="too few for windows of 40 rows"):
        choose_window(made(*lengths), 40, None)


@pytest.mark.parametrize(
    ("lengths", "files"),
    [((1000,), (0,)), ((500, 300, 700), (0, 0, 0)), ((1000, 800), (0, 1)), ((900, 20, 500), (0, 0, 1))],
)
def test_parts_follow_each_other_in_time_and_no_window_lies_in_two(
    lengths: tuple[int, ...], files: tuple[int, ...]
) -> None:
    data = made(*lengths, files=files)
    parts = split(data, 16, 4)
    seen: list[set[int]] = []
    for part in (parts.train, parts.calibration, parts.test):
        rows = windows(part, 16, 1)[:, :, 0].astype(int)
        assert (np.diff(rows, axis=1) == 1).all()  # no window straddles a stretch
        seen.append(set(rows.ravel().tolist()))
        assert all(len(stretch) >= 16 for stretch in part)
    assert not (seen[0] & seen[1] or seen[1] & seen[2] or seen[0] & seen[2])
    for index in set(files):
        last = [max((s.rows.time_s[-1] for s in part if s.file == index), default=None)
                for part in (parts.train, parts.calibration, parts.test)]  # fmt: skip
        known = [time for time in last if time is not None]
        assert known == sorted(known)
    for share, rows in zip(PARTS, parts.rows().values(), strict=True):
        assert rows / len(data) == pytest.approx(share, abs=0.05)


def test_short_files_are_split_over_all_of_them() -> None:
    parts = split(made(*[60] * 10, files=tuple(range(10))), 32, 1)
    assert {s.file for s in parts.train} == set(range(7))
    assert {s.file for s in parts.test} <= {8, 9}


def test_cuts_keep_step_with_a_cycle() -> None:
    parts = split(made(1000), 50, 50)
    for part in (parts.train, parts.calibration, parts.test):
        assert all(stretch.rows.sample[0] % 50 == 0 for stretch in part)


def test_no_room_for_one_of_the_parts_is_told() -> None:
    with pytest.raises(DataError, match=r"no unbroken stretch of 32 rows is left for the test part"):
        split(made(200), 32, 1)


def test_gaps_up_to_the_limit_are_held(tmp_path: Path) -> None:
    time_s = np.concatenate((np.arange(100.0), 100.0 + MAX_GAP_ROWS - 1 + np.arange(100.0)))
    found = load((table(tmp_path, time_s, noise(200)),), OPTIONS)
    assert [len(stretch) for stretch in found.stretches] == [200 + MAX_GAP_ROWS - 1]


def test_blocks_and_where_rows_are_kept_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time_s = np.delete(np.arange(500.0), [50, 51, *range(200, 230), 400])
    values = np.where(np.random.default_rng(1).random((len(time_s), 2)) < 0.05, np.nan, noise(len(time_s)))
    path = table(tmp_path, time_s, values, label="anomaly")
    path.write_text(path.read_text().replace(",0\n", ",1\n", 300))
    at_once = load((path, path), OPTIONS, repair=True)
    monkeypatch.setattr(text, "BLOCK_SIZE", 200)
    monkeypatch.setattr(stretch, "BLOCK", 300)
    monkeypatch.setattr(dataset, "RATE_ROWS", 20)
    monkeypatch.setattr(stretch, "IN_MEMORY", 1)  # all on disk
    in_pieces = load((path, path), OPTIONS, repair=True)
    assert (at_once.warnings, at_once.sample_rate_hz) == (in_pieces.warnings, in_pieces.sample_rate_hz)
    assert [len(s) for s in at_once.stretches] == [len(s) for s in in_pieces.stretches]
    for one, other in zip(at_once.stretches, in_pieces.stretches, strict=True):
        assert one.file == other.file
        for name in ("time_s", "values", "sample"):
            assert np.array_equal(getattr(one.rows, name), getattr(other.rows, name))
        assert one.label is not None and other.label is not None and np.array_equal(one.label, other.label)
        blocks = list(other.blocks())
        assert len(blocks) > 1 and [rows.after_gap for rows in blocks] == [True] + [False] * (len(blocks) - 1)
        some = np.array([0, 3, 40, len(other) - 1])
        assert np.array_equal(other.time_at(some), one.rows.time_s[some])
        assert np.array_equal(other.part(5, 60).part(10, 30).rows.values, one.rows.values[15:35])


@pytest.mark.parametrize("stride", [1, 7, 16, 40])
def test_windows_are_read_from_disk_as_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    monkeypatch.setattr(dataset, "READ_ROWS", 100)
    values = noise(700)
    found = load((table(tmp_path, np.delete(np.arange(720.0), range(300, 320)), values),), OPTIONS)
    assert len(found.stretches) == 2
    rows = [s.rows.values for s in found.stretches]
    expected = np.stack([v[a : a + 16] for v in rows for a in range(0, len(v) - 15, stride)])
    assert np.array_equal(windows(found.stretches, 16, stride), expected)
    drawn = some_windows(found.stretches, 16, stride, 9, seed=3)
    order = [int(np.flatnonzero((expected == window).all(axis=(1, 2)))[0]) for window in drawn]
    assert len(order) == 9 and order == sorted(set(order))


def test_memory_does_not_grow_with_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BLOCK_SIZE", 1 << 15)
    monkeypatch.setattr(stretch, "BLOCK", 1 << 15)
    monkeypatch.setattr(dataset, "RATE_ROWS", 1000)
    monkeypatch.setattr(stretch, "IN_MEMORY", 1)
    peaks = []
    for rows in (6_000, 24_000):
        path = table(tmp_path, np.arange(float(rows)), noise(rows))
        tracemalloc.start()
        found = load((path,), OPTIONS)
        parts = split(found, 32, 1)
        assert len(windows(parts.train, 32, rows // 100)) and parts.test
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_full_disk_says_which_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretch, "IN_MEMORY", 1)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = stretch.RowStore(1)
    rows = Rows(np.zeros(1 << 16), np.zeros((1 << 16, 1)), np.zeros(1 << 16, np.int64), True)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
    try:
        with pytest.raises(TocsinError, match=r"no room for the recording's rows .* TMPDIR"):
            store.append(rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)


def test_pieces_lie_evenly_over_what_is_too_long_to_be_scored_whole() -> None:
    long = made(30_000, 20_000).stretches
    assert pieces(long, 50_000, 40) == long
    some = pieces(long, 5_000, 40)
    assert 4_500 <= sum(map(len, some)) <= 5_500 and all(len(piece) >= 40 for piece in some)
    starts = np.array([piece.rows.values[0, 0] for piece in some])
    assert np.ptp(starts) > 45_000 and np.diff(starts).max() < 2_000


def test_large_windows_are_fewer() -> None:
    assert most_windows(40, 8, 8000) == 8000
    assert 2000 < most_windows(2048, 8, 8000) < 2100
    assert most_windows(4096, 1000, 8000) == 100
