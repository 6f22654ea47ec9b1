"""Float models → TFLite files, one rung of a ladder after the other, each made when it is asked for.

```
int8 · headroom 1 → 2 → 6 → dynamic → float32
```
The headroom is a factor on the windows that fix the int8 ranges: plain ranges saturate on drift, wide ones cost
resolution. The caller takes the first rung that passes its gate.
Rules: tensorflow runs in a child process alone (it is noisy, takes seconds to import, and can crash): models may have
been trained under any Keras backend; every converted file has float32 input and output.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from tocsin.errors import TocsinError
from tocsin.records import Floats32
from tocsin_trainer.models import FAMILIES
from tocsin_trainer.results import Fitted

HEADROOMS = (1.0, 2.0, 6.0)
LADDER = (*(("int8", headroom) for headroom in HEADROOMS), ("dynamic", 1.0), ("float32", 1.0))
LEAST = 1e-3  # scales: windows that do not move at all have some range too
REPRESENTATIVE = 256  # windows
TIMEOUT_S = 300.0  # of one conversion, the start of the child included


@dataclass(frozen=True)
class Converted:
    """One TFLite model.

    Attributes:
        family: of the model.
        precision: `int8`, `dynamic` or `float32`.
        headroom: factor on the representative windows.
        content: the file; its input is (1, T, C).
        batch_content: the same with a first dimension left open, or None.
        input_range: of linear models: lowest and highest number that int8 can tell from others; else None.
    """

    family: str
    precision: str
    headroom: float
    content: bytes
    batch_content: bytes | None = None
    input_range: tuple[float, float] | None = None


class Converter:
    """Converts the models of a training run; use it in a `with` block.

    The child starts at once and loads tensorflow while the caller still trains.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tocsin-convert-")
        self._path = Path(self._folder.name)
        self._models: list[Fitted] = []
        self._seen: list[tuple[float, float]] = []
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._child = self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            with self._child as child:
                child.kill()
        self._folder.cleanup()

    def add(self, fitted: Fitted, train_windows: Floats32) -> None:
        """Hands a model over, with the (N, T, C) windows it was fitted on, as it sees them."""
        number = len(self._models)
        fitted.model.save(self._path / f"{number}.keras")
        windows = representative(train_windows)
        np.save(self._path / f"{number}.npy", windows)
        beyond = FAMILIES[fitted.family].extremes
        extremes = windows[:0] if beyond is None else beyond(fitted.model, train_windows)
        np.save(self._path / f"{number}-extremes.npy", extremes)
        self._seen.append((min(-LEAST, float(windows.min())), max(LEAST, float(windows.max()))))
        self._models.append(fitted)

    def convert(self, fitted: Fitted, precision: str, headroom: float = 1.0) -> Converted:
        """One rung of a model that was added, without a batch file.

        Raises:
            TocsinError: the conversion failed; says of which model, and the converter's last word.
        """
        content = self._ask(fitted, precision, headroom, batch=False)
        linear = not FAMILIES[fitted.family].epochs
        seen = self._seen[self._number(fitted)] if precision == "int8" and linear else None
        reach = None if seen is None else (headroom * seen[0], headroom * seen[1])
        return Converted(fitted.family, precision, headroom, content, input_range=reach)

    def with_batch(self, fitted: Fitted, converted: Converted) -> Converted:
        """The same rung with its batch file; unchanged for a recurrent family, which gains nothing by one.

        Raises:
            TocsinError: the conversion failed.
        """
        if FAMILIES[fitted.family].recurrent:
            return converted
        content = self._ask(fitted, converted.precision, converted.headroom, batch=True)
        return replace(converted, batch_content=content)

    def _ask(self, fitted: Fitted, precision: str, headroom: float, *, batch: bool) -> bytes:
        number = self._number(fitted)
        request = {"model": number, "precision": precision, "headroom": headroom, "batch": batch, "out": "out.tflite"}
        if self._child is None:  # the last conversion ended it
            self._child = self._start()
        child = self._child
        assert child.stdin is not None and child.stdout is not None
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
        ready, _, _ = select.select([child.stdout], [], [], TIMEOUT_S)
        if ready and child.stdout.readline() == "done\n":
            return (self._path / "out.tflite").read_bytes()
        self._child = None
        raise TocsinError(
            f"the conversion of {fitted.family} to {precision}, headroom {headroom:g}, {self._end(child)}"
        )

    def _number(self, fitted: Fitted) -> int:
        return next(k for k, added in enumerate(self._models) if added is fitted)

    def _start(self) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "KERAS_BACKEND": "tensorflow",
            "CUDA_VISIBLE_DEVICES": "",
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        with (self._path / "stderr.txt").open("w") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", "tocsin_trainer.tflite_job", str(self._path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment,
            )

    def _end(self, child: subprocess.Popen[str]) -> str:
        """How the child ended, with its last line on standard error; ends it where it still hangs."""
        try:
            code = child.wait(5)
            how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            how = f"gave no answer within {TIMEOUT_S:g} s"
        with suppress(BrokenPipeError), child:
            child.kill()
        lines = (self._path / "stderr.txt").read_text(errors="replace").strip().splitlines()
        return f"{how}; its last line: {lines[-1] if lines else 'none'}"


def representative(windows: Floats32) -> Floats32:
    """(≤ 256, T, C) windows that fix the int8 ranges: evenly spaced ones, and the widest swings."""
    swing = np.abs(windows).max(axis=(1, 2))
    widest = np.argsort(swing, kind="stable")[-REPRESENTATIVE // 4 :]
    spaced = np.linspace(0, len(windows) - 1, REPRESENTATIVE * 3 // 4).astype(np.int64)
    chosen: Floats32 = windows[np.unique(np.concatenate([widest, spaced]))]
    return chosen
