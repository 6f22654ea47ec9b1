"""A motor with vibration at 4 kHz beside temperature and load at 1 Hz: from files to alarms."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tocsin.alarms.normal import Normal, NormalChannel
from tocsin.cli.replay import replay
from tocsin.errors import ConfigError, DataError
from tocsin.pipeline import AssetLine, Scored
from tocsin.recordings import TableOptions
from tocsin.records import Floats, SampleBlock
from tocsin_trainer import rate_groups
from tocsin_trainer.evaluate_cli import evaluate
from tocsin_trainer.explain.rows import column_labels
from tocsin_trainer.options import GroupOptions, TrainOptions
from tocsin_trainer.recorded import read_recorded
from tocsin_trainer.train import Trained, train

START_S = 1_773_043_200
RATE = 4000
SECONDS, FAULTY, FAULT_AT = 300, 60, 30


def load_of(seconds: int, seed: int) -> Floats:
    """(seconds,) load of the motor, a slow walk between 0.3 and 1."""
    walk = np.cumsum(np.random.default_rng(seed).normal(0, 0.05, seconds))
    return 0.65 + 0.35 * np.sin(walk)


def motor(folder: Path, seconds: int, seed: int, fault: str = "") -> tuple[Path, Path]:
    """main.csv and vibration.csv: shaft harmonics and noise that follow the load; a fault from FAULT_AT on."""
    rng = np.random.default_rng(seed)
    load = load_of(seconds, seed)
    bad = np.arange(seconds) >= FAULT_AT if fault else np.zeros(seconds, bool)
    temperature = 40 + 20 * np.convolve(load, np.ones(10) / 10, "full")[:seconds] + rng.normal(0, 0.2, seconds)
    if fault == "temperature":
        temperature[bad] += 15
    at = np.arange(seconds * RATE) / RATE
    strength = np.repeat(np.where(bad & (fault == "relation"), 1.3 - load, load), RATE)
    shaft = sum(a * np.sin(2 * np.pi * 25 * n * at + n) for n, a in ((1, 1.0), (2, 0.5), (3, 0.2)))
    vibration = strength * (shaft + rng.normal(0, 0.3, len(at)))
    if fault == "bearing":  # a resonance at 1.2 kHz, struck 107 times a second
        strikes = np.exp(-120 * (at % (1 / 107))) * np.sin(2 * np.pi * 1200 * at)
        vibration += np.repeat(bad, RATE) * strikes
    folder.mkdir(exist_ok=True)
    main, fast = folder / "main.csv", folder / "vibration.csv"
    rows = zip(range(seconds), temperature.tolist(), load.tolist(), (bad * 1).tolist(), strict=True)
    main.write_text(
        "time,temperature [°C],load,anomaly\n" + "".join(f"{START_S + n},{t:.4f},{p:.4f},{b}\n" for n, t, p, b in rows)
    )
    fast.write_text(
        "time,vibration_x [g]\n"
        + "".join(f"{START_S + t:.5f},{v:.5f}\n" for t, v in zip(at.tolist(), vibration.tolist(), strict=True))
    )
    return main, fast


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("motor")


@pytest.fixture(scope="module")
def normal(folder: Path) -> tuple[Path, Path]:
    return motor(folder / "normal", SECONDS, 0)


@pytest.fixture(scope="module")
def options(folder: Path, normal: tuple[Path, Path]) -> TrainOptions:
    families = ("t2", "limits")
    main, fast = normal
    groups = {"vibration": (fast,)}
    return TrainOptions((main,), folder / "out", "motor", families=families, groups=groups, window=12, version="1")


@pytest.fixture(scope="module")
def trained(options: TrainOptions) -> Trained:
    return train(options)


def test_the_bundle_has_both_groups_and_their_join(trained: Trained) -> None:
    manifest = trained.bundle.manifest
    assert [group.name for group in manifest.groups.groups] == ["main", "vibration"]
    assert [channel.name for channel in manifest.channels] == ["temperature", "load", "vibration_x"]
    assert manifest.sample_rate_hz == 1.0 and manifest.groups.groups[1].frame == 4096
    assert {"vibration_x_rms", "vibration_x_kurtosis", "vibration_x_band_8"} <= {c.name for c in manifest.columns}
    join = trained.bundle.golden.join
    assert join is not None and len(join.rows) >= 2 and len(join.samples[1]) < 4 * RATE
    assert trained.bundle.self_test().passed
    other = replace(join, rows=join.rows + 1e-4)
    assert not replace(trained.bundle, golden=replace(trained.bundle.golden, join=other)).self_test().passed
    assert [grade.name for grade in trained.result.quality.channels] == ["temperature", "load", "vibration_x"]


def test_groups_whose_golden_rows_would_be_too_many_are_told(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = rate_groups.load(options)
    assert rate_groups.golden_join(data)[1] == ()
    monkeypatch.setattr(rate_groups, "GOLDEN_VALUES", 100)
    join, (told,) = rate_groups.golden_join(data)
    assert join is None and "a bundle holds 100" in told.why and "cannot check" in told.value


def played(trained: Trained, folder: Path, fault: str) -> tuple[dict, list[dict]]:
    main, fast = motor(folder / (fault or "calm"), FAULTY if fault else 100, 7, fault)
    events = folder / f"{fault}.jsonl"
    arguments = ["-b", trained.bundle.path, "-i", main, "--group", f"vibration={fast}", "--events", events, "--json"]
    done = CliRunner().invoke(replay, [str(each) for each in arguments], catch_exceptions=False)
    return json.loads(done.stdout), [json.loads(line) for line in events.read_text().splitlines()]


def test_normal_running_raises_no_alarm(trained: Trained, folder: Path) -> None:
    summary, events = played(trained, folder, "")
    assert summary["windows"] > 80 and not events


@pytest.mark.parametrize(
    ("fault", "named"),
    [("bearing", {"vibration_x"}), ("temperature", {"temperature"}), ("relation", {"vibration_x", "load"})],
)
def test_a_fault_is_found_and_the_alarm_names_the_channel(
    trained: Trained, folder: Path, fault: str, named: set[str]
) -> None:
    _, events = played(trained, folder, fault)
    first = events[0]
    assert first["change"] == "raised"
    told = [part["channel"] for part in first["contributions"]]
    assert told[0] in named and set(told) == {"temperature", "load", "vibration_x"}


def test_an_effective_value_is_not_held_against_the_limits_of_the_samples(trained: Trained, folder: Path) -> None:
    known = (NormalChannel("vibration_x", -12.0, -8.0, 1, 1.0), NormalChannel("load", 0.0, 1.0, 1, 1.0))
    raw = {**trained.bundle.manifest.raw, "quality": Normal(9, channels=known).to_json()}
    bundle = replace(trained.bundle, manifest=replace(trained.bundle.manifest, raw=raw))
    line = AssetLine("motor", bundle, None)
    found: list[Scored] = []
    for group, (file, columns) in enumerate(zip(motor(folder / "rms", FAULTY, 7, "bearing"), (3, 2), strict=True)):
        rows = np.loadtxt(file, delimiter=",", skiprows=1, usecols=range(columns))
        found += line.feed(SampleBlock(rows[:, 0], rows[:, 1:]), group)
    (first, *_) = (each for scored in found for each in scored.transitions if each.cause == "model")
    (told,) = (each for each in first.contributions if each.channel == "vibration_x")
    assert told.seen is not None and told.seen > 0
    assert told.expected is not None and told.expected > 0


def test_evaluate_takes_both_files_and_says_which_is_missing(trained: Trained, folder: Path) -> None:
    main, fast = motor(folder / "labelled", FAULTY, 11, "bearing")
    arguments = [str(trained.bundle.path), "--data", str(main), "--json"]
    done = CliRunner().invoke(evaluate, [*arguments, "--group", f"vibration={fast}"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["mean"]["event_recall"] == 1.0 and found["mean"]["roc_auc"] > 0.95
    with pytest.raises(DataError, match=r"group 'vibration' \(vibration_x at 4000 Hz\).*--group vibration=FILE"):
        CliRunner().invoke(evaluate, arguments, catch_exceptions=False)
    with pytest.raises(DataError, match="is not in the bundle: it has the groups main, vibration"):
        both = [f"vibration={fast}", f"sound={fast}"]
        CliRunner().invoke(evaluate, [*arguments, *(x for b in both for x in ("--group", b))], catch_exceptions=False)
    with pytest.raises(DataError, match=r"group 'vibraton' is not in the bundle: did you mean 'vibration'\?"):
        CliRunner().invoke(evaluate, [*arguments, "--group", f"vibraton={fast}"], catch_exceptions=False)


def test_labels_of_a_group_become_labels_of_the_rows_they_touch(options: TrainOptions, folder: Path) -> None:
    main, fast = motor(folder / "labels", 40, 3, "temperature")
    labelled = replace(options, test=(main,), test_groups={"vibration": (fast,)})
    data = rate_groups.load(options)
    test = rate_groups.load_test(labelled, data)
    assert test is not None and [channel.name for channel in test.channels] == [c.name for c in data.channels]
    (stretch,) = test.stretches
    seconds = np.round(stretch.rows.time_s - START_S)
    np.testing.assert_array_equal(stretch.label, seconds >= FAULT_AT)


def test_labels_in_the_file_of_any_group_count_for_evaluate_as_in_training(
    trained: Trained, options: TrainOptions, folder: Path
) -> None:
    main, fast = motor(folder / "beside", 60, 5, "bearing")
    bare, marked = folder / "beside" / "bare.csv", folder / "beside" / "marked.csv"
    bare.write_text("".join(line.rpartition(",")[0] + "\n" for line in main.read_text().splitlines()))
    lines = fast.read_text().splitlines()
    first = 1 + FAULT_AT * RATE - RATE // 2  # half a second before a row of the grid
    flags = ["label", *("1" if n >= first else "0" for n in range(1, len(lines)))]
    marked.write_text("".join(f"{line},{flag}\n" for line, flag in zip(lines, flags, strict=True)))
    data = rate_groups.load(options)
    test = rate_groups.load_test(replace(options, test=(bare,), test_groups={"vibration": (marked,)}), data)
    found = read_recorded(bare, trained.bundle.manifest, TableOptions(), {"vibration": marked})
    assert test is not None
    for ours, theirs in zip(found.stretches, test.stretches, strict=True):
        np.testing.assert_array_equal(ours.label, theirs.label)
        seconds = np.round(ours.rows.time_s - START_S)
        np.testing.assert_array_equal(ours.label, seconds >= FAULT_AT)


def test_recordings_of_other_days_are_told_by_evaluate_too(trained: Trained, folder: Path) -> None:
    main, _ = motor(folder / "days", 30, 5)
    late = small(folder / "late.csv", "vibration_x", RATE, 20, START_S + 86400.0)
    with pytest.raises(DataError, match=r"share no time: main.csv from 1773043200.000 to .*; late.csv from 17731296"):
        read_recorded(main, trained.bundle.manifest, TableOptions(), {"vibration": late})


def small(path: Path, name: str, rate: float, seconds: int, start: float = 0.0, head: str = "time") -> Path:
    at = np.arange(int(seconds * rate)) / rate
    values = np.random.default_rng(0).normal(size=len(at))
    lines = (f"{start + t:.5f},{v:.4f}\n" for t, v in zip(at.tolist(), values.tolist(), strict=True))
    path.write_text(f"{head},{name}\n" + "".join(lines))
    return path


def pair(folder: Path, rate: float = 64.0, **others: object) -> TrainOptions:
    main = small(folder / "main.csv", "load", 1.0, 120)
    fast = small(folder / "fast.csv", str(others.pop("name", "x")), rate, 120, float(others.pop("start", 0.0)))
    return TrainOptions((main,), folder, "motor", groups={"fast": (fast,)}, **others)


def test_how_a_group_is_shown_follows_from_its_rate(tmp_path: Path) -> None:
    shown = {}
    for rate in (1.0, 4.0, 64.0, 500.0):
        groups = rate_groups.load(pair(tmp_path, rate)).groups
        assert groups is not None
        shown[rate] = (groups.groups[1].align[0], groups.groups[1].names[:2], groups.groups[1].frame)
    assert shown[1.0] == ("hold", (), 1)
    assert shown[4.0] == ("mean", (), 1)
    assert shown[64.0][1:] == (("level", "unrest"), 64)
    assert shown[500.0][1:] == (("rms", "crest"), 512)


@pytest.mark.parametrize("seconds", [70, 250])
def test_floors_of_features_come_from_the_training_part_alone(tmp_path: Path, seconds: int) -> None:
    """Files of a minute are split together, longer ones each by itself."""
    load, at = np.arange(seconds) % 7, np.arange(seconds * 64) / 64
    floors = {}
    for later in (1.0, 100.0):
        mains, fasts = [], []
        for n in range(2):
            mains.append(tmp_path / f"main-{n}.csv")
            mains[n].write_text("time,load\n" + "".join(f"{t},{v}\n" for t, v in enumerate(load.tolist())))
            loud = np.ones(len(at))
            if seconds == 70:
                loud[at > 28] = later if n else 1.0  # the last 30 % of both files lie in the second
            else:
                loud[at > 175] = later
            values = loud * np.random.default_rng(n).normal(size=len(at))
            fasts.append(tmp_path / f"fast-{n}.csv")
            lines = (f"{t:.5f},{v:.4f}\n" for t, v in zip(at.tolist(), values.tolist(), strict=True))
            fasts[n].write_text("time,x\n" + "".join(lines))
        options = TrainOptions(tuple(mains), tmp_path, "motor", groups={"fast": tuple(fasts)}, window=8, hop=1)
        groups = rate_groups.load(options).groups
        assert groups is not None and groups.groups[1].features
        floors[later] = groups.groups[1].to_json()
    assert floors[1.0] == floors[100.0]


def test_the_user_may_choose_features_alignment_age_and_grid(tmp_path: Path) -> None:
    asked = {
        "fast": GroupOptions(features=("log_mel",), frame_s=2.0, max_age_s=3.0),
        "main": GroupOptions(align={"load": "interpolate"}),
    }
    groups = rate_groups.load(pair(tmp_path, group_options=asked)).groups
    assert groups is not None
    main, fast = groups.groups
    assert (fast.frame, fast.max_age_s, fast.names[0], main.align) == (128, 3.0, "mel_1", ("interpolate",))
    by_fast = rate_groups.load(pair(tmp_path, 8.0, join="fast"))
    assert by_fast.sample_rate_hz == 8.0 and len(by_fast) > 900


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"start": 500.0}, "share no time"),
        ({"name": "load"}, "channel 'load' is in group main and in group fast"),
        ({"join": "slow"}, "'slow' is not given: there are main, fast"),
        ({"group_options": {"fast": GroupOptions(align={"y": "hold"})}}, "'y' is none of its channels x"),
        ({"group_options": {"main": GroupOptions(features=("moments",))}}, "sets the grid"),
        ({"group_options": {"fast": GroupOptions(features=("moments",), frame_s=600.0)}}, "no unbroken stretch"),
        ({"group_options": {"fast": GroupOptions(features=("moments",), frame_s=0.03)}}, "longer frame_s"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, others: dict, said: str) -> None:
    with pytest.raises((DataError, ConfigError), match=said):
        rate_groups.load(pair(tmp_path, **others))


def test_what_no_device_takes_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no device takes that.*values that may be held.*shorter max_age_s"):
        rate_groups.load(pair(tmp_path, group_options={"fast": GroupOptions(max_age_s=1e6)}))


def test_a_group_needs_a_file_for_each_of_the_main_group_and_a_time_column(tmp_path: Path) -> None:
    options = pair(tmp_path)
    with pytest.raises(DataError, match="group fast: 2 files for 1 of the main group"):
        rate_groups.load(replace(options, groups={"fast": options.groups["fast"] * 2}))
    bare = small(tmp_path / "bare.csv", "x", 64.0, 10, head="a")
    with pytest.raises(DataError, match=r"bare.csv: no time column"):
        rate_groups.load(replace(options, groups={"fast": (bare,)}))
    with pytest.raises(ConfigError, match="no group is given"):
        rate_groups.load(replace(options, groups={}, join="fast"))


def test_a_weight_of_a_channel_is_that_of_its_features(tmp_path: Path) -> None:
    from tocsin_trainer.steps import channel_weights

    data = rate_groups.load(pair(tmp_path))
    assert [channel.name for channel in data.channels] == ["load", "x_level", "x_unrest"]
    np.testing.assert_allclose(channel_weights({"x": 4.0, "x_unrest": 1.0}, data.channels, data.groups), [0.5, 2, 0.5])


def test_options_of_a_table_are_those_of_the_main_group(tmp_path: Path) -> None:
    options = pair(tmp_path)
    table = TableOptions(columns=("load",), time="time")
    assert len(rate_groups.load(replace(options, table=table)).channels) == 3


def test_bands_of_a_group_are_told_in_hertz(options: TrainOptions) -> None:
    groups = rate_groups.load(options).groups
    assert groups is not None
    labels = column_labels(groups)
    assert list(labels) == [column.name for column in groups.groups[1].columns]
    bands = {name: label for name, label in labels.items() if re.search(r"_(spectrum|band|mel|envelope)_\d+$", name)}
    assert bands and all(re.search(r"\d–\d+(\.\d+)? Hz", label) for label in bands.values())
