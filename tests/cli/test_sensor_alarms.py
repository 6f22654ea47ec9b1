"""What `tocsin replay` and `tocsin run` say of a recording in which a sensor breaks, and then the machine."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tocsin.alarms.normal import NormalCourse
from tocsin.core.bundle import load_bundle, write_bundle
from tocsin.recordings import TableOptions, open_table, read_table

DATA = Path(__file__).parent.parent / "data"
START = np.datetime64("2026-03-09T08:00:00")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small bundle, with what normal running was."""
    old = load_bundle(DATA / "small.tocsin")
    course = NormalCourse(("pressure", "flow"), 1.0)
    for part in read_table(open_table(DATA / "normal.csv", TableOptions())):
        course.push(part.block.time_s, part.block.values)
    models = {name: content for name, content in old.files.items() if name.endswith(".tflite")}
    path = tmp_path_factory.mktemp("bundle") / "small.tocsin"
    write_bundle(path, {**old.manifest.raw, "quality": course.normal().to_json()}, models, old.golden, "")
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flow is unplugged from row 100 to 180; 100 s of nothing after row 300; the machine fails from row 400 to 460."""
    at = np.arange(600)
    swing = np.sin(2 * np.pi * at / 24)
    values = np.stack((5 + 0.4 * swing, 21 + 2 * np.roll(swing, 3)), axis=1)
    values += np.random.default_rng(1).normal(0, (0.05, 0.2), (600, 2))
    values[100:180, 1] = 0
    values[400:460, 0] += 3
    stamps = np.datetime_as_string(START + (at + 100 * (at > 300)).astype("timedelta64[s]"))
    rows = "".join(f"{stamp},{p:.3f},{f:.3f}\n" for stamp, (p, f) in zip(stamps, values, strict=True))
    path = tmp_path_factory.mktemp("recording") / "day.csv"
    path.write_text("time,pressure [bar],flow [l/min]\n" + rows)
    return path


CONDITIONS = {"stuck": "sensor", "stale": "comms", "anomaly": "process"}


def test_a_replay_tells_of_sensors_beside_the_machine(
    tocsin: Callable[..., tuple[int, str, str]], bundle: Path, recording: Path, tmp_path: Path
) -> None:
    events = tmp_path / "events.jsonl"
    code, said, _ = tocsin("replay", "-b", bundle, "-i", recording, "--events", events)
    assert code == 0 and "1 alarm raised" in said
    assert "sensors: small-stuck 1×, small-stale 1×; " in said
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert [(e["alarm"], e["change"]) for e in told] == [
        (f"small-{alarm}", change) for alarm in CONDITIONS for change in ("raised", "cleared")
    ]
    assert told[0]["contributions"] == [{"channel": "flow", "share": 1.0, "seen": 0.0, "expected": None}]
    assert told[0]["score"] is None


def test_its_json_counts_them(tocsin: Callable[..., tuple[int, str, str]], bundle: Path, recording: Path) -> None:
    found = json.loads(tocsin("replay", "-b", bundle, "-i", recording, "--json")[1])
    assert found["conditions"] == {"small-stuck": 1, "small-stale": 1} and found["alarms"] == 1
    assert found["held_back"] > 50


def test_a_rule_of_an_unknown_channel_is_told_by_config_check(
    tocsin: Callable[..., tuple[int, str, str]], bundle: Path, recording: Path, tmp_path: Path
) -> None:
    asset = {"id": "a", "bundle": str(bundle), "source": {"type": "replay", "files": [str(recording)]}}
    path = tmp_path / "tocsin.yaml"
    for more, said in (
        ({"rules": [{"id": "r", "when": "flw < 1"}]}, "rule r: no channel 'flw', there are pressure, flow at column 1"),
        ({"quality": {"channels": [{"name": "flw"}]}}, "quality: no channel 'flw', there are pressure, flow"),
    ):
        path.write_text(yaml.safe_dump({"version": 1, "assets": [{**asset, **more}]}))
        code, _, stderr = tocsin("config", "check", "-c", path)
        assert code == 3 and said in stderr


@pytest.mark.broker
def test_the_agent_sends_them_with_their_class_and_marks_the_scores(
    bundle: Path, recording: Path, tmp_path: Path, broker: Any, consume: Callable[..., Any], until: Callable[..., None]
) -> None:
    broker.start()
    consumer = consume(broker.port)
    asset = {
        "id": "pump-1",
        "bundle": str(bundle),
        "source": {"type": "replay", "files": [str(recording)], "speed": 0},
        "quality": {"severity": "warning"},
        "rules": [{"id": "high", "when": "pressure > 7", "for": "10s", "severity": "critical", "advice": "Vent."}],
    }
    config = tmp_path / "tocsin.yaml"
    document = {
        "version": 1,
        "device": "edge-1",
        "state_dir": "state",
        "mqtt": {"host": "127.0.0.1", "port": broker.port},
        "assets": [asset],
    }
    config.write_text(yaml.safe_dump(document))
    ran = subprocess.run([sys.executable, "-m", "tocsin.cli.main", "run", "-c", config], timeout=30, check=False)
    assert ran.returncode == 0
    until(lambda: [m.payload for m in consumer.on("status")] == [b"online", b"stopped"])
    events = [json.loads(message.payload) for message in consumer.on("event/alarm")]
    new = {e["after"]["alarm"]: e["after"] for e in events if e["type"] == "new"}
    assert {alarm: body["class"] for alarm, body in new.items()} == {
        "pump-1-stuck": "sensor",
        "pump-1-stale": "comms",
        "pump-1-anomaly": "process",
        "pump-1-high": "process",
    }
    stuck, high = new["pump-1-stuck"], new["pump-1-high"]
    assert (stuck["detector"], stuck["severity"], stuck["cause"], stuck["score"]) == (
        "quality",
        "warning",
        "stuck",
        None,
    )
    assert stuck["text"] == "pump-1 has a value that does not move: Flow 0 l/min"
    assert (high["detector"], high["severity"], high["advice"]) == ("rules", "critical", "Vent.")
    assert high["text"].startswith("pump-1 breaks a rule, pressure > 7 for 10 s: Pressure ")
    scores = [json.loads(message.payload) for message in consumer.on("score/pump-1")]
    assert {score["quality"] for score in scores} == {0, 192}
