"""The child process that turns Keras files into TFLite: `python -m tocsin_trainer.tflite_job FOLDER`.

Reads one JSON request a line from standard input, `{"model", "precision", "headroom", "batch", "out"}`; writes the
file `out` into the folder and answers `done` on standard output. A failure ends the process: its last line on standard
error says why.
The folder holds `MODEL.keras`, and in `MODEL.npy` and `MODEL-extremes.npy` representative windows (N, T, C) float32, of
which the headroom is for the first alone. Other processes never
import this module, because it imports tensorflow.
"""

import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# keras and tensorflow load these where they are installed; a conversion needs none, and starts in half the time.
sys.modules |= dict.fromkeys(("jax", "matplotlib", "pandas", "sklearn"))  # type: ignore[arg-type]  # None: not there

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from tocsin.records import Floats32  # noqa: E402


def main(folder: Path) -> None:
    """Serves requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the converter prints to standard output
    saved: set[Path] = set()
    for line in sys.stdin:
        request = json.loads(line)
        model, many = request["model"], request["batch"]
        path = folder / f"{model}-{'many' if many else 'one'}"
        if path not in saved:
            _save(keras.saving.load_model(folder / f"{model}.keras", compile=False), None if many else 1, path)
            saved.add(path)
        windows = amplified(np.load(folder / f"{model}.npy"), request["headroom"])
        windows = np.concatenate([windows, np.load(folder / f"{model}-extremes.npy")])
        content = _converted(path, request["precision"], windows)
        (folder / request["out"]).write_bytes(content)
        answers.write("done\n")
        answers.flush()


def amplified(windows: Floats32, headroom: float) -> Floats32:
    """The windows, and the same ones times the headroom where that is above 1."""
    return windows if headroom <= 1 else np.concatenate([windows, windows * np.float32(headroom)])


def _converted(path: Path, precision: str, representative: Floats32) -> bytes:
    def samples() -> Iterator[list[Floats32]]:
        for window in representative:
            yield [window[None]]

    converter = tf.lite.TFLiteConverter.from_saved_model(str(path))
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "int8":
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    content: bytes = converter.convert()
    return content


def _save(model: Any, batch: int | None, path: Path) -> None:
    """A SavedModel with one signature of float32 (batch, T, C)."""
    shape = (batch, *model.input_shape[1:])
    twin = keras.models.clone_model(model, input_tensors=keras.Input(batch_shape=shape), clone_function=_twin_of_layer)
    twin.set_weights(model.get_weights())
    module = tf.Module()
    module.weights = [variable.value for variable in twin.variables]
    serve = tf.function(lambda windows: twin(windows, training=False), autograph=False)
    module.serve = serve
    signature = serve.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    tf.saved_model.save(module, str(path), signatures=signature)


def _twin_of_layer(layer: Any) -> Any:
    kind = FusedLSTM if type(layer) is keras.layers.LSTM else type(layer)
    return kind.from_config(layer.get_config())


class FusedLSTM(keras.layers.LSTM):  # type: ignore[misc]  # keras has no types
    """An LSTM that the converter recognises and makes one operator of."""

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        """(1, T, C) → (1, T, units), or (1, units) for the last step alone."""
        state = tf.zeros((sequences.shape[0], self.units))
        weights = (self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias)
        every = _composite()(sequences, state, state, *(tf.convert_to_tensor(weight) for weight in weights))[1]
        return every if self.return_sequences else every[:, -1]


def _composite() -> Callable[..., Any]:
    """A function whose attribute, argument order and five results are what the converter's LSTM fusion matches.

    Keras 3 no longer sets the attribute. Each layer needs a name of its own.
    """
    attributes = {"api_implements": f"lstm_{uuid.uuid4().hex}", "time_major": False, "go_backwards": False}

    @tf.function(autograph=False, experimental_attributes=attributes)  # type: ignore[untyped-decorator]
    def fused(x: Any, h0: Any, c0: Any, kernel: Any, recurrent: Any, bias: Any) -> Any:
        steps = x.shape[1]
        outputs = tf.TensorArray(tf.float32, size=steps, element_shape=h0.shape)

        def step(t: Any, h: Any, c: Any, outputs: Any) -> Any:
            gates = tf.matmul(x[:, t], kernel) + tf.matmul(h, recurrent) + bias
            i, f, g, o = tf.split(gates, 4, axis=-1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            return t + 1, h, c, outputs.write(t, h)

        start = [tf.constant(0), h0, c0, outputs]
        _, h, c, outputs = tf.while_loop(lambda t, *_: t < steps, step, start, maximum_iterations=steps)
        return h, tf.transpose(outputs.stack(), [1, 0, 2]), h, c, tf.constant(0.0)

    return fused  # type: ignore[no-any-return]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
