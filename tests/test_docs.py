"""The documentation is true: links, commands, samples, forms, and the pages that are made from the code."""

import csv
import fnmatch
import importlib.util
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import click
import numpy as np
import pytest
import yaml

from tocsin.alarms.lifecycle import AlarmContext, sentence
from tocsin.cli.main import cli
from tocsin.cli.replay import _Scores, event_json
from tocsin.config import AgentSettings
from tocsin.core.bundle import load_bundle
from tocsin.core.modes import Centroids, Ranges
from tocsin.core.preprocess import STEPS
from tocsin.core.scoring import COMBINATIONS, KINDS
from tocsin.core.threshold import Threshold
from tocsin.delivery.wire import AlarmEvent
from tocsin.recordings import TableOptions
from tocsin.records import Change, Contribution, Transition
from tocsin_trainer.calibrate import METHODS
from tocsin_trainer.cli import TrainSettings
from tocsin_trainer.evaluation import evaluate, evaluation_json
from tocsin_trainer.explain.explanation import explain, explanation_json
from tocsin_trainer.explain.moment import find_moment
from tocsin_trainer.input_settings import FeatureName, ScalingName, StepSettings
from tocsin_trainer.metrics import label_figures
from tocsin_trainer.recorded import read_recorded
from tocsin_trainer.report import metrics_json
from tocsin_trainer.results import Candidate, Gate, TrainingResult

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
READERS_OWN = {
    "pump-1.4.0.tocsin",
    "normal.csv",
    "new.csv",
    "monday.csv",
    "windows.csv",
    "pump-1.tocsin",
    "tocsin.yaml",
}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def fenced(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text("utf-8")) if kind == language]


