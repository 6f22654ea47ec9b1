"""Adapters of the public recordings, on tiny made-up ones in the sets' own forms; the simple detectors; the figures."""

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import detection
import detection_figures
import simple_detectors
import suites

from tocsin.recordings import open_table


def read(task, paths):
    return list(detection.tables(paths, task.table))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_skab_trains_on_the_first_400_rows_and_keeps_only_the_point_label(tmp_path, rng):
    folder = tmp_path / "skab"
    for name in ("valve1", "anomaly-free"):
        (folder / name).mkdir(parents=True)
        lines = ["datetime;Current;Volume Flow RateRMS;anomaly;changepoint"]
        for i, (a, b) in enumerate(rng.normal(size=(450, 2))):
            lines.append(f"2020-03-09 10:{i // 60:02}:{i % 60:02};{a:.6g};{b:.6g};{float(i >= 430)};{float(i == 430)}")
        (folder / name / "0.csv").write_text("\n".join(lines) + "\n")
    suite = suites.skab(tmp_path, tmp_path / "out", quick=False)
    (task,) = suite.tasks
    assert [c.name for c in open_table(task.train[0], task.table).channels] == ["current", "volume_flow_raterms"]
    (train, train_label), (test, label) = read(task, (*task.train, *task.test))
    assert (len(train), len(test)) == (400, 50)
    assert not train_label.any()
    assert np.flatnonzero(label).tolist() == list(range(30, 50))


def test_nab_trains_on_nothing_labelled_and_labels_the_windows(tmp_path):
    folder = tmp_path / "nab_machine_temperature"
    folder.mkdir()
    stamps = [f"2013-12-{2 + i // 24:02} {i % 24:02}:00:00" for i in range(400)]
    text = "\n".join(["timestamp,value", *(f"{stamp},{i % 7}" for i, stamp in enumerate(stamps))])
    (folder / "machine_temperature_system_failure.csv").write_text(text + "\n")
    windows = {"x": [[f"{stamps[a]}.000000", f"{stamps[b]}.000000"] for a, b in ((40, 49), (200, 209))]}
    (folder / "windows.json").write_text(json.dumps(windows))
    (task,) = suites.nab(tmp_path, tmp_path / "out", False).tasks
    (train, _), (_, label) = read(task, (*task.train, *task.test))
    assert len(train) == 39  # 15 % were 60
    assert np.flatnonzero(label).tolist() == [*range(1, 11), *range(161, 171)]


