"""A newcomer's path without hardware: simulate, train, run, and each fault raises the alarm that it should."""

import csv
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tocsin.cli.main import main
from tocsin.config import AgentSettings
from tocsin.service import Agent

pytest.importorskip("tensorflow")
ROOT = Path(__file__).parents[2]


def tocsin(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 0


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plant/` with the recordings of two days, `out/` with what was trained on the normal one."""
    folder = tmp_path_factory.mktemp("newcomer")
    faults = ("--fault", "stuck.flow@2min-4min", "--fault", "bearing@6min-8min:0.5")
    tocsin("simulate", "--csv", folder / "plant", "--duration", "12min", "--always-load", *faults)
    options = ("--families", "t2", "--window", "16", "--version", "1", "--quiet")
    tocsin("train", "--data", folder / "plant/normal.csv", "--out", folder / "out", *options)
    return folder


def test_the_readmes_path_without_a_machine_ends_in_an_alarm(folder: Path, tmp_path: Path) -> None:
    """Its commands as they stand there, but that the model is the one of this module: it trains faster."""
    section = (ROOT / "README.md").read_text("utf-8").partition("## No machine at hand")[2].partition("\n## ")[0]
    lines = section.partition("```sh\n")[2].partition("```")[0].splitlines()
    simulate, train, init, run = (shlex.split(line, comments=True) for line in lines)
    assert train[:4] == ["tocsin", "train", "--data", "plant/normal.csv"] and train[-2:] == ["--families", "t2,pca"]
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path / "state")}

    def start(words: list[str]) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tocsin.cli.main", *words[1:]]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, stdin=-1, stdout=-1, stderr=-2)

    with start(simulate) as plant:
        try:
            assert plant.stdin is not None and plant.stdout is not None
            while not plant.stdout.readline().startswith("serial"):
                assert plant.poll() is None
            assert (tmp_path / "plant/normal.csv").is_file()
            (tmp_path / "out").mkdir()
            shutil.copy(folder / "out/normal-1.tocsin", tmp_path / "out/pump-1-1.tocsin")
            with start(init) as asked:
                said = asked.communicate(timeout=30)[0]
                assert asked.returncode == 0 and "lines of 11 numbers, 10 a second" in said, said
            with start(run) as agent:
                assert agent.stdout is not None
                plant.stdin.write("bearing:0.9\n")
                plant.stdin.flush()
                too_late = threading.Timer(60.0, agent.terminate)
                too_late.start()
                found = next((line for line in agent.stdout if "-anomaly new: " in line), "")
                too_late.cancel()
                agent.terminate()
                agent.communicate(timeout=30)
        finally:
            plant.terminate()
    assert "behaves unlike its normal running: Acceleration" in found


def labels(folder: Path) -> dict[str, tuple[float, float]]:
    with (folder / "plant/labels.csv").open() as handle:
        return {row["kind"]: (at(row["start"]), at(row["end"])) for row in csv.DictReader(handle)}


def test_replay_finds_the_bearing_by_its_acceleration(folder: Path) -> None:
    scores, events = folder / "scores.csv", folder / "events.jsonl"
    given = ("--bundle", folder / "out/normal-1.tocsin", "--input", folder / "plant/test.csv")
    tocsin("replay", *given, "--scores", scores, "--events", events)
    start_s, end_s = labels(folder)["bearing"]
    found = [json.loads(line) for line in events.read_text().splitlines()]
    raised = [event for event in found if event["change"] == "raised" and event["cause"] == "model"]
    within = [event for event in raised if start_s <= at(event["time"]) <= end_s]
    assert within and at(within[0]["time"]) - start_s < 15
    assert within[0]["contributions"][0]["channel"] == "acceleration"
    with scores.open() as handle:
        rows = [(at(row["time"]), float(row["ratio"])) for row in csv.DictReader(handle)]
    inside = [ratio >= 1 for time_s, ratio in rows if start_s + 5 <= time_s <= end_s]
    assert sum(inside) > 0.9 * len(inside)


def test_a_stuck_sensor_is_a_sensor_alarm_and_a_bearing_a_process_alarm_and_neither_the_other(
    folder: Path, unused_port: int, until: Callable[..., None]
) -> None:
    source = {"type": "replay", "files": [str(folder / "plant/test.csv")], "speed": 0}
    asset = {"id": "pump-1", "bundle": str(folder / "out/normal-1.tocsin"), "source": source}
    mqtt = {"host": "127.0.0.1", "port": unused_port}
    document = {"version": 1, "state_dir": str(folder / "state"), "mqtt": mqtt, "assets": [asset]}
    agent = Agent(AgentSettings.model_validate(document))
    agent.start()
    until(lambda: agent.workers[0].finished.is_set() and agent.desk.queue.empty(), 60.0)
    agent.stop()
    with sqlite3.connect(folder / "state/outbox.db") as db:
        rows = db.execute("SELECT payload FROM outbox WHERE topic = 'event/alarm' ORDER BY seq")
        events: list[dict[str, Any]] = [json.loads(row[0]) for row in rows]

    def raised(kind: str) -> set[str]:
        start_s, end_s = labels(folder)[kind]
        bodies = [event["after"] for event in events if event["type"] == "new"]
        return {body["class"] for body in bodies if start_s <= at(body["raised"]) <= end_s + 5}

    assert raised("stuck.flow") == {"sensor"}
    assert raised("bearing") == {"process"}
