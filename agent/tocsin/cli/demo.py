"""`tocsin demo`: the main job, once through, on recordings of real machines that come with Tocsin.

```
recordings ─► tocsin train (a process an asset) ─► bundles ─► tocsin run ─► broker on loopback ─► this process: listens
```
Every part is the real one, in a process of its own; what is shown here of the alarms is what came in over MQTT.
"""

import csv
import gzip
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import click

from tocsin.cli.demo_full import Full, full
from tocsin.cli.mqtt import readable
from tocsin.config import MqttSettings
from tocsin.delivery.connection import Access, Closed, Connection, Event, Received
from tocsin.errors import BrokerError, TocsinError

EPOCHS = 20  # enough for a demo
PLAY_TIMEOUT_S = 90
EXTRAS = {"tensorflow": "trainer", "matplotlib": "trainer", "amqtt": "demo"}
EXTRAS_OF_FULL = {"tuf": "update", "sqlalchemy": "fleet", "cryptography": "fleet"}


@dataclass(frozen=True)
class Asset:
    """One recording that comes with Tocsin."""

    name: str
    files: str
    speed: float
    what: str


ASSETS = (
    Asset("hydraulic-rig", "hydraulic", 600.0, "ten sensors of a hydraulic rig, 1 Hz (UCI 447, CC BY 4.0)"),
    Asset("machine", "machine_temperature", 500_000.0, "temperature of a large machine, every 5 min (NAB, MIT)"),
)


@dataclass
class Heard:
    """What came in over MQTT for one asset: when each alarm was raised and cleared, by the recording's clock."""

    raised: list[dict[str, Any]] = field(default_factory=list)
    spans: list[list[str | None]] = field(default_factory=list)
    events: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """Alarms against labels, for one asset."""

    asset: str
    events: int
    found: int
    missed: int
    false: int
    alarms: int
    median_delay_s: float | None


@click.command()
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("tocsin-demo"),
    show_default=True,
    help="Folder for recordings, bundles, reports and configuration.",
)
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same models.")
@click.option("--full", "with_update", is_flag=True, help="Also an outage of the broker, and a model over the air.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, nothing else on stdout.")
def demo(out: Path, seed: int, with_update: bool, as_json: bool) -> int:
    """Train, run and raise alarms on real machine data, in under two minutes.

    Offline: an MQTT broker runs on 127.0.0.1 for as long as the demo does. Exits with 0 only when each asset's alarms
    were received by a client other than the agent and labelled faults were among them. With --full, a minute more: an
    alarm is acknowledged, the broker pulled for ten seconds with nothing lost, a second model signed and rolled out to
    three devices, of which one goes wrong and goes back.

    \b
    Examples:
      tocsin demo --out /tmp/demo
      tocsin demo --full
    """
    begin = time.monotonic()
    needed = EXTRAS | (EXTRAS_OF_FULL if with_update else {})
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({needed[name] for name in missing}))
        raise TocsinError(f"the demo needs {missing[0]}, which is not installed: pip install '.[{extras}]'")
    say = _Say(as_json)
    out.mkdir(parents=True, exist_ok=True)
    for name in (f"{asset.files}_{part}.csv.gz" for asset in ASSETS for part in ("normal", "test")):
        with resources.as_file(resources.files("tocsin") / "demo_data" / name) as path:
            shutil.copyfile(path, out / name)
    say.title("1  train on recordings of normal running, convert to int8")
    metrics = _train(out, seed, say)
    say.title("2  run the agent on the held-back recordings, listen as another MQTT client")
    heard = _play(out, metrics, say)
    say.title("3  alarms received, against the labels")
    verdicts = [_judge(asset, heard[asset.name]) for asset in ASSETS]
    more = _full(out, metrics, say) if with_update else None
    seconds = time.monotonic() - begin
    good = all(v.alarms and v.found for v in verdicts) and all(
        _shipped(m)["precision"] == "int8" for m in metrics.values()
    )
    good = good and (more is None or more.good)
    _show(verdicts, metrics, heard, out, seconds, good, as_json, say, more)
    return 0 if good else 1


def _full(out: Path, metrics: dict[str, dict[str, Any]], say: "_Say") -> Full:
    """The second half."""
    say.title("4  an outage, and a model over the air")
    asset = ASSETS[1]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    normal, test = (out / f"{asset.files}_{part}.csv.gz" for part in ("normal", "test"))
    return full(out, out / asset.name / metrics[asset.name]["bundle"], normal, test, _broker_on, port, say.line)


class _Say:
    """Prints for a person; silent with --json."""

    def __init__(self, as_json: bool) -> None:
        self._silent = as_json

    def title(self, text: str) -> None:
        if not self._silent:
            click.echo()
            click.secho(text, bold=True)

    def line(self, text: str) -> None:
        if not self._silent:
            click.echo(f"   {text}")


