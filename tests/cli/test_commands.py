"""Forms of the command line that scripts rely on."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tocsin.cli.main import COMMANDS
from tocsin.config_check import warnings
from tocsin.config_file import SAMPLE, load_settings

DATA = Path(__file__).parent.parent / "data"
SMALL, FAULTS, NORMAL = DATA / "small.tocsin", DATA / "faults.csv", DATA / "normal.csv"
HEADER = ["time", "score", "threshold", "ratio", "anomaly", "share_pressure", "share_flow"]
ROWS = [line.split(",") for line in FAULTS.read_text("ascii").splitlines()[1:]]

Tocsin = Callable[..., tuple[int, str, str]]


def table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(newline="") as handle:
        reader = csv.DictReader(handle)
        return list(reader.fieldnames or ()), list(reader)


def test_scores_have_a_row_a_window_and_columns_that_stay(tocsin: Tocsin, tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    code, _, _ = tocsin("replay", "--bundle", SMALL, "--input", FAULTS, "--scores", scores)
    header, rows = table(scores)
    assert (code, header) == (0, HEADER)
    assert [row["time"] for row in rows] == [row[0] for row in ROWS[31:]]
    for row in rows:
        assert float(row["score"]) / float(row["threshold"]) == pytest.approx(float(row["ratio"]), rel=1e-6)
        assert float(row["share_pressure"]) + float(row["share_flow"]) == pytest.approx(1, abs=2e-6)
    states = [row["anomaly"] for row in rows]
    assert set(states) == {"0", "1"}
    assert sum(a + b == "01" for a, b in zip(["0", *states], states, strict=False)) == 3


START = datetime(2026, 3, 9, 8, tzinfo=UTC)
STAMPS: dict[str, Callable[[datetime], str]] = {
    "iso_with_a_space": lambda at: at.strftime("%Y-%m-%d %H:%M:%S"),
    "iso_with_t_and_z": lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "iso_with_milliseconds": lambda at: at.strftime("%Y-%m-%dT%H:%M:%S.000"),
    "iso_with_an_offset": lambda at: (at + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S+01:00"),
    "slashes": lambda at: at.strftime("%Y/%m/%d %H:%M:%S"),
    "german": lambda at: at.strftime("%d.%m.%Y %H:%M:%S"),
    "epoch_s": lambda at: f"{at.timestamp():.0f}",
    "epoch_s_with_a_fraction": lambda at: f"{at.timestamp():.3f}",
    "epoch_ms": lambda at: f"{at.timestamp() * 1e3:.0f}",
    "epoch_us": lambda at: f"{at.timestamp() * 1e6:.0f}",
}


def plain_scores(tocsin: Tocsin, folder: Path, path: Path, *more: str) -> list[dict[str, str]]:
    out = folder / f"scores-{path.stem}.csv"
    code, _, stderr = tocsin("replay", "--bundle", SMALL, "--input", path, "--scores", out, *more)
    assert code == 0 and "warning" not in stderr, stderr
    return table(out)[1]


@pytest.fixture
def expected(tocsin: Tocsin, tmp_path: Path) -> list[tuple[str, str]]:
    return [(row["score"], row["anomaly"]) for row in plain_scores(tocsin, tmp_path, FAULTS)]


@pytest.mark.parametrize("form", STAMPS)
def test_time_in_scores_is_as_the_input_writes_it(
    form: str, tocsin: Tocsin, tmp_path: Path, expected: list[tuple[str, str]]
) -> None:
    stamps = [STAMPS[form](START + timedelta(seconds=n)) for n in range(len(ROWS))]
    path = tmp_path / "data.csv"
    lines = (f"{stamp},{row[1]},{row[2]}\n" for stamp, row in zip(stamps, ROWS, strict=True))
    path.write_text("time,pressure,flow\n" + "".join(lines))
    rows = plain_scores(tocsin, tmp_path, path)
    assert [row["time"] for row in rows] == stamps[31:]
    assert [(row["score"], row["anomaly"]) for row in rows] == expected


def test_without_a_time_column_time_counts_seconds(
    tocsin: Tocsin, tmp_path: Path, expected: list[tuple[str, str]]
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("pressure,flow\n" + "".join(f"{row[1]},{row[2]}\n" for row in ROWS))
    rows = plain_scores(tocsin, tmp_path, path, "--rate", "1")
    assert [row["time"] for row in rows] == [f"{n}.0" for n in range(31, len(ROWS))]
    assert [(row["score"], row["anomaly"]) for row in rows] == expected


TEXT = FAULTS.read_text("ascii")
WRITTEN: dict[str, bytes] = {
    "tabs": TEXT.replace(",", "\t").encode(),
    "semicolons": TEXT.replace(",", ";").encode(),
    "bars": TEXT.replace(",", "|").encode(),
    "decimal_comma": TEXT.replace(",", ";").replace(".", ",").encode(),
    "decimal_comma_and_tabs": TEXT.replace(",", "\t").replace(".", ",").encode(),
    "spaces_after_commas": TEXT.replace(",", ", ").encode(),
    "crlf": TEXT.replace("\n", "\r\n").encode(),
    "byte_order_mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "no_last_line_end": TEXT.rstrip("\n").encode(),
    "blank_lines": TEXT.replace("\n", "\n\n").encode(),
    "quotes": "".join(",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in TEXT.splitlines()).encode(),
    "other_columns_between": "".join(
        ",".join((line.split(",")[2], "x y", *line.split(",")[:2])) + "\n" for line in TEXT.splitlines()
    ).encode(),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_tables_are_read_however_they_are_written(
    form: str, tocsin: Tocsin, tmp_path: Path, expected: list[tuple[str, str]]
) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(WRITTEN[form])
    rows = plain_scores(tocsin, tmp_path, path)
    assert [row["time"] for row in rows] == [row[0] for row in ROWS[31:]]
    assert [(row["score"], row["anomaly"]) for row in rows] == expected


def test_events_have_a_line_a_transition_with_its_channels(tocsin: Tocsin, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    tocsin("replay", "-b", SMALL, "-i", FAULTS, "--events", events)
    found = [json.loads(line) for line in events.read_text().splitlines()]
    assert [event["change"] for event in found] == ["raised", "cleared"] * 3
    assert set(found[0]) == {
        "time", "change", "alarm", "asset", "cause", "score", "threshold", "ratio", "window", "contributions"
    }  # fmt: skip
    assert found[0]["time"] == found[0]["window"]["end"] == "2026-03-09T08:02:33.000Z"
    assert found[0]["window"]["rows"] == 32
    assert found[0]["contributions"][0]["channel"] == "pressure"
    assert set(found[0]["contributions"][0]) == {"channel", "share", "seen", "expected"}


def test_the_summary_is_one_json_object(tocsin: Tocsin) -> None:
    code, stdout, _ = tocsin("replay", "-b", SMALL, "-i", FAULTS, "--json")
    found = json.loads(stdout)
    assert code == 0
    assert set(found) == {
        "bundle", "windows", "over_limit", "anomalous", "alarms", "largest_ratio", "not_finite", "unknown_mode",
        "threshold", "scores", "conditions", "held_back",
        "events", "warnings",
    }  # fmt: skip
    assert (found["bundle"], found["windows"], found["alarms"]) == ("small-1", len(ROWS) - 31, 3)


def test_several_inputs_each_start_anew(tocsin: Tocsin) -> None:
    _, stdout, _ = tocsin("replay", "-b", SMALL, "-i", FAULTS, "-i", FAULTS, "--json")
    assert (json.loads(stdout)["windows"], json.loads(stdout)["alarms"]) == (2 * (len(ROWS) - 31), 6)


def test_an_anomaly_can_be_the_exit_code(tocsin: Tocsin) -> None:
    assert tocsin("replay", "-b", SMALL, "-i", FAULTS, "--fail-on-anomaly")[0] == 8
    assert tocsin("replay", "-b", SMALL, "-i", NORMAL, "--fail-on-anomaly")[0] == 0


def test_stamps_are_right_past_a_gap_and_for_windows_of_a_long_file(tocsin: Tocsin, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    lines = TEXT.splitlines(keepends=True)
    path.write_text("".join([*lines[:101], *lines[201:301], *lines[150:200]]))
    out = tmp_path / "scores.csv"
    code, _, stderr = tocsin("replay", "-b", SMALL, "-i", path, "--scores", out)
    assert code == 0 and "1 times going back" in stderr and "1 gaps longer" in stderr
    kept = [ROWS[n][0] for part in (range(31, 100), range(231, 300), range(180, 199)) for n in part]
    assert [row["time"] for row in table(out)[1]] == kept


def test_model_info_is_the_manifest(tocsin: Tocsin) -> None:
    code, stdout, _ = tocsin("model", "info", SMALL, "--json")
    found = json.loads(stdout)
    assert code == 0
    assert {"format", "name", "version", "groups", "window", "members", "score", "threshold", "alarm",
            "golden", "files", "digest", "sha256", "bytes", "training"} <= set(found)  # fmt: skip
    assert found["bytes"] == SMALL.stat().st_size
    assert "pressure [bar], flow [l/min]" in tocsin("model", "info", SMALL)[1]


def test_model_verify_says_whether_it_is_whole(tocsin: Tocsin) -> None:
    code, stdout, _ = tocsin("model", "verify", SMALL, "--json")
    found = json.loads(stdout)
    assert code == 0 and found["passed"] and found["windows"] == 16
    assert set(found) == {
        "bundle", "sha256", "passed", "windows", "worst", "tolerance", "flipped", "runtime", "members"
    }  # fmt: skip
    assert "whole" in tocsin("model", "verify", SMALL)[1]


def test_model_bench_measures(tocsin: Tocsin) -> None:
    code, stdout, _ = tocsin("model", "bench", SMALL, "--seconds", "0.05", "--json")
    found = json.loads(stdout)
    assert code == 0
    assert set(found) == {
        "bundle", "runtime", "window_us_p50", "window_us_p99", "window_us_block", "load_to_first_score_ms",
        "cpu_share_of_one_core", "rss_mb", "model_bytes",
    }  # fmt: skip
    assert 0 < found["window_us_p50"] <= found["window_us_p99"]


def a_config(folder: Path, text: str = "") -> Path:
    source = {"type": "replay", "files": [str(FAULTS)]}
    document = {"version": 1, "assets": [{"id": "pump-1", "bundle": str(SMALL), "source": source}]}
    path = folder / "tocsin.yaml"
    path.write_text(yaml.safe_dump(document) + text)
    return path


def test_config_check_opens_what_the_file_names(tocsin: Tocsin, tmp_path: Path) -> None:
    path = a_config(tmp_path)
    code, stdout, _ = tocsin("config", "check", "-c", path, "--json")
    assert code == 0 and json.loads(stdout) == {"config": str(path), "ok": True, "assets": ["pump-1"]}
    path.write_text(path.read_text().replace("faults.csv", "none.csv"))
    code, _, stderr = tocsin("config", "check", "-c", path)
    assert code == 3 and "none.csv: cannot be read: No such file" in stderr


def test_config_check_takes_a_folder_of_recorded_segments_to_replay(tocsin: Tocsin, tmp_path: Path) -> None:
    out, played = tmp_path / "recordings", a_config(tmp_path)
    played.write_text(played.read_text().replace("type: replay", "type: replay\n    speed: 0"))
    assert tocsin("record", "-c", played, "--out", out)[0] == 0
    path = a_config(tmp_path)
    path.write_text(path.read_text().replace(str(FAULTS), str(out / "ring/pump-1")))
    assert tocsin("config", "check", "-c", path)[0] == 0
    path.write_text(path.read_text().replace("ring/pump-1", "ring"))
    code, _, stderr = tocsin("config", "check", "-c", path)
    assert code == 3 and "assets[0].source.files: " in stderr and "name one stream's folder" in stderr


@pytest.mark.parametrize(
    ("mqtt", "warned"),
    [
        ("{host: plant.example, username: a, password_file: secret}", True),
        ("{host: plant.example, username: a, password_file: secret, tls: {}}", False),
        ("{host: 127.0.0.7, username: a, password_file: secret}", False),
        ("{host: plant.example}", False),
    ],
)
def test_a_password_that_would_cross_a_network_in_the_clear_is_warned_of(
    tocsin: Tocsin, tmp_path: Path, mqtt: str, warned: bool
) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    code, _, stderr = tocsin("config", "check", "-c", a_config(tmp_path, f"mqtt: {mqtt}\n"))
    assert code == 0 and ("the password goes to plant.example in the clear" in stderr) == warned
    source = f"source: {{type: mqtt, broker: {mqtt}, topic: t, rate_hz: 1, channels: [{{name: a}}]}}"
    settings = tmp_path / "mqtt.yaml"
    settings.write_text(f"version: 1\nassets: [{{id: a, bundle: b, {source}}}]\n")
    told = warnings(load_settings(settings, {}))
    assert [each.partition(":")[0] for each in told] == ["assets[0].source.broker"] * warned


@pytest.mark.parametrize("command", [("config", "check"), ("run",)])
def test_what_a_bundle_cannot_take_ends_with_exit_code_3_in_the_check_and_at_the_start(
    tocsin: Tocsin, tmp_path: Path, command: tuple[str, ...]
) -> None:
    path = a_config(tmp_path, f"state_dir: {tmp_path / 'state'}\n")
    source = {"type": "synthetic", "channels": ["pressure [psi]", "flow [l/min]"], "rate_hz": 1}
    document = yaml.safe_load(path.read_text())
    document["assets"][0]["source"] = source
    path.write_text(yaml.safe_dump(document))
    code, _, stderr = tocsin(*command, "-c", path)
    said = f"{path}: assets[0].source.channels: channel 'pressure' comes in psi, the bundle was trained on bar"
    assert code == 3 and said in stderr


def test_config_show_gives_what_config_reads(tocsin: Tocsin, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    path = a_config(tmp_path, "mqtt: {password_file: secret, username: anna}\n")
    code, stdout, _ = tocsin("config", "show", "-c", path)
    assert code == 0 and "hunter2" not in stdout and "keepalive_s: 15" in stdout
    path.write_text(stdout)
    assert tocsin("config", "show", "-c", path) == (0, stdout, "")
    assert json.loads(tocsin("config", "show", "-c", path, "--json")[1]) == yaml.safe_load(stdout)


KINDS = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}


def fits(value: object, node: dict[str, Any], schema: dict[str, Any]) -> bool:
    """Whether a value is what a JSON Schema says, as far as ours say anything."""
    if "$ref" in node:
        return fits(value, schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
    for several in ("anyOf", "oneOf"):
        if several in node:
            return any(fits(value, option, schema) for option in node[several])
    if value is None or node.get("type") == "null":
        return value is None and node.get("type") == "null"
    if ("const" in node and value != node["const"]) or ("enum" in node and value not in node["enum"]):
        return False
    if isinstance(value, bool) and node["type"] != "boolean":
        return False
    if isinstance(value, dict) and node["type"] == "object":
        known = node["properties"]
        inside = all(key in known and fits(item, known[key], schema) for key, item in value.items())
        return inside and set(node.get("required", ())) <= set(value)
    if isinstance(value, list) and node["type"] == "array":
        return len(value) >= node.get("minItems", 0) and all(fits(item, node["items"], schema) for item in value)
    return isinstance(value, KINDS[node["type"]])


def test_config_schema_accepts_the_sample_and_not_a_misspelt_one(tocsin: Tocsin) -> None:
    schema = json.loads(tocsin("config", "schema")[1])
    whole = re.sub(r"^( *)# (?=\S| )", r"\1", SAMPLE, flags=re.MULTILINE)
    for text in (SAMPLE, whole):
        assert fits(yaml.safe_load(text), schema, schema)
        for old, new in (("host:", "hots:"), ("type: serial", "type: cereal"), ("version: 1", "version: one")):
            assert not fits(yaml.safe_load(text.replace(old, new)), schema, schema)


def test_config_sample_is_the_sample(tocsin: Tocsin) -> None:
    assert tocsin("config", "sample")[:2] == (0, SAMPLE)


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--data", "x.csv", "--quantile", "1.5"),
        ("train", "--data", "x.csv", "--quantile", "0"),
        ("train", "--data", "x.csv", "--window", "3"),
        ("train", "--data", "x.csv", "--k", "-1"),
        ("train", "--data", "x.csv", "--asset", "Pump 1"),
        ("train",),
        ("replay", "--bundle", str(DATA), "--input", str(FAULTS)),
        ("replay", "--bundle", str(SMALL), "--input", str(FAULTS), "--rate", "0"),
        ("evaluate", str(SMALL)),
        ("evaluate", str(SMALL), "--data", str(FAULTS), "--fail-under", "vus=0.1"),
        ("evaluate", str(SMALL), "--data", str(FAULTS), "--fail-over", "far"),
        ("evaluate", str(SMALL), "--data", str(FAULTS), "--fail-under", "far=0.1"),
        ("explain", str(SMALL)),
        ("explain", str(SMALL), str(FAULTS), "--method", "shapley"),
        ("model", "verify", str(DATA)),
        ("model", "look"),
        ("run", "--speed", "3"),
    ],
)
def test_a_mistake_of_use_ends_with_2_and_says_how_it_is_meant(tocsin: Tocsin, words: tuple[str, ...]) -> None:
    code, _, stderr = tocsin(*words)
    assert code == 2 and "Usage: tocsin" in stderr and "Traceback" not in stderr


@pytest.mark.parametrize("words", [("train", "--data"), ("replay", "--bundle", str(SMALL), "--input")])
def test_a_folder_without_a_recording_ends_with_4_and_says_what_was_expected(
    tocsin: Tocsin, words: tuple[str, ...]
) -> None:
    code, _, stderr = tocsin(*words, str(DATA))
    assert code == 4 and "no .seg file in this folder: expected a CSV file" in stderr


def test_a_mistyped_command_gets_a_suggestion(tocsin: Tocsin) -> None:
    code, _, stderr = tocsin("relpay")
    assert code == 2 and "Did you mean 'replay'?" in stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(tocsin: Tocsin, name: str) -> None:
    code, stdout, _ = tocsin(name, "--help")
    assert code == 0 and stdout.startswith(f"Usage: tocsin {name}")
    if "COMMAND [ARGS]" not in stdout:
        assert f"tocsin {name}" in stdout.partition("Example")[2]


HEAVY = ("numpy", "pydantic", "paho", "yaml", "tensorflow", "keras", "ai_edge_litert", "scipy", "pandas", "matplotlib")
LOADED = """
import sys
sys.argv = ["tocsin", *sys.argv[1:]]
try:
    from tocsin.cli.main import main
    main()
