"""A device takes an update: what becomes of it, wherever it is killed."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tocsin.core.bundle import load_bundle
from tocsin.errors import TocsinError, TrustError
from tocsin.update.client import UpdateClient
from tocsin.update.ledger import Ledger
from tocsin.update.story import ENDS, MOST_TRANSITIONS, SWAPPED, TABLE, Job, Outcome, State, advance
from tocsin.update.trial import Fared

FINE = Fared(windows=1000, ratio_max=0.9, ratio_min=0.1, ms_p99=0.1)
STORM = Fared(windows=1000, in_alarm=600, raised=9, ratio_max=9, ratio_min=1)


def test_a_signed_bundle_that_fares_well_becomes_the_current_one(device: Any, offer: Callable[..., Any]) -> None:
    assert device.run() == "none"
    bundle = offer()
    assert device.run() == "succeeded"
    assert device.slots.current() == bundle.digest and device.slots.previous() == ""
    second = offer("pump-3", rollout="r2")
    assert device.run() == "succeeded"
    assert device.slots.current() == second.digest and device.slots.previous() == bundle.digest
    third = offer("pump-4", rollout="r3")
    assert device.run() == "succeeded"
    assert set(device.slots.installed()) == {second.digest, third.digest}, "the disk is bounded"
    assert not list((device.slots.folder / "stage").iterdir())


@pytest.mark.parametrize(
    ("fared", "says"),
    [
        (STORM, "in alarm for 60% of its windows"),
        (Fared(windows=1000, not_finite=1), "are no numbers"),
        (Fared(windows=1000, ms_p99=600.0), "too slow"),
        (Fared(windows=1000, ratio_max=0.5, ratio_min=0.5), "whatever it is shown"),
    ],
)
@pytest.mark.parametrize("stage", ["shadow", "trial"])
def test_a_signed_model_that_fares_badly_is_stopped(
    stage: str, fared: Fared, says: str, device: Any, offer: Callable[..., Any]
) -> None:
    bundle = offer()
    if stage == "trial":
        assert device.run(times=2) == "trial"
        assert device.slots.current() == bundle.digest
    assert device.run(fared) == ("failed" if stage == "shadow" else "rolled_back")
    assert says in device.reason and f"in its {stage}" in device.reason
    assert device.slots.current() == "" and bundle.digest not in device.slots.installed()
    assert not {"offer.json", "verdict.json"} & {path.name for path in device.slots.folder.iterdir()}
    assert device.run() == ("failed" if stage == "shadow" else "rolled_back"), "the same is not tried again"
    offer(rollout="r2")
    assert device.run() == "succeeded", "until somebody wants it again"


@pytest.mark.parametrize("stage", ["shadow", "trial"])
def test_an_agent_that_says_nothing_is_no_yes(stage: str, device: Any, offer: Callable[..., Any]) -> None:
    import time

    begin_s = time.time()
    offer()
    assert device.run(times=1 if stage == "shadow" else 2) == stage
    (device.slots.folder / "verdict.json").unlink(missing_ok=True)
    device.now_s = begin_s + device.policy.patience_s + 60
    client = device.client()
    client.apply()
    job = client.job("pump-1")
    client.close()
    assert job.state == ("failed" if stage == "shadow" else "rolled_back") and "said nothing" in job.reason
    assert device.slots.current() == ""


def channels(*units: tuple[str, str]) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw["groups"][0].update(channels=[{"name": name, "unit": unit} for name, unit in units])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (channels(("pressure", "bar"), ("speed", "l/min")), "needs the channel speed"),
        (channels(("pressure", "bar"), ("flow", "m3/h")), "flow is to come in m3/h"),
        (lambda raw: raw["groups"][0].update(sample_rate_hz=5.0), "it is for 5 Hz"),
    ],
)
def test_a_bundle_for_another_machine_is_rejected(
    change: Any, says: str, device: Any, offer: Callable[..., Any]
) -> None:
    offer(change=change)
    assert device.run() == "rejected"
    assert says in device.reason


def test_an_older_release_is_refused_and_comes_back_under_a_higher_counter(
    device: Any, offer: Callable[..., Any], release: Any
) -> None:
    first = offer("pump-2")
    assert device.run() == "succeeded"
    offer("pump-3", rollout="r2")
    assert device.run() == "succeeded"
    release.assign("pump", {"format": 1, "rollout": "r3", "target": "models/pump/pump-2.tocsin", "share": 10_000})
    with pytest.raises(TrustError, match=r"release 1 is older than release 2.*roll-back attack"):
        device.run()
    offer("pump-2", rollout="r4")
    assert device.run() == "succeeded" and device.slots.current() == first.digest


def test_a_device_outside_its_ring_waits_for_its_place(device: Any, offer: Callable[..., Any], release: Any) -> None:
    bundle = offer(share=0)
    assert device.run() == "none"
    wish = {"format": 1, "rollout": "r1", "target": "models/pump/pump-2.tocsin", "share": 0, "devices": ["edge-1"]}
    release.assign("pump", {**wish, "state": "halted"})
    assert device.run() == "none"
    release.assign("pump", wish)
    assert device.run() == "succeeded" and device.slots.current() == bundle.digest
    release.assign("pump", {**wish, "state": "rolled_back"})
    assert device.run() == "rolled_back" and device.slots.current() == ""


def test_another_roll_out_supersedes_one_before_its_swap_and_waits_for_one_after_it(
    device: Any, offer: Callable[..., Any]
) -> None:
    offer("pump-2")
    assert device.run(times=1) == "shadow"
    second = offer("pump-3", rollout="r2")
    assert device.run(times=2) == "trial"
    assert device.slots.current() == second.digest
    third = offer("pump-4", rollout="r3")
    assert device.run(STORM) == "rolled_back"
    assert device.run() == "succeeded" and device.slots.current() == third.digest


def test_operators_install_and_go_back(device: Any, offer: Callable[..., Any]) -> None:
    bundle = offer(share=0)
    client = device.client()
    with pytest.raises(TrustError, match="nobody signed"):
        client.install("pump-1", "models/pump/none.tocsin")
    with pytest.raises(TocsinError, match="there is no model before"):
        client.roll_back("pump-1")
    client.install("pump-1", "models/pump/pump-2.tocsin")
    client.close()
    assert device.run() == "succeeded" and device.slots.current() == bundle.digest
    client = device.client()
    assert client.roll_back("pump-1") == "" and device.slots.current() == ""
    client.close()


class Killed(BaseException):
    """The process ends here."""


def walks() -> Iterator[tuple[State, ...]]:
    """Every way through the table to an end that a model can take, without going round."""

    def on(path: tuple[State, ...]) -> Iterator[tuple[State, ...]]:
        if path[-1] in ENDS:
            yield path
            return
        for outcome, state in TABLE[path[-1]].items():
            if outcome in (Outcome.DONE, Outcome.REFUSED) and state not in path:
                yield from on((*path, state))

    yield from on((State.AVAILABLE,))


GOOD = (State.AVAILABLE, State.DOWNLOADING, State.VERIFYING, State.SMOKE, State.SHADOW, State.SWAPPING, State.TRIAL,
        State.COMMITTING, State.SUCCEEDED)  # fmt: skip
BAD = (*GOOD[:7], State.ROLLING_BACK, State.ROLLED_BACK)
POINTS = [(walk, state, side) for walk in (GOOD, BAD) for state in walk
          for side in ("before it is kept", "after it is kept", "after its work")]  # fmt: skip


def test_the_walks_are_those_of_the_table() -> None:
    assert {GOOD, BAD} <= set(walks())
    assert all(walk[-1] in (State.SUCCEEDED, State.ROLLED_BACK) for walk in walks() if State.SWAPPING in walk)


@pytest.mark.parametrize(("walk", "state", "side"), POINTS, ids=[f"{w[-1]}-{s}-{side}" for w, s, side in POINTS])
def test_killed_in_every_state_it_goes_on_and_there_is_always_a_whole_model(
    walk: tuple[State, ...],
    state: State,
    side: str,
    device: Any,
    offer: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = offer()
    kills = []

    def whole() -> None:
        current = device.slots.current()
        assert current in ("", bundle.digest)
        load_bundle(device.slots.path(current))

    def kill() -> None:
        if not kills:
            kills.append(state)
            raise Killed

    keep, work = Ledger.keep, UpdateClient._work

    def kept(self: Ledger, job: Job) -> None:
        whole()
        if job.state is state and side == "before it is kept":
            kill()
        keep(self, job)
        if job.state is state and side == "after it is kept":
            kill()

    def worked(self: UpdateClient, line: Any, job: Job) -> Any:
        found = work(self, line, job)
        whole()
        if job.state is state and side == "after its work" and found[0] is not Outcome.WAIT:
            kill()
        return found

    monkeypatch.setattr(Ledger, "keep", kept)
    monkeypatch.setattr(UpdateClient, "_work", worked)
    device.smoke = lambda _: {"passed": True, "ms_p99": 0.1, "worst": 0.0}
    end = "none"
    for _ in range(12):
        device.agent(STORM if walk is BAD and device.slots.current() else FINE)
        try:
            end = device.run(times=1)
        except Killed:
            continue
        whole()
        if end in ENDS:
            break
    assert kills == [state] or (state in ENDS and side == "after its work")
    assert end == walk[-1]
    assert device.slots.current() == (bundle.digest if walk is GOOD else "")
    client = device.client()
    assert client.job("pump-1").transitions <= MOST_TRANSITIONS
    client.close()


def test_what_goes_round_in_circles_ends(device: Any) -> None:
    job = Job("j", "pump-1", "pump", "r", "t", "0" * 64, 1, 1, "1", state=State.DOWNLOADING)
    for _ in range(100):
        job = advance(job, Outcome.AGAIN, "cut off", 5.0)
    assert (job.state, job.transitions, job.since_s) == (State.DOWNLOADING, 0, 0.0), "a poor link is no circle"
    steps = 0
    while not job.over:
        job = advance(
            job, Outcome.DONE if job.state is State.DOWNLOADING else Outcome.AGAIN, "damaged on the disk", 0.0
        )
        steps += 1
    assert (job.state, steps) == (State.FAILED, MOST_TRANSITIONS) and "given up after 28" in job.reason
    for state in SWAPPED:
        late = advance(
            Job("j", "a", "p", "r", "t", "0" * 64, 1, 1, "1", state=state, transitions=99), Outcome.DONE, "", 0
        )
        assert late.state in {State.ROLLING_BACK, State.ROLLED_BACK, State.SUCCEEDED, State.COMMITTING}


def test_the_bundle_that_runs_already_needs_no_trial(device: Any, release: Any) -> None:
    target, _ = release.publish(device.slots.factory, "pump")
    release.assign("pump", {"format": 1, "rollout": "r1", "target": target, "share": 10_000})
    assert device.run(times=1) == "succeeded" and device.slots.current() == ""
