"""An evaluation is what the device would have said against what the labels say, and invents nothing."""

import csv
import doctest
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tocsin.cli.main import main
from tocsin.core.bundle import Bundle, load_bundle
from tocsin.core.promise import Promise
from tocsin.errors import DataError
from tocsin.recordings import TableOptions
from tocsin_trainer import evaluation
from tocsin_trainer.evaluation import Evaluation, evaluate, evaluation_json
from tocsin_trainer.evaluation_page import page
from tocsin_trainer.evaluation_text import shown
from tocsin_trainer.labels import Interval, labelled, read_labels, untouched
from tocsin_trainer.metrics import event_figures, point_figures
from tocsin_trainer.recorded import Recorded, clock, read_recorded

DATA = Path(__file__).parent.parent / "data"
SMALL, FAULTS, NORMAL = DATA / "small.tocsin", DATA / "faults.csv", DATA / "normal.csv"
LINES = FAULTS.read_text("ascii").splitlines()
START = 1773043200.0  # epoch seconds of the first row
EVENTS = ((150, 209), (300, 359), (450, 509))  # first and last rows
WINDOWS = "start,end,kind\n" + "".join(
    f"{clock(START + first)},{clock(START + last)},{kind}\n"
    for (first, last), kind in zip(EVENTS, ("leak", "no flow", "leak"), strict=True)
)
Remade = Callable[..., Bundle]
Run = Callable[..., tuple[int, str, str]]


def read(path: Path, bundle: Bundle | None = None) -> Recorded:
    return read_recorded(path, (bundle or load_bundle(SMALL)).manifest, TableOptions())


def with_column(folder: Path, flags: Iterable[int], name: str = "labelled.csv", rows: slice = slice(None)) -> Path:
    """The faults with a label column."""
    path = folder / name
    body = [f"{line},{flag}" for line, flag in zip(LINES[1:], flags, strict=True)][rows]
    path.write_text("\n".join((LINES[0] + ",label", *body)) + "\n")
    return path


def flags() -> list[int]:
    return [int(any(first <= n <= last for first, last in EVENTS)) for n in range(len(LINES) - 1)]


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    path = tmp_path / "windows.csv"
    path.write_text(WINDOWS)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", *map(str, words)])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return command


def with_labels(text: str, folder: Path, *recordings: Recorded) -> tuple[Recorded, ...]:
    path = folder / "intervals.csv"
    path.write_text(text)
    return labelled(recordings, read_labels(path))


def test_a_label_column_and_intervals_give_the_same_figures(tmp_path: Path) -> None:
    bundle = load_bundle(SMALL)
    column = evaluate(bundle, (read(with_column(tmp_path, flags())),)).files[0]
    apart = evaluate(bundle, with_labels(WINDOWS, tmp_path, read(FAULTS))).files[0]
    assert column.figures == apart.figures and column.alarms == apart.alarms and column.best_f1 == apart.best_f1
    assert {"vus_pr", "average_precision", "roc_auc", "f1", "far", "mar", "event_recall", "false_events_per_day",
            "delay_s"} <= set(column.figures)  # fmt: skip


def test_intervals_win_over_a_label_column(tmp_path: Path) -> None:
    column = read(with_column(tmp_path, [0] * (len(LINES) - 1)))
    (recorded,) = with_labels(WINDOWS, tmp_path, column)
    assert recorded.stretches[0].label is not None and recorded.stretches[0].label.sum() == 180


