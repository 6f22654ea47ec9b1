"""The search: what is tried, on what it is judged, how processes share it, and which settings it takes."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from tocsin.cli.main import cli
from tocsin.core.bundle import load_bundle
from tocsin.errors import ConfigError, DataError, GateError
from tocsin.recordings import TableOptions
from tocsin_trainer import dataset as ds
from tocsin_trainer.device_budget import Cost, DeviceBudget
from tocsin_trainer.options import FitOptions, InputOptions, TrainOptions
from tocsin_trainer.tune.blocks import BLOCKS, Judged, blocks
from tocsin_trainer.tune.outcome import Outcome, Trial, outcome
from tocsin_trainer.tune.page import page
from tocsin_trainer.tune.run import asset_yaml
from tocsin_trainer.tune.space import Space, space
from tocsin_trainer.tune.study import ended, opened, search

ROWS = 500


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = np.arange(ROWS)
    swing = np.sin(2 * np.pi * at / 16)
    values = np.stack((5 + swing, 20 - 3 * swing), axis=1) + np.random.default_rng(0).normal(0, 0.1, (ROWS, 2))
    path = tmp_path_factory.mktemp("tune") / "normal.csv"
    rows = (f"{n},{a:.4f},{b:.4f}\n" for n, (a, b) in enumerate(values))
    path.write_text("time,pressure,flow\n" + "".join(rows))
    return path


@pytest.fixture(scope="module")
def data(normal: Path) -> ds.Dataset:
    return ds.load((normal,), TableOptions())


def options(**others: object) -> TrainOptions:
    return TrainOptions((), Path("out"), "pump-1", **others)


# What is searched


def test_the_default_is_the_linear_panel_with_the_window_of_the_data(data: ds.Dataset) -> None:
    found = space(data, options())
    length, hop, _ = ds.choose_window(data, None, None)
    assert found.default == {"model": "panel", "window": length, "features": "auto", "scaling": "auto", "clean": "auto"}
    made = found.options(found.default)
    assert made.families == ("t2", "pca", "pca_short") and (made.window, made.hop) == (length, hop)
    assert made.inputs == InputOptions() and made.fitting == FitOptions()


def test_what_the_user_gave_is_not_searched(data: ds.Dataset) -> None:
    given = InputOptions(features=("level_unrest",), scaling="minmax")
    found = space(data, options(families=("conv_ae",), window=12, inputs=given, fitting=FitOptions(augment=("mask",))))
    assert found.models == ("conv_ae",) and found.windows == (12,)
    made = found.options({**found.default, "clean": "none"})
    assert (made.inputs.features, made.inputs.scaling, made.inputs.clean) == (("level_unrest",), "minmax", ())
    assert made.fitting.augment == ("mask",)


def test_windows_of_other_lengths_still_overlap(data: ds.Dataset) -> None:
    found = space(data, options(hop=8))
    assert set(found.windows) == {16, 20} or all(length > 8 for length in found.windows)
    for length in space(data, options()).windows:
        made = space(data, options()).options({**found.default, "window": length})
        assert made.window == length and made.hop is not None and made.hop < length


def test_a_family_that_says_nothing_of_the_signal_is_an_error(data: ds.Dataset) -> None:
    with pytest.raises(ConfigError, match="pca_short say nothing of a cycle signal"):
        space(data, options(families=("pca_short",), window=16, hop=16))


# Blocks of time


def test_each_row_is_held_back_once_and_never_in_what_is_kept(data: ds.Dataset) -> None:
    made = blocks(data, 16, 1, 0)
    assert len(made) == BLOCKS
    times = [np.concatenate([stretch.read(0, len(stretch)).time_s for stretch in block.held]) for block in made]
    assert np.array_equal(np.sort(np.concatenate(times)), np.arange(ROWS, dtype=float))
    for block, held in zip(made, times, strict=True):
        kept = np.concatenate([stretch.read(0, len(stretch)).time_s for stretch in block.kept])
        assert not set(kept) & set(held)


def test_segments_repeat_by_seed_and_anomalies_stand_out_of_them(data: ds.Dataset) -> None:
    one, same, other = (blocks(data, 16, 1, seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(one.injected, same.injected) and not np.array_equal(one.injected, other.injected)
    assert one.normal.shape[1:] == one.injected.shape[1:] == (16, 2)
    assert np.ptp(one.injected, axis=1).max() > 2 * np.ptp(one.normal, axis=1).max()


def test_too_short_a_recording_is_an_error_that_says_so(data: ds.Dataset) -> None:
    with pytest.raises(DataError, match="held back in 3 blocks of windows of 200 rows"):
        blocks(data, 200, 1, 0)


# Which to take

DEFAULT = {"model": "panel", "window": 16}


def trial(number: int, *detections: float, kib: float = 8, us: float = 50, why: str = "") -> Trial:
    choice = DEFAULT if number == 0 else {"model": "t2", "window": 8 + number}
    cost = Cost(str(choice["model"]), int(1024 * kib), us)
    return Trial(number, dict(choice), detections, cost, "int8", 1.0, why)


def taken(*trials: Trial, **bounds: float) -> Outcome:
    return outcome(trials, DEFAULT, DeviceBudget(**bounds))


def test_a_lead_within_what_blocks_differ_by_keeps_the_default() -> None:
    made = taken(trial(0, 0.90, 0.92, 0.94), trial(1, 0.91, 0.93, 0.95))
    assert made.chosen.number == 0 and "trial 1 leads by 0.0100, which is not clear" in made.why


def test_a_lead_that_one_block_does_not_show_keeps_the_default() -> None:
    assert taken(trial(0, 0.80, 0.80, 0.80), trial(1, 0.79, 0.90, 0.90)).chosen.number == 0


def test_a_clear_lead_in_every_block_is_taken() -> None:
    made = taken(trial(0, 0.80, 0.81, 0.82), trial(1, 0.90, 0.91, 0.92))
    assert made.chosen.number == 1 and "in every block, +0.1000" in made.why


def test_ties_go_to_the_cheapest() -> None:
    better = trial(1, 0.90, 0.90, 0.90), trial(2, 0.897, 0.897, 0.897, kib=2, us=20)
    assert taken(trial(0, 0.80, 0.80, 0.80), *better).chosen.number == 2


def test_over_the_budget_even_the_default_is_not_taken() -> None:
    trials = trial(0, 0.9, 0.9, 0.9), trial(1, 0.7, 0.7, 0.7, kib=2)
    made = taken(*trials, max_kib=4)
    assert made.chosen.number == 1 and "−0.2000" in made.why and made.default is trials[0]


def test_where_nothing_fits_the_nearest_of_all_trials_is_named() -> None:
    trials = trial(0, 0.9, 0.9, 0.9), trial(1, 0.7, kib=2, why="over budget: 2 KiB, at most 1 are allowed")
    with pytest.raises(GateError, match="nearest comes t2 with 2 KiB"):
        taken(*trials, max_kib=1)


def test_what_another_beats_in_everything_is_not_on_the_front() -> None:
    trials = trial(0, 0.9, 0.9, 0.9), trial(1, 0.8, 0.8, 0.8), trial(2, 0.7, 0.7, 0.7, kib=1), trial(3, 0.5, why="x")
    assert [each.number for each in taken(*trials).front] == [2, 0]


def test_the_page_stands_alone_and_escapes_what_it_is_given() -> None:
    made = taken(trial(0, 0.9, 0.9, 0.9), trial(1, 0.8, 0.8, 0.8, kib=1), trial(2, why="<b>no</b>"))
    html = page(made, "pump<1>")
    assert "://" not in html.replace("http://www.w3.org/", "") and "<script" not in html
    assert "&lt;b&gt;no" in html and "pump<1>" not in html
    assert "made-up" in html and html.count("<svg") == 1 and 'aria-label="Detection over size' in html


# The study on disk


def cheap(folder: Path, trials: int, extra: str = "") -> list[str]:
    """A process that searches with a judge that only does sums: what is tested is who runs which trial."""
    code = f"""
        import os, signal, sys, time
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_tune import cheap_judge, cheap_space
        from tocsin_trainer.device_budget import DeviceBudget
        from tocsin_trainer.tune.study import opened, search
        def judge(choice, first, number):
            {extra or "time.sleep(0.02)"}
            return cheap_judge(choice, first, number)
        study = opened(Path({str(folder / "study.log")!r}), {{"of": 1}})
        search(study, cheap_space(), judge, 3, {trials}, None, DeviceBudget(), lambda each: print(each.number))
    """
    return [sys.executable, "-c", textwrap.dedent(code)]


def cheap_space() -> Space:
    features = ("auto", "signal", "level_unrest", "window_statistics")
    return Space(
        models=("t2", "pca", "limits"), windows=(16, 8), features=features, scaling=("auto", "robust", "minmax"),
        clean=("auto", "none"), augment=("auto",), panel=("t2",), hop=1, base=options(),
    )  # fmt: skip


def cheap_judge(choice: dict[str, str | int], first: Judged | None, number: int) -> Judged:
    names = cheap_space().knobs
    places = [names[key].index(value) for key, value in choice.items()]
    return Judged(0.9 - 0.001 * sum(places), Cost("x", 1000 - sum(places), 10.0), (("int8", 1.0),))


def run_here(folder: Path, trials: int, judge: object = cheap_judge) -> tuple[Trial, ...]:
    study = opened(folder / "study.log", {"of": 1})
    search(study, cheap_space(), judge, 3, trials, None, DeviceBudget(), lambda _: None)
    return ended(study)


def test_the_default_is_the_first_trial_and_trials_repeat_by_seed(tmp_path: Path) -> None:
    one, other = run_here(tmp_path / "a", 12), run_here(tmp_path / "b", 12)
    assert one[0].number == 0 and one[0].choice == cheap_space().default
    assert len(one) == 12 and [each.choice for each in one] == [each.choice for each in other]
    assert len({tuple(each.choice.items()) for each in one}) == 12  # none is measured twice


def test_a_study_goes_on_as_it_would_have(tmp_path: Path) -> None:
    run_here(tmp_path / "a", 5)
    assert [each.choice for each in run_here(tmp_path / "a", 12)] == [
        each.choice for each in run_here(tmp_path / "b", 12)
    ]


def test_two_processes_share_the_trials_of_one_study(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(cheap(tmp_path, 16), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    done = [(process.communicate(timeout=60), process.returncode) for process in started]
    assert [code for _, code in done] == [0, 0], done
    ran = [[int(number) for number in out.split()] for (out, _), _ in done]
    assert all(ran), "one of them did nothing"
    found = ended(opened(tmp_path / "study.log", {"of": 1}))
    assert sorted(ran[0] + ran[1]) == [each.number for each in found] and 16 <= len(found) <= 17
    assert len({tuple(each.choice.items()) for each in found}) == len(found)
    assert found[0].choice == cheap_space().default


def test_a_killed_run_goes_on_and_does_its_last_trial_again(tmp_path: Path) -> None:
    marker = tmp_path / "third"
    counted = f"p = Path({str(marker)!r}); p.write_text(p.read_text() + 'x' if p.exists() else 'x'); "
    killing = counted + "len(p.read_text()) == 8 and os.kill(os.getpid(), signal.SIGKILL)"  # in the third trial
    killed = subprocess.run(cheap(tmp_path, 9, killing), capture_output=True, text=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL and len(killed.stdout.split()) <= 2
    study = opened(tmp_path / "study.log", {"of": 1})
    lost = study.get_trials()[-1].params
    assert len(ended(study)) == 2
    found = run_here(tmp_path, 9)
    assert len(found) == 9 and all(each.complete for each in found)
    assert lost in [each.choice for each in found]


def test_what_is_clearly_beaten_after_one_block_is_given_up(tmp_path: Path) -> None:
    def judge(choice: dict[str, str | int], first: Judged | None, number: int) -> Judged:
        usual = choice == cheap_space().default
        return Judged(0.95 if usual else 0.80, Cost("x", 1000, 10.0), (("int8", 1.0),))

    found = run_here(tmp_path, 6, judge)
    assert found[0].complete and len(found[0].detections) == 3
    assert all(len(each.detections) == 1 and "trial 0 finds 0.05 more" in each.why for each in found[1:])


def test_settings_that_do_not_fit_the_signal_are_given_up_with_the_reason(tmp_path: Path) -> None:
    def judge(choice: dict[str, str | int], first: Judged | None, number: int) -> Judged:
        if choice["model"] == "limits":
            raise DataError("no limits here")
        return cheap_judge(choice, first, number)

    reasons = {each.why for each in run_here(tmp_path, 12, judge)}
    assert reasons == {"", "no limits here"}


def test_a_study_of_other_recordings_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "study.log", {"recordings": ["a.csv"]})
    with pytest.raises(ConfigError, match="made for other recordings"):
        opened(tmp_path / "study.log", {"recordings": ["b.csv"]})


def test_a_file_that_is_no_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.log").write_text("hello\nworld\n")
    with pytest.raises(ConfigError, match="not a study"):
        opened(tmp_path / "notes.log", {})


# All of it


@pytest.fixture(scope="module")
def searched(normal: Path) -> subprocess.CompletedProcess[str]:
    out, flags = normal.parent / "out", ("--families", "t2,pca", "--window", "8", "--columns", "pressure,flow")
    command = ("tune", "--data", str(normal), "--out", str(out), "--trials", "3", "--jobs", "2", *flags)
    code = "import sys; from tocsin.cli.main import main; sys.argv[0] = 'tocsin'; main()"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, "-c", code, *command],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=environment,
    )


def test_a_search_leaves_settings_page_and_figures(searched: subprocess.CompletedProcess[str], normal: Path) -> None:
    assert searched.returncode == 0, searched.stderr
    out = normal.parent / "out"
    found = json.loads((out / "tune.json").read_text())
    assert 3 <= len(found["trials"]) <= 4 and found["default"] == 0 and found["chosen"] in found["front"] + [0]
    complete = [each for each in found["trials"] if not each["given_up"]]
    assert all(0.5 < each["detection"] <= 1 and each["bytes"] > 0 < each["latency_us"] for each in complete)
    assert all(math.isclose(each["detection"], np.mean(each["blocks"])) for each in complete)
    assert "made-up" in searched.stdout and "next    tocsin train --config" in searched.stdout
    assert (out / "tune.html").read_text().startswith("<!DOCTYPE html>")


def test_train_takes_the_settings_of_a_search(
    searched: subprocess.CompletedProcess[str], normal: Path, tmp_path: Path
) -> None:
    file = normal.parent / "out" / "asset.yaml"
    settings = yaml.safe_load(file.read_text())
    assert settings["window"] == 8 and settings["columns"] == ["pressure", "flow"]
    done = CliRunner().invoke(cli, ["train", "-d", str(normal), "-c", str(file), "-o", str(tmp_path), "-q"])
    assert done.exit_code == 0, done.output
    (bundle,) = tmp_path.glob("*.tocsin")
    manifest = load_bundle(bundle).manifest
    assert [member.family for member in manifest.members] == settings["families"]
    assert (manifest.length, manifest.hop) == (settings["window"], settings["hop"])


def test_rate_groups_are_searched_as_they_are_joined_and_other_joins_are_another_study(
    normal: Path, tmp_path: Path
) -> None:
    at = np.arange(8 * ROWS) / 8
    fast, file = tmp_path / "fast.csv", tmp_path / "frame.yaml"
    values = np.random.default_rng(1).normal(size=len(at)).tolist()
    fast.write_text("time,x\n" + "".join(f"{t:.3f},{v:.4f}\n" for t, v in zip(at.tolist(), values, strict=True)))
    arguments = ["tune", "-d", str(normal), "--group", f"fast={fast}", "--out", str(tmp_path / "out")]
    arguments += ["--families", "t2", "--window", "8", "--trials", "1", "-q"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "--data … --group fast=…" in done.stdout
    file.write_text("version: 1\ngroups: {fast: {frame_s: 4}}\n")
    done = CliRunner().invoke(cli, [*arguments, "--config", str(file)])
    assert isinstance(done.exception, ConfigError) and "made for other groups" in str(done.exception)


def test_every_choice_of_the_space_is_a_file_that_train_understands(data: ds.Dataset, tmp_path: Path) -> None:
    from tocsin.config_file import read_settings
    from tocsin_trainer.cli import TrainSettings

    found = space(data, options())
    choice = {**found.default, "model": "conv_ae", "features": "log_spectrum", "scaling": "minmax", "clean": "median"}
    made = taken(Trial(0, choice | {"augment": "mask,drop"}, (0.9, 0.9, 0.9), Cost("conv_ae", 1, 1.0), "int8", 1.0))
    file = tmp_path / "asset.yaml"
    file.write_text(asset_yaml(made, found, {"asset": "pump-1", "preprocess": {"bands_hz": []}}))
    read = read_settings(file, TrainSettings)
    assert read.families == ("conv_ae",) and read.augment == ("mask", "drop") and read.asset == "pump-1"
    assert (read.preprocess.features, read.preprocess.scaling) == (("log_spectrum",), "minmax")
    assert [step.step for step in read.preprocess.clean] == ["median"]
    assert re.search(r"^# Made by tocsin tune, trial 0", file.read_text())


def test_without_optuna_the_extra_is_named(normal: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['optuna'] = None; from tocsin.cli.main import main; "
        f"sys.argv = ['tocsin', 'tune', '-d', {str(normal)!r}, '-o', {str(tmp_path)!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "the extra `tune` (optuna is missing): pip install" in done.stderr
