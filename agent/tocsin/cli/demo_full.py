"""The second half of `tocsin demo --full`: an outage, and a model over the air.

```
 agent ──► broker ──✂ ten seconds ✂──► inbox: every change of an alarm, once
 train again ─► sign ─► publish ─► roll-out ─► edge-1 (canary) ─► edge-2, edge-3 ✗ loses its power in the trial
                                                                  └─► rolled back ─► the roll-out halts and says why
```
Every part is the real one, in a process of its own, over files and the demo's broker.
"""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tocsin.delivery.outbox import read_audit
from tocsin.errors import TocsinError

OUTAGE_S = 10.0
PRODUCT, PASSPHRASE = "machine", "only of this demo"
DEVICES = ("edge-1", "edge-2", "edge-3")
Broker = Callable[[int], AbstractContextManager[int]]
Say = Callable[[str], None]


@dataclass
class Full:
    """What came of it.

    Attributes:
        told: changes of alarms in the agent's own trail.
        received: of them, by the inbox.
        twice: that the inbox has more than once.
        acknowledged: somebody's acknowledgement is in the trail.
        states: of the update, by device.
        rollout: how the roll-out stands.
    """

    told: int = 0
    received: int = 0
    twice: int = 0
    acknowledged: bool = False
    states: dict[str, str] = field(default_factory=dict)
    rollout: str = ""

    @property
    def good(self) -> bool:
        """Nothing was lost; the device that went wrong went back, and no other."""
        kept = 0 < self.told == self.received and self.twice == 0 and self.acknowledged
        ends = dict(zip(DEVICES, ("succeeded", "succeeded", "rolled_back"), strict=True))
        return kept and self.states == ends and "halted" in self.rollout


def full(out: Path, bundle: Path, normal: Path, recording: Path, broker: Broker, port: int, say: Say) -> Full:
    """Both parts.

    Args:
        out: folder of the demo.
        bundle: that the first part trained.
        normal: what it was trained on.
        recording: what devices hear.
        broker: runs one on a port.
        port: free, on 127.0.0.1.
        say: called with each line.
    """
    result = Full()
    folder = (out / "full").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = {"bundle": bundle.resolve(), "recording": recording.resolve()}
    words = ("train", "--quiet", "--version", "demo-2", "--seed", "1", "--asset", PRODUCT, "--families", "pca,t2",
             "--data", str(normal.resolve()), "--out", "second")  # fmt: skip
    with _running(*words, cwd=folder) as training:
        _outage(folder, files, broker, port, result, say)
        if training.wait(180):
            raise TocsinError(f"the second training failed: see {folder / 'processes.log'}")
    _over_the_air(folder, files, broker, port, result, say)
    return result


def _outage(folder: Path, files: dict[str, Path], broker: Broker, port: int, result: Full, say: Say) -> None:
    """An alarm is acknowledged; then the broker is gone for a while."""
    alarm = {"auto_ack": False, "hold_off": 0}
    _configure(folder, "outage", port, files, 300_000.0, alarm=alarm, delivery="end_to_end")

    def trail() -> list[dict[str, Any]]:
        with suppress(TocsinError, OSError):
            return [json.loads(body) for body in read_audit(folder / "outage/outbox.db")]
        return []

    def inbox() -> list[dict[str, Any]]:
        said = _tocsin("inbox", "--list", "100000", "--json", cwd=folder)
        return [one for one in map(json.loads, said.splitlines()) if one["kind"] == "alarm"]

    with ExitStack() as stack:
        up = stack.enter_context(ExitStack())
        up.enter_context(broker(port))
        stack.enter_context(_running("inbox", "-c", "outage.yaml", cwd=folder))
        agent = stack.enter_context(_running("run", "-q", "-c", "outage.yaml", cwd=folder))
        _until(lambda: bool(trail()), "an alarm")
        alarm_id = trail()[0]["alarm"]
        _tocsin("alarms", "ack", alarm_id, "-c", "outage.yaml", "--comment", "on my way", cwd=folder)
        say(f"{alarm_id} acknowledged; the broker is pulled for {OUTAGE_S:g} s")
        up.close()
        before = len(trail())
        time.sleep(OUTAGE_S)
        say(f"{len(trail()) - before} changes of alarms meanwhile, on the agent's disk; the broker is back")
        up.enter_context(broker(port))
        agent.wait(120)
        told = trail()
        result.told, result.acknowledged = len(told), any(one["action"] == "ack" and one["by"] for one in told)
        with suppress(TocsinError):
            _until(lambda: len(inbox()) >= result.told, "the inbox", 30)
        received = inbox()
    keys = {(one["boot"], one["seq"]) for one in received}
    result.received, result.twice = len(keys), len(received) - len(keys)
    lost = result.told - result.received
    say(f"{result.told} changes in the agent's own trail, {lost} lost, {result.twice} twice")


