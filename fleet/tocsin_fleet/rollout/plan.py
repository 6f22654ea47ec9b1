"""Whether a roll-out goes on: pure, from what devices said and the time.

```
 ring 1 ──► all of it succeeded, minimum reached, baked ──► ring 2 ──► … ──► done
    └─► failed + rolled back + timed out + silent > allowed, or more alarms than devices without it ──► halted
```
Rules: a device that says nothing counts as one that failed: a model that kills devices makes them silent. What is
allowed is rounded down, so that a ring of a few devices allows none. Halting goes before everything else.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tocsin.update.assignment import Assignment
from tocsin.update.story import State

RunState = Literal["running", "halted", "done", "rolled_back"]
_BAD = (State.FAILED, State.REJECTED, State.ROLLED_BACK)
UNLIKELY = 0.01  # chance of so many alarms, were the model as good as the one before
FEW = 3  # alarms that tell nothing


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wanted.

    Attributes:
        id: of the roll-out.
        product: kind of machine.
        target: path of the signed bundle.
        rings: share of the fleet of each, in ten-thousandths, rising; the last is usually all.
        canary: devices that are in from the first ring on.
        bake_s: that a ring has to have succeeded before the next.
        minimum: devices that have to have succeeded before the next.
        patience_s: within which a device has to have reported an end.
        abort: part of the devices of the rings so far that may go wrong.
        jitter_s: devices start within this time.
        start_window: local time in which devices start, or None.
    """

    id: str
    product: str
    target: str
    rings: tuple[int, ...]
    canary: tuple[str, ...] = ()
    bake_s: float = 3600.0
    minimum: int = 1
    patience_s: float = 7200.0
    abort: float = 0.05
    jitter_s: float = 0.0
    start_window: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """How it stands; all that has to outlive a crash of the tool.

    Attributes:
        plan: what is wanted.
        ring: index of the widest ring that is open.
        since_s: when it was opened, epoch seconds.
        state: of the roll-out.
        reason: of a halt.
        history: (epoch seconds, what happened).
    """

    plan: Plan
    ring: int = 0
    since_s: float = 0.0
    state: RunState = "running"
    reason: str = ""
    history: tuple[tuple[float, str], ...] = ()

    def assignment(self) -> dict[str, Any]:
        """What is signed for the devices."""
        state = {"running": "running", "done": "running"}.get(self.state, self.state)
        document = Assignment(
            rollout=self.plan.id,
            target=self.plan.target,
            state=state,
            share=self.plan.rings[self.ring],
            devices=self.plan.canary,
            jitter_s=self.plan.jitter_s,
            start_window=self.plan.start_window,
        )
        return document.model_dump(mode="json")

    def noted(self, now_s: float, what: str, **changes: Any) -> "Run":
        """The run after something happened."""
        return replace(self, history=(*self.history, (now_s, what)), **changes)


@dataclass(frozen=True, slots=True)
class DeviceSaid:
    """What a device told of itself.

    Attributes:
        name: id.
        online: its status.
        state: of its job of this roll-out, or None.
        since_s: when that state began, epoch seconds.
        reason: that it gave.
        alarms: new alarms of the model since the roll-out began.
        watched_s: for which they were counted.
    """

    name: str
    online: bool = True
    state: State | None = None
    since_s: float = 0.0
    reason: str = ""
    alarms: int = 0
    watched_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Counts:
    """The devices of the rings that are open, by how they fare."""

    included: int = 0
    succeeded: int = 0
    failed: int = 0
    rolled_back: int = 0
    timed_out: int = 0
    silent: int = 0
    pending: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def bad(self) -> int:
        """Failed, rolled back, timed out and silent."""
        return self.failed + self.rolled_back + self.timed_out + self.silent


