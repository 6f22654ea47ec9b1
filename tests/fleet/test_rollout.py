"""A roll-out: its decisions, and a fleet of virtual devices on a real broker."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin.config import MqttSettings
from tocsin.core.bundle import load_bundle, write_bundle
from tocsin.delivery.connection import Access
from tocsin.errors import TocsinError
from tocsin.update.client import UpdatePolicy
from tocsin.update.story import State
from tocsin_fleet.release.keys import Keys
from tocsin_fleet.release.release import Release
from tocsin_fleet.rollout.plan import DeviceSaid, Plan, Run, count, louder, step
from tocsin_fleet.rollout.simulate import VirtualFleet
from tocsin_fleet.rollout.tool import Rollouts, watch

SMALL = Path(__file__).parent.parent / "data/small.tocsin"
FLEET = int(os.environ.get("CHAOS_FLEET") or 40)
NEW = "models/pump/pump-2.tocsin"
PLAN = Plan("r1", "pump", NEW, (100, 1000, 10_000), bake_s=3600, patience_s=7200, minimum=1)
NAMES = [f"edge-{n}" for n in range(1000)]


def said(run: Run, now_s: float, **states: State) -> list[DeviceSaid]:
    """Every device of the fleet; those of the open rings in a state of its own, else succeeded."""
    from tocsin.update.assignment import Assignment

    wanted = Assignment.model_validate(run.assignment())
    return [
        DeviceSaid(name, True, states.get(name.replace("-", "_"), State.SUCCEEDED), now_s, "why")
        if wanted.includes(name)
        else DeviceSaid(name)
        for name in NAMES
    ]


def included(run: Run) -> list[str]:
    return [device.name for device in said(run, 0.0) if device.state is not None]


def test_rings_open_one_after_the_other_each_baked() -> None:
    run, now_s = Run(PLAN), 0.0
    seen = []
    for _ in range(10):
        devices = said(run, now_s)
        assert step(run, devices, now_s + PLAN.bake_s - 1) == run, "it bakes"
        now_s += PLAN.bake_s
        run = step(run, devices, now_s)
        seen.append((run.ring, run.state))
        if run.state != "running":
            break
    assert seen == [(1, "running"), (2, "running"), (2, "done")]
    first, second = included(Run(PLAN)), included(Run(PLAN, 1))
    assert set(first) < set(second) and 0 < len(first) < 30 and 60 < len(second) < 140
    assert included(Run(replace(PLAN, id="r2"))) != first, "another roll-out begins with others"


@pytest.mark.parametrize("state", [State.FAILED, State.REJECTED, State.ROLLED_BACK])
def test_one_bad_device_among_few_halts_and_a_few_among_many_do_not(state: State) -> None:
    run = Run(PLAN)
    bad = {included(run)[0].replace("-", "_"): state}
    halted = step(run, said(run, 1.0, **bad), 2.0)
    assert halted.state == "halted" and "1 of" in halted.reason and "most often: why" in halted.reason
    assert step(halted, said(run, 1.0), 9e9) == halted, "a halt stays"
    wide = Run(PLAN, 2)
    many = {name.replace("-", "_"): state for name in NAMES[:50]}
    assert step(wide, said(wide, 1.0, **many), 2.0).state == "running"
    assert step(wide, said(wide, 1.0, **many, edge_900=state), 2.0).state == "halted"


def test_silence_and_what_never_ends_count_as_failures() -> None:
    run = Run(PLAN, 0, 0.0)
    name = included(run)[0]
    for state, since_s, kind in ((None, 0.0, "silent"), (State.TRIAL, 50.0, "timed_out")):
        devices = [replace(d, state=state, since_s=since_s) if d.name == name else d for d in said(run, 1.0)]
        assert step(run, devices, 7200.0).state == "running"
        assert getattr(count(run, devices, 7300.0), kind) == 1
        assert step(run, devices, 7300.0).state == "halted"


def test_devices_that_call_more_than_those_without_the_new_model_halt_it() -> None:
    def fleet(new: int, old: int) -> list[DeviceSaid]:
        with_it = [DeviceSaid(f"a{n}", True, State.SUCCEEDED, 0, "", new, 36_000) for n in range(5)]
        return with_it + [DeviceSaid(f"b{n}", alarms=old, watched_s=36_000) for n in range(50)]

    assert louder(Run(PLAN), fleet(1, 1)) == ""
    assert louder(Run(PLAN), fleet(0, 0)) == ""
    assert "raised 20 alarms" in louder(Run(PLAN), fleet(4, 0))
    assert louder(Run(PLAN), fleet(4, 4)) == "", "the weather, not the model"


@given(st.lists(st.sampled_from([None, *State]), min_size=1, max_size=60), st.floats(0, 1e6), st.integers(0, 2))
def test_it_never_widens_while_more_went_wrong_than_may(states: list[State | None], now_s: float, ring: int) -> None:
    run = Run(PLAN, ring)
    devices = [DeviceSaid(f"edge-{n}", True, state, 0.0) for n, state in enumerate(states)]
    after = step(run, devices, now_s)
    counts = count(run, devices, now_s)
    assert after.ring in (run.ring, run.ring + 1)
    if after.ring > run.ring or after.state == "done":
        assert counts.bad <= PLAN.abort * counts.included and counts.pending == 0
    if counts.bad > PLAN.abort * counts.included:
        assert after.state == "halted"


class Site:
    """A repository with two bundles, a broker, and virtual devices."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        (folder / "passphrase").write_text("correct horse\n")
        keys = Keys([folder / "release/keys"], lambda: "correct horse")
        self.release = Release(folder / "release/repository", keys)
        self.release.init()
        of = load_bundle(SMALL)
        raw = {k: v for k, v in of.manifest.raw.items() if k not in ("format", "golden", "files", "digest")}
        models = {name: content for name, content in of.files.items() if name.endswith(".tflite")}
        self.bundle = write_bundle(folder / "pump-2.tocsin", {**raw, "version": "2"}, models, of.golden, "second")
        self.release.publish(self.bundle.path, "pump")
        (folder / "root.json").write_bytes(self.release.root())
        self.access = Access.read(MqttSettings(host="127.0.0.1", port=port))
        self.rollouts = Rollouts(self.release)
        self.fleets: list[VirtualFleet] = []

    def fleet(self, bad: int = 0, silent: int = 0, size: int = FLEET) -> VirtualFleet:
        kinds: dict[str, Any] = {f"edge-{n}": "bad" if n < bad else "silent" if n < bad + silent else "good"
                                 for n in range(size)}  # fmt: skip
        policy = UpdatePolicy(str(self.release.folder), self.folder / "root.json", shadow_windows=5, trial_windows=5)
        made = VirtualFleet(self.folder / "devices", policy, "pump", SMALL, kinds, self.access, "tocsin")
        self.fleets.append(made)
        made.start()
        return made

    def watch(self, name: str) -> Run:
        return watch(self.rollouts, name, self.access, "tocsin", lambda *_: None, threading.Event())

    def command(self, *words: str) -> list[str]:
        options = ["--repository", "release/repository", "--keys", "release/keys", "--passphrase-file", "passphrase"]
        broker = ["--host", "127.0.0.1", "--port", str(self.port)] if words[0] in ("start", "resume") else []
        return [sys.executable, "-m", "tocsin.cli.main", "rollout", *words, *options, *broker]

    def run(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(self.command(*words), cwd=self.folder, capture_output=True, text=True, timeout=300,
                              check=False)  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def site(tmp_path: Path, broker: Any) -> Iterator[Site]:
    broker.start()
    made = Site(tmp_path, broker.port)
    yield made
    for fleet in made.fleets:
        fleet.stop()


@pytest.mark.broker
@pytest.mark.timeout(1800)
def test_a_good_bundle_reaches_every_device(site: Site) -> None:
    fleet = site.fleet(size=FLEET)
    begin_s = time.monotonic()
    site.rollouts.start(replace(PLAN, rings=(1000, 10_000), bake_s=0.5, patience_s=600, minimum=1, canary=("edge-0",)))
    assert site.watch("r1").state == "done"
    assert {fleet.current(name) for name in fleet.kinds} == {site.bundle.digest}
    print(f"{FLEET} virtual devices: all have it after {time.monotonic() - begin_s:.0f} s")


@pytest.mark.broker
@pytest.mark.timeout(1800)
def test_a_fleet_with_bad_and_silent_devices_halts_before_many_have_it(site: Site) -> None:
    bad = max(2, FLEET // 20)
    fleet = site.fleet(bad, bad)
    canary = ("edge-0", f"edge-{bad}", f"edge-{2 * bad}")  # one of each kind
    site.rollouts.start(replace(PLAN, rings=(100, 2500, 10_000), bake_s=0.5, patience_s=20, canary=canary))
    run = site.watch("r1")
    assert run.state == "halted" and run.ring == 0 and "went wrong" in run.reason
    reached = sum(fleet.current(name) != "" for name in fleet.kinds)
    kinds = f"{FLEET} virtual devices, {bad} bad, {bad} silent"
    print(f"{kinds}: halted in ring {run.ring + 1}, {reached} had it: {run.reason}")
    assert reached <= max(2, 0.05 * FLEET)


@pytest.mark.broker
@pytest.mark.timeout(300)
def test_the_tool_may_be_killed_and_the_fleet_sent_back(site: Site, until: Callable[..., None]) -> None:
    fleet = site.fleet(size=10)
    shown = site.run("start", "--product", "pump", "--id", "r1", "-n")
    assert "10 devices of pump" in shown and "ring 4: 10 devices" in shown
    assert site.release.assignment("pump") is None
    words = ("start", "--product", "pump", "--id", "r1", "--rings", "30%,100%", "--bake", "1s", "--canary", "edge-1")
    tool = subprocess.Popen(site.command(*words), cwd=site.folder, stdout=subprocess.PIPE, text=True)
    until(lambda: fleet.current("edge-1") != "", 60)
    tool.send_signal(signal.SIGKILL)
    tool.communicate()
    assert "is running: halt it" in site.run("start", "--product", "pump", "--id", "r2", "--detach", code=1)
    said_ = site.run("resume", "r1")
    assert "10 of 10 succeeded" in said_ and "r1: done" in said_
    assert all(fleet.current(name) == site.bundle.digest for name in fleet.kinds)
    assert "ring 2: 100 % of the fleet" in site.run("status", "r1")
    site.run("rollback", "r1")
    until(lambda: all(fleet.current(name) == "" for name in fleet.kinds), 60)


def test_operators_halt_resume_and_promote(site: Site) -> None:
    site.run("start", "--product", "pump", "--id", "r1", "--detach")
    assert json.loads(json.dumps(site.release.assignment("pump")))["state"] == "running"
    assert "is halted" in site.run("halt", "r1")
    assert site.release.assignment("pump")["state"] == "halted"
    assert "nothing to promote" in site.run("promote", "r1", code=1)
    assert "there are r1" in site.run("halt", "r9", code=1)
    assert "expected parts of the fleet that rise" in site.run("start", "--product", "pump", "--rings", "5,1", code=2)
    run = site.rollouts.get("r1")
    site.rollouts.keep(replace(run, state="running"))
    assert "ring 2: 5 %" in site.run("promote", "r1")
    assert site.release.assignment("pump")["share"] == 500
    with pytest.raises(TocsinError, match="damaged"):
        (site.folder / "release/rollouts/r1.json").write_text("{}")
        site.rollouts.get("r1")