def slug(heading: str) -> str:
    """The anchor that MkDocs and GitHub give a heading."""
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower())


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text("utf-8"))
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@each_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]+`", "", FENCE.sub("", page.read_text("utf-8")))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page if not path else (page.parent / path).resolve()
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


def commands(page: Path) -> Iterator[list[str]]:
    for block in fenced(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and (words[0] == "tocsin" or words == ["make", "demo"]):
                yield words


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """Name and parameters of a command as click reads them; a usage error fails the test."""
    args = words[1 : words.index(">")] if ">" in words else words[1:]
    command: click.Command = cli
    context: click.Context | None = None
    path = []
    while isinstance(command, click.Group):
        context = click.Context(command, context, info_name="tocsin", **command.context_settings)
        name, found, args = command.resolve_command(context, args)
        assert name is not None and found is not None
        path.append(name)
        command = found
    return " ".join(path), command.make_context(path[-1], args, context).params


def read_and_made(words: list[str]) -> tuple[list[str], list[str]]:
    """Files that a command reads, and names or patterns of those that it leaves behind."""
    made = [words[words.index(">") + 1]] if ">" in words else []
    if words[:2] in (["make", "demo"], ["tocsin", "demo"]):
        return [], [f"tocsin-demo/{file.name}" for file in (ROOT / "agent/tocsin/demo_data").glob("*.csv.gz")]
    name, given = parsed(words)
    if name == "train":
        asset = given["asset"] or given["data"][0].name.split(".")[0]
        files = f"{asset}-{given['model_version'] or '*'}.tocsin", "report.html", "metrics.json"
        return [*map(str, (*given["data"], *given["test"]))], [f"{given['out']}/{file}" for file in files]
    if name == "simulate":
        return [], [f"{given['folder']}/{file}.csv" for file in ("normal", "test", "labels")] if given["folder"] else []
    if name.startswith("record "):
        there = {"record start": "path", "record export": "source"}.get(name)
        return [str(given[there])] if there else [], [f"{given['out']}/ring/pump-1"] if given.get("out") else []
    if name == "replay":
        made += [str(given[key]) for key in ("scores", "events") if given[key]]
        return [str(given["bundle"]), *map(str, given["inputs"])], made
    if name == "evaluate":
        page = [str(given["html"])] if given["html"] else []
        labels = [given["labels"]] if given["labels"] else []
        return [*map(str, (given["bundle"], *given["data"], *given["more"], *labels))], made + page
    if name == "explain":
        return [str(given["bundle"]), str(given["data"])], made + ([str(given["out"])] if given["out"] else [])
    named = given.get("bundle") or given.get("path")
    return [str(named)] if named else [], made


@each_page
def test_every_command_parses_and_its_files_are_there_or_made_before(page: Path) -> None:
    samples = re.findall(r"^`([\w.]+\.yaml)`", page.read_text("utf-8"), re.MULTILINE)  # written out on the page
    there = READERS_OWN | set(samples)
    for words in commands(page):
        read, made = read_and_made(words)
        missing = [name for name in read if not any(fnmatch.fnmatch(known, name) or known == name for known in there)]
        assert missing == [], " ".join(words)
        there |= set(made)


def test_commands_are_found_at_all() -> None:
    start = [" ".join(words[:2]) for words in commands(DOCS / "start/index.md")]
    expected = ["make demo", "tocsin train", "tocsin model", "tocsin model", "tocsin replay", "tocsin config"]
    assert start == [*expected, "tocsin mqtt", "tocsin run"]


def test_a_command_that_is_wrong_is_noticed() -> None:
    with pytest.raises(click.UsageError):
        parsed(["tocsin", "train", "--data", "normal.csv", "--windw", "60"])
    with pytest.raises(click.UsageError):
        parsed(["tocsin", "model", "inspect", "pump-1.tocsin"])


SAMPLES = [(page, body) for page in PAGES for body in fenced(page, "yaml")]


@pytest.mark.parametrize(("page", "body"), SAMPLES, ids=[page.parent.name for page, _ in SAMPLES])
def test_every_sample_of_the_configuration_loads(page: Path, body: str) -> None:
    sample = yaml.safe_load(body)
    if "assets" in sample:
        assert AgentSettings.model_validate(sample).assets
    else:
        assert TrainSettings.model_validate(sample).model_fields_set


def test_there_is_a_sample_of_every_source() -> None:
    assets = [asset for _, body in SAMPLES for asset in yaml.safe_load(body).get("assets", [])]
    shown = {
        one["type"] for asset in assets for one in (*asset.get("sources", {}).values(), asset.get("source")) if one
    }
    form = AgentSettings.model_json_schema()["$defs"]["AssetSettings"]["properties"]["source"]
    assert shown == set(form["anyOf"][0]["discriminator"]["mapping"])


def test_the_keys_of_a_training_file_are_those_of_its_settings() -> None:
    said = (DOCS / "configure/index.md").read_text("utf-8").partition("Its keys: ")[2].partition(" as above")[0]
    assert set(re.findall(r"`(\w+)`", said)) == set(TrainSettings.model_fields)


def test_the_alarm_in_the_readme_is_one() -> None:
    (sample,) = fenced(ROOT / "README.md", "json")
    event = AlarmEvent.model_validate_json(sample)
    body = event.after
    assert body.score is not None and body.threshold is not None
    assert body.ratio == pytest.approx(body.score / body.threshold, rel=1e-4)
    shown = tuple(Contribution(c.channel, c.share, c.seen, c.expected) for c in body.contributions)
    told = Transition(body.asset, body.alarm, Change.RAISED, 0.0, body.cause, body.score, body.threshold, body.ratio,
                      0.0, 1.0, 60, shown)  # fmt: skip
    units = {each.channel: "°C" for each in shown}
    assert sentence(told, AlarmContext(units=units)).startswith(body.text.removesuffix(", …") + ",")
    assert set(json.loads(sample)["after"]) == set(json.loads(event.encode())["after"])


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """docs/make_reference.py."""
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_made_from_the_code_are_up_to_date() -> None:
    command = [sys.executable, DOCS / "make_reference.py", "--check"]  # untouched by what other tests do to the code
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, f"run: python docs/make_reference.py\n{told.stderr}"


def test_no_schema_is_left_over(reference: ModuleType) -> None:
    there = {str(file.relative_to(DOCS)) for file in (DOCS / "reference/schema").iterdir()}
    assert there == {name for name in reference.pages() if name.startswith("reference/schema/")}


def test_every_setting_has_a_meaning(reference: ModuleType) -> None:
    rows = re.findall(r"^\| `(\S+)` \|.*\| (.*) \|$", reference.settings(), re.MULTILINE)
    assert len(rows) > 30
    assert [key for key, meaning in rows if not meaning.strip()] == []


def table_keys(page: str, heading: str) -> set[str]:
    """Names in the first column of the tables below a heading, up to the next heading."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return {key for cell in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for key in re.findall(r"`(.+?)`", cell)}


REFERENCE = (DOCS / "reference/index.md").read_text("utf-8")


def manifest_row(key: str) -> set[str]:
    """What is quoted in the manifest's table beside a key."""
    section = REFERENCE.partition("\n## The bundle\n")[2].partition("\n## ")[0]
    (row,) = re.findall(rf"^\| `{key}` \| (.*) \|$", section, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row))


def test_the_manifests_keys_are_those_of_the_reference() -> None:
    bundle = load_bundle(ROOT / "tests/data/small.tocsin")
    files = {"manifest.json", "*.tflite", "golden.npz", "model_card.md"}
    assert table_keys(REFERENCE, "The bundle") - files == set(bundle.manifest.raw) | {"modes"}
    named = manifest_row("members") - set(KINDS)
    assert named == set(bundle.manifest.raw["members"][0]) | {"weight", "input_range"}


def test_every_kind_combination_rule_and_form_of_modes_stands_in_the_reference() -> None:
    assert set(KINDS) <= manifest_row("members")
    assert set(COMBINATIONS) <= manifest_row("score")
    assert set(METHODS) <= manifest_row("threshold")
    numbers = np.ones(1)
    forms = (
        Centroids(numbers, numbers, np.ones((1, 1))).to_json(("flow",)),
        Ranges(0, numbers, numbers).to_json(("flow",)),
    )
    assert {*forms[0], *forms[1], "centroids", "ranges"} == manifest_row("modes")


def test_the_preprocessing_steps_are_those_of_the_reference() -> None:
    assert table_keys(REFERENCE, "Preprocessing steps") == set(STEPS)


def test_what_a_training_file_may_ask_for_stands_on_the_page_of_inputs() -> None:
    page = (DOCS / "understand/inputs.md").read_text("utf-8")
    settings = (one.model_fields["step"].annotation for one in get_args(get_args(StepSettings)[0]))
    assert table_keys(page, "Cleaning and denoising") == {name for one in settings for name in get_args(one)}
    assert table_keys(page, "Features") == set(get_args(FeatureName))
    assert table_keys(page, "Scaling") == set(get_args(ScalingName))


def test_the_columns_of_scores_are_those_of_the_reference() -> None:
    out = io.StringIO()
    _Scores(out, load_bundle(ROOT / "tests/data/small.tocsin"))
    (header,) = csv.reader(io.StringIO(out.getvalue()))
    fixed = {name for name in header if not name.startswith("share_")}
    section = REFERENCE.partition("`--scores")[2].partition("`--events")[0]
    assert set(re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)) == fixed | {"share_<channel>"}


def test_the_keys_of_events_are_those_of_the_reference() -> None:
    parts = (Contribution("flow", 1.0, 2.0, None),)
    event = event_json(Transition("a", "a-anomaly", Change.RAISED, 0.0, "model", 2.0, 1.0, 2.0, 0.0, 1.0, 8, parts))
    section = REFERENCE.partition("`--events")[2]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert {key for cell in cells for key in re.findall(r"`(.+?)`", cell)} == set(event)