def count(run: Run, devices: Iterable[DeviceSaid], now_s: float) -> Counts:
    """How the open rings fare."""
    wanted = Assignment.model_validate(run.assignment())
    waits_s = run.plan.patience_s + run.plan.jitter_s
    found = dict.fromkeys(("included", "succeeded", "failed", "rolled_back", "timed_out", "silent", "pending"), 0)
    reasons: dict[str, int] = {}
    for device in devices:
        if not wanted.includes(device.name):
            continue
        found["included"] += 1
        kind = _kind(device, run.since_s, now_s, waits_s)
        found[kind] += 1
        if kind in ("failed", "rolled_back"):
            reasons[device.reason] = reasons.get(device.reason, 0) + 1
    return Counts(**found, reasons=reasons)


def _kind(device: DeviceSaid, ring_s: float, now_s: float, waits_s: float) -> str:
    if device.state is State.SUCCEEDED:
        return "succeeded"
    if device.state is State.ROLLED_BACK:
        return "rolled_back"
    if device.state in _BAD:
        return "failed"
    begin_s = ring_s if device.state is None else max(ring_s, device.since_s)
    if now_s - begin_s <= waits_s:
        return "pending"
    return "silent" if device.state is None or not device.online else "timed_out"


def louder(run: Run, devices: Iterable[DeviceSaid]) -> str:
    """Whether devices with the new model call more than those without; empty where not, or not to be told."""
    with_it: list[DeviceSaid] = []
    without: list[DeviceSaid] = []
    for device in devices:
        (with_it if device.state is State.SUCCEEDED else without).append(device)
    alarms, watched_s = sum(d.alarms for d in with_it), sum(d.watched_s for d in with_it)
    before, control_s = sum(d.alarms for d in without), sum(d.watched_s for d in without)
    if alarms < FEW or watched_s <= 0 or control_s <= 0:
        return ""
    expected = (before + 1) / control_s * watched_s  # one more than was seen: a control group that is silent is small
    chance = _poisson_at_least(alarms, expected)
    if chance >= UNLIKELY:
        return ""
    return (
        f"devices with the new model raised {alarms} alarms in {watched_s / 3600:.3g} h, where {expected:.2g} were to "
        "be expected by those without it"
    )


def _poisson_at_least(count_: int, mean: float) -> float:
    below, term = 0.0, math.exp(-mean)
    for n in range(count_):
        below += term
        term *= mean / (n + 1)
    return max(0.0, 1.0 - below)


def step(run: Run, devices: Iterable[DeviceSaid], now_s: float) -> Run:
    """The run a moment later: the same, halted, with a wider ring, or done."""
    if run.state != "running":
        return run
    devices = list(devices)
    counts = count(run, devices, now_s)
    allowed = math.floor(run.plan.abort * counts.included)
    if counts.bad > allowed:
        why = (
            f"{counts.bad} of {counts.included} devices went wrong, {allowed} may: {counts.failed} failed, "
            f"{counts.rolled_back} rolled back, {counts.timed_out} timed out, {counts.silent} silent"
        )
        worst = max(counts.reasons, key=lambda reason: counts.reasons[reason], default="")
        why += f"; most often: {worst}" if worst else ""
        return run.noted(now_s, f"halted: {why}", state="halted", reason=why)
    loud = louder(run, devices)
    if loud:
        return run.noted(now_s, f"halted: {loud}", state="halted", reason=loud)
    last_s = max([run.since_s, *(d.since_s for d in devices if d.state is State.SUCCEEDED)])
    ready = counts.pending == 0 and counts.succeeded >= run.plan.minimum and now_s - last_s >= run.plan.bake_s
    return widened(run, now_s) if ready else run


def widened(run: Run, now_s: float) -> Run:
    """The next ring, or the end."""
    if run.ring + 1 == len(run.plan.rings):
        return run.noted(now_s, "done", state="done")
    share = run.plan.rings[run.ring + 1]
    return run.noted(now_s, f"ring {run.ring + 2}: {share / 100:g} % of the fleet", ring=run.ring + 1, since_s=now_s)
