"""A whole training run, and what it must not learn from."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from tocsin.alarms.normal import Normal
from tocsin.core.bundle import Bundle, load_bundle
from tocsin.errors import DataError
from tocsin.records import Floats
from tocsin_trainer.options import FAMILIES, TrainOptions
from tocsin_trainer.results import Candidate
from tocsin_trainer.train import Trained, train
from tocsin_trainer.verdict import verdict

ROWS = 800
CALIBRATION, TEST = 560, 720  # first rows of the parts
FAST = {"window": 16, "hop": 1, "epochs": 3, "version": "1"}


def recording(seed: int = 0) -> Floats:
    at = np.arange(ROWS)
    swing = np.sin(2 * np.pi * at / 16)
    return np.stack((5 + swing, 20 - 3 * swing), axis=1) + np.random.default_rng(seed).normal(0, 0.1, (ROWS, 2))


def written(path: Path, values: Floats, label: Floats | None = None) -> Path:
    head = "time,pressure,flow" + ("" if label is None else ",anomaly")
    tail = [""] * len(values) if label is None else [f",{int(flag)}" for flag in label]
    rows = (f"{n},{a:.4f},{b:.4f}{end}\n" for n, ((a, b), end) in enumerate(zip(values, tail, strict=True)))
    path.parent.mkdir(exist_ok=True)
    path.write_text(head + "\n" + "".join(rows))
    return path


def run(folder: Path, values: Floats, label: Floats | None = None, **others: object) -> Trained:
    keras.utils.clear_session()  # as a new process: layers are named by a counter
    data = written(folder / "data.csv", values, label)
    options = {"data": (data,), "out": folder / "out", "asset": "pump-1", "families": ("conv_ae",), **FAST, **others}
    return train(TrainOptions(**options))


def models(bundle: Bundle) -> dict[str, bytes]:
    return {name: content for name, content in bundle.files.items() if name.endswith(".tflite")}


def candidate(trained: Trained, family: str) -> Candidate:
    return next(each for each in trained.result.candidates if each.family == family)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def labelled(folder: Path) -> Path:
    values, label = recording(1), np.zeros(ROWS)
    values[300:340, 0] += 4
    label[300:340] = 1
    return written(folder / "labelled.csv", values, label)


@pytest.fixture(scope="module")
def all_families(folder: Path, labelled: Path) -> Trained:
    return run(folder / "all", recording(), families=FAMILIES, test=(labelled,))


@pytest.fixture(scope="module")
def plain(folder: Path) -> Trained:
    return run(folder / "plain", recording())


def test_a_run_leaves_bundle_report_and_figures(all_families: Trained) -> None:
    out = all_families.bundle.path.parent
    assert {path.name for path in out.iterdir()} == {"pump-1-1.tocsin", "report.html", "metrics.json"}
    assert load_bundle(out / "pump-1-1.tocsin").self_test().passed
    found = json.loads((out / "metrics.json").read_text())
    assert found["bundle"] == "pump-1-1.tocsin" and found["sha256"] == all_families.bundle.digest
    suited = [family for family in FAMILIES if family != "adjusted_limits"]  # which is for cycles
    assert [candidate["family"] for candidate in found["candidates"]][: len(suited)] == suited
    assert sum(candidate["chosen"] for candidate in found["candidates"]) == 1
    assert found["rows"] == {"train": CALIBRATION, "calibration": TEST - CALIBRATION, "test": ROWS - TEST}
    report = (out / "report.html").read_text()
    assert all(family in report for family in suited)
    assert "://" not in report.replace("http://www.w3.org/", "")  # needs nothing but itself


def test_the_bundle_is_the_chosen_candidate(all_families: Trained) -> None:
    (chosen,) = (candidate for candidate in all_families.result.candidates if candidate.chosen)
    manifest = all_families.bundle.manifest
    assert [member.family for member in manifest.members] == chosen.family.split("+")
    assert manifest.threshold == chosen.threshold
    assert (manifest.length, manifest.hop, manifest.sample_rate_hz) == (16, 1, 1.0)
    assert all_families.result.quality is not None
    assert Normal.from_json(manifest.raw["quality"]) == all_families.result.quality.normal
    shipped = sum(len(all_families.bundle.files[member.file]) for member in manifest.members)
    assert chosen.gate.passed and shipped == chosen.bytes


def test_the_limit_is_above_all_that_converted_models_say_of_rows_held_back_from_them(all_families: Trained) -> None:
    in_turn = all_families.result.chosen.played[0]
    expected = in_turn.score.max() * (1 + 16 / len(in_turn))
    assert len(in_turn) == ROWS  # each row while it was held back
    assert all_families.bundle.manifest.threshold.value == pytest.approx(expected, rel=1e-6)


def test_labelled_data_give_figures_and_normal_data_few_alarms(all_families: Trained) -> None:
    chosen = all_families.result.chosen
    assert chosen.figures and all(np.isfinite(value) for value in chosen.figures.values())
    in_turn, faulty = chosen.played
    assert not in_turn.alarms
    assert any(begin <= 345 and end >= 300 for begin, end in faulty.alarms)


@pytest.fixture(scope="module")
def other_test_part(folder: Path) -> Trained:
    """Trained on recordings that differ in their last part, and have labels."""
    values = recording()
    values[TEST:] = values[TEST:] * 1.3 + 2
    return run(folder / "test", values, np.arange(ROWS) % 2)


@pytest.fixture(scope="module")
def other_calibration_part(folder: Path) -> Trained:
    """An LSTM on recordings that differ in their calibration part."""
    values = recording()
    values[CALIBRATION:TEST] = values[CALIBRATION:TEST] * 1.3 + 2
    return run(folder / "calibration", values, families=("lstm_ae",))


def test_the_same_seed_gives_the_same_model_and_limit(
    all_families: Trained, plain: Trained, other_test_part: Trained
) -> None:
    one, two = candidate(all_families, "conv_ae"), plain.result.chosen
    assert (one.family, one.threshold) == (two.family, two.threshold)
    np.testing.assert_array_equal(one.converted_scores, two.converted_scores)
    assert models(plain.bundle) == models(other_test_part.bundle)


def test_test_data_do_not_reach_model_or_limit(plain: Trained, other_test_part: Trained) -> None:
    assert models(other_test_part.bundle) == models(plain.bundle)
    assert other_test_part.bundle.manifest.threshold == plain.bundle.manifest.threshold
    normal, changed = (trained.result.chosen.played[1].score for trained in (plain, other_test_part))
    assert changed.mean() > 5 * normal.mean()


def test_labels_in_recordings_of_normal_running_are_ignored(other_test_part: Trained) -> None:
    assert [channel.name for channel in other_test_part.bundle.manifest.channels] == ["pressure", "flow"]
    assert other_test_part.result.chosen.figures == {}


def test_calibration_data_reach_the_limit_and_neither_constants_nor_model(
    all_families: Trained, other_calibration_part: Trained
) -> None:
    one, two = candidate(all_families, "lstm_ae"), other_calibration_part.result.chosen
    assert one.family == two.family == "lstm_ae"
    np.testing.assert_array_equal(one.train_loss, two.train_loss)
    np.testing.assert_array_equal(one.validation_loss, two.validation_loss)
    assert two.threshold.value > 2 * one.threshold.value


def test_one_family_is_shipped_when_one_is_asked_for(other_calibration_part: Trained) -> None:
    bundle = other_calibration_part.bundle
    assert [member.family for member in bundle.manifest.members] == ["lstm_ae"]
    assert list(models(bundle)) == ["lstm_ae.tflite"]


def test_a_network_alone_is_compared_with_linear_models_on_the_same_rows(other_calibration_part: Trained) -> None:
    lstm, linear = other_calibration_part.result.candidates
    assert (lstm.chosen, lstm.beside) == (True, False)
    assert (linear.family, linear.chosen, linear.beside) == ("t2+pca+pca_short", False, True)
    assert np.isfinite(linear.separation) and linear.gate.passed
    gap = f"{abs(lstm.separation - linear.separation):.3f}"
    sentence = next(check.words for check in verdict(other_calibration_part.result).checks if "linear" in check.words)
    assert sentence.startswith("lstm_ae ") and "t2+pca+pca_short" in sentence and gap in sentence
    report = other_calibration_part.report.read_text()
    assert sentence in report and "it was not asked for" in report


def test_members_are_combined_as_asked_and_stacking_reports_only_labels_that_it_did_not_see(
    folder: Path, labelled: Path
) -> None:
    families = ("t2", "pca")
    asked = {how: run(folder / how, recording(), families=families, combine=how, test=(labelled,))
             for how in ("max", "stacked")}  # fmt: skip
    for how, expected in (("max", "max"), ("stacked", "mean")):
        chosen, manifest = asked[how].result.chosen, asked[how].bundle.manifest
        assert chosen.combination == how and manifest.combination == expected
    weights = [member.weight for member in asked["stacked"].bundle.manifest.members]
    assert np.mean(weights) == pytest.approx(1.0) and min(weights) >= 0
    rows = {how: len(made.result.chosen.played[-1]) for how, made in asked.items()}
    assert rows == {"max": ROWS, "stacked": ROWS // 2}
    with pytest.raises(DataError, match="--combine stacked finds weights by labels"):
        run(folder / "unlabelled", recording(), families=families, combine="stacked")


def test_without_a_word_the_panel_stands_for_choice_by_each_way_that_needs_no_label(all_families: Trained) -> None:
    panel = [each for each in all_families.result.candidates if each.family == "t2+pca+pca_short"]
    assert [each.combination for each in panel] == ["weighted", "mean", "max"]
    document = json.loads(all_families.metrics.read_text())
    found = document["candidates"]
    assert document["left_out"] == [
        {"family": "adjusted_limits", "why": all_families.result.left_out[0][1]}
    ] and "means nothing for a slow signal" in str(document["left_out"])
    assert all(0 <= each["stability"] <= 1 for each in found)
    assert {each["agreement"] for each in found if each["family"] == "t2"} == {1.0}
