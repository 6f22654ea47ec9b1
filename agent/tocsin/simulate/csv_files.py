"""The plant's samples as CSV files, as fast as they can be computed.

```
normal.csv  normal_vibration.csv    the plant without faults
test.csv    test_vibration.csv      another day of it, with the faults; column `label`
labels.csv                          start,end,kind: when which fault showed
```
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from tocsin.errors import TocsinError
from tocsin.recordings.forms import iso_stamps
from tocsin.records import Bools, Channel, Floats
from tocsin.simulate.plant import CHANNELS, FAST_CHANNELS, Plant, Step
from tocsin.simulate.process import STEP_S

BATCH = 600  # steps that are written together
FIRST_S = 1_767_571_200.0  # 2026-01-05, a Monday
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Shown:
    """A fault that showed from `start_s` to `end_s`, both included."""

    kind: str
    start_s: float
    end_s: float


def write_files(
    folder: Path,
    duration_s: float,
    seed: int,
    faults: tuple[str, ...],
    vibration_hz: float = 0.0,
    always_load: bool = False,
    told: Callable[[str], None] = lambda _: None,
) -> tuple[Shown, ...]:
    """Writes the files; those of the faults only where there are faults.

    Args:
        folder: made when missing.
        duration_s: of each recording.
        seed: of the normal day; the other day's is the next.
        faults: in the short form of `tocsin.simulate.faults`.
        vibration_hz: samples a second of the acceleration, 0 for none.
        always_load: no pauses.
        told: called with the path of each file.

    Raises:
        ConfigError: a fault cannot be.
        TocsinError: a file cannot be written.
    """
    steps = max(1, round(duration_s / STEP_S))
    test_s = FIRST_S + DAY_S * (1 + duration_s // DAY_S)
    days = [("normal", Plant(seed, FIRST_S, vibration_hz, always_load))]
    if faults:
        days.append(("test", Plant(seed + 1, test_s, vibration_hz, always_load, faults)))
    shown: tuple[Shown, ...] = ()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, plant in days:
            shown = _write_day(folder, name, plant, steps, name == "test", told)
        if faults:
            lines = (",".join((*iso_stamps(np.array([each.start_s, each.end_s])), each.kind)) for each in shown)
            (folder / "labels.csv").write_text("\n".join(["start,end,kind", *lines, ""]), "utf-8")
            told(str(folder / "labels.csv"))
    except OSError as error:
        raise TocsinError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return shown


def _write_day(
    folder: Path, name: str, plant: Plant, steps: int, labelled: bool, told: Callable[[str], None]
) -> tuple[Shown, ...]:
    spans = _Spans()
    with ExitStack() as stack:
        slow = stack.enter_context((folder / f"{name}.csv").open("w", encoding="utf-8"))
        told(slow.name)
        slow.write(_header(CHANNELS, labelled))
        fast: IO[str] | None = None
        for batch in _batches(plant, steps):
            labels = np.array([bool(step.faults) for step in batch])
            times = np.array([step.time_s for step in batch])
            _write(slow, times, np.stack([step.values for step in batch]), labels if labelled else None)
            if len(batch[0].fast):
                if fast is None:
                    fast = stack.enter_context((folder / f"{name}_vibration.csv").open("w", encoding="utf-8"))
                    told(fast.name)
                    fast.write(_header(FAST_CHANNELS, labelled))
                fast_times = np.concatenate([step.fast_time_s for step in batch])
                fast_labels = np.repeat(labels, [len(step.fast) for step in batch])
                fast_values = np.concatenate([step.fast for step in batch])
                _write(fast, fast_times, fast_values, fast_labels if labelled else None)
            for step in batch:
                spans.add(step)
    return spans.closed()


def _batches(plant: Plant, steps: int) -> Iterator[list[Step]]:
    for first in range(0, steps, BATCH):
        yield [plant.step() for _ in range(min(BATCH, steps - first))]


def _header(channels: tuple[Channel, ...], labelled: bool) -> str:
    return ",".join(["time", *(f"{c.name} [{c.unit}]" for c in channels), *(["label"] * labelled)]) + "\n"


def _write(handle: IO[str], time_s: Floats, values: Floats, labels: Bools | None) -> None:
    form = "%s" + ",%.6g" * values.shape[1] + ("\n" if labels is None else ",%d\n")
    columns: list[list[object]] = [list(iso_stamps(time_s)), *values.T.tolist()]
    if labels is not None:
        columns.append(labels.tolist())
    text = "".join(form % row for row in zip(*columns, strict=True))
    handle.write(text.replace("nan", ""))


class _Spans:
    """Collects from when to when each fault showed."""

    def __init__(self) -> None:
        self._open: dict[str, list[float]] = {}
        self._closed: list[Shown] = []

    def add(self, step: Step) -> None:
        for name in [name for name in self._open if name not in step.faults]:
            self._closed.append(Shown(name, *self._open.pop(name)))
        for name in step.faults:
            self._open.setdefault(name, [step.time_s, step.time_s])[1] = step.time_s

    def closed(self) -> tuple[Shown, ...]:
        rest = [Shown(name, *span) for name, span in self._open.items()]
        return tuple(sorted(self._closed + rest, key=lambda shown: (shown.start_s, shown.kind)))
