"""A roll-out as a file, the repository that it signs, and the loop that watches it.

Rules: the file is written before the repository is signed, and the repository is brought to what the file says at every
start: a tool that is killed goes on where it was. One tool watches a roll-out; what another one writes (halt, promote,
roll back) is seen at the next look.
"""

import dataclasses
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

from tocsin.delivery.connection import Access, Closed, Event, Received
from tocsin.errors import BrokerError, TocsinError
from tocsin_fleet.release.release import Release
from tocsin_fleet.rollout.plan import Counts, DeviceSaid, Plan, Run, count, step
from tocsin_fleet.rollout.watch import Fleet

LOOK_S = 1.0
SETTLES_S = 3.0  # until what is retained has come


class Rollouts:
    """The roll-outs beside a repository.

    Args:
        release: the repository.
        now: epoch seconds.
    """

    def __init__(self, release: Release, now: Callable[[], float] = time.time) -> None:
        self._release, self._now = release, now
        self._folder = release.folder.parent / "rollouts"

    def start(self, plan: Plan) -> Run:
        """Opens the first ring.

        Raises:
            TocsinError: there is one of that name, or one of the product is running.
        """
        running = next((run for run in self.all() if run.state == "running" and run.plan.product == plan.product), None)
        if running is not None:
            raise TocsinError(f"{running.plan.id} of {plan.product} is running: halt it, or wait for its end")
        if self._path(plan.id).exists():
            raise TocsinError(f"there is a roll-out {plan.id} already: give this one another --id")
        now_s = self._now()
        run = Run(plan, since_s=now_s).noted(now_s, f"ring 1: {plan.rings[0] / 100:g} % of the fleet")
        return self.keep(run)

    def keep(self, run: Run) -> Run:
        """Writes a run, then signs what it says, where the repository says something else."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(run.plan.id)
        part = path.with_name(f".{path.name}.part")
        with part.open("w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(run), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        self.sign(run)
        return run

    def change(self, name: str, how: Callable[[Run], Run]) -> Run:
        """Changes a run; no other tool does meanwhile.

        Args:
            name: its id.
            how: gives the run as it is to be.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f".{name}.change").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            run = self.get(name)
            after = how(run)
            return run if after == run else self.keep(after)

    def sign(self, run: Run) -> None:
        """Brings the repository to what a run says."""
        wanted = run.assignment()
        if self._release.assignment(run.plan.product) != json.loads(json.dumps(wanted)):
            self._release.assign(run.plan.product, wanted)

    def get(self, name: str) -> Run:
        """One by its id.

        Raises:
            TocsinError: there is none, or its file is damaged.
        """
        path = self._path(name)
        try:
            form = json.loads(path.read_text(encoding="utf-8"))
            plan = Plan(
                **{**form["plan"], "rings": tuple(form["plan"]["rings"]), "canary": tuple(form["plan"]["canary"])}
            )
            return Run(**{**form, "plan": plan, "history": tuple((at, what) for at, what in form["history"])})
        except FileNotFoundError as error:
            known = ", ".join(run.plan.id for run in self.all()) or "none"
            raise TocsinError(f"no roll-out {name!r}: there are {known}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise TocsinError(f"{path}: damaged: {error}") from error

    def all(self) -> list[Run]:
        """Oldest first."""
        runs = [self.get(path.stem) for path in self._folder.glob("*.json")]
        return sorted(runs, key=lambda run: run.history[0][0] if run.history else 0.0)

    @contextmanager
    def watching(self, name: str) -> Iterator[IO[str]]:
        """Keeps other tools from watching the same roll-out.

        Raises:
            TocsinError: another one does.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{name}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise TocsinError(f"another tool watches {name}: see tocsin rollout status") from error
            yield lock

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def watch(
    rollouts: Rollouts,
    name: str,
    access: Access,
    prefix: str,
    show: Callable[[Run, Counts], None],
    stopping: threading.Event,
    now: Callable[[], float] = time.time,
) -> Run:
    """Follows a roll-out until it is over, or `stopping` is set.

    Args:
        rollouts: where it is kept.
        name: its id.
        access: to the broker.
        prefix: first levels of every topic.
        show: called at each look.
        stopping: ends it; the roll-out stays as it is.
        now: epoch seconds.

    Raises:
        BrokerError: the broker cannot be reached at the start.
    """
    run = rollouts.get(name)
    rollouts.sign(run)
    fleet = Fleet(prefix, run.plan.product, name)
    with _listening(access, fleet) as events:
        settled_s = time.monotonic() + SETTLES_S
        while not stopping.is_set():
            _take(events, fleet, now())
            if time.monotonic() < settled_s:
                continue
            devices = list(fleet.devices(now()))
            run = rollouts.change(name, partial(step, devices=devices, now_s=now()))
            show(run, count(run, devices, now()))
            if run.state != "running":
                break
    return run


def known_devices(access: Access, prefix: str, product: str, now_s: float) -> list[DeviceSaid]:
    """Devices of a product that the broker knows."""
    fleet = Fleet(prefix, product, "")
    with _listening(access, fleet) as events:
        end_s = time.monotonic() + SETTLES_S
        while time.monotonic() < end_s:
            _take(events, fleet, now_s)
    return list(fleet.devices(now_s))


@contextmanager
def _listening(access: Access, fleet: Fleet) -> Iterator[SimpleQueue[Event]]:
    events: SimpleQueue[Event] = SimpleQueue()
    connection = access.connect(f"tocsin-rollout-{os.getpid()}", events.put)
    try:
        connection.subscribe(fleet.filters())
        yield events
    finally:
        connection.close()


def _take(events: "SimpleQueue[Event]", fleet: Fleet, now_s: float) -> None:
    """What came within a look."""
    end_s = time.monotonic() + LOOK_S
    while (left_s := end_s - time.monotonic()) > 0:
        try:
            item = events.get(timeout=left_s)
        except Empty:
            return
        if isinstance(item, Received):
            fleet.take(item, now_s)
        elif isinstance(item, Closed):
            raise BrokerError(f"the connection ended ({item.reason}): tocsin rollout resume goes on")