finally:
    print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def loaded_by(code: str, *words: str) -> tuple[str, set[str]]:
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, set(done.stderr.rpartition("loaded:")[2].split())


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    stdout, loaded = loaded_by(LOADED, "--help")
    assert "click" in loaded and loaded.isdisjoint(HEAVY)
    for name in COMMANDS:
        assert f"  {name} " in stdout


FRAMEWORKS = ("tensorflow", "keras", "jax", "sklearn", "matplotlib", "shap")


@pytest.mark.parametrize("name", ["train", "evaluate", "explain"])
def test_help_of_the_workstations_commands_loads_no_framework(name: str) -> None:
    _, loaded = loaded_by(LOADED, name, "--help")
    assert loaded.isdisjoint(FRAMEWORKS)


def test_scoring_a_recording_on_the_workstation_loads_no_framework() -> None:
    for words in (("evaluate", str(SMALL), "--data", str(FAULTS)), ("explain", str(SMALL), str(FAULTS))):
        _, loaded = loaded_by(LOADED, *words)
        assert loaded.isdisjoint(("tensorflow", "keras", "jax", "matplotlib", "shap"))


def test_explain_says_why_and_writes_a_page(tocsin: Tocsin, tmp_path: Path) -> None:
    out = tmp_path / "why.html"
    code, stdout, stderr = tocsin("explain", SMALL, FAULTS, "--at", "2026-03-09 08:02:53", "--out", out)
    assert (code, stderr) == (0, f"page: {out}\n") and "<svg" in out.read_text()
    assert re.search(r"pressure is [\d.]+ bar below expected .* of the score", stdout)
    found = json.loads(tocsin("explain", SMALL, FAULTS, "--at", "row:173", "--method", "exact", "--json")[1])
    assert found["window"]["end"] == "2026-03-09 08:02:53" and found["channels"][0]["channel"] == "pressure"
    assert set(found) == {
        "bundle", "window", "threshold", "score", "ratio", "smoothed_ratio", "words", "channels", "members", "parts",
        "shap", "lime", "agreement", "asked",
    }  # fmt: skip


def test_the_agent_loads_nothing_of_the_workstation() -> None:
    code = "import sys, tocsin.service\nprint('loaded:', *{n.partition('.')[0] for n in sys.modules}, file=sys.stderr)"
    _, loaded = loaded_by(code)
    assert "paho" in loaded
    assert loaded.isdisjoint(("tensorflow", "keras", "scipy", "pandas", "sklearn", "matplotlib", "jax", "rich"))
