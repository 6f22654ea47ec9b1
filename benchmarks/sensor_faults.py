"""Sensor or machine? Faults of the virtual plant, by kind, size and seed: which class of alarm each raises.

A bundle is trained on a normal day of the plant; then every fault shows for a minute, on another day each time, and the
agent's own line hears it. The table counts the days on which the right class alarmed alone (hit), the right one and the
wrong one (both), the wrong one alone (wrong), and none (miss); `early` are days with an alarm before the fault.

    python benchmarks/sensor_faults.py [--seeds 8] [--kinds stuck,bearing] [--families t2]
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tocsin.alarms.alarm import class_of
from tocsin.alarms.stale import Staleness
from tocsin.chatter import RUNTIME, without_chatter
from tocsin.cli.main import main as tocsin
from tocsin.core.bundle import Bundle, load_bundle
from tocsin.pipeline import AssetLine
from tocsin.records import Change, SampleBlock, Transition
from tocsin.simulate.csv_files import FIRST_S
from tocsin.simulate.faults import MACHINE
from tocsin.simulate.plant import CHANNELS, Plant

SETTLE_S, BEFORE_S, FAULT_S, BLOCK = 30.0, 90.0, 60.0, 10  # the fault begins after SETTLE_S + BEFORE_S
AFTER_S = 5.0  # an alarm that comes so late is still the fault's
SENSORS = ("discharge_pressure", "flow", "motor_temperature", "vibration")
KINDS = {  # → severities
    "stuck": (1.0,),
    "dropout": (0.2, 1.0),
    "spikes": (0.1, 1.0),
    "offset": (0.3, 1.0),
    "drift": (0.3, 1.0),
    "noise": (0.3, 1.0),
    "bearing": (0.2, 0.5, 1.0),
    "cavitation": (0.3, 1.0),
    "leakage": (0.3, 1.0),
    "imbalance": (0.3, 1.0),
    "misalignment": (0.3, 1.0),
}


@dataclass(frozen=True)
class Day:
    """What a day with one fault raised.

    Attributes:
        early: alarms while nothing was wrong.
        found: classes during the fault.
    """

    early: frozenset[str]
    found: frozenset[str]

    def verdict(self, right: frozenset[str]) -> str:
        """hit, both, wrong or miss."""
        good, wrong = self.found & right, self.found - right
        return ("both" if wrong else "hit") if good else ("wrong" if wrong else "miss")


def train(folder: Path, families: str, minutes: float, more: tuple[str, ...] = ()) -> Bundle:
    """A bundle of the plant's normal running under load."""
    run("simulate", "--csv", folder / "plant", "--duration", f"{minutes:g}min", "--always-load", *more)
    options = ("--families", families, "--window", "16", "--version", "1", "--quiet")
    run("train", "--data", folder / "plant/normal.csv", "--out", folder / "out", *options)
    return load_bundle(folder / "out/normal-1.tocsin")


def run(*words: object) -> None:
    """One command, in this process."""
    try:
        tocsin([str(word) for word in words])
    except SystemExit as ended:
        if ended.code:
            raise


def faults(kinds: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """`stuck.flow`, `bearing`; and severity."""
    for kind in kinds:
        for severity in KINDS[kind]:
            yield from ((kind if kind in MACHINE else f"{kind}.{sensor}", severity) for sensor in sensors_of(kind))


def sensors_of(kind: str) -> tuple[str, ...]:
    """The channels that a sensor's fault is tried on; one nameless for a machine's."""
    return ("",) if kind in MACHINE else SENSORS


def day(bundle: Bundle, fault: str, severity: float, seed: int) -> Day:
    """One day with one fault."""
    begin_s = SETTLE_S + BEFORE_S
    plant = Plant(seed, FIRST_S, 0.0, True, (f"{fault}@{begin_s:g}s-{begin_s + FAULT_S:g}s:{severity:g}",))
    line = AssetLine("pump", bundle, CHANNELS)
    stale = Staleness("pump", 10.0, live=False)
    told: list[Transition] = []
    for _ in range(round((begin_s + FAULT_S + AFTER_S) * 10 / BLOCK)):
        steps = [plant.step() for _ in range(BLOCK)]
        block = SampleBlock(np.array([step.time_s for step in steps]), np.stack([step.values for step in steps]))
        parts = line.feed(block)
        told += [*stale.take(block), *line.watch.told(), *(change for part in parts for change in part.transitions)]
    raised = [t for t in told if t.change is Change.RAISED]
    early = frozenset(class_of(t.cause).value for t in raised if SETTLE_S <= t.time_s - FIRST_S < begin_s)
    return Day(early, frozenset(class_of(t.cause).value for t in raised if t.time_s - FIRST_S >= begin_s))


def measure(bundle: Bundle, kinds: tuple[str, ...], seeds: int) -> dict[tuple[str, float], Counter[str]]:
    """Days by verdict, for each fault and severity; `early` beside them."""
    out: dict[tuple[str, float], Counter[str]] = {}
    for fault, severity in faults(kinds):
        right = frozenset({"process"}) if fault in MACHINE else frozenset({"sensor", "comms"})
        days = [day(bundle, fault, severity, 1000 + seed) for seed in range(seeds)]
        out[fault, severity] = Counter(each.verdict(right) for each in days)
        out[fault, severity]["early"] = sum(bool(each.early) for each in days)
        show(fault, severity, out[fault, severity], seeds)
    return out


def show(fault: str, severity: float, counts: Counter[str], seeds: int) -> None:
    """One row."""
    columns = " ".join(f"{counts[name]:>6}" for name in ("hit", "both", "wrong", "miss", "early"))
    print(f"{fault:30} {severity:>8g} {seeds:>5} {columns}", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--families", default="t2")
    parser.add_argument("--minutes", type=float, default=120.0, help="of normal running to train on")
    parser.add_argument("--bundle", type=Path, help="instead of training one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, without_chatter(*RUNTIME):
        bundle = load_bundle(given.bundle) if given.bundle else train(Path(folder), given.families, given.minutes)
        columns = " ".join(f"{name:>6}" for name in ("hit", "both", "wrong", "miss", "early"))
        print(f"{'fault':30} {'severity':>8} {'days':>5} {columns}")
        measure(bundle, tuple(given.kinds.split(",")), given.seeds)


if __name__ == "__main__":
    main()