def _tocsin(*args: str) -> list[str]:
    return [sys.executable, "-m", "tocsin.cli.main", *args]


def _train(out: Path, seed: int, say: _Say) -> dict[str, dict[str, Any]]:
    """Trains both assets at the same time; metrics.json of each."""
    running = []
    for asset in ASSETS:
        say.line(f"{asset.name}: {asset.what}")
        command = _tocsin(
            "train", "--quiet", "--json", "--version", "demo", "--asset", asset.name, "--seed", str(seed),
            "--epochs", str(EPOCHS),
            "--data", str(out / f"{asset.files}_normal.csv.gz"), "--test", str(out / f"{asset.files}_test.csv.gz"),
            "--out", str(out / asset.name),
        )  # fmt: skip
        running.append((asset, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)))
    metrics = {}
    for asset, process in running:
        said, complaints = process.communicate()
        if process.returncode:
            raise TocsinError(f"training {asset.name} failed: {complaints.strip().splitlines()[-1:] or 'no message'}")
        metrics[asset.name] = json.loads(said)
    for name, found in metrics.items():
        say.line("")
        say.line(f"{name}: windows of {found['window']['length']} rows; limit and figures are the converted model's")
        say.line("  family     ships as      KiB  µs/window  same decisions  separation     limit")
        for model in found["candidates"]:
            say.line(
                f"{'→' if model['chosen'] else ' '} {model['family']:<11}{model['precision']:<9}"
                f"{model['bytes'] / 1024:>8.1f}{model['latency_us']:>11.1f}{model['gate']['agreement']:>16.2%}"
                f"{model['separation']:>12.4f}{model['threshold']['value']:>10.4g}"
            )
        for model in found["candidates"]:
            if model["gate"]["reason"]:
                say.line(f"  {model['family']}: {model['gate']['reason']}")
    return metrics


def _play(out: Path, metrics: dict[str, dict[str, Any]], say: _Say) -> dict[str, Heard]:
    """Runs broker, listener and agent until the recordings have been played; what the listener heard."""
    heard = {asset.name: Heard(events=_events(out / f"{asset.files}_test.csv.gz")) for asset in ASSETS}
    say.line("● inside a labelled event   ○ outside")
    with _broker() as port:
        config = out / "tocsin.yaml"
        config.write_text(_configuration(out, metrics, port))
        events: SimpleQueue[Event] = SimpleQueue()
        listener = Access.read(MqttSettings(host="127.0.0.1", port=port, protocol="3.1.1")).connect(
            "tocsin-demo-listener", events.put
        )
        try:
            listener.subscribe(["tocsin/+/event/alarm"])
            _run_agent(config, listener, events, heard, say)
        finally:
            listener.close()
    return heard