@pytest.mark.parametrize(
    "write",
    [
        lambda s: clock(s).replace(" ", "T") + "Z",
        lambda s: clock(s + 3600).replace(" ", "T") + "+01:00",
        lambda s: clock(s).replace("-", "/"),
        lambda s: f"{s:.0f}",
        lambda s: f"{s * 1e3:.0f}",
        lambda s: f"{s * 1e6:.0f}",
    ],
    ids=["iso", "offset", "slashes", "epoch_s", "epoch_ms", "epoch_us"],
)
def test_times_of_labels_are_read_however_they_are_written(write: Callable[[float], str], tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text(f"start;end\n{write(START + 150)};{write(START + 209)}\n")
    assert read_labels(tmp_path / "w.csv") == (Interval(START + 150, START + 209),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"columns start,end\[,kind\]\[,file\]"),
        ("begin,end\n1,2\n", "columns start,end"),
        ("start,end\n", "no intervals"),
        ("start,end\n2026-03-09,2026-03-08\n", r"line 2: the interval ends \(2026-03-08\) before it starts"),
        ("start,end\n2026-03-09,\n", "line 2: expected a time such as .* got ''"),
        ("start,end\n2026-03-09,2026-03-10\nnow,2026-03-10\n", "line 3: expected a time such as .* got 'now'"),
        (
            "start,end\n2025-01-01,2025-01-02\n",
            r"none of the 1 intervals \(2025-01-01 00:00:00 to .*2026-03-09 08:09:59",
        ),
        ("start,end,file\n2026-03-09,2026-03-10,other.csv\n", "name the file 'other.csv', the data are faults.csv"),
    ],
    ids=["empty", "other_names", "header_only", "backwards", "no_end", "no_time", "another_year", "another_file"],
)
def test_labels_that_cannot_be_used_are_told(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        with_labels(text, tmp_path, read(FAULTS))


def test_labels_outside_of_the_data_are_counted(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text(WINDOWS + "2025-01-01,2025-01-02,old\n")
    assert untouched((read(FAULTS),), read_labels(tmp_path / "w.csv")) == 1


def test_kinds_are_counted_apart(tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    path.write_text(WINDOWS + "2026-03-09 08:01:00,2026-03-09 08:01:20,nothing\n")
    found = evaluate(load_bundle(SMALL), labelled((read(FAULTS),), read_labels(path)), read_labels(path))
    assert [(k.kind, k.intervals, k.found, k.alarmed) for k in found.kinds] == [
        ("leak", 2, 2, 2), ("no flow", 1, 1, 1), ("nothing", 1, 0, 0)
    ]  # fmt: skip


def test_without_labels_only_rates_are_told(run: Run) -> None:
    code, stdout, _ = run(SMALL, "--data", FAULTS, "--json")
    found = json.loads(stdout)
    (file,) = found["files"]
    assert code == 0 and not found["labelled"] and file["labelled_rows"] is None
    assert file["figures"] == file["alarms"] == file["baselines"] == file["oracle"] == found["mean"] == {}
    assert file["rates"]["alarms"] == 3 and 0 < file["rates"]["over"] < 1
    assert file["rates"]["alarms_per_day"] == pytest.approx(3 * 86400 / 600)
    assert list(file["ratio_quantiles"]) == ["0.5", "0.9", "0.99", "0.999", "1"]
    assert "no labels: only rates can be told" in run(SMALL, "--data", FAULTS)[1]


@pytest.mark.parametrize(("flag", "there"), [(0, {"far", "false_events"}), (1, {"f1", "mar", "event_recall"})])
def test_with_labels_of_one_kind_what_is_not_defined_is_left_out(
    flag: int, there: set[str], tmp_path: Path, run: Run
) -> None:
    path = with_column(tmp_path, [flag] * (len(LINES) - 1))
    code, stdout, _ = run(SMALL, "--data", path, "--json")
    figures = json.loads(stdout)["files"][0]["figures"]
    assert code == 0 and there <= set(figures)
    assert not {"vus_pr", "roc_auc", "average_precision"} & set(figures)
    assert ("far" in figures) != ("mar" in figures)
    code, stdout, _ = run(SMALL, "--data", path, "--html", tmp_path / "page.html")
    assert code == 0 and "–" in stdout


def test_with_a_hop_and_a_gap_each_row_has_the_score_of_the_latest_window_of_its_stretch(
    tmp_path: Path, remade: Remade
) -> None:
    bundle = remade(window={"hop": 7}, smoothing=1)
    marks = flags()
    text = [f"{line},{flag}" for line, flag in zip(LINES[1:], marks, strict=True)]
    path = tmp_path / "gap.csv"
    path.write_text("\n".join((LINES[0] + ",label", *text[:200], *text[340:])) + "\n")
    found = evaluate(bundle, (read(path, bundle),)).files[0]

    values = np.array([[float(cell) for cell in line.split(",")[1:3]] for line in LINES[1:]])
    scorer, over, label = bundle.scorer(), [], []
    for first, stop in ((0, 200), (340, 600)):
        for row in range(first, stop):
            end = first + 31 + max(0, (row - first - 31) // 7) * 7
            over.append(scorer.score(values[None, end - 31 : end + 1]).ratio[0] >= 1)
            label.append(bool(marks[row]))
    time_s = np.concatenate([np.arange(200.0), np.arange(340.0, 600.0)])
    expected = point_figures(np.array(label), np.array(over)) | event_figures(np.array(label), np.array(over), time_s)
    assert {key: found.figures[key] for key in expected} == expected
    assert found.normal_days == pytest.approx(label.count(False) / 86400)


def test_several_files_have_a_mean_a_worst_and_are_pooled(tmp_path: Path) -> None:
    marks = flags()
    calm = with_column(tmp_path, marks, "calm.csv", slice(0, 290))
    wild = with_column(tmp_path, marks, "wild.csv", slice(290, None))
    found = evaluate(load_bundle(SMALL), (read(calm), read(wild)))
    a, b = (file.figures for file in found.files)
    assert found.mean()["vus_pr"] == pytest.approx((a["vus_pr"] + b["vus_pr"]) / 2)
    assert found.worst()["vus_pr"] == min((a["vus_pr"], "calm.csv"), (b["vus_pr"], "wild.csv"))
    assert found.worst()["far"] == max((a["far"], "calm.csv"), (b["far"], "wild.csv"))
    pooled = found.pooled()
    assert (pooled["events"], pooled["found"]) == (3, a["found"] + b["found"])
    normal = [290 - 60, 310 - 120]
    assert pooled["far"] == pytest.approx((a["far"] * normal[0] + b["far"] * normal[1]) / sum(normal))
    text = shown(found)
    assert [line.split()[0] for line in text.splitlines()[2:8]] == [
        "calm.csv", "wild.csv", "mean", "worst", "pooled", "always-on"
    ]  # fmt: skip


def test_a_file_without_labels_beside_one_with_is_named(tmp_path: Path) -> None:
    found = evaluate(load_bundle(SMALL), (read(with_column(tmp_path, flags())), read(NORMAL)))
    assert found.warnings == ("normal.csv: no labels, only rates",)
    assert len(found.labelled) == 1 and found.mean() == found.files[0].figures


def test_random_scores_and_an_alarm_that_is_always_on_stand_beside(tmp_path: Path, run: Run) -> None:
    _, stdout, _ = run(SMALL, "--data", with_column(tmp_path, flags()))
    rows = {line.split()[0]: line.split() for line in stdout.splitlines() if line}
    assert {"labelled.csv", "always-on", "random"} <= set(rows)
    found = json.loads(run(SMALL, "--data", with_column(tmp_path, flags()), "--json")[1])
    assert found["baselines"]["always-on"]["f1"] == pytest.approx(2 * 0.3 / 1.3)
    assert 0.4 < found["baselines"]["random"]["roc_auc"] < 0.6
    assert found["oracle"]["best_f1"] >= found["mean"]["f1"]


def test_a_gate_that_is_missed_ends_with_9_after_the_figures(windows: Path, run: Run) -> None:
    words = (SMALL, "--data", FAULTS, "--labels", windows, "--json")
    assert run(*words, "--fail-under", "vus_pr=0.1", "--fail-over", "far=0.9")[0] == 0
    code, stdout, stderr = run(*words, "--fail-under", "vus_pr=0.99", "--fail-over", "far=0.01")
    assert code == 9 and json.loads(stdout)["mean"]["vus_pr"] < 0.99
    assert re.search(r"vus_pr is 0\.\d+, expected 0.99 or more; far is 0\.\d+, expected 0.01 or less", stderr)


def test_a_gate_on_a_figure_that_is_not_defined_is_missed(run: Run) -> None:
    code, _, stderr = run(SMALL, "--data", NORMAL, "--fail-under", "f1=0.1")
    assert code == 9 and "f1 is not defined on these data" in stderr


def test_the_alarms_are_those_of_the_device(windows: Path, run: Run, tmp_path: Path) -> None:
    """`tocsin replay` writes its own; both must know the same rows."""
    with pytest.raises(SystemExit):
        main(["replay", "-b", str(SMALL), "-i", str(FAULTS), "--scores", str(tmp_path / "s.csv")])
    with (tmp_path / "s.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    found = evaluate(load_bundle(SMALL), (read(FAULTS),)).files[0].played
    np.testing.assert_allclose(found.score, [float(row["score"]) for row in rows], rtol=1e-6)
    np.testing.assert_array_equal(found.anomaly, [row["anomaly"] == "1" for row in rows])


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("judged")
    late = "2026-03-09 08:00:40,2026-03-09 08:00:50,unseen\n"
    without_leaks = "".join(line for line in WINDOWS.splitlines(True) if "leak" not in line)
    path = folder / "w.csv"
    path.write_text(without_leaks + late)
    intervals = read_labels(path)
    return evaluate(load_bundle(SMALL), labelled((read(FAULTS),), intervals), intervals)


def test_the_page_stands_alone_and_lists_what_was_missed_and_rung_for_nothing(judged: Evaluation) -> None:
    shown_page = page(judged)
    assert "default-src 'none'" in shown_page and "<script" not in shown_page
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", shown_page)
    assert "missed" in shown_page and "Worst false alarms" in shown_page and "tocsin explain small.tocsin" in shown_page


def test_json_has_no_number_that_is_none(judged: Evaluation) -> None:
    json.dumps(evaluation_json(judged), allow_nan=False)


def promising(high: float) -> Bundle:
    """`small` with a promise of that many false alarms an hour at most."""
    plain = load_bundle(SMALL)
    promise = Promise(high, high, high / 2, high, 500.0, 9, 500.0, False)
    threshold = replace(plain.manifest.threshold, promise=promise)
    return replace(plain, manifest=replace(plain.manifest, threshold=threshold))


def test_what_was_promised_stands_beside_what_was_counted(tmp_path: Path, windows: Path) -> None:
    faults, bundle = read(FAULTS), promising(1 / 168)
    unlabelled = evaluate(bundle, (faults,))
    assert unlabelled.tally().episodes == len(EVENTS)
    assert (
        "\nalarms: 3 alarms in" in shown(unlabelled)
        and "false alarms:" not in shown(unlabelled)
        and "more than promised" in shown(unlabelled)
    )
    assert "more than promised" in page(unlabelled)
    assert evaluation_json(unlabelled)["false_alarms"]["broken"]
    known = evaluate(bundle, labelled((faults,), read_labels(windows)))
    assert known.tally().episodes == 0 and 0 < known.tally().hours < unlabelled.tally().hours + 0.05
    assert "false alarms: 0 alarms in" in shown(known) and "too short to tell more" in shown(known)
    assert "as promised" in shown(evaluate(promising(60.0), (faults,)))
    assert "false alarms:" not in shown(evaluate(load_bundle(SMALL), (faults,)))


def test_examples_in_docstrings_hold() -> None:
    found = doctest.testmod(evaluation, extraglobs={"np": np})
    assert found.attempted and not found.failed