def test_adi_motor_never_trains_on_what_it_tests(tmp_path, rng):
    folder = tmp_path / "adi_motor"
    folder.mkdir()
    rows = 3 * suites.FRAME
    for name in ("0600_GoB_GS_BaLo_WA_00lb", "0600_LIR_GS_BaLo_WA_00lb"):
        values = rng.normal(size=(rows, 3))
        lines = [f"{i * 5e-5:g};{x:.9g};{y:.9g};{z:.9g} " for i, (x, y, z) in enumerate(values)]
        lines[0] += ";0.8;0.9;0.8"
        with gzip.open(folder / f"{name}.Wfm.csv.gz", "wt") as handle:
            handle.write("\n".join(lines) + "\n")
    (task,) = suites.adi_motor(tmp_path, tmp_path / "out", False).tasks
    assert task.table.rate_hz == 20_000
    ((train, _),) = read(task, task.train)
    (healthy, none), (_, every) = read(task, task.test)
    assert train.shape == (rows // 2 - suites.FRAME, 3)
    assert healthy.shape == (rows - rows // 2, 3)
    assert not set(train[:, 0]) & set(healthy[:, 0])
    assert not none.any()
    assert every.all()


def test_gearbox_tests_on_loads_it_has_not_seen(tmp_path, rng):
    folder = tmp_path / "gearbox"
    folder.mkdir()
    for state in "hb":
        for load in (0, 20, 40, 60, 80):
            lines = [",".join(f"{load + v:.6g}" for v in row) for row in rng.normal(size=(64, 4))]
            with gzip.open(folder / f"{state}30hz{load}.csv.gz", "wt") as handle:
                handle.write("\n".join(["a1,a2,a3,a4", *lines]) + "\n")
    (task,) = suites.gearbox(tmp_path, tmp_path / "out", False).tasks
    train, test = read(task, task.train), read(task, task.test)
    assert [round(values.mean(), -1) for values, _ in train] == [0, 40, 80]
    assert [(round(values.mean(), -1), bool(label.any())) for values, label in test] == [
        (20, False), (20, True), (60, False), (60, True),
    ]  # fmt: skip


def test_hydraulic_keeps_whole_conditions_apart():
    states = np.array(np.meshgrid((3, 20, 100), (73, 100), (0, 1, 2), (90, 130))).reshape(4, -1).T
    profile = np.repeat(states, 3, axis=0).astype(float)
    train, bad = suites.hydraulic_split(profile, "valve")
    others = [tuple(row) for row in profile[:, [0, 2, 3]]]
    trained = {condition for condition, used in zip(others, train, strict=True) if used}
    tested = {condition for condition, used, b in zip(others, train, bad, strict=True) if not used and not b}
    assert not (train & bad).any()
    assert not trained & tested
    assert len(trained) == len(tested)


def test_hydraulic_rows_have_the_label_of_the_last_complete_cycle(tmp_path, rng, monkeypatch):
    folder = tmp_path / "hydraulic"
    folder.mkdir()
    profile = np.array([(c, 100, 0, a) for c in (3, 100) for a in (90, 100, 115, 130)])
    np.savetxt(folder / "profile.txt", profile, fmt="%d", delimiter="\t")
    for name in (*suites.SLOW_SENSORS, *suites.FAST_SENSORS):
        width = 600 if name in suites.FAST_SENSORS else 60
        with gzip.open(folder / f"{name}.txt.gz", "wt") as handle:
            np.savetxt(handle, np.arange(8)[:, None] + np.zeros(width), delimiter="\t")
    suite = suites.SUITES["hydraulic_cooler"](tmp_path, tmp_path / "out", False)
    (task,) = suite.tasks
    assert (task.window, task.hop) == (60, 60)
    ((train, _),), ((test, label),) = read(task, task.train), read(task, task.test)
    assert len(train) == 2 * 60
    assert label[59::60].tolist() == [True] * 4 + [False] * 2
    assert label[4 * 60] and not label[5 * 60]
    assert np.ptp(test[:60], axis=0).max() == 0


@pytest.mark.parametrize("kind", ["rows", "spectrum", "means"])
def test_no_simple_detector_looks_ahead(rng, kind):
    features = suites.Features(kind, 20 if kind != "spectrum" else 256, 1 if kind == "rows" else 128, smooth=5)
    train, test = rng.normal(size=(2_000, 2)), rng.normal(size=(1_500, 2))
    later = test.copy()
    later[1_000:] += 9
    whole = {name: scores[0] for name, scores, _ in simple_detectors.scored(features, [train], [test])}
    changed = {name: scores[0] for name, scores, _ in simple_detectors.scored(features, [train], [later])}
    past = 1_000 if kind == "rows" else (1_000 - features.length) // features.hop + 1
    for name in whole:
        np.testing.assert_allclose(whole[name][:past], changed[name][:past], err_msg=name)
        if name != "random":
            assert changed[name][-100:].mean() > whole[name][-100:].mean(), name


def test_figures_are_means_over_models_and_pooled_over_rows():
    label = np.array([False, False, True, True])
    good, bad = np.array([0.1, 0.2, 1.0, 2.0]), np.array([1.5, 1.2, 0.3, 0.2])
    suite = suites.Suite("x", True, (suites.Task("a", (), ()), suites.Task("b", (), ())), suites.Features("rows", 2))
    found = []
    for task, ratio in (("a", good), ("b", bad)):
        series = (detection_figures.Series(label, ratio, 4),)
        found.append(detection_figures.Found(task, 0, "m", detection.rank(series), series))
    row = detection_figures.figures(suite, found)
    assert row["roc_auc"] == 0.5
    assert row["worst_task"] == "b"
    assert (row["far"], row["mar"]) == (0.5, 0.5)
    assert (row["events"], row["found"], row["false_events"]) == (2, 1, 1)