def _over_the_air(folder: Path, files: dict[str, Path], broker: Broker, port: int, result: Full, say: Say) -> None:
    """The second model: signed, published, in rings; one device loses its power in the trial."""
    (folder / "passphrase").write_text(f"{PASSPHRASE}\n")
    secret = ("--passphrase-file", "passphrase")
    _tocsin("fleet", "init", *secret, cwd=folder)
    (second,) = (folder / "second").glob("*.tocsin")
    say(_tocsin("fleet", "publish", str(second), "--product", PRODUCT, *secret, cwd=folder).splitlines()[0])
    repository = {"repository": "release/repository", "trusted_root": "release/root.json", "shadow_windows": 30,
                  "trial_windows": 30, "patience": "10s"}  # fmt: skip
    for device in DEVICES:
        _configure(folder, device, port, files, 50_000.0, update=repository)
    with ExitStack() as stack:
        stack.enter_context(broker(port))
        agents = {
            device: stack.enter_context(_running("run", "-q", "-c", f"{device}.yaml", cwd=folder)) for device in DEVICES
        }
        stack.enter_context(_updaters(folder))
        rings = ("--rings", "0.01%,100%", "--canary", DEVICES[0], "--bake", "1s", "--patience", "120s")
        wanted = ("rollout", "start", "--product", PRODUCT, "--id", "demo", *rings, *secret)
        rollout = stack.enter_context(_running(*wanted, "--host", "127.0.0.1", "--port", str(port), cwd=folder))
        last = ""
        end_s = time.monotonic() + 120
        while rollout.poll() is None and time.monotonic() < end_s:
            result.states = {device: _state(folder, device) for device in DEVICES}
            line = ", ".join(f"{device} {state}" for device, state in result.states.items())
            if line != last:
                say(line)
            last = line
            unlucky = result.states[DEVICES[2]]
            if unlucky == "trial" and agents[DEVICES[2]].poll() is None:
                agents[DEVICES[2]].kill()
                say(f"{DEVICES[2]} loses the power of its agent")
            if unlucky == "rolled_back" and agents[DEVICES[2]].poll() is not None:
                say(f"{DEVICES[2]} is back, with the model that it had before")
                again = _running("run", "-q", "-c", f"{DEVICES[2]}.yaml", cwd=folder)
                agents[DEVICES[2]] = stack.enter_context(again)
            time.sleep(0.3)
        _until(lambda: _state(folder, DEVICES[1]) in ("succeeded", "rolled_back", "failed"), DEVICES[1], 30)
    result.states = {device: _state(folder, device) for device in DEVICES}
    result.rollout = _tocsin("rollout", "status", *secret, cwd=folder).strip()
    say(result.rollout)


@contextmanager
def _updaters(folder: Path) -> Iterator[None]:
    """In place of the timers of three devices."""
    stopping = threading.Event()

    def again(device: str) -> None:
        while not stopping.wait(0.5):
            with suppress(TocsinError):
                _tocsin("update", "apply", "-c", f"{device}.yaml", cwd=folder)

    threads = [threading.Thread(target=again, args=(device,)) for device in DEVICES]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def _state(folder: Path, device: str) -> str:
    """How the device's update stands, by its own report."""
    try:
        report = json.loads((folder / device / "models" / PRODUCT / "report.json").read_bytes())
        return str(report["jobs"][0]["state"])
    except (OSError, ValueError, KeyError, IndexError):
        return "waits"


def _configure(folder: Path, device: str, port: int, files: dict[str, Path], speed: float, **more: Any) -> None:
    """Writes the settings of a device, whose state folder has its name."""
    mqtt = {"host": "127.0.0.1", "port": port, "protocol": "3.1.1", "delivery": more.pop("delivery", "puback")}
    asset = {
        "id": PRODUCT,
        "bundle": str(files["bundle"]),
        "source": {"type": "replay", "files": [str(files["recording"])], "speed": speed},
        "alarm": more.pop("alarm", {}),
    }
    if "update" in more:
        asset["product"] = PRODUCT
    document = {"version": 1, "device": device, "state_dir": device, "mqtt": mqtt, "assets": [asset], **more}
    (folder / f"{device}.yaml").write_text(json.dumps(document, indent=1))


@contextmanager
def _running(*words: str, cwd: Path) -> Iterator["subprocess.Popen[str]"]:
    """A command of Tocsin, at the longest until the block ends."""
    with (cwd / "processes.log").open("a") as log:
        command = [sys.executable, "-m", "tocsin.cli.main", *words]
        process = subprocess.Popen(command, cwd=cwd, stdout=log, stderr=log, text=True)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _tocsin(*words: str, cwd: Path) -> str:
    """What a command says.

    Raises:
        TocsinError: it failed.
    """
    command = [sys.executable, "-m", "tocsin.cli.main", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise TocsinError(f"tocsin {' '.join(words[:2])} failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def _until(fact: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Waits for what processes bring about.

    Raises:
        TocsinError: it did not come about.
    """
    end_s = time.monotonic() + timeout_s
    while not fact():
        if time.monotonic() > end_s:
            raise TocsinError(f"the demo waited {timeout_s:g} s for {what}")
        time.sleep(0.2)
