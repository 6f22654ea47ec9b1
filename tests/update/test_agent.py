"""The agent and the updater together: a model is tried beside the other, changes places with it, and goes back."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parent.parent / "data"
HOP_S = 1.0  # of small.tocsin
pytestmark = pytest.mark.broker


class Site:
    """A device with its agent, broker and repository."""

    def __init__(self, folder: Path, port: int, repository: Path, root: Path) -> None:
        self.folder = folder
        source = {"type": "replay", "files": [str(folder / "normal.csv")], "speed": 60}
        asset = {"id": "pump-1", "bundle": str(DATA / "small.tocsin"), "product": "pump", "source": source}
        wanted = {"repository": str(repository), "trusted_root": str(root), "shadow_windows": 15, "trial_windows": 15}
        document = {"version": 1, "device": "edge-1", "state_dir": "state", "update": wanted, "assets": [asset],
                    "mqtt": {"host": "127.0.0.1", "port": port, "health_interval_s": 1}}  # fmt: skip
        (folder / "tocsin.yaml").write_text(json.dumps(document))
        rows = (DATA / "normal.csv").read_text().splitlines()
        values = [line.partition(",")[2] for line in rows[1:]]
        begin_s = 1_770_000_000
        lines = (
            f"{datetime.fromtimestamp(begin_s + n).isoformat(sep=' ')},{values[n % len(values)]}" for n in range(40_000)
        )
        (folder / "normal.csv").write_text("\n".join([rows[0], *lines]) + "\n")
        self.agent: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tocsin.cli.main", "run", "-c", "tocsin.yaml"]
        log = (self.folder / "agent.log").open("a")
        self.agent = subprocess.Popen(command, cwd=self.folder, stderr=log, text=True)

    def kill(self) -> None:
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait()

    def update(self, *words: str) -> str:
        command = [sys.executable, "-m", "tocsin.cli.main", "update", *words, "-c", "tocsin.yaml"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False)
        return done.stdout + done.stderr


@pytest.fixture
def site(tmp_path: Path, broker: Any, release: Any, device: Any) -> Iterator[Site]:
    broker.start()
    made = Site(tmp_path, broker.port, release.folder, device.folder / "root.json")
    yield made
    made.kill()


def scores(consumer: Any) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in consumer.on("score/pump-1")]


def versions(consumer: Any) -> list[str]:
    return [json.loads(message.payload)["assets"][0]["digest"] for message in consumer.on("info")]


def jobs(consumer: Any) -> list[str]:
    return [json.loads(message.payload)["state"] for message in consumer.messages if "/job/" in message.topic]


@pytest.mark.timeout(240)
def test_an_update_takes_over_without_a_window_missed_or_scored_twice_and_outlives_restarts(
    site: Site, offer: Callable[..., Any], consume: Callable[..., Any], broker: Any, until: Callable[..., None]
) -> None:
    consumer = consume(broker.port)
    site.start()
    until(lambda: len(scores(consumer)) > 5, 30)
    bundle = offer(change=lambda raw: raw.update(version="2"))
    said = site.update("apply", "--wait", "90s")
    assert "pump-1: model " + bundle.digest[:12] in said and "2 succeeded" in said
    until(lambda: versions(consumer)[-1] == bundle.digest)
    count = len(scores(consumer))
    until(lambda: len(scores(consumer)) > count + 10)
    times = [datetime.fromisoformat(one["time"]).timestamp() for one in scores(consumer)]
    assert {round(later - before, 3) for before, later in pairwise(times)} == {HOP_S}
    until(lambda: json.loads(consumer.on("update/pump-1")[-1].payload)["in_progress"] is False)
    told = json.loads(consumer.on("update/pump-1")[-1].payload)
    assert (told["installed_version"], told["latest_version"]) == ("2", "2")
    until(lambda: jobs(consumer)[-1] == "succeeded")  # a message of its own, after the one on update/
    site.kill()
    site.start()
    until(lambda: len(versions(consumer)) > 1 and versions(consumer)[-1] == bundle.digest, 30)


@pytest.mark.timeout(240)
def test_a_model_that_calls_all_the_time_is_stopped_in_its_shadow_and_no_alarm_of_it_is_heard(
    site: Site, offer: Callable[..., Any], consume: Callable[..., Any], broker: Any, until: Callable[..., None]
) -> None:
    def nervous(raw: dict[str, Any]) -> None:
        raw["threshold"]["value"] *= 1e-3

    consumer = consume(broker.port)
    site.start()
    until(lambda: len(scores(consumer)) > 5, 30)
    offer(change=nervous)
    said = site.update("apply", "--wait", "90s")
    assert "failed: in its shadow: in alarm for" in said, said
    assert consumer.on("event/alarm") == []
    assert not (site.folder / "state/models/pump-1/current").exists()


@pytest.mark.timeout(240)
def test_an_agent_that_is_killed_in_a_trial_goes_on_with_the_new_model_and_the_trial_with_it(
    site: Site, offer: Callable[..., Any], consume: Callable[..., Any], broker: Any, until: Callable[..., None]
) -> None:
    consumer = consume(broker.port)
    site.start()
    until(lambda: len(scores(consumer)) > 5, 30)
    bundle = offer()
    end_s = time.monotonic() + 90
    while "trial" not in site.update("apply") and time.monotonic() < end_s:
        time.sleep(0.2)
    site.kill()
    site.start()
    assert "succeeded" in site.update("apply", "--wait", "90s")
    assert (site.folder / "state/models/pump-1/current").readlink().stem == bundle.digest
