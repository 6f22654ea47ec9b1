"""Float models → TFLite files, one rung of a ladder after the other, each made when it is asked for.

```
int8 · headroom 1 → 1.5 → 2 → 3 → 6 → dynamic → float32
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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from tocsin.errors import TocsinError
from tocsin.records import Floats32
from tocsin_trainer.models import FAMILIES
from tocsin_trainer.results import Fitted

HEADROOMS = (1.0, 1.5, 2.0, 3.0, 6.0)
LADDER = (*(("int8", headroom) for headroom in HEADROOMS), ("dynamic", 1.0), ("float32", 1.0))
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
    """

    family: str
    precision: str
    headroom: float
    content: bytes
    batch_content: bytes | None = None


class Converter:
    """Converts models of one training run; use it in a `with` block.

    The child starts at once and loads tensorflow while the caller still trains.

    Args:
        train_windows: (N, T, C) float32, as the models see them.
    """

    def __init__(self, train_windows: Floats32) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tocsin-convert-")
        self._path = Path(self._folder.name)
        np.save(self._path / "representative.npy", representative(train_windows))
        self._models: dict[str, Any] = {}
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._child = self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._folder.cleanup()

    def ladder(self, fitted: Fitted) -> Iterator[Converted]:
        """Every rung, in order, converted as the caller comes to it.

        Raises:
            TocsinError: a conversion failed; `convert` can still make the rungs below.
        """
        for precision, headroom in LADDER:
            yield self.convert(fitted, precision, headroom)

    def convert(self, fitted: Fitted, precision: str, headroom: float = 1.0) -> Converted:
        """One rung, without a batch file.

        Raises:
            TocsinError: the conversion failed; says of which model, and the converter's last word.
        """
        return Converted(fitted.family, precision, headroom, self._ask(fitted, precision, headroom, batch=False))

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
        family = fitted.family
        if self._models.get(family) is not fitted.model:
            if family in self._models:
                raise TocsinError(f"two models of family {family} in one converter: expected one a training run")
            fitted.model.save(self._path / f"{family}.keras")
            self._models[family] = fitted.model
        request = {"family": family, "precision": precision, "headroom": headroom, "batch": batch, "out": "out.tflite"}
        if self._child is None:  # the last conversion crashed
            self._child = self._start()
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            self._child.stdin.write(json.dumps(request) + "\n")
            self._child.stdin.flush()
            ready, _, _ = select.select([self._child.stdout], [], [], TIMEOUT_S)
            answer = self._child.stdout.readline() if ready else ""
        except BrokenPipeError:
            answer, ready = "", [self._child.stdout]
        if answer.strip() != "done":
            how = self._stop() if ready else f"gave no answer within {TIMEOUT_S:.0f} s"
            self._stop()
            raise TocsinError(f"the conversion of {family} to {precision} (headroom {headroom:g}) {how}")
        return (self._path / "out.tflite").read_bytes()

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

    def _stop(self) -> str:
        """Ends the child and says how it had ended, with its last line on standard error."""
        child, self._child = self._child, None
        if child is None:
            return "ended"
        assert child.stdin is not None and child.stdout is not None
        child.stdout.close()
        try:
            child.stdin.close()
            code = child.wait(5)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            child.kill()
            code = child.wait()
        lines = (self._path / "stderr.txt").read_text(errors="replace").strip().splitlines()
        end = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
        return f"{end}; its last line: {lines[-1] if lines else 'none'}"


def representative(windows: Floats32) -> Floats32:
    """(≤ 256, T, C) windows that fix the int8 ranges: evenly spaced ones, and the widest swings."""
    swing = np.abs(windows).max(axis=(1, 2))
    widest = np.argsort(swing, kind="stable")[-REPRESENTATIVE // 4 :]
    spaced = np.linspace(0, len(windows) - 1, REPRESENTATIVE * 3 // 4).astype(np.int64)
    chosen: Floats32 = windows[np.unique(np.concatenate([widest, spaced]))]
    return chosen
