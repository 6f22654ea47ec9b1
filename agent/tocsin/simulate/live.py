"""The plant in real time: steps when they are due, commands when they come.

Rules: what falls behind is caught up, so that no sample is missing; a command takes effect at the next step.
"""

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from tocsin.errors import ConfigError
from tocsin.simulate.outlets import Outlet
from tocsin.simulate.plant import Plant, Step
from tocsin.simulate.process import STEP_S


def run_live(
    plant: Plant,
    outlets: Sequence[Outlet],
    commands: "SimpleQueue[str]",
    answer: Callable[[str], None],
    stopping: threading.Event,
    duration_s: float | None = None,
    speed: float = 1.0,
    show: Callable[[Step], None] = lambda _: None,
) -> None:
    """Runs until told to stop, or for a while.

    Args:
        plant: at its beginning or where it was left.
        outlets: that get every step.
        commands: lines as `Faults.command` takes them.
        answer: called with what became of each.
        stopping: ends the run.
        duration_s: of the plant's time; None = without end.
        speed: the plant's seconds in a second.
        show: called with each step.
    """
    begin_s, first_s = time.monotonic(), plant.now_s
    while not stopping.is_set() and (duration_s is None or plant.now_s - first_s < duration_s - STEP_S / 2):
        try:
            while True:
                answer(_obeyed(plant, commands.get_nowait()))
        except Empty:
            pass
        due_s = begin_s + (plant.now_s - first_s) / speed
        if stopping.wait(max(0.0, due_s - time.monotonic())):
            return
        step = plant.step()
        for outlet in outlets:
            outlet.send(step)
        show(step)


def _obeyed(plant: Plant, line: str) -> str:
    if not line.strip():
        active = plant.faults.active(plant.now_s)
        return ", ".join(f"{name} {severity:.2f}" for name, severity in active.items()) or "no fault is on"
    try:
        return plant.faults.command(line, plant.now_s)
    except ConfigError as error:
        return str(error)
