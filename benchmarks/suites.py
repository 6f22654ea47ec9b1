"""Public recordings → ordinary tables for the trainer: which rows train, which test, and what is wrong in them.

Rules: a task is one model; the training part is normal as far as the set says so; every split is by time or by
recording, never by shuffled windows. A test table has a column `anomaly`; nothing else is said of a table than what it
cannot tell itself (rate, channel names, and for load cycles the window).

```
skab          a model a file; the first 400 rows train
nab           the first 15 % train, or up to the first labelled window
adi_motor     one model; healthy first halves less a frame train, all second halves test; a label a file
gearbox       one model; healthy at loads 0, 40, 80 trains, loads 20 and 60 test; a label a file
hydraulic_*   a model a component; half of the conditions of the other three with this one at its best train
```
"""

import csv
import gzip
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tocsin.recordings import TableOptions
from tocsin.records import Bools, Floats

FRAME = 2048  # rows of adi_motor between the training and the test half
COMPONENTS = {"cooler": (0, 100), "valve": (1, 100), "pump": (2, 0), "accumulator": (3, 130)}  # column, best value
CYCLE_S = 60
SLOW_SENSORS, FAST_SENSORS = ("TS1", "TS2", "TS3", "TS4", "VS1", "SE", "CE", "CP"), ("FS1", "FS2")  # 1 Hz, 10 Hz


@dataclass(frozen=True)
class Features:
    """What the simple detectors look at.

    Attributes:
        kind: `rows` (each row, and windows of `length` of them), `spectrum` (of frames) or `means` (of frames).
        length: rows of a window or frame.
        hop: rows from frame to frame.
        smooth: span in rows of the running mean of scores; 1 = none.
    """

    kind: str
    length: int
    hop: int = 1
    smooth: int = 1


@dataclass(frozen=True)
class Task:
    """One model to train and to test.

    Attributes:
        name: of the file, or of the suite.
        train: tables of normal running.
        test: tables with a column `anomaly`.
        table: what the tables cannot tell.
        window: rows, where a cycle is known.
        hop: rows.
    """

    name: str
    train: tuple[Path, ...]
    test: tuple[Path, ...]
    table: TableOptions = TableOptions()
    window: int | None = None
    hop: int | None = None


@dataclass(frozen=True)
class Suite:
    """Tasks that are judged together.

    Attributes:
        name: of the suite.
        by_row: figures of rows, else of windows.
        tasks: one or more.
        features: of the simple detectors.
    """

    name: str
    by_row: bool
    tasks: tuple[Task, ...]
    features: Features


def skab(root: Path, out: Path, quick: bool) -> Suite:
    """Water loop, 8 sensors at 1 Hz; labels by row."""
    files = sorted(path for path in (root / "skab").glob("*/*.csv") if path.parent.name != "anomaly-free")
    tasks = []
    for path in files[::4] if quick else files:
        name = f"{path.parent.name}-{path.stem}"
        with path.open(newline="") as handle:
            head, *rows = csv.reader(handle, delimiter=";")
        label = head.index("anomaly")
        train = _write(out / f"{name}-train.csv", [head[:label], *(row[:label] for row in rows[:400])], ";")
        test = _write(out / f"{name}-test.csv", [head[: label + 1], *(row[: label + 1] for row in rows[400:])], ";")
        tasks.append(Task(name, (train,), (test,)))
    return Suite("skab", True, tuple(tasks), Features("rows", 30, smooth=30))


def nab(root: Path, out: Path, _: bool) -> Suite:
    """One temperature every 5 min; labels by row, its windows wide."""
    folder = root / "nab_machine_temperature"
    with (folder / "machine_temperature_system_failure.csv").open(newline="") as handle:
        head, *rows = csv.reader(handle)
    windows = next(iter(json.loads((folder / "windows.json").read_text()).values()))
    labels = [any(begin[:19] <= row[0] <= end[:19] for begin, end in windows) for row in rows]
    cut = min(int(len(rows) * 0.15), labels.index(True) - 1)
    train = _write(out / "train.csv", [head, *rows[:cut]])
    labelled = ([*row, str(int(label))] for row, label in zip(rows[cut:], labels[cut:], strict=True))
    test = _write(out / "test.csv", [[*head, "anomaly"], *labelled])
    return Suite("nab", True, (Task("machine-temperature", (train,), (test,)),), Features("rows", 48, smooth=24))


