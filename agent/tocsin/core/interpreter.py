"""One TFLite model file, whichever runtime is installed.

Rules: tried in order are LiteRT, tflite_runtime and tensorflow; one thread an interpreter (a second one is slower
for such small models); an interpreter belongs to one thread; recurrent state is cleared before each window.
"""

import importlib
import platform
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np

from tocsin.errors import BundleError, TocsinError
from tocsin.records import Floats32

RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite")


@cache
def runtime() -> ModuleType:
    """The first TFLite runtime that imports; a module with the class `Interpreter`.

    Raises:
        TocsinError: none is installed.
    """
    for name in RUNTIMES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise TocsinError("no TFLite runtime is installed: run `pip install ai-edge-litert` (32-bit Arm: tflite-runtime)")


def runtime_name() -> str:
    """Name of the runtime in use, as its package is called: `ai_edge_litert`, `tflite_runtime` or `tensorflow`."""
    return runtime().__name__.partition(".")[0]


def runtime_id() -> str:
    """Runtime, its version and the machine: `ai_edge_litert 2.3.0 x86_64`. Equal ones round alike."""
    name = runtime_name()
    try:
        version = metadata.version(name.replace("_", "-"))
    except metadata.PackageNotFoundError:
        version = "?"
    return f"{name} {version} {platform.machine()}"


class TfliteModel:
    """A float-in, float-out TFLite model of windows (int8 inside or not).

    Args:
        content: the model file; its input is (1, T, C) float32.
        batch_content: the same model with a first dimension left open, for many windows at once, or None.

    Raises:
        BundleError: the runtime refuses the file, or its input is not float32.
    """

    BATCH = 64  # windows a call of the batch file; the rest goes through the single one

    def __init__(self, content: bytes, batch_content: bytes | None = None) -> None:
        self._one = _Signature(content)
        self._many = None if batch_content is None else _Signature(batch_content, self.BATCH)
        self.input_shape: tuple[int, ...] = self._one.input_shape
        self.output_shape: tuple[int, ...] = self._one.output_shape

    def predict(self, windows: Floats32) -> Floats32:
        """(K, T, C) float32 → (K, …) float32."""
        out = np.empty((len(windows), *self.output_shape[1:]), np.float32)
        done = 0
        if self._many is not None:
            for done in range(self.BATCH, len(windows) + 1, self.BATCH):
                self._many.run(windows[done - self.BATCH : done], out[done - self.BATCH : done])
        for k in range(done, len(windows)):
            self._one.run(windows[k : k + 1], out[k : k + 1])
        return out


class _Signature:
    """An interpreter with its tensors allocated, for one fixed number of windows."""

    def __init__(self, content: bytes, batch: int | None = None) -> None:
        try:
            interpreter: Any = runtime().Interpreter(model_content=content, num_threads=1)
            entry = interpreter.get_input_details()[0]
            if batch is not None:
                interpreter.resize_tensor_input(entry["index"], [batch, *entry["shape"][1:]])
            interpreter.allocate_tensors()
            entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        except (ValueError, RuntimeError, IndexError) as error:
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BundleError(f"{runtime_name()} refuses the model file: {line}") from error
        if entry["dtype"] is not np.float32 or result["dtype"] is not np.float32:
            raise BundleError(
                f"expected a model with float32 input and output, got {entry['dtype']}, {result['dtype']}"
            )
        self.input_shape = tuple(int(n) for n in entry["shape"])
        self.output_shape = tuple(int(n) for n in result["shape"])
        self._interpreter = interpreter
        self._input, self._output = interpreter.tensor(entry["index"]), interpreter.tensor(result["index"])

    def run(self, windows: Floats32, out: Floats32) -> None:
        self._interpreter.reset_all_variables()
        self._input()[:] = windows
        self._interpreter.invoke()
        out[:] = self._output()