def _run_agent(
    config: Path, listener: Connection, events: "SimpleQueue[Event]", heard: dict[str, Heard], say: _Say
) -> None:
    agent = subprocess.Popen(
        _tocsin("run", "-q", "-c", str(config)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + PLAY_TIMEOUT_S
        while time.monotonic() < deadline:
            ended = agent.poll() is not None
            try:
                event = events.get(timeout=0.2)
            except Empty:
                if ended:
                    break
                continue
            if isinstance(event, Closed):
                raise BrokerError(f"the demo's broker closed the connection: {event.reason}")
            if isinstance(event, Received):
                _take(event, heard, say)
        else:
            raise TocsinError(f"the agent did not play the recordings within {PLAY_TIMEOUT_S} s")
    finally:
        agent.terminate()
        complaints = agent.communicate(timeout=30)[1]
    if agent.returncode:
        raise TocsinError(f"the agent ended with {agent.returncode}: {complaints.strip()[-500:]}")


def _take(message: Received, heard: dict[str, Heard], say: _Say) -> None:
    event = json.loads(message.payload)
    alarm = event["after"]
    found = heard[alarm["asset"]]
    if alarm["class"] != "process":  # of a sensor or a clock: told, and no word on the machine
        if event["type"] == "new":
            say.line(f"○ {readable(message)}")
        return
    if event["type"] == "new":
        found.raised.append(alarm)
        found.spans.append([alarm["raised"], None])
        labelled = any(start <= _seconds(alarm["raised"]) <= stop for start, stop in found.events)
        say.line(f"{'●' if labelled else '○'} {readable(message)}")
    elif event["type"] == "end" and found.spans:
        found.spans[-1][1] = alarm["cleared"]


@contextmanager
def _broker() -> Iterator[int]:
    """A broker on a free port of 127.0.0.1, ended with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free: int = probe.getsockname()[1]
    with _broker_on(free) as port:
        yield port


@contextmanager
def _broker_on(port: int) -> Iterator[int]:
    command = [sys.executable, "-m", "tocsin.demo_broker", str(port)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        if process.stdout.readline().strip() != "ready":
            raise BrokerError("the demo's broker did not start on 127.0.0.1")
        yield port
    finally:
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _configuration(out: Path, metrics: dict[str, dict[str, Any]], port: int) -> str:
    assets = "".join(
        f"""  - id: {asset.name}
    bundle: {asset.name}/{metrics[asset.name]["bundle"]}
    source: {{type: replay, files: [{asset.files}_test.csv.gz], speed: {asset.speed:g}}}
    advice: This is a recording; on your machine, say here what to do first.
"""
        for asset in ASSETS
    )
    state = out / "state"
    shutil.rmtree(state, ignore_errors=True)
    return f"""version: 1
device: demo
state_dir: state
mqtt: {{host: 127.0.0.1, port: {port}, protocol: "3.1.1"}}
assets:
{assets}"""


def _judge(asset: Asset, heard: Heard) -> Verdict:
    """Alarms received against labelled events: found when an alarm was on during it, false when it touches none."""
    events = heard.events
    spans = [(_seconds(a), _seconds(b) if b else float("inf")) for a, b in heard.spans if a is not None]
    delays = []
    for start, stop in events:
        inside = [max(0.0, raised - start) for raised, cleared in spans if raised <= stop and cleared >= start]
        if inside:
            delays.append(min(inside))
    false = sum(not any(raised <= stop and cleared >= start for start, stop in events) for raised, cleared in spans)
    delays.sort()
    return Verdict(
        asset=asset.name,
        events=len(events),
        found=len(delays),
        missed=len(events) - len(delays),
        false=false,
        alarms=len(spans),
        median_delay_s=delays[len(delays) // 2] if delays else None,
    )


def _events(path: Path) -> list[tuple[float, float]]:
    """(start, end) of each run of labelled rows, epoch seconds."""
    events: list[tuple[float, float]] = []
    inside = False
    with gzip.open(path, "rt", newline="") as handle:
        for row in csv.DictReader(handle):
            at = _seconds(row["time"])
            if row["label"] == "1":
                events = [*events[:-1], (events[-1][0], at)] if inside else [*events, (at, at)]
            inside = row["label"] == "1"
    return events


def _shipped(metrics: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(model for model in metrics["candidates"] if model["chosen"])
    return found


def _seconds(stamp: str) -> float:
    from datetime import UTC, datetime  # noqa: PLC0415

    parsed = datetime.fromisoformat(stamp)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _show(
    verdicts: list[Verdict],
    metrics: dict[str, dict[str, Any]],
    heard: dict[str, Heard],
    out: Path,
    seconds: float,
    good: bool,
    as_json: bool,
    say: _Say,
    more: Full | None,
) -> None:
    reports = {v.asset: str(out / v.asset / "report.html") for v in verdicts}
    bundle = out / ASSETS[0].name / metrics[ASSETS[0].name]["bundle"]
    following = f"tocsin replay --bundle {bundle} --input {out}/hydraulic_test.csv.gz --scores scores.csv"
    if as_json:
        document = {
            "ok": good,
            "seconds": round(seconds, 1),
            "assets": {
                v.asset: {
                    "events": v.events,
                    "found": v.found,
                    "missed": v.missed,
                    "false": v.false,
                    "alarms_received": v.alarms,
                    "median_delay_s": v.median_delay_s,
                    "report": reports[v.asset],
                    "training": metrics[v.asset],
                    "alarms": heard[v.asset].raised,
                }
                for v in verdicts
            },
            "full": None if more is None else {**asdict(more), "ok": more.good},
            "next": following,
        }
        click.echo(json.dumps(document, indent=1))
        return
    say.line(f"{'asset':<16}{'events':>8}{'found':>8}{'missed':>8}{'false':>8}{'median delay':>16}")
    for v in verdicts:
        delay = "–" if v.median_delay_s is None else _duration(v.median_delay_s)
        say.line(f"{v.asset:<16}{v.events:>8}{v.found:>8}{v.missed:>8}{v.false:>8}{delay:>16}")
    say.line("")
    for v in verdicts:
        say.line(f"report: {reports[v.asset]}")
    say.line(f"{seconds:.0f} s in all; every alarm above came in over MQTT")
    if not good:
        click.secho(
            "   the demo did not see what it should have: no alarm, or no labelled fault, for some asset"
            + ("" if more is None or more.good else "; or the outage, or the update"),
            fg="red",
            err=True,
        )
    say.line(f"next: {following}")


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