def adi_motor(root: Path, out: Path, quick: bool) -> Suite:
    """Motor rig, 3-axis vibration at 20 kHz, 12 faults."""
    train, test = [], []
    faults = 0
    for path in sorted((root / "adi_motor").glob("*.csv.gz")):
        name = path.name.split(".")[0]
        healthy = "_GoB_GS_BaLo_WA_" in name
        faults += not healthy
        if quick and not healthy and faults % 5:
            continue
        with gzip.open(path, "rt") as handle:
            values = np.loadtxt(handle, delimiter=";", usecols=(1, 2, 3))
        half = len(values) // 2
        if healthy:
            train.append(_numbers(out / f"{name}-train.csv", "xyz", values[: half - FRAME]))
        test.append(_numbers(out / f"{name}-test.csv", "xyz", values[half:], np.full(len(values) - half, not healthy)))
    task = Task("adi-motor", tuple(train), tuple(test), TableOptions(rate_hz=20_000))
    return Suite("adi_motor", False, (task,), Features("spectrum", FRAME, FRAME // 2))


def gearbox(root: Path, out: Path, quick: bool) -> Suite:
    """Gearbox with a broken tooth, 4 accelerometers, unseen loads; 20 kHz is nominal."""
    train: list[Path] = []
    test: list[Path] = []
    for load, state in ((load, state) for load in (0, 40, 80, 20, 60) for state in "hb"):
        path = root / "gearbox" / f"{state}30hz{load}.csv.gz"
        tested = load in (20, 60)
        if not tested and state == "b":
            continue
        with gzip.open(path, "rt") as handle:
            names = handle.readline().strip().split(",")
            values = np.loadtxt(handle, delimiter=",")
        if quick:
            values = values[: len(values) // 4]
        label = np.full(len(values), state == "b") if tested else None
        (test if tested else train).append(_numbers(out / f"{state}{load}.csv", names, values, label))
    task = Task("gearbox", tuple(train), tuple(test), TableOptions(rate_hz=20_000))
    return Suite("gearbox", False, (task,), Features("spectrum", 1024, 1024))


def hydraulic(component: str) -> Callable[[Path, Path, bool], Suite]:
    """Load cycles of a hydraulic rig; anomalous = this component below its best."""

    def adapt(root: Path, out: Path, _: bool) -> Suite:
        folder = root / "hydraulic"
        sensors = [_cycles(folder / f"{name}.txt.gz") for name in SLOW_SENSORS + FAST_SENSORS]
        values = np.stack(sensors, axis=2)  # (cycles, 60, sensors) at 1 Hz
        train, bad = hydraulic_split(np.loadtxt(folder / "profile.txt"), component)
        names = SLOW_SENSORS + FAST_SENSORS
        flat = [values[part].reshape(-1, len(names)) for part in (train, ~train)]
        label = np.repeat(bad[~train], CYCLE_S)
        label = np.concatenate((label[: CYCLE_S - 1], label[: -CYCLE_S + 1]))  # a row's: of the last cycle complete
        task = Task(
            f"hydraulic-{component}",
            (_numbers(out / "train.csv", names, flat[0]),),
            (_numbers(out / "test.csv", names, flat[1], label),),
            TableOptions(rate_hz=1.0),
            window=CYCLE_S,
            hop=CYCLE_S,
        )
        return Suite(f"hydraulic_{component}", False, (task,), Features("means", CYCLE_S, CYCLE_S))

    return adapt


def hydraulic_split(profile: Floats, component: str) -> tuple[Bools, Bools]:
    """(cycles,) whether a cycle trains, and whether the component is below its best in it.

    Args:
        profile: (cycles, ≥ 4) states of the four components.
        component: one of COMPONENTS.
    """
    column, best = COMPONENTS[component]
    good = profile[:, column] == best
    others = [i for i in range(len(COMPONENTS)) if i != column]
    # Python's hash of a tuple of integers is the same everywhere, and so is this order.
    condition = np.array([hash(tuple(states)) for states in profile[:, others].astype(int).tolist()])
    conditions = np.unique(condition[good])
    np.random.default_rng(0).shuffle(conditions)
    return good & np.isin(condition, conditions[: len(conditions) // 2]), ~good


SUITES: dict[str, Callable[[Path, Path, bool], Suite]] = {
    "skab": skab,
    "nab": nab,
    "adi_motor": adi_motor,
    "gearbox": gearbox,
    **{f"hydraulic_{component}": hydraulic(component) for component in COMPONENTS},
}
"""Adapters by name: (folder of all sets, folder for the tables, a part is enough) → suite."""


def _cycles(path: Path) -> Floats:
    """(cycles, 60) of one sensor, faster ones averaged to 1 Hz."""
    with gzip.open(path, "rt") as handle:
        values = np.loadtxt(handle)
    means: Floats = values.reshape(len(values), CYCLE_S, -1).mean(axis=2)
    return means


def _numbers(path: Path, names: Iterable[str], values: Floats, label: Bools | None = None) -> Path:
    """A table of numbers without a time column."""
    head, table = list(names), values
    if label is not None:
        head, table = [*head, "anomaly"], np.column_stack((values, label))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, table, fmt="%.9g", delimiter=",", header=",".join(head), comments="")
    return path


def _write(path: Path, rows: Iterable[list[str]], separator: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as handle:
        csv.writer(handle, delimiter=separator, lineterminator="\n").writerows(rows)
    return path
