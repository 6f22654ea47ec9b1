"""The report stands alone, hides nothing, and cannot be made to run what the data say."""

import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from tocsin.core.threshold import k_table, mu_sigma
from tocsin.records import Channel, Floats, Rows
from tocsin_trainer import report_data, report_detection, report_model
from tocsin_trainer.card import model_card
from tocsin_trainer.dataset import Dataset
from tocsin_trainer.markup import moment
from tocsin_trainer.metrics import baseline_figures, label_figures
from tocsin_trainer.metrics_file import Document
from tocsin_trainer.mistakes import all_events, worst_errors
from tocsin_trainer.progress import candidate_table
from tocsin_trainer.quality import quality
from tocsin_trainer.reasons import why_not
from tocsin_trainer.report import metrics_json, page, summary_table, write_report
from tocsin_trainer.results import Candidate, Choice, Gate, Played, TrainingResult
from tocsin_trainer.stretch import Stretch
from tocsin_trainer.verdict import verdict

LENGTH, HOP = 32, 4
CHANNELS = (
    Channel("pressure", "bar"), Channel("flow", "l/min"), Channel("temperature_bearing", "°C"),
    Channel("vibration_x", "mm/s"), Channel("vibration_y", "mm/s"), Channel("current", "A"),
    Channel("speed", "1/min"), Channel("temperature_oil", "°C"), Channel("level", "%"), Channel("torque", "N m"),
)  # fmt: skip


