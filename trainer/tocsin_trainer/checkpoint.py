"""Where a training stands, on disk after every epoch, so that a killed one goes on.

Rules: one file a training, replaced at once, arrays and nothing that can execute; the file's name holds a digest of
data and options, so that what belongs to others is never taken; what is drawn depends on seed and epoch alone, so there
is no generator to keep; a training that came to its end is taken by any backend, so that a host without TensorFlow can
train what another one converts.
"""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tocsin import __version__
from tocsin.records import Floats, Floats32

SAMPLED = 2048  # windows that stand for all in the digest


@dataclass
class Course:
    """How far a training has come.

    Attributes:
        losses: (training, validation) of each epoch done.
        best: validation loss of `weights`.
        weights: the best so far; empty before the first.
        stale: epochs since then.
        over: nothing is left to do.
    """

    losses: list[tuple[float, float]] = field(default_factory=list)
    best: float = float("inf")
    weights: list[Floats] = field(default_factory=list)
    stale: int = 0
    over: bool = False


def digest(train: Floats32, validation: Floats32, *settings: object) -> str:
    """Sixteen letters that stand for windows, settings and the version of this code."""
    made = hashlib.sha256(repr((__version__, *settings)).encode())
    for windows in (train, validation):
        chosen = np.unique(np.linspace(0, len(windows) - 1, SAMPLED).astype(np.int64))
        made.update(repr((len(windows), *windows.shape[1:])).encode())
        made.update(np.ascontiguousarray(windows[chosen]).tobytes())
    return made.hexdigest()[:16]


class Checkpoint:
    """The file of one training.

    Args:
        folder: made where it is missing; None: nothing is written.
        name: of the training, with its digest.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = None if folder is None else folder / f"{name}.npz"
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def save(self, model: Any, course: Course) -> None:
        """Replaces what was there."""
        if self._path is None:
            return
        arrays = {f"state_{n}": np.asarray(v.numpy()) for n, v in enumerate(_state(model))}
        arrays |= {f"best_{n}": weight for n, weight in enumerate(course.weights)}
        arrays["losses"] = np.asarray(course.losses, np.float64)
        arrays["progress"] = np.array([course.best, course.stale, course.over], np.float64)
        unfinished = self._path.with_suffix(".tmp")
        with unfinished.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # keywords are arrays
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._path)

    def load(self, model: Any) -> Course | None:
        """Puts model and optimizer where they were; None where there is no such file, or it is damaged."""
        if self._path is None or not self._path.exists():
            return None
        try:
            with np.load(self._path, allow_pickle=False) as kept:
                arrays = dict(kept)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        best, stale, over = arrays["progress"]
        losses = [(float(a), float(b)) for a, b in arrays["losses"].reshape(-1, 2)]
        weights = [arrays[f"best_{n}"] for n in range(sum(name.startswith("best_") for name in arrays))]
        course = Course(losses, float(best), weights, int(stale), bool(over))
        if not course.over:
            state = _state(model)
            kept = [arrays[f"state_{n}"] for n in range(sum(name.startswith("state_") for name in arrays))]
            if [array.shape for array in kept] != [tuple(variable.shape) for variable in state]:
                return None  # of another number format
            for variable, array in zip(state, kept, strict=True):
                variable.assign(array)
        return course


def discard(folder: Path | None) -> None:
    """Removes the checkpoints of a run that came to its end."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _state(model: Any) -> Sequence[Any]:
    """All that changes in training: weights, generators, optimizer."""
    model.optimizer.build(model.trainable_variables)
    metrics = {id(variable) for variable in model.metrics_variables}  # made with the first batch, and reset with each
    return [*(v for v in model.variables if id(v) not in metrics), *model.optimizer.variables]
