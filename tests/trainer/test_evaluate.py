"""Recordings played as the device would see them."""

from pathlib import Path

import numpy as np
import pytest

from tocsin.alarms.detector import AlarmRule
from tocsin.core.bundle import load_bundle
from tocsin.core.threshold import Threshold
from tocsin.records import Floats, Rows
from tocsin_trainer import evaluate, stretch
from tocsin_trainer.evaluate import bare_scores, course, play
from tocsin_trainer.export import Grid
from tocsin_trainer.stretch import RowStore, StoredRows, Stretch

BUNDLE = load_bundle(Path(__file__).parent.parent / "data/small.tocsin")


def stored(values: Floats, start_s: float = 0.0, label: bool = False) -> Stretch:
    store, n = RowStore(values.shape[1]), len(values)
    store.append(Rows(start_s + np.arange(n), values, np.arange(n), True))
    return Stretch(StoredRows(store, 0, n), np.zeros(n, np.bool_) if label else None, 0)


def noise(rows: int, channels: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 1, (rows, channels))


def grid() -> Grid:
    manifest = BUNDLE.manifest
    return Grid(manifest.channels, manifest.sample_rate_hz, manifest.max_gap_s, manifest.length, manifest.hop, 2)


def test_scores_do_not_depend_on_the_blocks_that_rows_are_read_in(monkeypatch: pytest.MonkeyPatch) -> None:
    values, scorer = noise(900, len(BUNDLE.manifest.channels)), BUNDLE.scorer()
    (whole,) = bare_scores(scorer, (stored(values),), grid())
    monkeypatch.setattr(stretch, "BLOCK", 8000)
    (pieces,) = bare_scores(scorer, (stored(values),), grid())
    assert len(whole) == (900 - grid().length) // grid().hop + 1
    assert np.allclose(whole.value, pieces.value, rtol=1e-5)
    assert np.allclose(whole.per_channel, pieces.per_channel, rtol=1e-5)


def test_a_long_part_is_drawn_by_few_rows_that_keep_every_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "ROWS_DRAWN", 200)
    monkeypatch.setattr(stretch, "BLOCK", 20_000)
    values = noise(5000, 3)
    values[1234, 1], values[4321, 2] = 50, -70
    parts = stored(values[:3000]), stored(values[3000:], 9000.0)
    time_s, drawn = course(parts)
    assert len(time_s) == len(drawn) < 300
    assert np.array_equal(drawn.min(axis=0), values.min(axis=0))
    assert np.array_equal(drawn.max(axis=0), values.max(axis=0))
    assert (time_s[0], time_s[-1]) == (0, 9000 + 1999) and (np.diff(time_s) >= 0).all()
    assert not ((time_s > 2999) & (time_s < 9000)).any()  # nothing in the gap
    assert abs(time_s[np.argmax(drawn[:, 1])] - 1234) < 60


def test_a_short_part_is_drawn_by_all_of_its_rows() -> None:
    values = noise(300, 2)
    time_s, drawn = course((stored(values[:200]), stored(values[200:], 500.0)))
    assert np.array_equal(drawn, values) and time_s[200] == 500


def test_what_was_played_knows_its_rows_and_its_running_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "ROWS_DRAWN", 100)
    parts = tuple(stored(noise(700, len(BUNDLE.manifest.channels), n), 1000.0 * n) for n in range(2))
    played = play("test", bare_scores(BUNDLE.scorer(), parts, grid()), parts, grid(), AlarmRule(), Threshold(1e9))
    assert len(played.row_time_s) < 200 and len(played) == 1400
    assert played.running_s == pytest.approx(1400 / grid().sample_rate_hz)
    last = np.arange(len(played.end_s) // 2) * grid().hop + grid().length - 1
    assert np.array_equal(played.end_s, np.concatenate((last, 1000 + last)))


def test_labelled_rows_are_kept_whole_for_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "ROWS_DRAWN", 100)
    part = (stored(noise(700, len(BUNDLE.manifest.channels)), label=True),)
    played = play("test", bare_scores(BUNDLE.scorer(), part, grid()), part, grid(), AlarmRule(), Threshold(1e9))
    assert played.row_label is not None and played.row_score is not None
    assert len(played.row_time_s) == len(played.rows) == len(played.row_label) == len(played.row_score) == 700