def test_the_keys_of_evaluate_and_explain_are_those_of_the_reference() -> None:
    bundle = load_bundle(ROOT / "tests/data/small.tocsin")
    recorded = read_recorded(ROOT / "tests/data/faults.csv", bundle.manifest, TableOptions())
    evaluation = evaluation_json(evaluate(bundle, (recorded,)))
    assert table_keys(REFERENCE, "evaluate --json") == set(evaluation)
    files = re.search(r"^\| `files` \| each: (.*) \|$", REFERENCE, re.MULTILINE)[1]
    assert set(re.findall(r"`(\w+)`", files)) == set(evaluation["files"][0])
    explanation = explanation_json(explain(bundle, find_moment(bundle, recorded, "worst"), ("lime",)))
    assert table_keys(REFERENCE, "explain --json") == set(explanation)
    window = re.search(r"^\| `window` \| (`start`.*`row`) ", REFERENCE, re.MULTILINE)[1]
    assert set(re.findall(r"`(\w+)`", window)) == set(explanation["window"])


def test_the_keys_of_metrics_are_those_of_the_reference() -> None:
    none, limit = np.empty(0), Threshold(1.0)
    candidate = Candidate(
        "pca", "int8", 1.0, 1, 1, 1.0, 1, none, none, Gate(1.0, 1.0, 1.0, 1.0, True), limit, limit, 1.0, {}, {}, (),
        none, none, 1.0, True,
    )  # fmt: skip
    result = TrainingResult("a", "1", "", 0, (), 1.0, 8, 1, {}, (), (), (candidate,), (), {}, 1.0)
    document = metrics_json(result)
    added = {"bundle", "sha256", "report"}  # by `train`, which knows the files
    of_candidate = set(document["candidates"][0])
    documented = table_keys(REFERENCE, "metrics.json")
    assert documented == set(document) | of_candidate | added
    gate = re.search(r"^\| `gate` \| (.*) \|$", REFERENCE, re.MULTILINE)[1]
    assert set(re.findall(r"`(\w+)`", gate)) == set(document["candidates"][0]["gate"])
    figures = re.search(r"^\| `figures`, `figures_float` \| (.*) \|$", REFERENCE, re.MULTILINE)[1]
    label, score = np.array([False, True, False, False]), np.array([0.0, 2.0, 0.0, 2.0])
    assert set(re.findall(r"`(\w+)`", figures)) == set(label_figures(label, score, 1.0, np.arange(4.0), 2))


def test_every_part_of_the_asyncapi_document_is_there_and_used(reference: ModuleType) -> None:
    """AsyncAPI 3.0.0: references resolve, an address's parameters are described, an operation's channel exists."""
    document = reference.asyncapi()

    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            yield from [node["$ref"]] if "$ref" in node else []
            node = list(node.values())
        if isinstance(node, list):
            for part in node:
                yield from references(part)

    for reference_ in references(document):
        found = document
        for key in reference_.removeprefix("#/").split("/"):
            found = found[key]
    for channel in document["channels"].values():
        assert set(re.findall(r"{(\w+)}", channel["address"])) == set(channel["parameters"])
    used = set(references(document["channels"])) | set(references(document["operations"]))
    assert {f"#/components/messages/{name}" for name in document["components"]["messages"]} <= used
    assert all(f"#/channels/{name}" in used for name in document["channels"])
