"""The agent as a process: `tocsin run` with a real broker, and what becomes of alarms when things break."""

import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from tocsin import worker
from tocsin.config import AssetSettings
from tocsin.config_file import load_settings
from tocsin.core.bundle import load_bundle, write_bundle
from tocsin.delivery.outbox import Outbox
from tocsin.errors import ConfigError, SourceError
from tocsin.records import Channel, SampleBlock
from tocsin.service import Agent, run_agent
from tocsin.sources import MeteredSource, SourceSettings, make_source
from tocsin.sources.synthetic import SyntheticSource

DATA = Path(__file__).parent.parent / "data"
FAULTS = 3  # in faults.csv
COMMAND = (sys.executable, "-m", "tocsin.cli.main", "run", "-c")


class Agents:
    """Starts `tocsin run` in a folder; ends what is left at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outbox = folder / "state/outbox.db"
        self._made: list[subprocess.Popen[str]] = []

    def configure(self, port: int, *assets: dict[str, Any], name: str = "tocsin.yaml", **others: Any) -> Path:
        document = {
            "version": 1,
            "device": "edge-1",
            "state_dir": "state",
            "mqtt": {"host": "127.0.0.1", "port": port, "health_interval_s": 1},
            "assets": list(assets),
            **others,
        }
        path = self.folder / name
        path.write_text(yaml.safe_dump(document))
        return path

    def start(self, config: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen([*COMMAND, str(config)], stderr=subprocess.PIPE, text=True, cwd=self.folder)
        self._made.append(process)
        return process

    def end(self) -> None:
        for process in self._made:
            process.kill()
            process.communicate()


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    agents = Agents(tmp_path)
    yield agents
    agents.end()


def asset(name: str = "pump-1", speed: float = 0, **others: Any) -> dict[str, Any]:
    source = {"type": "replay", "files": [str(DATA / "faults.csv")], "speed": speed}
    at_once = {"hold_off": 0}  # faults of the recording follow one another within a minute
    return {"id": name, "bundle": str(DATA / "small.tocsin"), "source": source, "alarm": at_once, **others}


def endless(name: str = "pump-2") -> dict[str, Any]:
    """An asset that never ends; nothing it says matters."""
    return asset(name, speed=0.1)


def events(consumer: Any) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in consumer.on("event/alarm")]


def occurrences(found: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(event["after"]["id"], event["type"]) for event in found}


def committed(outbox: Path) -> list[dict[str, Any]]:
    """Alarm events that wait on the disk."""
    with sqlite3.connect(f"file:{outbox}?mode=ro", uri=True) as db:
        return [json.loads(row[0]) for row in db.execute("SELECT payload FROM outbox WHERE topic = 'event/alarm'")]


def rows(outbox: Path) -> int:
    try:
        return len(committed(outbox))
    except sqlite3.OperationalError:  # not made yet
        return 0


def statuses(consumer: Any) -> list[str]:
    return [message.payload.decode() for message in consumer.on("status")]


def healths(consumer: Any) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in consumer.on("health")]


def finish(process: subprocess.Popen[str], timeout_s: float = 10.0) -> str:
    """Waits for a clean end; gives what was said."""
    _, said = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    return said


@pytest.mark.broker
def test_a_recording_is_played_its_alarms_delivered_and_the_agent_ends(
    agents: Agents, broker: Any, consume: Callable[..., Any], until: Callable[..., None]
) -> None:
    broker.start()
    consumer = consume(broker.port)
    finish(agents.start(agents.configure(broker.port, asset())), 20)
    until(lambda: statuses(consumer) == ["online", "stopped"])
    found = events(consumer)
    assert [event["type"] for event in found] == ["new", "end"] * FAULTS
    assert [event["seq"] for event in found] == sorted(event["seq"] for event in found)
    assert found[0]["after"]["raised"] == "2026-03-09T08:02:33.000Z"
    assert [event["after"]["contributions"][0]["channel"] for event in found[::2]] == ["pressure", "flow", "pressure"]
    info = json.loads(consumer.on("info")[0].payload)
    assert info["assets"][0]["channels"] == ["pressure", "flow"]


@pytest.mark.broker
def test_detection_and_sensitivity_are_set_over_mqtt_and_outlive_a_restart(
    agents: Agents, broker: Any, consume: Callable[..., Any], until: Callable[..., None]
) -> None:
    broker.start()
    consumer = consume(broker.port)

    def state(name: str) -> Any:
        said = consumer.on(f"state/{name}")
        return json.loads(said[-1].payload)["value"] if said else None

    def say(name: str, value: str) -> None:
        consumer._client.publish(f"tocsin/edge-1/set/{name}", value, 1).wait_for_publish(5)

    config = agents.configure(broker.port, asset(speed=100))
    document = yaml.safe_load(config.read_text())
    document["mqtt"]["settings"] = ["detection", "sensitivity"]
    document["assets"].append(endless())
    config.write_text(yaml.safe_dump(document))
    process = agents.start(config)
    until(lambda: (state("detection"), state("sensitivity")) == ("ON", 1.0))
    say("detection", "OFF")
    say("sensitivity", "nonsense")
    say("sensitivity", "0.5")
    until(lambda: (state("detection"), state("sensitivity")) == ("OFF", 0.5))
    until(lambda: json.loads(consumer.on("alarm/pump-1-anomaly")[-1].payload)["state"] == "suppressed")
    until(lambda: len(consumer.on("score/pump-1")) > 450, 30)
    assert all(event["after"]["state"] == "suppressed" for event in events(consumer))
    halved = json.loads(consumer.on("score/pump-1")[-1].payload)
    assert halved["threshold"] == pytest.approx(2 * load_bundle(DATA / "small.tocsin").manifest.threshold.value, 1e-4)
    assert halved["ratio"] == pytest.approx(halved["score"] / halved["threshold"], 1e-3)
    process.terminate()
    assert "expected a number from 0.25 to 4" in finish(process, 20)
    process = agents.start(config)
    count = len(consumer.on("score/pump-1"))
    until(lambda: len(consumer.on("score/pump-1")) > count, 30)
    assert json.loads(consumer.on("score/pump-1")[-1].payload)["threshold"] == halved["threshold"]
    say("detection", "on")
    until(lambda: state("detection") == "ON")
    until(lambda: "pump-1-anomaly" in [e["after"]["alarm"] for e in events(consumer) if e["type"] == "end"], 30)
    process.terminate()
    finish(process, 20)


@pytest.mark.broker
def test_samples_are_published_so_often_with_their_units(
    agents: Agents, broker: Any, consume: Callable[..., Any], until: Callable[..., None]
) -> None:
    broker.start()
    consumer = consume(broker.port)
    config = agents.configure(broker.port, asset(speed=20))
    document = yaml.safe_load(config.read_text())
    document["mqtt"]["data_interval"] = "500ms"
    config.write_text(yaml.safe_dump(document))
    process = agents.start(config)
    until(lambda: len(consumer.on("data/pump-1")) >= 4, 30)
    process.terminate()
    finish(process, 20)
    samples = [json.loads(message.payload) for message in consumer.on("data/pump-1")]
    assert all(set(one) == {"time", "pressure", "flow"} and one["pressure"] > 0 for one in samples)
    stamps = [datetime.fromisoformat(one["time"]).timestamp() for one in samples]
    assert min(later - before for before, later in pairwise(stamps)) >= 5, "a row in ten at 20 times the speed"
    meta = json.loads(consumer.on("data/pump-1/meta")[0].payload)
    assert meta["rate_hz"] == 1 and meta["channels"]["pressure"]["unit"] == "bar"
    assert set(meta["channels"]["flow"]) == {"unit", "low", "high"}


@pytest.mark.broker
def test_a_recording_whose_alarms_nobody_subscribed_to_ends_and_keeps_them_on_disk(agents: Agents, broker: Any) -> None:
    broker.start()
    finish(agents.start(agents.configure(broker.port, asset())), 20)
    assert [event["type"] for event in committed(agents.outbox)] == ["new", "end"] * FAULTS


@pytest.mark.broker
def test_no_committed_alarm_is_lost_when_broker_and_agent_are_killed(
    agents: Agents, broker: Any, consume: Callable[..., Any], until: Callable[..., None]
) -> None:
    broker.extra = ["autosave_interval 1"]
    broker.start()
    consumer = consume(broker.port)
    config = agents.configure(broker.port, asset(speed=150))
    process = agents.start(config)
    until(lambda: len(events(consumer)) >= 1)
    broker.kill()
    until(lambda: rows(agents.outbox) >= 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    waiting = committed(agents.outbox)
    heard_before = occurrences(events(consumer))
    assert not occurrences(waiting) <= heard_before
    broker.start()
    again = agents.start(agents.configure(broker.port, endless()))  # pump-1's alarms wait in the same outbox
    until(lambda: occurrences(waiting) <= occurrences(events(consumer)), 20)
    replayed = [event for event in events(consumer) if (event["after"]["id"], event["type"]) not in heard_before]
    assert all(
        event["replayed"] for event in replayed if event["after"]["asset"] == "pump-1" and event["type"] == "new"
    )
    again.terminate()
    finish(again)


@pytest.mark.broker
def test_what_was_acknowledged_over_mqtt_is_acknowledged_after_a_kill(
    agents: Agents, broker: Any, consume: Callable[..., Any], until: Callable[..., None]
) -> None:
    broker.start()
    consumer = consume(broker.port)
    kept = asset(alarm={"auto_ack": False, "hold_off": 0})
    process = agents.start(agents.configure(broker.port, kept, endless()))
    until(lambda: len(events(consumer)) == 2 * FAULTS)  # each fault after the first comes back to an alarm that waits
    assert [events(consumer)[-1]["after"][key] for key in ("state", "count")] == ["rtn_unacked", FAULTS]
    operator = paho.Client(CallbackAPIVersion.VERSION2, "operator")
    operator.connect("127.0.0.1", broker.port)
    operator.loop_start()
    operator.publish("tocsin/edge-1/cmd/ack", json.dumps({"alarm": "all", "by": "ann"}), qos=1)
    until(lambda: consumer.on("cmd/ack/result"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    operator.disconnect()
    operator.loop_stop()
    reply = json.loads(consumer.on("cmd/ack/result")[0].payload)
    assert (reply["status"], reply["data"]) == ("ok", reply["data"] | {"alarms": {"pump-1-anomaly": "normal"}})
    with Outbox(agents.outbox) as outbox:
        assert outbox.alarms() == {}
    assert committed(agents.outbox)[-1]["after"]["acked_by"] == "ann"


@pytest.mark.broker
def test_sigterm_ends_the_agent_cleanly_and_it_says_so(
    agents: Agents, broker: Any, consume: Callable[..., Any], until: Callable[..., None]
) -> None:
    broker.start()
    consumer = consume(broker.port)
    process = agents.start(agents.configure(broker.port, endless()))
    until(lambda: statuses(consumer) == ["online"])
    process.terminate()
    finish(process)
    until(lambda: statuses(consumer) == ["online", "stopped"])


def test_sigterm_ends_the_agent_within_ten_seconds_without_a_broker(
    agents: Agents, unused_port: int, until: Callable[..., None]
) -> None:
    process = agents.start(agents.configure(unused_port, asset()))
    until(lambda: rows(agents.outbox) == 2 * FAULTS)
    process.terminate()
    begin = time.monotonic()
    assert "not connected" in finish(process)
    assert time.monotonic() - begin < 8
    assert [event["type"] for event in committed(agents.outbox)] == ["new", "end"] * FAULTS


def test_a_second_sigterm_and_a_ctrl_c_while_it_stops_do_no_harm(
    agents: Agents, unused_port: int, until: Callable[..., None]
) -> None:
    process = agents.start(agents.configure(unused_port, asset()))
    until(lambda: rows(agents.outbox) == 2 * FAULTS)
    for _ in range(3):
        process.terminate()
    finish(process)


def test_a_broker_that_hangs_does_not_keep_the_agent_from_stopping(agents: Agents, until: Callable[..., None]) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        process = agents.start(agents.configure(deaf.getsockname()[1], asset()))
        until(lambda: rows(agents.outbox) == 2 * FAULTS)
        process.terminate()
        finish(process, 20)


@pytest.mark.broker
@pytest.mark.parametrize("fault", ["damaged_bundle", "no_serial_port", "recording_that_is_not_there"])
def test_one_failing_asset_leaves_the_others_alone_and_is_named_in_health(
    fault: str, agents: Agents, broker: Any, consume: Callable[..., Any], until: Callable[..., None]
) -> None:
    damaged = agents.folder / "damaged.tocsin"
    damaged.write_bytes((DATA / "small.tocsin").read_bytes()[:5000])
    serial = {"type": "serial", "port": "/dev/ttyNONE", "rate_hz": 1, "channels": ["pressure", "flow"]}
    failing, says = {
        "damaged_bundle": ({"bundle": str(damaged)}, "damaged.tocsin"),
        "no_serial_port": ({"source": serial}, "/dev/ttyNONE"),
        "recording_that_is_not_there": ({"source": {"type": "replay", "files": ["no.csv"]}}, "no.csv"),
    }[fault]
    broker.start()
    consumer = consume(broker.port)
    config = agents.configure(broker.port, asset(speed=1000), {**asset("pump-9"), **failing})
    process = agents.start(config)
    until(lambda: len(events(consumer)) == 2 * FAULTS)
    assert {event["after"]["asset"] for event in events(consumer)} == {"pump-1"}
    until(lambda: any(health["sources"]["pump-9"]["last_error"] for health in healths(consumer)))
    told = next(health for health in healths(consumer) if health["sources"]["pump-9"]["last_error"])
    assert told["status"] == "degraded"
    assert says in told["sources"]["pump-9"]["last_error"]
    assert told["sources"]["pump-9"]["errors_total"] > 0
    assert told["sources"]["pump-1"]["last_error"] is None
    process.terminate()
    assert says in finish(process)


@pytest.mark.broker
def test_an_asset_whose_source_comes_back_is_well_again(
    agents: Agents, broker: Any, consume: Callable[..., Any], until: Callable[..., None]
) -> None:
    broker.start()
    consumer = consume(broker.port)
    late = agents.folder / "late.csv"
    process = agents.start(
        agents.configure(broker.port, asset(source={"type": "replay", "files": [str(late)], "speed": 0}))
    )
    until(lambda: any(health["status"] == "failing" for health in healths(consumer)))
    (agents.folder / "whole.csv").write_bytes((DATA / "faults.csv").read_bytes())
    (agents.folder / "whole.csv").rename(late)
    finish(process, 30)
    until(lambda: len(events(consumer)) == 2 * FAULTS)


@pytest.mark.broker
def test_a_bundle_that_comes_late_is_named_in_alarms_and_info(
    agents: Agents, broker: Any, consume: Callable[..., Any], until: Callable[..., None]
) -> None:
    broker.start()
    consumer = consume(broker.port)
    late = agents.folder / "late.tocsin"
    late.write_bytes(b"")
    process = agents.start(agents.configure(broker.port, endless(), {**asset(), "bundle": str(late)}))
    until(lambda: any(health["status"] == "degraded" for health in healths(consumer)))
    (agents.folder / "whole").write_bytes((DATA / "small.tocsin").read_bytes())
    (agents.folder / "whole").rename(late)
    until(lambda: len(events(consumer)) >= 2 * FAULTS)
    first = events(consumer)[0]["after"]
    assert first["asset"] == "pump-1" and first["model"]["name"] and first["window"]["rate_hz"] == 1.0
    known = [[each["id"] for each in json.loads(message.payload)["assets"]] for message in consumer.on("info")]
    assert known == [["pump-2"], ["pump-2", "pump-1"]]
    until(lambda: healths(consumer)[-1]["sources"]["pump-1"]["state"] == "ended")
    assert healths(consumer)[-1]["status"] == "ok"
    process.terminate()
    finish(process)


@pytest.mark.broker
def test_a_bundle_that_does_not_give_its_golden_scores_scores_nothing(
    agents: Agents, broker: Any, consume: Callable[..., Any], until: Callable[..., None]
) -> None:
    broker.start()
    consumer = consume(broker.port)
    config = agents.configure(broker.port, {**asset(), "bundle": str(wrong_bundle(agents.folder / "wrong.tocsin"))})
    process = agents.start(config)
    until(lambda: any(health["status"] == "failing" for health in healths(consumer)))
    told = healths(consumer)[-1]
    assert "wrong.tocsin" in told["sources"]["pump-1"]["last_error"]
    assert "worst difference 0.5" in told["sources"]["pump-1"]["last_error"]
    assert told["assets"]["pump-1"]["windows_total"] == 0
    process.terminate()
    finish(process)


def wrong_bundle(path: Path) -> Path:
    """Its golden scores are twice what its model gives."""
    whole = load_bundle(DATA / "small.tocsin")
    golden = replace(whole.golden, scores=2 * whole.golden.scores)
    models = {name: content for name, content in whole.files.items() if name.endswith(".tflite")}
    write_bundle(path, whole.manifest.raw, models, golden, "")
    return path


@pytest.mark.broker
def test_a_recording_that_breaks_off_ends_the_agent_with_a_data_error(agents: Agents, broker: Any) -> None:
    broker.start()
    lines = (DATA / "faults.csv").read_text().splitlines()[:200]
    (agents.folder / "cut.csv").write_text("\n".join([*lines, "nonsense"]) + "\n")
    process = agents.start(
        agents.configure(broker.port, asset(source={"type": "replay", "files": ["cut.csv"], "speed": 0}))
    )
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said.count("line 201")) == (4, 1)
    assert "Traceback" not in said


def nothing(*_: object) -> None:
    """Takes what a worker says; it does not matter."""


class Flaky(SyntheticSource):
    """Gives samples, is lost for two reads, comes back, is lost again; cannot be closed."""

    reads = 0

    def read(self, timeout_s: float) -> SampleBlock:
        self.reads += 1
        self.ended = self.reads == 6
        if self.reads in (2, 3, 5):
            raise SourceError("lost")
        return super().read(timeout_s)

    def close(self) -> None:
        raise OSError("the driver cannot close")


def test_each_outage_is_logged_once_and_a_source_that_cannot_be_closed_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, outbox: Outbox
) -> None:
    monkeypatch.setattr(worker, "FIRST_DELAY_S", 0.01)
    settings = AssetSettings.model_validate(asset())
    bundle = load_bundle(settings.bundle)
    source = Flaky(bundle.manifest.channels, rate_hz=1, speed=0)
    monkeypatch.setattr(worker, "make_source", lambda *_: MeteredSource(source, "flaky", None))

    flaky = worker.AssetWorker(settings, bundle, nothing, nothing, lambda _: False, nothing, outbox)
    flaky.start()
    assert flaky.finished.wait(10)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"].count("pump-1: lost") == 2
    health, _ = flaky.health()
    assert (health.state, health.last_error, health.errors_total) == ("ended", None, 3)
    assert not flaky.broken_off


def absent(startup: str) -> dict[str, Any]:
    return {
        "type": "serial",
        "port": "/dev/ttyNONE",
        "rate_hz": 1,
        "channels": ["pressure", "flow"],
        "startup": startup,
    }


def test_a_source_that_must_be_there_at_the_start_and_is_not_ends_the_agent(agents: Agents) -> None:
    process = agents.start(agents.configure(1, endless("pump-1"), asset("pump-2", source=absent("error"))))
    _, said = process.communicate(timeout=30)
    assert process.returncode == 5
    assert "pump-2: given up at the start, as startup: error says" in said


def test_the_agent_says_what_it_watches_and_what_is_still_on_and_nothing_of_its_runtime(
    agents: Agents, unused_port: int
) -> None:
    config = agents.configure(unused_port, {**endless(), "rules": [{"id": "always", "when": "pressure > -1000"}]})
    for n, last in enumerate(("alarm pump-2-always new", "still on from before: pump-2-always")):
        process = agents.start(config)
        assert process.stderr is not None
        said = [process.stderr.readline()]
        while last not in said[-1]:
            assert said[-1], said
            said.append(process.stderr.readline())
        process.kill()
        process.wait()
        whole = "".join(said)
        assert re.search(r"pump-2: watching 2 channels at 1 Hz, model \S+ \S+, limit [\d.]+; alarms to ", whole)
        assert f"127.0.0.1:{unused_port}" in whole and "XNNPACK" not in whole
        assert ("still on" in whole) == bool(n)


class InPsi(SyntheticSource):
    """Says its units only once it is open, as OPC UA and CAN do."""

    def open(self) -> None:
        super().open()
        self.channels = tuple(Channel(channel.name, "psi") for channel in self.channels)


def test_a_source_that_turns_out_to_come_in_another_unit_is_refused_and_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, outbox: Outbox, until: Callable[..., None]
) -> None:
    settings = AssetSettings.model_validate(asset())
    bundle = load_bundle(settings.bundle)
    source = InPsi(bundle.manifest.channels, rate_hz=1)
    monkeypatch.setattr(worker, "make_source", lambda *_: MeteredSource(source, "in-psi", None))
    refusing = worker.AssetWorker(settings, bundle, nothing, nothing, lambda _: False, nothing, outbox)
    refusing.start()
    until(lambda: isinstance(refusing.refused, ConfigError) and "comes in psi" in str(refusing.refused))
    assert refusing.health()[0].state == "failing" and not refusing.fatal
    monkeypatch.setattr(InPsi, "open", SyntheticSource.open)
    source.channels = bundle.manifest.channels
    until(lambda: refusing.refused is None and refusing.health()[0].state == "ok")
    refusing.stop()


def in_psi(monkeypatch: pytest.MonkeyPatch, startup: str = "retry") -> dict[str, Any]:
    """An asset whose source turns out to come in psi; those that play recordings stay as they are."""
    channels = load_bundle(DATA / "small.tocsin").manifest.channels

    def make(settings: SourceSettings, *wanted: Any) -> MeteredSource:
        if settings.type == "replay":
            return make_source(settings, *wanted)
        return MeteredSource(InPsi(channels, rate_hz=1), "in-psi", None)

    monkeypatch.setattr(worker, "make_source", make)
    source = {"type": "synthetic", "rate_hz": 1, "channels": ["pressure", "flow"], "startup": startup}
    return asset("pump-2", source=source)


@pytest.mark.parametrize(("startup", "others"), [("retry", ()), ("error", (endless("pump-1"),))])
def test_a_source_in_another_unit_ends_the_agent_where_nothing_else_runs_or_startup_says_so(
    agents: Agents,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    startup: str,
    others: tuple[dict[str, Any], ...],
) -> None:
    config = agents.configure(1, *others, in_psi(monkeypatch, startup))
    assert run_agent(load_settings(config)) == 3
    assert "comes in psi" in caplog.text


@pytest.mark.parametrize("startup", ["retry", "ignore"])
def test_an_asset_whose_source_comes_in_another_unit_ends_no_other(
    agents: Agents, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None], startup: str
) -> None:
    agent = Agent(load_settings(agents.configure(1, endless("pump-1"), in_psi(monkeypatch, startup))))
    agent.start()
    try:
        until(lambda: agent._health().sources["pump-2"].state == "failing")
        until(lambda: agent._health().sources["pump-1"].samples_total > 0)
        health = agent._health()
        assert agent.refused is None and not agent.played_out()
        assert (health.status, health.sources["pump-1"].state) == ("degraded", "ok")
        assert health.sources["pump-2"].errors_total >= 1
        assert "comes in psi" in str(health.sources["pump-2"].last_error)
        assert agent.workers[1].finished.is_set() == (startup == "ignore")
    finally:
        agent.stop()


def test_a_source_that_may_be_missing_leaves_its_asset_out(outbox: Outbox) -> None:
    settings = AssetSettings.model_validate(asset(source=absent("ignore")))
    bundle = load_bundle(settings.bundle)
    left_out = worker.AssetWorker(settings, bundle, nothing, nothing, lambda _: False, nothing, outbox)
    left_out.start()
    assert left_out.finished.wait(10)
    assert (left_out.refused, left_out.health()[0].state) == (None, "failing")


def test_a_source_that_is_lost_is_tried_again_within_five_seconds(
    monkeypatch: pytest.MonkeyPatch, outbox: Outbox
) -> None:
    waited: list[float] = []

    class Absent(SyntheticSource):
        def open(self) -> None:
            raise SourceError("not there")

    settings = AssetSettings.model_validate(asset())
    bundle = load_bundle(settings.bundle)
    monkeypatch.setattr(worker, "make_source", lambda *_: MeteredSource(Absent(bundle.manifest.channels), "a", None))
    trying = worker.AssetWorker(settings, bundle, nothing, nothing, lambda _: False, nothing, outbox)

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 20:
            trying._stopping.set()

    monkeypatch.setattr(trying._stopping, "wait", wait)
    trying.start()
    assert trying.finished.wait(10)
    assert len(waited) == 20 and max(waited) <= 5 and waited[-1] > waited[0]


def test_a_source_that_gives_nothing_for_long_is_silent_and_not_well(
    monkeypatch: pytest.MonkeyPatch, outbox: Outbox
) -> None:
    monkeypatch.setattr(worker, "SILENT_S", 0.05)
    monkeypatch.setattr(worker, "SILENT_HOPS", 0)
    others = {"type": "synthetic", "rate_hz": 0.001, "channels": ["pressure", "flow"]}
    settings = AssetSettings.model_validate(asset(source=others))

    dumb = worker.AssetWorker(
        settings, load_bundle(settings.bundle), nothing, nothing, lambda _: False, nothing, outbox
    )
    assert dumb.health()[0].state == "ok"
    dumb.start()
    assert not dumb.finished.wait(0.1)
    assert dumb.health()[0].state == "silent"
    dumb.stop()


def test_gaps_and_windows_that_were_not_scored_are_told_in_health(tmp_path: Path, outbox: Outbox) -> None:
    header, *lines = (DATA / "faults.csv").read_text().splitlines()
    (tmp_path / "gap.csv").write_text("\n".join([header, *lines[:100], *lines[140:300]]) + "\n")
    settings = AssetSettings.model_validate(
        asset(source={"type": "replay", "files": [str(tmp_path / "gap.csv")], "speed": 0})
    )
    gappy = worker.AssetWorker(
        settings, load_bundle(settings.bundle), nothing, nothing, lambda _: False, nothing, outbox
    )
    gappy.start()
    assert gappy.finished.wait(10)
    source, line = gappy.health()
    assert (source.state, source.samples_total) == ("ended", 260)
    assert (line.gaps_total, line.not_finite_total) == (1, 0)
    assert line.false_alarms.episodes == 1 and line.false_alarms.asked_per_day is None


def test_the_agent_ends_at_once_when_no_bundle_can_be_used(agents: Agents, unused_port: int) -> None:
    config = agents.configure(unused_port, {**asset(), "bundle": "none.tocsin"})
    process = agents.start(config)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 7
    assert said.splitlines()[-1].startswith("tocsin: error: ") and "none.tocsin" in said


def test_a_second_agent_on_the_same_state_folder_is_refused(
    agents: Agents, unused_port: int, until: Callable[..., None]
) -> None:
    config = agents.configure(unused_port, endless())
    first = agents.start(config)
    until(lambda: rows(agents.outbox) == 0 and agents.outbox.exists())
    second = agents.start(config)
    _, said = second.communicate(timeout=20)
    assert second.returncode == 1
    assert said.splitlines() == [said.strip()] and said.startswith("tocsin: error: ")
    assert "state" in said and "another agent" in said and str(first.pid) in said
    first.terminate()
    finish(first)
    third = agents.start(config)
    until(lambda: (agents.folder / "state/agent.lock").read_text() == f"{third.pid}\n")
    third.terminate()
    finish(third)