def recording(title: str, rows: int, width: int, seed: int, faults: tuple[tuple[int, int], ...] | None) -> Played:
    """Sines with noise at 1 Hz; in a fault two channels drift off."""
    rng = np.random.default_rng(seed)
    t = np.arange(rows)
    values = np.stack([np.sin(t / (20 + 7 * c)) + 0.2 * rng.standard_normal(rows) for c in range(width)], axis=1)
    values = values * np.linspace(1, 40, width) + 50
    label = np.zeros(rows, np.bool_)
    for start, stop in faults or ():
        label[start:stop] = True
        values[start:stop, 2] += np.linspace(5, 40, stop - start)
    ends = np.arange(LENGTH - 1, rows, HOP)
    split = rng.gamma(4, 0.02, (len(ends), width))
    split[label[ends], 2] += rng.gamma(6, 0.3, int(label[ends].sum()))
    split[label[ends], 3] += rng.gamma(3, 0.1, int(label[ends].sum()))
    score = split.sum(axis=1)
    row_time = 1.72e9 + t.astype(float)
    alarms = tuple((row_time[start + 20], row_time[stop - 1] + 15) for start, stop in faults or ())
    latest = np.clip((t - LENGTH + 1) // HOP, 0, len(ends) - 1)
    labelled = faults is not None
    return Played(
        title, row_time, values, row_time[ends], score, score > 1.4, split / score[:, None],
        label if labelled else None, label[ends] if labelled else None, score[latest] if labelled else None, alarms,
    )  # fmt: skip


def candidate(family: str, seed: int, rows: int, width: int, labelled: bool, chosen: bool, epochs: int) -> Candidate:
    rng = np.random.default_rng(seed)
    faults = ((rows // 5, rows // 4), (rows // 2, rows // 2 + rows // 12), (rows * 4 // 5, rows * 5 // 6))
    played = (
        recording("calibration", rows, width, seed + 1, None),
        recording("test", rows, width, seed + 2, faults if labelled else None),
        recording("valve_2.csv", rows, width, seed + 3, faults[:1] if labelled else None),
    )
    float_scores: Floats = rng.gamma(40, 0.02, 900)
    converted = float_scores * (1 + 0.02 * rng.standard_normal(900))
    threshold = mu_sigma(converted, 4)
    figures: dict[str, float] = {}
    test = played[1]
    if test.row_label is not None and test.row_score is not None:
        figures = label_figures(test.row_label, test.row_score, threshold.value, test.row_time_s, 40)
    loss = 0.4 * np.exp(-np.arange(epochs) / 6) + 0.05
    return Candidate(
        family, "int8", 1.5 * seed, 10_240 + 3_000 * seed, 41_000, 3.4 + seed, 12_345, loss, loss * 1.1,
        Gate(0.998, 0.995, 0.991, 0.99, chosen or seed % 2 == 0, "" if chosen or seed % 2 == 0 else "decisions differ"),
        threshold, mu_sigma(float_scores, 4), 0.95 + 0.03 * chosen, figures, figures, played, float_scores, converted,
        12.5 * seed, chosen,
    )  # fmt: skip


def training(rows: int = 1500, width: int = 4, labelled: bool = True) -> TrainingResult:
    families = (("pca", 1, True, 0), ("conv_ae", 2, False, 30), ("lstm_ae", 3, False, 22))
    candidates = tuple(candidate(name, seed, rows, width, labelled, chosen, n) for name, seed, chosen, n in families)
    test = candidates[0].played[1]
    baselines = {} if test.row_label is None else baseline_figures(test.row_label, test.row_time_s, 7, 40)
    return TrainingResult(
        "pump-3", "1.4.0", "2025-05-04T12:00:00Z", 7, CHANNELS[:width], 1.0, LENGTH, HOP,
        {"train": 9000, "calibration": rows, "test": rows},
        (
            Choice("window", "32 rows (32 s)", "the strongest period of pressure is 30 s"),
            Choice("sample rate", "1 Hz", "the median step of the file"),
        ),
        ("flow: 12 values outside 0 … 80 were left out", "2 gaps longer than 10 s"),
        candidates, tuple(k_table(candidates[0].converted_scores)), baselines, 93.4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def result() -> TrainingResult:
    return training()


@pytest.fixture(scope="module")
def shown(result: TrainingResult) -> str:
    return page(result)


class Elements(HTMLParser):
    """Start tags with their attributes, and whether tags nest."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_needs_nothing_but_itself(shown: str) -> None:
    page_ = Elements(shown)
    assert page_.open == []
    tags = {tag for tag, _ in page_.found}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for _, attributes in page_.found:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("src", "href", "srcset", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert "@import" not in shown
    assert not re.findall(r"url\((?!#)", shown)
    assert not re.findall(r"https?://", shown)


def test_the_policy_forbids_all_but_the_page_s_own_style_and_pictures(shown: str) -> None:
    policies = [a["content"] for _, a in Elements(shown).found if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in str(policies[0])


def test_every_picture_has_words_and_every_id_is_used_once(shown: str) -> None:
    found = Elements(shown).found
    pictures = [attributes for tag, attributes in found if tag == "svg"]
    assert len(pictures) == 9  # three parts, the three worst errors, histogram, agreement, training
    assert all(a["role"] == "img" and len(str(a["aria-label"])) > 30 for a in pictures)
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {*re.findall(r"url\(#([^)]+)\)", shown), *re.findall(r'href="#([^"]+)"', shown)}
    assert targets <= set(ids)


def test_colours_are_the_page_s_own_so_that_dark_mode_reaches_the_pictures(shown: str) -> None:
    assert "prefers-color-scheme: dark" in shown
    drawn = "".join(re.findall(r"<svg.*?</svg>", shown, re.DOTALL))
    assert "var(--alarm)" in drawn
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawn)) <= {"#ffffff"}
    defined = set(re.findall(r"(--[a-z0-9]+):", shown))
    assert set(re.findall(r"var\((--[a-z0-9]+)\)", shown)) <= defined


@pytest.mark.parametrize(
    "evil", ["<script>alert(1)</script>", "\"><img src=x onerror='a()'>", "$x_{1}$ & co", "--> \x07"]
)
def test_names_from_data_are_text_and_nothing_else(result: TrainingResult, evil: str) -> None:
    channels = (Channel(evil, evil), *result.channels[1:])
    candidates = tuple(replace(c, family=evil, played=(replace(c.played[1], title=evil),)) for c in result.candidates)
    gate = replace(candidates[1].gate, reason=evil, passed=False)
    candidates = (candidates[0], replace(candidates[1], gate=gate, figures={evil: 1.0}), candidates[2])
    page_ = Elements(
        page(
            replace(
                result, asset=evil, version=evil, channels=channels, candidates=candidates, warnings=(evil,),
                choices=(Choice(evil, evil, evil),), baselines={evil: {"f1": 0.1}}, extra={evil: evil},
            )
        )
    )  # fmt: skip
    assert page_.open == []
    assert not {"script", "img"} & {tag for tag, _ in page_.found}
    assert evil in "".join(page_.words)


def test_all_candidates_choices_warnings_and_baselines_are_told(result: TrainingResult, shown: str) -> None:
    words = " ".join("".join(Elements(shown).words).split())
    for candidate_ in result.candidates:
        assert candidate_.family in words
    for told in ("pca – ships", "failed; decisions differ", "always-on", "random", "the median step of the file",
                 "2 gaps longer than 10 s", "temperature_bearing", "mm/s", "mean + 4 σ of 900 calibration scores",
                 "tocsin model verify pump-3-1.4.0.tocsin", "seed"):  # fmt: skip
        assert told in words


def test_tables_have_heads_for_columns_and_rows(shown: str) -> None:
    tables = re.findall(r"<table>.*?</table>", shown, re.DOTALL)
    assert len(tables) >= 6
    assert all('<th scope="col' in table and '<th scope="row"' in table for table in tables)


def test_the_page_is_small_and_quick(tmp_path: Path) -> None:
    large = training(rows=5000, width=10)
    started = time.process_time()
    write_report(large, tmp_path / "report.html")
    assert time.process_time() - started < 10
    assert (tmp_path / "report.html").stat().st_size < 3_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_equal_results_give_equal_pages(result: TrainingResult) -> None:
    short = replace(result, candidates=(replace(result.chosen, played=result.chosen.played[:1]),))
    assert page(short) == page(short)


def test_without_labels_nothing_is_invented() -> None:
    unlabelled = training(rows=400, labelled=False)
    words = "".join(Elements(page(unlabelled)).words)
    assert "There are no labels" in words
    assert "F1" not in words
    assert all("f1" not in row for row in summary_table(unlabelled))


def test_a_result_with_hardly_anything_in_it_still_gives_a_page(result: TrainingResult) -> None:
    none = np.zeros(0)
    bare = replace(
        result.chosen, played=(), float_scores=none, converted_scores=none, train_loss=none, validation_loss=none,
        figures={}, figures_float={}, latency_us=float("nan"),
    )  # fmt: skip
    empty = replace(
        result, candidates=(bare,), choices=(), warnings=(), k_table=(), baselines={}, rows={}, extra={"note": None}
    )
    page_ = Elements(page(empty))
    assert page_.open == []
    assert "nan" not in " ".join(page_.words).replace("nance", "")


def test_parts_of_one_window_with_gaps_and_zero_scores_are_drawn(result: TrainingResult) -> None:
    part = result.chosen.played[1]
    one = replace(
        part, row_time_s=part.row_time_s[:1], rows=part.rows[:1], end_s=part.end_s[:1], score=part.score[:1] * 0,
        anomaly=part.anomaly[:1], share=part.share[:1] * np.nan, row_label=None, alarms=(),
    )  # fmt: skip
    late = np.where(np.arange(len(part.row_time_s)) > 700, 5e5, 0.0)
    gap = replace(part, row_time_s=part.row_time_s + late, end_s=part.end_s + late[LENGTH - 1 :: HOP])
    huge = replace(part, score=part.score * np.geomspace(1, 1e6, len(part.score)))
    chosen = replace(result.chosen, played=(one, gap, huge))
    assert Elements(page(replace(result, candidates=(chosen,)))).open == []


def test_thinning_keeps_a_single_row_s_peak(result: TrainingResult) -> None:
    from tocsin_trainer.figures import _thinned

    x = np.arange(100_000.0)
    y = np.zeros(100_000)
    y[54_321], y[77_777] = 9.0, -4.0
    thin_x, thin_y = _thinned(x, y)
    assert len(thin_x) <= 1000
    assert (thin_y.max(), thin_y.min()) == (9.0, -4.0)
    assert thin_x[np.argmax(thin_y)] == 54_321


def test_alarms_that_touch_no_label_are_counted_a_day(result: TrainingResult) -> None:
    part = result.chosen.played[1]
    start = part.row_time_s[0]
    assert part.row_label is not None
    label = np.arange(len(part.row_label)) < 600
    some = replace(part, row_label=label, alarms=((start + 590, start + 610), (start + 700, start + 720)))
    shown = page(replace(result, candidates=(replace(result.chosen, played=(some,)),)))
    assert f'<td class="number">2</td><td class="number">1</td><td class="number">{86400 / 900:g}</td>' in shown


def test_metrics_json_is_strict_json_with_the_promised_keys(result: TrainingResult) -> None:
    odd = replace(result.chosen, latency_us=float("nan"), figures={"f1": np.float64(0.5)})
    form: dict[str, Any] = json.loads(
        json.dumps(metrics_json(replace(result, candidates=(odd, *result.candidates[1:]))), allow_nan=False)
    )
    assert {"asset", "version", "seed", "window", "sample_rate_hz", "candidates", "chosen", "threshold", "choices",
            "warnings", "baselines", "seconds"} <= form.keys()  # fmt: skip
    assert form["window"] == {"length": LENGTH, "hop": HOP}
    assert form["chosen"] == "pca"
    first = form["candidates"][0]
    assert {"family", "precision", "headroom", "bytes", "float_bytes", "latency_us", "gate", "threshold", "separation",
            "figures", "figures_float", "seconds", "chosen"} <= first.keys()  # fmt: skip
    assert first["latency_us"] is None
    assert first["figures"] == {"f1": 0.5}
    assert first["threshold"]["method"] == "mu_sigma"
    assert [c["chosen"] for c in form["candidates"]] == [True, False, False]


def test_the_summary_has_one_row_a_candidate_with_equal_keys(result: TrainingResult) -> None:
    rows = summary_table(result)
    assert [row["family"] for row in rows] == ["pca", "conv_ae", "lstm_ae"]
    assert len({tuple(row) for row in rows}) == 1
    assert rows[1]["gate"] == "passed"
    assert rows[2]["gate"] == "decisions differ"
    assert rows[0]["vus_pr"] == result.chosen.figures["vus_pr"]


def graded(result: TrainingResult) -> TrainingResult:
    """The same with channels of every grade, and a promise."""
    rng = np.random.default_rng(3)
    t = np.arange(3000.0)
    clean = np.sin(t / 9) + 0.2 * rng.standard_normal(len(t))
    values = np.column_stack(
        (clean, np.full(len(t), 3.0), -clean, np.where(t < 100, 0.4321, rng.random(len(t)).cumsum()))
    )
    stretch = Stretch(Rows(t, values, np.arange(len(t)), True), None, 0)
    found = quality(Dataset(result.channels, result.sample_rate_hz, 5.0, (stretch,), (), ()))
    promise = {
        "asked": 1.0, "promised": None, "interval": (0.0, 44.3), "needed_hours": 72.0,
        "sentence": "At most 1 false alarm a day cannot be promised: 2 hours of 72 are there.",
    }  # fmt: skip
    return replace(result, quality=found, extra={"promise": promise, "command": "tocsin train -d normal.csv"})


def test_every_channel_stands_with_its_grade_and_the_reason(result: TrainingResult) -> None:
    shown = report_data.quality(graded(result))
    words = " ".join("".join(Elements(shown).words).split())
    found = graded(result).quality
    assert found is not None
    assert [each.grade for each in found.channels] == ["A", "D", "C", "C"]
    for each in found.channels:
        row = re.search(rf'<th scope="row">{each.name}</th>.*?</tr>', shown)
        assert row is not None
        assert f'<span class="grade {each.grade.lower()}">{each.grade}</span>' in row[0]
        for finding in each.findings:
            assert finding.words in words
    assert found.sentence in words


def test_the_promise_is_told_as_it_was_made_and_its_absence_too(result: TrainingResult, shown: str) -> None:
    words = "".join(Elements(report_model.threshold(graded(result))).words)
    assert "cannot be promised: 2 hours of 72 are there." in words
    assert "0 to 44.3" in words
    assert [check.good for check in verdict(graded(result)).checks if "promised" in check.words] == [False]
    assert "No rate of false alarms is promised" in "".join(Elements(shown).words)


def test_the_verdict_is_ready_only_where_nothing_needs_a_look(result: TrainingResult) -> None:
    assert "look at" in verdict(result).headline  # warnings, and missed events
    quiet = replace(result.chosen, played=tuple(replace(p, row_label=None, alarms=()) for p in result.chosen.played))
    clean = replace(result, candidates=(quiet, *result.candidates[1:]), warnings=(), baselines={})
    assert verdict(clean).headline == "Ready to try on the machine"
    refused = replace(quiet, gate=replace(quiet.gate, passed=False, reason="97 % of decisions are equal"))
    stopped = verdict(replace(clean, candidates=(refused,)))
    assert stopped.headline.startswith("Do not ship this")
    assert not stopped.checks[0].good and "97 % of decisions" in stopped.checks[0].words


def test_links_lead_to_sections_of_the_page(shown: str) -> None:
    found = Elements(shown).found
    targets = {str(a["href"])[1:] for tag, a in found if tag == "a"}
    sections = {str(a["id"]) for tag, a in found if tag == "section"}
    assert targets | {"verdict"} == sections
    assert len(targets) >= 8


def test_every_labelled_event_and_every_worst_error_has_its_row(result: TrainingResult, shown: str) -> None:
    for event in all_events(result):
        assert f">{moment(event.start_s)}<" in shown
    for error in worst_errors(result):
        assert f">{error.kind}<" in shown and f">{moment(error.at_s)}<" in shown
    assert "✗ missed" not in shown
    silent = replace(result.chosen, played=tuple(replace(p, alarms=()) for p in result.chosen.played))
    deaf = replace(result, candidates=(silent,))
    assert report_detection.events(deaf).count("✗ missed") == len(all_events(deaf)) == 4
    assert [error.kind for error in worst_errors(deaf)[:4]] == ["missed event"] * 4


def test_each_candidate_that_does_not_ship_says_why(result: TrainingResult, shown: str) -> None:
    words = "".join(Elements(shown).words)
    assert "worth 0.030 less than pca" in words
    assert "refused by the gate: decisions differ" in words
    said = replace(result.candidates[1], why_not="it wanders from day to day")
    assert "it wanders from day to day" in report_model.candidates(replace(result, candidates=(result.chosen, said)))


def test_who_is_worth_more_than_a_network_that_ships_is_called_slower_only_if_it_is(result: TrainingResult) -> None:
    network = replace(result.candidates[1], chosen=True, separation=0.95, stability=0.8, latency_us=9.0)
    rival = replace(network, family="lstm_ae", chosen=False, separation=0.94, stability=1.0, gate=result.chosen.gate)
    some = replace(result, candidates=(network, rival))
    assert "and slower: 12 µs a window" in why_not(replace(rival, latency_us=12.0), some)
    quicker = why_not(replace(rival, latency_us=5.0), some)
    assert quicker == "worth 0.080 more, but leads the default by less in separation"


def test_combinations_worth_and_what_was_not_fitted_have_their_place(result: TrainingResult) -> None:
    scores = np.zeros(0)
    solved = replace(result.chosen, family="t2+pca", train_loss=scores, validation_loss=scores, stability=0.8)
    ways = [replace(solved, combination=way, chosen=way == "weighted") for way in ("weighted", "mean", "max")]
    alone = replace(solved, family="t2", chosen=False, separation=0.99, fitted_on="all rows")
    some = replace(result, candidates=(*ways, alone), left_out=(("adjusted_limits", "no cycle"),))
    for shown in (page(some), model_card(some), candidate_table(some)):
        assert all(f"t2+pca ({way})" in shown for way in ("weighted", "mean", "max"))
        assert "0.884" in shown and "adjusted_limits" in shown
    (agreement,) = re.findall(r'<th scope="row"[^>]*>agreement of seeds</th>(.*?)</tr>', page(some))
    assert re.findall(r">([^<]+)<", agreement) == ["–"] * 4
    assert "not fitted: no cycle" in page(some)
    assert "a part of what ships; a linear model alone misses faults that others see" in page(some)
    assert "0.1 more in worth and in separation is what it takes" in page(some)
    assert '<th scope="row" class="short">fitted on: all rows</th>' in report_data.data(some)


def test_the_first_screen_names_no_method_and_what_ships_is_the_first_column(result: TrainingResult) -> None:
    last = replace(result, candidates=(*result.candidates[1:], result.chosen))
    shown = page(last)
    head = shown.partition('<section id="quality"')[0].partition("</dl>")[0]
    assert "σ" not in head and "quantile" not in head and '<a href="#threshold">why</a>' in head
    assert re.search(r'<th scope="col"[^>]*>pca – ships</th><th[^>]*>conv_ae</th>', shown)
    (figures,) = re.findall(r'<section id="figures">.*?</section>', shown, re.DOTALL)
    assert figures.index(">pca<") < figures.index(">conv_ae<")


def test_what_was_not_measured_is_marked_so(result: TrainingResult) -> None:
    silent = training(rows=400, labelled=False)
    (open_,) = (check for check in verdict(silent).checks if "Not measured" in check.words)
    assert (open_.good, open_.mark) == (None, "–")
    assert '<li class="open"><span class="mark">–</span>Not measured' in page(silent)
    assert "- open: Not measured" in model_card(silent)
    assert all("Not measured" not in check.words for check in verdict(result).checks)


def test_the_card_says_what_it_is_for_made_from_and_worth(result: TrainingResult) -> None:
    card = model_card(graded(result), (("normal.csv", "ab" * 32), ("a|b\n# x.csv", "cd" * 32)))
    for heading in ("Intended use", "Not for", "Verdict of the training run", "Trained on", "Limit and promise",
                    "Figures on labelled test data", "Candidates", "Limits", "Verify", "Reproduce"):  # fmt: skip
        assert f"\n## {heading}\n" in card
    assert f"| normal.csv | `{'ab' * 32}` |" in card
    assert "| a\\|b # x.csv |" in card
    assert "seed 7" in card and "tocsin train -d normal.csv" in card
    assert "cannot be promised" in card
    assert "the same as pressure" in card

    unlabelled = model_card(training(rows=400, labelled=False))
    assert "how many faults it finds is not known" in unlabelled
    assert "No rate of false alarms is promised" in unlabelled


def test_metrics_json_has_the_form_of_its_schema(result: TrainingResult) -> None:
    adapter = TypeAdapter(Document)
    for each in (result, graded(result), training(rows=400, labelled=False)):
        adapter.validate_json(json.dumps(metrics_json(each), allow_nan=False))
    form = metrics_json(graded(result))
    assert [each["grade"] for each in form["quality"]["channels"]] == ["A", "D", "C", "C"]
    assert form["promise"]["needed_hours"] == 72
    assert form["cost"]["core_share"] == pytest.approx(4.4e-6 / 4)
    with pytest.raises(ValidationError):
        adapter.validate_python({**form, "surprise": 1})
