"""A newcomer's path without hardware: simulate, train, replay, and the fault is found."""

import csv
import json
from datetime import datetime
from pathlib import Path

import pytest

from tocsin.cli.main import main

pytest.importorskip("tensorflow")


def tocsin(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_simulated_fault_is_found_by_a_model_that_was_trained_on_simulated_normal_running(tmp_path: Path) -> None:
    plant, out = tmp_path / "plant", tmp_path / "out"
    fault = "bearing@6min-8min:0.5"
    assert tocsin("simulate", "--csv", plant, "--duration", "12min", "--always-load", "--fault", fault) == 0
    options = ("--families", "t2", "--window", "16", "--version", "1", "--quiet")
    assert tocsin("train", "--data", plant / "normal.csv", "--out", out, *options) == 0
    bundle, scores, events = out / "normal-1.tocsin", tmp_path / "scores.csv", tmp_path / "events.jsonl"
    replayed = ("--bundle", bundle, "--input", plant / "test.csv", "--scores", scores, "--events", events)
    assert tocsin("replay", *replayed) == 0
    with (plant / "labels.csv").open() as handle:
        (label,) = csv.DictReader(handle)
    start_s, end_s = at(label["start"]), at(label["end"])
    raised = [event for line in events.read_text().splitlines() if (event := json.loads(line))["change"] == "raised"]
    within = [event for event in raised if start_s <= at(event["time"]) <= end_s]
    assert within and at(within[0]["time"]) - start_s < 15
    assert within[0]["contributions"][0]["channel"] == "acceleration"
    with scores.open() as handle:
        rows = [(at(row["time"]), float(row["ratio"])) for row in csv.DictReader(handle)]
    inside = [ratio >= 1 for time_s, ratio in rows if start_s + 5 <= time_s <= end_s]
    before = [ratio >= 1 for time_s, ratio in rows if time_s < start_s]
    assert sum(inside) > 0.9 * len(inside)
    assert sum(before) < 0.1 * len(before)
